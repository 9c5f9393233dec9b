"""What the demo shot is about: a hot-air balloon and a kite, painted from formulas at any instant.

A painter takes positions in units of a 960 x 540 picture and gives what is there: premultiplied linear Rec.709 colour
and coverage, anti-aliased to a pixel. Times are in frames.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rotomem.demo.landscape import SUNLIGHT
from rotomem.demo.noise import Image, fractal, sample, smoothstep

SKYLIGHT = np.array((0.26, 0.34, 0.50), np.float32)
BOUNCE = np.array((0.16, 0.14, 0.10), np.float32)


@dataclass(frozen=True)
class Box:
    """A rectangle in units."""

    x0: float
    y0: float
    x1: float
    y1: float


class Subject(Protocol):
    """Something with a matte."""

    name: str

    def box(self, t: float) -> Box:
        """Where it is at time t, generously."""
        ...

    def paint(self, x: Image, y: Image, t: float, pixel: float) -> tuple[Image, Image]:
        """Premultiplied colour [h, w, 3] and coverage [h, w] at positions x, y [h, w] `pixel` apart."""
        ...


def _colour(r: float, g: float, b: float) -> Image:
    return np.array((r, g, b), np.float32)


def _cover(distance: Image, pixel: float) -> Image:
    """Coverage of a pixel whose centre lies `distance` inside an edge."""
    out: Image = np.clip(distance / pixel + 0.5, 0, 1)
    return out


class _Sheet:
    """What is painted so far: premultiplied colour and coverage."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.rgb: Image = np.zeros((*shape, 3), np.float32)
        self.alpha: Image = np.zeros(shape, np.float32)

    def part(self, rows: slice, columns: slice) -> _Sheet:
        """A rectangle of this sheet, to paint into."""
        part = _Sheet.__new__(_Sheet)
        part.rgb, part.alpha = self.rgb[rows, columns], self.alpha[rows, columns]
        return part

    def over(self, colour: Image, cover: Image) -> None:
        """Lay a colour over it where it covers."""
        k = cover[..., None]
        self.rgb *= 1 - k
        self.rgb += colour * k
        self.alpha += (1 - self.alpha) * cover


def _segment(x: Image, y: Image, a: tuple[float, float], b: tuple[float, float]) -> Image:
    """Distance to a line segment."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    t = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
    out: Image = np.hypot(x - a[0] - t * dx, y - a[1] - t * dy)
    return out


class Balloon:
    """A striped envelope of 20 gores with a zigzag belt, a burner that fires, and a basket with two people."""

    name = "balloon"
    RADIUS = 118.0
    GORES = 20

    def __init__(self, rng: np.random.Generator) -> None:
        self._cloth = fractal((256, 256), 1.2, rng, low=4)
        self._wicker = fractal((128, 128), 0.5, rng)

    def centre(self, t: float) -> tuple[float, float, float]:
        """x, y of the envelope's middle and its tilt in radians."""
        return 392 - 2.6 * t, 214 - 1.15 * t + 1.8 * math.sin(t / 6.5), 0.030 * math.sin(t / 7.0 + 0.4)

    def box(self, t: float) -> Box:
        x, y, _ = self.centre(t)
        r = self.RADIUS
        return Box(x - 1.12 * r, y - 1.08 * r, x + 1.12 * r, y + 2.12 * r)

    def paint(self, x: Image, y: Image, t: float, pixel: float) -> tuple[Image, Image]:
        cx, cy, tilt = self.centre(t)
        r = self.RADIUS
        u = ((x - cx) * math.cos(tilt) + (y - cy) * math.sin(tilt)) / r
        v = ((y - cy) * math.cos(tilt) - (x - cx) * math.sin(tilt)) / r
        pixel = pixel / r
        sheet = _Sheet(x.shape)
        # the basket is small and low, the envelope ends above it: paint each where it is
        low = max(int((cy + 1.20 * r - y[0, 0]) / (pixel * r)), 0)
        left, right = (max(int((cx + k * r - x[0, 0]) / (pixel * r)), 0) for k in (-0.35, 0.35))
        high = max(int((cy + 1.56 * r - y[0, 0]) / (pixel * r)), 0)
        for painter, part in (
            (self._basket, (slice(low, None), slice(left, right))),
            (self._envelope, (slice(0, high), slice(None))),
        ):
            if u[part].size:
                painter(sheet.part(*part).over, u[part], v[part], t, pixel)
        return sheet.rgb, sheet.alpha

    def _envelope(self, over: Callable[[Image, Image], None], u: Image, v: Image, t: float, pixel: float) -> None:
        # a sphere that runs out into a cone from 38 degrees below its equator, down to the mouth
        c, s = math.cos(0.66), math.sin(0.66)
        mouth = 1.36
        on_cone = v > s
        half = np.where(on_cone, c - (v - s) * (s / c) * (1 - 0.10 * (v - s)), np.sqrt(np.clip(1 - v * v, 0, 1)))
        half = np.maximum(half, 1e-3)
        slope = np.where(on_cone, -s / c, -v / half)
        inside = np.where(on_cone, (half - np.abs(u)) * c, 1 - np.hypot(u, v))
        cover = _cover(np.minimum(inside, mouth + 0.02 * np.cos(u * 8) - v), pixel)
        across = np.clip(u / half, -1, 1)
        longitude = np.arcsin(across) + 0.32 + 0.016 * t
        gore = longitude * self.GORES / (2 * np.pi)
        within = gore - np.floor(gore)
        index = np.floor(gore).astype(np.int32) % 4

        # normal of the surface, with every gore bulging between its seams
        bulge = (within - 0.5) * 0.55 * np.clip(1.15 - np.abs(v), 0.25, 1)
        angle = np.arcsin(across) + bulge
        flat = 1 / np.sqrt(1 + np.where(on_cone, slope, np.clip(slope, -6, 6)) ** 2)
        lean = -np.where(on_cone, slope, np.clip(slope, -6, 6)) * flat
        nx, ny, nz = np.sin(angle) * flat, lean, np.cos(angle) * flat

        red, cream, navy, gold = (
            _colour(0.62, 0.032, 0.026),
            _colour(0.84, 0.73, 0.52),
            _colour(0.016, 0.045, 0.125),
            _colour(0.90, 0.40, 0.035),
        )
        cloth = np.stack([red, cream, red, gold])[index]
        crown = smoothstep(-0.80, -0.80 + 3 * pixel, v)[..., None]
        cloth = navy * (1 - crown) + cloth * crown
        zigzag = np.abs(((gore * 1.0) % 1) - 0.5) * 0.36
        belt = np.clip((0.155 - np.abs(v - 0.17 + zigzag - 0.09)) / pixel * 0.7 + 0.5, 0, 1)[..., None]
        cloth = cloth * (1 - belt) + navy * belt
        line = np.clip((0.020 - np.abs(np.abs(v - 0.17 + zigzag - 0.09) - 0.172)) / pixel * 0.7 + 0.5, 0, 1)[
            ..., None
        ]
        cloth = cloth * (1 - line) + cream * line
        lower = np.clip((v - 0.98) / pixel + 0.5, 0, 1)[..., None]
        cloth = cloth * (1 - lower) + navy * lower
        weave = 1 + 0.05 * sample(self._cloth, longitude * 60, v * 150)
        seam = (
            np.minimum(within, 1 - within) * half * np.sqrt(np.clip(1 - across**2, 0.02, 1)) * 2 * np.pi / self.GORES
        )
        panels = np.abs(((v * 7.5) % 1) - 0.5)
        dark = 1 - 0.42 * np.exp(-((seam / 0.010) ** 2)) - 0.16 * np.exp(-(((0.5 - panels) / 0.05) ** 2))
        cloth = cloth * (weave * dark)[..., None]

        # sun from the left and slightly behind; thin cloth lets a good part of it through
        sun = np.clip(-0.86 * nx - 0.46 * ny + 0.10 * nz, 0, 1)
        through = np.clip(0.86 * nx * 0.5 + 0.32 - 0.2 * nz, 0, 1) * 0.55 + 0.10
        light = (
            sun[..., None] * SUNLIGHT * 1.75
            + through[..., None] * SUNLIGHT * 0.34
            + (0.5 - 0.5 * ny)[..., None] * SKYLIGHT * 0.55
            + (0.5 + 0.5 * ny)[..., None] * BOUNCE * 0.8
        )
        fire = self._fire(t)
        warm = np.exp(-np.clip(mouth - v, 0, 3) / 0.55) * nz
        light = light + (fire * warm)[..., None] * _colour(2.6, 1.15, 0.32)
        over(cloth * light, cover)
        # the mouth, seen from a little below, and the flame in it
        opening = 1 - np.hypot(u / 0.185, (v - mouth + 0.015) / 0.045)
        over(_colour(0.035, 0.026, 0.022) + fire * _colour(1.5, 0.62, 0.14), _cover(opening * 0.045, pixel))
        tongue = 1 - np.hypot(u / (0.030 + 0.006 * math.sin(3.1 * t)), (v - mouth - 0.015) / 0.115)
        heat = np.clip(tongue, 0, 1)[..., None]
        over(
            (_colour(5.0, 2.2, 0.5) + heat * _colour(9.0, 7.2, 3.4)) * fire,
            _cover(tongue * 0.03, pixel) * min(fire, 1),
        )

    def _fire(self, t: float) -> float:
        """The burner is lit for a while in the middle of the shot."""
        burst = float(np.clip((t - 3.5) / 1.5, 0, 1) * np.clip((13.5 - t) / 2.0, 0, 1))
        return burst * (0.85 + 0.15 * math.sin(2.4 * t) * math.sin(1.1 * t))

    def _basket(self, over: Callable[[Image, Image], None], u: Image, v: Image, t: float, pixel: float) -> None:
        top, bottom, wide = 1.70, 1.90, 0.135
        rope = _colour(0.10, 0.075, 0.055)
        for a, b in ((-0.17, -0.125), (-0.062, -0.05), (0.062, 0.05), (0.17, 0.125)):
            over(rope, _cover(0.0055 - _segment(u, v, (a, 1.34), (b, top)), pixel))
        skin, jackets = _colour(0.40, 0.22, 0.15), (_colour(0.03, 0.16, 0.20), _colour(0.42, 0.10, 0.03))
        for where, jacket in zip((-0.058, 0.060), jackets, strict=True):
            sway = where + 0.006 * math.sin(t / 4 + 9 * where)
            shade = 1.0 - 1.6 * (u - sway)[..., None] * 4
            over(jacket * shade, _cover(0.046 - np.hypot(u - sway, (v - 1.685) * 0.62), pixel))
            over(skin * shade, _cover(0.030 - np.hypot(u - sway, v - 1.618), pixel))
            over(
                _colour(0.03, 0.02, 0.015) * shade,
                _cover(0.029 - np.hypot(u - sway - 0.003, v - 1.608), pixel) * smoothstep(1.613, 1.600, v),
            )
        over(rope * 0.8, _cover(np.minimum(0.018 - np.abs(v - 1.475), 0.06 - np.abs(u)), pixel))
        taper = wide - 0.10 * (v - top)
        body = np.minimum(taper - np.abs(u), np.minimum(v - top, bottom - v))
        across = np.clip(u / taper, -1, 1)
        weave = (
            0.80 + 0.20 * np.sign(np.sin(u * 150) * np.sin(v * 170)) + 0.07 * sample(self._wicker, u * 300, v * 300)
        )
        light = np.clip(0.55 - 0.75 * across, 0.10, 2)[..., None] * SUNLIGHT * 1.25 + SKYLIGHT * 0.5
        wicker = _colour(0.36, 0.20, 0.085) * weave[..., None] * light
        over(wicker, _cover(body, pixel))
        rim = np.minimum(0.017 - np.abs(v - top), wide + 0.010 - np.abs(u))
        over(_colour(0.11, 0.045, 0.022) * (light * 1.2), _cover(rim, pixel))


class Kite:
    """A diamond kite that drifts and dips, with a long ribbon that follows where it has been."""

    name = "kite"
    HALF, UPPER, LOWER = 62.0, 62.0, 84.0

    def __init__(self, rng: np.random.Generator) -> None:
        self._cloth = fractal((256, 256), 1.3, rng, low=3)

    def centre(self, t: float) -> tuple[float, float]:
        a = 0.20 * t - 0.6
        return 712 + 46 * math.sin(a * 0.72 + 0.2) - 0.9 * t, 182 + 52 * math.sin(a * 0.95 - 0.35) + 0.5 * t

    def tilt(self, t: float) -> float:
        """Radians from upright; it banks into its way."""
        (xa, ya), (xb, yb) = self.centre(t - 1.0), self.centre(t + 1.0)
        return 0.26 + 0.0225 * (xb - xa) + 0.006 * (yb - ya) + 0.05 * math.sin(0.9 * t)

    def _ribbon(self, t: float) -> list[tuple[float, float]]:
        points = []
        for i in range(30):
            s = i / 29
            cx, cy = self.centre(t - 4.2 * s)
            lean = self.tilt(t - 4.2 * s)
            wave = 13 * s**0.8 * math.sin(9.5 * s - 0.7 * t)
            down = self.LOWER - 2 + 112 * s
            points.append((cx - math.sin(lean) * down + wave, cy + math.cos(lean) * down * (1 - 0.06 * s)))
        return points

    def box(self, t: float) -> Box:
        x, y = self.centre(t)
        r = self.LOWER + 6
        p = np.array([*self._ribbon(t), (x - r, y - r), (x + r, y + r)])
        return Box(*(p.min(0) - 14).tolist(), *(p.max(0) + 14).tolist())

    def paint(self, x: Image, y: Image, t: float, pixel: float) -> tuple[Image, Image]:
        sheet = _Sheet(x.shape)
        violet, pink, cream = _colour(0.13, 0.022, 0.30), _colour(0.70, 0.035, 0.23), _colour(0.80, 0.74, 0.66)

        # the ribbon: bows of alternating colours along a wavy line
        points = self._ribbon(t)
        for i, ((ax, ay), (bx, by)) in enumerate(itertools.pairwise(points)):
            r = 4.8 if i % 3 == 2 else 1.7
            part = _cut(x, y, pixel, Box(min(ax, bx) - r, min(ay, by) - r, max(ax, bx) + r, max(ay, by) + r))
            if x[part].size:
                cover = _cover(r - _segment(x[part], y[part], (ax, ay), (bx, by)), pixel)
                colour = (pink if (i // 3) % 2 else cream) if i % 3 == 2 else violet * 2
                light = (SUNLIGHT * 1.25 + SKYLIGHT) * (0.75 + 0.3 * math.sin(2.1 * i + 0.7 * t))
                sheet.part(*part).over(colour * light, cover)

        cx, cy = self.centre(t)
        r = self.LOWER + 4
        part = _cut(x, y, pixel, Box(cx - r, cy - r, cx + r, cy + r))
        if not x[part].size:
            return sheet.rgb, sheet.alpha
        lean = self.tilt(t)
        dx, dy = x[part] - cx, y[part] - cy
        u, v = dx * math.cos(lean) + dy * math.sin(lean), dy * math.cos(lean) - dx * math.sin(lean)
        # the cloth is drawn in a little between the spars
        tall = np.where(v < 0, np.float32(self.UPPER), np.float32(self.LOWER))
        aside = np.abs(u) / self.HALF
        edge = 1 - aside - np.abs(v) / tall
        pull = 0.055 * np.sin(np.pi * np.clip(aside, 0, 1))
        inside = (edge - pull) / np.sqrt(1 / self.HALF**2 + 1 / tall**2)
        quadrant = ((u > 0) ^ (v > 0))[..., None]
        cloth = np.where(quadrant, pink, violet)
        ring = np.clip((7.5 - np.abs(np.hypot(u, v * 0.86) - 27)) / pixel + 0.5, 0, 1)[..., None]
        cloth = cloth * (1 - ring) + np.where(quadrant, violet, cream) * ring
        hem = np.clip((4.6 - inside) / pixel + 0.5, 0, 1)[..., None]
        cloth = cloth * (1 - hem) + cream * hem
        belly = np.cos(np.clip(u / self.HALF, -1, 1) * np.pi * 0.9) * 0.5
        ripple = sample(self._cloth, u * 1.6 + 3 * t, v * 1.1)
        light = 0.88 - 0.008 * u - 0.003 * v + 0.10 * ripple + 0.25 * belly
        spar = np.minimum(np.abs(u), np.abs(v + 0.9 * np.cos(u / 32)))
        light = light * (1 - 0.45 * np.exp(-((spar / 1.4) ** 2)))
        sheet.part(*part).over(cloth * (light[..., None] * SUNLIGHT * 1.25 + SKYLIGHT * 0.7), _cover(inside, pixel))
        return sheet.rgb, sheet.alpha


def _cut(x: Image, y: Image, pixel: float, box: Box) -> tuple[slice, slice]:
    """Rows and columns of a grid of positions that a box touches."""
    x0, y0 = float(x[0, 0]), float(y[0, 0])

    def span(low: float, high: float) -> slice:
        return slice(max(int(low / pixel) - 1, 0), max(int(high / pixel) + 3, 0))

    return span(box.y0 - y0, box.y1 - y0), span(box.x0 - x0, box.x1 - x0)
