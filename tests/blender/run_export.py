"""Run a script that `rotomem export --blender` wrote, and render what it made."""

import json
import os
import runpy
import sys

import bpy

told = json.loads(sys.argv[2])
runpy.run_path(told["exported"], run_name="__main__")
scene = bpy.context.scene
settings = scene.render.image_settings
if bpy.app.version >= (5, 0, 0):
    settings.media_type = "IMAGE"
settings.file_format, settings.color_depth, settings.color_mode = "OPEN_EXR", "32", "RGBA"
paths = {}
for frame in told["frames"]:
    scene.frame_set(frame)
    paths[frame] = scene.render.filepath = os.path.join(told["out"], f"comp.{frame}.exr")
    bpy.ops.render.render(write_still=True)
print("\n" + json.dumps(paths))
