"""The confidence of every object over the shot, as a picture: curves, keys, what is flagged, the key to add."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import OpenImageIO as oiio

from rotomem.errors import OutputError
from rotomem.io.atomic import whole_file
from rotomem.io.chart import FAINT, INK, Sheet, ticks
from rotomem.quality.overlay import FLAG, KEY, Colour
from rotomem.quality.suggest import Curve, Flag, Suggestion

_WIDE, _LEFT, _RIGHT, _ROW, _HEAD, _FOOT = 1400, 150, 30, 120, 46, 40
_NAME = 14
"""Letters of a name that fit."""


def write_timeline(
    path: Path,
    curves: Sequence[Curve],
    flags: Sequence[Flag],
    suggestion: Suggestion | None,
    colours: Mapping[str, Colour],
    title: str,
) -> None:
    """Draw it as PNG: a row an object, frames from left to right. Raises OutputError."""
    first, last = curves[0].frames[0], curves[0].frames[-1]
    sheet = Sheet(_WIDE, _HEAD + _ROW * len(curves) + _FOOT)
    scale = (_WIDE - _LEFT - _RIGHT) / max(last - first, 1)

    def x(frame: float) -> float:
        return _LEFT + (frame - first) * scale

    sheet.text(16, 22, title)
    for row, curve in enumerate(curves):
        top = _HEAD + row * _ROW
        bottom = top + _ROW - 22

        def y(value: float, bottom: int = bottom, top: int = top) -> float:
            return bottom - value * (bottom - top)

        for level in (0.0, 0.5, 1.0):
            sheet.line(np.array([x(first), x(last)]), np.full(2, y(level)), FAINT)
            sheet.text(_LEFT - 8, y(level), f"{level:g}", INK, "right")
        name = curve.name if len(curve.name) <= _NAME else curve.name[: _NAME - 1] + "…"
        sheet.text(16, (top + bottom) / 2, name, colours[curve.name])
        for flag in flags:
            if flag.name == curve.name:
                for dy in range(-2, 3):
                    sheet.line(np.array([x(flag.first) - 2, x(flag.last) + 2]), np.full(2, bottom + 6 + dy), FLAG)
        for key in curve.keys:
            if first <= key <= last:
                sheet.line(np.full(2, x(key)), np.array([top, bottom + 8]), KEY)
        if suggestion and curve.name in suggestion.objects:
            for step in range(top, bottom, 8):
                sheet.line(np.full(2, x(suggestion.frame)), np.array([step, step + 4]), INK)
        at = np.array([x(f) for f in curve.frames])
        known = np.isfinite(curve.confidence)
        for run in np.split(np.arange(len(at)), np.flatnonzero(np.diff(known.astype(int))) + 1):
            if run.size and known[run[0]]:
                values = np.array([y(v) for v in curve.confidence[run]])
                for thick in (-0.5, 0.5):
                    sheet.line(at[run], values + thick, colours[curve.name])
    foot = _HEAD + _ROW * len(curves) + 14
    for tick in ticks(first, last, 12):
        if math.isclose(tick, round(tick)):
            sheet.text(x(tick), foot, f"{tick:g}", INK, "center")
    for i, (text, colour) in enumerate((("key", KEY), ("flagged", FLAG), ("the key that would help most", INK))):
        sheet.text(_LEFT + (0, 60, 150)[i], foot + 18, text, colour)
    with whole_file(path, what="picture") as part:
        picture: oiio.ImageBuf = sheet.finished()
        if not picture.write(str(part), "uint8", "png"):
            raise OutputError(f"cannot write the timeline: {picture.geterror()}", path=path)
