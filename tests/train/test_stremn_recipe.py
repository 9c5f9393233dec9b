"""The stages of STReMN in miniature: losses fall, what the paper says of them holds, a session takes the weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import rotomem
from rotomem.models.stremn import STReMN, STReMNConfig
from rotomem.train.checkpoint import export_weights
from rotomem.train.loop import Run, train
from rotomem.train.recipes.stremn import STAGES, STReMNRecipe
from rotomem.train.schedule import Budget

from .folders import make_davis, make_stills, make_youtube

TINY = STReMNConfig("basic", 8, (8, 8, 16), (1, 1, 1), 8, 16, 16, update_dim=8, slots=4)


def recipe_of(stage: str, frames: int = 3) -> STReMNRecipe:
    published = STAGES[stage]
    look = replace(published.draw.augment, size=48)
    small = replace(published, clips=2, draw=replace(published.draw, frames=frames, augment=look))
    return STReMNRecipe(stage=small, network=TINY, workers=0, peak=3e-3, still_rate=3e-3)


def folders(stage: str, root: Path) -> list[Path]:
    return [make_stills(root / "stills")] if stage == "0" else [make_davis(root / "d"), make_youtube(root / "y")]


@pytest.mark.parametrize("stage", ("0", "1"))
def test_recipe_when_run_on_its_folders_then_loss_falls_and_the_weights_load(stage: str, tmp_path: Path) -> None:
    recipe = recipe_of(stage)
    source = recipe.open(folders(stage, tmp_path), torch.device("cpu"))
    path = train(recipe, source, tmp_path / "out", Budget(steps=12))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:2])
    weights = export_weights(path, tmp_path / "weights.safetensors")
    model = rotomem.load_model(weights, device="cpu", dtype="float32")
    assert isinstance(model, STReMN) and model.config == TINY


def test_update_keys_when_slots_are_full_then_a_step_moves_them_and_else_not(tmp_path: Path) -> None:
    for frames, moved in ((5, False), (6, True)):
        recipe = recipe_of("1", frames)
        run = Run(recipe, recipe.open(folders("1", tmp_path / str(frames)), torch.device("cpu")))
        before = {n: p.detach().clone() for n, p in run.model.named_parameters()}
        run.advance(0)
        for name, p in run.model.named_parameters():
            expected = moved or not name.startswith("update_")
            assert torch.equal(p, before[name]) is not expected, name


def test_stages_when_at_their_defaults_then_they_are_the_papers() -> None:
    stills, videos = (STReMNRecipe(stage=STAGES[s]) for s in "01")
    assert [s.stage.draw.frames for s in (stills, videos)] == [5, 10]
    assert {s.stage.draw.augment.size for s in (stills, videos)} == {384}
    assert stills.rate(0) == stills.rate(0.9) == 1e-4
    assert videos.rate(0) == pytest.approx(1e-5) and videos.rate(1) == pytest.approx(1e-7)
    assert stills.network.slots == 6
