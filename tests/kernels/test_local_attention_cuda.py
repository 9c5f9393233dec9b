"""The windowed attention on a device, emulated, against kernels/local_attention/reference.py."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cuda_on_cpu import device_array, load
from kernels.test_local_attention import inputs, truth


@pytest.fixture(scope="module")
def cuda():
    return load()


def call(cuda, given):
    readout = np.full_like(given["query"], np.nan)
    arrays = {name: device_array(array) for name, array in given.items()}
    cuda.local_attention_cuda(**arrays, readout=device_array(readout), device=0, stream=0)
    return readout


@pytest.mark.parametrize(
    "shape",
    [
        {"rows": 1, "columns": 1, "reach": 7, "depth": 1},
        {"rows": 9, "columns": 33, "reach": 2, "depth": 8},  # a row and a column more than a block has
        {"rows": 3, "columns": 34, "reach": 7, "depth": 32, "heads": 1},
        {"rows": 17, "columns": 3, "reach": 3, "depth": 13, "batch": 2},
        {"rows": 2, "columns": 5, "reach": 0, "depth": 4},
        {"rows": 4, "columns": 9, "spread": 30.0},
    ],
    ids=str,
)
def test_local_attention_when_on_a_device_then_agrees_with_reference(cuda, shape):
    given = inputs(**shape)
    want = truth(given)
    error = np.abs(call(cuda, given) - want).max()
    assert error <= 2e-6 * np.abs(want).max() * max(1.0, shape.get("spread", 1.0) ** 2)


def test_local_attention_when_on_a_device_then_neither_strides_nor_the_order_of_threads_matter(cuda):
    given = inputs(rows=9, columns=20, reach=3)
    want = call(cuda, given)
    tokens = {
        name: np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if array.ndim == 4 else array
        for name, array in given.items()
    }
    cuda.set_order(1)
    try:
        got = call(cuda, tokens)
    finally:
        cuda.set_order(0)
    assert got.tobytes() == want.tobytes()


def test_local_attention_when_on_a_device_and_a_score_is_not_finite_then_its_place_takes_no_part(cuda):
    given = inputs(rows=4, columns=19, reach=1)
    given["key"][0, 3, 2, 5] = np.nan
    given["query"][0, 8:, 1, 1] = np.inf
    with np.errstate(invalid="ignore"):
        want = truth(given)
    assert (want[0, 8:, 1, 1] == 0).all()
    assert np.allclose(call(cuda, given), want, atol=1e-5)


@pytest.mark.parametrize("shape", [{"rows": 0}, {"columns": 0}, {"batch": 0}], ids=str)
def test_local_attention_when_on_a_device_and_there_are_no_queries_then_nothing_is_launched(cuda, shape):
    assert call(cuda, inputs(**shape)).size == 0


@pytest.mark.parametrize(
    ("shape", "says"),
    [({"reach": 8, "depth": 1}, "too large for a device"), ({"depth": 33}, "too many channels for a device")],
)
def test_local_attention_when_on_a_device_then_refuses_what_it_has_no_room_for(cuda, shape, says):
    with pytest.raises(ValueError, match=says):
        call(cuda, inputs(**shape))
