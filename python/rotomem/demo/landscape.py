"""The world of the demo shot: a morning sky, hazy ridges, a spruce forest, and a birch close to the lens.

Everything here stands still; each part is painted once as a wide layer, which the camera then moves past at the pace
of its distance. Lengths are in units of a 960 x 540 picture; colours are linear Rec.709 (the scene converts).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rotomem.demo.noise import Image, disc_blur, fractal, sample, smoothstep

SUN = (150.0, 118.0)
"""Where the sun stands in the picture."""

HORIZON = 372.0

ZENITH = np.array((0.115, 0.27, 0.56), np.float32)
SKY_LOW = np.array((0.98, 0.72, 0.50), np.float32)
SUNLIGHT = np.array((1.0, 0.70, 0.38), np.float32)
HAZE_COOL = np.array((0.40, 0.47, 0.60), np.float32)
HAZE_WARM = np.array((0.95, 0.66, 0.43), np.float32)


@dataclass(frozen=True)
class Layer:
    """A painted sheet at one distance.

    rgb      [h, w, 3] premultiplied by alpha
    alpha    [h, w], or None where it covers everything
    x0, y0   picture position of its upper left pixel while the camera stands at 0, in pixels
    pace     units it moves left in a frame, as the camera moves right
    scale    pixels per unit
    """

    rgb: Image
    alpha: Image | None
    x0: float
    y0: float
    pace: float
    scale: float

    @cached_property
    def both(self) -> Image:
        """[h, w, 4], rgb and alpha."""
        assert self.alpha is not None
        return np.dstack([self.rgb, self.alpha])


def _mix(a: Image, b: Image, t: Image) -> Image:
    out: Image = a + (b - a) * t[..., None]
    return out


def _grid(scale: float, x0: float, x1: float, y0: float, y1: float) -> tuple[Image, Image]:
    """Positions, in units, of the pixel centres of a rectangle given in units."""
    w, h = round((x1 - x0) * scale), round((y1 - y0) * scale)
    x = (x0 + (np.arange(w, dtype=np.float32) + 0.5) / scale)[None]
    y = (y0 + (np.arange(h, dtype=np.float32) + 0.5) / scale)[:, None]
    gx, gy = np.broadcast_arrays(x, y)
    return gx.astype(np.float32), gy.astype(np.float32)


def sun_glow(x: Image, y: Image) -> Image:
    """How much of the sun's glare reaches the eye around it."""
    d = np.hypot(x - SUN[0], (y - SUN[1]) * 1.05) / 540
    out: Image = 1.5 * np.exp(-d / 0.045) + 0.55 * np.exp(-d / 0.16) + 0.22 * np.exp(-d / 0.55)
    return out


def paint_sky(scale: float, rng: np.random.Generator, x1: float, y1: float = 470.0) -> Layer:
    """Sky with the sun in it, thin high clouds and a bank of cumulus lit from behind."""
    x, y = _grid(scale, -10, x1, -10, y1)
    height = np.clip((HORIZON + 25 - y) / (HORIZON + 25), 0, 1)
    sky = _mix(SKY_LOW[None, None], ZENITH[None, None], smoothstep(-0.15, 0.95, height) ** 0.8)
    glow = sun_glow(x, y)
    sky = sky + glow[..., None] * SUNLIGHT

    coarse = fractal((512, 1024), 1.75, rng, low=3)
    fine = fractal((512, 1024), 1.15, rng, low=8)

    # cirrus: seen on a plane overhead, drawn out by wind
    depth = 1 / (height + 0.10)
    u = (x - 480) * depth * 0.32 + y * 0.5
    v = depth * 95
    wisps = sample(coarse, u * 0.55, v * 1.4) * 0.75 + sample(fine, u * 0.9, v * 3.1) * 0.38
    cirrus = smoothstep(0.05, 2.1, wisps) * smoothstep(0.10, 0.5, height) * 0.6
    sky = _mix(sky, 0.62 * sky + np.array((0.52, 0.46, 0.44), np.float32) + 0.55 * glow[..., None] * SUNLIGHT, cirrus)

    # cumulus: flat-based heaps in a band above the hills
    billow = 1 - np.abs(sample(fine, x * 1.1 + 40, y * 1.5)) * 0.55
    shape = sample(coarse, x * 0.62 + 300, y * 1.25 + 40) + 0.42 * billow
    band = np.exp(-(((y - 268) / 62) ** 2)) * 1.25 - 1.02
    density = smoothstep(-0.05, 1.15, shape + band)
    toward_x, toward_y = SUN[0] - x, SUN[1] - y
    length = np.hypot(toward_x, toward_y) + 1
    shade = np.zeros_like(density)
    for step in (5.0, 13.0, 26.0, 44.0):
        px = (x + toward_x / length * step + 10) * scale - 0.5
        py = (y + toward_y / length * step + 10) * scale - 0.5
        px, py = np.clip(px, 0, x.shape[1] - 1.01), np.clip(py, 0, x.shape[0] - 1.01)
        shade += sample(density, px, py)
    light = np.exp(-0.75 * shade)
    lit = np.array((1.32, 1.06, 0.82), np.float32) * (0.75 + 0.9 * glow[..., None])
    shadow = np.array((0.40, 0.40, 0.50), np.float32) + 0.25 * glow[..., None] * SUNLIGHT
    cloud = _mix(shadow, lit, light)
    sky = _mix(sky, cloud, 1 - np.exp(-2.2 * density))

    disc = smoothstep(15.5, 12.5, np.hypot(x - SUN[0], y - SUN[1]))
    sky = sky + (disc * (1 - 0.6 * density))[..., None] * np.array((46, 36, 23), np.float32)
    return Layer(sky.astype(np.float32), None, -10 * scale, -10 * scale, 0.0, scale)


def paint_ridge(
    scale: float,
    rng: np.random.Generator,
    x1: float,
    *,
    top: float,
    relief: float,
    haze: float,
    jagged: float,
    bottom: float,
    pace: float,
    seed_shift: float = 0.0,
) -> Layer:
    """A range of hills behind morning haze.

    top, relief   mean height of the skyline and how far it swings, in units
    haze          0 near .. 1 lost in the air
    jagged        height of the tree tops along the skyline
    """
    y0 = top - 2.4 * relief - jagged - 4
    x, y = _grid(scale, -10, x1, y0, bottom)
    line = fractal((4, 2048), 1.55, rng, low=3)[0]
    skyline_x = x[0] * 1.0 + seed_shift
    skyline = top - relief * np.interp(skyline_x % 2048, np.arange(2048), line)
    trees = np.abs(fractal((4, 4096), 0.55, rng, low=40)[1])
    skyline -= jagged * np.interp((skyline_x * 2.3) % 4096, np.arange(4096), trees)
    below = y - skyline[None]
    alpha = np.clip(below * scale + 0.5, 0, 1)

    # a height field seen edge on: its slope to the left faces the sun
    form = fractal((512, 1024), 1.5, rng, stretch=0.55, low=5)
    slope = np.roll(form, -2, 1) - np.roll(form, 2, 1)
    facing = sample(slope / slope.std(), x * 0.8, (below + skyline[None] * 0.2) * 1.5)
    grain = sample(fractal((512, 512), 0.85, rng, low=20), x * 1.4, below * 1.9)
    ground = np.array((0.052, 0.066, 0.034), np.float32) * (1 + 0.42 * grain[..., None])
    light = np.clip(0.55 + 0.42 * facing, 0.12, 2.0)
    surface = ground * (light[..., None] * np.array((2.2, 1.65, 1.0), np.float32) + np.array((0.35, 0.5, 0.75)))

    warm = np.exp(-np.hypot(x - SUN[0], (y - SUN[1]) * 0.8) / 330)
    air = _mix(HAZE_COOL[None, None], HAZE_WARM[None, None], np.clip(warm * 1.7, 0, 1))
    mist = smoothstep(8, 95, below) * (0.55 + 0.16 * sample(form, x * 0.5 + 90, y * 1.2))
    veil = np.clip(haze + (1 - haze) * 0.9 * mist * (0.25 + 0.75 * haze), 0, 1)
    colour = _mix(surface, air * (0.62 + 0.20 * haze), veil)
    return Layer(
        (colour * alpha[..., None]).astype(np.float32), alpha.astype(np.float32), -10 * scale, y0 * scale, pace, scale
    )


def _spruce(width: int, height: int, rng: np.random.Generator) -> tuple[Image, Image]:
    """One spruce: linear colour [h, w, 3] and coverage [h, w]."""
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
    x = ((np.arange(width, dtype=np.float32)[None] + 0.5) / width - 0.5) * 2
    whorls = max(6, height // 6)
    phase = (y * whorls + 0.35 * np.abs(x)) % 1
    ragged = rng.standard_normal((whorls + 2, 2)).astype(np.float32) * 0.16 + 1
    which = np.minimum((y * whorls).astype(int), whorls)
    side = (x > 0).astype(int)
    reach = y**0.9 * (0.42 + 0.58 * phase) * ragged[which, side]
    needles = rng.standard_normal((height, width)).astype(np.float32)
    cover = np.clip((reach - np.abs(x)) * width * 0.5 + 0.5 + 0.25 * needles, 0, 1)
    cover *= np.clip((1 - y) * height * 0.2 + 0.6, 0, 1)
    lit = smoothstep(-0.9, 0.9, -x / np.maximum(reach, 0.05)) * (0.45 + 0.55 * (1 - phase))
    base = np.array((0.020, 0.034, 0.020), np.float32) * float(rng.uniform(0.7, 1.35))
    rim = np.array((0.20, 0.135, 0.045), np.float32)
    colour = base * (0.55 + 0.35 * needles[..., None].clip(-1, 1)) + rim * (lit * cover)[..., None] * 0.62
    return np.maximum(colour, 0.002), cover


def paint_forest(scale: float, rng: np.random.Generator, x1: float, *, top: float, pace: float) -> Layer:
    """Spruces on a slope, row behind row, with the sun on their left sides and mist between the rows."""
    y0 = top - 100
    x, y = _grid(scale, -40, x1, y0, 550)
    h, w = x.shape
    rgb: Image = np.zeros((h, w, 3), np.float32)
    alpha: Image = np.zeros((h, w), np.float32)
    line = fractal((4, 2048), 1.9, rng, low=2)[0]
    rows = 8
    for row in range(rows):
        near = row / (rows - 1)
        base_y = top + 14 + 185 * near**1.25
        size = 40 + 74 * near
        air = _mix(HAZE_COOL[None, None], HAZE_WARM[None, None], np.exp(-np.abs(x - SUN[0]) / 420)) * 0.62
        ground_y = base_y - 26 * np.interp((x[0] * 0.8 + row * 37) % 2048, np.arange(2048), line) * (1 - 0.4 * near)
        # the floor of this row, hidden by mist more than by light
        floor = smoothstep(-3, 5, y - ground_y[None])
        soil = np.array((0.050, 0.058, 0.026), np.float32)
        ground = _mix(np.broadcast_to(soil, (h, w, 3)), air, np.full((h, w), 0.34 * (1 - near) + 0.02, np.float32))
        rgb = rgb * (1 - floor[..., None]) + ground * floor[..., None]
        alpha = alpha + (1 - alpha) * floor
        position = -40.0
        while position < x1:
            position += float(rng.gamma(2.2, size * 0.105))
            height = size * float(rng.uniform(0.62, 1.22))
            tw, th = max(4, round(height * 0.40 * scale)), max(8, round(height * scale))
            foot = float(np.interp(position, x[0], ground_y)) + 6
            left, upper = round((position + 40) * scale) - tw // 2, round((foot - y0) * scale) - th
            a, b, c, d = max(left, 0), min(left + tw, w), max(upper, 0), min(upper + th, h)
            if a >= b or c >= d:
                continue
            colour, cover = _spruce(tw, th, rng)
            part = (slice(c - upper, d - upper), slice(a - left, b - left))
            veil = 0.40 * (1 - near) ** 1.3 + 0.02
            colour = colour[part] * (1 - veil) + air[c:d, a:b] * veil * 0.9
            k = cover[part]
            rgb[c:d, a:b] = rgb[c:d, a:b] * (1 - k[..., None]) + colour * k[..., None]
            alpha[c:d, a:b] += (1 - alpha[c:d, a:b]) * k
    return Layer(rgb.astype(np.float32), alpha.astype(np.float32), -40 * scale, y0 * scale, pace, scale)


def paint_birch(scale: float, rng: np.random.Generator, *, x: float, pace: float, defocus: float) -> Layer:
    """A birch trunk close to the lens with a few golden twigs, out of focus. `x` is where the trunk stands."""
    half = 235.0
    gx, gy = _grid(scale, x - half, x + half, -40, 590)
    h, w = gx.shape
    y0 = -40.0
    rgb: Image = np.zeros((h, w, 3), np.float32)
    alpha: Image = np.zeros((h, w), np.float32)

    def over(colour: Image, cover: Image, where: tuple[slice, slice]) -> None:
        k = cover[..., None]
        rgb[where] = rgb[where] * (1 - k) + colour * k
        alpha[where] = alpha[where] + (1 - alpha[where]) * cover

    def box(xa: float, xb: float, ya: float, yb: float) -> tuple[slice, slice]:
        rows = slice(max(int((ya - y0) * scale), 0), max(min(int((yb - y0) * scale) + 2, h), 0))
        columns = slice(max(int((xa - x + half) * scale), 0), max(min(int((xb - x + half) * scale) + 2, w), 0))
        return rows, columns

    def stroke(ax: float, ay: float, bx: float, by: float, ra: float, rb: float) -> None:
        r = max(ra, rb) + 2
        where = box(min(ax, bx) - r, max(ax, bx) + r, min(ay, by) - r, max(ay, by) + r)
        px, py = gx[where], gy[where]
        if px.size == 0:
            return
        t = np.clip(((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2), 0, 1)
        d = np.hypot(px - ax - t * (bx - ax), py - ay - t * (by - ay))
        cover = np.clip((ra + (rb - ra) * t - d) * scale + 0.5, 0, 1)
        over(np.array((0.050, 0.036, 0.028), np.float32), cover, where)

    def leaf(cx: float, cy: float, size: float, angle: float) -> None:
        where = box(cx - size, cx + size, cy - size, cy + size)
        px, py = gx[where] - cx, gy[where] - cy
        if px.size == 0:
            return
        u, v = px * np.cos(angle) + py * np.sin(angle), py * np.cos(angle) - px * np.sin(angle)
        body = np.clip(
            (0.42 * size * (1 - (u / size) ** 2) * (1.15 - 0.35 * u / size) - np.abs(v)) * scale + 0.5, 0, 1
        )
        hue = rng.uniform(0, 1)
        colour = (
            np.array((0.86, 0.50, 0.055), np.float32) * (1 - hue) + np.array((0.62, 0.60, 0.09), np.float32) * hue
        )
        translucent = rng.uniform(0.45, 1.5) * (0.9 + 0.35 * np.clip(v / size, -1, 1))
        over(colour * translucent[..., None].astype(np.float32), body, where)

    # twigs hang from above the frame, leaves along them
    leaves: list[tuple[float, float]] = []
    for side in (-1, 1, -1, 1, 1, -1):
        ax, ay = x + side * 14, float(rng.uniform(-60, 95))
        heading = np.arctan2(rng.uniform(0.05, 0.5), side)
        thickness = 4.2
        for _ in range(11):
            step = float(rng.uniform(13, 21))
            heading += float(rng.normal(0, 0.17)) + side * 0.055
            bx, by = ax + step * np.cos(heading), ay + step * np.sin(heading)
            stroke(ax, ay, bx, by, thickness, thickness * 0.86)
            if abs(ax - x) > 42:
                leaves += [(bx + rng.normal(0, 13), by + abs(rng.normal(0, 14))) for _ in range(2)]
            ax, ay, thickness = bx, by, thickness * 0.86

    # the trunk: white bark with dark lenticels, round, lit from the left
    bend = 9 * np.sin(gy / 210 + 0.6) + 5 * np.sin(gy / 83)
    radius = 31 + gy * 0.013 + 1.3 * np.sin(gy / 23)
    across = (gx - x - bend) / radius
    trunk = np.clip((1 - np.abs(across)) * radius * scale + 0.5, 0, 1)
    round_ = np.sqrt(np.clip(1 - across**2, 0, 1))
    normal_x = np.clip(across, -1, 1)
    wrap = np.arcsin(normal_x) * 34
    bark = fractal((512, 256), 1.0, rng, stretch=0.22, low=4)
    scars = smoothstep(1.15, 1.75, sample(bark, wrap * 1.1, gy * 1.6))
    scars = np.maximum(
        scars, 0.9 * smoothstep(1.55, 1.9, sample(fractal((512, 256), 1.5, rng, stretch=0.5, low=6), wrap, gy))
    )
    tint = 1 + 0.09 * sample(bark, wrap * 2.3 + 50, gy * 0.8)
    diffuse = np.clip(-0.92 * normal_x + 0.16 * round_, 0, 1)
    light = diffuse[..., None] * np.array((1.65, 1.15, 0.66), np.float32)
    light = light + np.array((0.115, 0.14, 0.19), np.float32) * (0.5 + 0.5 * round_[..., None])
    colour = np.array((0.62, 0.585, 0.53), np.float32) * (tint * (1 - 0.90 * scars))[..., None] * light
    over(colour.astype(np.float32), trunk, (slice(None), slice(None)))
    for lx, ly in leaves:
        leaf(float(lx), float(ly), float(rng.uniform(9, 15)), float(rng.uniform(0, np.pi)))

    both = disc_blur(np.dstack([rgb, alpha]), defocus * scale)
    return Layer(both[..., :3], np.clip(both[..., 3], 0, 1), (x - half) * scale, y0 * scale, pace, scale)


def window(
    layer: Layer, camera: float, dy: float, shape: tuple[int, int], dx: float = 0.0
) -> tuple[Image, Image | None]:
    """What the picture [H, W] shows of a layer: rgb [H, W, 3] premultiplied, alpha [H, W]; empty outside the layer.

    camera   how far the camera has moved right, in frames
    dx, dy   pixels the picture is pushed right and down besides
    """
    h, w = shape
    sheet = layer.rgb if layer.alpha is None else layer.both
    out = shift_into(sheet, layer.x0 - camera * layer.pace * layer.scale + dx, layer.y0 + dy, h, w)
    return out[..., :3], None if layer.alpha is None else out[..., 3]


def shift_into(sheet: Image, x0: float, y0: float, h: int, w: int) -> Image:
    """A sheet [sh, sw, C] laid into a picture [h, w, C] with its corner at (x0, y0), bilinearly, zeros around."""
    sh, sw = sheet.shape[:2]
    ix, iy = int(np.floor(x0)), int(np.floor(y0))
    tx, ty = np.float32(x0 - ix), np.float32(y0 - iy)
    # picture pixel p holds (1 - t) sheet[p - i] + t sheet[p - i - 1]
    ya, yb = max(0, iy + 1), min(h, iy + sh)
    xa, xb = max(0, ix + 1), min(w, ix + sw)
    out = np.zeros((h, w, sheet.shape[2]), np.float32)
    if ya >= yb or xa >= xb:
        return out
    part = sheet[ya - iy - 1 : yb - iy, xa - ix - 1 : xb - ix]
    rows = part[1:] * (1 - ty)
    rows += part[:-1] * ty
    target = out[ya:yb, xa:xb]
    np.multiply(rows[:, 1:], 1 - tx, out=target)
    rows = rows[:, :-1] * tx
    target += rows
    return out
