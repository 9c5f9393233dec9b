"""The example kernel: also an example of a kernel's test."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cases import reference

kernels = pytest.importorskip("rotomem._kernels", reason="the native kernels are not built")


@pytest.mark.parametrize("instructions", kernels.instruction_sets())
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 200_001])
@pytest.mark.parametrize("step", [1, 3])
def test_copy_agrees_with_reference(count, step, threads, instructions):
    source = np.random.default_rng(0).normal(size=count * step).astype(np.float32)[::step]
    target = np.full(count, np.nan, np.float32)
    kernels.copy(source=source, target=target, instructions=instructions, threads=threads)
    assert np.array_equal(target, reference("copy").copy(source))


def test_copy_refuses_another_size():
    with pytest.raises(ValueError, match="to is 3, expected 4"):
        kernels.copy(source=np.zeros(4, np.float32), target=np.zeros(3, np.float32))
