"""In Blender: the extension at an artist's hands, who are a pipe. One process serves many shots.

argv[2]   JSON: "user" Blender's folder of the user, "zip" the extension
stdin     a line of JSON each: {"do": "track", "engine", "plate", "frames", "keys", "folder", "settings"},
          {"do": "cancel"}, {"do": "shown", "frame"}, {"do": "close"}
stdout    lines of JSON among Blender's own: {"state", "text", "progress"} at every look of the panel's,
          {"shown": {name: EXR}}, {"closed": true}
"""

import json
import os
import queue
import sys
import threading
from unittest import mock

told = json.loads(sys.argv[2])
os.environ["BLENDER_USER_RESOURCES"] = told["user"]

import bpy  # noqa: E402  # where the user's files are is read when it is imported

MODULE = "bl_ext.user_default.rotomem"
asked = queue.Queue()


def listen():
    for line in sys.stdin:
        asked.put(json.loads(line))
    asked.put(None)


def say(**what):
    print("\n" + json.dumps(what), flush=True)


def look(state):
    settings = bpy.context.scene.rotomem
    say(state=state, text=settings.message, progress=settings.progress)


def watched():
    """Whenever the operator has looked after its job, tell what the panel shows, and press what was asked for."""
    from bl_ext.user_default.rotomem import operators

    after = operators._Work._look

    def looked(self, context):
        after(self, context)
        look("running")
        while not asked.empty():
            assert asked.get()["do"] == "cancel"
            bpy.ops.rotomem.cancel()

    return mock.patch.object(operators._Work, "_look", looked)


def track(shot):
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    bpy.ops.preferences.addon_enable(module=MODULE)
    bpy.context.preferences.addons[MODULE].preferences.engine = shot["engine"]
    scene, (first, last) = bpy.context.scene, shot["frames"]
    settings = scene.rotomem
    settings.clip = bpy.data.movieclips.load(shot["plate"] % first)
    settings.clip.frame_start = scene.frame_start = first
    scene.frame_end, settings.folder = last, shot["folder"]
    for name, value in shot["settings"].items():
        setattr(settings, name, value)
    for name, keys in shot["keys"].items():
        for frame, path in keys.items():
            bpy.ops.rotomem.object_add()
            thing = settings.objects[-1]
            thing.name, thing.source, thing.path, thing.frames = name, "FILE", path, frame
    with watched():
        try:
            (ended,) = bpy.ops.rotomem.track("INVOKE_DEFAULT")
        except RuntimeError:  # so Blender tells a script what it shows an artist in red
            ended = "ERROR"
    look({"FINISHED": "done", "CANCELLED": "cancelled", "ERROR": "error"}[ended])


def shown(frame):
    """Every Set Alpha that was added, rendered: the mattes as the compositor has them."""
    from bl_ext.user_default.rotomem import host

    scene = bpy.context.scene
    tree = host.tree_of(scene)
    host.exr(scene)
    scene.render.resolution_x, scene.render.resolution_y = host.plate_size(scene.rotomem)
    scene.render.resolution_percentage = 100
    scene.frame_set(frame)
    paths = {}
    for node in [n for n in tree.nodes if n.bl_idname == "CompositorNodeSetAlpha" and n.get("rotomem")]:
        tree.links.new(node.outputs["Image"], host.output_socket(tree))
        scene.render.filepath = paths[node.label] = os.path.join(told["user"], f"shown{len(paths)}.{frame}.exr")
        bpy.ops.render.render(write_still=True)
    say(shown=paths)


bpy.ops.extensions.package_install_files(repo="user_default", filepath=told["zip"], enable_on_install=False)
threading.Thread(target=listen, daemon=True).start()
while (one := asked.get()) is not None:
    if one["do"] == "track":
        track(one)
    elif one["do"] == "shown":
        shown(one["frame"])
    elif one["do"] == "close":
        bpy.ops.preferences.addon_disable(module=MODULE)  # ends the engine
        say(closed=True)
