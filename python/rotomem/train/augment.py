"""How a frame of a data set becomes a frame of a training clip: window, motion, colour.

The published pipelines cut, resize, turn and shear one after the other, each step interpolating what the last one
left and filling what it moved out of sight. Here all of it is one map from the pixels of the clip to those of the
picture, so a picture is interpolated once and what really lies beyond the window comes in; only beyond the picture
there is nothing, and that shows the mean colour. Sources: STCN, F.3 (after MiVOS); XMem takes over both.

Positions are x right, y down: on the picture in pixels, its corner 0; on the clip's frame -1..1 between outer edges.
Random numbers come from one CPU generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from rotomem.models.layers.framing import IMAGENET_MEAN

Span = tuple[float, float]
_LUMA = (0.299, 0.587, 0.114)
_WINDOW_TRIES = 10


@dataclass(frozen=True)
class Colour:
    """Most change of each: brightness and contrast and saturation as factors 1 - x .. 1 + x, hue in turns."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0


@dataclass(frozen=True)
class Augment:
    """What is done to the frames of a clip.

    size     side of the clip in pixels
    share    area of the window as a share of the picture, one window for the clip; None: a square window as high as
             the picture's shorter side, sliding along the longer one from frame to frame
    ratio    width / height of a window with a share, log-uniform
    zoom     of a window without a share, one for the clip
    flip     chance that the clip is mirrored
    grey     chance that it has no colour
    clip_colour, frame_colour    changes that all frames share, and those of each
    turn, shear, grow            of each frame: most degrees either way, and scale
    bend     chance that a frame is bent by a thin-plate spline through 12 points; deviation of these in sides
    """

    size: int = 384
    share: Span | None = (0.36, 1.0)
    ratio: Span = (0.75, 1.25)
    zoom: Span = (1.0, 1.0)
    flip: float = 0.5
    grey: float = 0.05
    clip_colour: Colour = Colour(0.1, 0.03, 0.03)
    frame_colour: Colour = Colour(0.01, 0.01, 0.01)
    turn: float = 15.0
    shear: float = 10.0
    grow: Span = (1.0, 1.0)
    bend: Span = (0.0, 0.02)


VIDEO = Augment()
"""STCN, F.3.2: DAVIS and YouTube-VOS."""

STILLS = Augment(
    share=None,
    zoom=(0.8, 1.5),
    clip_colour=Colour(0.1, 0.05, 0.05, 0.05),
    frame_colour=Colour(0.1, 0.05, 0.05),
    turn=20.0,
    grow=(0.9, 1.1),
    bend=(0.33, 0.02),
)
"""STCN, F.3.1: a clip from one photograph."""


def augment(pictures: Tensor, labels: Tensor, frames: int, a: Augment, rng: Generator) -> tuple[Tensor, Tensor]:
    """Frames of a clip, images uint8 [T, 3, size, size] and labels uint8 [T, size, size].

    pictures   uint8 [T, 3, H, W], or [1, 3, H, W] for a clip made of one photograph
    labels     uint8 [T, H, W] or [1, H, W]; taken from the nearest pixel, 0 beyond the picture
    """
    height, width = pictures.shape[-2:]
    grid = _grid(height, width, frames, a, rng)
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    images = (pictures.float() / 255 - mean).expand(frames, -1, -1, -1)
    images = F.grid_sample(images, grid, align_corners=False) + mean
    images = _tint(images, a.clip_colour, 1, rng)
    if torch.rand((), generator=rng) < a.grey:
        images = _luma(images).expand_as(images)
    images = _tint(images, a.frame_colour, frames, rng)
    flat = labels[:, None].float().expand(frames, -1, -1, -1)
    warped = F.grid_sample(flat, grid, mode="nearest", align_corners=False)
    return (images * 255).round_().clamp_(0, 255).byte(), warped[:, 0].byte()


def _uniform(rng: Generator, span: Span, *shape: int) -> Tensor:
    return torch.rand(shape, generator=rng) * (span[1] - span[0]) + span[0]


def _grid(height: int, width: int, frames: int, a: Augment, rng: Generator) -> Tensor:
    """Where every pixel of every frame looks on the picture, [T, size, size, 2], the picture being -1..1."""
    centre, half = _window(height, width, frames, a, rng)
    line = (torch.arange(a.size, dtype=torch.float32) * 2 + 1) / a.size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    screen = torch.stack([x, y], -1).expand(frames, -1, -1, -1)
    motion = _motion(frames, a, rng)
    if torch.rand((), generator=rng) < a.flip:
        motion = motion * torch.tensor([-1.0, 1.0])
    bent = (torch.rand(frames, generator=rng) < a.bend[0]).tolist()
    if any(bent):
        screen = torch.stack([spline(s, a.bend[1], rng) if b else s for s, b in zip(screen, bent, strict=True)])
    at = centre[:, None] + half * (screen.flatten(1, 2) @ motion.mT)
    at = at * 2 / torch.tensor([width, height]) - 1
    return at.view(frames, a.size, a.size, 2)


def _window(height: int, width: int, frames: int, a: Augment, rng: Generator) -> tuple[Tensor, Tensor]:
    """Centres [T, 2] and half sides [2] of the windows, in pixels, x first."""
    middle = torch.tensor([width / 2, height / 2])
    if a.share is None:
        zoom = float(_uniform(rng, a.zoom))
        side = min(height, width)
        room = (middle - side / 2) / zoom
        return middle + room * _uniform(rng, (-1, 1), frames, 2), torch.full((2,), side / 2 / zoom)
    for _ in range(_WINDOW_TRIES):
        area = height * width * float(_uniform(rng, a.share))
        ratio = float(_uniform(rng, (math.log(a.ratio[0]), math.log(a.ratio[1]))).exp())
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            break
    else:  # a picture so long that hardly any window fits: the largest one
        w, h = min(width, height * a.ratio[1]), min(height, width / a.ratio[0])
    half = torch.tensor([w / 2, h / 2])
    return (middle + (middle - half) * _uniform(rng, (-1, 1), 2)).expand(frames, 2), half


def _motion(frames: int, a: Augment, rng: Generator) -> Tensor:
    """A turn, shear and scale for every frame, [T, 2, 2]."""
    turn = torch.deg2rad(_uniform(rng, (-a.turn, a.turn), frames))
    shear = torch.deg2rad(_uniform(rng, (-a.shear, a.shear), frames)).tan()
    scale = 1 / _uniform(rng, a.grow, frames)
    cos, sin = turn.cos(), turn.sin()
    rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 1)
    sheared = torch.eye(2).repeat(frames, 1, 1)
    sheared[:, 0, 1] = shear
    return rotation @ sheared * scale[:, None, None]


def spline(screen: Tensor, deviation: float, rng: Generator, points: int = 12) -> Tensor:
    """Positions [h, w, 2] moved by the thin-plate spline that moves some random points at random.

    deviation   of the points' moves, as a share of the side (2 on the screen)

    Smoothed a little: two points that chance put side by side would otherwise tear the picture between them.
    """
    control = _uniform(rng, (-1, 1), points, 2)
    moves = torch.randn(points, 2, generator=rng) * deviation * 2
    affine = torch.cat([torch.ones(points, 1), control], 1)
    system = torch.zeros(points + 3, points + 3)
    system[:points, :points] = _radial(torch.cdist(control, control)) + 0.05 * torch.eye(points)
    system[:points, points:] = affine
    system[points:, :points] = affine.T
    weights = torch.linalg.solve(system, torch.cat([moves, torch.zeros(3, 2)]))
    flat = screen.reshape(-1, 2)
    moved = _radial(torch.cdist(flat, control)) @ weights[:points]
    moved = moved + weights[points] + flat @ weights[points + 1 :]
    return (flat + moved).view_as(screen)


def _radial(r: Tensor) -> Tensor:
    """The thin plate's r^2 log r, 0 at 0."""
    return torch.xlogy(r * r, r)


def _luma(images: Tensor) -> Tensor:
    return (images * torch.tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def _tint(images: Tensor, c: Colour, kinds: int, rng: Generator) -> Tensor:
    """Change the colours of [T, 3, h, w], `kinds` being 1 for all frames alike or T; the order is random."""

    def factor(most: float) -> Tensor:
        return _uniform(rng, (1 - most, 1 + most), kinds, 1, 1, 1)

    for change in torch.randperm(4, generator=rng).tolist():
        if change == 0 and c.brightness:
            images = images * factor(c.brightness)
        elif change == 1 and c.contrast:
            grey = _luma(images).mean((2, 3), keepdim=True)
            images = torch.lerp(grey, images, factor(c.contrast))
        elif change == 2 and c.saturation:
            images = torch.lerp(_luma(images), images, factor(c.saturation))
        elif change == 3 and c.hue:
            images = _turn_hue(images, _uniform(rng, (-c.hue, c.hue), kinds))
        images = images.clamp(0, 1)
    return images


_YIQ = torch.tensor([_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])


def _turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the plane of colour differences (IQ), luma untouched; nearly a shift of the hue, without its jumps."""
    cos, sin = (turns * 2 * math.pi).cos(), (turns * 2 * math.pi).sin()
    turn = torch.zeros(len(turns), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2] = cos, -sin
    turn[:, 2, 1], turn[:, 2, 2] = sin, cos
    matrix = torch.linalg.inv(_YIQ) @ turn @ _YIQ
    return (matrix @ images.flatten(2)).view_as(images)
