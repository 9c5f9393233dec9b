"""Every backend of this machine against the kernels' references, and what the public functions promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kernels.cases import reference
from rotomem import ops
from rotomem.errors import BackendError, ShapeError
from rotomem.ops import backend

BACKENDS = backend.available()
every_backend = pytest.mark.parametrize("name", BACKENDS)


def window(rows=7, columns=19, heads=2, depth=16, reach=3, batch=2, seed=0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    places = (2 * reach + 1) ** 2
    shapes = {
        **dict.fromkeys(("query", "key", "value"), (batch, heads * depth, rows, columns)),
        "relative_key": (heads, places, depth),
        "relative_bias": (heads, places),
        "relative_value": (heads, depth, places),
    }
    return {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    given = {name: tensor.numpy() for name, tensor in window().items()}
    maps = [given.pop(name) for name in ("query", "key", "value")]
    definition = reference("local_attention").local_attention
    return np.stack([definition(*one, **given) for one in zip(*maps, strict=True)])


@every_backend
def test_local_attention_when_compared_with_reference_then_the_error_is_at_most_twice_that_of_torch(name, truth):
    with backend.use("torch"):
        budget = 2 * np.abs(ops.local_attention(**window()).numpy() - truth).max()
    with backend.use(name):
        got = ops.local_attention(**window())
    assert got.shape == truth.shape and got.dtype == torch.float32
    assert np.abs(got.numpy() - truth).max() <= budget


@pytest.mark.parametrize("dtype, limit", [(torch.float16, 1e-2), (torch.bfloat16, 1e-1), (torch.float64, 1e-12)])
def test_local_attention_when_given_other_types_then_it_answers_in_them(dtype, limit, truth):
    got = ops.local_attention(**{name: tensor.to(dtype) for name, tensor in window().items()})
    assert got.dtype == dtype
    if dtype == torch.float64:
        assert np.abs(got.numpy() - truth).max() < limit
    else:
        assert np.abs(got.float().numpy() - truth).max() < limit * np.abs(truth).max()


def test_local_attention_when_gradients_are_needed_then_they_agree_with_finite_differences():
    given = [t.double().requires_grad_() for t in window(2, 3, 1, 2, 1, 1).values()]
    names = list(window())
    assert torch.autograd.gradcheck(lambda *t: ops.local_attention(**dict(zip(names, t, strict=True))), given)


@pytest.mark.skipif(BACKENDS == ("torch",), reason="the native kernels are not built")
def test_local_attention_when_native_is_forced_and_a_gradient_needed_then_it_says_so():
    given = window()
    given["relative_bias"].requires_grad_()
    with backend.use("native"), pytest.raises(BackendError, match="gradient"):
        ops.local_attention(**given)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"key": torch.zeros(2, 32, 7, 18)}, "key is 2x32x7x18"),
        ({"value": torch.zeros(2, 32, 7, 19, dtype=torch.int64)}, "value is torch.int64"),
        ({"relative_key": torch.zeros(2, 48, 16), "relative_bias": torch.zeros(2, 48)}, "relative_value is 2x16x49"),
        ({"relative_bias": torch.zeros(3, 49)}, "relative_bias is 3x49"),
        (
            {
                "relative_key": torch.zeros(2, 4, 16),
                "relative_bias": torch.zeros(2, 4),
                "relative_value": torch.zeros(2, 16, 4),
            },
            "4 places",
        ),
        (
            {
                "relative_key": torch.zeros(3, 49, 16),
                "relative_bias": torch.zeros(3, 49),
                "relative_value": torch.zeros(3, 16, 49),
            },
            "query has 32 channels, relative_key 3 heads of 16",
        ),
    ],
)
def test_local_attention_refuses_what_does_not_fit(change, says):
    with pytest.raises(ShapeError, match=says):
        ops.local_attention(**{**window(), **change})
