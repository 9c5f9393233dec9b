from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from engine.shots import checkpoint, label_key, plate, soft_key
from rotomem.engine.options import TrackOptions
from rotomem.engine.shot import ShotRun
from rotomem.errors import MaskError, UsageError
from rotomem.models.registry import load_model
from rotomem.train.recipes.finetune import FineTune
from rotomem.train.schedule import Budget
from rotomem.train.show import Trial, finetune, read_shot

STILL = FineTune(size=32, clips=1, peak=0.0, validation=1)
"""Learns nothing."""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> TrackOptions:
    return TrackOptions(model=checkpoint(tmp_path_factory.mktemp("weights")), size=32, rim=2, dtype="float32")


def three_keys(folder: Path) -> tuple[str, list[str]]:
    return plate(folder / "plate"), [soft_key(folder, frame) for frame in (1001, 1004, 1008)]


def test_read_shot_when_read_then_pictures_and_masks_are_those_of_track(
    tmp_path: Path, options: TrackOptions
) -> None:
    pattern, masks = plate(tmp_path / "plate"), [label_key(tmp_path, 1001), label_key(tmp_path, 1006)]
    shot = read_shot(pattern, masks, options, between=2)
    assert shot.name == "sh010" and sorted(shot.others) == [1003, 1005]
    assert [k.frame for k in shot.keys] == [1001, 1006] and shot.keys[1].objects == (1, 2)
    with ShotRun(pattern, masks, tmp_path / "out", options) as run:
        for frame, picture in [*((k.frame, k.picture) for k in shot.keys), *shot.others.items()]:
            seen = run.footage.see(frame).picture
            assert seen is not None and torch.equal(picture.permute(1, 2, 0), seen)
        for key in shot.keys:
            drawn = run.survey.keys.by_frame[key.frame]
            assert torch.equal(key.coverage, run.footage.masks(drawn))


def test_trial_when_three_keys_then_the_middle_one_is_told_from_both_sides(
    tmp_path: Path, options: TrackOptions
) -> None:
    pattern, masks = three_keys(tmp_path)
    shot = read_shot(pattern, masks, options)
    trial = Trial.of([shot.without(1008), shot])
    assert trial is not None and trial.shot is shot and trial.key.frame == 1004
    assert [k.frame for k in trial._starts()] == [1001, 1008]
    assert 0 <= trial.overlap(load_model(options.model, dtype="float32"), options) <= 1  # type: ignore[arg-type]
    assert Trial.of([shot.without(1008)]) is None


def test_finetune_when_nothing_is_learned_then_nothing_is_written(tmp_path: Path, options: TrackOptions) -> None:
    out = tmp_path / "tuned.safetensors"
    seen = []
    result = finetune([three_keys(tmp_path)], out, Budget(steps=4), options=options, recipe=STILL, report=seen.append)
    assert result.after == result.before and not result.better and result.written is None
    assert not out.exists() and len(seen) == 2, "it stops at the trial"
    assert "key 1004 of sh010" in result.checked


def test_finetune_when_forced_then_written_with_where_it_comes_from(tmp_path: Path, options: TrackOptions) -> None:
    out = tmp_path / "new" / "tuned.safetensors"
    result = finetune([three_keys(tmp_path)], out, Budget(steps=3), options=options, recipe=STILL, force=True)
    assert result.written == out and result.steps == 3
    with safe_open(str(out), "pt") as file:
        facts = file.metadata()
    base = load_model(options.model, dtype="float32")  # type: ignore[arg-type]
    assert facts["base_hash"] == base.weights_hash and facts["base"] == "tiny" and facts["steps"] == "3"
    assert facts["keys"] == "sh010 1001,1004,1008" and facts["frames"] == "sh010 1002-1003,1005-1007"
    tuned = load_model(out, dtype="float32")
    assert tuned.name == "tuned"
    for key, value in base.state_dict().items():
        torch.testing.assert_close(tuned.state_dict()[key], value, atol=2e-3, rtol=2e-3)


def test_finetune_when_it_learns_then_the_key_kept_out_is_told_better(tmp_path: Path, options: TrackOptions) -> None:
    out = tmp_path / "tuned.safetensors"
    recipe = replace(FineTune(), size=32, clips=2, peak=8e-3, light=0.05, average=0.8)
    result = finetune([three_keys(tmp_path)], out, Budget(steps=24), options=options, recipe=recipe)
    assert result.better and result.written == out
    pattern, masks = tmp_path / "plate" / "sh010.%04d.exr", [soft_key(tmp_path, 1001)]
    shot = read_shot(pattern, [*masks, soft_key(tmp_path, 1004), soft_key(tmp_path, 1008)], options)
    trial = Trial.of([shot])
    assert trial is not None
    assert trial.overlap(load_model(out, dtype="float32"), options) > result.before


def test_finetune_when_keys_are_few_then_warped_copies_are_what_is_checked(
    tmp_path: Path, options: TrackOptions
) -> None:
    shots = [(plate(tmp_path / s, stem=s), [label_key(tmp_path / s, 1002)]) for s in ("sh010", "sh020")]
    result = finetune(
        shots, tmp_path / "tuned.safetensors", Budget(steps=1), options=options, recipe=STILL, force=True
    )
    assert "warped copies" in result.checked and result.written is not None
    with safe_open(str(result.written), "pt") as file:
        assert file.metadata()["keys"] == "sh010 1002; sh020 1002"


def test_finetune_when_it_could_not_write_then_it_says_so_first(tmp_path: Path, options: TrackOptions) -> None:
    taken = tmp_path / "taken.safetensors"
    taken.touch()
    for out, what in ((taken, "exists"), (tmp_path / "tuned.pth", "ends in .safetensors")):
        with pytest.raises(UsageError, match=what):
            finetune([("no such plate", [])], out, Budget(steps=1), options=options)


def test_finetune_when_no_key_shows_anything_then_refused(tmp_path: Path, options: TrackOptions) -> None:
    pattern = plate(tmp_path / "plate")
    empty = soft_key(tmp_path, 1002, r=-5)
    with pytest.raises((UsageError, MaskError)):
        finetune([(pattern, [empty])], tmp_path / "tuned.safetensors", Budget(steps=1), options=options)
    assert np.all([not p.name.endswith(".safetensors") for p in tmp_path.iterdir()])
