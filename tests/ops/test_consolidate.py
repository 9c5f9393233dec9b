"""Prototypes and forgetting: every backend against the references, and the answers known on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.cases import Case, reference
from rotomem import ops
from rotomem.errors import EmptyMemoryError, ShapeError
from rotomem.ops import backend

CONSOLIDATE = reference("consolidate")
FORGET = reference("forget")
every_backend = pytest.mark.parametrize("name", backend.available())


def candidates(elements: int = 150, objects: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    inputs = Case("candidates", elements, elements, 32, 20, objects).make(seed)
    generator = torch.Generator().manual_seed(seed)
    return {
        "candidate_key": torch.from_numpy(inputs.key)[None],
        "candidate_shrinkage": torch.from_numpy(inputs.shrinkage)[None],
        "candidate_value": torch.from_numpy(inputs.value)[None],
        "candidate_selection": torch.from_numpy(inputs.selection)[None],
        "usage": torch.rand(1, elements, generator=generator),
    }


def expected(given: dict[str, torch.Tensor], count: int, valid: np.ndarray | None = None):
    arrays = {k: v[0].numpy() for k, v in given.items()}
    index = CONSOLIDATE.most_used(arrays.pop("usage"), count, valid)
    return index, CONSOLIDATE.consolidate(*_ordered(arrays), index, valid)


def _ordered(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [arrays[f"candidate_{part}"] for part in ("key", "shrinkage", "value", "selection")]


@every_backend
@pytest.mark.parametrize(("elements", "count"), [(150, 16), (150, 1), (1, 1), (33, 128), (7, 7)])
def test_consolidate_agrees_with_reference(name, elements, count):
    given = candidates(elements)
    with backend.use(name):
        made = ops.consolidate(**given, count=count)
    index, (key, shrinkage, value) = expected(given, count)
    assert made.index[0].tolist() == index.tolist()
    assert np.array_equal(made.key[0], key.astype(np.float32))
    assert np.allclose(made.shrinkage[0], shrinkage, rtol=1e-5)
    assert np.allclose(made.value[0], value, atol=1e-5)


@every_backend
def test_consolidate_when_candidates_are_invalid_then_neither_picks_nor_mixes_them(name):
    given = candidates()
    valid = np.arange(150) % 3 == 0
    given["candidate_value"][..., ~valid] = 1e6
    with backend.use(name):
        made = ops.consolidate(**given, count=100, valid=torch.from_numpy(valid)[None])
    index, (_, shrinkage, value) = expected(given, 100, valid)
    assert made.index.shape == (1, 50)
    assert made.index[0].tolist() == index.tolist()
    assert np.allclose(made.shrinkage[0], shrinkage, rtol=1e-5)
    assert np.allclose(made.value[0], value, atol=1e-5)


@every_backend
def test_consolidate_when_index_is_given_then_only_mixing_is_masked(name):
    given = candidates()
    valid = np.arange(150) >= 100
    picked = torch.tensor([[3, 120, 50]])
    with backend.use(name):
        made = ops.consolidate(**given, count=0, valid=torch.from_numpy(valid)[None], index=picked)
    arrays = {k: v[0].numpy() for k, v in given.items()}
    _, shrinkage, value = CONSOLIDATE.consolidate(*_ordered(arrays), [3, 120, 50], valid)
    assert torch.equal(made.index, picked)
    assert np.allclose(made.shrinkage[0], shrinkage, rtol=1e-5)
    assert np.allclose(made.value[0], value, atol=1e-5)


@every_backend
def test_consolidate_when_usage_ties_then_lower_index_first_and_nan_last(name):
    given = candidates(6)
    given["usage"] = torch.tensor([[1.0, float("nan"), 2.0, 1.0, 2.0, 0.0]])
    with backend.use(name):
        assert ops.consolidate(**given, count=6).index[0].tolist() == [2, 4, 0, 3, 5, 1]


@every_backend
def test_consolidate_when_all_candidates_are_alike_then_prototype_is_their_mean(name):
    given = candidates(10)
    given["candidate_key"][...] = 0.5
    given["candidate_shrinkage"] = torch.arange(1.0, 11.0)[None]
    with backend.use(name):
        made = ops.consolidate(**given, count=2)
    mean = given["candidate_value"].mean(3, keepdim=True).expand(-1, -1, -1, 2)
    assert torch.allclose(made.value, mean, atol=1e-6)
    assert torch.allclose(made.shrinkage, torch.tensor(5.5))


@every_backend
def test_consolidate_takes_the_banks_layout(name):
    given = candidates()
    with backend.use(name):
        plain = ops.consolidate(**given, count=9)
        given["candidate_key"] = given["candidate_key"].transpose(1, 2).contiguous().transpose(1, 2)
        given["candidate_value"] = given["candidate_value"].transpose(2, 3).contiguous().transpose(2, 3)
        rows = ops.consolidate(**given, count=9)
    assert torch.allclose(plain.value, rows.value, atol=1e-6)
    assert torch.equal(plain.key, rows.key)


@every_backend
@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"count": 0}, ShapeError, "count is 0"),
        ({"usage": torch.rand(1, 5)}, ShapeError, "usage is 1x5"),
        ({"candidate_selection": torch.rand(1, 32, 5)}, ShapeError, "selection"),
        ({"valid": torch.zeros(1, 150, dtype=torch.bool)}, EmptyMemoryError, "masked out"),
        ({"index": torch.tensor([[150]])}, ShapeError, "index goes from 150"),
        ({"index": torch.tensor([[-1]])}, ShapeError, "index goes from -1"),
    ],
)
def test_consolidate_refuses_what_does_not_fit(name, change, error, says):
    with backend.use(name), pytest.raises(error, match=says):
        ops.consolidate(**{**candidates(), "count": 4, **change})


@every_backend
@pytest.mark.parametrize(
    ("usage", "keep", "stays"),
    [
        ([5.0, 1.0, 4.0, 2.0], 2, [0, 2]),
        ([5.0, 1.0, 4.0, 2.0], 4, [0, 1, 2, 3]),
        ([5.0, 1.0, 4.0, 2.0], 9, [0, 1, 2, 3]),
        ([5.0, 1.0, 4.0, 2.0], 0, []),
        ([3.0, 2.0, 2.0, 2.0, 1.0], 3, [0]),  # all three at the threshold go together
        ([0.0, 0.0, 0.0, 0.0], 2, [0, 1]),  # nothing would stay
        ([1.0, 7.0, 7.0, 7.0], 2, [1, 2]),
        ([float("nan"), 1.0, 2.0], 2, [1, 2]),
        ([], 0, []),
    ],
)
def test_keep_most_used_keeps_what_the_rule_says(name, usage, keep, stays):
    assert FORGET.keep_most_used(usage, keep).tolist() == stays
    with backend.use(name):
        kept = ops.keep_most_used(torch.tensor(usage, dtype=torch.float32), keep)
    assert kept.dtype == torch.int64
    assert kept.tolist() == stays


@every_backend
@settings(max_examples=40, deadline=None)
@given(usage=st.lists(st.integers(0, 4), min_size=1, max_size=30), keep=st.integers(0, 32))
def test_keep_most_used_agrees_with_reference(name, usage, keep):
    with backend.use(name):
        kept = ops.keep_most_used(torch.tensor(usage, dtype=torch.float32), keep).tolist()
    assert kept == FORGET.keep_most_used(usage, keep).tolist()
    assert len(kept) <= max(keep, 0) or len(kept) == len(usage) <= keep
    assert bool(kept) == (keep > 0)


@every_backend
def test_keep_most_used_refuses_negative_numbers(name):
    with backend.use(name), pytest.raises(ShapeError, match="keep is -1"):
        ops.keep_most_used(torch.ones(3), -1)
