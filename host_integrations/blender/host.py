# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's data to a request of the engine's, and its mattes to Blender's data. All calls in the main thread.

What differs between 4.2, 4.5 and 5.x is below `Versions`; `_scratch` frees the tree that 5.x has beside the scene.
"""

import contextlib
import itertools
import os
import re
import shutil

import bpy

NEW = bpy.app.version >= (5, 0, 0)


class HostProblem(Exception):
    """Something the artist has to put right; the text says what."""


# The plate ----------------------------------------------------------------------------------------------------


def plate_of(settings):
    """The plate's path as the engine takes it, first frame's number on disk, its frame in the scene, size."""
    source = settings.clip or settings.image
    if source is None:
        raise HostProblem("No plate. Choose a movie clip or an image sequence as the plate.")
    path = os.path.abspath(bpy.path.abspath(source.filepath, library=source.library))
    if not os.path.isfile(path):
        raise HostProblem(f"The plate is not on disk: {path}")
    if source.source != "SEQUENCE":
        start = settings.clip.frame_start if settings.clip else 1
        return path, None, start, tuple(source.size)
    head, number, suffix = split_frame(path)
    if number is None:
        raise HostProblem(f"The plate's file name has no frame number: {path}")
    # A clip shows its first file on `frame_start`; rotomem counts as the files do.
    start = settings.clip.frame_start if settings.clip else int(number)
    return f"{head}%0{len(number)}d{suffix}", int(number), start, tuple(source.size)


def split_frame(path):
    """Path before the frame number, the number's digits or None, path after it."""
    folder, name = os.path.split(path)
    stem, suffix = os.path.splitext(name)
    found = re.search(r"(\d+)$", stem)
    if not found:
        return path, None, ""
    return os.path.join(folder, stem[: found.start()]), found[1], suffix


def plate_size(settings):
    source = settings.clip or settings.image
    if source.size[0]:
        return tuple(source.size)
    # A sequence tells its size only once a file of it has been read.
    image = bpy.data.images.load(bpy.path.abspath(source.filepath, library=source.library), check_existing=False)
    try:
        return tuple(image.size)
    finally:
        bpy.data.images.remove(image)


# Keys out -----------------------------------------------------------------------------------------------------


def key_masks(context, settings, folder):
    """Write the key masks of every object; returns texts as `rotomem track --mask` takes them.

    Raises HostProblem naming the object.
    """
    if not settings.objects:
        raise HostProblem("No objects. Add one and choose the mask or image that shows it.")
    names = [thing.name for thing in settings.objects]
    if len(set(names)) < len(names):
        raise HostProblem("Two objects have the same name. Rename one.")
    _, first, start, _ = plate_of(settings)
    offset = 0 if first is None else first - start
    texts = []
    for thing in settings.objects:
        try:
            texts += _KEYS[thing.source](context, settings, thing, folder, offset)
        except HostProblem as problem:
            raise HostProblem(f"{thing.name}: {problem}") from None
    return texts


def _keys_of_mask(context, settings, thing, folder, offset):
    if thing.mask is None:
        raise HostProblem("choose a mask.")
    frames = listed(thing.frames) or mask_frames(thing.mask) or [context.scene.frame_current]
    width, height = plate_size(settings)
    paths = rasterise(thing.mask, frames, width, height, folder, safe(thing.name))
    return [f"{thing.name}@{frame + offset}={path}" for frame, path in zip(frames, paths, strict=True)]


def _keys_of_image(context, settings, thing, folder, offset):
    if thing.image is None:
        raise HostProblem("choose an image.")
    size, wanted = tuple(thing.image.size), plate_size(settings)
    if size != wanted:
        raise HostProblem(f"the image is {size[0]}x{size[1]}, the plate {wanted[0]}x{wanted[1]}.")
    frames = listed(thing.frames) or [context.scene.frame_current]
    path = os.path.join(folder, f"{safe(thing.name)}.{frames[0]}.exr")
    save_alpha(thing.image, path)
    return [f"{thing.name}@{frame + offset}={path}" for frame in frames]


def _keys_of_file(context, settings, thing, folder, offset):
    path = os.path.abspath(bpy.path.abspath(thing.path)) if thing.path else ""
    if not os.path.isfile(path):
        raise HostProblem("choose a file that exists.")
    _, number, _ = split_frame(path)
    frames = listed(thing.frames) or ([int(number)] if number else [context.scene.frame_current + offset])
    return [f"{thing.name}@{frame}={path}" for frame in frames]


def _keys_of_node(context, settings, thing, folder, offset):
    tree = tree_of(context.scene)
    if tree is None or thing.node not in tree.nodes:
        told = f"the scene's compositor has no node {thing.node!r}. Choose" if thing.node else "choose"
        raise HostProblem(f"{told} a node of the compositor, by its name.")
    frames = listed(thing.frames) or [context.scene.frame_current]
    paths = render_node(thing.node, frames, *plate_size(settings), folder, safe(thing.name))
    return [f"{thing.name}@{frame + offset}={path}" for frame, path in zip(frames, paths, strict=True)]


_KEYS = {"MASK": _keys_of_mask, "IMAGE": _keys_of_image, "FILE": _keys_of_file, "NODE": _keys_of_node}


def listed(text):
    """`1001, 1050` as numbers. Raises HostProblem for anything else."""
    try:
        return sorted({int(word) for word in text.replace(",", " ").split()})
    except ValueError:
        raise HostProblem(f"frames are numbers such as 1001, 1050; got {text!r}.") from None


def mask_frames(mask):
    """Frames on which a mask's shapes are keyed."""
    frames = set()
    for data in [mask.animation_data] if mask.animation_data else []:
        for curve in getattr(data.action, "fcurves", []) if data.action else []:
            frames.update(round(point.co[0]) for point in curve.keyframe_points)
    # Shape keys of masks are not told to Python; their frames are looked for by stepping through the shapes.
    return sorted(frames) or shape_frames(mask)


def shape_frames(mask):
    """Frames where the motion of a mask's points bends: what its shape keys can be known by."""
    scene = bpy.context.scene
    before, frames, shapes = scene.frame_current, range(scene.frame_start, scene.frame_end + 1), []
    try:
        for frame in frames:
            scene.frame_set(frame)
            shapes.append([c for layer in mask.layers for s in layer.splines for p in s.points for c in p.co])
    finally:
        scene.frame_set(before)
    steps = [[b - a for a, b in zip(one, two, strict=False)] for one, two in itertools.pairwise(shapes)]
    if not any(abs(c) > 1e-6 for step in steps for c in step):
        return []
    bends = [
        frames[i + 1]
        for i, (one, two) in enumerate(itertools.pairwise(steps))
        if len(one) != len(two) or any(abs(b - a) > 1e-5 for a, b in zip(one, two, strict=False))
    ]
    return [frames[0], *bends, frames[-1]]


def safe(name):
    return re.sub(r"[^\w.-]", "_", name) or "object"


def rasterise(mask, frames, width, height, folder, name):
    """The mask as Blender draws it, an EXR a frame."""
    with _scratch(width, height) as (scene, tree):
        node = tree.nodes.new("CompositorNodeMask")
        node.mask = mask
        tree.links.new(node.outputs[0], output_socket(tree))
        return [path + ":R" for path in _rendered(scene, frames, folder, name)]


def render_node(node, frames, width, height, folder, name):
    """The coverage that a node of the scene's compositor gives, an EXR a frame: its Alpha, Matte or Mask; else the
    alpha of its Image; else its first output. Rendered in a copy of scene and tree, without what the node needs not.
    """
    with _scratch(width, height, bpy.context.scene) as (scene, tree):
        node = tree.nodes[node]
        keep_upstream(tree, node)
        sockets = {socket.name: socket for socket in reversed(node.outputs) if socket.enabled}
        if not sockets:
            raise HostProblem(f"the node {node.name} has no output. Choose the one before it.")
        coverage = next((sockets[n] for n in ("Alpha", "Matte", "Mask") if n in sockets), None)
        channel = "A" if coverage is None and "Image" in sockets else "R"
        chosen = coverage or sockets.get("Image") or list(sockets.values())[-1]
        tree.links.new(chosen, output_socket(tree))
        return [f"{path}:{channel}" for path in _rendered(scene, frames, folder, name)]


def keep_upstream(tree, node):
    """Leave of a tree what a node depends on: no files are written, no 3D is rendered for others."""
    needed, found = {node.name}, [node]
    while found:
        for socket in found.pop().inputs:
            for link in socket.links:
                if link.from_node.name not in needed:
                    needed.add(link.from_node.name)
                    found.append(link.from_node)
    for other in [n for n in tree.nodes if n.name not in needed]:
        tree.nodes.remove(other)


@contextlib.contextmanager
def _scratch(width, height, of=None):
    """A scene and its compositing tree that render keys, empty or a copy; afterwards all is as it was."""
    shown = bpy.context.scene
    before, tree = shown.frame_current, None
    scene = of.copy() if of else bpy.data.scenes.new("rotomem keys")
    try:
        tree = copied_compositor(scene, of) if of else compositor(scene)
        scene.render.resolution_x, scene.render.resolution_y = width, height
        scene.render.resolution_percentage = 100
        scene.render.use_sequencer, scene.render.use_compositing = False, True
        scene.render.use_border = scene.render.use_multiview = False
        scene.view_settings.view_transform = "Raw"
        scene.render.dither_intensity = 0
        exr(scene)
        yield scene, tree
    finally:
        shown.frame_set(before)
        bpy.data.scenes.remove(scene)
        if NEW and tree is not None:
            bpy.data.node_groups.remove(tree)


def _rendered(scene, frames, folder, name):
    os.makedirs(folder, exist_ok=True)
    # Blender reads {words} and # in the path of a render as templates: it is given one without, of its own.
    scene.render.filepath = os.path.join(bpy.app.tempdir, "rotomem_key.exr")
    paths = []
    for frame in frames:
        bpy.context.scene.frame_set(frame)  # a layer's animated alpha follows the scene that is shown, and no other
        scene.frame_set(frame)
        bpy.ops.render.render(scene=scene.name, write_still=True)
        paths.append(os.path.join(folder, f"{name}.{frame}.exr"))
        shutil.move(scene.render.filepath, paths[-1])
    return paths


def save_alpha(image, path):
    """The coverage an image shows, as an EXR: its alpha where that says anything, else its red channel."""
    width, height = image.size
    pixels = [0.0] * (width * height * image.channels)
    image.pixels.foreach_get(pixels)
    alpha = pixels[3 :: image.channels] if image.channels == 4 else []
    values = alpha if alpha and min(alpha) < 1 else pixels[0 :: image.channels]
    rgba = [0.0] * (width * height * 4)
    for channel in range(3):
        rgba[channel::4] = values
    rgba[3::4] = [1.0] * len(values)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    made = bpy.data.images.new("rotomem key", width, height, float_buffer=True, is_data=True)
    try:
        made.pixels.foreach_set(rgba)
        made.filepath_raw, made.file_format = path, "OPEN_EXR"
        made.save()
    finally:
        bpy.data.images.remove(made)


# Mattes in ----------------------------------------------------------------------------------------------------


def load_mattes(context, settings, report):
    """The run's mattes as an image sequence, and in the compositor where that is wanted. Returns the image."""
    first_file = report["outputs"][0]
    _head, number, _suffix = split_frame(first_file)
    first = int(number) if number else 1
    image = bpy.data.images.load(first_file, check_existing=True)
    image.colorspace_settings.name = "Non-Color"
    image.name = "rotomem {}".format(", ".join(report["objects"]))
    if number:
        image.source = "SEQUENCE"
    if settings.wire:
        wire(context.scene, settings, image, report, first)
    return image


def wire(scene, settings, image, report, first):
    """Plate, mattes and a Set Alpha for every object in the scene's compositor; what is there stays."""
    tree = compositor(scene)
    for node in [n for n in tree.nodes if n.get("rotomem")]:
        tree.nodes.remove(node)
    _, plate_first, start, _ = plate_of(settings)
    shift = (plate_first or 1) - start
    if settings.clip:
        plate = tree.nodes.new("CompositorNodeMovieClip")
        plate.clip = settings.clip
    else:
        plate = tree.nodes.new("CompositorNodeImage")
        plate.image = settings.image
        follow(plate, plate_first or 1, settings.image.frame_duration, shift)
    mattes = tree.nodes.new("CompositorNodeImage")
    mattes.image = image
    follow(mattes, first, report["frames_asked"], shift)
    plate.label, mattes.label = "Plate", "Mattes"
    plate.location, mattes.location = (-700, 200), (-700, -200)
    cuts = []
    for i, (name, layer) in enumerate(report["objects"].items()):
        cut = tree.nodes.new("CompositorNodeSetAlpha")
        apply_mask(cut)
        cut.label, cut.location = name, (-300, 200 - 220 * i)
        tree.links.new(plate.outputs["Image"], cut.inputs["Image"])
        tree.links.new(socket_of(mattes, layer), cut.inputs["Alpha"])
        cuts.append(cut)
    crypto = [cryptomatte(tree, report, first, shift)] if report.get("also", {}).get("crypto") else []
    for node in (plate, mattes, *cuts, *crypto):
        node["rotomem"] = True
    output = output_socket(tree)
    if cuts and not output.links:
        tree.links.new(cuts[0].outputs["Image"], output)


def cryptomatte(tree, report, first, shift):
    """A Cryptomatte node that shows the first object; others are picked in it."""
    image = bpy.data.images.load(report["also"]["crypto"][0], check_existing=True)
    image.name, image.colorspace_settings.name = "rotomem Cryptomatte", "Non-Color"
    node = tree.nodes.new("CompositorNodeCryptomatteV2")
    node.label, node.location = "Cryptomatte", (-700, -600)
    node.source, node.image = "IMAGE", image
    tuple(image.size)  # reads it: 4.2 knows the layers of single files that it has read
    node.layer_name = "RotoObject"
    node.matte_id = next(iter(report["objects"]))
    if report["frames_asked"] > 1:
        image.source = "SEQUENCE"
        follow(node, first, report["frames_asked"], shift)
    return node


def follow(node, first, frames, shift):
    """Show frame N of the files on frame N - shift of the scene."""
    node.frame_start, node.frame_duration, node.frame_offset = first - shift, frames, first - 1
    node.use_auto_refresh = True


def socket_of(node, layer):
    for name in (layer, "Alpha", "Combined", "Image"):
        if name in node.outputs:
            return node.outputs[name]
    return node.outputs[0]


# Versions -----------------------------------------------------------------------------------------------------


def tree_of(scene):
    """The scene's compositing tree, or None."""
    return scene.compositing_node_group if NEW else scene.node_tree


def compositor(scene):
    """The scene's compositing tree; made where there is none."""
    if not NEW:
        fresh = not scene.use_nodes
        scene.use_nodes = True
        if fresh:  # Blender puts a render of the 3D scene in; nobody asked for one
            scene.node_tree.nodes.clear()
        return scene.node_tree
    tree = scene.compositing_node_group
    if tree is None:
        tree = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        scene.compositing_node_group = tree
    return tree


def copied_compositor(scene, of):
    """Give a scene's copy a compositing tree of its own, with one output, that renders the copy."""
    if NEW:
        tree = scene.compositing_node_group = of.compositing_node_group.copy()
        for item in [i for i in tree.interface.items_tree if getattr(i, "in_out", "") == "OUTPUT"]:
            tree.interface.remove(item)
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
    else:
        scene.use_nodes = True
        tree = scene.node_tree
    for node in tree.nodes:
        if node.bl_idname == "CompositorNodeRLayers" and node.scene == of:
            node.scene = scene
    return tree


def output_socket(tree):
    """The socket that goes to the render."""
    kind = "NodeGroupOutput" if NEW else "CompositorNodeComposite"
    node = next((n for n in tree.nodes if n.bl_idname == kind), None)
    if node is None:
        node = tree.nodes.new(kind)
        node.location = 200, 0
    return node.inputs[0]


def apply_mask(node):
    """Make a Set Alpha multiply."""
    if NEW:
        node.inputs["Type"].default_value = "Apply Mask"
    else:
        node.mode = "APPLY"


def exr(scene):
    """Render float EXR, values as they are."""
    settings = scene.render.image_settings
    if NEW:
        settings.media_type = "IMAGE"
    settings.file_format, settings.color_depth, settings.color_mode = "OPEN_EXR", "32", "RGBA"
    with contextlib.suppress(AttributeError):
        settings.exr_codec = "ZIP"
