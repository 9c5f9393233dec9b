"""Blender's masks: a script that makes them, for `blender shot.blend --python hero.py` or the text editor.

One mask an object, one layer a shape, from the lowest up; shape keys on the key frames, and where a shape is there
only for a while, its layer's alpha switched. Blender's mask space has its origin at the lower left corner of the
square around the picture and the longer side as its unit.
"""

from __future__ import annotations

import json

from rotomem.splines.types import Splines

_SCRIPT = '''\
"""Makes masks in Blender 4.2 or later. Written by rotomem; run it, or open it in the text editor and run it there."""

import json

import bpy

DOCUMENT = json.loads({document!r})


def make_masks():
    scene = bpy.context.scene
    before = scene.frame_current
    for said in DOCUMENT["objects"]:
        mask = bpy.data.masks.new(said["name"])
        mask.use_fake_user = True
        layers = []
        for shape in said["shapes"]:
            layer = mask.layers.new(name=shape["name"])
            layer.falloff = "LINEAR"
            layer.blend = "MERGE_SUBTRACT" if shape["subtract"] else "MERGE_ADD"
            spline = layer.splines.new()
            spline.use_cyclic = True
            spline.points.add(len(shape["keys"][0]["points"]) - 1)  # a new spline has one point
            for point in spline.points:
                point.handle_type = "FREE"
            place(spline, shape["keys"][0])
            layers.append(layer)
            show_during(layer, shape["span"])
        insert_keys(scene, mask, layers, said["shapes"])
    scene.frame_set(before)


def place(spline, key):
    for point, (left, co, right), width in zip(spline.points, key["points"], key["feather"]):
        point.co, point.handle_left, point.handle_right, point.weight = co, left, right, width


def show_during(layer, span):
    if span is None:
        return
    first, last = span
    for frame, alpha in ((first - 1, 0.0), (first, 1.0), (last + 1, 0.0)):
        layer.alpha = alpha
        layer.keyframe_insert("alpha", frame=frame)
    data = layer.id_data.animation_data
    action = data.action
    curves = getattr(action, "fcurves", None)
    if curves is None:  # Blender 5: curves live in the channel bag of the action's slot
        curves = action.layers[0].strips[0].channelbag(data.action_slot).fcurves
    for curve in curves:
        for point in curve.keyframe_points:
            point.interpolation = "CONSTANT"


def insert_keys(scene, mask, layers, shapes):
    frames = sorted({{k["frame"] for s in shapes if len(s["keys"]) > 1 for k in s["keys"]}})
    if not frames:
        return
    window = bpy.context.window_manager.windows[0]
    area = window.screen.areas[0]
    kind = area.type
    area.type = "IMAGE_EDITOR"  # a clip editor wants a clip
    space = area.spaces.active
    space.mode = "MASK"
    space.mask = mask
    region = next(r for r in area.regions if r.type == "WINDOW")
    keys = [{{k["frame"]: k for k in s["keys"]}} for s in shapes]
    for frame in frames:
        scene.frame_set(frame)
        for layer, found, shape in zip(layers, keys, shapes):
            # The operator keys the layers that have a selected point.
            keyed = frame in found and len(shape["keys"]) > 1
            if keyed:
                place(layer.splines[0], found[frame])
            for point in layer.splines[0].points:
                point.select = keyed
        with bpy.context.temp_override(window=window, area=area, region=region, space_data=space):
            if bpy.ops.mask.shape_key_insert() != {{"FINISHED"}}:
                raise RuntimeError("Blender did not take the shape key of frame %d" % frame)
    area.type = kind


make_masks()
'''


def write(splines: Splines) -> str:
    """The text of a Python script; names and numbers stand in it as one JSON string."""
    width, height = splines.size
    unit = max(width, height)

    def place(x: float, y: float) -> list[float]:
        return [round((x - width / 2) / unit + 0.5, 8), round((height / 2 - y) / unit + 0.5, 8)]

    objects = [
        {
            "name": name,
            "shapes": [
                {
                    "name": shape.name,
                    "subtract": shape.subtract,
                    "span": shape.span,
                    "keys": [
                        {
                            "frame": frame,
                            "points": [[place(*p) for p in point] for point in curve.points.tolist()],
                            "feather": [round(f / unit, 8) for f in curve.feather.tolist()],
                        }
                        for frame, curve in shape.keys.items()
                    ],
                }
                for shape in shapes
            ],
        }
        for name, shapes in splines.objects.items()
    ]
    return _SCRIPT.format(document=json.dumps({"objects": objects}, separators=(",", ":")))
