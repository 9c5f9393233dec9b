"""The kernels on NVIDIA devices: results, streams, several devices, graphs. `make test-gpu` runs these alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from kernels.cases import CASES, Case, Inputs, reference
from kernels.test_local_attention import inputs as local_attention_inputs
from kernels.test_local_attention import truth as local_attention_truth
from kernels.test_topk_readout_cuda import plain_error
from rotomem import Session, load_model, ops
from rotomem.ops import _cuda, backend

REFERENCE = reference("topk_readout")
BIG = Case("big", 20_000, 1000, value_channels=200, objects=3)


def _alike(inputs: Inputs, rng: np.random.Generator) -> None:
    inputs.key[...] = inputs.key[:, :1]
    inputs.shrinkage[...] = 2.0


ALIKE = Case("alike", 20_000, 300, value_channels=16, twist=_alike)  # every list overflows
TROUBLE = backend.cuda_trouble() or ("" if torch.cuda.is_available() else "torch sees no CUDA device")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(TROUBLE), reason=f"no NVIDIA device to test on: {TROUBLE}")]
DEVICES = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cuda:0"]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    with backend.use("native-cuda"):
        yield torch.device(request.param)


def arguments(case: Case, device: torch.device, form: str = "anisotropic_l2") -> dict[str, torch.Tensor]:
    inputs = case.make()
    given = {"key": inputs.key, "query_key": inputs.query_key, "value": inputs.value}
    if form == "anisotropic_l2":
        given |= {"shrinkage": inputs.shrinkage, "selection": inputs.selection}
    return {name: torch.from_numpy(array)[None].to(device) for name, array in given.items()}


@pytest.mark.parametrize("form", ["anisotropic_l2", "l2", "dot"])
@pytest.mark.parametrize("case", [*(c for c in CASES if c.top_k), BIG, ALIKE], ids=lambda case: case.name)
def test_read_memory_when_on_a_device_then_agrees_with_reference(device, case, form):
    inputs = case.make()
    weights = (inputs.shrinkage, inputs.selection) if form == "anisotropic_l2" else ()
    truth, used = REFERENCE.topk_readout(
        inputs.key, inputs.query_key, inputs.value, *weights, top_k=case.top_k, form=form
    )
    read = ops.read_memory(**arguments(case, device, form), top_k=case.top_k, similarity=form, need_usage=True)
    budget = 1e-6 * max(1.0, float(np.abs(truth).max(initial=0)))
    if case.name not in ("copies", "alike"):  # torch takes any of equal scores: no yardstick
        budget = max(budget, 2 * plain_error(inputs, case.top_k, form, truth))
    assert np.abs(read.readout[0].cpu().numpy() - truth).max(initial=0) <= budget
    assert np.allclose(read.usage[0].cpu().numpy().sum(), used.sum(), rtol=1e-5)


def test_read_memory_when_repeated_then_bytes_are_the_same_and_nothing_is_kept(device):
    given = arguments(BIG, device)
    first = ops.read_memory(**given, need_usage=True)
    held = torch.cuda.memory_allocated(device)
    for _ in range(20):
        again = ops.read_memory(**given, need_usage=True)
        assert torch.equal(first.readout, again.readout) and torch.equal(first.usage, again.usage)
        del again
        assert torch.cuda.memory_allocated(device) == held


def test_read_memory_when_streams_overlap_then_each_reads_its_own(device):
    given = arguments(BIG, device)
    other = {**given, "query_key": given["query_key"] + 0.1}
    alone = [ops.read_memory(**g).readout for g in (given, other)]
    torch.cuda.synchronize(device)
    streams = [torch.cuda.Stream(device) for _ in alone]
    for _ in range(5):
        results = []
        for stream, g in zip(streams, (given, other), strict=True):
            with torch.cuda.stream(stream):
                results.append(ops.read_memory(**g).readout)
        torch.cuda.synchronize(device)
        assert all(torch.equal(a, b) for a, b in zip(alone, results, strict=True))


def test_read_memory_when_its_inputs_are_still_being_made_then_it_waits_its_turn(device):
    given = arguments(BIG, device)
    expected = ops.read_memory(**given).readout
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        late = torch.zeros_like(given["query_key"])
        torch.cuda._sleep(50_000_000)  # the copy below starts some 25 ms after the read was queued
        late.copy_(given["query_key"])
        got = ops.read_memory(**{**given, "query_key": late}).readout
    stream.synchronize()
    assert torch.equal(got, expected)


def test_read_memory_when_captured_in_a_graph_then_replays_follow_its_inputs(device):
    with torch.cuda.device(device):
        given = arguments(BIG, device)
        everything = torch.ones(1, given["key"].shape[2], dtype=torch.bool, device=device)
        ops.read_memory(**given, valid=everything)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # waiting for the device, or allocating behind torch's back, would fail here
            captured = ops.read_memory(**given, valid=everything, need_usage=True)
        given["query_key"].add_(0.1)
        graph.replay()
        assert torch.equal(captured.readout, ops.read_memory(**given).readout)


def test_consolidate_when_on_a_device_then_agrees_with_reference(device):
    inputs = Case("candidates", 9000, 9000, value_channels=130, objects=2).make()
    usage = np.random.default_rng(0).random(9000).astype(np.float32)
    arrays = (inputs.key, inputs.shrinkage, inputs.value, inputs.selection, usage)
    made = ops.consolidate(*(torch.from_numpy(a)[None].to(device) for a in arrays), 128)
    index = reference("consolidate").most_used(usage, 128)
    assert made.index[0].tolist() == index.tolist()
    truth = reference("consolidate").consolidate(*arrays[:4], index)
    for got, true in zip((made.key, made.shrinkage, made.value), truth, strict=True):
        assert np.allclose(got[0].cpu().numpy(), true, rtol=1e-5, atol=1e-5)


def test_local_attention_when_on_a_device_then_agrees_with_reference(device):
    given = local_attention_inputs(rows=30, columns=54, reach=7, depth=32, heads=8)
    want = local_attention_truth(given)
    got = ops.local_attention(**{name: torch.from_numpy(array).to(device) for name, array in given.items()})
    assert np.abs(got.cpu().numpy() - want).max() <= 2e-6 * np.abs(want).max()


def test_aggregate_when_on_a_device_then_agrees_with_reference(device):
    logits = np.random.default_rng(0).normal(0, 8, (2, 3, 30, 54)).astype(np.float32)
    want = np.stack([reference("aggregate").aggregate(one) for one in logits])
    got = ops.aggregate(torch.from_numpy(logits).to(device)).cpu().numpy()
    assert np.abs(got - want).max() <= 2e-5


def test_keep_most_used_when_on_a_device_then_agrees_with_reference(device):
    usage = np.random.default_rng(0).integers(0, 900, 10_000).astype(np.float32)
    stay = ops.keep_most_used(torch.from_numpy(usage).to(device), 7000)
    assert stay.tolist() == reference("forget").keep_most_used(usage, 7000).tolist()


def test_copy_when_on_a_device_then_numbers_arrive(device):
    source = torch.arange(3000, dtype=torch.float32, device=device)[::3]
    target = torch.zeros(1000, device=device)
    backend.kernels.copy_cuda(source=_cuda.array(source), target=_cuda.array(target), **_cuda.queue(device))
    assert torch.equal(source, target)


def test_session_when_on_a_device_then_mattes_are_those_of_the_cpu(device):
    rng = np.random.default_rng(0)
    first = rng.random((96, 128, 3), np.float32)
    frames = [np.roll(first, (i, 2 * i), (0, 1)) for i in range(8)]
    mask = np.zeros((96, 128), np.uint8)
    mask[30:70, 40:90] = 1
    mattes = []
    for where in ("cpu", str(device)):
        with backend.use("auto"), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            session = Session(load_model("xmem-s", device=where, dtype="float32"), size=96)
            mattes.append(np.stack([session.step(frame, mask if i == 0 else None) for i, frame in enumerate(frames)]))
    assert np.quantile(np.abs(mattes[0] - mattes[1]), 0.999) < 1 / 255
