"""Lines on a white ground: what a training's curves and a benchmark's plot are drawn with."""

from __future__ import annotations

import math

import numpy as np
import OpenImageIO as oiio

Colour = tuple[float, float, float]

COLOURS: tuple[Colour, ...] = (
    (0.84, 0.15, 0.16),
    (0.12, 0.47, 0.71),
    (0.17, 0.63, 0.17),
    (0.58, 0.40, 0.74),
    (0.95, 0.55, 0.05),
    (0.30, 0.30, 0.30),
)
INK, FAINT = (0.15, 0.15, 0.15), (0.88, 0.88, 0.88)
_SCALE = 2
"""Lines are drawn this much larger and then shrunk, which smooths them."""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from low to high, both ends included where they are round."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten from 10**low to 10**high."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    every = [float(f"{m}e{p}") for p in powers for m in (1, 2, 5)]
    return [t for t in every if low <= math.log10(t) <= high]


class Sheet:
    """Lines on a white ground, drawn large and shrunk, and text that is drawn last."""

    def __init__(self, wide: int, high: int) -> None:
        self._lines = np.ones((high * _SCALE, wide * _SCALE, 3), np.float32)
        self._texts: list[tuple[int, int, str, Colour, str]] = []

    def line(self, xs: np.ndarray, ys: np.ndarray, colour: Colour) -> None:
        """A polyline through pixels (xs, ys), about a pixel wide once shrunk."""
        points = np.stack([ys, xs], 1) * _SCALE
        lengths = np.ceil(np.abs(np.diff(points, axis=0)).max(1)).astype(int) + 1
        segment = np.repeat(np.arange(len(lengths)), lengths)
        along = np.arange(len(segment)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        share = (along / lengths[segment])[:, None]
        at = np.concatenate([points[segment] * (1 - share) + points[segment + 1] * share, points[-1:]])
        y, x = np.rint(at).astype(int).T
        high, wide = self._lines.shape[:2]
        for dy, dx in ((0, 0), (1, 0), (0, 1)):
            self._lines[np.clip(y + dy, 0, high - 1), np.clip(x + dx, 0, wide - 1)] = colour

    def text(self, x: float, y: float, text: str, colour: Colour = INK, align: str = "left") -> None:
        """Text whose middle height is at y."""
        self._texts.append((round(x), round(y), text, colour, align))

    def finished(self) -> oiio.ImageBuf:
        """Everything, at its size."""
        high, wide = (n // _SCALE for n in self._lines.shape[:2])
        shrunk = self._lines.reshape(high, _SCALE, wide, _SCALE, 3).mean((1, 3))
        picture = oiio.ImageBuf(np.ascontiguousarray(shrunk))
        for x, y, text, colour, align in self._texts:
            oiio.ImageBufAlgo.render_text(picture, x, y, text, 14, "", colour, align, "center")
        return picture
