"""Articulated objects in three dimensions: people, animals, cyclists, vehicles, creatures.

A figure is a tree of tapered round parts that swing about their joints while the whole turns about its upright axis,
so that parts cross each other and sides come into sight that the first frame did not show. Its silhouette is
analytic: the signed distance to the union of the parts' projections. Which part a pixel shows is decided by depth,
per pixel; pieces of photographs are wrapped around the parts.

Body coordinates: x ahead, y down, z to the side, about 2 from head to foot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rotomem.train.scene.draw import Draw, Shutter
from rotomem.train.scene.placement import EVERYWHERE, Window, screen

TILES = 6
"""Pieces of photographs a figure wears."""

SKIN, TOP, BOTTOM, HAIR, SHOE, THING = range(TILES)


@dataclass(frozen=True)
class Part:
    """A tapered round part.

    parent   index of the part it hangs on, -1 for the root
    at       where on the parent, 0..1 from joint to end; more than 1 stands clear of it
    turn     degrees from the parent's direction (for the root: from straight ahead; 90 is down)
    length, near, far   length, radius at the joint and at the end
    side     offset to the side
    swing    most degrees it swings, back and forth
    phase    of the swing, in turns
    tile     what it wears
    wide     how much wider than deep it is
    chance   probability that a figure has it (parts that hang on it go with it)
    """

    parent: int
    at: float
    turn: float
    length: float
    near: float
    far: float
    side: float = 0.0
    swing: float = 0.0
    phase: float = 0.0
    tile: int = TOP
    wide: float = 1.0
    chance: float = 1.0


def _leg(side: float, phase: float) -> list[Part]:
    """Thigh, shin, foot; joint numbers are filled in by `_person`."""
    return [
        Part(-1, 0, 90, 0.42, 0.105, 0.075, side, 30, phase, BOTTOM),
        Part(0, 1, 16, 0.42, 0.07, 0.05, 0, 22, phase + 0.2, BOTTOM),
        Part(1, 1, -88, 0.14, 0.05, 0.035, 0, 12, phase + 0.3, SHOE),
    ]


def _arm(side: float, phase: float) -> list[Part]:
    return [
        Part(0, 0.93, 180, 0.3, 0.068, 0.055, side, 38, phase, TOP),
        Part(0, 1, -22, 0.27, 0.052, 0.036, 0, 24, phase + 0.15, SKIN),
    ]


def _hang(parts: list[Part], limb: list[Part], root: int) -> None:
    """Append a limb whose first part hangs on part `root` (-1: on the figure's root)."""
    base = len(parts)
    for i, part in enumerate(limb):
        parts.append(replace(part, parent=root if i == 0 else base + i - 1))


def _person(lean: float = 0.0) -> list[Part]:
    """A person, torso first; `lean` degrees forward."""
    parts = [
        Part(-1, 0, -90 + lean, 0.52, 0.13, 0.145, 0, 6, 0.1, TOP, 1.5),
        Part(0, 1.22, -0.5 * lean, 0.13, 0.105, 0.115, 0, 8, 0.0, SKIN),
        Part(1, 0.8, 150, 0.1, 0.115, 0.1, 0, 4, 0.0, HAIR, 1.0, 0.8),
        Part(2, 1.0, 20, 0.28, 0.07, 0.02, 0, 20, 0.3, HAIR, 1.0, 0.3),
        Part(-1, 0, 90, 0.36, 0.14, 0.24, 0, 5, 0.2, BOTTOM, 1.1, 0.3),
        Part(0, 0.7, -170, 0.3, 0.1, 0.1, 0.0, 5, 0.4, THING, 1.3, 0.25),
    ]
    for side, phase in ((-0.2, 0.0), (0.2, 0.5)):
        _hang(parts, _arm(side, phase), 0)
    parts.append(Part(len(parts) - 1, 1, -50, 0.6, 0.018, 0.012, 0, 25, 0.2, THING, 1.0, 0.2))
    for side, phase in ((-0.09, 0.5), (0.09, 0.0)):
        _hang(parts, _leg(side, phase), -1)
    return parts


def _beast() -> list[Part]:
    """Four legs, a neck, a tail."""
    parts = [
        Part(-1, 0, 180, 0.85, 0.2, 0.19, 0, 3, 0.1, TOP),
        Part(-1, 0, -48, 0.36, 0.14, 0.09, 0, 14, 0.0, TOP),
        Part(1, 1, 65, 0.24, 0.1, 0.055, 0, 12, 0.3, TOP),
        Part(2, 0.1, -90, 0.14, 0.045, 0.015, -0.05, 10, 0.3, HAIR, 1.0, 0.8),
        Part(2, 0.1, -90, 0.14, 0.045, 0.015, 0.05, 10, 0.5, HAIR, 1.0, 0.8),
        Part(0, 1.05, 40, 0.28, 0.045, 0.03, 0, 30, 0.2, TOP, 1.0, 0.8),
        Part(5, 1, 15, 0.28, 0.03, 0.012, 0, 25, 0.5, HAIR),
        Part(1, 0.4, 175, 0.3, 0.08, 0.03, 0, 6, 0.1, HAIR, 1.0, 0.3),
    ]
    for root, at, turn, phases in ((-1, 0.0, 90.0, (0.0, 0.5)), (0, 0.95, -90.0, (0.25, 0.75))):
        for side, phase in zip((-0.11, 0.11), phases, strict=True):
            bend = -14.0 if root < 0 else 14.0
            upper = Part(root, at, turn - bend / 2, 0.34, 0.1, 0.06, side, 26, phase, BOTTOM)
            lower = Part(0, 1, bend, 0.36, 0.055, 0.035, 0, 24, phase + 0.2, BOTTOM)
            foot = Part(0, 1, -70, 0.08, 0.04, 0.03, 0, 8, phase, SHOE)
            _hang(parts, [upper, lower, foot], root)
    return parts


def _bird() -> list[Part]:
    parts = [
        Part(-1, 0, 175, 0.7, 0.17, 0.06, 0, 4, 0.0, TOP),
        Part(-1, 0, -30, 0.2, 0.12, 0.1, 0, 6, 0.0, SKIN),
        Part(1, 1, 20, 0.16, 0.05, 0.01, 0, 0, 0.0, SHOE),
        Part(0, 1, 0, 0.4, 0.06, 0.12, 0, 14, 0.3, HAIR),
    ]
    for side in (-0.1, 0.1):
        wing = Part(0, 0.3, 80, 0.6, 0.13, 0.1, side, 55, 0.05 * side, TOP)
        tip = Part(0, 1, 10, 0.5, 0.1, 0.02, 0, 35, 0.2, HAIR)
        _hang(parts, [wing, tip], 0)
    return parts


def _cyclist() -> list[Part]:
    """A leaning person and the bars of a bicycle; the wheels are added as rings."""
    parts = _person(lean=35)
    bars = [
        Part(-1, 0, 82, 0.55, 0.03, 0.022, 0, 0, 0, THING),
        Part(-1, 0, 50, 0.86, 0.022, 0.022, 0, 0, 0, THING),
        Part(-1, 0, 12, 0.72, 0.022, 0.022, 0, 0, 0, THING),
        Part(-1, 0, 118, 0.72, 0.02, 0.02, 0, 0, 0, THING),
    ]
    free = [replace(p, chance=0.0) if p.tile == THING or p.wide == 1.1 else p for p in parts]
    return free + bars


def _creature(draw: Draw) -> list[Part]:
    """Parts that hang on one another at random."""
    parts = [Part(-1, 0, float(draw.index(360)), 0.6, 0.2, 0.18, 0, 10, 0, TOP, 1.2)]
    for _ in range(3 + int(draw.index(8))):
        r = torch.rand(7, generator=draw.rng).tolist()
        parent = int(draw.index(len(parts)))
        near = parts[parent].near * (0.4 + 0.5 * r[0])
        parts.append(
            Part(
                parent,
                0.3 + 0.7 * r[1],
                360 * r[2],
                0.2 + 0.5 * r[3],
                near,
                near * (0.3 + r[4]),
                0.3 * (r[5] - 0.5),
                50 * r[6],
                r[2],
                int(draw.index(TILES)),
            )
        )
    return parts


def _choose(draw: Draw) -> tuple[list[Part], list[tuple[float, float, float]]]:
    """Parts, and wheels as x, y, radius."""
    kind = draw.pick((0.42, 0.2, 0.12, 0.08, 0.18))
    wheels: list[tuple[float, float, float]] = []
    if kind == 0:
        parts = _person(lean=float(draw.index(30)) - 8)
    elif kind == 1:
        parts = _beast()
    elif kind == 2:
        parts, wheels = _cyclist(), [(-0.36, 0.66, 0.36), (0.58, 0.66, 0.36)]
    elif kind == 3:
        parts = _bird()
    else:
        parts = _creature(draw)
    kept: dict[int, int] = {-1: -1}
    chosen: list[Part] = []
    for i, part in enumerate(parts):
        if part.parent in kept and (part.chance >= 1 or draw.chance(part.chance)):
            kept[i] = len(chosen)
            chosen.append(replace(part, parent=kept[part.parent]))
    return chosen, wheels


class _Canvas:
    """What the nearest surface shows at every pixel of [N, P, P]; prims are added one after another.

    distance   signed, to the union; exact where a pixel may be covered, large far from everything
    u, v       where on the figure's tiles, v 0..1, u in turns
    lit        cosine towards the light
    """

    def __init__(self, n: int, px: int, device: torch.device) -> None:
        self.x, self.y = screen(px, device).unbind(-1)
        shape = (n, px, px)
        self.distance = torch.full(shape, 9.0, device=device)
        self.key = torch.full(shape, -99.0, device=device)
        self.u, self.v, self.lit = (torch.zeros(shape, device=device) for _ in range(3))

    def window(self, low: Tensor, high: Tensor) -> Window:
        """The pixels about a box [..., 2] to [..., 2] in any frame; on a GPU, where looking is dear, all of them."""
        if low.device.type != "cpu":
            return EVERYWHERE
        px = self.x.shape[-1]
        first = ((low.view(-1, 2).amin(0) + 1) * (px / 2) - 2).floor().clamp(0, px - 1).int().tolist()
        last = ((high.view(-1, 2).amax(0) + 1) * (px / 2) + 2).ceil().clamp(1, px).int().tolist()
        return Window(slice(first[1], max(last[1], first[1] + 1)), slice(first[0], max(last[0], first[0] + 1)))

    def add(self, window: Window, distance: Tensor, depth: Tensor, u: Tensor, v: Tensor, lit: Tensor) -> None:
        """Depth grows towards the eye, within +-8; outside every prim the nearest one lends its colour."""
        key = torch.lerp(-10 - distance, depth, (distance < 0).float())
        best = window.of(self.key)
        nearer = (key > best).float()
        torch.maximum(key, best, out=best)
        for kept, new in ((self.u, u), (self.v, v), (self.lit, lit)):
            window.of(kept).lerp_(new.expand_as(key), nearer)
        closest = window.of(self.distance)
        torch.minimum(distance, closest, out=closest)

    def part(self, a: Tensor, z: Tensor, near: Tensor, far: Tensor, roll: Tensor, tile: int, light: Tensor) -> None:
        """A tapered part from `a` to `z` [N, 3], radii [N], of a figure turned by `roll` [N] turns."""
        thick = torch.maximum(near, far)[:, None]
        window = self.window(torch.minimum(a, z)[:, :2] - thick, torch.maximum(a, z)[:, :2] + thick)
        axis = (z - a)[:, :2]
        square = axis.square().sum(1).clamp_min(1e-5)
        root = square.sqrt()

        def wide(value: Tensor) -> Tensor:
            return value[:, None, None]

        x, y = window.of(self.x), window.of(self.y)
        ux, uy = axis[:, 0] / root, axis[:, 1] / root
        ahead = x[:1] * wide(ux) + (y[:, :1] * wide(uy) - wide(ux * a[:, 0] + uy * a[:, 1]))
        across = y[:, :1] * wide(ux) - x[:1] * wide(uy) - wide(ux * a[:, 1] - uy * a[:, 0])
        along = (ahead / wide(root)).clamp_(0, 1)
        radius = torch.addcmul(wide(near), along, wide(far - near))
        distance = torch.hypot(ahead.addcmul_(along, wide(-root)), across).sub_(radius)
        across = across.div_(radius).clamp_(-1, 1)
        square_ = across.square()
        depth = torch.addcmul(wide(a[:, 2]) + radius, along, wide((z - a)[:, 2])).addcmul_(
            radius, square_, value=-0.5
        )
        # The arc sine, in turns; a part that stands upright turns with the figure, one that lies does not.
        upright = (axis[:, 1] * 1.5 / (z - a).norm(dim=1).clamp_min(1e-3)).clamp(-1, 1)
        u = square_.mul_(0.091).add_(0.159).mul_(across).add_(wide(roll * upright))
        facing = light[:, 1] * ux - light[:, 0] * uy
        self.add(window, distance, depth, u, along.add_(tile).div_(TILES), across.mul_(wide(facing)))

    def wheel(self, c: Tensor, radius: Tensor, tube: Tensor, yaw: Tensor, spin: Tensor, spokes: int) -> None:
        """A ring about `c` [N, 3] in the plane that `yaw` [N] has turned from the screen's; 0 spokes make a disc."""
        reach = (radius + tube)[:, None]
        window = self.window(c[:, :2] - reach, c[:, :2] + reach)
        squash = yaw.cos().abs().clamp_min(0.15)[:, None, None]
        r, half = radius[:, None, None], tube[:, None, None]
        dx, dy = (window.of(self.x) - c[:, 0, None, None]) / squash, window.of(self.y) - c[:, 1, None, None]
        rho = torch.hypot(dx, dy)
        stretch = torch.hypot(dx / squash, dy) / rho.clamp_min(1e-4)  # slope of rho on the screen
        rim = (rho - r) / stretch.clamp_min(1)
        angle = torch.atan2(dy, dx) / (2 * math.pi) + spin[:, None, None]
        if spokes:
            rim = rim.abs() - half
            off = angle * spokes
            off = (off - off.round()) * (2 * math.pi / spokes) * rho * squash
            spoke = torch.maximum(off.abs() - half * 0.35, rho - r)
            rim = torch.minimum(rim, torch.minimum(spoke, rho - 0.18 * r))
        v = ((rho / r).clamp(0, 1) + SHOE) / TILES
        depth = (c[:, 2, None, None] + half).expand_as(rim)
        self.add(window, rim, depth, angle, v, torch.zeros_like(rim))

    def box(
        self, c: Tensor, half: tuple[Tensor, Tensor, Tensor], yaw: Tensor, tile: int, light: Tensor, taper: float
    ) -> None:
        """A rounded box about `c` [N, 3] with half sides ahead, down, to the side [N]; narrower at the top."""
        length, height, width = half
        cos, sin = yaw.cos(), yaw.sin()
        side, end = length * cos.abs(), width * sin.abs()
        extent = torch.stack([side + end, height], -1)
        window = self.window(c[:, :2] - extent, c[:, :2] + extent)
        reach = (side + end)[:, None, None]
        tall = height[:, None, None]
        corner = tall * 0.45
        dx, dy = window.of(self.x) - c[:, 0, None, None], window.of(self.y) - c[:, 1, None, None]
        slope = 1 - taper * (0.5 - dy / (2 * tall)).clamp(0, 1)
        qx, qy = dx.abs() - reach * slope + corner, dy.abs() - tall + corner
        distance = torch.hypot(qx.clamp_min(0), qy.clamp_min(0)) + torch.maximum(qx, qy).clamp_max(0) - corner
        across = (dx / (reach * slope)).clamp(-1, 1)
        share = (side / (side + end))[:, None, None]
        # The end comes into sight on the right where sine and cosine agree, on the left where they do not.
        right = (sin * cos >= 0)[:, None, None]
        place = torch.where(right, across, -across) * 0.5 + 0.5
        on_side = place < share
        face = torch.where(on_side, place / share.clamp_min(1e-3), (place - share) / (1 - share).clamp_min(1e-3))
        quarter = torch.where(
            on_side, torch.where(cos > 0, 0.0, 0.5)[:, None, None], torch.where(sin > 0, 0.25, 0.75)[:, None, None]
        )
        bright = torch.where(on_side, light[:, 0, None, None] * 0.3, light[:, 1, None, None] * 0.6)
        v = ((dy / (2 * tall) + 0.5).clamp(0, 1) + tile) / TILES
        depth = (c[:, 2] + 0.9 * width * cos.abs())[:, None, None].expand_as(distance)
        self.add(window, distance, depth, quarter + face * 0.24, v, bright)


def _pose(
    draw: Draw, parts: list[Part], b: int, t: int, wild: Tensor, rate: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Joints and ends [B, T, N, 3] in body coordinates, radii [B, N] twice, and lateral width factors [B, N]."""
    n, device = len(parts), draw.device
    time = torch.arange(t, device=device, dtype=torch.float32)
    start = draw.uniform((b, 1))
    cycle = (start + rate * time) * (2 * math.pi)  # [B, T]
    amount = draw.uniform((b, n), 0.5, 1.3) * wild
    drift = draw.walk(b, t, (n,), 0.08) * wild[:, None]
    build = draw.uniform((b, n), 0.8, 1.25)
    stout = draw.uniform((b, 1), 0.75, 1.3) * draw.uniform((b, n), 0.85, 1.2)
    bias = draw.normal((b, n)) * 0.12 * (0.5 + wild)
    splay = draw.normal((b, n)) * 0.1 * (0.3 + wild)
    a: list[Tensor] = []
    z: list[Tensor] = []
    angles: list[Tensor] = []
    zero = torch.zeros(b, t, 3, device=device)
    for i, p in enumerate(parts):
        swing = math.radians(p.swing)
        angle = (cycle + 2 * math.pi * p.phase).sin() * (swing * amount[:, i, None])
        if swing:
            angle = angle + bias[:, i, None] + drift[:, :, i]
        angle = angle + math.radians(p.turn) + (angles[p.parent] if p.parent >= 0 else 0)
        joint = zero if p.parent < 0 else torch.lerp(a[p.parent], z[p.parent], p.at)
        joint = joint + torch.tensor([0.0, 0.0, p.side], device=device)
        away = splay[:, i, None].expand_as(angle) if swing else torch.zeros_like(angle)
        reach = torch.stack([angle.cos() * away.cos(), angle.sin() * away.cos(), away.sin()], -1)
        a.append(joint)
        z.append(joint + reach * (p.length * build[:, i, None, None]))
        angles.append(angle)
    near = torch.tensor([p.near for p in parts], device=device) * stout
    far = torch.tensor([p.far for p in parts], device=device) * stout
    wide = torch.tensor([p.wide for p in parts], device=device).expand(b, -1)
    return torch.stack(a, 2), torch.stack(z, 2), near, far, wide


def _paint(canvas: _Canvas, tiles: Tensor, shading: Tensor, t: int) -> Tensor:
    """The canvas as [B, T, 4, P, P], linear colours multiplied by coverage; tiles [B, 3, S * TILES, S]."""
    b = tiles.shape[0]
    px = canvas.x.shape[-1]
    # Half a texel from the tile's edges, so that neighbours do not bleed into one another.
    side = tiles.shape[3]
    v = canvas.v * TILES
    whole = v.floor().clamp_(0, TILES - 1)
    v = (whole + (v - whole) * (1 - 1 / side) + 0.5 / side) / TILES
    u = canvas.u - canvas.u.floor()
    grid = torch.stack([u, v], -1).mul_(2).sub_(1).view(b, t * px, px, 2)
    colour = F.grid_sample(tiles, grid, padding_mode="border", align_corners=False).view(b, 3, t, px, px)
    light = (canvas.lit * shading).exp_().view(b, 1, t, px, px)
    alpha = (0.5 - canvas.distance * (px / 2)).clamp_(0, 1).view(b, 1, t, px, px)
    return torch.cat([colour * (light * alpha), alpha], 1).transpose(1, 2)


def figure(draw: Draw, tiles: Tensor, yaw: Tensor, px: int, wild: float, shutter: Shutter) -> Tensor:
    """A figure in every sub-frame, [B, T', 4, P, P]: linear colours multiplied by coverage.

    tiles   [B, 3, S * TILES, S] linear, what it wears
    yaw     [B, T] radians about the upright axis; 0 shows its side
    wild    how far joints swing, 1 as in walking
    """
    b, frames = yaw.shape
    parts, wheels = _choose(draw)
    rate = draw.uniform((b, 1), 0.02, 0.16)
    a, z, near, far, wide = _pose(draw, parts, b, frames, draw.uniform((b, 1), 0.3, 1.0) * wild, rate)
    a, z, yaw = shutter(a), shutter(z), shutter(yaw)
    spin = shutter(rate * torch.arange(frames, device=draw.device)).flatten()
    t = yaw.shape[1]
    cos, sin = yaw.cos()[:, :, None], yaw.sin()[:, :, None]

    def turned(p: Tensor) -> Tensor:
        x, y, w = p.unbind(-1)
        return torch.stack([x * cos + w * sin, y, w * cos - x * sin], -1)

    hubs = torch.tensor([[x, y, 0.0] for x, y, _ in wheels], device=draw.device).view(1, 1, -1, 3)
    radii = torch.tensor([r for _, _, r in wheels], device=draw.device)
    a, z, hubs = turned(a), turned(z), turned(hubs.expand(b, t, -1, 3))
    points = torch.cat([a, z, hubs], 2)
    reach = torch.cat([near, far, radii.expand(b, -1)], 1)[:, None, :, None]
    low, high = (points - reach)[..., :2].amin((1, 2)), (points + reach)[..., :2].amax((1, 2))  # [B, 2]
    scale = 1.86 / (high - low).amax(1)
    middle = torch.cat([(low + high) / 2, low.new_zeros(b, 1)], 1)
    a, z, hubs = ((p - middle[:, None, None]) * scale[:, None, None, None] for p in (a, z, hubs))
    canvas = _Canvas(b * t, px, draw.device)
    light = draw.normal((b, 2)).repeat_interleave(t, 0)
    light = light / light.norm(dim=1, keepdim=True).clamp_min(0.1)
    steps = scale[:, None].expand(b, t).flatten()
    roll = yaw.flatten() / (2 * math.pi)
    for i, part in enumerate(parts):
        # A part that is wider than deep looks wide from the front, as it does from the back.
        stretch = torch.hypot(cos[..., 0], sin[..., 0] * wide[:, i, None]).flatten() * steps
        thin, thick = (r[:, i, None].expand(b, t).flatten() * stretch for r in (near, far))
        canvas.part(a[:, :, i].flatten(0, 1), z[:, :, i].flatten(0, 1), thin, thick, roll, part.tile, light)
    for i in range(len(wheels)):
        radius, spokes = radii[i] * steps, 6 + 2 * int(draw.index(5))
        canvas.wheel(hubs[:, :, i].flatten(0, 1), radius, radius * 0.07, yaw.flatten(), spin, spokes)
    return _paint(canvas, tiles, draw.uniform((b, 1, 1), 0, 0.8).repeat_interleave(t, 0), t)


def vehicle(draw: Draw, tiles: Tensor, yaw: Tensor, px: int, shutter: Shutter) -> Tensor:
    """A car, van or bus in every sub-frame, as `figure`."""
    b, frames = yaw.shape
    rolling = shutter(draw.walk(b, frames, (), 0.06)).flatten()
    flat = shutter(yaw).flatten()
    t = len(flat) // b

    def per_frame(x: Tensor) -> Tensor:
        return x.repeat_interleave(t, 0)

    length, width = draw.uniform((b,), 0.75, 0.9), draw.uniform((b,), 0.3, 0.42)
    height, roof = draw.uniform((b,), 0.14, 0.3), draw.uniform((b,), 0.1, 0.24)
    cabin, back = draw.uniform((b,), 0.4, 0.85), draw.uniform((b,), -0.3, 0.1)
    wheel = draw.uniform((b,), 0.12, 0.19)
    canvas = _Canvas(b * t, px, draw.device)
    light = per_frame(draw.normal((b, 2)).clamp(-1.5, 1.5))

    def place(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        x, y, z = per_frame(x), per_frame(y), per_frame(z)
        return torch.stack([x * flat.cos() + z * flat.sin(), y, z * flat.cos() - x * flat.sin()], -1)

    nothing = torch.zeros_like(length)
    body = (per_frame(length), per_frame(height), per_frame(width))
    top = (per_frame(length * cabin), per_frame(roof), per_frame(width * 0.85))
    canvas.box(place(length * back, -(height + roof) * 0.9, nothing), top, flat, BOTTOM, light, 0.45)
    canvas.box(place(nothing, nothing, nothing), body, flat, TOP, light, 0.08)
    for along in (-0.62, 0.6):
        for side in (-1.0, 1.0):
            hub = place(length * along, height, width * side)
            hub[:, 2] = per_frame(width) * side * flat.cos()  # of its own side only: a wheel's body hides no box
            size = per_frame(wheel)
            canvas.wheel(hub, size, size * 0.2, flat, rolling, 0)
    return _paint(canvas, tiles, torch.ones((), device=draw.device), t)


def turned_in_depth(texture: Tensor, other: Tensor, yaw: Tensor, depth: Tensor) -> Tensor:
    """A cut-out as a body that turns about its upright axis: [B, T, 4, P, P], colours multiplied by coverage.

    Every row is an ellipse as wide as the cut-out there, with the cut-out on its front and `other` on its back.

    texture   [B, 4, P, P], colours multiplied by coverage
    other     [B, 3, P, P], linear, not multiplied
    yaw       [B, T] radians; 0 shows the texture as it is
    depth     [B] of the body against its width, 0..1
    """
    px = texture.shape[-1]
    x = screen(px, texture.device)[0, :, 0]
    alpha = texture[:, 3]
    solid = alpha > 0.3
    left = torch.where(solid, x, 9.0).amin(2)
    right = torch.where(solid, x, -9.0).amax(2)
    empty = right < left
    centre = torch.where(empty, 0.0, (left + right) / 2)
    half = torch.where(empty, 0.0, (right - left) / 2 + 3 / px)
    axis = (centre * half).sum(1, keepdim=True) / half.sum(1, keepdim=True).clamp_min(1e-3)  # [B, 1]
    centre = centre - axis
    thick = depth[:, None] * (0.6 * half + 0.4 * half.amax(1, keepdim=True)) * (half > 0)
    cos, sin = yaw.cos()[:, :, None], yaw.sin()[:, :, None]  # [B, T, 1]
    wide = half[:, None] * cos
    deep = thick[:, None] * sin
    reach = torch.hypot(wide, deep).clamp_min(1e-3)  # [B, T, P]
    middle = axis[:, None] + centre[:, None] * cos
    across = (x - middle[..., None]) / reach[..., None]  # [B, T, P, P]
    angle = across.clamp(-1, 1).asin() + torch.atan2(deep, wide)[..., None]
    beyond = across - across.clamp(-1, 1)
    within = ((1 - across.abs()) * reach[..., None] * (px / 2)).clamp(-0.5, 2.0)
    # Seen from the side, the cut-out's own edge lies in the middle of the body, where there is no edge.
    tucked = sin[..., None].square() * (within - 1).clamp_min(0) * (6 / px)
    across_body = angle.sin() * (half[:, None, :, None] - tucked).clamp_min(0)
    at = across_body + (centre + axis)[:, None, :, None] + beyond * reach[..., None]
    rows = screen(px, texture.device)[..., 1].expand_as(at)
    both = sample_flat(torch.cat([texture, other * alpha[:, None]], 1), torch.stack([at, rows], -1))
    front = (angle.cos() * 6 + 0.5).clamp(0, 1)[:, :, None]  # [B, T, 1, P, P]
    colour = torch.lerp(both[:, :, 4:], both[:, :, :3], front)
    outline = (within + 0.5).clamp(0, 1)[:, :, None]
    return torch.cat([colour, both[:, :, 3:4]], 2) * outline


def sample_flat(texture: Tensor, grid: Tensor) -> Tensor:
    """[B, C, P, P] at `grid` [B, T, P, P, 2], as [B, T, C, P, P]; zeros beyond."""
    b, t, h, w = grid.shape[:4]
    out = F.grid_sample(texture, grid.reshape(b, t * h, w, 2), align_corners=False)
    return out.view(b, -1, t, h, w).transpose(1, 2)
