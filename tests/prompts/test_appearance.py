"""What tells an object from everything else."""

from __future__ import annotations

import torch

from rotomem.prompts.appearance import describe, tell_apart


def picture() -> tuple[torch.Tensor, torch.Tensor]:
    """A red square on noise [3, 20, 30], and where it is."""
    rng = torch.Generator().manual_seed(0)
    colour = 0.3 + 0.1 * torch.rand(3, 20, 30, generator=rng)
    there = torch.zeros(20, 30, dtype=torch.bool)
    there[5:15, 8:20] = True
    colour[0, there] += 0.5
    return colour, there


def test_tell_apart_when_a_few_places_are_hinted_at_then_the_rest_of_that_colour_is_found():
    colour, there = picture()
    hint = torch.zeros(20, 30)
    hint[9:12, 12:15] = 1
    odds = tell_apart(describe(colour, None), hint.flatten(), torch.zeros(600, dtype=torch.bool)).view(20, 30)
    assert odds[there].min() > odds[~there].max()


def test_tell_apart_when_only_features_differ_then_they_tell():
    colour, there = torch.full((3, 20, 30), 0.5), picture()[1]
    rng = torch.Generator().manual_seed(3)
    features = torch.randn(6, 20, 30, generator=rng) + 8 * there
    hint = torch.zeros(20, 30)
    hint[9:12, 12:15] = 1
    odds = tell_apart(describe(colour, features), hint.flatten(), torch.zeros(600, dtype=torch.bool)).view(20, 30)
    assert odds[there].min() > odds[~there].max()


def test_describe_when_a_picture_is_flat_then_nothing_is_not_a_number():
    assert torch.isfinite(describe(torch.full((3, 8, 8), 0.2), torch.zeros(5, 8, 8))).all()
