"""Soft aggregation on the CPU and on an emulated device, against kernels/aggregate/reference.py; the definition."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cases import reference
from kernels.cuda_on_cpu import device_array, load

REFERENCE = reference("aggregate").aggregate


def on_cpu(logits, aggregated, **options):
    kernels = pytest.importorskip("rotomem._kernels", reason="the native kernels are not built")
    kernels.aggregate(logits=logits, aggregated=aggregated, **options)


def on_device(logits, aggregated):
    load().aggregate_cuda(logits=device_array(logits), aggregated=device_array(aggregated), device=0, stream=0)


everywhere = pytest.mark.parametrize("run", [on_cpu, on_device])


def call(run, logits, **options):
    batch, objects, positions = logits.shape
    aggregated = np.full((batch, objects + 1, positions), np.nan, np.float32)
    run(logits, aggregated, **options)
    return aggregated


def some(batch=2, objects=3, positions=700, spread=6.0, seed=0):
    return (spread * np.random.default_rng(seed).normal(size=(batch, objects, positions))).astype(np.float32)


@everywhere
@pytest.mark.parametrize(
    "shape", [{}, {"objects": 1}, {"objects": 40}, {"objects": 0}, {"positions": 1}, {"positions": 5000}]
)
@pytest.mark.parametrize("spread", [0.1, 6.0, 100.0])
def test_aggregate_agrees_with_reference(run, shape, spread):
    logits = some(spread=spread, **shape)
    with np.errstate(over="ignore"):
        want = np.stack([REFERENCE(one) for one in logits])
    assert np.abs(call(run, logits) - want).max() <= 2e-6 * np.abs(want).max()


@everywhere
def test_aggregate_when_all_objects_are_faint_then_their_odds_add_up(run):
    """Where 1 - p is 1 in float32 the background's odds are still told: 1 to the sum of the objects' odds."""
    got = call(run, np.full((1, 10, 9), -15.0, np.float32))
    assert np.allclose(got[0, 0], 15.0 - np.log(10.0), atol=1e-5)


@everywhere
def test_aggregate_when_a_logit_is_nan_then_so_is_its_position_and_no_other(run):
    logits = some()
    want = call(run, logits)
    logits[1, 2, 30] = np.nan
    got = call(run, logits)
    spoilt = np.zeros(got.shape, bool)
    spoilt[1, [0, 3], 30] = True
    assert np.array_equal(np.isnan(got), spoilt)
    assert np.array_equal(got[~spoilt], want[~spoilt])


def test_aggregate_when_threads_or_strides_differ_then_bytes_do_not():
    logits = some(positions=9000)
    want = call(on_cpu, logits)
    assert call(on_cpu, logits, threads=5).tobytes() == want.tobytes()
    turned = np.ascontiguousarray(logits.transpose(1, 0, 2)).transpose(1, 0, 2)
    assert call(on_cpu, turned).tobytes() == want.tobytes()


@everywhere
@pytest.mark.parametrize("shape", [{"positions": 0}, {"batch": 0}], ids=str)
def test_aggregate_when_there_are_no_positions_then_nothing_is_written(run, shape):
    assert call(run, some(**shape)).size == 0


@everywhere
@pytest.mark.parametrize(
    ("logits", "aggregated", "says"),
    [
        ((1, 2, 8), (1, 2, 8), "aggregated O is 2, expected 3"),
        ((2, 2, 8), (1, 3, 8), "aggregated B is 1, expected 2"),
        ((1, 2, 8), (1, 3, 9), "aggregated P is 9, expected 8"),
        ((1, 2, 8), (1, 3, 16), "not contiguous"),
    ],
)
def test_aggregate_refuses_what_does_not_fit(run, logits, aggregated, says):
    to = np.zeros(aggregated, np.float32)
    with pytest.raises(ValueError, match=says):
        run(np.zeros(logits, np.float32), to[..., ::2] if aggregated[2] == 16 else to)


def test_aggregate_definition_when_worked_out_on_paper_then_it_agrees():
    """p = 1/2 and 3/4: q = 1/8, 1/2, 3/4, whose odds are 1/7, 1 and 3."""
    got = REFERENCE(np.log([[1.0], [3.0]]))
    assert np.allclose(np.exp(got[:, 0]), [1 / 7, 1, 3])
    assert np.allclose(1 / (1 + np.exp(-REFERENCE([[99.0]]))), [[1e-7], [1 - 1e-7]])
