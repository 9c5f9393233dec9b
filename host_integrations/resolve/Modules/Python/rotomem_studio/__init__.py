"""The clip under Resolve's playhead tracked from Python: Resolve Studio, and pipelines that hold Resolve's scripting.

    import rotomem_studio
    rotomem_studio.track("hero@1001=/roto/hero.1001.exr")        # a clip matte of what lies under the playhead

Standard library and Python 3.9 only; the Lua scripts beside it do the same in the free edition.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from .client import Engine, EngineError, find_engine

_STILLS = ("exr", "dpx", "tif", "tiff", "png", "jpg", "jpeg")
_MOVIES = ("mov", "mp4", "m4v", "mxf", "mkv", "avi")


class ResolveProblem(Exception):
    """What the artist has to do before it works."""


def connect() -> Any:
    """The running Resolve. Raises ResolveProblem where its scripting cannot be reached."""
    api = os.environ.get("RESOLVE_SCRIPT_API") or {
        "win32": r"C:\ProgramData\Blackmagic Design\DaVinci Resolve\Support\Developer\Scripting",
        "darwin": "/Library/Application Support/Blackmagic Design/DaVinci Resolve/Developer/Scripting",
    }.get(sys.platform, "/opt/resolve/Developer/Scripting")
    modules = os.path.join(api, "Modules")
    if modules not in sys.path:
        sys.path.append(modules)
    try:
        import DaVinciResolveScript
    except ImportError as error:
        raise ResolveProblem(f"Resolve's scripting is not in {modules}; set RESOLVE_SCRIPT_API") from error
    resolve = DaVinciResolveScript.scriptapp("Resolve")
    if resolve is None:
        raise ResolveProblem(
            "Resolve does not answer: start it, and allow Preferences > General > External scripting using: Local "
            "(Resolve Studio)"
        )
    return resolve


def source(resolve: Any) -> dict[str, Any]:
    """The clip under the playhead: `item`, `clip`, `plate` as rotomem takes it, `first` and `last` on disk.

    Raises ResolveProblem where there is none, or where it is not certain which frames it shows.
    """
    project = resolve.GetProjectManager().GetCurrentProject()
    timeline = project and project.GetCurrentTimeline()
    item = timeline and timeline.GetCurrentVideoItem()
    clip = item and item.GetMediaPoolItem()
    path = (clip.GetClipProperty("File Path") if clip else "") or ""
    if not path:
        raise ResolveProblem("no clip with a file lies under the playhead: put it on one")
    path = path.replace(os.sep, "/")
    numbered = re.match(r"(.*)\[(\d+)-(\d+)\]([^/\[\]]*)$", path, re.DOTALL)
    kind = os.path.splitext(path)[1][1:].lower()
    if kind not in (_STILLS if numbered else _MOVIES):
        raise ResolveProblem(f"rotomem cannot read {path}: render the clip to EXR, or use the Lua script, which does")
    if numbered:
        path = f"{numbered[1]}%0{len(numbered[2])}d{numbered[4]}"
        first, last = int(numbered[2]), int(numbered[3])
    else:
        first, last = 1, int(clip.GetClipProperty("Frames"))
    rates = [float(v or 0) for v in (clip.GetClipProperty("FPS"), timeline.GetSetting("timelineFrameRate"))]
    ratio = rates[0] / rates[1] if all(rates) else 1.0
    offset, duration = (int(n * ratio + 0.5) for n in (item.GetLeftOffset(), item.GetEnd() - item.GetStart()))
    # Some versions count an image sequence's offset by its files.
    for start in (first + offset, offset):
        if first <= start and start + duration - 1 <= last:
            return {
                "item": item,
                "clip": clip,
                "plate": path,
                "first": start,
                "last": start + duration - 1,
            }
    raise ResolveProblem(
        f"the clip has frames {first}-{last}, the timeline shows {duration} from offset {offset} on: is it retimed? "
        "Render it in place first"
    )


def track(
    *masks: str,
    out: str = "",
    how: str = "matte",
    resolve: Any = None,
    engine: str = "",
    say: Callable[[str], None] = print,
    **options: Any,
) -> dict[str, Any]:
    """Track the clip under the playhead; waits. The engine's report.

    masks     as `--mask` takes them
    out       folder of the mattes; "": `rotomem` beside the plate
    how       "matte": clip mattes of the Color page; "comp": a Fusion composition on the clip; "files": mattes only
    resolve   "": the one that runs
    engine    a Python that has rotomem; "": as `client.find_engine` has it
    options   fields of rotomem's TrackOptions

    Raises ResolveProblem, EngineError.
    """
    resolve = resolve or connect()
    seen = source(resolve)
    out = out or os.path.join(os.path.dirname(seen["plate"]), "rotomem")
    options = {"resume": True, "frames": f"{seen['first']}-{seen['last']}", "also": ["packed"], **options}
    with Engine(find_engine(engine)) as running:
        job = _done(running, say, "track", plate=seen["plate"], masks=list(masks), out=out, options=options)
        report: dict[str, Any] = job["report"]
        if how == "comp":
            comp = os.path.join(out, "rotomem.comp")
            fields = {"plate": seen["plate"], "mattes": [out], "kind": "comp", "out": comp, "origin": seen["first"]}
            _done(running, say, "export", **fields)
            if not seen["item"].ImportFusionComp(comp):
                raise ResolveProblem(f"Resolve did not import {comp}")
    if how == "matte":
        _attach(resolve, seen, out)
    return report


def _done(running: Engine, say: Callable[[str], None], do: str, **fields: Any) -> dict[str, Any]:
    job = running.submit(do, **fields)
    said: str | None = None
    try:
        while not job.ended:
            running.poll()
            time.sleep(0.05)
            if job.message != said:
                said = job.message
                say(said)
    except KeyboardInterrupt:
        running.cancel(job)
        running.wait(job)
    if job.state != "done" or job.result is None:
        raise EngineError(job.message)
    return job.result


def _attach(resolve: Any, seen: dict[str, Any], out: str) -> None:
    frames: dict[tuple[str, int], list[str]] = {}
    for name in sorted(os.listdir(out)):
        found = re.match(r"(.*packed.*?)(\d+)\.exr$", name)
        if found and seen["first"] <= int(found[2]) <= seen["last"]:
            frames.setdefault((found[1], len(found[2])), []).append(found[2])
    for (head, _), numbers in frames.items():
        spelling = f"{out}/{head}[{numbers[0]}-{numbers[-1]}].exr"
        first = f"{out}/{head}{numbers[0]}.exr"
        storage = resolve.GetMediaStorage()
        if not any(storage.AddClipMattesToMediaPool(seen["clip"], [path]) for path in (spelling, first)):
            raise ResolveProblem(f"Resolve did not take {spelling} as a clip matte: add it by hand")
