"""The definitions themselves, from answers known on paper; and that each stands alone."""

from __future__ import annotations

import ast

import numpy as np
import pytest

from kernels.cases import KERNELS, reference

FOLDERS = sorted(p.name for p in KERNELS.iterdir() if p.is_dir() and p.name != "common")


@pytest.mark.parametrize("kernel", FOLDERS)
def test_kernel_is_complete(kernel):
    names = {p.name for p in (KERNELS / kernel).iterdir()}
    assert {f"{kernel}.h", f"{kernel}_cpu.cpp", "reference.py"} <= names
    assert (KERNELS.parent / "ext" / f"bind_{kernel}.cpp").exists()
    assert f"`{kernel}`" in (KERNELS / "README.md").read_text()


@pytest.mark.parametrize("kernel", FOLDERS)
def test_reference_imports_nothing_of_ours(kernel):
    tree = ast.parse((KERNELS / kernel / "reference.py").read_text())
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported <= {"numpy", "__future__"}


def test_similarity_on_paper():
    similarity = reference("topk_readout").similarity
    key, query = [[1.0, 0.0]] * 4, [[3.0]] * 4  # CK = 4, so sqrt(CK) = 2
    assert similarity(key, query, form="dot").tolist() == [[6.0], [0.0]]
    assert similarity(key, query, form="l2").tolist() == [[10.0], [0.0]]
    assert similarity(key, query).tolist() == [[-8.0], [-18.0]]
    assert similarity(key, query, [2.0, 1.0], [[0.5]] * 4).tolist() == [[-8.0], [-9.0]]


def test_weights_on_paper():
    weights = reference("topk_readout").weights
    scores = np.log([[1.0], [3.0], [4.0]])
    assert np.allclose(weights(scores), [[1 / 8], [3 / 8], [4 / 8]])
    assert np.allclose(weights(scores, 2), [[0], [3 / 7], [4 / 7]])
    assert np.allclose(weights(scores, 2, [1, 1, 0]), [[1 / 4], [3 / 4], [0]])
    assert weights(np.zeros((4, 1)), 2)[:, 0].tolist() == [0.5, 0.5, 0, 0]
    assert weights(np.array([[np.nan], [-np.inf]]), 2).sum() == 0
    with pytest.raises(ValueError, match="no memory"):
        weights(scores, 2, [0, 0, 0])


def test_prototypes_on_paper():
    module = reference("consolidate")
    assert module.most_used([1, 3, np.nan, 3], 3).tolist() == [1, 3, 0]
    assert module.most_used([1, 3, np.nan, 3], 3, [1, 0, 1, 1]).tolist() == [3, 0, 2]
    key = np.array([[0.0, np.log(2.0) ** 0.5, 50.0]])  # scores of the first: 0, -ln 2, far below
    made = module.consolidate(key, [1, 1, 1], [[[3.0, 6.0, 99.0]]], [[1.0, 1.0, 1.0]], [0])
    assert np.allclose(made[2], [[[4.0]]])
    assert np.allclose(made[0], 0)
