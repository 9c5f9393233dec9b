from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rotomem.train.augment import STILLS, VIDEO, Augment, Colour, augment, spline

STILL = Augment(size=64, share=(1, 1), ratio=(1, 1), flip=0, grey=0, turn=0, shear=0)
PLAIN = replace(STILL, clip_colour=Colour(), frame_colour=Colour())
"""Nothing but a square window as large as fits."""


def ramp(height: int, width: int) -> torch.Tensor:
    """A picture that tells of every pixel where it lies: red is x, green is y, in 250ths of the sides."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    picture = torch.stack([(x + 0.5) * 250 / width, (y + 0.5) * 250 / height, torch.full(x.shape, 128.0)])
    return picture.round().byte()[None]


def places(images: torch.Tensor) -> torch.Tensor:
    """What a warped ramp shows: [T, 2, h, w], 0..1 over the picture."""
    return images[:, :2].float() / 250


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_augment_when_all_is_off_then_the_square_is_the_picture() -> None:
    picture = ramp(64, 64)
    images, labels = augment(picture, picture[:, 0], 1, PLAIN, rng())
    assert torch.equal(images, picture) and torch.equal(labels, picture[:, 0])


@pytest.mark.parametrize("seed", range(4))
def test_augment_when_frames_move_then_labels_move_with_them(seed: int) -> None:
    inside = torch.zeros(1, 90, 120, dtype=torch.uint8)
    inside[:, 30:70, 40:90] = 7
    pictures = torch.where(inside[:, None] > 0, 255, 0).byte().expand(1, 3, -1, -1)
    a = replace(STILLS, size=96, grey=0, bend=(1.0, 0.02), clip_colour=Colour(), frame_colour=Colour())
    images, labels = augment(pictures, inside, 3, a, rng(seed))
    sure = (images[:, 0] > 200) | (images[:, 0] < 20)  # beyond the picture is the mean colour, which is neither
    assert torch.equal((labels == 7)[sure], (images[:, 0] > 200)[sure])
    assert set(labels.unique().tolist()) == {0, 7}
    assert not torch.equal(labels[0], labels[1])


def test_augment_when_the_window_is_a_share_then_it_is_one_for_all_frames_and_as_large_as_said() -> None:
    a = replace(PLAIN, share=(0.36, 1.0), ratio=(0.75, 1.25))
    areas = []
    for seed in range(40):
        shown = places(
            augment(ramp(96, 128).expand(2, -1, -1, -1), ramp(96, 128)[:, 0].expand(2, -1, -1), 2, a, rng(seed))[0]
        )
        assert torch.equal(shown[0], shown[1])
        sides = (shown[0, 0, 32, -1] - shown[0, 0, 32, 0], shown[0, 1, -1, 32] - shown[0, 1, 0, 32])
        areas.append(float(sides[0] * sides[1]) * (64 / 63) ** 2)
        assert 0.7 < float(sides[0] / sides[1]) * 128 / 96 < 1.3
    assert 0.34 < min(areas) < 0.42 and 0.75 < max(areas) < 1.02


def test_augment_when_the_picture_is_too_long_for_any_window_then_the_largest_is_taken() -> None:
    a = replace(PLAIN, share=(1.0, 1.0), ratio=(0.75, 1.25))
    shown = places(augment(ramp(20, 400), ramp(20, 400)[:, 0], 1, a, rng())[0])[0]
    assert shown[1, 48, 0] - shown[1, 16, 0] == pytest.approx(0.5, abs=0.03)
    assert (shown[0, 32, 48] - shown[0, 32, 16]) * 400 == pytest.approx(12.5, abs=1)


def test_augment_when_a_photograph_is_long_then_frames_slide_along_it() -> None:
    a = replace(PLAIN, share=None)
    shown = places(augment(ramp(50, 150), ramp(50, 150)[:, 0], 20, a, rng())[0])
    middles, heights = shown[:, 0, 32, 32], shown[:, 1, 48, 32] - shown[:, 1, 16, 32]
    assert middles.min() < 0.25 and middles.max() > 0.75
    torch.testing.assert_close(heights, torch.full((20,), 0.5), atol=0.02, rtol=0)


def test_augment_when_mirrored_then_left_is_right() -> None:
    shown = places(augment(ramp(64, 64), ramp(64, 64)[:, 0], 1, replace(PLAIN, flip=1.0), rng())[0])[0]
    assert shown[0, 0, 0] > 0.98 and shown[0, 0, -1] < 0.02 and shown[1, 0, 0] < 0.02


def test_augment_when_frames_turn_then_by_no_more_than_said() -> None:
    a = replace(PLAIN, turn=15.0, share=(0.2, 0.2))
    shown = places(
        augment(ramp(128, 128).expand(40, -1, -1, -1), ramp(128, 128)[:, 0].expand(40, -1, -1), 40, a, rng())[0]
    )
    across = shown[:, :, 32, 48] - shown[:, :, 32, 16]
    degrees = torch.rad2deg(torch.atan2(across[:, 1], across[:, 0]))
    assert 11 < degrees.abs().max() < 16.5 and degrees.min() < 0 < degrees.max()


def test_augment_when_beyond_the_picture_then_it_shows_the_mean_colour_and_no_object() -> None:
    a = replace(PLAIN, turn=15.0)
    labels = torch.full((1, 64, 64), 3, dtype=torch.uint8)
    images, warped = augment(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), labels, 8, a, rng())
    outside = warped == 0
    assert 0 < outside.float().mean() < 0.2
    colours = images.movedim(1, -1)[outside].float().mean(0)
    torch.testing.assert_close(colours, torch.tensor([0.485, 0.456, 0.406]) * 255, atol=12, rtol=0)


def test_augment_when_colours_change_then_by_no_more_than_said() -> None:
    grey = torch.full((4, 3, 64, 64), 100, dtype=torch.uint8)
    levels = []
    for seed in range(30):
        a = replace(PLAIN, clip_colour=Colour(brightness=0.1))
        images = augment(grey, grey[:, 0], 4, a, rng(seed))[0]
        assert images.float().std() == 0  # all frames alike
        levels.append(int(images[0, 0, 0, 0]))
    assert 90 <= min(levels) < 94 and 106 < max(levels) <= 110
    each = augment(grey, grey[:, 0], 4, replace(PLAIN, frame_colour=Colour(brightness=0.1)), rng())[0]
    assert len(set(each[:, 0, 0, 0].tolist())) == 4


def test_augment_when_the_hue_turns_then_brightness_stays() -> None:
    picture = (torch.rand(1, 3, 64, 64, generator=rng()) * 100 + 70).byte()
    images = augment(picture, picture[:, 0], 1, replace(PLAIN, clip_colour=Colour(hue=0.05)), rng(3))[0]
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert (images.float() - picture.float()).abs().max() > 5
    torch.testing.assert_close((images * weights).sum(1), (picture * weights).sum(1), atol=1.5, rtol=0)


def test_augment_when_grey_then_there_is_no_colour() -> None:
    picture = (torch.rand(1, 3, 64, 64, generator=rng()) * 255).byte()
    images = augment(picture, picture[:, 0], 1, replace(PLAIN, grey=1.0), rng())[0]
    assert torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])


def test_spline_when_points_move_then_positions_move_as_much_and_smoothly() -> None:
    line = torch.linspace(-1, 1, 33)
    screen = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    assert torch.equal(spline(screen, 0.0, rng()), screen)
    moves = torch.stack([spline(screen, 0.02, rng(seed)) - screen for seed in range(30)])
    assert 0.01 < moves.std() < 0.1
    steps = (moves[:, 1:] - moves[:, :-1]).norm(dim=-1).amax((1, 2))
    assert steps.max() < 1 / 16  # the smallest step between neighbours: nothing folds over


def test_published_settings_when_read_then_they_are_the_papers() -> None:
    assert (VIDEO.share, VIDEO.ratio, VIDEO.turn, VIDEO.shear) == ((0.36, 1.0), (0.75, 1.25), 15, 10)
    assert (STILLS.zoom, STILLS.turn, STILLS.grow, STILLS.bend) == ((0.8, 1.5), 20, (0.9, 1.1), (0.33, 0.02))
