"""Clips composed on the fly, with the coverage of every object known for every pixel.

A clip is a background (a photograph under a moving camera, or real footage) and a few layers before it. Some layers
are the objects to be followed, others distract, and a distractor may be a copy of an object, cross its path or hide
it. In "region" clips the object is a part of the photograph itself. What is followed is never a hard label: layers
are composited in linear light with their fractional coverage, and every blur acts on light and coverage alike, so
what the network must say of an edge pixel is how much of it the object covers.

All operations are batched and run on any device; random numbers come from one CPU generator, so a seed gives the same
clip composition on every device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from rotomem.train.scene.background import Backgrounds
from rotomem.train.scene.config import KINDS, ComposeConfig, defocused, motion_blur, thin_structures
from rotomem.train.scene.draw import Draw, Shutter
from rotomem.train.scene.layers import Layers, Look
from rotomem.train.scene.light import blur, compress, encode
from rotomem.train.scene.placement import Placement, sample, smooth_field

__all__ = [
    "KINDS",
    "Clips",
    "ComposeConfig",
    "Composer",
    "Placement",
    "defocused",
    "motion_blur",
    "sample",
    "thin_structures",
]
from rotomem.train.data import PicturePool


@dataclass(frozen=True)
class Clips:
    """A batch of clips, composed or of a data set.

    images      [B, T, 3, h, w] float32, display-referred 0..1
    coverage    [B, T, O, h, w] float32, 0..1; the sum over objects is at most 1
    present     [B, O] bool, which rows are objects that can be followed from the first frame
    void        [B, T, h, w] bool, pixels whose coverage nobody knows, which no loss may look at; None: there are none
    """

    images: Tensor
    coverage: Tensor
    present: Tensor
    void: Tensor | None = None


class Composer:
    """Makes batches of clips from a pool.

    Two composers with one configuration and one pool, given generators in the same state, give the same clips.
    """

    def __init__(self, pool: PicturePool, config: ComposeConfig | None = None) -> None:
        self.pool = pool
        self.config = config or ComposeConfig()
        self.device = pool.pictures.device
        self.layers = Layers(pool, self.config)
        self.backgrounds = Backgrounds(pool, self.config)
        self._grain = torch.randn(3, 640, 640, generator=Generator().manual_seed(7)).to(self.device)

    def compose(self, rng: Generator, *, clips: int, frames: int, size: int, objects: int, chunk: int = 1) -> Clips:
        """A batch of `clips` clips that each follow up to `objects` objects.

        size    side of the square pictures, below 640
        chunk   clips made at a time; 1 keeps a clip in a CPU's cache, a GPU wants them all at once
        """
        draw = Draw(rng, self.device)
        parts = [
            self._chunk(draw, min(chunk, clips - start), frames, size, objects) for start in range(0, clips, chunk)
        ]
        images = torch.cat([p[0] for p in parts])
        coverage = torch.cat([p[1] for p in parts])
        area = coverage[:, 0].mean((2, 3))
        present = (area > self.config.least_area) & (area < self.config.most_area)
        return Clips(images, coverage, present)

    def _chunk(self, draw: Draw, b: int, t: int, size: int, objects: int) -> tuple[Tensor, Tensor]:
        """Images [B, T, 3, h, w] and coverage [B, T, O, h, w] of clips of one structure and different values."""
        c = self.config
        blurred, share, samples = c.shutter
        share *= float(draw.uniform((), 0.4, 1).cpu())
        shutter = Shutter(samples, share) if draw.chance(blurred) else Shutter()
        region = draw.chance(c.region)
        scene = self.backgrounds.scene(draw, b, t, size, objects, region, shutter)

        owners = self._owners(draw, objects, region)
        looks: list[Look] = []
        paths: list[Tensor] = []
        for owner in owners:
            look = self.layers.look(draw, b, scene, size)
            path = self.layers.path(draw, b, scene, owner > 0)
            if owner and draw.chance(c.reentry):
                path = self.layers.leaving(draw, path, look.half)
            looks.append(look)
            paths.append(path)
        self._distract(draw, owners, looks, paths)
        for look, path, owner in zip(looks, paths, owners, strict=True):
            self.layers.lay(draw, scene, look, path, owner)

        light, coverage = shutter.close(scene.light), shutter.close(scene.coverage)
        return self._finish(draw, light, coverage)

    def _distract(self, draw: Draw, owners: list[int], looks: list[Look], paths: list[Tensor]) -> None:
        """Make some of the layers that are not followed into copies of objects, or let them cross or hide one."""
        c = self.config
        followed = [i for i, owner in enumerate(owners) if owner]
        for i, owner in enumerate(owners):
            if owner or not followed:
                continue
            target = followed[int(draw.index(len(followed)))]
            half, theirs = looks[i].half, looks[target].half
            if draw.chance(c.copy):
                looks[i], half = looks[target], theirs * draw.log_uniform(tuple(half.shape), (0.8, 1.25))
            if i > target and draw.chance(c.crossing):
                if draw.chance(c.occluded):
                    half = half.maximum(theirs * 1.5)
                paths[i] = self.layers.crossing(draw, paths[target], half + theirs)
            looks[i] = replace(looks[i], half=half)

    def _owners(self, draw: Draw, objects: int, region: bool) -> list[int]:
        """Which object each layer shows, 0 for none, back to front."""
        followed = list(range(2 if region else 1, objects + 1))
        free = max(self.config.layers - len(followed), 0)
        owners = followed + [0 for _ in range(free) if draw.chance(self.config.distractor)]
        return [owners[i] for i in torch.randperm(len(owners), generator=draw.rng).tolist()]

    def _finish(self, draw: Draw, light: Tensor, coverage: Tensor) -> tuple[Tensor, Tensor]:
        """Lens, exposure, the way to display values, grain and compression: images and coverage."""
        c = self.config
        b, t, _, h, w = light.shape
        if draw.chance(c.soft[0]):
            sigma = float(draw.uniform((), 0.15, 1).cpu()) * c.soft[1] * h / 2
            light, coverage = blur(light, sigma), blur(coverage, sigma)
        stops = draw.uniform((b, 1, 1, 1, 1), -c.exposure, c.exposure) * 0.6931
        if draw.chance(c.drift[0]):
            stops = stops + 2.2 * draw.walk(b, t, (1, 1, 1), c.drift[1])
            stops = stops + 2.2 * draw.walk(b, t, (3, 1, 1), c.drift[1] * 0.4)
        gain = stops.clamp(-1.5, 1.5).exp()
        if draw.chance(c.lighting[0]):
            field = draw.normal((b, 1, 1, 3, 3)) + draw.walk(b, t, (1, 3, 3), 0.3)
            gain = gain * smooth_field((field * c.lighting[1]).clamp(-1.4, 1.4), h).exp()
        light = light * gain
        image = encode(light, shoulder=draw.chance(c.scene)).flatten(0, 1)
        if draw.chance(c.grain[0]):
            sigma = float(draw.uniform(()).cpu()) * c.grain[1]
            room = self._grain.shape[-1] - h
            for one in image:  # a window of one field of noise: drawing noise costs more than composing
                y, x = draw.index(room, (2,)).tolist()
                one.add_(self._grain[:, y : y + h, x : x + w], alpha=sigma)
            image = image.clamp_(0, 1)
        if draw.chance(c.compression[0]):
            image = compress(image, float(draw.uniform((), *c.compression[1:]).cpu()))
        return image.view(b, t, 3, h, w), coverage.clamp(0, 1)
