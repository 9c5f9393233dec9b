"""The emulation of CUDA itself: that it notices mistakes, and multiplies as the hardware's manual says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernels.cuda_on_cpu import load


@pytest.fixture(scope="module")
def cuda():
    return load()


def run(cuda, name, to, source=None, other=None):
    cuda.run_mistake(name, *(0 if a is None else a.ctypes.data for a in (source, other)), to.ctypes.data)
    return to


def test_emulation_when_a_barrier_is_forgotten_then_unwritten_numbers_show(cuda):
    to = np.zeros(64, np.float32)
    assert run(cuda, "neighbours", to).tolist() == [*range(32, 64), *range(32)]
    missing = []
    for order in (0, 1):
        cuda.set_order(order)
        missing.append(np.isnan(run(cuda, "no barrier", to)))
    cuda.set_order(0)
    assert missing[0].any() and missing[1].any()
    assert not np.array_equal(*missing)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("deadlock", "a thread ended while others wait: __syncthreads"),
        ("lanes disagree", "do different things: __ballot_sync and __syncwarp"),
        ("writes behind", "behind its shared memory"),
        ("too much", "it: invalid argument"),
    ],
)
def test_emulation_when_threads_misbehave_then_it_says_so(cuda, name, says):
    with pytest.raises(RuntimeError, match=says):
        run(cuda, name, np.zeros(64, np.float32))


def test_emulation_when_a_copy_is_not_waited_for_then_it_is_not_there(cuda):
    source = np.arange(128, dtype=np.float32)
    assert np.array_equal(run(cuda, "copies", np.zeros(128, np.float32), source), source)
    assert np.isnan(run(cuda, "no wait", np.zeros(128, np.float32), source)).all()


def test_emulation_when_a_warp_multiplies_then_it_is_the_product(cuda):
    a, b = torch.randn(16, 16).half(), torch.randn(8, 16).half()
    start = torch.randn(16, 8)
    words = [t.view(torch.int16).numpy() for t in (a, b)]
    got = run(cuda, "product", start.numpy().copy(), *words)
    truth = start.double() + a.double() @ b.double().T
    assert np.allclose(got, truth.numpy(), atol=1e-5)


def test_emulation_when_halves_are_read_then_their_values_come(cuda):
    bits = np.arange(65536, dtype=np.uint16)
    for part in bits.reshape(-1, 1024):
        got = run(cuda, "halves", np.zeros(1024, np.float32), part)
        assert np.array_equal(got, part.view(np.float16).astype(np.float32), equal_nan=True)


def test_emulation_when_numbers_become_halves_then_the_nearest_come(cuda):
    every = np.arange(31744, dtype=np.uint16).view(np.float16).astype(np.float64)  # finite, from 0 up
    between = (every[1:] + every[:-1]) / 2
    numbers = np.concatenate(
        [every, between, between * (1 + 1e-6), between * (1 - 1e-6), [65519, 65520, np.inf, np.nan]]
    )
    numbers = np.concatenate([numbers, -numbers]).astype(np.float32)
    numbers = np.append(numbers, np.zeros(-numbers.size % 1024, np.float32))
    for part in numbers.reshape(-1, 1024):
        got = run(cuda, "to halves", np.zeros(1024, np.uint16), np.ascontiguousarray(part)).view(np.float16)
        with np.errstate(over="ignore"):
            assert np.array_equal(got, part.astype(np.float16), equal_nan=True)
