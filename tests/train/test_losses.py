from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rotomem.train.losses import (
    bootstrap_share,
    bootstrapped_cross_entropy,
    boundary_loss,
    dice_loss,
    soft_jaccard,
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


def square(at: int, soft: float = 0.0) -> torch.Tensor:
    """[1, 1, 32, 32]: a square of 12 pixels whose left edge is at column `at`, its outermost pixels `1 - soft`."""
    picture = torch.zeros(1, 1, 32, 32)
    picture[..., 10:22, at : at + 12] = 1 - soft
    picture[..., 11:21, at + 1 : at + 11] = 1
    return picture


def test_boundary_loss_when_an_edge_nears_its_place_then_it_falls_to_zero() -> None:
    losses = [float(boundary_loss(square(10 + off), square(10))) for off in (12, 4, 2, 1, 0)]
    assert losses[-1] == 0 and losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 5 and losses[0] <= 1


def test_boundary_loss_when_the_truth_is_soft_then_a_hard_edge_costs() -> None:
    soft = square(10, soft=0.5)
    assert float(boundary_loss(soft, soft)) == 0
    assert float(boundary_loss(square(10), soft)) > 0.05
    # What neither has an edge in costs nothing, whatever it covers.
    assert float(boundary_loss(torch.ones(1, 1, 32, 32), torch.zeros(1, 1, 32, 32))) == 0


def test_boundary_loss_when_values_are_known_then_they_return() -> None:
    """One row of steps: |dp - dg| sums to 1 + 1 over |dp| + |dg| = 2 + 2 at full size, on paper."""
    p = torch.tensor([0.0, 1, 1, 0]).view(1, 1, 1, 4)
    g = torch.tensor([0.0, 0, 1, 0]).view(1, 1, 1, 4)
    assert float(boundary_loss(p, g, scales=1)) == pytest.approx(2 / 4)


def test_boundary_loss_when_descended_then_the_prediction_becomes_the_truth() -> None:
    truth = square(10, soft=0.3)
    logit = (square(12) * 2 - 1).requires_grad_()
    optimiser = torch.optim.Adam([logit], 0.1)
    for _ in range(150):
        optimiser.zero_grad()
        probability = torch.sigmoid(logit)
        (boundary_loss(probability, truth) + dice_loss(probability, truth)).backward()
        optimiser.step()
    assert float((torch.sigmoid(logit.detach()) - truth).abs().mean()) < 0.02


@pytest.mark.parametrize("loss", [dice_loss, boundary_loss])
def test_losses_when_objects_are_dealt_to_processes_then_their_mean_is_that_of_all(loss) -> None:
    torch.manual_seed(3)
    p, g = torch.rand(4, 2, 16, 16), torch.rand(4, 2, 16, 16)
    there = torch.tensor([[1, 1], [1, 1], [1, 0], [0, 0]])
    count = there.sum() / 2  # as mean_count finds it for two processes
    halves = [loss(p[i : i + 2], g[i : i + 2], there[i : i + 2], count) for i in (0, 2)]
    assert float(sum(halves) / 2) == pytest.approx(float(loss(p, g, there)), rel=1e-5)


def test_soft_jaccard_when_computed_by_hand_then_it_is_that() -> None:
    truth = with_background(torch.tensor([[[[1.0, 1, 0, 0]], [[0, 0, 0, 0]]]]))  # one object there, one not
    said = torch.tensor([[[[0.5, 0, 1, 0.5]], [[0.5, 1, 0, 0]], [[0, 0, 0, 0.5]]]])
    background, thing = 1.5 / 2.5, 1.5 / 2
    assert float(soft_jaccard(said, truth)) == pytest.approx(1 - (background + thing) / 2, abs=1e-5)
    void = torch.tensor([[[False, False, False, True]]])
    assert float(soft_jaccard(said, truth, void=void)) == pytest.approx(1 - (1 / 1.5 + thing) / 2, abs=1e-5)
    assert float(soft_jaccard(truth, truth)) == pytest.approx(0, abs=1e-6)
