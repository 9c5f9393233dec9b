"""Soft aggregation: by the formula of STM's supplement, with gradients, the same in training and at test."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.toy import tiny_stm
from rotomem.models.interface import MemoryElements, Query
from rotomem.models.layers.aggregate import aggregate_logits


def test_aggregate_when_computed_by_hand_then_it_is_equation_one() -> None:
    p = [0.3, 0.6]
    odds = [0.7 * 0.4 / (1 - 0.7 * 0.4), *(x / (1 - x) for x in p)]
    merged = aggregate_logits(torch.tensor(p).view(1, 2, 1, 1)).softmax(1).flatten()
    assert merged.tolist() == pytest.approx([x / sum(odds) for x in odds], abs=1e-6)


def test_aggregate_when_masks_are_certain_then_logits_and_gradients_are_finite_in_half_too() -> None:
    for dtype in (torch.float32, torch.float16):
        masks = torch.tensor([[0.0, 1.0, 0.5], [1.0, 1.0, 0.0]], dtype=dtype).view(1, 2, 1, 3).requires_grad_()
        logits = aggregate_logits(masks)
        logits.square().sum().backward()
        assert logits.dtype == torch.float32 and torch.isfinite(logits).all()
        assert masks.grad is not None and torch.isfinite(masks.grad).all()


def test_aggregate_when_differentiated_then_slopes_are_those_of_finite_differences() -> None:
    masks = (torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1).requires_grad_()
    weight = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((aggregate_logits(masks).log_softmax(1) * weight).sum(), masks)
    for at in ((0, 0, 0, 0), (0, 1, 1, 0), (0, 2, 1, 1)):
        step = torch.zeros_like(masks)
        step[at] = 1e-2
        with torch.no_grad():
            ahead, behind = (
                float((aggregate_logits(m).log_softmax(1) * weight).sum()) for m in (masks + step, masks - step)
            )
        assert float(gradient[at]) == pytest.approx((ahead - behind) / 2e-2, rel=2e-2, abs=2e-2)


class Frame:
    """A memory of one frame."""

    def __init__(self, elements: MemoryElements) -> None:
        self.elements = elements

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        key, value = self.elements.key[0].flatten(2), self.elements.value[0].flatten(2)
        weights = (key.transpose(1, 2) @ query.key[0].flatten(1) / key.shape[1] ** 0.5).softmax(1)
        return (value @ weights)[None].unflatten(3, query.key.shape[-2:])

    def latest(self, *, layer: int = 0) -> MemoryElements:
        return self.elements


def test_stm_when_trained_or_tested_then_objects_are_merged_alike_and_one_objects_loss_moves_the_others() -> None:
    model = tiny_stm()
    image, masks = torch.rand(1, 3, 32, 32), torch.rand(1, 2, 32, 32)
    features = model.encode_frame(image)
    memory = Frame(model.encode_mask(image, features, masks, None).elements[0])
    tested, trained = model.decode(features, memory, None), model.train().decode(features, memory, None)
    assert torch.equal(tested.probabilities, trained.probabilities)
    assert torch.allclose(trained.logits.softmax(1), trained.probabilities)
    readout = memory.read(Query(features.key)).detach().requires_grad_()
    memory.read = lambda query, layer=0: readout  # type: ignore[method-assign, misc, assignment]
    loss = model.decode(features, memory, None).logits.log_softmax(1)[:, 1].mean()
    (gradient,) = torch.autograd.grad(loss, readout)
    assert gradient[:, 1].abs().max() > 0
