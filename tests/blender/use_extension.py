"""Install the extension as an artist does, draw a mask, track, render the compositor; tell what happened."""

import importlib
import json
import os
import subprocess
import sys

told = json.loads(sys.argv[2])
os.environ["BLENDER_USER_RESOURCES"] = told["user"]

import bpy  # noqa: E402  # where the user's files are is read when it is imported

WIDTH, HEIGHT = told["size"]
MODULE = "bl_ext.user_default.rotomem"


def check():
    """Blender's own tool is content with folder and zip."""
    tool = os.path.join(bpy.utils.resource_path("LOCAL"), "scripts/addons_core/bl_pkg/cli/blender_ext.py")
    for command in (
        ["validate", told["source"]],
        ["build", "--source-dir", told["source"], "--output-dir", told["out"]],
        ["validate", told["zip"]],
    ):
        done = subprocess.run([sys.executable, tool, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def rectangle(x0, y0, x1, y1):
    """A mask of a rectangle of pixels, y down."""
    mask = bpy.data.masks.new("hero")
    spline = mask.layers.new(name="shape").splines.new()
    spline.use_cyclic = True
    spline.points.add(3)
    long = max(WIDTH, HEIGHT)
    for point, (x, y) in zip(spline.points, ((x0, y0), (x1, y0), (x1, y1), (x0, y1)), strict=True):
        place = (x - WIDTH / 2) / long + 0.5, (HEIGHT / 2 - y) / long + 0.5
        point.handle_type = "FREE"
        point.co, point.handle_left, point.handle_right = place, place, place
    return mask


def painted(name, value):
    """A painted image: the left half covered."""
    image = bpy.data.images.new(name, WIDTH, HEIGHT, alpha=True, float_buffer=True, is_data=True)
    image.pixels.foreach_set([c for _ in range(HEIGHT) for x in range(WIDTH) for c in (1, 1, 1, value * (x < 20))])
    image.update()
    return image


def render(scene, frames, name="comp"):
    settings = scene.render.image_settings
    if bpy.app.version >= (5, 0, 0):
        settings.media_type = "IMAGE"
    settings.file_format, settings.color_depth, settings.color_mode = "OPEN_EXR", "32", "RGBA"
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = WIDTH, HEIGHT, 100
    paths = {}
    for frame in frames:
        scene.frame_set(frame)
        paths[frame] = scene.render.filepath = os.path.join(told["user"], f"{name}.{frame}.exr")
        bpy.ops.render.render(write_still=True)
    return paths


def keys_of_nodes(host, scene):
    """Keys of nodes of each kind, made in the artist's tree, which stays as it is and writes nothing."""
    settings, tree = scene.rotomem, host.tree_of(scene)
    source, cut, other = (tree.nodes.new(f"CompositorNode{kind}") for kind in ("Image", "SetAlpha", "RLayers"))
    source.image = painted("soft", 0.25)
    host.apply_mask(cut)
    tree.links.new(source.outputs["Image"], cut.inputs["Image"])
    tree.links.new(source.outputs["Alpha"], cut.inputs["Alpha"])
    drawn = tree.nodes.new("CompositorNodeMask")
    drawn.mask = bpy.data.masks["hero"]
    written = tree.nodes.new("CompositorNodeOutputFile")
    folder = os.path.join(told["out"], "written")
    setattr(written, "directory" if bpy.app.version >= (5, 0, 0) else "base_path", folder)
    tree.links.new(other.outputs["Image"], written.inputs[0])
    settings.objects.clear()
    for node in (source, cut, drawn):
        thing = settings.objects.add()
        thing.name, thing.source, thing.node, thing.frames = node.name, "NODE", node.name, "2, 3"

    def state():
        links = sorted((k.from_node.name, k.from_socket.name, k.to_node.name, k.to_socket.name) for k in tree.links)
        counts = len(bpy.data.scenes), len(bpy.data.node_groups), len(bpy.data.images), scene.frame_current
        return sorted(n.name for n in tree.nodes), links, counts

    before = state()
    masks = host.key_masks(bpy.context, settings, os.path.join(told["out"], "nodes"))
    assert state() == before and not os.path.exists(folder), (before, state())
    settings.objects[0].node = "gone"
    try:
        host.key_masks(bpy.context, settings, told["out"])
    except host.HostProblem as problem:
        return masks, str(problem)
    return masks, ""


def main():
    said = {"version": bpy.app.version_string}
    check()
    bpy.ops.extensions.package_install_files(repo="user_default", filepath=told["zip"], enable_on_install=True)
    host = importlib.import_module(MODULE + ".host")
    preferences = bpy.context.preferences.addons[MODULE].preferences
    scene = bpy.context.scene
    settings = scene.rotomem

    preferences.engine = "/no/such/python"
    try:
        bpy.ops.rotomem.check()
    except RuntimeError as error:
        said["missing"] = str(error)
    preferences.engine = told["engine"]
    bpy.ops.rotomem.check()
    said["check"] = preferences.said

    clip = bpy.data.movieclips.load(told["plate"] % 1001)
    clip.frame_start = 1  # the scene counts from 1, the files from 1001
    scene.frame_start, scene.frame_end = 1, 4
    scene.frame_set(1)
    settings.crypto = True
    settings.clip, settings.folder, settings.model, settings.size = clip, told["out"], told["model"], 0
    try:
        bpy.ops.rotomem.track()
    except RuntimeError as error:
        said["no_object"] = str(error)
    for name in ("hero / 1", "car"):
        bpy.ops.rotomem.object_add()
        settings.objects[-1].name = name
    settings.objects[0].mask = rectangle(32, 12, 56, 36)
    settings.objects[0].frames = "1"
    settings.objects[1].source, settings.objects[1].image = "IMAGE", painted("car", 0.5)
    # A modal operator has no event loop here: it works to the end instead.
    said["track"] = list(bpy.ops.rotomem.track("INVOKE_DEFAULT"))
    said["message"], said["running"] = settings.message, settings.running
    tree = scene.compositing_node_group if bpy.app.version >= (5, 0, 0) else scene.node_tree
    said["nodes"] = sorted(node.label for node in tree.nodes if node.label)
    said["comp"] = render(scene, told["frames"])
    crypto = next(node for node in tree.nodes if node.label == "Cryptomatte")
    output = host.output_socket(tree)
    for link in output.links:
        tree.links.remove(link)
    tree.links.new(crypto.outputs["Matte"], output)
    said["crypto"] = render(scene, told["frames"], "crypto")
    said["masks"] = list(bpy.ops.rotomem.masks("INVOKE_DEFAULT")), settings.message
    (said["mask"],) = host.rasterise(bpy.data.masks["hero / 1"], [1], WIDTH, HEIGHT, told["out"], "mask")
    said["keys"] = os.listdir(os.path.join(told["out"], "keys"))
    said["nodes_masks"], said["no_node"] = keys_of_nodes(host, scene)
    bpy.ops.preferences.addon_disable(module=MODULE)
    said["left"] = hasattr(bpy.types.Scene, "rotomem")
    print("\n" + json.dumps(said))


main()
