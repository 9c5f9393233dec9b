"""In Blender: a ball and a cube rendered with their Cryptomattes, objects and materials.

argv[2]   JSON: "out" the multi-layer EXR, "names" of cube and ball, "size" [width, height]
prints    JSON: null
"""

import json
import sys

import bpy

told = json.loads(sys.argv[2])
scene = bpy.context.scene
bpy.data.objects["Cube"].name = told["names"][0]
bpy.ops.mesh.primitive_uv_sphere_add(location=(2, 0, 1))
bpy.context.object.name = told["names"][1]
scene.render.engine = "CYCLES"
scene.cycles.samples = 4
scene.render.resolution_x, scene.render.resolution_y = told["size"]
scene.view_layers[0].use_pass_cryptomatte_object = True
scene.view_layers[0].use_pass_cryptomatte_material = True
settings = scene.render.image_settings
settings.media_type = "MULTI_LAYER_IMAGE"
settings.color_depth = "32"
settings.exr_codec = "ZIPS"
scene.render.filepath = told["out"]
bpy.ops.render.render(write_still=True)
print("\nnull")
