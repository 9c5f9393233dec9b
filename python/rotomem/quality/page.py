"""The review as a page: opens from disk, needs neither server nor network."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

from rotomem.io.atomic import whole_file
from rotomem.quality.overlay import Colour
from rotomem.quality.suggest import Curve, Flag, Suggestion

_PLACE = "/*SHOT*/null"


def frame_name(frame: int) -> str:
    """What a frame's pictures are called: `overlay.<this>.jpg`."""
    return f"{frame:04d}"


def write_page(
    path: Path,
    *,
    plate: str,
    fps: Fraction | None,
    summary: str,
    curves: Sequence[Curve],
    flags: Sequence[Flag],
    suggestion: Suggestion | None,
    colours: Mapping[str, Colour],
) -> None:
    """Write the page, all it knows inside it; pictures lie in `frames/` beside it. Raises OutputError."""
    frames = curves[0].frames
    shot = {
        "plate": plate,
        "fps": float(fps or 24),
        "summary": summary,
        "frames": frames,
        "files": [frame_name(f) for f in frames],
        "objects": [
            {
                "name": curve.name,
                "colour": "#" + "".join(f"{round(255 * c):02x}" for c in colours[curve.name]),
                "confidence": [round(float(c), 3) if math.isfinite(c) else None for c in curve.confidence],
                "keys": sorted(curve.keys & set(frames)),
                "flags": [
                    {"first": f.first, "last": f.last, "worst": f.worst, "confidence": round(f.confidence, 3)}
                    for f in flags
                    if f.name == curve.name
                ],
            }
            for curve in curves
        ],
        "suggestion": suggestion
        and {"frame": suggestion.frame, "objects": suggestion.objects, "gain": round(suggestion.gain, 4)},
    }
    template = files("rotomem.quality").joinpath("page.html").read_text("utf-8")
    assert template.count(_PLACE) == 1
    with whole_file(path, what="page") as part:
        part.write_text(template.replace(_PLACE, _script_json(shot)), "utf-8")


def _script_json(value: object) -> str:
    """JSON that may stand in a script element: no name, however odd, ends it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("&", "\\u0026")
