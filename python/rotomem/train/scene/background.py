"""What lies behind the layers: a photograph under a moving camera, or real footage."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rotomem.train.data import PicturePool
from rotomem.train.scene import shapes
from rotomem.train.scene.config import ComposeConfig
from rotomem.train.scene.draw import Draw, Shutter
from rotomem.train.scene.layers import Scene, jitter
from rotomem.train.scene.light import linearise
from rotomem.train.scene.placement import Placement, rotation, sample, screen


class Backgrounds:
    """Draws backgrounds; in region clips a part of the photograph is the first object."""

    def __init__(self, pool: PicturePool, config: ComposeConfig) -> None:
        self.pool, self.config = pool, config

    def scene(self, draw: Draw, b: int, t: int, size: int, objects: int, region: bool, shutter: Shutter) -> Scene:
        """A scene with no layers yet."""
        c, pool = self.config, self.pool
        least = torch.full((b, 1), c.zoom[0], device=draw.device)
        if region:
            texture, index, centre = self._with_region(draw, b)
            area = texture[:, 3].mean((1, 2))
            least = (area / 0.5).sqrt()[:, None].clamp(max(0.5, c.zoom[0]), max(0.5, c.zoom[1]))
        elif len(pool.runs) and draw.chance(c.footage):
            texture, index = self._footage(draw, b, t, shutter.samples)
            centre = draw.uniform((b, 2), -1, 1)
        else:
            index = draw.index(pool.stills, (b,))
            texture, centre = linearise(pool.pictures[index]), draw.uniform((b, 2), -1, 1)
        if texture.dim() == 4:
            texture = jitter(draw, texture, c.tint * 0.7)
        else:  # one change of colours for all frames of a clip
            frames = texture.transpose(1, 2)
            texture = jitter(draw, frames.flatten(3), c.tint * 0.7).view_as(frames).transpose(1, 2)
        aspect = pool.aspect[index].to(draw.device)
        placement, shift = self._camera(draw, b, t, shutter, aspect, centre, least, region)
        pixels = sample(texture, placement.grid(size), "border" if region else "reflection")
        coverage = pixels.new_zeros(b, pixels.shape[1], objects, size, size)
        if region:
            coverage[:, :, 0] = pixels[:, :, 3]
        return Scene(pixels[:, :, :3].contiguous(), coverage, shift, t, shutter)

    def _camera(
        self,
        draw: Draw,
        b: int,
        t: int,
        shutter: Shutter,
        aspect: Tensor,
        centre: Tensor,
        least_zoom: Tensor,
        region: bool,
    ) -> tuple[Placement, Tensor]:
        """Where the background lies, and the shift of the screen [B, T', 2] that goes with it."""
        c = self.config
        squeeze = torch.stack([1 / aspect, aspect], 1).clamp_max(1)  # undoes the squeeze into a square
        zoom = torch.lerp(least_zoom, least_zoom.clamp_min(c.zoom[1]), draw.uniform((b, 1)))
        speed = draw.log_uniform((b,), c.camera) * (0.6 if region else 1)  # a region is to stay in its picture
        if draw.chance(c.still):
            speed = speed * 0
        path = shutter(draw.walk(b, t, (2,), speed))
        growth = shutter(draw.walk(b, t, (1,), draw.uniform((b,), 0, c.growth * 0.5)))
        turn = shutter(draw.walk(b, t, (), draw.uniform((b,), 0, c.spin * 0.4))) + draw.uniform((b, 1), -0.1, 0.1)
        mirror = torch.stack([draw.sign((b,)), torch.ones(b, device=draw.device)], -1)[:, None]  # [B, 1, 2]
        extent = (zoom[:, None] * growth.exp()) * squeeze[:, None]
        matrix = rotation(turn) * mirror[:, :, None] * extent[..., None]
        reach = (1 - zoom * squeeze).clamp_min(0)  # how far the screen may start from the picture's middle
        start = torch.minimum(torch.maximum(centre, -reach), reach)
        strength = draw.uniform((b,), 0, c.region_bend if region else c.bend * 0.25)
        bend = shutter(draw.walk(b, t, (2, 4, 4), strength))
        tilt = shutter(draw.walk(b, t, (2,), draw.uniform((b,), 0, c.perspective * 0.5))).clamp(-0.3, 0.3)
        placement = Placement(matrix, start[:, None] + path, tilt, bend if region or draw.chance(0.5) else None)
        return placement, -(path / extent) * mirror

    def _footage(self, draw: Draw, b: int, t: int, samples: int) -> tuple[Tensor, Tensor]:
        """Frames of real clips, linear [B, T', 3, S, S], and the index of each one's first picture."""
        pool = self.pool
        first, count = pool.runs[draw.index(len(pool.runs), (b,))].unbind(1)
        stride = 1 + draw.index(3, (b,))
        at = (torch.rand(b, generator=draw.rng) * (count - 1 - stride * (t - 1)).clamp_min(0)).long()
        every = first[:, None] + (at[:, None] + stride[:, None] * torch.arange(t)).minimum(count[:, None] - 1)
        if draw.chance(0.5):
            every = every.flip(1)
        return linearise(pool.pictures[every]).repeat_interleave(samples, 1), first

    def _with_region(self, draw: Draw, b: int) -> tuple[Tensor, Tensor, Tensor]:
        """A photograph and the coverage of a region of it, [B, 4, S, S]; its index; the region's middle [B, 2]."""
        c, pool = self.config, self.pool
        side = pool.pictures.shape[-1]
        if draw.chance(c.region_shape):
            index = draw.index(pool.stills, (b,))
            mask = shapes.solid(draw, b, side, limb=c.limbs, hole=c.hole, radius=c.limb_radius)
        elif draw.chance(c.superpixel) or not len(pool.labelled):
            index = draw.index(len(pool.pictures), (b,))  # frames of real clips as well
            mask = shapes.superpixel(draw, pool.pictures[index].float() / 255, side)
        else:
            row = draw.index(len(pool.labelled), (b,))
            index = pool.labelled[row]
            mask = self._labelled(draw, row)
        weight = mask.mean((2, 3)).clamp_min(1e-6)
        middle = (mask[:, 0, ..., None] * screen(side, draw.device)).mean((1, 2)) / weight
        centre = middle * 0.8 + draw.uniform((b, 2), -0.2, 0.2)
        return torch.cat([linearise(pool.pictures[index]), mask], 1), index, centre

    def _labelled(self, draw: Draw, row: Tensor) -> Tensor:
        """Coverage [B, 1, S, S] of one labelled region of each picture."""
        labels = self.pool.labels[row.to(self.pool.labels.device)]
        side = labels.shape[-1]
        chosen = []
        for one in labels:
            counts = torch.bincount(one.flatten().long(), minlength=2)
            counts[0] = 0
            known = (counts > side * side * 0.004).nonzero()[:, 0]
            if not len(known):
                known = counts.argmax()[None]
            chosen.append(one == known[draw.index(len(known)).to(known.device)])
        # The maps are nearest-sampled: a three-pixel mean gives their steps an edge of fractional coverage.
        return F.avg_pool2d(torch.stack(chosen)[:, None].float(), 3, 1, 1, count_include_pad=False)
