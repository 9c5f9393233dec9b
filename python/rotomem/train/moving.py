"""Generated scenes of things that move: what video prediction can be taught and measured by without any data set.

Discs and squares cross a shaded ground on straight lines, bounce off the picture's edge and hide one another. Where
each will be on the next frame follows from where it was on the last three.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class MovingScenes:
    """What scenes look like; lengths are shares of the picture's side.

    shapes    things that move
    radius    least and greatest; of a square half its side
    speed     per frame, least and greatest
    ground    darkest and lightest of the ground, which is shaded from top to bottom; things are lighter
    """

    shapes: int = 2
    radius: tuple[float, float] = (0.12, 0.2)
    speed: tuple[float, float] = (0.06, 0.14)
    ground: tuple[float, float] = (0.2, 0.3)

    def draw(self, rng: Generator, *, clips: int, frames: int, size: int) -> Tensor:
        """Clips [B, T, 3, size, size] 0..1, edges anti-aliased."""

        def uniform(*shape: int, of: tuple[float, float] = (0.0, 1.0)) -> Tensor:
            return torch.rand(shape, generator=rng) * (of[1] - of[0]) + of[0]

        y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
        top, bottom = uniform(2, clips, 3, 1, 1, of=self.ground)
        ground = (top + (bottom - top) * y / size).expand(-1, -1, -1, size)
        radius = uniform(clips, self.shapes, of=self.radius) * size
        room = (size - 2 * radius)[..., None]
        start = uniform(clips, self.shapes, 2) * 2 * room
        angle = uniform(clips, self.shapes) * 2 * torch.pi
        velocity = torch.stack([angle.cos(), angle.sin()], -1) * uniform(clips, self.shapes, 1, of=self.speed) * size
        colour = uniform(clips, self.shapes, 3, 1, 1, of=(0.5, 1.0))
        disc = uniform(clips, self.shapes) < 0.5
        pictures = []
        for t in range(frames):
            turned = (start + velocity * t) % (2 * room)  # there and back again
            centre = torch.where(turned > room, 2 * room - turned, turned) + radius[..., None]
            picture = ground
            for i in range(self.shapes):
                dx, dy = x - centre[:, i, 0, None, None], y - centre[:, i, 1, None, None]
                far = torch.maximum(dx.abs(), dy.abs())
                far = torch.where(disc[:, i, None, None], torch.hypot(dx, dy), far)
                cover = (radius[:, i, None, None] - far + 0.5).clamp(0, 1)[:, None]
                picture = picture * (1 - cover) + colour[:, i] * cover
            pictures.append(picture)
        return torch.stack(pictures, 1)
