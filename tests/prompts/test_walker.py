"""The random walker against a dense solution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rotomem.prompts.walker import GridWeights, walk


def dense(weights: GridWeights) -> Tensor:
    """The Laplacian [N, N] float64, edge by edge."""
    h, w = weights.right.shape[0], weights.down.shape[1]
    out = torch.zeros(h * w, h * w, dtype=torch.float64)
    edges = [(y * w + x, y * w + x + 1, weights.right[y, x]) for y in range(h) for x in range(w - 1)]
    edges += [(y * w + x, y * w + x + w, weights.down[y, x]) for y in range(h - 1) for x in range(w)]
    for a, b, weight in edges:
        out[a, a] += weight
        out[b, b] += weight
        out[a, b] -= weight
        out[b, a] -= weight
    return out


@pytest.mark.parametrize("size", [(7, 9), (1, 6), (5, 1)])
def test_walk_when_solved_densely_then_they_agree(size: tuple[int, int]):
    rng = torch.Generator().manual_seed(1)
    weights = GridWeights.of(torch.rand(3, *size, generator=rng), 2.0)
    prior = torch.rand(*size, generator=rng)
    strength = 0.1 + 50.0 * (torch.rand(*size, generator=rng) > 0.9)
    matrix = dense(weights) + torch.diag(strength.flatten().double())
    expected = torch.linalg.solve(matrix, (strength * prior).flatten().double()).view(size)
    assert torch.allclose(
        weights.laplacian(prior).flatten().double(), dense(weights) @ prior.flatten().double(), atol=1e-5
    )
    assert (walk(weights, prior, strength) - expected).abs().max() < 5e-3


def test_walk_when_the_prior_is_even_then_it_stays():
    weights = GridWeights.of(torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(2)), 2.0)
    even = torch.full((6, 6), 0.3)
    assert torch.allclose(walk(weights, even, torch.full((6, 6), 0.2)), even, atol=1e-4)


def test_walk_when_seeds_face_each_other_then_the_picture_edge_divides_them():
    picture = torch.zeros(1, 9, 16)
    picture[:, :, 10:] = 1
    prior, strength = torch.full((9, 16), 0.5), torch.full((9, 16), 1e-3)
    for column, value in ((2, 1.0), (13, 0.0)):
        prior[4, column], strength[4, column] = value, 50.0
    mask = walk(GridWeights.of(picture, 20.0), prior, strength)
    assert (mask[:, :10] > 0.5).all() and (mask[:, 10:] < 0.5).all()
