"""Every backend of this machine against kernels/topk_readout/reference.py, and what reading promises."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.cases import CASES, Case, Inputs, reference
from rotomem import ops
from rotomem.errors import EmptyMemoryError, ShapeError, UsageError
from rotomem.ops import _torch, backend

REFERENCE = reference("topk_readout")
BACKENDS = backend.available()
SEEDS = (0, 1, 2)
FORMS = ("anisotropic_l2", "l2", "dot")
every_backend = pytest.mark.parametrize("name", BACKENDS)


def weights_of(inputs: Inputs, form: str) -> dict[str, np.ndarray]:
    """Shrinkage and selection, where the form takes them."""
    return {"shrinkage": inputs.shrinkage, "selection": inputs.selection} if form == "anisotropic_l2" else {}


def read(inputs: Inputs, top_k, form="anisotropic_l2", **more) -> tuple[np.ndarray, np.ndarray]:
    """read_memory without a batch, in NumPy."""
    tensors = {k: torch.from_numpy(v)[None] for k, v in weights_of(inputs, form).items()}
    result = ops.read_memory(
        torch.from_numpy(inputs.key)[None],
        torch.from_numpy(inputs.query_key)[None],
        torch.from_numpy(inputs.value)[None],
        **tensors,
        top_k=top_k,
        similarity=form,
        need_usage=True,
        **more,
    )
    assert result.usage is not None
    return result.readout[0].numpy(), result.usage[0].numpy()


def plain(inputs: Inputs, top_k, form) -> tuple[np.ndarray, np.ndarray]:
    """The published formula, dense, in float32 torch: the error that is budget for every backend."""
    k, q, v = (torch.from_numpy(a) for a in (inputs.key, inputs.query_key, inputs.value))
    root = k.shape[0] ** 0.5
    if form == "dot":
        scores = k.T @ q / root
    elif form == "l2":
        scores = (2 * k.T @ q - (k * k).sum(0)[:, None]) / root
    else:
        s, e = torch.from_numpy(inputs.shrinkage), torch.from_numpy(inputs.selection)
        expanded = -(k * k).T @ e + 2 * k.T @ (q * e) - (e * q * q).sum(0)
        scores = expanded * s[:, None] / root
    top, index = scores.topk(min(top_k or scores.shape[0], scores.shape[0]), dim=0)
    affinity = torch.zeros_like(scores).scatter(0, index, torch.softmax(top, 0))
    return (v @ affinity).numpy(), affinity.sum(1).numpy()


def random_case(seed: int, elements: int = 40, positions: int = 9, channels: int = 8, objects: int = 2) -> Inputs:
    return Case("property", elements, positions, channels, 6, objects).make(seed)


@cache
def truth_and_budget(case: Case, form: str) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[float]]:
    """The reference's readout and usage for a few seeds, and for each twice the greatest error of plain float32.

    How near-ties fall is luck, so plain float32 adds the channels up in several orders, all equally right.
    """
    truths, errors = [], [0.0, 0.0]
    for seed in SEEDS:
        inputs = case.make(seed)
        truth = REFERENCE.topk_readout(
            inputs.key, inputs.query_key, inputs.value, top_k=case.top_k, form=form, **weights_of(inputs, form)
        )
        truths.append(truth)
        orders = [np.random.default_rng(i).permutation(case.key_channels) for i in range(5)]
        for order in orders if case.name != "copies" else ():  # torch.topk takes any of equal scores: no yardstick
            other = replace(
                inputs,
                key=inputs.key[order],
                query_key=inputs.query_key[order],
                selection=inputs.selection[order],
            )
            for i, found in enumerate(plain(other, case.top_k, form)):
                errors[i] = max(errors[i], float(np.abs(found - truth[i]).max(initial=0)))
    return truths, [2 * error for error in errors]


@every_backend
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_read_memory_agrees_with_reference(case, form, name):
    truths, budgets = truth_and_budget(case, form)
    for seed, truth in zip(SEEDS, truths, strict=True):
        with backend.use(name):
            got = read(case.make(seed), case.top_k, form)
        for ours, true, budget in zip(got, truth, budgets, strict=True):
            assert ours.shape == true.shape
            if true.size:
                assert float(np.abs(ours - true).max()) <= max(budget, 1e-6 * max(1.0, float(np.abs(true).max())))


@every_backend
def test_read_memory_when_scores_tie_then_lower_index_wins(name):
    key = np.zeros((4, 50), np.float32)
    key[:, 20:] = 1.0  # 30 equal best elements, of which 7 may be taken
    inputs = Inputs(
        key,
        np.ones((4, 3), np.float32),
        np.arange(50, dtype=np.float32)[None, None],
        np.ones(50, np.float32),
        np.ones((4, 3), np.float32),
    )
    with backend.use(name):
        readout, usage = read(inputs, 7)
    assert np.flatnonzero(usage).tolist() == list(range(20, 27))
    assert np.allclose(readout, 23.0)


@every_backend
def test_read_memory_when_zeros_differ_in_sign_then_they_tie(name):
    key = np.array([[-1.0, 1.0, -1.0, 1.0]], np.float32)
    inputs = Inputs(key, np.zeros((1, 1), np.float32), np.ones((1, 1, 4), np.float32), np.ones(4), np.ones((1, 1)))
    with backend.use(name):
        _, usage = read(inputs, 2, "dot")  # scores -0, 0, -0, 0
    assert usage.tolist() == [0.5, 0.5, 0, 0]


@every_backend
@pytest.mark.parametrize("top_k", [3, None])
def test_read_memory_when_score_is_not_finite_then_it_is_no_match(name, top_k):
    inputs = random_case(1)
    inputs.key[2, ::3] = np.nan
    inputs.key[1, 1::9] = np.inf
    inputs.key[0, 2] = -1e30
    with backend.use(name):
        readout, usage = read(inputs, top_k)
    truth = REFERENCE.topk_readout(
        inputs.key, inputs.query_key, inputs.value, inputs.shrinkage, inputs.selection, top_k=top_k
    )
    assert np.all(usage[::3] == 0)
    assert np.allclose(readout, truth[0], atol=1e-5)
    assert np.allclose(usage, truth[1], atol=1e-5)


@every_backend
@pytest.mark.parametrize("top_k", [3, None])
def test_read_memory_when_query_is_nan_then_it_reads_zeros(name, top_k):
    inputs = random_case(2)
    inputs.query_key[3, 4] = np.nan
    with backend.use(name):
        readout, usage = read(inputs, top_k)
    assert np.all(readout[..., 4] == 0)
    assert np.isfinite(readout).all()
    assert usage.sum() == pytest.approx(8, abs=1e-4)


@every_backend
@pytest.mark.parametrize("top_k", [5, None, 1000])
def test_read_memory_when_elements_are_invalid_then_reads_the_others_alone(name, top_k):
    inputs = random_case(3)
    valid = np.random.default_rng(0).random(40) < 0.5
    kept = Inputs(
        inputs.key[:, valid], inputs.query_key, inputs.value[..., valid], inputs.shrinkage[valid], inputs.selection
    )
    with backend.use(name):
        masked = read(inputs, top_k, valid=torch.from_numpy(valid)[None])
        alone = read(kept, top_k)
    assert np.allclose(masked[0], alone[0], atol=1e-6)
    assert np.allclose(masked[1][valid], alone[1], atol=1e-6)
    assert np.all(masked[1][~valid] == 0)


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "torch"])  # torch cuts products by threads
@pytest.mark.parametrize("top_k", [30, None])
def test_read_memory_when_threads_differ_then_bytes_do_not(name, top_k):
    inputs = Case("threads", 2000, 300, value_channels=40, objects=2).make()
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            with backend.use(name):
                results.append(read(inputs, top_k))
    finally:
        torch.set_num_threads(before)
    for readout, usage in results[1:]:
        assert usage.tobytes() == results[0][1].tobytes()
        assert readout.tobytes() == results[0][0].tobytes()


@every_backend
def test_read_memory_takes_any_strides(name):
    inputs = Case("strides", 120, 30, 16, 24, 2, 9).make()
    expected = REFERENCE.topk_readout(
        inputs.key, inputs.query_key, inputs.value, inputs.shrinkage, inputs.selection, top_k=9
    )
    bank_key = torch.zeros(200, 16)
    bank_key[:120] = torch.from_numpy(inputs.key.T.copy())
    bank_value = torch.zeros(2, 200, 24)
    bank_value[:, :120] = torch.from_numpy(inputs.value.transpose(0, 2, 1).copy())
    twice = torch.zeros(1, 16, 60)
    twice[..., ::2] = torch.from_numpy(inputs.query_key)
    with backend.use(name):
        result = ops.read_memory(
            bank_key[None, :120].transpose(1, 2),
            twice[..., ::2],
            bank_value[None, :, :120].transpose(2, 3),
            shrinkage=torch.from_numpy(np.repeat(inputs.shrinkage, 2))[None, ::2],
            selection=torch.from_numpy(inputs.selection.T.copy()).T[None],
            top_k=9,
            need_usage=True,
        )
    assert np.allclose(result.readout[0], expected[0], atol=1e-5)
    assert np.allclose(result.usage[0], expected[1], atol=1e-4)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_read_memory_computes_half_types_in_float32(name, dtype):
    inputs = random_case(4)
    halves = [torch.from_numpy(a)[None].to(dtype) for a in (inputs.key, inputs.query_key, inputs.value)]
    weights = {k: torch.from_numpy(v)[None].to(dtype) for k, v in weights_of(inputs, "anisotropic_l2").items()}
    with backend.use(name):
        result = ops.read_memory(*halves, **weights, top_k=6)
    truth, _ = REFERENCE.topk_readout(
        *(h[0].double().numpy() for h in halves), *(w[0].double().numpy() for w in weights.values()), top_k=6
    )
    assert result.readout.dtype == dtype
    assert (
        np.abs(result.readout[0].double().numpy() - truth).max() <= 2 * torch.finfo(dtype).eps * np.abs(truth).max()
    )


@every_backend
def test_read_memory_treats_batches_apart(name):
    one, two = random_case(5), random_case(6)

    def both(field: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(one, field), getattr(two, field)]))

    with backend.use(name):
        result = ops.read_memory(
            both("key"),
            both("query_key"),
            both("value"),
            shrinkage=both("shrinkage"),
            selection=both("selection"),
            top_k=4,
            need_usage=True,
        )
        for b, inputs in enumerate((one, two)):
            readout, usage = read(inputs, 4)
            assert np.allclose(result.readout[b], readout, atol=1e-6)
            assert np.allclose(result.usage[b], usage, atol=1e-6)


@every_backend
def test_read_memory_without_usage_or_positions_is_still_a_readout(name):
    with backend.use(name):
        result = ops.read_memory(torch.rand(1, 4, 5), torch.rand(1, 4, 0), torch.rand(1, 2, 3, 5))
    assert result.usage is None
    assert result.readout.shape == (1, 2, 3, 0)


@every_backend
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), elements=st.integers(1, 70), top_k=st.one_of(st.none(), st.integers(1, 80)))
def test_read_memory_sums_usage_and_stays_in_the_hull(name, seed, elements, top_k):
    inputs = random_case(seed, elements)
    with backend.use(name):
        readout, usage = read(inputs, top_k)
    assert usage.sum() == pytest.approx(9, abs=1e-4)
    assert np.all(usage >= 0)
    low, high = inputs.value.min(2, keepdims=True), inputs.value.max(2, keepdims=True)
    assert np.all(readout >= low - 1e-5)
    assert np.all(readout <= high + 1e-5)


@every_backend
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), top_k=st.one_of(st.none(), st.integers(1, 50)))
def test_read_memory_is_linear_in_values_and_ignores_order(name, seed, top_k):
    inputs = random_case(seed)
    order = np.random.default_rng(seed).permutation(40)
    doubled = Inputs(
        inputs.key[:, order],
        inputs.query_key,
        (2 * inputs.value + 1)[..., order],
        inputs.shrinkage[order],
        inputs.selection,
    )
    with backend.use(name):
        readout, usage = read(inputs, top_k)
        other, other_usage = read(doubled, top_k)
    assert np.allclose(2 * readout + 1, other, atol=1e-4)
    assert np.allclose(usage[order], other_usage, atol=1e-4)


def part(inputs: Inputs, elements: slice | np.ndarray) -> Inputs:
    """The memory's elements at some places, and all queries."""
    return replace(
        inputs,
        key=inputs.key[:, elements],
        value=inputs.value[..., elements],
        shrinkage=inputs.shrinkage[elements],
    )


@every_backend
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 39))
def test_read_memory_of_two_memories_joined_is_their_mean_by_likelihood(name, seed, cut):
    inputs = random_case(seed)
    scores = REFERENCE.similarity(inputs.key, inputs.query_key, inputs.shrinkage, inputs.selection)
    likely = np.exp(scores - scores.max(0))
    with backend.use(name):
        readout, usage = read(inputs, None)
        first, second = (read(part(inputs, half), None) for half in (slice(cut), slice(cut, None)))
    share = likely[:cut].sum(0) / likely.sum(0)
    assert np.allclose(readout, share * first[0] + (1 - share) * second[0], atol=1e-4)
    assert usage[:cut].sum() == pytest.approx(share.sum(), abs=1e-4)


@every_backend
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 39), top_k=st.integers(1, 45))
def test_read_memory_of_two_memories_joined_chooses_among_what_each_would(name, seed, cut, top_k):
    inputs = random_case(seed, positions=1)
    with backend.use(name):
        chosen = [read(part(inputs, half), top_k)[1] > 0 for half in (slice(cut), slice(cut, None))]
        joined, fewer = read(inputs, top_k), read(part(inputs, np.concatenate(chosen)), top_k)
    assert np.allclose(joined[0], fewer[0], atol=1e-5)
    assert np.allclose(joined[1][np.concatenate(chosen)], fewer[1], atol=1e-5)


@every_backend
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), elements=st.integers(1, 70))
def test_read_memory_with_as_many_places_as_elements_is_a_full_softmax(name, seed, elements):
    inputs = random_case(seed, elements)
    with backend.use(name):
        full, places = read(inputs, None), read(inputs, elements)
    assert np.allclose(places[0], full[0], atol=1e-5)
    assert np.allclose(places[1], full[1], atol=1e-5)


@every_backend
def test_read_memory_with_ones_is_stcn(name):
    inputs = random_case(7)
    ones = Inputs(
        inputs.key,
        inputs.query_key,
        inputs.value,
        np.ones_like(inputs.shrinkage),
        np.ones_like(inputs.selection),
    )
    with backend.use(name):
        anisotropic, l2 = read(ones, 6), read(inputs, 6, "l2")
    assert np.allclose(anisotropic[0], l2[0], atol=1e-5)
    assert np.allclose(anisotropic[1], l2[1], atol=1e-5)


@every_backend
def test_read_memory_of_identical_keys_averages_and_of_orthogonal_keys_picks(name):
    with backend.use(name):
        same = ops.read_memory(torch.ones(1, 3, 4), torch.rand(1, 3, 2), torch.tensor([[[[1.0, 2, 3, 6]]]]))
        eye = 100 * torch.eye(4)[None]
        picked = ops.read_memory(eye, eye[..., :2], torch.tensor([[[[1.0, 2, 3, 6]]]]), similarity="dot")
    assert torch.allclose(same.readout, torch.tensor(3.0))
    assert torch.equal(picked.readout[0, 0, 0], torch.tensor([1.0, 2.0]))


@every_backend
@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"query_key": torch.rand(1, 5, 3)}, ShapeError, "query_key is 1x5x3"),
        ({"key": torch.rand(4, 6)}, ShapeError, "key is 4x6"),
        ({"value": torch.rand(1, 2, 3, 7)}, ShapeError, "value is 1x2x3x7"),
        ({"value": torch.ones(1, 2, 3, 6, dtype=torch.int64)}, ShapeError, "value is torch.int64"),
        ({"shrinkage": torch.rand(1, 5)}, ShapeError, "shrinkage is 1x5"),
        ({"selection": torch.rand(1, 4, 2)}, ShapeError, "selection is 1x4x2"),
        ({"valid": torch.ones(1, 6)}, ShapeError, "valid is torch.float32"),
        ({"valid": torch.ones(6, dtype=torch.bool)}, ShapeError, "valid is 6"),
        ({"valid": torch.zeros(1, 6, dtype=torch.bool)}, EmptyMemoryError, "every memory element"),
        ({"key": torch.rand(1, 4, 0), "value": torch.rand(1, 2, 3, 0)}, EmptyMemoryError, "no elements"),
        ({"top_k": 0}, ShapeError, "top_k is 0"),
        ({"similarity": "cosine"}, UsageError, "cosine"),
        ({"similarity": "l2", "shrinkage": torch.rand(1, 6)}, UsageError, "takes neither"),
    ],
)
def test_read_memory_refuses_what_does_not_fit(name, change, error, says):
    arguments = {
        "key": torch.rand(1, 4, 6),
        "query_key": torch.rand(1, 4, 3),
        "value": torch.rand(1, 2, 3, 6),
        **change,
    }
    with backend.use(name), pytest.raises(error, match=says) as caught:
        ops.read_memory(**arguments)
    assert caught.value.remedy


def test_torch_read_in_blocks_equals_one_block(monkeypatch):
    inputs = random_case(8)
    with backend.use("torch"):
        whole = read(inputs, 5)
        monkeypatch.setattr(_torch, "_BLOCK", 80)  # two positions at a time
        parts = read(inputs, 5)
    assert np.allclose(whole[0], parts[0], atol=1e-6)
    assert np.allclose(whole[1], parts[1], atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_similarity_agrees_with_reference(form):
    inputs = random_case(9)
    tensors = {k: torch.from_numpy(v)[None] for k, v in weights_of(inputs, form).items()}
    key, query = torch.from_numpy(inputs.key)[None], torch.from_numpy(inputs.query_key)[None]
    got = ops.similarity(key, query, similarity=form, **tensors)[0].numpy()
    truth = REFERENCE.similarity(inputs.key, inputs.query_key, form=form, **weights_of(inputs, form))
    assert np.allclose(got, truth, atol=1e-4)
    affinity = ops.affinity(key, query, similarity=form, top_k=4, **tensors)[0].numpy()
    assert np.allclose(affinity, REFERENCE.weights(truth, 4), atol=1e-4)
    assert np.all((affinity > 0).sum(0) <= 4)


def test_similarity_under_autocast_stays_float32():
    key, query = torch.rand(1, 8, 5), torch.rand(1, 8, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = ops.similarity(key.bfloat16(), query.bfloat16())
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, ops.similarity(key.bfloat16().float(), query.bfloat16().float()), atol=1e-5)


@every_backend
@pytest.mark.parametrize("top_k", [4, None])
def test_read_groups_when_they_saw_different_parts_then_each_reads_as_if_alone(name, top_k):
    inputs = random_case(11, objects=70)
    key, query, value = (torch.from_numpy(a)[None] for a in (inputs.key, inputs.query_key, inputs.value))
    tensors = {k: torch.from_numpy(v)[None] for k, v in weights_of(inputs, "anisotropic_l2").items()}
    values = list(value.split(1, 1))
    seen = [None if g == 3 else (torch.arange(40) >= g // 2)[None] for g in range(70)]
    packed = ops.PackedKeys()
    with backend.use(name):
        results = ops.read_groups(key, query, values, seen, **tensors, top_k=top_k, need_usage=True, packed=packed)
        for g, (result, one, valid) in enumerate(zip(results, values, seen, strict=True)):
            alone = ops.read_memory(key, query, one, **tensors, top_k=top_k, valid=valid, need_usage=True)
            assert torch.allclose(result.readout, alone.readout, atol=1e-6)
            assert (result.usage is None) == (g > 0)
            if result.usage is not None and alone.usage is not None:
                assert torch.allclose(result.usage, alone.usage, atol=1e-6)


@every_backend
def test_read_memory_when_keys_are_packed_then_additions_and_cuts_are_followed(name):
    inputs = random_case(12, elements=200)
    key, query, value = (torch.from_numpy(a.copy())[None] for a in (inputs.key, inputs.query_key, inputs.value))
    tensors = {k: torch.from_numpy(v.copy())[None] for k, v in weights_of(inputs, "anisotropic_l2").items()}
    shrinkage, selection = tensors["shrinkage"], tensors["selection"]
    packed = ops.PackedKeys()

    def same(end: int, form: str = "anisotropic_l2") -> bool:
        more = {"shrinkage": shrinkage[:, :end], "selection": selection} if form == "anisotropic_l2" else {}
        arguments = (key[..., :end], query, value[..., :end])
        with_packed = ops.read_memory(*arguments, **more, top_k=9, similarity=form, packed=packed)
        return torch.equal(with_packed.readout, ops.read_memory(*arguments, **more, top_k=9, similarity=form).readout)

    with backend.use(name):
        assert same(70) and same(70) and same(163)
        assert (packed.nbytes > 0) == (name != "torch")
        key[..., 50:] += 1
        packed.cut(50)
        assert same(120) and same(200)
        assert same(200, "l2")  # another kind of read: packed anew
        assert same(200)
        with pytest.raises(ShapeError, match="batch 2"):
            ops.read_memory(*(t.expand(2, *t.shape[1:]) for t in (key, query, value)), top_k=9, packed=packed)
