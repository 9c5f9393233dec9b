from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rotomem.train.losses import (
    bootstrap_share,
    bootstrapped_cross_entropy,
    dice_loss,
    soft_overlap,
    with_background,
)


def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    return F.one_hot(labels, classes).movedim(-1, 1).float()


def test_bootstrapped_cross_entropy_when_targets_are_labels_then_recorded_values_return(shared: Path) -> None:
    recorded = np.load(shared / "models/golden/losses.npz")
    logits, labels = torch.from_numpy(recorded["logits"]), torch.from_numpy(recorded["target"])
    for step, loss, share in zip(
        recorded["its"], recorded["bootstrapped_ce"], recorded["bootstrapped_p"], strict=True
    ):
        mine = bootstrap_share(int(step))
        assert mine == pytest.approx(float(share), abs=1e-9)
        assert float(bootstrapped_cross_entropy(logits, one_hot(labels, 3), mine)) == pytest.approx(loss, rel=2e-6)


def test_dice_when_targets_are_labels_then_recorded_value_returns(shared: Path) -> None:
    recorded = np.load(shared / "models/golden/losses.npz")
    probability = torch.from_numpy(recorded["dice_prob"])
    target = one_hot(torch.from_numpy(recorded["dice_target"]), 4)[:, 1:]
    assert float(dice_loss(probability, target)) == pytest.approx(float(recorded["xmem_dice"]), rel=2e-6)


def test_losses_when_prediction_is_the_coverage_then_they_are_zero() -> None:
    torch.manual_seed(1)
    coverage = torch.rand(2, 2, 8, 8) * 0.5
    target = with_background(coverage)
    assert float(bootstrapped_cross_entropy(target.log(), target, 0.3)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(coverage, coverage)) == pytest.approx(0, abs=1e-6)
    assert torch.equal(soft_overlap(coverage, coverage), torch.ones(2, 2))


def test_cross_entropy_when_softer_than_the_coverage_then_it_grows() -> None:
    target = with_background(torch.full((1, 1, 4, 4), 0.7))
    worse = [
        bootstrapped_cross_entropy(with_background(torch.full((1, 1, 4, 4), p)).log(), target)
        for p in (0.7, 0.6, 0.5)
    ]
    assert worse[0] < worse[1] < worse[2]


def test_dice_when_an_object_is_absent_then_it_does_not_count() -> None:
    probability, target = torch.rand(1, 2, 8, 8), torch.rand(1, 2, 8, 8)
    both = dice_loss(probability, target, torch.tensor([[True, False]]))
    assert float(both) == pytest.approx(float(dice_loss(probability[:, :1], target[:, :1])))
    assert float(dice_loss(probability, target, torch.zeros(1, 2))) == 0


def test_bootstrapped_cross_entropy_when_pixels_are_void_then_they_cost_nothing_and_pull_nothing() -> None:
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    target = with_background(torch.zeros(2, 2, 4, 5))
    void = torch.zeros(2, 4, 5, dtype=torch.bool)
    void[:, :2] = True
    loss = bootstrapped_cross_entropy(logits, target, void=void)
    torch.testing.assert_close(loss, bootstrapped_cross_entropy(logits[:, :, 2:], target[:, :, 2:]) / 2)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[:, :, :2].abs().max() == 0 < gradient[:, :, 2:].abs().min()
