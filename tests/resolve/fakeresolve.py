"""A Resolve that is none, strict about its published methods: a name or a number of arguments it has not is an error.

The table is read from fusionscript-stubs (Resolve 21). Used from Python as it is, from Lua through `Fake.lua`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np

from engine.shots import disc, picture, write
from rotomem.interop.quoting import lua as lua_text

NASTY = 'it\'s a [1] $HOME `id` "é" ;x'

# Optional as the scripting README has them, which the stubs say of some only in words.
_OPTIONAL = {"subframe_precision", "isInteractiveMode", "stereoEye"}

# Composition and tools have no stubs; these are of Fusion's scripting guide.
FUSION = {
    "Composition": {
        "GetToolList": (0, 2),
        "AddTool": (1, 5),
        "MapPath": (1, 1),
        "Render": (0, 1),
        "Paste": (0, 1),
        "Lock": (0, 0),
        "Unlock": (0, 0),
        "StartUndo": (1, 1),
        "EndUndo": (0, 1),
    },
    "Operator": {"GetAttrs": (0, 1), "SetInput": (2, 3), "ConnectInput": (2, 2), "Delete": (0, 0)},
}


@cache
def table() -> dict[str, dict[str, tuple[float, float]]]:
    """Class -> method -> fewest and most arguments."""
    stubs = distribution("fusionscript-stubs").locate_file("fusionscript-stubs/fusionscript.pyi")
    classes: dict[str, dict[str, tuple[float, float]]] = {k: dict(v) for k, v in FUSION.items()}
    for node in ast.parse(Path(str(stubs)).read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        methods = classes.setdefault(node.name, {})
        for one in node.body:
            if isinstance(one, ast.FunctionDef):
                given = one.args.args[1:]
                free = sum(
                    a.arg in _OPTIONAL or (a.annotation is not None and "Optional" in ast.unparse(a.annotation))
                    for a in given[: len(given) - len(one.args.defaults)]
                )
                least, most = len(given) - len(one.args.defaults) - free, len(given)
                before = methods.get(one.name, (math.inf, 0))
                methods[one.name] = (min(before[0], least), math.inf if one.args.vararg else max(before[1], most))
    return classes


class Strict:
    """An object of Resolve's: `kind` is its class, `does` what its methods do, everything else a property."""

    def __init__(self, kind: str, world: Fake, does: dict[str, Callable[..., Any]], **has: Any) -> None:
        self.__dict__.update(has, _kind=kind, _world=world, _does=does)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = table()[self._kind].get(name)
        if known is None:
            raise AttributeError(f"{self._kind}:{name} does not exist in the Resolve API")

        def call(*args: Any) -> Any:
            if args and args[0] is self:  # as Lua's colon has it
                args = args[1:]
            if not known[0] <= len(args) <= known[1]:
                raise TypeError(f"{self._kind}:{name} takes {known[0]} to {known[1]} arguments, not {len(args)}")
            self._world.called.append(f"{self._kind}:{name}")
            return self._world.out(self._does[name](*(self._world.inside(a) for a in args)))

        return call


class Fake:
    """One Resolve with a timeline of one clip.

    path             "File Path" of the clip, as Resolve spells it; None: a title
    offset, length   of the item, in timeline frames
    stills           label -> frame of the disc that the still shows
    """

    def __init__(self, path: str | None, *, offset: int = 0, length: int = 4, lua: Any = None, **more: Any) -> None:
        self.lua = lua
        self.called: list[str] = []
        self.mattes: list[str] = list(more.get("mattes", ()))
        self.imported: list[Any] = []
        self.comps: list[str] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.format = {"format": "mov", "codec": "ProRes422"}
        self.settings: dict[str, Any] = {}
        self.looks = 0
        self.refuses = more.get("refuses", ())
        properties = {"File Path": path, "FPS": more.get("fps", "24.0"), "Frames": str(more.get("frames", 8))}
        self.clip = Strict(
            "MediaPoolItem", self, {"GetClipProperty": properties.get, "GetName": lambda: more.get("name", "sh010")}
        )
        self.item = Strict(
            "TimelineItem",
            self,
            {
                "GetMediaPoolItem": lambda: self.clip if path else None,
                "GetStart": lambda *_: 86400,
                "GetEnd": lambda *_: 86400 + length,
                "GetLeftOffset": lambda *_: offset,
                "ImportFusionComp": lambda text: self.comps.append(text) or True,
            },
        )
        timeline = Strict(
            "Timeline",
            self,
            {"GetCurrentVideoItem": lambda: self.item, "GetSetting": {"timelineFrameRate": "24"}.get},
        )
        stills = [Strict("GalleryStill", self, {}, label=k, at=v) for k, v in more.get("stills", {}).items()]
        album = Strict(
            "GalleryStillAlbum",
            self,
            {"GetStills": lambda: stills, "GetLabel": lambda s: s.label, "ExportStills": self._export_stills},
        )
        pool = Strict(
            "MediaPool",
            self,
            {
                "GetClipMatteList": lambda _: self.mattes,
                "DeleteClipMattes": self._delete_mattes,
                "ImportMedia": lambda what: self.imported.extend(what) or [self.clip],
            },
        )
        project = Strict(
            "Project",
            self,
            {
                "GetName": lambda: more.get("project", "show"),
                "GetCurrentTimeline": lambda: timeline,
                "GetGallery": lambda: Strict("Gallery", self, {"GetCurrentStillAlbum": lambda: album}),
                "GetMediaPool": lambda: pool,
                "IsRenderingInProgress": self._rendering,
                "GetCurrentRenderFormatAndCodec": lambda: dict(self.format),
                "SetCurrentRenderFormatAndCodec": lambda f, c: self.format.update(format=f, codec=c) or True,
                "GetRenderCodecs": lambda f: {
                    "RGB half": "RGBHalf",
                    "RGB half (ZIP)": "RGBHalfZIP",
                    "RGB": "RGBFloat",
                },
                "SetRenderSettings": lambda s: self.settings.update(s) or True,
                "AddRenderJob": lambda: self.jobs.setdefault("job", {"JobStatus": "Ready"}) and "job",
                "StartRendering": self._render,
                "StopRendering": lambda: self.jobs["job"].update(JobStatus="Cancelled"),
                "GetRenderJobStatus": self.jobs.get,
                "DeleteRenderJob": self.jobs.pop,
            },
        )
        manager = Strict("ProjectManager", self, {"GetCurrentProject": lambda: project})
        storage = Strict("MediaStorage", self, {"AddClipMattesToMediaPool": self._add_mattes})
        self.resolve = Strict(
            "Resolve", self, {"GetProjectManager": lambda: manager, "GetMediaStorage": lambda: storage}
        )

    # Between the languages ----------------------------------------------------------------------------------

    def inside(self, value: Any) -> Any:
        """What Lua gave, in Python."""
        if self.lua is None or not hasattr(value, "items") or isinstance(value, dict):
            return value
        pairs = {k: self.inside(v) for k, v in value.items()}
        return [pairs[i] for i in sorted(pairs)] if pairs and all(isinstance(k, int) for k in pairs) else pairs

    def out(self, value: Any) -> Any:
        """What Python answers, in Lua."""
        if self.lua is None or not isinstance(value, dict | list):
            return value
        if isinstance(value, dict):
            return self.lua.table_from({k: self.out(v) for k, v in value.items()})
        return self.lua.table_from([self.out(v) for v in value])

    # What Resolve does --------------------------------------------------------------------------------------

    def _add_mattes(self, clip: Strict, paths: list[str], eye: str = "") -> bool:
        assert clip is self.clip
        if any(word in path for path in paths for word in self.refuses):
            return False
        self.mattes += paths
        return True

    def _delete_mattes(self, clip: Strict, paths: list[str]) -> bool:
        self.mattes[:] = [path for path in self.mattes if path not in paths]
        return True

    def _export_stills(self, stills: list[Strict], folder: str, prefix: str, kind: str) -> bool:
        if "stills" in self.refuses:
            return False
        for i, still in enumerate(stills, 1):
            pixels = np.repeat((disc(still.at) * 65535).astype(np.uint16)[..., None], 3, 2)
            write(Path(folder) / f"{prefix}_1.{i}.1.{kind}", pixels)
            (Path(folder) / f"{prefix}_1.{i}.1.drx").write_text("<grade/>")
        return True

    def _render(self, jobs: list[str], interactive: bool = False) -> bool:
        assert jobs == ["job"] and self.format["codec"] == "RGBHalfZIP"
        for i in range(self.settings["MarkIn"], self.settings["MarkOut"] + 1):
            name = f"{self.settings['CustomName']}{i:08d}.exr"
            write(Path(self.settings["TargetDir"]) / name, picture(i - self.settings["MarkIn"]))
        self.jobs["job"] = {"JobStatus": "Rendering", "CompletionPercentage": 50}
        return True

    def _rendering(self) -> bool:
        job = self.jobs.get("job", {})
        if job.get("JobStatus") != "Rendering":
            return False
        self.looks += 1
        if self.looks > 2:
            job.update(JobStatus="Complete", CompletionPercentage=100)
            return False
        return True


class FakeComp:
    """A composition of Fusion: tools by name, rendered by writing a real key."""

    def __init__(self, lua: Any, time: int) -> None:
        self.world = Fake(None, lua=lua)
        self.tools: list[Strict] = []
        self.saved: list[int] = []
        does = {
            "GetToolList": lambda selected=False, *_: {
                i: t for i, t in enumerate(self.tools, 1) if t.selected or not selected
            },
            "AddTool": lambda kind, *_: self.add(kind, f"{kind}{len(self.tools)}"),
            "MapPath": lambda path: path,
            "Render": self._render,
            "Paste": self._paste,
            **{name: lambda *_: None for name in ("Lock", "Unlock", "StartUndo", "EndUndo")},
        }
        self.comp = Strict("Composition", self.world, does, CurrentTime=time)

    def add(self, kind: str, name: str, *, selected: bool = False, **attrs: Any) -> Strict:
        inputs: dict[str, Any] = {}
        tool = Strict(
            "Operator",
            self.world,
            {
                "GetAttrs": lambda *_: attrs,
                "SetInput": inputs.__setitem__,
                "ConnectInput": lambda name, source: inputs.__setitem__(name, source) or True,
                "Delete": lambda: self.tools.remove(tool),
            },
            ID=kind,
            Name=name,
            selected=selected,
            inputs=inputs,
        )
        self.tools.append(tool)
        return tool

    def _render(self, how: dict[str, Any]) -> bool:
        path = Path(how["Tool"].inputs["Clip"])
        assert how["Start"] == how["End"] and how["Tool"].inputs["Input"].Name and how["Wait"]
        self.saved.append(how["Start"])
        write(
            path.with_name(f"{path.stem}{how['Start']:04d}.exr"),
            disc(0).astype(np.float16)[..., None],
            channels=("A",),
        )
        return True

    def _paste(self, document: dict[str, Any]) -> bool:
        for name, tool in document["Tools"].items():
            if name != "__kind":
                clips = tool.get("Clips")
                attrs = {"TOOLST_Clip_Name": [clips[0]["Filename"]]} if clips else {}
                made = self.add(tool["__kind"], name, **attrs)
                made.inputs.update({k: v["SourceOp"] for k, v in tool["Inputs"].items() if "SourceOp" in v})
                made.inputs["start"] = clips[0]["GlobalStart"] if clips else None
        return True


def run_script(session: Any, name: str, **names: Any) -> None:
    """What choosing the script in Resolve's menu does."""
    for key, value in names.items():
        session.lua.globals()[key] = value
    session.lua.execute(f"dofile({lua_text(str(session.fusion / 'Scripts' / name))})")
