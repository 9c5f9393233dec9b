"""Timings as a picture: time of a reading over the elements it reads, time of a frame over a long shot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rotomem.errors import InputError, OutputError
from rotomem.io.atomic import whole_file
from rotomem.io.chart import COLOURS, FAINT, INK, Sheet, log_ticks, ticks

_WIDE, _HIGH, _LEFT, _TOP, _BELOW = 460, 240, 66, 40, 46
"""Size of a panel's axes in pixels, room at its left, above and below."""


@dataclass(frozen=True)
class _Panel:
    """One pair of axes. curves: name -> (x, y); y by its logarithm, or from 0 on."""

    title: str
    below: str
    curves: dict[str, tuple[list[float], list[float]]]
    logarithmic: bool


def draw(lines: Sequence[Mapping[str, Any]], out: str | Path) -> Path:
    """Draw what the lines (of `Line.as_dict`) tell: readings of 480p with 1 object, and long shots.

    Raises InputError where they tell neither, OutputError where the picture cannot be written.
    """
    panels = [p for p in (_readings(lines), _frames(lines)) if p.curves]
    if not panels:
        raise InputError(
            "there is nothing to draw", remedy="time readings of 480p with several memories, or a shot with --long"
        )
    cell = _LEFT + _WIDE + 24
    sheet = Sheet(len(panels) * cell, _TOP + _HIGH + _BELOW)
    for column, panel in enumerate(panels):
        _draw(sheet, panel, column * cell + _LEFT, _TOP)
    picture, out = sheet.finished(), Path(out)
    with whole_file(out, what="plot") as part:
        if not picture.write(str(part), "uint8", "png"):
            raise OutputError(f"cannot write the plot: {picture.geterror()}", path=out)
    return out


def _readings(lines: Sequence[Mapping[str, Any]]) -> _Panel:
    """Median milliseconds over N of every backend that was timed at more than one N."""
    points: dict[str, dict[float, float]] = {}
    for line in lines:
        facts = line.get("facts") or {}
        wide = facts.get("value_channels") == 512 and facts.get("objects") == 1
        if line["bench"] == "read" and wide and line["case"].startswith("480p") and "median_s" in line:
            points.setdefault(line["backend"], {})[facts["elements"]] = 1e3 * line["median_s"]
    curves = {}
    for name, by_elements in points.items():
        if len(by_elements) > 1:
            at = sorted(by_elements)
            curves[name] = ([float(n) for n in at], [by_elements[n] for n in at])
    return _Panel("a reading at 480p, ms", "elements in memory", curves, logarithmic=True)


def _frames(lines: Sequence[Mapping[str, Any]]) -> _Panel:
    """Milliseconds a frame over the frames of long shots."""
    curves = {}
    for line in lines:
        if series := line.get("series"):
            each = line["facts"]["frames"] / len(series)
            curves[line["case"]] = ([(i + 0.5) * each for i in range(len(series))], [1e3 * s for s in series])
    return _Panel("a frame of a long shot, ms", "frame", curves, logarithmic=False)


def _draw(sheet: Sheet, panel: _Panel, left: int, top: int) -> None:
    """Grid, labels and curves; the names stand above, in the curves' colours."""
    together = [v for _, ys in panel.curves.values() for v in ys]
    right = max(x for xs, _ in panel.curves.values() for x in xs)
    low, high = 0.0, 1.15 * max(together)
    if panel.logarithmic:
        low, high = math.log10(0.8 * min(together)), math.log10(1.25 * max(together))

    def x_of(values: Sequence[float]) -> np.ndarray:
        return left + np.asarray(values, dtype=float) / right * _WIDE

    def y_of(values: Sequence[float]) -> np.ndarray:
        level = np.log10(values) if panel.logarithmic else np.asarray(values, dtype=float)
        return top + (high - level) / (high - low) * _HIGH

    for tick in log_ticks(low, high) if panel.logarithmic else ticks(low, high):
        y = float(y_of([tick])[0])
        sheet.line(np.asarray([left, left + _WIDE]), np.asarray([y, y]), FAINT)
        sheet.text(left - 8, y, f"{tick:g}", align="right")
    for tick in ticks(0, right, 6):
        x = float(x_of([tick])[0])
        sheet.line(np.asarray([x, x]), np.asarray([top, top + _HIGH]), FAINT)
        sheet.text(x, top + _HIGH + 13, f"{tick:g}", align="center")
    box = np.asarray([(0, 0), (_WIDE, 0), (_WIDE, _HIGH), (0, _HIGH), (0, 0)])
    sheet.line(left + box[:, 0], top + box[:, 1], INK)
    sheet.text(left, top - 28, panel.title)
    sheet.text(left + _WIDE, top + _HIGH + 32, panel.below, align="right")
    x = left
    for i, (name, (xs, ys)) in enumerate(panel.curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        sheet.line(x_of(xs), y_of(ys), colour)
        sheet.text(x, top - 11, name, colour)
        x += 7 * len(name) + 18
