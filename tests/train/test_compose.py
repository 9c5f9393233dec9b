from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rotomem.train.compose import (
    ComposeConfig,
    Composer,
    Placement,
    sample,
    smooth_field,
)
from rotomem.train.data import PicturePool

PLAIN = ComposeConfig(
    region=0,
    footage=0,
    distractor=0,
    soft=0,
    lighting=(0, 0),
    drift=(0, 0),
    grain=(0, 0),
    shutter=(0, 0.5, 4),
)


def disc(size: int, x: float, y: float, radius: float, samples: int = 8) -> torch.Tensor:
    """Coverage of a disc, by brute force: every pixel split into samples x samples."""
    line = (torch.arange(size * samples) + 0.5) / samples
    inside = torch.hypot(line[None] - x, line[:, None] - y) < radius
    return inside.float().view(size, samples, size, samples).mean((1, 3))


def disc_area(radius: float) -> float:
    return math.pi * radius * radius


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def still_placement(scale: float, x: float, y: float) -> Placement:
    """A texture of half side `scale` with its middle at x, y, one frame."""
    matrix = torch.eye(2).view(1, 1, 2, 2) / scale
    offset = torch.tensor([[[-x / scale, -y / scale]]])
    return Placement(matrix, offset, torch.zeros(1, 1, 2), None)


def test_compose_when_seed_is_the_same_then_clips_are_equal(pool: PicturePool) -> None:
    a = Composer(pool).compose(seeded(5), clips=3, frames=4, size=64, objects=2)
    b = Composer(pool).compose(seeded(5), clips=3, frames=4, size=64, objects=2)
    c = Composer(pool).compose(seeded(6), clips=3, frames=4, size=64, objects=2)
    assert torch.equal(a.images, b.images) and torch.equal(a.coverage, b.coverage)
    assert not torch.equal(a.images, c.images)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("objects", [1, 2, 3])
def test_compose_when_anything_is_drawn_then_ranges_hold(pool: PicturePool, seed: int, objects: int) -> None:
    clips = Composer(pool).compose(seeded(seed), clips=2, frames=3, size=64, objects=objects, chunk=1 + seed % 2)
    assert clips.images.shape == (2, 3, 3, 64, 64) and clips.coverage.shape == (2, 3, objects, 64, 64)
    assert clips.present.shape == (2, objects)
    for tensor in (clips.images, clips.coverage):
        assert torch.isfinite(tensor).all() and tensor.min() >= 0 and tensor.max() <= 1
    assert clips.coverage.sum(2).max() <= 1 + 1e-5


def test_sample_when_texture_is_a_disc_then_area_and_place_are_those_of_the_disc() -> None:
    texture = disc(144, 72, 72, 60)[None, None]
    for scale, x, y in ((0.5, 0.1, -0.2), (0.8, -0.05, 0.0), (0.9, 0.03, 0.07)):
        placed = sample(texture, still_placement(scale, x, y).grid(128), "zeros")[0, 0, 0]
        radius = 60 / 72 * scale * 64
        truth = disc(128, (x + 1) * 64, (y + 1) * 64, radius)
        assert abs(float(placed.sum()) / disc_area(radius) - 1) < 0.003
        assert float((placed - truth).abs().mean()) < 0.0025


def test_shape_when_rendered_then_edges_are_fractional_and_thin(pool: PicturePool) -> None:
    composer = Composer(pool, replace(PLAIN, limbs=1, hole=0))
    alpha = composer._shape(seeded(1), 16)
    soft = ((alpha > 0.02) & (alpha < 0.98)).float().mean()
    assert 0.002 < soft < 0.12
    assert (alpha.amax((2, 3)) == 1).all()


def test_compose_when_layer_is_laid_then_picture_is_the_alpha_blend(pool: PicturePool) -> None:
    """A white layer over a black picture is its own coverage, also where two layers overlap."""
    composer = Composer(pool, replace(PLAIN, shadow=0, relight=0, turning=0))
    image = torch.zeros(1, 3, 3, 64, 64)
    coverage = torch.zeros(1, 3, 2, 64, 64)
    shift = torch.zeros(1, 3, 2)
    white = torch.cat([disc(64, 32, 32, 27).expand(1, 3, 64, 64)] * 1 + [disc(64, 32, 32, 27)[None, None]], 1)
    rng = seeded(4)
    composer._lay(rng, image, coverage, white, 1, 3, 64, shift, lambda path: path)
    assert torch.allclose(image[:, :, :1], coverage[:, :, :1], atol=1e-5)
    before = coverage[:, :, 0].clone()
    composer._lay(rng, image, coverage, white, 2, 3, 64, shift, lambda path: path)
    total = coverage.sum(2)
    assert torch.allclose(image[:, :, 0], total, atol=1e-5)
    assert torch.allclose(coverage[:, :, 0], before * (1 - coverage[:, :, 1]), atol=1e-5)


def test_compose_when_shutter_is_open_then_coverage_is_the_mean_over_it(pool: PicturePool) -> None:
    """Motion blur spreads an object over more pixels without changing how much of it there is."""
    fast = replace(
        PLAIN, size=(0.3, 0.31), speed=(0.12, 0.121), still=0, spin=0, growth=0, bend=0, perspective=0,
        with_camera=0, cutout=0, defocus=0, shadow=0,
    )  # fmt: skip
    sharp = Composer(pool, fast).compose(seeded(3), clips=6, frames=3, size=96, objects=1)
    blurred = Composer(pool, replace(fast, shutter=(1, 1, 8))).compose(
        seeded(3), clips=6, frames=3, size=96, objects=1
    )
    partly = [((c.coverage > 0.05) & (c.coverage < 0.95)).float().mean() for c in (sharp, blurred)]
    assert partly[1] > 1.5 * partly[0]
    middle = [c.coverage[:, 0].sum() for c in (sharp, blurred)]
    assert abs(float(middle[1] / middle[0]) - 1) < 0.25


def test_compose_when_object_is_tiny_or_everywhere_then_it_is_not_followed(pool: PicturePool) -> None:
    strict = Composer(pool, replace(PLAIN, least_area=0.99, most_area=1.0))
    assert not strict.compose(seeded(1), clips=4, frames=2, size=64, objects=1).present.any()
    usual = Composer(pool).compose(seeded(1), clips=24, frames=2, size=64, objects=1)
    assert usual.present.float().mean() > 0.8


def test_smooth_field_when_controls_are_equal_then_field_is_flat() -> None:
    assert torch.allclose(smooth_field(torch.full((2, 5, 5), 3.0), 40), torch.full((2, 40, 40), 3.0), atol=1e-5)


def test_compose_when_layer_turns_then_colours_change_and_coverage_does_not(pool: PicturePool) -> None:
    still = replace(
        PLAIN, still=1, spin=0, growth=0, bend=0, perspective=0, with_camera=0, relight=0, turning=1, defocus=0
    )
    clips = Composer(pool, still).compose(seeded(2), clips=6, frames=4, size=64, objects=1)
    assert torch.allclose(clips.coverage, clips.coverage[:, :1].expand_as(clips.coverage), atol=1e-4)
    inside = clips.coverage[:, :1, 0, None] == 1
    change = ((clips.images - clips.images[:, :1]).abs() * inside).sum((2, 3, 4)) / (inside.sum((2, 3, 4)) * 3 + 1)
    assert (change[:, -1] > 0.01).sum() >= 2
    other = Composer(pool, replace(still, turning=0)).compose(seeded(2), clips=6, frames=4, size=64, objects=1)
    inside = other.coverage[:, :1, 0, None] == 1
    assert float(((other.images - other.images[:, :1]).abs() * inside).max()) < 1e-4
