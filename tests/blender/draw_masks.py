"""In Blender: run a script that makes masks, and render every mask on some frames.

argv[2]   JSON: "masks" the script that makes them, "size" [width, height], "times" that the render is larger,
          "frames", "folder" to write
prints    JSON: name of a mask -> [its EXR of each frame, the mask in its red channel]
"""

import json
import runpy
import sys

import bpy

told = json.loads(sys.argv[2])
bpy.ops.wm.read_factory_settings(use_empty=True)
runpy.run_path(told["masks"])
scene = bpy.context.scene
scene.render.resolution_x, scene.render.resolution_y = (told["times"] * v for v in told["size"])
scene.render.resolution_percentage = 100
scene.render.image_settings.file_format = "OPEN_EXR"
scene.render.image_settings.color_depth = "32"
if bpy.app.version >= (5, 0, 0):
    tree = scene.compositing_node_group = bpy.data.node_groups.new("draw", "CompositorNodeTree")
    tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
    output = tree.nodes.new("NodeGroupOutput")
else:
    scene.use_nodes = True
    tree = scene.node_tree
    tree.nodes.clear()
    output = tree.nodes.new("CompositorNodeComposite")
node = tree.nodes.new("CompositorNodeMask")
if "Size Source" in node.inputs:
    node.inputs["Size Source"].default_value = "Scene Size"
else:
    node.size_source = "SCENE"
tree.links.new(node.outputs["Mask"], output.inputs[0])
rendered = {}
for number, mask in enumerate(bpy.data.masks):
    node.mask = mask
    rendered[mask.name] = []
    for frame in told["frames"]:
        scene.frame_set(frame)
        scene.render.filepath = f"{told['folder']}/mask{number}.{frame}.exr"
        bpy.ops.render.render(write_still=True)
        rendered[mask.name].append(scene.render.filepath)
print("\n" + json.dumps(rendered))
