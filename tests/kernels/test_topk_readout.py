"""The native kernel by itself: what the public function never lets through, and arithmetic at its edges."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cases import CASES, Case, reference

kernels = pytest.importorskip("rotomem._kernels", reason="the native kernels are not built")
SETS = kernels.instruction_sets()
every_set = pytest.mark.parametrize("instructions", SETS)


def call(inputs, top_k=30, instructions="auto", threads=1, **change):
    readout = np.full((inputs.value.shape[0], inputs.value.shape[1], inputs.query_key.shape[1]), np.nan, np.float32)
    usage = np.full(inputs.key.shape[1], np.nan, np.float32)
    arguments = {
        "key": inputs.key,
        "query_key": inputs.query_key,
        "value": np.ascontiguousarray(inputs.value.transpose(0, 2, 1)),
        "shrinkage": inputs.shrinkage,
        "selection": inputs.selection,
        "readout": readout,
        "usage": usage,
        "top_k": top_k,
        "instructions": instructions,
        "threads": threads,
        **change,
    }
    kernels.topk_readout(**arguments)
    return readout, usage


@pytest.fixture(scope="module")
def inputs():
    return CASES[0].make()


def test_portable_code_is_always_there():
    assert SETS[0] == "portable"


@every_set
def test_every_output_is_written(inputs, instructions):
    readout, usage = call(inputs, instructions=instructions)
    assert np.isfinite(readout).all()
    assert np.isfinite(usage).all()


@every_set
def test_threads_beyond_the_work_are_harmless(inputs, instructions):
    one, many = call(inputs, instructions=instructions), call(inputs, instructions=instructions, threads=50)
    assert one[0].tobytes() == many[0].tobytes()
    assert one[1].tobytes() == many[1].tobytes()


def chosen(inputs, top_k, **change):
    """Readout, index and weight of a call that asks what was chosen."""
    shape = (inputs.query_key.shape[1], min(top_k, inputs.key.shape[1]))
    index, weight = np.full(shape, -7, np.int32), np.full(shape, np.nan, np.float32)
    readout, _ = call(inputs, top_k, index=index, weight=weight, **change)
    return readout, index, weight


@every_set
@pytest.mark.parametrize("case", [c for c in CASES if c.top_k], ids=lambda case: case.name)
def test_chosen_elements_are_told_best_first(case, instructions):
    inputs = case.make()
    readout, index, weight = chosen(inputs, case.top_k, instructions=instructions)
    assert np.all(np.diff(weight, axis=1) <= 0)
    assert np.allclose(weight.sum(1), 1, atol=1e-5)
    for row in index:
        assert len(set(row)) == len(row) and row.min() >= 0
    assert np.allclose(np.einsum("ocpk,pk->ocp", inputs.value[:, :, index], weight), readout, atol=1e-4)
    scores = reference("topk_readout").similarity(inputs.key, inputs.query_key, inputs.shrinkage, inputs.selection)
    truth = -np.sort(-scores, axis=0)[: index.shape[1]].T
    assert np.allclose(np.take_along_axis(scores.T, index, 1), truth, rtol=1e-4, atol=1e-3)


@every_set
@pytest.mark.parametrize("top_k", [3, 25, 40, 50])
def test_chosen_elements_when_matches_are_few_then_the_rest_is_minus_one(instructions, top_k):
    inputs = Case("few matches", 40, 9, 8).make()
    inputs.key[2, ::3] = np.nan
    inputs.query_key[1, 4] = np.inf
    valid = np.ones(40, np.uint8)
    valid[20:] = 0
    matches = [n for n in range(20) if n % 3]
    readout, index, weight = chosen(inputs, top_k, instructions=instructions, valid=valid)
    held = min(top_k, len(matches))
    assert np.all(index[:, held:] == -1) and np.all(weight[:, held:] == 0)
    assert np.all(index[4] == -1) and np.all(weight[4] == 0) and np.all(readout[..., 4] == 0)
    assert set(np.delete(index, 4, 0)[:, :held].ravel()) <= set(matches)


@every_set
def test_chosen_elements_when_scores_tie_then_lower_ones_come_first(instructions):
    inputs = Case("ties", 300, 5, 8).make()
    inputs.key[...] = 1.0
    _, index, weight = chosen(inputs, 40, instructions=instructions, shrinkage=None)
    assert np.all(index == np.arange(40))
    assert np.all(weight == weight[0, 0])


@every_set
@pytest.mark.parametrize("spread", [1e-3, 1.0, 30.0, 200.0])
def test_full_softmax_keeps_its_precision(instructions, spread):
    """Scores from 0 down to -spread: the vector exponential against NumPy's."""
    n = 1000
    key = -np.linspace(0, spread, n)[None].astype(np.float32)
    value = np.eye(n, dtype=np.float32)[None]
    readout = np.empty((1, n, 1), np.float32)
    kernels.topk_readout(
        key=key,
        query_key=np.ones((1, 1), np.float32),
        value=value,
        readout=readout,
        top_k=0,
        similarity="dot",
        instructions=instructions,
    )
    truth = reference("topk_readout").weights(key.astype(np.float64).T)
    assert np.abs(readout[0, :, 0] - truth[:, 0]).max() <= 1e-6 * truth.max()
    large = truth[:, 0] > 1e-30
    assert np.allclose(readout[0, large, 0], truth[large, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"key": np.zeros((64, 700))}, "key has type float64"),
        ({"key": np.zeros(700, np.float32)}, "key has 1 dimensions, expected 2"),
        ({"query_key": np.zeros((63, 90), np.float32)}, "query_key CK is 63, expected 64"),
        ({"shrinkage": np.zeros(3, np.float32)}, "shrinkage N is 3, expected 700"),
        ({"selection": np.zeros((64, 3), np.float32)}, "selection P is 3, expected 90"),
        ({"valid": np.zeros(700, np.uint8)}, "masked out"),
        ({"valid": np.ones(700, np.float32)}, "valid has type float32"),
        ({"value": np.zeros((1, 700, 64), np.float32)[..., ::2]}, "not contiguous"),
        ({"value": np.zeros((2, 700, 32), np.float32)}, "readout O is 1, expected 2"),
        ({"index": np.zeros((90, 30), np.int32)}, "come together"),
        (
            {"index": np.zeros((90, 29), np.int32), "weight": np.zeros((90, 30), np.float32)},
            "index k is 29, expected 30",
        ),
        (
            {"index": np.zeros((90, 30), np.int32), "weight": np.zeros((90, 30), np.float32), "top_k": 0},
            "need a top_k",
        ),
        ({"similarity": "dot"}, "belong to anisotropic_l2"),
        ({"similarity": "cosine"}, "no similarity called cosine"),
        ({"instructions": "mmx"}, "no instructions called mmx"),
    ],
)
def test_kernel_refuses_what_does_not_fit(inputs, change, says):
    with pytest.raises(ValueError, match=says):
        call(inputs, **change)


def test_kernel_refuses_to_write_where_it_must_not(inputs):
    frozen = np.zeros((1, 32, 90), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"not writeable|read-only"):
        call(inputs, readout=frozen)


def float32_scores(inputs):
    """The scores that decide, as the kernel's contract has them, in float32 up to the order of a sum: [N, P]."""
    off = inputs.key[:, :, None] - inputs.query_key[:, None, :]
    root = np.float32(1 / np.sqrt(np.float32(inputs.key.shape[0])))
    return -(root * inputs.shrinkage)[:, None] * (off * inputs.selection[:, None, :] * off).sum(0)


def video(noise, frames=12, places=40):
    """Frames that show the same few places again and again, up to `noise`; queries of the next such frame."""
    inputs = Case("video", frames * places, places).make()
    rng = np.random.default_rng(1)
    place = inputs.key[:, :places].copy()
    inputs.key[...] = np.tile(place, frames) + noise * rng.normal(size=inputs.key.shape)
    inputs.query_key[...] = place + noise * rng.normal(size=place.shape)
    inputs.shrinkage[...] = 5.0
    return inputs


@every_set
@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-4, 1e-2, 1.0])
def test_choice_is_that_of_float32_when_elements_resemble_each_other(instructions, noise):
    inputs = video(noise)
    scores = float32_scores(inputs)
    _, index, _ = chosen(inputs, 30, instructions=instructions)
    best = np.argsort(-scores, axis=0, kind="stable")[:30].T
    slack = 4e-6 * np.abs(scores).max()
    worst = np.take_along_axis(scores.T, best[:, -1:], 1)
    assert np.all(np.take_along_axis(scores.T, index, 1) >= worst - slack)
    if noise == 0:  # exact ties: twelve copies of the best place, twelve of the next, the first six of the third
        assert np.all(index[:, :12] == np.arange(40)[:, None] + 40 * np.arange(12))
        assert np.all(index[:, 24:] // 40 == np.arange(6))


@every_set
@pytest.mark.parametrize("elements", [33, 500, 2000])
def test_choice_when_all_keys_are_equal_then_the_first_are_taken(instructions, elements):
    inputs = Case("equal", elements, 3).make()
    inputs.key[...] = inputs.key[:, :1]
    inputs.shrinkage[...] = 3.0
    _, index, weight = chosen(inputs, 30, instructions=instructions)
    assert np.all(index == np.arange(30))
    assert np.allclose(weight, 1 / 30)


@every_set
@pytest.mark.parametrize("form", ["dot", "l2", "anisotropic_l2"])
@pytest.mark.parametrize("huge", [1e10, 1e18, 3e38])
def test_choice_when_numbers_are_huge_then_bounds_give_way_to_scores(instructions, form, huge):
    """Elements and queries of which rough scores say nothing, beside ordinary ones."""
    inputs = Case("huge", 200, 12, 16).make()
    inputs.key[3, 5::40] = huge
    inputs.query_key[0, 2::5] = huge
    weights = {"shrinkage": None, "selection": None} if form != "anisotropic_l2" else {}
    readout, index, _ = chosen(inputs, 7, instructions=instructions, similarity=form, **weights)
    with np.errstate(all="ignore"):
        scores = reference("topk_readout").similarity(
            *(a.astype(np.float64) for a in (inputs.key, inputs.query_key)),
            *(() if weights else (inputs.shrinkage, inputs.selection)),
            form=form,
        )
    assert np.isfinite(readout).all()
    plain = [p for p in range(12) if p % 5 != 2]
    best = -np.sort(-np.where(np.abs(scores) < 3e38, scores, -np.inf), axis=0)[:7].T
    assert np.allclose(np.take_along_axis(scores.T, index, 1)[plain], best[plain], rtol=1e-5)


@every_set
def test_choice_when_shrinkage_is_not_positive_then_it_is_still_the_best(instructions):
    inputs = Case("shrinkage", 300, 9, 8).make()
    inputs.shrinkage[::7] = 0.0
    inputs.shrinkage[3::50] = -0.01
    inputs.shrinkage[5::60] = np.nan
    _, index, _ = chosen(inputs, 20, instructions=instructions)
    scores = reference("topk_readout").similarity(inputs.key, inputs.query_key, inputs.shrinkage, inputs.selection)
    scores[np.isnan(scores)] = -np.inf
    best = -np.sort(-scores, axis=0)[:20].T
    assert np.allclose(np.take_along_axis(scores.T, index, 1), best, rtol=1e-5, atol=1e-5)


def packed(inputs, instructions, **kind):
    made = kernels.PackedKeys(channels=inputs.key.shape[0], instructions=instructions, **kind)
    return made, {"key": inputs.key, "shrinkage": inputs.shrinkage}


@every_set
def test_packed_keys_when_they_came_piece_by_piece_then_bytes_do_not_differ(inputs, instructions):
    made, memory = packed(inputs, instructions)
    for end in (1, 50, 300, 301, 640):
        made.extend(key=inputs.key[:, :end], shrinkage=inputs.shrinkage[:end])
    made.cut(257)
    assert made.elements == 257
    made.extend(**memory, threads=2)
    assert made.elements == 700 and made.nbytes > 700 * 64 * 2
    at_once = call(inputs, instructions=instructions)
    read = call(inputs, instructions=instructions, packed=made)
    assert read[0].tobytes() == at_once[0].tobytes()
    assert read[1].tobytes() == at_once[1].tobytes()


@pytest.mark.parametrize(
    ("kind", "end", "says"),
    [
        ({}, 600, "packed keys N is 600, expected 700"),
        ({"selected": False}, 700, "another kind of read"),
        ({"similarity": "l2", "selected": False}, 700, "belongs to anisotropic_l2"),
        ({"similarity": "l2"}, 700, "a selection belongs to anisotropic_l2"),
    ],
)
def test_packed_keys_when_they_do_not_fit_then_they_are_refused(inputs, kind, end, says):
    with pytest.raises(ValueError, match=says):
        made, _ = packed(inputs, "auto", **kind)
        made.extend(key=inputs.key[:, :end], shrinkage=inputs.shrinkage[:end])
        call(inputs, packed=made)


@every_set
@pytest.mark.parametrize("top_k", [5, 60, 0])
def test_groups_when_read_together_then_each_reads_as_if_alone(instructions, top_k):
    inputs = Case("groups", 600, 70, 16, 24).make()
    rng = np.random.default_rng(3)
    valids = [(np.arange(600) >= 60 * g).astype(np.uint8) for g in range(10)]
    valids += [(rng.random(600) < 0.3).astype(np.uint8), np.ones(600, np.uint8), np.eye(600, dtype=np.uint8)[7]]
    values = [rng.normal(size=(1 + g % 2, 600, 24)).astype(np.float32) for g in range(len(valids))]
    readouts = [np.full((v.shape[0], 24, 70), np.nan, np.float32) for v in values]
    others = list(zip(values, [*valids[1:], None], readouts, strict=False))[1:]
    others = [(v, None if seen.all() else seen, r) for (v, _, r), seen in zip(others, valids[1:], strict=True)]
    together = {"value": values[0], "valid": valids[0], "readout": readouts[0], "others": others}
    _, usage = call(inputs, top_k, instructions, threads=2, **together)
    for g, (value, valid, readout) in enumerate(zip(values, valids, readouts, strict=True)):
        alone = np.empty_like(readout)
        _, used = call(inputs, top_k, instructions, value=value, valid=valid, readout=alone)
        assert alone.tobytes() == readout.tobytes()
        if g == 0:
            assert used.tobytes() == usage.tobytes()
