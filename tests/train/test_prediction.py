"""Video prediction: generated scenes, losses as their papers have them, and that a network learns from both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator

from rotomem.cli import main
from rotomem.models.prediction import PredictorConfig, load_predictor
from rotomem.train.checkpoint import export_weights
from rotomem.train.loop import train
from rotomem.train.moving import MovingScenes
from rotomem.train.prediction_losses import gradient_loss, prediction_losses, shrinkage
from rotomem.train.ranks import Share
from rotomem.train.recipes.prediction import PredictionRecipe, predict_clip
from rotomem.train.schedule import Budget
from rotomem.train.slots import SlotMemory

TINY = PredictorConfig((8, 12, 16), (1, 2, 2), 8, 12, 4, slots=3)


def test_scenes_when_drawn_then_things_move_straight_on_and_stay_inside() -> None:
    scenes = MovingScenes(shapes=1, speed=(0.05, 0.05))
    clips = scenes.draw(Generator().manual_seed(0), clips=6, frames=30, size=32)
    assert clips.shape == (6, 30, 3, 32, 32) and clips.min() >= 0 and clips.max() <= 1
    ground = clips.median(1).values
    there = (clips - ground[:, None]).abs().sum(2) > 0.1
    assert there.flatten(2).any(2).all()
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    weight = there / there.sum((2, 3), keepdim=True)
    centre = torch.stack([(weight * x).sum((2, 3)), (weight * y).sum((2, 3))], -1)
    steps = (centre[:, 1:] - centre[:, :-1]).norm(dim=-1)
    assert (steps - 1.6).abs().median() < 0.3
    same = scenes.draw(Generator().manual_seed(0), clips=6, frames=30, size=32)
    assert torch.equal(clips, same)


def test_shrinkage_when_computed_by_hand_then_it_agrees() -> None:
    error = torch.tensor([0.0, 0.2, 0.7])
    weights = [1 / (1 + np.exp(10 * (0.2 - e))) for e in (0.0, 0.2, 0.7)]
    for power in (1, 2):
        expected = np.mean([w * e**power for w, e in zip(weights, (0.0, 0.2, 0.7), strict=True)])
        assert (
            float(shrinkage(error, power)) == np.float32(expected)
            or abs(float(shrinkage(error, power)) - expected) < 1e-7
        )


def test_gradient_loss_when_written_as_loops_then_it_agrees_and_light_does_not_matter() -> None:
    a, b = torch.rand(2, 1, 1, 5, 4, generator=Generator().manual_seed(0)) + 0.1
    total = 0.0
    for h in (1, 2):
        sums = []
        for i in range(5 - h):
            for j in range(4 - h):
                parts = []
                for di, dj in ((0, h), (h, 0)):
                    relative = [
                        float((p[0, 0, i + di, j + dj] - p[0, 0, i, j]) / (p[0, 0, i + di, j + dj] + p[0, 0, i, j]))
                        for p in (a, b)
                    ]
                    parts.append(relative[0] - relative[1])
                sums.append(np.hypot(*parts))
        total += float(np.mean(sums))
    assert abs(float(gradient_loss(a, b, steps=(1, 2))) - total) < 1e-5
    assert float(gradient_loss(a, 0.5 * a)) < 1e-5


def test_losses_when_prediction_is_true_then_they_are_nothing_and_gradients_are_finite() -> None:
    truth = torch.rand(2, 3, 24, 24)
    predicted = truth.clone().requires_grad_()
    losses = prediction_losses(predicted, truth)
    losses["loss"].backward()
    assert float(losses["loss"].detach()) < 1e-4
    assert predicted.grad is not None and torch.isfinite(predicted.grad).all()


def recipe(**knobs: object) -> PredictionRecipe:
    basic = {"size": 16, "clips": 4, "given": 5, "told": 2, "network": TINY, "validation": 0, "half": False}
    return PredictionRecipe(**{**basic, **knobs})  # type: ignore[arg-type]


def test_predict_clip_when_it_goes_on_then_what_was_told_is_what_is_seen() -> None:
    torch.manual_seed(0)
    model = recipe().build().eval()
    given = torch.rand(1, 4, 3, 16, 16)

    def memory() -> SlotMemory:
        return SlotMemory(model.plan, "learned", Generator().manual_seed(0), pinned=0)

    with torch.no_grad():
        both = predict_clip(model, given, 2, memory())
        first = predict_clip(model, given, 1, memory())
        longer = torch.cat([given, first.clamp(0, 1)], 1)
        second = predict_clip(model, longer, 1, memory())
    assert torch.equal(both[:, :1], first) and torch.allclose(both[:, 1:], second, atol=1e-6)


def test_losses_when_a_training_begins_then_the_first_frame_is_predicted_alone() -> None:
    r = recipe(told=3, alone=0.5)
    torch.manual_seed(0)
    model, clips = r.build(), r.batch(r.scenes, Generator().manual_seed(1), 0, Share(), torch.device("cpu"))

    def error(recipe_: PredictionRecipe, progress: float) -> float:
        return float(recipe_.losses(model, clips, Generator().manual_seed(2), progress)["mse"])

    assert error(r, 0.4) == error(replace(r, told=1), 0.9)
    assert error(r, 0.6) == error(replace(r, alone=0.0), 0.1) != error(r, 0.4)


def test_recipe_when_run_then_loss_falls_and_the_weights_load(tmp_path: Path) -> None:
    r = recipe(peak=5e-3, network=replace(TINY, blend=False))  # one that blends begins with the last frame
    path = train(r, r.open(None, torch.device("cpu")), tmp_path / "out", Budget(steps=12))
    log = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    errors = [entry["mse"] for entry in log if "mse" in entry]
    assert np.mean(errors[-3:]) < 0.7 * np.mean(errors[:2])
    loaded = load_predictor(export_weights(path, tmp_path / "weights.safetensors"), device="cpu")
    assert loaded.config == r.network


def test_train_command_when_told_to_predict_then_it_needs_no_folder(tmp_path: Path) -> None:
    small = [part for knob in ("size=16", "clips=1", "given=3", "told=1", "validation=0") for part in ("--set", knob)]
    assert main(["train", "prediction", "--out", str(tmp_path), "--steps", "1", *small]) == 0
    assert load_predictor(tmp_path / "checkpoint.pt", device="cpu").config == PredictorConfig()
