"""In a Blender with windows: press Track and Cancel, take a picture meanwhile; says as JSON what happened.

$TOLD is JSON: plate (a pattern), frames [first, last], key (a file), out, engine, model, picture, said (written here)
"""

import json
import os
import time

import addon_utils
import bpy

told = json.loads(os.environ["TOLD"])
said = {"version": bpy.app.version_string, "turns": 0, "longest_s": 0.0, "runs": []}
state = {"step": "open", "began": time.monotonic(), "before": time.monotonic(), "pictured": False}


def editor():
    """The largest area as a clip editor, its side bar open at the tab that the test put our panel in."""
    window = bpy.context.window_manager.windows[0]
    area = max(window.screen.areas, key=lambda a: a.width * a.height)
    area.type = "CLIP_EDITOR"
    space = area.spaces.active
    space.mode, space.clip, space.show_region_ui = "MASK", bpy.context.scene.rotomem.clip, True
    # Which tab is shown cannot be chosen from Python in every version: leave one.
    for panel in bpy.types.Panel.__subclasses__():
        ours = panel.__module__.startswith("rotomem")
        where = getattr(panel, "bl_space_type", ""), getattr(panel, "bl_region_type", "")
        if where == ("CLIP_EDITOR", "UI") and not ours and panel.is_registered:
            bpy.utils.unregister_class(panel)
    return window, area


def prepare():
    addon_utils.enable("rotomem", default_set=True)
    bpy.context.preferences.addons["rotomem"].preferences.engine = told["engine"]
    scene = bpy.context.scene
    settings = scene.rotomem
    first, last = told["frames"]
    settings.clip = bpy.data.movieclips.load(told["plate"] % first)
    settings.clip.frame_start = scene.frame_start = first
    scene.frame_end, settings.folder = last, told["out"]
    scene.frame_set(first)
    settings.model, settings.size, settings.wire = told["model"], 32, False
    bpy.ops.rotomem.object_add()
    thing = settings.objects[0]
    thing.name, thing.source, thing.path, thing.frames = "hero", "FILE", told["key"], str(first)


def press(name, *args):
    window, area = state["where"]
    region = next(r for r in area.regions if r.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=area, region=region):
        return list(getattr(bpy.ops.rotomem, name)(*args))


def turn():
    """Called by Blender's own timer: that it comes at all while the job runs shows that the interface is alive."""
    now = time.monotonic()
    try:
        assert now - state["began"] < 40, "it takes too long"
        if state["step"] == "open":
            prepare()
            state["where"], state["step"] = editor(), "press"
            return 0.05
        settings = bpy.context.scene.rotomem
        if state["step"] == "run" and settings.running:
            look(settings, now)
        elif state["step"] == "press":
            said["runs"].append({"pressed": press("track", "INVOKE_DEFAULT")})
            state["step"] = "run"
        else:
            said["runs"][-1]["message"] = settings.message
            if "cancelled" in said and "cancel_s" not in said:
                said["cancel_s"] = now - state["cancelled"]
            if len(said["runs"]) == 2:
                return leave()
            state["step"] = "press"
    except Exception as error:
        said["trouble"] = repr(error)
        return leave()
    state["before"] = time.monotonic()
    return 0.05


def look(settings, now):
    """What an artist would do and see while it runs."""
    said["turns"] += 1
    said["longest_s"] = max(said["longest_s"], now - state["before"])
    if settings.progress > 0.2 and not state["pictured"]:
        state["pictured"] = True
        window, area = state["where"]
        with bpy.context.temp_override(window=window, area=area):
            bpy.ops.screen.screenshot(filepath=told["picture"])
    elif settings.progress > 0.4 and "cancelled" not in said:
        said["cancelled"] = press("cancel")
        state["cancelled"] = now


def leave():
    with open(told["said"], "w") as file:
        json.dump(said, file)
    bpy.ops.wm.quit_blender()


bpy.context.preferences.view.show_splash = False
bpy.app.timers.register(turn, first_interval=0.5)
