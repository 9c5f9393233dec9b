"""Every instruction set against kernels/local_attention/reference.py; what the kernel refuses; the definition."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cases import reference

kernels = pytest.importorskip("rotomem._kernels", reason="the native kernels are not built")
REFERENCE = reference("local_attention").local_attention
SETS = kernels.instruction_sets()
every_set = pytest.mark.parametrize("instructions", SETS)


def inputs(rows=9, columns=21, heads=2, depth=8, reach=2, batch=1, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return (spread * rng.normal(size=shape)).astype(np.float32)

    places = (2 * reach + 1) ** 2
    return {
        **{name: normal(batch, heads * depth, rows, columns) for name in ("query", "key", "value")},
        "relative_key": normal(heads, places, depth),
        "relative_bias": normal(heads, places),
        "relative_value": normal(heads, depth, places),
    }


def call(given, instructions="auto", threads=1):
    readout = np.full_like(given["query"], np.nan)
    kernels.local_attention(**given, readout=readout, instructions=instructions, threads=threads)
    return readout


def truth(given):
    maps = [given[name] for name in ("query", "key", "value")]
    relative = [given[f"relative_{name}"] for name in ("key", "bias", "value")]
    return np.stack([REFERENCE(*one, *relative) for one in zip(*maps, strict=True)])


@every_set
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"rows": 1, "columns": 1, "reach": 7},
        {"rows": 1, "columns": 40, "depth": 1, "heads": 1},
        {"rows": 40, "columns": 1, "depth": 5, "heads": 1},  # more than one strip
        {"rows": 4, "columns": 18, "depth": 32, "reach": 7, "heads": 1},
        {"rows": 6, "columns": 17, "depth": 13, "reach": 3, "batch": 2, "heads": 3},
        {"rows": 3, "columns": 33, "reach": 0},
        {"rows": 5, "columns": 16, "spread": 30.0},  # all scores but one far below the least exponent of float32
    ],
    ids=str,
)
def test_local_attention_agrees_with_reference(shape, instructions):
    given = inputs(**shape)
    want = truth(given)
    error = np.abs(call(given, instructions) - want).max()
    assert error <= 2e-6 * np.abs(want).max() * max(1.0, shape.get("spread", 1.0) ** 2)


@pytest.mark.parametrize("instructions", kernels.instruction_sets()[2:])
def test_local_attention_when_instructions_are_wider_than_avx512_then_they_are_not_taken_for_narrower(instructions):
    given = inputs()
    assert call(given, instructions).tobytes() == call(given, "avx512").tobytes()
    assert call(given, instructions).tobytes() != call(given, "portable").tobytes()


@every_set
def test_local_attention_when_threads_differ_then_bytes_do_not(instructions):
    given = inputs(rows=70)
    assert call(given, instructions).tobytes() == call(given, instructions, threads=5).tobytes()


@every_set
def test_local_attention_when_strides_differ_then_the_answer_does_not(instructions):
    given = inputs(batch=2)
    want = call(given, instructions)
    turned = {
        name: np.ascontiguousarray(array.transpose(2, 3, 0, 1)).transpose(2, 3, 0, 1) if array.ndim == 4 else array
        for name, array in given.items()
    }
    turned["relative_key"] = np.repeat(turned["relative_key"], 2, 2)[..., ::2]
    assert call(turned, instructions).tobytes() == want.tobytes()


@every_set
def test_local_attention_when_keys_are_alike_then_values_in_reach_are_averaged(instructions):
    given = inputs(rows=6, columns=20, reach=1)
    for name in ("key", "relative_key", "relative_bias", "relative_value"):
        given[name][:] = 0
    value, got = given["value"][0], call(given, instructions)[0]
    for y, x in ((0, 0), (3, 0), (3, 7), (5, 19)):
        near = value[:, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        assert np.allclose(got[:, y, x], near.mean((1, 2)), atol=1e-6)


@every_set
def test_local_attention_when_a_score_is_not_finite_then_its_place_takes_no_part(instructions):
    given = inputs(rows=4, columns=19, reach=1)
    given["key"][0, 3, 2, 5] = np.nan
    given["key"][0, 4, 1, 15] = -np.inf
    want = truth(given)
    assert np.isfinite(want).all()
    assert np.allclose(call(given, instructions), want, atol=1e-5)
    given["query"][0, 0, 1, 1] = np.nan
    assert (call(given, instructions)[0, :8, 1, 1] == 0).all()


@every_set
def test_local_attention_when_a_value_is_out_of_reach_then_it_changes_nothing(instructions):
    given = inputs(rows=5, columns=20, reach=1)
    before = call(given, instructions)
    given["value"][0, :, 2, 16] = 1e30
    changed = (call(given, instructions) != before).any((0, 1))
    want = np.zeros((5, 20), bool)
    want[1:4, 15:18] = True
    assert np.array_equal(changed, want)


@pytest.mark.parametrize("shape", [{"rows": 0}, {"columns": 0}, {"batch": 0}], ids=str)
def test_local_attention_when_there_are_no_queries_then_nothing_is_written(shape):
    given = inputs(**shape)
    assert call(given, threads=2).shape == given["query"].shape


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"key": np.zeros((1, 16, 9, 20), np.float32)}, "key has another shape"),
        ({"query": np.zeros((1, 15, 9, 21), np.float32)}, "query C is 15, expected 16"),
        ({"relative_key": np.zeros((2, 24, 8), np.float32)}, "square of an odd number"),
        ({"relative_bias": np.zeros((2, 9), np.float32)}, "relative_bias places is 9, expected 25"),
        ({"relative_value": np.zeros((2, 25, 8), np.float32)}, "relative_value D is 25, expected 8"),
        ({"value": np.zeros((1, 16, 9, 21))}, "value has type float64"),
    ],
)
def test_local_attention_refuses_what_does_not_fit(change, says):
    with pytest.raises(ValueError, match=says):
        call({**inputs(), **change})


def test_local_attention_definition_when_worked_out_on_paper_then_it_agrees():
    """Two positions side by side, one channel: the left one has a score of ln 3 to itself and 0 to the right."""
    query, key, value = np.array([[[1.0, 0.0]]]), np.array([[[np.log(3.0), 0.0]]]), np.array([[[4.0, 8.0]]])
    nothing = np.zeros((1, 9, 1)), np.zeros((1, 9)), np.zeros((1, 1, 9))
    assert np.allclose(REFERENCE(query, key, value, *nothing), [[[5.0, 6.0]]])
    bias = np.zeros((1, 9))
    bias[0, 5] = np.log(3.0)  # one to the right: as near as itself
    assert np.allclose(REFERENCE(query, key, value, nothing[0], bias, nothing[2]), [[[6.0, 6.0]]])
    moved = np.zeros((1, 1, 9))
    moved[0, 0, 3] = 10.0  # one to the left: for the right position alone
    assert np.allclose(REFERENCE(query, key, value, nothing[0], nothing[1], moved), [[[5.0, 11.0]]])
