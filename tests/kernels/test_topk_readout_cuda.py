"""Reading on a device, emulated: the kernels' logic against the reference, coarse and exhaustive ways alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kernels.cases import CASES, Case, Inputs, reference
from kernels.cuda_on_cpu import aligned, device_array, load
from rotomem.ops import _torch

REFERENCE = reference("topk_readout")
FORMS = ("dot", "l2", "anisotropic_l2")
COARSE = Case("coarse", 700, 40, value_channels=40, objects=2, top_k=8)  # more elements than fit a list


@pytest.fixture(scope="module")
def cuda():
    return load()


@pytest.fixture(autouse=True)
def usual_order(cuda):
    yield
    cuda.set_order(0)
    cuda.set_multiprocessors(4)


def some_queries(inputs: Inputs, count: int = 12) -> Inputs:
    """The same memory with fewer queries: every one costs the emulation milliseconds."""
    return replace(inputs, query_key=inputs.query_key[:, :count], selection=inputs.selection[:, :count])


def read(cuda, inputs: Inputs, top_k=30, form="anisotropic_l2", value=None, **change: Any):
    """Readout, usage, index, weight of one read; `value` a torch tensor [O, N, CV] of another type."""
    elements, positions = inputs.key.shape[1], inputs.query_key.shape[1]
    k = min(top_k, elements)
    rows = torch.from_numpy(np.ascontiguousarray(inputs.value.transpose(0, 2, 1))) if value is None else value
    written = {
        "readout": np.full((rows.shape[0], rows.shape[2], positions), np.nan, np.float32),
        "usage": np.full(elements, np.nan, np.float32),
        "index": np.full((positions, k), -7, np.int32),
        "weight": np.full((positions, k), np.nan, np.float32),
    }
    given = {"key": inputs.key, "query_key": inputs.query_key, **written}
    if form == "anisotropic_l2":
        given |= {"shrinkage": inputs.shrinkage, "selection": inputs.selection}
    arrays = {name: device_array(array) for name, array in (given | change).items() if array is not None}
    told = (rows.data_ptr(), tuple(rows.shape), rows.stride(), str(rows.dtype).removeprefix("torch."))
    call = {"value": told, **arrays, "top_k": top_k, "similarity": form, "device": 0, "stream": 0}
    if "scratch" not in call:
        scratch = aligned(cuda.topk_readout_cuda(**call))
        call["scratch"] = device_array(scratch)
    cuda.topk_readout_cuda(**call)
    return tuple(written.values())


def plain_error(inputs: Inputs, top_k: int, form: str, truth) -> float:
    """What plain float32 makes of the readout, at most: the yardstick."""
    weights = (inputs.shrinkage, inputs.selection) if form == "anisotropic_l2" else (None, None)
    k, q = torch.from_numpy(inputs.key), torch.from_numpy(inputs.query_key)
    batched = [None if w is None else torch.from_numpy(w)[None] for w in weights]
    value = torch.from_numpy(inputs.value)[None]
    plain = _torch.read_memory(k[None], q[None], value, *batched, top_k, form, None, False).readout
    return float(np.abs(plain[0].numpy() - truth).max(initial=0))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", [*(c for c in CASES if c.top_k), COARSE], ids=lambda case: case.name)
def test_read_when_emulated_then_agrees_with_reference(cuda, case, form):
    inputs = some_queries(case.make())
    readout, usage, index, weight = read(cuda, inputs, case.top_k, form)
    weights = (inputs.shrinkage, inputs.selection) if form == "anisotropic_l2" else ()
    truth, used = REFERENCE.topk_readout(
        inputs.key, inputs.query_key, inputs.value, *weights, top_k=case.top_k, form=form
    )
    budget = 1e-6 * max(1.0, float(np.abs(truth).max(initial=0)))
    if case.name != "copies":  # torch takes any of equal scores: no yardstick
        budget = max(budget, 2 * plain_error(inputs, case.top_k, form, truth))
    assert np.abs(readout - truth).max(initial=0) <= budget
    assert np.abs(usage - used).max() <= max(budget, 1e-5)
    there = index >= 0
    assert np.all((weight > 0) <= there)
    assert np.allclose(np.bincount(index[there], weight[there], usage.size), usage, atol=1e-5)


def choices(cuda, inputs: Inputs, top_k: int, **change: Any) -> tuple[np.ndarray, np.ndarray]:
    """What the emulated read chose and what the reference says, both [P, N] of 0 and 1; usage must fit."""
    readout, usage, index, _ = read(cuda, inputs, top_k, **change)
    assert np.isfinite(readout).all() and np.isfinite(usage).all()
    chosen = np.zeros((index.shape[0], usage.size + 1), int)
    np.put_along_axis(chosen, index.astype(np.int64), 1, 1)
    with np.errstate(all="ignore"):
        scores = REFERENCE.similarity(inputs.key, inputs.query_key, inputs.shrinkage, inputs.selection)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    valid = change.get("valid")
    best = np.zeros_like(chosen[:, :-1])
    for p in range(best.shape[0]):
        usable = np.flatnonzero(np.isfinite(scores[:, p]) & (True if valid is None else valid != 0))
        best[p, usable[np.argsort(-scores[usable, p], kind="stable")][:top_k]] = 1
    return chosen[:, :-1], best


@pytest.mark.parametrize(("order", "multiprocessors"), [(1, 1), (2, 40), (3, 40)])
def test_read_when_threads_and_blocks_differ_then_bytes_do_not(cuda, order, multiprocessors):
    inputs = some_queries(Case("many", 1100, 40, value_channels=8).make(), 3)
    first = read(cuda, inputs, 8)
    cuda.set_order(order)
    cuda.set_multiprocessors(multiprocessors)
    for before, after in zip(first, read(cuda, inputs, 8), strict=True):
        assert before.tobytes() == after.tobytes()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1e-7, 1.0, 300.0, 1e5])
def test_read_when_tensor_cores_look_first_then_nothing_is_lost_that_looking_at_all_would_find(cuda, size, form):
    """Of 256 channels too many for tensor cores, 192 are zeros: the same sums, halved, and so the same choices."""
    rng = np.random.default_rng(3)
    key = rng.standard_cauchy((64, 700)).astype(np.float32) * np.float32(size)
    query = key[:, rng.integers(0, 700, 4)] + rng.normal(0, 0.1 * size, (64, 4)).astype(np.float32)
    shrinkage = (1 + rng.random(700)).astype(np.float32)
    inputs = Inputs(key, query, np.zeros((1, 1, 700), np.float32), shrinkage, rng.random((64, 4), np.float32))
    wide = replace(
        inputs,
        **{name: np.pad(getattr(inputs, name), ((0, 192), (0, 0))) for name in ("key", "query_key", "selection")},
    )
    assert np.array_equal(read(cuda, inputs, 8, form)[2], read(cuda, wide, 8, form)[2])


def test_read_when_queries_fill_several_blocks_then_every_one_is_answered(cuda):
    inputs = Case("blocks", 140, 270, key_channels=4, value_channels=3, top_k=2).make()
    chosen, best = choices(cuda, inputs, 2)
    assert np.array_equal(chosen, best)


def test_read_when_scores_tie_then_lower_index_wins(cuda):
    key = np.zeros((4, 300), np.float32)
    key[:, 20:] = 1.0  # 280 equal best elements, of which 4 may be taken
    ones = np.ones((4, 2), np.float32)
    inputs = Inputs(key, ones, np.arange(300, dtype=np.float32)[None, None], np.ones(300, np.float32), ones)
    readout, usage, index, _ = read(cuda, inputs, 4)
    assert np.flatnonzero(usage).tolist() == [20, 21, 22, 23] and index[0].tolist() == [20, 21, 22, 23]
    assert np.allclose(readout, 21.5)


def test_read_when_numbers_are_not_finite_then_they_are_no_match(cuda):
    inputs = some_queries(COARSE.make(), 4)
    inputs.key[2, ::3] = np.nan
    inputs.key[1, 1::9] = np.inf
    inputs.key[0, 2::7] = -1e30
    inputs.query_key[3, 2] = np.nan
    readout, usage, index, weight = read(cuda, inputs, 8)
    assert np.all(readout[..., 2] == 0) and np.all(index[2] == -1) and np.all(weight[2] == 0)
    assert np.all(usage[::3] == 0) and usage.sum() == pytest.approx(3, abs=1e-4)
    truth, _ = REFERENCE.topk_readout(
        inputs.key, inputs.query_key, inputs.value, inputs.shrinkage, inputs.selection, top_k=8
    )
    assert np.allclose(readout, truth, atol=1e-5)


def test_read_when_elements_are_invalid_then_others_are_chosen(cuda):
    inputs = some_queries(COARSE.make(), 4)
    valid = (np.random.default_rng(0).random(700) < 0.5).astype(np.uint8)
    chosen, best = choices(cuda, inputs, 8, valid=valid)
    assert np.array_equal(chosen, best)
    readout, usage, _, _ = read(cuda, inputs, 8, valid=np.zeros(700, np.uint8))
    assert np.all(readout == 0) and np.all(usage == 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_read_when_values_are_halves_then_their_numbers_are_mixed(cuda, dtype):
    inputs = some_queries(COARSE.make(), 3)
    rows = torch.from_numpy(np.ascontiguousarray(inputs.value.transpose(0, 2, 1))).to(dtype)
    plain = replace(inputs, value=rows.float().numpy().transpose(0, 2, 1))
    assert np.array_equal(read(cuda, inputs, 8, value=rows)[0], read(cuda, plain, 8)[0])


def test_read_when_views_are_strided_then_nothing_changes(cuda):
    inputs = some_queries(COARSE.make(), 3)
    bank = np.zeros((900, 70), np.float32)
    bank[:700, :64] = inputs.key.T
    twice = np.zeros((64, 6), np.float32)
    twice[:, ::2] = inputs.query_key
    values = torch.zeros(2, 900, 48)
    values[:, :700, :40] = torch.from_numpy(inputs.value.transpose(0, 2, 1).copy())
    change = {"key": bank[:700, :64].T, "query_key": twice[:, ::2], "value": values[:, :700, :40]}
    for before, after in zip(read(cuda, inputs, 8), read(cuda, inputs, 8, **change), strict=True):
        assert before.tobytes() == after.tobytes()


def test_read_when_usage_and_choices_are_not_asked_for_then_the_readout_is_the_same(cuda):
    inputs = some_queries(COARSE.make(), 3)
    expected = np.full((2, 40, 3), np.nan, np.float32)
    read(cuda, inputs, 8, readout=expected)
    got = np.full((2, 40, 3), np.nan, np.float32)
    read(cuda, inputs, 8, readout=got, usage=None, index=None, weight=None)
    assert np.array_equal(expected, got)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"top_k": 513}, "top_k is not in 1 to 512"),
        ({"top_k": 0}, "top_k is not in 1 to 512"),
        ({"shrinkage": np.zeros(3, np.float32)}, "shrinkage N is 3, expected 700"),
        ({"selection": np.zeros((64, 4), np.float32)}, "selection P is 4, expected 3"),
        ({"readout": np.zeros((1, 40, 3), np.float32)}, "readout O is 1, expected 2"),
        ({"index": None}, "index without weight"),
        ({"weight": np.zeros((3, 9), np.float32)}, "weight k is 9, expected 8"),
        ({"value": torch.zeros(2, 40, 700).transpose(1, 2)}, "value channels are not contiguous"),
        ({"value": torch.zeros(2, 700, 40).double()}, "value has type float64"),
    ],
)
def test_read_when_something_does_not_fit_then_it_is_refused(cuda, change, says):
    with pytest.raises(ValueError, match=says):
        read(cuda, some_queries(COARSE.make(), 3), **{"top_k": 8, **change})


def test_read_when_scratch_is_too_small_then_it_is_refused(cuda):
    inputs = some_queries(COARSE.make(), 3)
    with pytest.raises(ValueError, match="too little scratch"):
        read(cuda, inputs, 8, scratch=np.zeros(0, np.uint8))
