"""Every backend of this machine against the formula, and what the public function promises."""

from __future__ import annotations

import pytest
import torch

from kernels.cuda_on_cpu import load
from rotomem import ops
from rotomem.errors import BackendError, ShapeError
from rotomem.ops import _cuda, backend

every_backend = pytest.mark.parametrize("name", backend.available())


def logits(*shape: int) -> torch.Tensor:
    return 5 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def by_formula(x: torch.Tensor) -> torch.Tensor:
    p = x.double().sigmoid()
    q = torch.cat([(1 - p).prod(1, keepdim=True), p], 1).clamp(1e-7, 1 - 1e-7)
    return torch.log(q / (1 - q))


@every_backend
@pytest.mark.parametrize("shape", [(1, 1, 5, 7), (2, 3, 40, 60), (1, 0, 2, 2), (1, 2, 0, 4)], ids=str)
def test_aggregate_when_compared_with_the_formula_then_they_agree(shape, name):
    given = logits(*shape)
    with backend.use(name):
        got = ops.aggregate(given)
        turned = ops.aggregate(given.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1))
    assert got.shape == (shape[0], shape[1] + 1, *shape[2:]) and got.dtype == torch.float32
    assert torch.allclose(got.double(), by_formula(given), atol=3e-5)
    assert torch.equal(got, turned)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_aggregate_when_given_other_types_then_it_answers_at_least_in_float32(dtype):
    given = logits(1, 3, 8, 8).to(dtype)
    got = ops.aggregate(given)
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.allclose(got.double(), by_formula(given), atol=3e-5)


def test_aggregate_when_gradients_are_needed_then_they_agree_with_finite_differences():
    assert torch.autograd.gradcheck(ops.aggregate, logits(1, 2, 2, 2).double().requires_grad_())


def test_aggregate_when_on_a_device_then_equals_torch(monkeypatch):
    given = logits(2, 3, 5, 60)
    with backend.use("torch"):
        want = ops.aggregate(given)
    monkeypatch.setattr(backend, "kernels", load())
    monkeypatch.setattr(backend, "choose", lambda *tensors, cuda=False: "cuda" if cuda else None)
    monkeypatch.setattr(_cuda, "queue", lambda device: {"device": 0, "stream": 0})
    assert torch.allclose(ops.aggregate(given), want, atol=1e-5)


def test_aggregate_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match="logits is 2x3x4"):
        ops.aggregate(logits(2, 3, 4))
    with pytest.raises(ShapeError, match=r"logits is torch\.int64"):
        ops.aggregate(torch.zeros(1, 1, 2, 2, dtype=torch.int64))


@pytest.mark.skipif(backend.available() == ("torch",), reason="the native kernels are not built")
def test_aggregate_when_native_is_forced_and_a_gradient_needed_then_it_says_so():
    with backend.use("native"), pytest.raises(BackendError, match="gradient"):
        ops.aggregate(logits(1, 1, 2, 2).requires_grad_())
