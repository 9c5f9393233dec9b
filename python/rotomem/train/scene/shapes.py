"""Outlines of our own making, as coverage: lumps, limbs, thin structures, holes, superpixels of a photograph."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rotomem.train.scene.draw import Draw
from rotomem.train.scene.placement import screen, smooth_field


def covered(distance: Tensor) -> Tensor:
    """Coverage [B, 1, P, P] of what has this signed distance [B, P, P] (negative inside, the square's side is 2)."""
    return (0.5 - distance * (distance.shape[-1] / 2)).clamp(0, 1)[:, None]


def segments_distance(at: Tensor, a: Tensor, z: Tensor, radius_a: Tensor, radius_z: Tensor) -> Tensor:
    """Signed distance [B, P, P] of points [P, P, 2] to a union of tapered segments: ends [B, N, 2], radii [B, N]."""
    x, y = at[..., 0], at[..., 1]
    best: Tensor | None = None
    axis = z - a
    inverse = 1 / axis.square().sum(-1).clamp_min(1e-6)
    for i in range(a.shape[1]):  # one at a time: the cache holds a plane, not all of them
        dx, dy = x - a[:, i, 0, None, None], y - a[:, i, 1, None, None]
        ux, uy = axis[:, i, 0, None, None], axis[:, i, 1, None, None]
        along = ((dx * ux + dy * uy) * inverse[:, i, None, None]).clamp_(0, 1)
        distance = torch.hypot(dx - along * ux, dy - along * uy)
        distance = distance - torch.lerp(radius_a[:, i, None, None], radius_z[:, i, None, None], along)
        best = distance if best is None else torch.minimum(best, distance)
    assert best is not None
    return best


def _fit(points: Tensor, radius: Tensor, side: float = 1.8) -> tuple[Tensor, Tensor]:
    """Scale [B, 1, 1] and middle [B, 1, 2] that put discs [B, N] of these middles [B, N, 2] into the square."""
    low = (points - radius[..., None]).amin(1, keepdim=True)
    high = (points + radius[..., None]).amax(1, keepdim=True)
    return side / (high - low).amax(2, keepdim=True), (low + high) / 2


def limbs(draw: Draw, b: int, px: int, radius: tuple[float, float]) -> Tensor:
    """Distance [B, P, P] to limbs grown from one another; radius: least and most, leaning to least."""
    count = 2 + int(draw.index(6))
    start = torch.zeros(b, 1, 2, device=draw.device)
    ends: list[tuple[Tensor, Tensor]] = []
    for i in range(count):
        origin = start if i == 0 else ends[int(draw.index(i))][1]
        reach = draw.uniform((b, 1, 1), 0.25, 0.95)
        angle = draw.uniform((b, 1), -math.pi, math.pi)
        ends.append((origin, origin + reach * torch.stack([angle.cos(), angle.sin()], -1)))
    thick = draw.uniform((b, 2 * count)) ** 1.5 * (radius[1] - radius[0]) + radius[0]
    a, z = torch.cat([e[0] for e in ends], 1), torch.cat([e[1] for e in ends], 1)
    scale, middle = _fit(torch.cat([a, z], 1), thick)
    thick = (thick * scale[..., 0]).unflatten(1, (2, count))
    at = screen(px, draw.device)
    return segments_distance(at, (a - middle) * scale, (z - middle) * scale, thick[:, 0], thick[:, 1])


def lump(draw: Draw, b: int, px: int) -> Tensor:
    """Distance [B, P, P] to a wavy outline."""
    at = screen(px, draw.device)
    waves = torch.arange(1.0, 8.0, device=draw.device)
    weight = draw.normal((b, 7)) / waves * (0.12 + 0.25 * draw.uniform((b, 1)))
    phase = draw.uniform((b, 7), -math.pi, math.pi)
    x, y = at[..., 0], at[..., 1] / draw.uniform((b, 1, 1), 0.4, 1)
    angle = torch.atan2(y, x)
    radius = angle.new_full((b, px, px), 0.62)
    for i in range(7):
        wave = angle * waves[i] + phase[:, i, None, None]
        radius = torch.addcmul(radius, wave.cos_(), weight[:, i, None, None])
    return (torch.hypot(x, y) - radius.clamp_(0.1, 0.95)) * 0.8


def solid(
    draw: Draw, b: int, px: int, *, limb: float, hole: float, radius: tuple[float, float] = (0.05, 0.33)
) -> Tensor:
    """Coverage [B, 1, P, P] of a lump, or of limbs with this probability; with a hole with that one.

    radius   least and most of a limb, before the shape is fitted into its square
    """
    distance = limbs(draw, b, px, radius) if draw.chance(limb) else lump(draw, b, px)
    distance = distance + smooth_field(draw.normal((b, 7, 7)), px) * 0.035
    if draw.chance(hole):
        middle = draw.uniform((b, 1, 1, 2), -0.35, 0.35)
        distance = torch.maximum(
            distance, draw.uniform((b, 1, 1), 0.08, 0.25) - (screen(px, draw.device) - middle).norm(dim=-1)
        )
    return covered(distance)


def thin(draw: Draw, b: int, px: int, width: tuple[float, float], body: float) -> Tensor:
    """Coverage [B, 1, P, P] of a thin structure: a line, a strap, strands, a spoked wheel, or a frame of bars.

    width   half width of a line, share of half the square's side, log-uniform
    body    probability that it hangs on a body
    """
    radius = draw.log_uniform((b, 1), width)
    kind = int(draw.index(5))
    if kind == 0:  # a rope, a kite's line
        lines = _curve(draw, b, draw.uniform((b, 2), -0.95, 0.95), 7)
    elif kind == 1:  # a strap or a handle: a loop
        centre, reach = draw.uniform((b, 1, 2), -0.3, 0.3), draw.uniform((b, 1, 2), 0.25, 0.65)
        angle = torch.linspace(0, 2 * math.pi, 13, device=draw.device)
        angle = angle + draw.uniform((b, 1), -math.pi, math.pi)
        loop = centre + reach * torch.stack([angle.cos(), angle.sin()], -1)
        lines = [loop]
    elif kind == 2:  # strands, as of hair or grass
        root = draw.uniform((b, 2), -0.3, 0.3)
        lines = []
        for _ in range(5 + int(draw.index(4))):
            lines += _curve(draw, b, root + draw.uniform((b, 2), -0.2, 0.2), 4)
    elif kind == 3:  # a wheel
        angle = torch.linspace(0, 2 * math.pi, 17, device=draw.device)
        reach = draw.uniform((b, 1, 1), 0.5, 0.9)
        squash = torch.stack([draw.uniform((b,), 0.4, 1), draw.uniform((b,), 0.8, 1)], -1)[:, None]
        rim = reach * squash * torch.stack([angle.cos(), angle.sin()], -1)
        lines = [rim]
        for i in range(0, 16, int(draw.index(2)) + 2):
            lines.append(torch.stack([torch.zeros_like(rim[:, 0]), rim[:, i]], 1))
    else:  # bars between a few points, as of a bicycle or a chair
        points = draw.uniform((b, 6, 2), -0.85, 0.85)
        order = [torch.randperm(6, generator=draw.rng)[:4] for _ in range(2)]
        lines = [points[:, o] for o in order]
    a = torch.cat([line[:, :-1] for line in lines], 1)
    z = torch.cat([line[:, 1:] for line in lines], 1)
    taper = radius.expand(-1, a.shape[1])
    distance = segments_distance(screen(px, draw.device), a, z, taper, taper)
    coverage = covered(distance)
    if draw.chance(body):
        scale, place = draw.uniform((b, 1, 1, 1), 0.25, 0.6), draw.uniform((b, 1, 1, 2), -0.3, 0.3)
        grid = (screen(px, draw.device) - place) / scale
        lumpy = F.grid_sample(solid(draw, b, px // 2, limb=0.5, hole=0.1), grid, align_corners=False)
        coverage = torch.maximum(coverage, lumpy)
    return coverage


def _curve(draw: Draw, b: int, start: Tensor, points: int) -> list[Tensor]:
    """One smoothly bending line [B, points, 2] from `start` [B, 2] inwards, as a list of one."""
    angle = torch.atan2(-start[:, 1], -start[:, 0])[:, None] + draw.uniform((b, 1), -0.7, 0.7)
    angle = angle + (draw.normal((b, 1)) * 0.2 + draw.normal((b, points - 1)) * 0.15).cumsum(1)
    step = draw.uniform((b, 1), 0.7, 1.7) / (points - 1)
    path = torch.stack([angle.cos() * step, angle.sin() * step], -1).cumsum(1)
    return [torch.cat([start[:, None], start[:, None] + path], 1)]


def superpixel(draw: Draw, pictures: Tensor, side: int) -> Tensor:
    """Coverage [B, 1, S, S] of a region that a photograph's own colours make.

    Means of colour and place are fitted as in SLIC (Achanta et al., 2012; all means against all pixels, since the
    picture is small), one is taken, and its most similar neighbours are joined to it.

    pictures   [B, 3, S, S], display-referred 0..1
    """
    b, small, count = pictures.shape[0], 72, 10 + int(draw.index(16))
    colour = F.interpolate(pictures, (small, small), mode="bilinear", antialias=True)
    grey = colour.mean(1, keepdim=True)
    weight = float(draw.uniform((), 1.5, 5).cpu())
    place = screen(small, draw.device).permute(2, 0, 1).expand(b, -1, -1, -1)
    features = torch.cat([grey * weight, (colour - grey) * weight * 2, place], 1).flatten(2)  # [B, 6, N]
    at = draw.index(small * small, (b, count)).to(draw.device)
    means = features.gather(2, at[:, None].expand(-1, 6, -1))
    for _ in range(4):
        score = means.transpose(1, 2) @ features - means.square().sum(1)[..., None] / 2  # [B, K, N]
        chosen = F.one_hot(score.argmax(1), count).to(score.dtype)  # [B, N, K]
        means = features @ chosen / chosen.sum(1, keepdim=True).clamp_min(1)
    score = means.transpose(1, 2) @ features - means.square().sum(1)[..., None] / 2
    area = chosen.mean(1)
    middle = means[:, 4:].square().sum(1).sqrt()
    first = (area + 0.1 * draw.uniform((b, count)) - 0.1 * middle).clamp_min(0) * (area < 0.35)
    seed = torch.multinomial((first + 1e-6).cpu(), 1, generator=draw.rng).to(draw.device)  # [B, 1]
    core = means.gather(2, seed[:, None].expand(-1, 6, -1))
    unlike = ((means - core).square() * means.new_tensor([2, 2, 2, 2, 1, 1]).view(1, 6, 1)).sum(1)
    rank = unlike.argsort(1).argsort(1)
    joined = rank < 1 + draw.index(3, (b, 1)).to(draw.device)  # [B, K]
    joined &= (area * joined).sum(1, keepdim=True) < 0.3
    joined |= rank == 0
    inside = score.masked_fill(~joined[..., None], -1e4).amax(1)
    outside = score.masked_fill(joined[..., None], -1e4).amax(1)
    margin = (inside - outside).view(b, 1, small, small)
    margin = F.interpolate(margin, (side, side), mode="bicubic", align_corners=False)
    return edge(F.avg_pool2d(margin, 5, 1, 2, count_include_pad=False))


def edge(level: Tensor) -> Tensor:
    """Coverage of where `level` [B, 1, S, S] is positive, its edge one pixel wide by the level's own slope."""
    padded = F.pad(level, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return (0.5 + level / torch.hypot(dx, dy).clamp_min(1e-4)).clamp(0, 1)
