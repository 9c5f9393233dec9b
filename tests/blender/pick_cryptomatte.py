"""In Blender: what its Cryptomatte node picks from a file, name by name.

argv[2]   JSON: "crypto" the file, "layer" its type name, "names" to pick, "size" [width, height], "folder" to write
prints    JSON: name -> the EXR that Blender rendered, the matte in its red channel
"""

import json
import sys

import bpy

told = json.loads(sys.argv[2])
scene = bpy.context.scene
scene.render.resolution_x, scene.render.resolution_y = told["size"]
scene.render.image_settings.file_format = "OPEN_EXR"
scene.render.image_settings.color_depth = "32"
if bpy.app.version >= (5, 0, 0):
    tree = scene.compositing_node_group = bpy.data.node_groups.new("pick", "CompositorNodeTree")
    tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
    output = tree.nodes.new("NodeGroupOutput")
else:
    scene.use_nodes = True
    tree = scene.node_tree
    tree.nodes.clear()
    output = tree.nodes.new("CompositorNodeComposite")
node = tree.nodes.new("CompositorNodeCryptomatteV2")
node.source = "IMAGE"
node.image = bpy.data.images.load(told["crypto"])
node.layer_name = told["layer"]
tree.links.new(node.outputs["Matte"], output.inputs[0])
rendered = {}
for number, name in enumerate(told["names"]):
    node.matte_id = name
    rendered[name] = scene.render.filepath = f"{told['folder']}/picked{number}.exr"
    bpy.ops.render.render(write_still=True)
print("\n" + json.dumps(rendered))
