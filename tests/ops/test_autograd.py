"""Gradients of reading: against finite differences, against the definition, and what they cost."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.cases import CASES, Case, Inputs
from rotomem import ops
from rotomem.ops import _torch, backend

# Where there is a top_k; the gradients of a full softmax are always plain torch's.
BACKENDS = [(name, k) for name in backend.available() for k in (3, None) if k or name == "torch"]
every_backend = pytest.mark.parametrize(("name", "top_k"), BACKENDS)
SEEDS = (0, 1, 2)
FORMS = ("anisotropic_l2", "l2", "dot")
NAMES = ("key", "query_key", "value", "shrinkage", "selection")


def leaves_of(inputs: Inputs, form: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The inputs that a form takes, batched, to be differentiated."""
    names = NAMES if form == "anisotropic_l2" else NAMES[:3]
    return {name: torch.from_numpy(getattr(inputs, name))[None].to(dtype).requires_grad_() for name in names}


def random_leaves(form: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Two batches of two objects, six elements, four positions."""
    rng = torch.Generator().manual_seed(0)
    sizes = {
        "key": (2, 3, 6),
        "query_key": (2, 3, 4),
        "value": (2, 2, 5, 6),
        "shrinkage": (2, 6),
        "selection": (2, 3, 4),
    }
    return {
        name: torch.rand(*size, generator=rng, dtype=dtype).requires_grad_()
        for name, size in sizes.items()
        if form == "anisotropic_l2" or name in NAMES[:3]
    }


def gradients(leaves: dict[str, Tensor], weight: Tensor, **options) -> dict[str, Tensor]:
    """Of sum(weight * readout)."""
    readout = ops.read_memory(**leaves, **options).readout
    found = torch.autograd.grad(readout, list(leaves.values()), weight.to(readout.dtype))
    return dict(zip(leaves, found, strict=True))


def plain_gradients(leaves: dict[str, Tensor], weight: Tensor, top_k: int | None, form: str) -> dict[str, Tensor]:
    """By torch's own rules through the published formula, dense."""
    key, query, value = (leaves[name][0] for name in NAMES[:3])
    root = key.shape[0] ** 0.5
    if form == "dot":
        scores = key.T @ query / root
    elif form == "l2":
        scores = (2 * key.T @ query - (key * key).sum(0)[:, None]) / root
    else:
        shrinkage, selection = leaves["shrinkage"][0], leaves["selection"][0]
        expanded = -(key * key).T @ selection + 2 * key.T @ (query * selection) - (selection * query * query).sum(0)
        scores = expanded * shrinkage[:, None] / root
    top, index = scores.topk(min(top_k or scores.shape[0], scores.shape[0]), dim=0)
    readout = value @ torch.zeros_like(scores).scatter(0, index, torch.softmax(top, 0))
    return dict(zip(leaves, torch.autograd.grad(readout, list(leaves.values()), weight[0]), strict=True))


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("top_k", [3, None])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_when_checked_then_finite_differences_agree(form, top_k, some):
    leaves = random_leaves(form)
    valid = torch.tensor([[True] * 6, [True, False, True, True, False, True]]) if some else None

    def readout(*given: Tensor) -> Tensor:
        options = {"top_k": top_k, "similarity": form, "valid": valid}
        return ops.read_memory(**dict(zip(leaves, given, strict=True)), **options).readout

    assert torch.autograd.gradcheck(readout, list(leaves.values()))


@cache
def truths_and_budget(case: Case, form: str) -> tuple[list[dict[str, Tensor]], dict[str, float]]:
    """Gradients in float64 for a few seeds, and twice the greatest error of plain float32 among them.

    How rounding falls is luck, so plain float32 adds the channels up in several orders, all equally right.
    """
    truths, budget = [], dict.fromkeys(NAMES, 0.0)
    for seed in SEEDS:
        inputs = case.make(seed)
        truth = plain_gradients(leaves_of(inputs, form, torch.float64), weight_of(case), case.top_k, form)
        truths.append(truth)
        for i in range(5):
            order = np.random.default_rng(i).permutation(case.key_channels)
            mixed = replace(
                inputs, key=inputs.key[order], query_key=inputs.query_key[order], selection=inputs.selection[order]
            )
            found = plain_gradients(leaves_of(mixed, form), weight_of(case).float(), case.top_k, form)
            for name, true in truth.items():
                same = true if name in ("value", "shrinkage") else true[:, order]
                if true.numel():
                    error = 2 * float((found[name] - same).abs().max())
                    budget[name] = max(budget[name], error, 1e-6 * float(true.abs().max()))
    return truths, budget


def weight_of(case: Case) -> Tensor:
    size = (1, case.objects, case.value_channels, case.positions)
    return torch.from_numpy(np.random.default_rng(1).normal(size=size))


# Left out: copies, where it is luck which of equal scores plain torch takes; full softmaxes, as plain torch has their
# gradients; and for the kernels hopeless queries: scores of 1e5 round by a hundredth, which is luck that seeds do not
# even out (tests/kernels/test_topk_readout_grad.py has them, with weights given).
CHECKED = [
    pytest.param(case, name, id=f"{case.name}-{name}")
    for case in CASES
    for name in backend.available()
    if case.name != "copies" and (name == "torch" or (case.top_k is not None and case.name != "hopeless queries"))
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("case", "name"), CHECKED)
def test_gradients_when_float32_then_errors_are_at_most_twice_plain_torch(case, form, name):
    truths, budget = truths_and_budget(case, form)
    for seed, truth in zip(SEEDS, truths, strict=True):
        with backend.use(name):
            leaves = leaves_of(case.make(seed), form)
            ours = gradients(leaves, weight_of(case).float(), top_k=case.top_k, similarity=form)
        for leaf, true in truth.items():
            if true.numel():
                assert float((ours[leaf] - true).abs().max()) <= budget[leaf], leaf


@every_backend
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), elements=st.integers(1, 50))
def test_gradients_when_memory_and_queries_move_together_then_nothing_changes(name, top_k, seed, elements):
    """The readout depends on differences of keys alone, and is a mean of values: what gradients sum up to."""
    case = Case("property", elements, 9, key_channels=8, value_channels=6, objects=2)
    leaves, weight = leaves_of(case.make(seed), "anisotropic_l2"), weight_of(case).float()
    with backend.use(name):
        found = gradients(leaves, weight, top_k=top_k)
    key, query = found["key"].sum(2), found["query_key"].sum(2)
    assert torch.allclose(key, -query, atol=1e-5 * float(found["key"].abs().sum(2).max()) + 1e-6)
    assert torch.allclose(found["value"].sum(3), weight.sum(3), atol=1e-4)


@every_backend
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([-3.0, 0.5, 2.0]))
def test_gradients_when_those_of_the_readout_are_scaled_then_so_are_they_in_any_order(name, top_k, seed, scale):
    case = Case("property", 30, 9, key_channels=8, value_channels=6, objects=2)
    inputs, weight = case.make(seed), weight_of(case).float()
    order = np.random.default_rng(seed).permutation(30)
    mixed = replace(
        inputs, key=inputs.key[:, order], value=inputs.value[..., order], shrinkage=inputs.shrinkage[order]
    )
    with backend.use(name):
        found = gradients(leaves_of(inputs, "anisotropic_l2"), weight, top_k=top_k)
        other = gradients(leaves_of(mixed, "anisotropic_l2"), scale * weight, top_k=top_k)
    for leaf, gradient in found.items():
        moved = gradient[..., order] if leaf in ("key", "value", "shrinkage") else gradient
        assert torch.allclose(other[leaf], scale * moved, atol=2e-4 * float(gradient.abs().max()) + 1e-6), leaf


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_when_inputs_are_halves_then_float32_computes_and_halves_return(dtype, name, top_k):
    leaves = random_leaves("anisotropic_l2", dtype)
    wide = {name: leaf.detach().float().requires_grad_() for name, leaf in leaves.items()}
    weight = torch.randn(2, 2, 5, 4).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16), backend.use(name):
        ours = gradients(leaves, weight, top_k=top_k)
    for leaf, true in gradients(wide, weight.float(), top_k=top_k).items():
        assert ours[leaf].dtype == dtype
        assert (ours[leaf].float() - true).abs().max() <= torch.finfo(dtype).eps * true.abs().max()


@every_backend
@pytest.mark.parametrize("form", FORMS)
def test_gradients_when_scores_are_not_finite_then_those_have_no_part(form, name, top_k):
    leaves = random_leaves(form, torch.float32)
    with torch.no_grad():
        leaves["key"][0, 1, 2] = float("nan")
        leaves["key"][0, 0, 4] = float("inf")
        leaves["query_key"][1, 2, 3] = float("nan")
    with backend.use(name):
        found = gradients(leaves, torch.ones(2, 2, 5, 4), top_k=top_k, similarity=form)
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert (found["key"][0, :, [2, 4]] == 0).all()
    assert (found["value"][0, ..., [2, 4]] == 0).all()
    assert (found["query_key"][1, :, 3] == 0).all()


@pytest.mark.parametrize("top_k", [3, None])
def test_gradients_when_computed_in_blocks_then_equal_those_of_one_block(top_k, monkeypatch):
    leaves, weight = random_leaves("anisotropic_l2"), torch.randn(2, 2, 5, 4)
    whole = gradients(leaves, weight, top_k=top_k)
    monkeypatch.setattr(_torch, "_BLOCK", 36)  # three positions at a time
    for name, part in gradients(leaves, weight, top_k=top_k).items():
        assert torch.allclose(part, whole[name], atol=1e-12)


@every_backend
def test_graph_when_a_read_is_differentiable_then_it_holds_no_pair_of_all(name, top_k):
    n, p = 300, 200
    leaves = {
        "key": torch.rand(1, 4, n, requires_grad=True),
        "query_key": torch.rand(1, 4, p, requires_grad=True),
        "value": torch.rand(1, 1, 2, n, requires_grad=True),
    }
    held: list[int] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.numel()) or t, lambda t: t)
    with hooks, backend.use(name):
        result = ops.read_memory(**leaves, top_k=top_k, need_usage=True)
    assert result.readout.requires_grad
    assert result.usage is not None and not result.usage.requires_grad
    assert held and sum(held) <= 2 * (sum(leaf.numel() for leaf in leaves.values()) + 2 * p * (top_k or 0))


@every_backend
def test_gradients_when_a_batch_is_differentiated_then_each_is_as_if_alone(name, top_k):
    leaves, weight = random_leaves("anisotropic_l2", torch.float32), torch.randn(2, 2, 5, 4)
    valid = torch.tensor([[True] * 6, [True, False, True, True, False, True]])
    with backend.use(name):
        both = gradients(leaves, weight, top_k=top_k, valid=valid)
        for b in range(2):
            one = {leaf: t.detach()[b : b + 1].requires_grad_() for leaf, t in leaves.items()}
            for leaf, gradient in gradients(one, weight[b : b + 1], top_k=top_k, valid=valid[b : b + 1]).items():
                assert torch.allclose(both[leaf][b : b + 1], gradient, atol=1e-6)
    assert (both["value"][1, ..., ~valid[1]] == 0).all()


@every_backend
def test_gradients_when_nothing_asks_then_they_are_zeros(name, top_k):
    leaves = {"key": torch.rand(1, 3, 6), "query_key": torch.rand(1, 3, 0), "value": torch.rand(1, 1, 2, 6)}
    leaves = {leaf: t.requires_grad_() for leaf, t in leaves.items()}
    with backend.use(name):
        found = gradients(leaves, torch.ones(1, 1, 2, 0), top_k=top_k, similarity="l2")
    assert all(gradient.shape == leaves[leaf].shape and (gradient == 0).all() for leaf, gradient in found.items())


def test_gradients_when_differentiated_again_then_torch_refuses():
    leaves = random_leaves("l2")
    readout = ops.read_memory(**leaves, similarity="l2").readout
    (gradient,) = torch.autograd.grad(readout.square().sum(), [leaves["key"]], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
