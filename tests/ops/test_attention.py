"""Every backend of this machine against the kernels' references, and what the public functions promise."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from kernels.cases import reference
from rotomem import ops
from rotomem.errors import BackendError, EmptyMemoryError, ShapeError
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


def asked(positions=70, elements=90, key_channels=16, value_channels=16, seed=0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = ((positions, key_channels), (elements, key_channels), (elements, value_channels))
    return [torch.randn(2, 3, *shape, generator=g) for shape in shapes]


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(3) @ value


@every_backend
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"elements": 1},
        {"positions": 1},
        {"key_channels": 12, "value_channels": 40},
        {"elements": 4000},
        {"positions": 0},
        {"value_channels": 0},
    ],
    ids=str,
)
def test_attend_when_compared_with_float64_then_the_error_is_at_most_twice_that_of_plain_torch(shape, name):
    given = asked(**shape)
    truth = plain(*(t.double() for t in given))
    with backend.use(name):
        got = ops.attend(*given)
    assert got.shape == truth.shape and got.dtype == torch.float32
    if truth.numel():
        budget = 2 * (plain(*given) - truth).abs().max() + 1e-7 * truth.abs().max()
        assert (got - truth).abs().max() <= budget


@every_backend
def test_attend_when_values_are_shifted_then_the_readout_is_and_stays_in_their_hull(name):
    query, key, value = asked(value_channels=5)
    with backend.use(name):
        got, shifted = ops.attend(query, key, value), ops.attend(query, key, 2 * value + 3)
    assert torch.allclose(shifted, 2 * got + 3, atol=1e-5)
    assert (got <= value.amax(2, keepdim=True) + 1e-6).all() and (got >= value.amin(2, keepdim=True) - 1e-6).all()


@every_backend
def test_attend_when_channels_are_not_contiguous_then_the_answer_is_the_same(name):
    given = asked()
    turned = [t.transpose(2, 3).contiguous().transpose(2, 3) for t in given]
    with backend.use(name):
        assert torch.allclose(ops.attend(*turned), ops.attend(*given), atol=1e-6)


def test_attend_when_there_are_no_vector_instructions_then_torch_takes_keys_and_values_of_one_width(monkeypatch):
    given = asked()
    monkeypatch.setattr(backend, "kernels", SimpleNamespace(instruction_sets=lambda: ["portable"]))
    assert torch.allclose(ops.attend(*given), plain(*given), atol=1e-6)
    with backend.use("native-portable"), pytest.raises(AttributeError):  # it was asked for, so it has to be there
        ops.attend(*given)


def test_attend_when_torch_reads_wide_values_then_blocks_of_queries_change_nothing(monkeypatch):
    given = asked(key_channels=8, value_channels=24)
    want = plain(*given)
    monkeypatch.setattr("rotomem.ops._torch._BLOCK", 6 * 90 * 7)  # 7 queries at once
    with backend.use("torch"):
        assert torch.allclose(ops.attend(*given), want, atol=1e-6)


def test_attend_when_gradients_are_needed_then_they_agree_with_finite_differences():
    given = [t[:1, :1].double().requires_grad_() for t in asked(3, 4, 2, 3)]
    assert torch.autograd.gradcheck(ops.attend, given)


@pytest.mark.parametrize("dtype, limit", [(torch.float16, 5e-3), (torch.bfloat16, 3e-2), (torch.float64, 1e-12)])
def test_attend_when_given_other_types_then_it_answers_in_them(dtype, limit):
    given = [t.to(dtype) for t in asked()]
    got = ops.attend(*given)
    assert got.dtype == dtype
    assert (got.double() - plain(*(t.double() for t in given))).abs().max() < limit


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((0, (2, 3, 70)), "query is 2x3x70"),
        ((1, (2, 3, 90, 15)), "key is 2x3x90x15"),
        ((2, (2, 3, 91, 16)), "value is 2x3x91x16"),
        ((1, (2, 3, 0, 16)), "value is 2x3x90x16"),
    ],
)
def test_attend_refuses_what_does_not_fit(change, says):
    given = asked()
    given[change[0]] = torch.zeros(change[1])
    with pytest.raises(ShapeError, match=says):
        ops.attend(*given)


def test_attend_when_there_is_nothing_to_attend_to_then_it_says_so():
    query, key, value = asked(elements=0)
    with pytest.raises(EmptyMemoryError, match="no elements"):
        ops.attend(query, key, value)
    with pytest.raises(ShapeError, match="no channels"):
        ops.attend(query[..., :0], torch.zeros(2, 3, 5, 0), torch.zeros(2, 3, 5, 1))
