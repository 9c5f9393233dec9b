"""Gradients against finite differences in float64: of the memory read, and of a whole clip."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rotomem.models.interface import MemoryElements, MemoryPlan, Query, Similarity
from rotomem.models.xmem import XMem
from rotomem.train.clip import ClipKnobs, clip_losses
from rotomem.train.compose import Clips
from rotomem.train.memory import ClipMemory
from train.tiny import TINY


@pytest.mark.parametrize(
    ("form", "per_object"), [("anisotropic_l2", False), ("l2", False), ("dot", False), ("dot", True)]
)
def test_read_when_differentiated_then_finite_differences_agree(form: Similarity, per_object: bool) -> None:
    torch.manual_seed(4)
    b, o, c, v, frames, y, x = 2, 2, 3, 2, 2, 2, 3
    plan = MemoryPlan(key_dim=c, value_dim=v, similarity=form, top_k=30, keys_per_object=per_object)
    key = torch.randn(frames, b, *((o,) if per_object else ()), c, y, x, dtype=torch.float64)
    value = torch.randn(frames, b, o, v, y, x, dtype=torch.float64)
    query = torch.randn(b, c, y, x, dtype=torch.float64)
    shrinkage = 1 + torch.rand(frames, b, 1, y, x, dtype=torch.float64)
    selection = torch.rand(b, c, y, x, dtype=torch.float64)
    sharp = form == "anisotropic_l2"

    def read(query: Tensor, key: Tensor, value: Tensor, shrinkage: Tensor, selection: Tensor) -> Tensor:
        memory = ClipMemory(plan)
        for k, one, s in zip(key, value, shrinkage, strict=True):
            memory.add([MemoryElements(k, one, s if sharp else None)])
        return memory.read(Query(query, selection if sharp else None))

    inputs = [tensor.requires_grad_() for tensor in (query, key, value, *((shrinkage, selection) if sharp else ()))]
    rest = () if sharp else (shrinkage, selection)
    assert torch.autograd.gradcheck(lambda *given: read(*given, *rest), inputs, eps=1e-6, atol=1e-8, rtol=1e-6)


def test_clip_losses_when_differentiated_then_finite_differences_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loss, four frames, two objects: along random directions through all weights at once."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)  # the model brings its logits and keys to float32
    torch.manual_seed(5)
    model = XMem(replace(TINY, key_stem=8, key_planes=(8, 8, 8), value_stem=8, value_planes=(8, 8, 8))).double()
    for module in model.modules():  # norms as when used, with statistics of their own
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
            module.running_var.uniform_(0.5, 1.5)
    images = torch.rand(2, 4, 3, 32, 32, dtype=torch.float64)
    coverage = torch.rand(2, 4, 2, 32, 32, dtype=torch.float64) / 2
    clips = Clips(images, coverage, torch.tensor([[True, True], [True, False]]))
    knobs = ClipKnobs(memorise=0.7, deep_update=0.7, boundary=0.3)
    weights = list(model.parameters())

    def loss() -> Tensor:
        rng = torch.Generator().manual_seed(6)
        return clip_losses(model, clips, rng, knobs, share=0.5)["loss"]

    loss().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float64 for p in weights)
    for _ in range(3):
        steps = [torch.randn_like(p) * 1e-7 for p in weights]
        expected = sum(float((p.grad * d).sum()) for p, d in zip(weights, steps, strict=True))
        with torch.no_grad():
            ends = []
            for sign in (1, -2):
                for p, d in zip(weights, steps, strict=True):
                    p.add_(d, alpha=sign)
                ends.append(float(loss()))
            for p, d in zip(weights, steps, strict=True):
                p.add_(d)
        assert (ends[0] - ends[1]) / 2 == pytest.approx(expected, rel=1e-4)
