# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way in this Blender, in a scratch profile: install, draw, track, look. Run by `rotomem hosts doctor`.

$ROTOMEM_SELF_TEST is JSON: zip, engine, folder, settings of the panel. Says PASSED at the end, or what failed.
"""

import json
import os
import sys

import bpy

WIDTH, HEIGHT, FRAMES = 96, 64, range(1001, 1005)


def write_plate(folder):
    """A light square that moves to the right over grey."""
    for frame in FRAMES:
        left = 20 + 4 * (frame - FRAMES[0])
        image = bpy.data.images.new("plate", WIDTH, HEIGHT, float_buffer=True, is_data=True)
        row = [c for x in range(WIDTH) for c in ([0.9, 0.5, 0.1, 1] if left <= x < left + 24 else [0.2, 0.2, 0.2, 1])]
        ground = [0.2, 0.2, 0.2, 1.0] * WIDTH
        image.pixels.foreach_set([c for y in range(HEIGHT) for c in (row if 20 <= y < 44 else ground)])
        image.filepath_raw, image.file_format = os.path.join(folder, f"plate.{frame}.exr"), "OPEN_EXR"
        image.save()
        bpy.data.images.remove(image)
    return os.path.join(folder, f"plate.{FRAMES[0]}.exr")


def draw_mask():
    """The square as it is on the first frame."""
    mask = bpy.data.masks.new("square")
    spline = mask.layers.new(name="shape").splines.new()
    spline.use_cyclic = True
    spline.points.add(3)
    for point, (x, y) in zip(spline.points, ((20, 20), (44, 20), (44, 44), (20, 44)), strict=True):
        place = (x - WIDTH / 2) / WIDTH + 0.5, (y - HEIGHT / 2) / WIDTH + 0.5
        point.handle_type = "FREE"
        point.co, point.handle_left, point.handle_right = place, place, place
    return mask


def covered(path):
    """Pixels of a matte that are more in than out."""
    image = bpy.data.images.load(path)
    pixels = [0.0] * (image.size[0] * image.size[1] * image.channels)
    image.pixels.foreach_get(pixels)
    return sum(value > 0.5 for value in pixels[image.channels - 1 :: image.channels])


def main(told):
    bpy.ops.extensions.package_install_files(repo="user_default", filepath=told["zip"], enable_on_install=True)
    module = "bl_ext.user_default.rotomem"
    bpy.context.preferences.addons[module].preferences.engine = told["engine"]
    scene = bpy.context.scene
    settings = scene.rotomem
    clip = bpy.data.movieclips.load(write_plate(told["folder"]))
    clip.frame_start = scene.frame_start = FRAMES[0]
    scene.frame_end = FRAMES[-1]
    scene.frame_set(FRAMES[0])
    settings.clip, settings.folder = clip, told["folder"]
    for name, value in told["settings"].items():
        setattr(settings, name, value)
    bpy.ops.rotomem.object_add()
    settings.objects[0].name, settings.objects[0].mask = "square", draw_mask()
    settings.objects[0].frames = str(FRAMES[0])
    bpy.ops.rotomem.track()
    mattes = sorted(name for name in os.listdir(os.path.join(told["folder"], "mattes")) if name.endswith(".exr"))
    assert len(mattes) == len(FRAMES), f"{len(mattes)} mattes of {len(FRAMES)}"
    drawn = covered(os.path.join(told["folder"], "mattes", mattes[0]))
    assert drawn == 24 * 24, f"the key covers {drawn} pixels, {24 * 24} were drawn"
    said = settings.message
    bpy.ops.preferences.addon_disable(module=module)  # ends the engine
    print(f"\nPASSED {said}", flush=True)


try:
    main(json.loads(os.environ["ROTOMEM_SELF_TEST"]))
except Exception as error:
    print("\nFAILED", " ".join(str(error).split()), flush=True)
    sys.exit(1)
