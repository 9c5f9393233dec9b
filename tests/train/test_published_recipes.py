from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rotomem
from rotomem.errors import UsageError
from rotomem.train.augment import VIDEO
from rotomem.train.checkpoint import export_weights
from rotomem.train.loop import Run, train
from rotomem.train.memory import ClipMemory
from rotomem.train.ranks import Share
from rotomem.train.recipes import stcn, stm, xmem
from rotomem.train.recipes.staged import PublishedStage, StagedRecipe
from rotomem.train.schedule import Budget

from .folders import make_bl30k, make_davis, make_stills, make_youtube, picture
from .tiny_published import STCN_TINY, STM_TINY, XMEM_TINY

MAKERS: dict[str, Callable[[Path], Path]] = {
    "stills": make_stills,
    "davis": make_davis,
    "youtube": make_youtube,
    "bl30k": make_bl30k,
}


def small(stage: PublishedStage, frames: int = 3) -> PublishedStage:
    """The stage with clips that take no time."""
    look = replace(stage.draw.augment, size=48)
    return replace(stage, clips=2, draw=replace(stage.draw, frames=frames, augment=look))


def recipe_of(model: str, stage: str, **knobs: Any) -> StagedRecipe:
    """The recipe with a tiny network and small clips, at a rate that shows in a few steps."""
    knobs = {"peak": 4e-3, "bootstrap": None, "half": False, "workers": 0, **knobs}
    if model == "stm":
        return stm.STMRecipe(stage=small(stm.STAGES[stage]), network=STM_TINY, **knobs)
    if model == "stcn":
        return stcn.STCNRecipe(stage=small(stcn.STAGES[stage]), network=STCN_TINY, **knobs)
    frames = 3 if stage == "0" else 5
    return xmem.XMemRecipe(stage=small(xmem.STAGES[stage], frames), network=XMEM_TINY, **knobs)


def learn(recipe: StagedRecipe, root: Path, steps: int) -> Path:
    """Train on miniature folders; the checkpoint."""
    root.mkdir(parents=True)
    source = recipe.open([MAKERS[kind](root / kind) for kind in recipe.stage.kinds], torch.device("cpu"))
    return train(recipe, source, root / "out", Budget(steps=steps))


def falls(checkpoint: Path) -> bool:
    lines = (checkpoint.parent / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    return bool(np.mean(losses[-3:]) < 0.8 * np.mean(losses[:2]))


@pytest.mark.parametrize(("model", "stage"), [("stm", "1"), ("stcn", "3"), ("xmem", "3")])
def test_recipe_when_stages_follow_each_other_then_losses_fall_and_the_engine_takes_the_weights(
    model: str, stage: str, tmp_path: Path
) -> None:
    stills = learn(recipe_of(model, "0", norms_learn=True), tmp_path / "0", 8)
    assert falls(stills)
    main = recipe_of(model, stage, start=str(stills))
    begun = Run(main, None).model.state_dict()
    average = torch.load(stills, weights_only=True)["average"]
    assert all(torch.equal(begun[key], value) for key, value in average.items())
    path = learn(main, tmp_path / stage, 8)
    frames = [picture(0, i)[0].astype(np.float32) / 255 for i in range(2)]
    for file in (path, export_weights(path, tmp_path / "weights.safetensors")):
        session = rotomem.Session(rotomem.load_model(file, device="cpu", dtype="float32"), size=None)
        session.step(frames[0], picture(0)[1])
        answer = session.step(frames[1])
        assert answer.shape == (3, 48, 64)
        np.testing.assert_allclose(answer.sum(0), 1, atol=1e-4)


@pytest.mark.parametrize("model", ["stcn", "xmem"])
def test_recipe_when_bl30k_is_learned_from_then_loss_falls(model: str, tmp_path: Path) -> None:
    assert falls(learn(recipe_of(model, "1", norms_learn=True), tmp_path / "1", 8))


def test_recipe_when_stopped_and_resumed_then_it_sees_what_one_run_sees(tmp_path: Path) -> None:
    recipe = recipe_of("xmem", "3", checkpoint_s=1e9)
    folders = [make_davis(tmp_path / "d")]

    def lines(out: str, pauses: tuple[float | None, ...]) -> list[float]:
        for pause_s in pauses:
            source = recipe.open(folders, torch.device("cpu"))
            train(recipe, source, tmp_path / out, Budget(steps=4), resume=True, pause_s=pause_s)
        return [json.loads(line)["loss"] for line in (tmp_path / out / "log.jsonl").read_text().splitlines()]

    whole = lines("whole", (None,))
    assert len(whole) == 4 and lines("parts", (0.0, None)) == whole


@pytest.mark.parametrize("learn", [False, True])
def test_prepare_when_norms_are_not_to_learn_then_they_hold_still(learn: bool) -> None:
    recipe = recipe_of("stcn", "0", norms_learn=learn)
    model = recipe.network_at_random().train()
    recipe.prepare(model, 0.5)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and all(norm.training is learn for norm in norms)


def test_check_beginning_when_norms_would_hold_still_at_nothing_then_the_error_says_so() -> None:
    for given in ({"start": "x.pth"}, {"imagenet": ("x.pth", "y.pth")}, {"norms_learn": True}):
        recipe_of("stcn", "3", **given).check_beginning()
    with pytest.raises(UsageError, match=r"norms would never learn.*--imagenet"):
        recipe_of("stcn", "3").check_beginning()


@pytest.mark.parametrize(
    ("recipe", "gaps", "rates"),
    [
        (xmem.XMemRecipe(), [5, 10, 15, 15, 5], [1, 1, 1, 0.1, 0.1]),
        (xmem.XMemRecipe(stage=xmem.STAGES["1"]), [5, 10, 10, 15, 5], [1, 1, 1, 1, 0.1]),
        (stcn.STCNRecipe(), [5, 10, 15, 25, 5], [1, 1, 1, 1, 0.1]),
        (stcn.STCNRecipe(stage=stcn.STAGES["1"]), [5, 10, 15, 25, 5], [1, 1, 1, 1, 0.1]),
        (stm.STMRecipe(), [1, 1, 11, 26, 26], [1, 1, 1, 1, 1]),
    ],
)
def test_schedule_when_a_stage_goes_on_then_gaps_and_rates_are_the_published_ones(
    recipe: StagedRecipe, gaps: list[int], rates: list[float]
) -> None:
    moments = (0.0, 0.12, 0.29, 0.75, 0.95)
    assert [recipe.stage.drawn(recipe.iteration(p)).gap for p in moments] == gaps
    assert [recipe.rate(p) / 1e-5 for p in moments] == pytest.approx(rates)


def test_schedule_when_xmem_settles_then_single_frames_are_not_turned() -> None:
    recipe = xmem.XMemRecipe()
    late, early = recipe.stage.drawn(recipe.iteration(0.92)), recipe.stage.drawn(recipe.iteration(0.9))
    assert early.augment == VIDEO and (late.augment.turn, late.augment.shear) == (0, 0)
    assert replace(late.augment, turn=15.0, shear=10.0) == VIDEO


def test_losses_when_xmem_is_trained_then_both_updates_come_and_few_frames_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("xmem", "3")
    recipe = replace(recipe, stage=small(recipe.stage, 8))
    model = Run(recipe, None).model
    updates, deep, read = [], [], []
    decode, encode, kept = model.decode, model.encode_mask, ClipMemory.read
    monkeypatch.setattr(model, "decode", lambda *a, **k: updates.append(k["update_sensory"]) or decode(*a, **k))
    monkeypatch.setattr(model, "encode_mask", lambda *a, **k: deep.append(k["deep_update"]) or encode(*a, **k))
    monkeypatch.setattr(ClipMemory, "read", lambda m, q, **k: read.append(len(m._offered(0))) or kept(m, q, **k))
    source = recipe.open([make_davis(tmp_path)], torch.device("cpu"))
    clips = recipe.batch(source, torch.Generator(), 0.5, Share(), torch.device("cpu"))
    for seed in range(3):
        recipe.losses(model, clips, torch.Generator().manual_seed(seed), 0.5)
    assert updates == [True] * 21
    assert read == [1, 2, 3, 3, 3, 3, 3] * 3
    assert deep[0::7] == [True] * 3 and 0 < sum(deep) - 3 < 12
