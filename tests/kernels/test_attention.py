"""Every instruction set against kernels/attention/reference.py; what the kernel refuses; the definition."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cases import reference

kernels = pytest.importorskip("rotomem._kernels", reason="the native kernels are not built")
REFERENCE = reference("attention").attention
every_set = pytest.mark.parametrize("instructions", kernels.instruction_sets())


def inputs(positions=37, elements=150, key_channels=8, value_channels=40, batch=1, heads=1, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {
        "query": (positions, key_channels),
        "key": (elements, key_channels),
        "value": (elements, value_channels),
    }
    given = {name: rng.normal(size=(batch, heads, *shape)).astype(np.float32) for name, shape in shapes.items()}
    given["query"] *= spread
    return given


def call(given, instructions="auto", threads=1):
    readout = np.full((*given["query"].shape[:3], given["value"].shape[3]), np.nan, np.float32)
    kernels.attention(**given, readout=readout, instructions=instructions, threads=threads)
    return readout


def truth(given):
    groups = zip(*(array.reshape(-1, *array.shape[2:]) for array in given.values()), strict=True)
    shape = (*given["query"].shape[:3], given["value"].shape[3])
    return np.stack([REFERENCE(*group) for group in groups]).reshape(shape)


@every_set
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"positions": 1, "elements": 1, "key_channels": 1, "value_channels": 1},
        {"positions": 145, "elements": 64},  # one query more than a piece of work
        {"positions": 5, "elements": 65, "value_channels": 32},
        {"positions": 50, "elements": 129, "key_channels": 32, "value_channels": 32, "heads": 3, "batch": 2},
        {"positions": 97, "elements": 7, "key_channels": 128, "value_channels": 515},
        {"positions": 9, "elements": 3000, "spread": 0.01},
        {"positions": 9, "elements": 3000, "spread": 40.0},
    ],
    ids=str,
)
def test_attention_agrees_with_reference(shape, instructions):
    given = inputs(**shape)
    want = truth(given)
    error = np.abs(call(given, instructions) - want).max()
    assert error <= 1e-6 * np.abs(want).max() * max(1.0, shape.get("spread", 1.0))


@every_set
def test_attention_when_scores_keep_rising_then_what_was_summed_shrinks(instructions):
    """The greatest score comes last in every block, so that every block scales down all before it."""
    n = 700
    given = {
        "query": np.ones((1, 1, 3, 1), np.float32),
        "key": np.linspace(-60, 90, n, dtype=np.float32).reshape(1, 1, n, 1),
        "value": np.eye(n, dtype=np.float32)[None, None],
    }
    got, want = call(given, instructions), truth(given)
    assert np.abs(got - want).max() < 1e-6
    assert np.allclose(got[want > 1e-30], want[want > 1e-30], rtol=2e-5)


@every_set
def test_attention_when_many_elements_are_alike_then_weights_sum_to_one(instructions):
    given = inputs(positions=3, elements=50_000, spread=0.1, value_channels=2)
    given["value"][:] = 1
    assert np.abs(call(given, instructions) - 1).max() < 1e-6


@pytest.mark.parametrize("instructions", kernels.instruction_sets()[2:])
def test_attention_when_instructions_are_wider_than_avx512_then_they_are_not_taken_for_narrower(instructions):
    given = inputs()
    assert call(given, instructions).tobytes() == call(given, "avx512").tobytes()
    assert call(given, instructions).tobytes() != call(given, "portable").tobytes()


@every_set
def test_attention_when_threads_differ_then_bytes_do_not(instructions):
    given = inputs(positions=300, heads=2)
    assert call(given, instructions).tobytes() == call(given, instructions, threads=5).tobytes()


@every_set
def test_attention_when_heads_are_slices_of_rows_then_the_answer_is_the_same(instructions):
    given = inputs(heads=2, key_channels=16, value_channels=16)
    rows = {
        name: np.ascontiguousarray(array.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) for name, array in given.items()
    }
    assert call(rows, instructions).tobytes() == call(given, instructions).tobytes()


@every_set
def test_attention_when_one_query_is_nan_then_the_others_are_not(instructions):
    given = inputs()
    want = call(given, instructions)
    given["query"][0, 0, 4, 2] = np.nan
    got = call(given, instructions)
    others = np.arange(got.shape[2]) != 4
    assert np.array_equal(got[:, :, others], want[:, :, others])
    assert np.isnan(got[0, 0, 4]).all()


@pytest.mark.parametrize("shape", [{"positions": 0}, {"batch": 0}, {"heads": 0}, {"value_channels": 0}], ids=str)
def test_attention_when_nothing_is_asked_then_nothing_is_written(shape):
    assert call(inputs(**shape), threads=2).size == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"key": np.zeros((1, 1, 150, 7), np.float32)}, "key CK is 7, expected 8"),
        ({"key": np.zeros((1, 2, 150, 8), np.float32)}, "key H is 2, expected 1"),
        ({"value": np.zeros((1, 1, 149, 40), np.float32)}, "value N is 149, expected 150"),
        ({"value": np.zeros((2, 1, 150, 40), np.float32)}, "value B is 2, expected 1"),
        ({"value": np.zeros((1, 1, 150, 80), np.float32)[..., ::2]}, "not contiguous"),
        ({"query": np.zeros((1, 1, 37, 8))}, "query has type float64"),
        ({"key": np.zeros((1, 1, 0, 8), np.float32), "value": np.zeros((1, 1, 0, 40), np.float32)}, "no elements"),
    ],
)
def test_attention_refuses_what_does_not_fit(change, says):
    with pytest.raises(ValueError, match=says):
        call({**inputs(), **change})


def test_attention_definition_when_worked_out_on_paper_then_it_agrees():
    query = np.array([[2 * np.log(3.0), 0, 0, 0], [0, 0, 0, 0]])  # CK = 4, so sqrt(CK) = 2
    key, value = np.array([[1.0, 5, 5, 5], [0, 5, 5, 5]]), np.array([[4.0, 0.0], [8.0, 1.0]])
    assert np.allclose(REFERENCE(query, key, value), [[5.0, 0.25], [6.0, 0.5]])


def test_attention_when_instructions_go_beyond_avx512_then_it_runs_on_avx512():
    beyond = [name for name in kernels.instruction_sets() if name in ("avx512_bf16", "amx")]
    if not beyond:
        pytest.skip("this processor has nothing beyond AVX-512")
    given = inputs(positions=97, elements=300)
    want = call(given, "avx512").tobytes()
    assert want != call(given, "portable").tobytes(), "the sets round differently, or this test shows nothing"
    assert all(call(given, name).tobytes() == want for name in beyond)
