"""Making prototypes on a device, emulated, against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels.cases import Case, Inputs, reference
from kernels.cuda_on_cpu import aligned, device_array, load

REFERENCE = reference("consolidate")


@pytest.fixture(scope="module")
def cuda():
    return load()


def make(cuda, inputs: Inputs, picked, **change: Any):
    """Key [CK, P], shrinkage [P] and value [O, CV, P] of the prototypes made of the candidates `picked`."""
    objects, depth = inputs.value.shape[:2]
    made = (
        np.full((inputs.key.shape[0], len(picked)), np.nan, np.float32),
        np.full(len(picked), np.nan, np.float32),
        np.full((objects, depth, len(picked)), np.nan, np.float32),
    )
    given = {
        "key": inputs.key,
        "shrinkage": inputs.shrinkage,
        "value": np.ascontiguousarray(inputs.value.transpose(0, 2, 1)),
        "selection": inputs.selection,
        "index": np.asarray(picked, np.int64),
        "prototype_key": made[0],
        "prototype_shrinkage": made[1],
        "prototype_value": made[2],
        **change,
    }
    call = {**{name: device_array(array) for name, array in given.items()}, "device": 0, "stream": 0}
    if "scratch" not in call:
        scratch = aligned(cuda.consolidate_cuda(**call))
        call["scratch"] = device_array(scratch)
    cuda.consolidate_cuda(**call)
    return made


def candidates(elements: int, **sizes: Any) -> Inputs:
    return Case(f"candidates {elements}", elements, elements, **sizes).make()


@pytest.mark.parametrize(
    ("inputs", "count"),
    [
        (candidates(1, key_channels=1, value_channels=1), 1),
        (candidates(65, key_channels=33, value_channels=65, objects=2), 33),
        (candidates(2100, key_channels=5, value_channels=3), 2),  # two pieces
    ],
    ids=["one of everything", "over every edge", "pieces"],
)
def test_consolidate_when_emulated_then_agrees_with_reference(cuda, inputs, count):
    index = np.random.default_rng(0).choice(inputs.key.shape[1], count, replace=False)
    truth = REFERENCE.consolidate(inputs.key, inputs.shrinkage, inputs.value, inputs.selection, index)
    for got, true in zip(make(cuda, inputs, index), truth, strict=True):
        assert np.allclose(got, true, rtol=1e-5, atol=1e-5)


def test_consolidate_when_candidates_are_invalid_or_nan_then_they_are_not_mixed(cuda):
    inputs = candidates(90, key_channels=8, value_channels=4)
    valid = (np.arange(90) % 3 > 0).astype(np.uint8)
    index = np.array([1, 40])
    truth = REFERENCE.consolidate(
        inputs.key, inputs.shrinkage, inputs.value, inputs.selection, index, valid.astype(bool)
    )
    inputs.key[:, ::3] = np.nan
    for got, true in zip(make(cuda, inputs, index, valid=valid), truth, strict=True):
        assert np.allclose(got, true, atol=1e-5)
    assert all(np.all(made == 0) for made in make(cuda, inputs, index, valid=np.zeros(90, np.uint8))[1:])


@pytest.mark.parametrize("order", [1, 2])
def test_consolidate_when_threads_take_other_turns_then_bytes_do_not_change(cuda, order):
    inputs = candidates(70, key_channels=8, value_channels=4)
    before = make(cuda, inputs, [3, 9])
    cuda.set_order(order)
    after = make(cuda, inputs, [3, 9])
    cuda.set_order(0)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"selection": np.zeros((8, 9), np.float32)}, "selection N is 9, expected 70"),
        ({"index": np.zeros(2, np.float32)}, "index has type float32, expected int64"),
        ({"prototype_value": np.zeros((1, 4, 3), np.float32)}, "prototype_value P is 3, expected 2"),
        ({"scratch": np.zeros(0, np.uint8)}, "too little scratch"),
    ],
)
def test_consolidate_when_something_does_not_fit_then_it_is_refused(cuda, change, says):
    with pytest.raises(ValueError, match=says):
        make(cuda, candidates(70, key_channels=8, value_channels=4), [3, 9], **change)
