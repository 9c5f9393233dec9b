"""The example kernel on a device, emulated: also an example of such a test."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cases import reference
from kernels.cuda_on_cpu import device_array, load


@pytest.fixture(scope="module")
def cuda():
    return load()


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000])
@pytest.mark.parametrize("step", [1, 3])
def test_copy_when_on_a_device_then_agrees_with_reference(cuda, count, step):
    source = np.random.default_rng(0).normal(size=count * step).astype(np.float32)[::step]
    target = np.full(count, np.nan, np.float32)
    cuda.copy_cuda(source=device_array(source), target=device_array(target), device=0, stream=0)
    assert np.array_equal(target, reference("copy").copy(source))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (np.zeros(3, np.float32), "to is 3, expected 4"),
        (np.zeros((4, 1), np.float32), "target has 2 dimensions, expected 1"),
        (np.zeros(4, np.int64), "target has type int64, expected float32"),
        (np.zeros(8, np.float32)[::2], "not contiguous"),
    ],
)
def test_copy_when_on_a_device_then_refuses_what_does_not_fit(cuda, target, says):
    with pytest.raises(ValueError, match=says):
        cuda.copy_cuda(source=device_array(np.zeros(4, np.float32)), target=device_array(target), device=0, stream=0)


def test_copy_when_the_device_does_not_exist_then_says_so(cuda):
    array = device_array(np.zeros(4, np.float32))
    with pytest.raises(RuntimeError, match="choosing a device: invalid"):
        cuda.copy_cuda(source=array, target=array, device=7, stream=0)
