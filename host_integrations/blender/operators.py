# SPDX-License-Identifier: GPL-3.0-or-later
"""Track, cancel, check, and the list of objects."""

import os
import runpy
import time

import bpy
from bpy.props import EnumProperty

from . import host
from .client import Engine, EngineError, find_engine
from .settings import preferences

_engine = None
"""The worker, warm from the first run to the end of the session. Touched in the main thread only."""


def engine(context):
    """The running worker; started where there is none. Raises EngineError with a text for the panel."""
    global _engine
    command = find_engine(bpy.path.abspath(preferences(context).engine))
    if _engine is not None and (not _engine.alive or _engine.command != command):
        _engine.close(0)
        _engine = None
    if _engine is None:
        _engine = Engine(command).start()
    return _engine


def close_engine():
    global _engine
    if _engine is not None:
        _engine.close()
        _engine = None


class _Work:
    """A job of the engine's as a modal operator. `submit` begins it, `take` brings what it made into Blender."""

    _timer = _job = None

    @classmethod
    def poll(cls, context):
        return not context.scene.rotomem.running

    def invoke(self, context, event):
        if bpy.app.background or context.window is None:
            return self.execute(context)
        if not self._begin(context):
            return {"CANCELLED"}
        self._timer = context.window_manager.event_timer_add(0.1, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        if event.type == "ESC":
            _engine.cancel(self._job)
        if event.type == "TIMER":
            self._look(context)
            if self._job.ended:
                context.window_manager.event_timer_remove(self._timer)
                return self._end(context)
        return {"PASS_THROUGH"}

    def execute(self, context):
        """Without a user interface: to the end, then back."""
        if not self._begin(context):
            return {"CANCELLED"}
        while not self._job.ended:
            self._look(context)
            time.sleep(0.02)
        return self._end(context)

    def cancel(self, context):
        if _engine is not None and self._job is not None:
            _engine.cancel(self._job)

    def _begin(self, context):
        settings = context.scene.rotomem
        settings.message = ""
        try:
            self._job = self.submit(context, settings, os.path.abspath(bpy.path.abspath(settings.folder)))
        except (host.HostProblem, EngineError) as problem:
            settings.message = str(problem)
            self.report({"ERROR"}, str(problem))
            return False
        settings.running, settings.progress = True, 0.0
        return True

    def _look(self, context):
        settings = context.scene.rotomem
        _engine.poll()
        settings.message = self._job.message
        if self._job.last is not None:
            settings.progress = self._job.last["done"] / max(self._job.last["total"], 1)
        for area in context.screen.areas if context.screen else []:
            if area.type in {"CLIP_EDITOR", "IMAGE_EDITOR"}:
                area.tag_redraw()

    def _end(self, context):
        settings = context.scene.rotomem
        settings.running = False
        settings.message = self._job.message
        if self._job.state == "error":
            self.report({"ERROR"}, self._job.message)
            return {"CANCELLED"}
        if self._job.state == "cancelled":
            settings.message = "Cancelled. Mattes made so far are whole; track again to go on."
            self.report({"WARNING"}, settings.message)
            return {"CANCELLED"}
        settings.message = self.take(context, settings, self._job.result)
        settings.progress = 1.0
        self.report({"INFO"}, settings.message)
        return {"FINISHED"}


class ROTOMEM_OT_track(_Work, bpy.types.Operator):
    """Make a matte for every frame from the key masks"""

    bl_idname = "rotomem.track"
    bl_label = "Track"
    bl_options = {"REGISTER"}

    direction: EnumProperty(
        items=[
            ("both", "Both", "Before, between and after the keys"),
            ("forward", "Forward", "After the keys"),
            ("backward", "Backward", "Before the keys"),
        ]
    )

    def submit(self, context, settings, folder):
        plate = host.plate_of(settings)[0]
        masks = host.key_masks(context, settings, os.path.join(folder, "keys"))
        return engine(context).submit(
            "track", plate=plate, masks=masks, out=os.path.join(folder, "mattes"), options=self._options(settings)
        )

    def take(self, context, settings, result):
        report = result["report"]
        image = host.load_mattes(context, settings, report)
        for warning in report["warnings"]:
            self.report({"WARNING"}, warning)
        return f"{report['frames_written'] + report['frames_kept']} mattes: {image.name}"

    def _options(self, settings):
        options = {"model": settings.model, "size": settings.size or None, "resume": True}
        if self.direction != "both":
            options["direction"] = self.direction
        if settings.edge != "DEFAULT":
            options["edge"] = settings.edge
        if settings.crypto:
            options["also"] = ["crypto"]
        if not settings.whole:
            _, first, start, _ = host.plate_of(settings)
            shift = 0 if first is None else first - start
            options["frames"] = f"{settings.first + shift}-{settings.last + shift}"
        return options


class ROTOMEM_OT_masks(_Work, bpy.types.Operator):
    """Trace the mattes as masks with few points, to edit by hand"""

    bl_idname = "rotomem.masks"
    bl_label = "Mattes to Masks"
    bl_options = {"REGISTER", "UNDO"}

    def submit(self, context, settings, folder):
        _, first, start, _ = host.plate_of(settings)
        return engine(context).submit(
            "splines",
            mattes=os.path.join(folder, "mattes"),
            out=os.path.join(folder, "masks.py"),
            options={"tolerance": settings.tolerance},
            shift=0 if first is None else start - first,
        )

    def take(self, context, settings, result):
        runpy.run_path(result["path"])
        return "Masks made: {}".format(", ".join(thing["name"] for thing in result["objects"]))


class ROTOMEM_OT_cancel(bpy.types.Operator):
    """Stop when the frame begun is whole"""

    bl_idname = "rotomem.cancel"
    bl_label = "Cancel"

    @classmethod
    def poll(cls, context):
        return context.scene.rotomem.running

    def execute(self, context):
        for job in _engine.jobs.values() if _engine is not None else []:
            _engine.cancel(job)
        return {"FINISHED"}


class ROTOMEM_OT_check(bpy.types.Operator):
    """Start the engine and say which one it is"""

    bl_idname = "rotomem.check"
    bl_label = "Check"

    def execute(self, context):
        try:
            running = engine(context)
        except EngineError as problem:
            preferences(context).said = str(problem)
            self.report({"ERROR"}, str(problem))
            return {"CANCELLED"}
        models = ", ".join(running.models)
        preferences(context).said = f"rotomem {running.version} answers. Models: {models}. ({running.command[0]})"
        self.report({"INFO"}, preferences(context).said)
        return {"FINISHED"}


class ROTOMEM_OT_object_add(bpy.types.Operator):
    """Add an object to be tracked"""

    bl_idname = "rotomem.object_add"
    bl_label = "Add Object"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        settings = context.scene.rotomem
        thing = settings.objects.add()
        names = {other.name for other in settings.objects}
        thing.name = next(n for i in range(1, 1000) if (n := f"object{i}") not in names)
        settings.active = len(settings.objects) - 1
        mask = getattr(context.space_data, "mask", None)
        if mask is not None:
            thing.mask = mask
        return {"FINISHED"}


class ROTOMEM_OT_object_remove(bpy.types.Operator):
    """Remove the object from the list; its mattes stay on disk"""

    bl_idname = "rotomem.object_remove"
    bl_label = "Remove Object"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        return bool(context.scene.rotomem.objects)

    def execute(self, context):
        settings = context.scene.rotomem
        settings.objects.remove(settings.active)
        settings.active = max(settings.active - 1, 0)
        return {"FINISHED"}


_CLASSES = (
    ROTOMEM_OT_track,
    ROTOMEM_OT_masks,
    ROTOMEM_OT_cancel,
    ROTOMEM_OT_check,
    ROTOMEM_OT_object_add,
    ROTOMEM_OT_object_remove,
)


def register():
    for cls in _CLASSES:
        bpy.utils.register_class(cls)


def unregister():
    close_engine()
    for cls in reversed(_CLASSES):
        bpy.utils.unregister_class(cls)
