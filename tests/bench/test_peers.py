"""What the kernels are held against does the same work as they do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rotomem import ops
from rotomem.bench import peers
from rotomem.bench.cases import Inputs, Memory, inputs
from rotomem.bench.read import Truth, at

CASE = Memory("64x96", 2, 3, 40)


@pytest.fixture(scope="module")
def given() -> Inputs:
    return inputs(CASE, torch.device("cpu"))


def close(a: Tensor, b: Tensor, limit: float = 2e-5) -> None:
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= limit * max(1.0, float(b.abs().max()))


def test_similarity_when_lean_or_not_then_it_is_that_of_the_ops(given: Inputs) -> None:
    want = ops.similarity(given.key, given.query_key, shrinkage=given.shrinkage, selection=given.selection)
    close(peers.similarity(given), want)
    close(peers.lean_similarity(given), want)


@pytest.mark.parametrize("lean", [False, True])
def test_read_when_dense_then_readout_and_usage_are_those_of_the_ops(given: Inputs, lean: bool) -> None:
    want = ops.read_memory(
        given.key,
        given.query_key,
        given.value,
        shrinkage=given.shrinkage,
        selection=given.selection,
        top_k=7,
        need_usage=True,
    )
    readout, usage = peers.read(given, 7, lean=lean)
    assert want.usage is not None
    close(readout, want.readout, 1e-4)
    close(usage, want.usage, 1e-4)


@pytest.mark.parametrize("lean", [False, True])
def test_potentiate_when_dense_then_values_and_shrinkage_are_those_of_the_ops(given: Inputs, lean: bool) -> None:
    selection = torch.rand(1, CASE.elements, 64, generator=torch.Generator().manual_seed(3)).transpose(1, 2)
    usage = torch.rand(1, CASE.elements, generator=torch.Generator().manual_seed(4))
    want = ops.consolidate(given.key, given.shrinkage, given.value, selection, usage, 9)
    index = want.index[0]
    asked = replace(given, query_key=given.key[:, :, index], selection=selection[:, :, index])
    value, shrinkage = peers.potentiate(asked, lean=lean)
    close(value, want.value, 1e-4)
    close(shrinkage, want.shrinkage, 1e-4)


def test_unfolded_attention_when_relative_terms_are_given_then_it_is_that_of_the_ops() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 8, 5, 7, generator=generator) for _ in range(3))
    relative = {
        "relative_key": torch.randn(2, 9, 4, generator=generator),
        "relative_bias": torch.randn(2, 9, generator=generator),
        "relative_value": torch.randn(2, 4, 9, generator=generator),
    }
    close(peers.unfolded_attention(query, key, value, **relative), ops.local_attention(query, key, value, **relative))


def test_attend_when_dense_then_it_is_the_fused_one() -> None:
    query, key, value = (torch.randn(1, 2, n, 8) for n in (5, 9, 9))
    close(peers.attend(query, key, value), peers.fused_attention(query, key, value))


def test_faiss_when_it_searches_then_it_finds_the_most_similar(given: Inputs) -> None:
    pytest.importorskip("faiss", reason="the extra `bench` is not installed")
    found = peers.faiss_search(given, 5)()
    assert isinstance(found, tuple)
    scores = torch.from_numpy(found[0]) / 8  # the square root of CK = 64
    close(scores.T, peers.similarity(given)[0].topk(5, dim=0).values, 1e-4)


def test_truth_when_a_readout_is_off_then_its_error_is_told(given: Inputs) -> None:
    truth = Truth(given)
    readout = peers.read(given, 30)[0]
    error, plain = truth.errors(readout)
    assert 0 < plain < 1e-3 and error <= 2 * plain + 1e-6
    readout[:, 1, 3] += 0.5
    assert truth.errors(readout)[0] == pytest.approx(0.5, abs=1e-3)


def test_at_when_positions_are_picked_then_they_ask_the_same(given: Inputs) -> None:
    few = at(given, torch.tensor([0, 5]))
    close(peers.read(few, 30)[0], peers.read(given, 30)[0][..., [0, 5]], 1e-6)
