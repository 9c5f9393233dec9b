from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from rotomem.errors import UsageError
from rotomem.train.schedule import (
    Budget,
    Stage,
    cosine_rate,
    decayed_apart,
    freeze_norms,
    gathering_statistics,
    stage_at,
)


def test_budget_when_counted_in_minutes_or_steps_then_progress_follows() -> None:
    assert Budget(minutes=2).progress(999, 30) == pytest.approx(0.25)
    assert Budget(steps=50).progress(25, 1e9) == pytest.approx(0.5)
    assert Budget(steps=50).progress(60, 0) == 1
    with pytest.raises(UsageError):
        Budget()
    with pytest.raises(UsageError):
        Budget(1, 1)


def test_cosine_rate_when_run_goes_on_then_it_rises_and_falls_to_the_floor() -> None:
    rates = [cosine_rate(p / 100, peak=1e-3, warm_up=0.1, floor=0.02) for p in range(101)]
    assert rates[0] < 2e-6 and max(rates) == pytest.approx(rates[10]) == pytest.approx(1e-3)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(2e-5)


def test_stage_when_progress_passes_its_end_then_the_next_begins() -> None:
    stages = (Stage(0.5, 192, 8, 4), Stage(1.0, 256, 4, 5))
    assert [stage_at(stages, p).size for p in (0, 0.49, 0.5, 1.0)] == [192, 192, 256, 256]


def test_freeze_norms_when_frozen_then_nothing_is_gathered() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2), torch.nn.Dropout()).train()
    freeze_norms(model)
    assert [m.training for m in model] == [True, False, True] and gathering_statistics(model) == []
    freeze_norms(model, False)
    assert model[1].training
    assert [s.data_ptr() for s in gathering_statistics(model)] == [
        model[1].running_mean.data_ptr(),
        model[1].running_var.data_ptr(),
    ]


def test_decayed_apart_when_parameters_are_grouped_then_only_weights_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    model[0].bias.requires_grad_(False)
    weights, rest = decayed_apart(model, 0.05)
    assert weights["params"] == [model[0].weight] and weights["weight_decay"] == 0.05
    assert len(rest["params"]) == 2 and rest["weight_decay"] == 0
