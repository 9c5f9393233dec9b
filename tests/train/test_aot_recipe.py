from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rotomem
from rotomem.errors import UsageError
from rotomem.models.aot import AOT, AOTConfig
from rotomem.models.layers.lstt import LSTTBlock
from rotomem.train.checkpoint import export_weights
from rotomem.train.compose import Clips
from rotomem.train.loop import Run, train
from rotomem.train.recipes import aot
from rotomem.train.schedule import Budget

from .folders import make_davis, make_stills, make_youtube, picture

SMALL: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2, "hidden": 32, "identities": 4}
KINDS = {"aot": aot.AOTRecipe, "aotv2": aot.AOTv2Recipe, "aost": aot.AOSTRecipe}


def recipe_of(name: str, stage: str, **knobs: Any) -> aot.AOTRecipe:
    """The recipe with few and narrow blocks behind its whole encoder, and small clips."""
    recipe = KINDS[name]().at(stage)
    look = replace(recipe.stage.draw.augment, size=49)
    draw = replace(recipe.stage.draw, objects=3, frames=4, augment=look)
    knobs = {
        "peak": 4e-3,
        "warm_up": 0.0,
        "bootstrap": None,
        "workers": 0,
        "half": False,
        "norms_learn": True,
        **knobs,
    }
    network = replace(recipe.network, **SMALL)
    return replace(recipe, stage=replace(recipe.stage, clips=1, draw=draw), network=network, **knobs)


def clips_of(recipe: aot.AOTRecipe, root: Path) -> Clips:
    source = recipe.open([make_davis(root, void=True)], torch.device("cpu"))
    return source.batch(0, recipe.stage.draw, 2)


@pytest.mark.parametrize(("name", "stage"), [("aot", "0"), ("aot", "1"), ("aost", "1")])
def test_recipe_when_run_on_its_folders_then_loss_falls_and_the_engine_takes_the_weights(
    name: str, stage: str, tmp_path: Path
) -> None:
    recipe = recipe_of(name, stage, left_out=0.0, average=0.0)
    folders = (
        [make_stills(tmp_path / "s")] if stage == "0" else [make_davis(tmp_path / "d"), make_youtube(tmp_path / "y")]
    )
    path = train(recipe, recipe.open(folders, torch.device("cpu")), tmp_path / "out", Budget(steps=10))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert np.mean(losses[-3:]) < 0.85 * losses[0]
    weights = export_weights(path, tmp_path / "weights.safetensors")
    session = rotomem.Session(rotomem.load_model(weights, device="cpu", dtype="float32"), size=None)
    session.step(picture(0)[0].astype(np.float32) / 255, picture(0)[1])
    answer = session.step(picture(0, 1)[0].astype(np.float32) / 255)
    assert answer.shape == (3, 48, 64)
    np.testing.assert_allclose(answer.sum(0), 1, atol=1e-4)


@pytest.mark.parametrize(("name", "shared"), [("aot", False), ("aotv2", False), ("aost", False), ("aost", True)])
def test_losses_when_run_then_all_but_the_unused_learn(name: str, shared: bool, tmp_path: Path) -> None:
    recipe = recipe_of(name, "1")
    recipe = replace(recipe, network=replace(recipe.network, shared=shared, intermediate=not shared))
    run = Run(recipe, None)
    run.model.train()
    losses = recipe.losses(run.model, clips_of(recipe, tmp_path), torch.Generator(), 0.0)
    losses["loss"].backward()
    silent = [n for n, p in run.model.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []
    assert all(bool(torch.isfinite(p.grad).all()) for p in run.model.parameters() if p.grad is not None)


def test_losses_when_objects_get_other_identities_then_each_keeps_its_truth(tmp_path: Path) -> None:
    recipe = recipe_of("aot", "1")
    clips = clips_of(recipe, tmp_path)
    seen = set()
    for seed in range(12):
        drawn = aot._at_random(clips, 4, torch.Generator().manual_seed(seed))
        assert drawn.coverage.shape[2] == 4 and drawn.present.shape == (2, 4)
        for b in range(2):
            rows = drawn.present[b].nonzero()[:, 0].tolist()
            seen.add((b, *rows))
            mine, theirs = drawn.coverage[b, :, rows], clips.coverage[b, :, clips.present[b]]
            areas = [sorted(c.sum((0, 2, 3)).tolist()) for c in (mine, theirs)]
            assert areas[0] == areas[1] and mine.sum() == drawn.coverage[b].sum()
    assert len(seen) > 4


def test_losses_when_the_second_half_begins_then_own_answers_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("aot", "1")
    model = Run(recipe, None).model
    clips = clips_of(recipe, tmp_path)
    given: list[torch.Tensor] = []
    embed = AOT.embed_identities
    monkeypatch.setattr(AOT, "embed_identities", lambda m, masks: given.append(masks) or embed(m, masks))
    for progress, true in ((0.49, True), (0.5, False)):
        given.clear()
        recipe.prepare(model, progress)
        assert all(p.requires_grad is true for p in model.patch_wise_id_bank.parameters())
        recipe.losses(model, clips, torch.Generator().manual_seed(3), progress)
        drawn = aot._at_random(clips, 4, torch.Generator().manual_seed(3))
        same = [bool(torch.equal(masks.float(), drawn.coverage[:, i])) for i, masks in enumerate(given)]
        assert same == [True] + [true] * 3
        assert all(bool((masks.sum(1) <= 1).all()) for masks in given)


def test_losses_when_an_identity_is_unused_then_it_is_out_of_the_race(tmp_path: Path) -> None:
    recipe = recipe_of("aost", "1")
    model = Run(recipe, None).model
    clips = aot._at_random(clips_of(recipe, tmp_path), 4, torch.Generator())
    features = aot._by_frame(model, clips.images)  # type: ignore[arg-type]
    seen, _ = model.match_reference(features[0], model.embed_identities(clips.coverage[:, 0]))  # type: ignore[operator]
    answers = aot._answers(model, features[0], seen, clips.present)  # type: ignore[arg-type]
    assert len(answers) == 2 and model.depth == 2
    for answer in answers:
        assert answer.shape == (2, 5, 49, 49)
        assert answer.softmax(1)[:, 1:][~clips.present].max() == 0


def test_optimiser_when_parameters_are_grouped_then_rates_and_decay_are_the_published_ones(tmp_path: Path) -> None:
    recipe = recipe_of("aot", "1", peak=2e-4, warm_up=0.05)
    run = Run(recipe, None)
    by_name = {id(p): n for n, p in run.model.named_parameters()}
    groups = {
        by_name[id(p)]: (g["scale"], g["weight_decay"], g["floor"])
        for g in run.optimiser.param_groups
        for p in g["params"]
    }
    assert groups["encoder.features.0.0.weight"] == (0.1, 0.07, 2e-5)
    assert groups["LSTT.layers.0.linear_Q.weight"] == (1.0, 0.07, 2e-5)
    for spared in ("LSTT.layers.0.linear_Q.bias", "decoder.conv_out.weight", "LSTT.layers.1.norm1.weight"):
        assert groups[spared] == (1.0, 0.0, 2e-5)
    assert groups["LSTT.layers.0.short_term_attn.relative_emb_v"] == (1.0, 0.0, 2e-5)
    rates = [recipe.rate(p) for p in (0.0, 0.025, 0.05, 0.525, 1.0)]
    assert rates == pytest.approx([2e-5, 1.1e-4, 2e-4, 2e-5 + 1.8e-4 * 0.5**0.9, 2e-5])
    first = aot.AOTRecipe().at("0")
    assert (first.peak, first.weight_decay, first.first_frame) == (4e-4, 0.03, 0.1)


def test_build_when_the_encoder_is_given_then_its_first_stage_holds_still(tmp_path: Path) -> None:
    given = AOT(replace(AOTConfig(), **SMALL)).encoder.state_dict()
    torch.save({**given, "classifier.1.weight": torch.zeros(2, 2)}, tmp_path / "mobilenet.pth")
    run = Run(recipe_of("aot", "0", norms_learn=False, imagenet=(str(tmp_path / "mobilenet.pth"),)), None)
    model = run.model
    assert all(torch.equal(v, given[k]) for k, v in model.encoder.state_dict().items())
    still = {n.split(".")[1] for n, p in model.encoder.named_parameters() if not p.requires_grad}
    assert still == {"0", "1", "2", "3"}
    stepped = {id(p) for g in run.optimiser.param_groups for p in g["params"]}
    assert not stepped & {id(p) for p in model.parameters() if not p.requires_grad}


def test_leave_out_when_training_then_whole_branches_are_dropped_and_else_none() -> None:
    model = recipe_of("aot", "1", left_out=0.5).network_at_random()
    block = next(m for m in model.modules() if isinstance(m, LSTTBlock))
    tokens = torch.randn(64, 5, 32)
    torch.manual_seed(0)
    model.train()
    added = block.self_attn(tokens, torch.zeros(1, 5, 32))
    dropped = (added == 0).flatten(1).all(1)
    model.eval()
    whole = block.self_attn(tokens, torch.zeros(1, 5, 32))
    assert 16 < int(dropped.sum()) < 48 and not (whole == 0).flatten(1).all(1).any()
    torch.testing.assert_close(added[~dropped], whole[~dropped] * 2)


def test_build_when_clips_are_off_the_networks_grid_then_the_next_side_is_named() -> None:
    recipe = recipe_of("aot", "1")
    draw = replace(recipe.stage.draw, augment=replace(recipe.stage.draw.augment, size=48))
    with pytest.raises(UsageError, match=r"augment\.size is 48, aot takes multiples of 16 and 1 more; give 49"):
        replace(recipe, stage=replace(recipe.stage, draw=draw)).build()
