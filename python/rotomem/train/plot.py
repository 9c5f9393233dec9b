"""A run's log as a picture: losses, overlap, rate, speed and validation, against steps and against minutes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import OpenImageIO as oiio

from rotomem.errors import InputError, OutputError
from rotomem.io.chart import COLOURS, FAINT, INK, Colour, Sheet, log_ticks, ticks

_WIDE, _HIGH, _LEFT, _TOP, _ROOM = 620, 190, 66, 34, 30
"""Size of a panel's axes in pixels, room at its left, above and below."""
_MOST_POINTS = 1500
"""Of longer runs every second, third, ... value is drawn."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes: its title, the log's keys it draws, by their logarithm or not, as they are or smoothed."""

    title: str
    keys: tuple[str, ...]
    logarithmic: bool = False
    smooth: bool = True


@dataclass(frozen=True)
class Curve:
    """Values of one key: steps, minutes and values, [N] each."""

    key: str
    steps: np.ndarray
    minutes: np.ndarray
    values: np.ndarray


def read_log(path: str | Path) -> list[dict[str, float]]:
    """The lines of a log.jsonl, a last line that was cut short left out. Raises InputError where there is none."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise InputError(f"cannot read the log: {error.strerror}", path=path) from None
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "step" in entry:
            entries.append(entry)
    return entries


def draw_log(log: str | Path, out: str | Path) -> Path:
    """Draw the curves of a log.jsonl to a picture.

    Raises InputError where the log is absent or holds no finite loss, OutputError where the picture cannot be
    written.
    """
    entries = read_log(log)
    curves = {
        key: curve
        for key in dict.fromkeys(key for entry in entries for key in entry)
        if (curve := _curve(entries, key)) is not None
    }
    if "loss" not in curves:
        none = "no loss in the log is finite" if any("loss" in e for e in entries) else "the log holds no step yet"
        raise InputError(none, path=log)
    parts = ("cross_entropy", "dice", "boundary", "present")
    validation = tuple(
        k for k in curves if k.startswith("validation_") and k.removeprefix("validation_") not in parts
    )
    losses = tuple(k for k in ("loss", "cross_entropy", "dice", "boundary") if k in curves)
    panels = [
        Panel("loss", losses, logarithmic=True),
        Panel("overlap with the truth", ("overlap",)),
        Panel("learning rate", ("rate",), smooth=False),
        Panel("frames a second", ("frames_per_s",)),
        Panel("validation, averaged weights", validation[: len(COLOURS)], smooth=False),
    ]
    panels = [p for p in panels if any(key in curves for key in p.keys)]
    picture = _draw(panels, curves)
    out = Path(out)
    part = out.with_name(f".{out.stem}.part{out.suffix}")
    try:
        if not picture.write(str(part), "uint8"):
            raise OutputError(f"cannot write the plot: {picture.geterror()}", path=out)
        part.replace(out)
    except OSError as error:
        raise OutputError(f"cannot write the plot: {error.strerror}", path=out) from None
    finally:
        part.unlink(missing_ok=True)
    return out


def _curve(entries: Sequence[dict[str, float]], key: str) -> Curve | None:
    """Finite values of a key; None where there is none, or it is no number."""
    rows = [
        (float(e["step"]), float(e.get("elapsed_s", 0)) / 60, float(e[key]))
        for e in entries
        if isinstance(e.get(key), int | float) and math.isfinite(e[key])
    ]
    if not rows:
        return None
    steps, minutes, values = np.asarray(rows).T
    return Curve(key, steps, minutes, values)


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Running mean [N] over `window` values, over what there is at the ends."""
    window = max(min(window, len(values)), 1)
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def _draw(panels: Sequence[Panel], curves: dict[str, Curve]) -> oiio.ImageBuf:
    cell_w, cell_h = _LEFT + _WIDE + 14, _TOP + _HIGH + _ROOM
    sheet = Sheet(2 * cell_w, len(panels) * cell_h)
    for row, panel in enumerate(panels):
        for column, against in enumerate(("steps", "minutes")):
            shown = [curves[key] for key in panel.keys if key in curves]
            _Axes(sheet, column * cell_w + _LEFT, row * cell_h + _TOP).draw(panel, shown, against)
    return sheet.finished()


class _Axes:
    """One panel on a sheet; x and y are its upper left corner."""

    def __init__(self, sheet: Sheet, x: int, y: int) -> None:
        self._sheet, self._x, self._y = sheet, x, y

    def draw(self, panel: Panel, curves: Sequence[Curve], against: str) -> None:
        """Grid, labels, faint values and their running means."""
        logarithmic = panel.logarithmic and all((c.values > 0).all() for c in curves)
        values = [np.log10(c.values) if logarithmic else c.values for c in curves]
        means = [smoothed(v, len(v) // 40) if panel.smooth else v for v in values]
        at = [c.steps if against == "steps" else c.minutes for c in curves]
        right = max(float(a.max()) for a in at) or 1.0
        together = np.concatenate(values)
        low, high = (float(v) for v in np.percentile(together, (0.5, 99.5)))
        low, high = min([low, *(float(m.min()) for m in means)]), max([high, *(float(m.max()) for m in means)])
        margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        low, high = low - margin, high + margin

        def to_x(v: np.ndarray) -> np.ndarray:
            return self._x + np.asarray(v) / right * _WIDE

        def to_y(v: np.ndarray) -> np.ndarray:
            return self._y + (high - np.clip(v, low, high)) / (high - low) * _HIGH

        for tick in log_ticks(low, high) if logarithmic else ticks(low, high):
            y = float(to_y(np.asarray(math.log10(tick) if logarithmic else tick)))
            self._line((self._x, self._x + _WIDE), (y, y), FAINT)
            self._sheet.text(self._x - 8, y, f"{tick:g}", align="right")
        for tick in ticks(0, right, 8):
            x = float(to_x(np.asarray(tick)))
            self._line((x, x), (self._y, self._y + _HIGH), FAINT)
            self._sheet.text(x, self._y + _HIGH + 13, f"{tick:g}", align="center")
        box = ((0, 0), (_WIDE, 0), (_WIDE, _HIGH), (0, _HIGH), (0, 0))
        self._line([self._x + bx for bx, _ in box], [self._y + by for _, by in box], INK)
        self._sheet.text(self._x, self._y - 14, f"{panel.title}, by {against}")
        colours = [COLOURS[i % len(COLOURS)] for i in range(len(curves))]
        few = [slice(None, None, len(v) // _MOST_POINTS + 1) for v in values]
        for value, where, colour, some in zip(values, at, colours, few, strict=True):
            if panel.smooth:
                pale = cast(Colour, tuple(1 - 0.3 * (1 - c) for c in colour))
                self._sheet.line(to_x(where[some]), to_y(value[some]), pale)
        for mean, where, colour, some in zip(means, at, colours, few, strict=True):
            self._sheet.line(to_x(where[some]), to_y(mean[some]), colour)
        x = self._x + _WIDE
        for curve, colour in zip(reversed(curves), reversed(colours), strict=True) if len(curves) > 1 else ():
            name = curve.key.removeprefix("validation_").replace("_", " ")
            self._sheet.text(x, self._y - 14, name, colour, "right")
            x -= 8 * len(name) + 18

    def _line(self, xs: Sequence[float], ys: Sequence[float], colour: Colour) -> None:
        self._sheet.line(np.asarray(xs, dtype=float), np.asarray(ys, dtype=float), colour)
