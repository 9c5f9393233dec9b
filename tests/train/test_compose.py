from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rotomem.train.compose import KINDS, ComposeConfig, Composer, defocused, motion_blur, thin_structures
from rotomem.train.data import PicturePool

PLAIN = ComposeConfig(
    region=0, footage=0, distractor=0, reentry=0, vehicle=0, thin=0, figure=0, patch=0, turning=0, tint=0, relight=0,
    shadow=0, lighting=(0, 0), drift=(0, 0), exposure=0, scene=0, defocus=(0, 0), soft=(0, 0), grain=(0, 0),
    compression=(0, 50, 50), shutter=(0, 0.5, 4),
)  # fmt: skip
STILL = replace(
    PLAIN, still=1, spin=0, growth=0, bend=0, perspective=0, with_camera=0, hinge=(0, 0), camera=(1e-6, 2e-6)
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_compose_when_seed_is_the_same_then_clips_are_equal(pool: PicturePool) -> None:
    a = Composer(pool).compose(seeded(5), clips=3, frames=4, size=64, objects=2)
    b = Composer(pool).compose(seeded(5), clips=3, frames=4, size=64, objects=2)
    c = Composer(pool).compose(seeded(6), clips=3, frames=4, size=64, objects=2)
    assert torch.equal(a.images, b.images) and torch.equal(a.coverage, b.coverage)
    assert not torch.equal(a.images, c.images)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("objects", [1, 3])
def test_compose_when_anything_is_drawn_then_ranges_hold(pool: PicturePool, seed: int, objects: int) -> None:
    clips = Composer(pool).compose(seeded(seed), clips=2, frames=3, size=64, objects=objects, chunk=1 + seed % 2)
    assert clips.images.shape == (2, 3, 3, 64, 64) and clips.coverage.shape == (2, 3, objects, 64, 64)
    assert clips.present.shape == (2, objects)
    for tensor in (clips.images, clips.coverage):
        assert torch.isfinite(tensor).all() and tensor.min() >= 0 and tensor.max() <= 1
    assert clips.coverage.sum(2).max() <= 1 + 1e-5


@pytest.mark.parametrize("name", [*KINDS, "motion_blur", "defocused", "thin_structures"])
def test_compose_when_kind_is_asked_for_then_its_objects_can_be_followed(pool: PicturePool, name: str) -> None:
    """Most objects are there in the first frame, have edges and move; most are seen again."""
    soft = {"motion_blur": motion_blur, "defocused": defocused, "thin_structures": thin_structures}
    config = soft[name]() if name in soft else KINDS[name]
    config = replace(config, still=0, shutter=(*config.shutter[:2], 4))
    clips = Composer(pool, config).compose(seeded(2), clips=8, frames=3, size=48, objects=1)
    assert torch.isfinite(clips.images).all()
    assert clips.present.float().mean() >= 0.7
    coverage = clips.coverage[clips.present[:, 0], :, 0]
    fractional = ((coverage > 0.02) & (coverage < 0.98)).flatten(2).any(2)
    assert fractional[:, 0].float().mean() > 0.8
    moved = (coverage[:, 2] - coverage[:, 0]).abs().sum((1, 2)) / coverage[:, 0].sum((1, 2))
    assert (moved > 0.02).float().mean() > 0.8
    if name != "occlusion":
        assert (coverage[:, 1:].mean((2, 3)).amax(1) > 0.001).float().mean() > 0.7


def test_compose_when_chunks_are_whole_batches_then_shapes_are_the_same(pool: PicturePool) -> None:
    for kind in ("articulated", "vehicles", "turning", "thin", "occlusion", "regions"):
        clips = Composer(pool, KINDS[kind]).compose(seeded(1), clips=3, frames=2, size=48, objects=2, chunk=3)
        assert clips.images.shape == (3, 2, 3, 48, 48)
        assert not torch.equal(clips.images[0], clips.images[1])


def test_compose_when_shutter_is_open_then_coverage_is_the_mean_over_it(pool: PicturePool) -> None:
    """Motion blur spreads an object over more pixels without changing how much of it there is."""
    fast = replace(
        PLAIN, size=(0.3, 0.31), speed=(0.12, 0.121), still=0, spin=0, growth=0, bend=0, perspective=0,
        with_camera=0, cutout=0, hinge=(0, 0),
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
    usual = Composer(pool).compose(seeded(1), clips=12, frames=2, size=48, objects=1)
    assert usual.present.float().mean() > 0.8


def test_compose_when_body_turns_in_depth_then_colours_and_outline_change(pool: PicturePool) -> None:
    still = Composer(pool, replace(STILL, hinge=(0, 0))).compose(seeded(2), clips=4, frames=3, size=64, objects=1)
    assert torch.allclose(still.coverage, still.coverage[:, :1].expand_as(still.coverage), atol=1e-4)
    turning = replace(STILL, turning=1, yaw=(0.5, 0.6))
    clips = Composer(pool, turning).compose(seeded(2), clips=4, frames=3, size=64, objects=1)
    change = (clips.coverage[:, 2] - clips.coverage[:, 0]).abs().mean((1, 2, 3)) / clips.coverage[:, 0].mean(
        (1, 2, 3)
    )
    assert (change > 0.05).all()
    both = ((clips.coverage[:, 0] > 0.99) & (clips.coverage[:, 2] > 0.99)).float()
    colour = ((clips.images[:, 2] - clips.images[:, 0]).abs() * both).sum((1, 2, 3)) / (3 * both.sum((1, 2, 3)) + 1)
    assert (colour > 0.01).sum() >= 3


def test_compose_when_object_reenters_then_it_is_gone_in_between(pool: PicturePool) -> None:
    config = replace(STILL, reentry=1, size=(0.3, 0.4))
    clips = Composer(pool, config).compose(seeded(4), clips=6, frames=5, size=64, objects=1)
    area = clips.coverage[:, :, 0].mean((2, 3))
    assert (area[:, 2] < 1e-4).all() and (area[:, 4] > 0.3 * area[:, 0]).all()


def test_compose_when_distractor_hides_object_then_it_comes_back(pool: PicturePool) -> None:
    config = replace(
        PLAIN, distractor=1, layers=4, crossing=1, occluded=1, copy=0, still=1, with_camera=0, size=(0.25, 0.3),
        limbs=0, cutout=0, spin=0, growth=0, bend=0, perspective=0, hinge=(0, 0),
    )  # fmt: skip
    clips = Composer(pool, config).compose(seeded(1), clips=12, frames=3, size=64, objects=1)
    area = clips.coverage[:, :, 0].mean((2, 3))
    hidden = area[:, 1] < 0.4 * area[:, 0]
    assert hidden.sum() >= 3 and (area[hidden, 2] > 0.6 * area[hidden, 0]).sum() >= 2
