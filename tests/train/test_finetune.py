from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from engine.shots import checkpoint
from rotomem.train.compose import Clips, Composer
from rotomem.train.data import PicturePool
from rotomem.train.loop import Run, Share
from rotomem.train.recipes.finetune import FineTune, KeyedShot, KeyFrame, ShowSource, fill

H, W = 48, 72
PLAIN = FineTune(size=32, clips=2, light=0, grain=0)
"""Pixels stay what they were, so that they can be told apart."""


def disc(x: float, y: float, radius: float) -> Tensor:
    yy, xx = torch.meshgrid(torch.arange(H).float(), torch.arange(W).float(), indexing="ij")
    return (radius - torch.hypot(xx - x, yy - y) + 0.5).clamp(0, 1)


def key(frame: int, objects: tuple[int, ...] = (1,)) -> KeyFrame:
    """Object 1 is red, object 2 green, wherever they are; blue tells the frame."""
    coverage = torch.stack([disc(22 + frame, 24, 9), disc(60 - frame, 16, 6)])[: len(objects)]
    red_green = torch.cat([coverage, torch.zeros(2 - len(objects), H, W)])
    return KeyFrame(frame, torch.cat([red_green, torch.full((1, H, W), frame / 20)]), objects, coverage)


def shot(*keys: KeyFrame, others: dict[int, Tensor] | None = None) -> KeyedShot:
    return KeyedShot("sh010", keys, others or {})


def draw(recipe: FineTune, shot_: KeyedShot, count: int = 12) -> list[Clips]:
    source = ShowSource((shot_,))
    cpu = torch.device("cpu")
    return [recipe.batch(source, Generator().manual_seed(i), 0, Share(), cpu) for i in range(count)]


KINDS = {"pair": dict(pair=1.0, between=0.0), "lucid": dict(pair=0.0, lucid=1.0), "warp": dict(pair=0.0, lucid=0.0)}


@pytest.mark.parametrize("kind", KINDS)
def test_batch_when_objects_have_a_colour_of_their_own_then_coverage_is_where_it_is(kind: str) -> None:
    recipe = replace(PLAIN, **KINDS[kind])  # type: ignore[arg-type]
    moved = 0
    for clips in draw(recipe, shot(key(0, (1, 2)), key(10, (1, 2)))):
        assert clips.images.shape == (2, 3, 3, 32, 32) and clips.coverage.shape == (2, 3, 2, 32, 32)
        colours, coverage = clips.images[:, :, :2], clips.coverage
        # The objects are followed in any order.
        straight = (colours - coverage).abs().amax((1, 2, 3, 4))
        crossed = (colours - coverage.flip(2)).abs().amax((1, 2, 3, 4))
        # A cut-out's rim has some of the old ground in its colours: coverage times coverage in place of coverage.
        assert (torch.minimum(straight, crossed) < (0.26 if kind == "lucid" else 0.02)).all()
        moved += int((coverage[:, 0] - coverage[:, 2]).abs().amax() > 0.5)
    assert moved > 6


def test_batch_when_pair_then_both_orders_of_time_and_undrawn_frames_are_void() -> None:
    recipe = replace(PLAIN, pair=1.0, between=0.5)
    others = {5: torch.full((3, H, W), 0.25)}
    ways, voids = set(), 0
    for clips in draw(recipe, shot(key(0), key(10), key(18), others=others), 16):
        frames = (clips.images[:, :, 2].amax((2, 3)) * 20).round().int().tolist()
        assert clips.void is not None
        for (first, middle, last), void in zip(frames, clips.void.flatten(2).float().mean(2).tolist(), strict=True):
            assert first != last and void[0] == void[2] == 0
            ways.add((first, last))
            if void[1]:
                voids += 1
                assert void[1] == 1 and middle == 5
            else:
                assert middle in ({10} if {first, last} == {0, 18} else {last})
    assert ways == {(a, b) for a in (0, 10, 18) for b in (0, 10, 18) if a != b} and voids > 3


def test_batch_when_a_key_speaks_for_one_object_then_pairs_follow_that_alone() -> None:
    recipe = replace(PLAIN, pair=1.0)
    for clips in draw(recipe, shot(key(0, (1, 2)), key(10, (1,))), 6):
        assert clips.coverage.shape[2] == 1
        torch.testing.assert_close(clips.coverage[:, :, 0], clips.images[:, :, 0], atol=0.02, rtol=0)


def test_batch_when_objects_are_many_then_so_many_are_followed_and_the_rest_is_ground() -> None:
    recipe = replace(PLAIN, pair=0.0, lucid=1.0, objects=1)
    followed = set()
    for clips in draw(recipe, shot(key(0, (1, 2)))):
        assert clips.coverage.shape[2] == 1
        for images, coverage in zip(clips.images, clips.coverage[:, :, 0], strict=True):
            errors = [(images[:, c] - coverage).abs().amax().item() for c in (0, 1)]
            assert min(errors) < 0.26
            followed.add(errors.index(min(errors)))
    assert followed == {0, 1}


def test_batch_when_a_shot_shows_nothing_then_clips_are_of_the_others() -> None:
    empty = KeyFrame(5, torch.zeros(3, H, W), (1,), torch.zeros(1, H, W))
    source = ShowSource((shot(empty), shot(empty, key(10))))
    for i in range(6):
        clips = PLAIN.batch(source, Generator().manual_seed(i), 0, Share(), torch.device("cpu"))
        assert (clips.images[:, 0, 2].amax((1, 2)) > 0.4).all(), "the key that is given shows something"


def test_batch_when_clips_are_generated_too_then_both_come(pool: PicturePool) -> None:
    recipe = replace(PLAIN, generated=0.5)
    source = ShowSource((shot(key(0)),), Composer(pool))
    cpu = torch.device("cpu")
    clips = [recipe.batch(source, Generator().manual_seed(i), 0, Share(), cpu) for i in range(8)]
    generated = sum(c.void is None for c in clips)
    assert 0 < generated < 8


def test_fill_when_a_hole_is_cut_then_its_surroundings_close_it_and_stay() -> None:
    ramp = torch.linspace(0.2, 0.8, W).expand(3, H, W)
    known = 1 - (disc(30, 20, 8) > 0).float()
    filled = fill(torch.where(known > 0, ramp, torch.tensor(1e3)), known)
    torch.testing.assert_close(filled[:, known > 0], ramp[:, known > 0])
    assert (filled - ramp).abs().max() < 0.1
    assert fill(ramp, torch.zeros(H, W)).isfinite().all()


def test_run_when_tuned_then_keys_are_told_better_and_norms_stand_still(tmp_path: Path) -> None:
    recipe = FineTune(start=checkpoint(tmp_path), size=32, clips=2, peak=6e-3, light=0.05, half=False, average=0.8)
    run = Run(recipe, ShowSource((shot(key(0), key(10)),)))
    before = run.validate()["validation_loss"]
    statistics = {k: v.clone() for k, v in run.model.named_buffers() if "running" in k}
    assert statistics
    for i in range(16):
        run.advance(i / 16)
    assert run.validate()["validation_loss"] < 0.8 * before
    assert all(torch.equal(v, statistics[k]) for k, v in run.model.named_buffers() if k in statistics)


def test_run_when_parts_are_named_then_no_other_weight_moves(tmp_path: Path) -> None:
    recipe = FineTune(start=checkpoint(tmp_path), size=32, clips=1, parts=("decoder.",), half=False)
    run = Run(recipe, ShowSource((shot(key(0)),)))
    before = {k: v.detach().clone() for k, v in run.model.named_parameters()}
    run.advance(0.5)
    moved = {k for k, v in run.model.named_parameters() if not torch.equal(v, before[k])}
    assert moved and all(k.startswith("decoder.") for k in moved)
