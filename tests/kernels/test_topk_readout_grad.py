"""The definition of the gradients against finite differences of the read, and the native kernel against it."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cases import CASES, Case, reference

kernels = pytest.importorskip("rotomem._kernels", reason="the native kernels are not built")
READ, GRAD = reference("topk_readout"), reference("topk_readout_grad")
NAMES = ("key", "query_key", "value", "shrinkage", "selection")
FORMS = ("anisotropic_l2", "l2", "dot")
every_set = pytest.mark.parametrize("instructions", kernels.instruction_sets())
every_form = pytest.mark.parametrize("form", FORMS)


def given(inputs, form):
    """The inputs that a form takes."""
    return {name: getattr(inputs, name) for name in (NAMES if form == "anisotropic_l2" else NAMES[:3])}


def chosen(inputs, form, top_k):
    """Index and weight [P, k] of a read by the definition."""
    terms = {name: a for name, a in given(inputs, form).items() if name != "value"}
    scores = READ.similarity(**terms, form=form)
    k = min(top_k or scores.shape[0], scores.shape[0])
    index = np.argsort(-scores, axis=0, kind="stable")[:k].T
    weight = np.take_along_axis(READ.weights(scores, k).T, index, 1)
    return np.ascontiguousarray(index, np.int32), weight.astype(np.float32)


def rows(array):
    return np.ascontiguousarray(np.swapaxes(array, -1, -2))


def call(inputs, form, pairs, grad, instructions="auto", threads=1, **change):
    """The native gradients, in the shapes of the inputs; pairs: index and weight."""
    arrays = {name: rows(a) if a.ndim > 1 else a for name, a in given(inputs, form).items()}
    found = {f"grad_{name}": np.full(a.shape, np.nan, np.float32) for name, a in arrays.items()}
    arguments = {
        "index": pairs[0],
        "weight": pairs[1].astype(np.float32),
        "grad_readout": rows(grad),
        "similarity": form,
    }
    kernels.topk_readout_grad(
        **{**arrays, **found, **arguments, "instructions": instructions, "threads": threads, **change}
    )
    return [np.swapaxes(a, -1, -2) if a.ndim > 1 else a for a in found.values()]


@pytest.mark.parametrize("top_k", [3, None])
@every_form
def test_definition_when_inputs_move_then_finite_differences_agree(form, top_k):
    inputs = Case("differences", 7, 4, key_channels=3, value_channels=2, objects=2).make()
    arrays = {name: a.astype(np.float64) for name, a in given(inputs, form).items()}
    rng = np.random.default_rng(0)
    grad = rng.normal(size=(2, 2, 4))
    scores = READ.similarity(**{name: a for name, a in arrays.items() if name != "value"}, form=form)
    index = np.argsort(-scores, axis=0)[:top_k].T
    weight = np.take_along_axis(READ.weights(scores, top_k).T, index, 1)
    found = GRAD.topk_readout_grad(**arrays, grad_readout=grad, index=index, weight=weight, form=form)
    for name, gradient in zip(arrays, found, strict=False):
        direction = rng.normal(size=arrays[name].shape)
        ends = [
            (
                grad
                * READ.topk_readout(**{**arrays, name: arrays[name] + step * direction}, top_k=top_k, form=form)[0]
            ).sum()
            for step in (1e-6, -1e-6)
        ]
        assert (gradient * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6), name


@every_set
@every_form
@pytest.mark.parametrize("case", [c for c in CASES if c.top_k is not None], ids=lambda case: case.name)
def test_gradients_when_compared_with_the_definition_then_they_agree(case, form, instructions):
    inputs = case.make()
    grad = np.random.default_rng(1).normal(size=(*inputs.value.shape[:2], case.positions)).astype(np.float32)
    index, weight = chosen(inputs, form, case.top_k)
    truth = GRAD.topk_readout_grad(**given(inputs, form), grad_readout=grad, index=index, weight=weight, form=form)
    for name, ours, true in zip(NAMES, call(inputs, form, (index, weight), grad, instructions), truth, strict=False):
        assert np.isfinite(ours).all()
        assert np.abs(ours - true).max(initial=0) <= 1e-5 * np.abs(true).max(initial=0) + 1e-12, name


@every_set
def test_gradients_when_threads_differ_then_bytes_do_not(instructions):
    inputs = Case("threads", 900, 300, value_channels=40, objects=2).make()
    grad = np.random.default_rng(1).normal(size=(2, 40, 300)).astype(np.float32)
    index, weight = chosen(inputs, "anisotropic_l2", 30)
    one, *others = (call(inputs, "anisotropic_l2", (index, weight), grad, instructions, n) for n in (1, 2, 3, 50))
    for other in others:
        assert [a.tobytes() for a in other] == [a.tobytes() for a in one]


@every_set
@every_form
def test_gradients_when_places_are_empty_then_they_are_those_without(form, instructions):
    """-1 anywhere in a row; a position that chose nothing; an element that nobody chose."""
    inputs = Case("empty", 20, 9, key_channels=8, value_channels=16).make()
    grad = np.ones((1, 16, 9), np.float32)
    index, weight = chosen(inputs, form, 4)
    wide, share = np.full((9, 6), -1, np.int32), np.zeros((9, 6), np.float32)
    wide[:, [0, 2, 3, 5]], share[:, [0, 2, 3, 5]] = index, weight
    wide[4], share[4] = -1, 0
    found = call(inputs, form, (wide, share), grad, instructions)
    index[4], weight[4] = -1, 0
    for ours, same in zip(found, call(inputs, form, (index, weight), grad, instructions), strict=True):
        assert np.array_equal(ours, same)
    assert (found[1][:, 4] == 0).all()
    alone = np.setdiff1d(np.arange(20), index)
    assert alone.size and (found[0][:, alone] == 0).all() and (found[2][..., alone] == 0).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"query_key": np.zeros((9, 7), np.float32)}, "query_key dimension 1 is 7, expected 8"),
        ({"value": np.zeros((1, 20, 32), np.float32)[..., ::2]}, "rows of value are not contiguous"),
        ({"grad_value": np.zeros((1, 19, 16), np.float32)}, "grad_value dimension 1 is 19, expected 20"),
        ({"shrinkage": None}, "shrinkage and grad_shrinkage come together"),
        ({"grad_selection": None}, "selection and grad_selection come together"),
        ({"shrinkage": np.zeros(3, np.float32)}, "shrinkage N is 3, expected 20"),
        ({"index": np.full((9, 4), 20, np.int32)}, "outside of the memory"),
        ({"index": np.full((9, 4), -2, np.int32)}, "outside of the memory"),
        ({"weight": np.zeros((9, 3), np.float32)}, "weight k is 3, expected 4"),
        ({"similarity": "dot"}, "belong to anisotropic_l2"),
    ],
)
def test_kernel_refuses_what_does_not_fit(change, says):
    inputs = Case("refused", 20, 9, key_channels=8, value_channels=16).make()
    index, weight = chosen(inputs, "anisotropic_l2", 4)
    grad = np.ones((1, 16, 9), np.float32)
    with pytest.raises(ValueError, match=says):
        call(inputs, "anisotropic_l2", (index, weight), grad, **change)
