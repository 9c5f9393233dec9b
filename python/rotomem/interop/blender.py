"""A Python script for Blender (4.2 to 5.2) that loads a plate and its mattes and joins them in the compositor."""

from __future__ import annotations

from collections.abc import Sequence

from rotomem.interop.footage import Footage
from rotomem.interop.quoting import python

_SCRIPT = '''\
"""Loads a plate and its mattes into the compositor. Written by rotomem for Blender 4.2 to 5.2.

Run it in the text editor, or: blender --python THIS
"""

import bpy

PLATE = {plate}
MATTES = {mattes}


def compositor(scene):
    if bpy.app.version >= (5, 0, 0):
        tree = scene.compositing_node_group
        if tree is None:
            tree = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
            tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
            scene.compositing_node_group = tree
        return tree
    fresh = not scene.use_nodes
    scene.use_nodes = True
    if fresh:  # a render of the 3D scene, which nobody asked for
        scene.node_tree.nodes.clear()
    return scene.node_tree


def sequence(tree, footage, colour, x, y):
    image = bpy.data.images.load(footage["file"], check_existing=False)
    # Space first: a sequence tells its layers only once it has been read as a file.
    try:
        image.colorspace_settings.name = colour
    except TypeError:
        print("rotomem: this Blender has no colour space", colour, "- choose one for", image.name)
    if not footage["movie"]:
        image.source = "SEQUENCE"
    node = tree.nodes.new("CompositorNodeImage")
    node.image = image
    node.frame_start = footage["first"]
    node.frame_duration = footage["frames"]
    node.frame_offset = footage["first"] - 1 if not footage["movie"] else 0
    node.use_auto_refresh = True
    node.location = x, y
    return node


def matte_socket(node, matte):
    for name in (matte["layer"], "Alpha", "Combined", "Image"):
        if name and name in node.outputs:
            return node.outputs[name]
    return node.outputs[0]


def main():
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = PLATE["first"], PLATE["last"]
    scene.frame_set(PLATE["first"])
    scene.render.resolution_x, scene.render.resolution_y = PLATE["width"], PLATE["height"]
    scene.render.resolution_percentage = 100
    aspect = PLATE["pixel_aspect"]
    scene.render.pixel_aspect_x, scene.render.pixel_aspect_y = (aspect, 1.0) if aspect >= 1 else (1.0, 1.0 / aspect)
    if PLATE["fps"]:
        scene.render.fps, scene.render.fps_base = PLATE["fps"]
    tree = compositor(scene)
    plate = sequence(tree, PLATE, PLATE["space"], -600, 0)
    plate.label = "Plate"
    made = []
    y = -400
    for footage in MATTES:
        node = sequence(tree, footage, "Non-Color", -600, y)
        node.label = "Mattes"
        for matte in footage["mattes"]:
            alpha = tree.nodes.new("CompositorNodeSetAlpha")
            alpha.label = alpha.name = matte["name"]
            alpha.location = -200, y
            if bpy.app.version >= (5, 0, 0):
                alpha.inputs["Type"].default_value = "Apply Mask"
            else:
                alpha.mode = "APPLY"
            tree.links.new(plate.outputs["Image"], alpha.inputs["Image"])
            tree.links.new(matte_socket(node, matte), alpha.inputs["Alpha"])
            made.append(alpha)
            y -= 220
    if made:
        kind = "NodeGroupOutput" if bpy.app.version >= (5, 0, 0) else "CompositorNodeComposite"
        output = next((n for n in tree.nodes if n.bl_idname == kind), None) or tree.nodes.new(kind)
        output.location = 200, 0
        tree.links.new(made[0].outputs["Image"], output.inputs[0])
    return made


main()
'''


def blender_script(plate: Footage, mattes: Sequence[Footage]) -> str:
    """The script. The first object's cut-out goes to the output; every object has a node of its name."""
    told = {**_told(plate), "space": plate.space or "Linear Rec.709"}
    objects = [
        {**_told(f), "mattes": [{"name": m.name, "layer": m.layer} for m in f.mattes]} for f in mattes if f.mattes
    ]
    return _SCRIPT.format(plate=python(told), mattes=python(objects))


def _told(footage: Footage) -> dict[str, object]:
    fps = None
    if footage.fps is not None:
        rate = footage.fps.limit_denominator(1001)
        whole = -(-rate.numerator // rate.denominator)  # 24000/1001 is 24 over a base of 1.001
        fps = (whole, float(whole / rate))
    return {
        "file": footage.file(footage.first),
        "first": footage.first,
        "last": footage.last,
        "frames": footage.frames,
        "width": footage.width,
        "height": footage.height,
        "pixel_aspect": footage.pixel_aspect,
        "fps": fps,
        "movie": footage.movie,
    }
