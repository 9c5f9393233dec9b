"""Plates of any size whose every pixel is known: how much of it the object covers, in which colour, before what.

Three kinds of softness, one a shot: hair (thousands of strands thinner than a pixel on a body), motion blur (an
open shutter) and defocus (a wide lens). Light is scene-linear, Rec.709 primaries; composites are made in it and grain
comes last, so a matte and a foreground colour can be held against what is true. NumPy only; a seed gives the same
pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rotomem.errors import UsageError

KINDS = ("hair", "motion_blur", "defocus")

Map = NDArray[np.float32]
Line = NDArray[np.float64]
_REFERENCE = 1080  # lines for which lengths below are given in pixels
_INSTANTS = 24


@dataclass(frozen=True)
class AlphaFrame:
    """One frame.

    plate        [H, W, 3] scene-linear light, with grain
    alpha        [H, W] coverage 0..1
    foreground   [H, W, 3] light of the object alone, multiplied by alpha
    background   [H, W, 3] light behind it
    """

    plate: Map
    alpha: Map
    foreground: Map
    background: Map


def alpha_shot(kind: str, *, height: int, width: int, frames: int, seed: int = 1) -> Iterator[AlphaFrame]:
    """Frames of one shot, in order.

    kind   "hair", "motion_blur" or "defocus"
    Raises UsageError for another kind, or a picture too small to show one.
    """
    if kind not in KINDS or height < 48 or width < 48 or frames < 1:
        raise UsageError(
            f"a shot of {frames} frames of {kind}, {width}x{height}",
            remedy=f"ask for {', '.join(KINDS)}, 48x48 pixels or more and a frame or more",
        )
    rng = np.random.default_rng((seed, KINDS.index(kind)))
    unit = height / _REFERENCE
    reach = int(60 * unit * frames) + 16
    skin = _texture(rng, height, width, unit, rng.uniform(0.08, 0.3, 3))
    far = _texture(rng, height, width + reach, unit * 1.7, rng.uniform(0.2, 0.6, 3))
    radius = 0.24 * height
    angles = np.linspace(0, 2 * np.pi, 512, endpoint=False)
    waves = [rng.normal(0, 0.16 / k) * np.cos(k * angles + rng.uniform(0, 6.3)) for k in range(2, 6)]
    outline: Line = radius * (1 + np.stack(waves).sum(axis=0))
    strands = _Strands(rng, unit, angles, outline) if kind == "hair" else None
    speed = {"hair": 5.0, "motion_blur": 46.0, "defocus": 7.0}[kind] * unit
    shutter = 0.9 if kind == "motion_blur" else 0.0
    instants = _INSTANTS if shutter else 1
    for t in range(frames):
        alpha = np.zeros((height, width), np.float32)
        light = np.zeros((height, width, 3), np.float32)
        for k in range(instants):
            time = t + shutter * ((k + 0.5) / instants - 0.5)
            x = width * 0.5 + speed * (time - (frames - 1) / 2)
            y = height * 0.5 + 0.12 * height * np.sin(time / 3)
            cover = _body(height, width, x, y, time * 0.02, angles, outline)
            if strands is not None:
                cover = np.maximum(cover, strands.draw(height, width, x, y, time))
            moved = np.roll(skin, (round(y - height / 2), round(x - width / 2)), (0, 1))
            alpha += cover / instants
            light += moved * (cover / instants)[..., None]
        blur = {"hair": 0.7, "motion_blur": 0.6, "defocus": 11.0}[kind] * unit
        alpha, light = _disc_blur(alpha[..., None], blur)[..., 0], _disc_blur(light, blur)
        alpha = np.clip(alpha, 0, 1)
        background = far[:, int(3 * unit * t) : int(3 * unit * t) + width]
        plate = light + (1 - alpha)[..., None] * background
        grain = rng.standard_normal(plate.shape, dtype=np.float32) * np.sqrt(0.0002 * plate + 0.000002)
        yield AlphaFrame((plate + grain).astype(np.float32), alpha, light, background)


def _texture(rng: np.random.Generator, height: int, width: int, unit: float, colour: Line) -> Map:
    """Something to look at [H, W, 3]: patches with hard edges, clouds of every size, both in colour."""
    light = np.ones((height, width, 3), np.float32)
    # As in photographs: the larger the stronger, and brightness varies more than hue.
    for side, strength in ((400, 0.3), (130, 0.2), (45, 0.12), (16, 0.07), (6, 0.05)):
        cells = max(side * unit, 2)
        rows, columns = int(height / cells) + 3, int(width / cells) + 3
        bright, hue = rng.normal(0, 1, (rows, columns, 1)), rng.normal(0, 0.3, (rows, columns, 3))
        light *= np.exp(strength * _enlarged((bright + hue).astype(np.float32), height, width, cells))
    for _ in range(60):
        a, b = rng.uniform(0.01, 0.12, 2) * height
        x, y = int(rng.uniform(a, width - a)), int(rng.uniform(b, height - b))
        yy, xx = np.mgrid[max(int(y - b), 0) : int(y + b) + 1, max(int(x - a), 0) : int(x + a) + 1]
        tint = np.exp(rng.normal(0, 0.35) + rng.normal(0, 0.12, 3)).astype(np.float32)
        inside = (((xx - x) / a) ** 2 + ((yy - y) / b) ** 2 < 1) & (yy < height) & (xx < width)
        light[yy[inside], xx[inside]] *= tint
    return (light * colour).astype(np.float32)


def _enlarged(coarse: Map, height: int, width: int, cells: float) -> Map:
    """[h, w, C] bilinearly at [height, width, C], `cells` pixels a sample."""
    y, x = (np.arange(height) / cells).astype(np.float32), (np.arange(width) / cells).astype(np.float32)
    top, left = y.astype(int), x.astype(int)
    fy, fx = (y - top)[:, None, None], (x - left)[None, :, None]
    rows = coarse[top] * (1 - fy) + coarse[top + 1] * fy
    return rows[:, left] * (1 - fx) + rows[:, left + 1] * fx


def _body(
    height: int,
    width: int,
    x: float,
    y: float,
    turn: float,
    angles: Line,
    outline: Line,
) -> Map:
    """Coverage [H, W] of the outline around (x, y), its edge one pixel wide."""
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    dx, dy = xx + 0.5 - np.float32(x), yy + 0.5 - np.float32(y)
    step = angles[1]
    place = ((np.arctan2(dy, dx) - turn) / step) % angles.size
    low = place.astype(int) % angles.size
    part = place - np.floor(place)
    edge = outline[low] * (1 - part) + outline[(low + 1) % angles.size] * part
    return np.clip(edge - np.hypot(dx, dy) + 0.5, 0, 1).astype(np.float32)


class _Strands:
    """Hair that grows from the upper half of an outline and sways."""

    def __init__(self, rng: np.random.Generator, unit: float, angles: Line, outline: Line) -> None:
        count, points = 1400, int(500 * max(unit, 0.3))
        root = rng.integers(angles.size // 2, angles.size, count)
        along = np.linspace(0, 1, points)[None, :]
        length = rng.uniform(50, 190, (count, 1)) * unit
        heading = angles[root][:, None] + rng.normal(0, 0.35, (count, 1)) + rng.normal(0, 0.7, (count, 1)) * along
        start = outline[root][:, None] * 0.97
        self._x = start * np.cos(angles[root])[:, None] + length * along * np.cos(heading)
        self._y = start * np.sin(angles[root])[:, None] + length * along * np.sin(heading)
        self._sway = rng.normal(0, 3 * unit, (count, 1)) * along**2
        # Coverage that a point leaves: the strand's width times the way to the next point, thinner towards the tip.
        width = rng.uniform(0.5, 1.3, (count, 1)) * unit
        self._weight = width * (1 - 0.7 * along) * length / points

    def draw(self, height: int, width: int, x: float, y: float, time: float) -> Map:
        px = self._x + x + self._sway * np.sin(time / 2)
        py = self._y + y
        left, top = np.floor(px - 0.5).astype(int), np.floor(py - 0.5).astype(int)
        fx, fy = px - 0.5 - left, py - 0.5 - top
        total = np.zeros(height * width)
        for dy, dx, share in (
            (0, 0, (1 - fy) * (1 - fx)),
            (0, 1, (1 - fy) * fx),
            (1, 0, fy * (1 - fx)),
            (1, 1, fy * fx),
        ):
            row, column = top + dy, left + dx
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            total += np.bincount(
                (row * width + column)[inside], (share * self._weight)[inside], minlength=height * width
            )
        return (1 - np.exp(-total)).reshape(height, width).astype(np.float32)  # strands hide each other at random


def _disc_blur(image: Map, radius: float) -> Map:
    """[H, W, C] averaged over a disc of that radius in pixels, edges repeated: what a lens does to a point."""
    half = int(np.ceil(radius))
    yy, xx = np.mgrid[-half : half + 1, -half : half + 1]
    weight = np.clip(radius + 0.5 - np.hypot(yy, xx), 0, 1)
    weight /= weight.sum()
    h, w = image.shape[:2]
    padded = np.pad(image, ((half, half), (half, half), (0, 0)), mode="edge")
    ahead = np.cumsum(padded, axis=1, dtype=np.float64)
    ahead = np.concatenate([np.zeros_like(ahead[:, :1]), ahead], 1)
    out = np.zeros(image.shape, np.float64)
    for dy in range(2 * half + 1):
        row = weight[dy]
        full = np.flatnonzero(row > row.max() * (1 - 1e-9))
        whole = row.max()
        for dx in np.flatnonzero((row > 0) & (row < whole * (1 - 1e-9))):
            out += row[dx] * padded[dy : dy + h, dx : dx + w]
        if whole > 0:
            first, last = full[0], full[-1] + 1
            out += whole * (ahead[dy : dy + h, last : last + w] - ahead[dy : dy + h, first : first + w])
    return out.astype(np.float32)
