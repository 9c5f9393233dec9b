"""Simulated clicks."""

from __future__ import annotations

import numpy as np
import pytest

from rotomem.errors import ShapeError
from rotomem.evaluation.clicks import answer_clicks, interior_distance, next_click
from rotomem.prompts.marks import click


def test_interior_distance_when_compared_with_every_pixel_then_equal():
    mask = np.random.default_rng(0).random((13, 17)) > 0.15
    ys, xs = np.mgrid[-1:14, -1:18]
    outside = ~np.pad(mask, 1)
    points = np.stack([ys[outside], xs[outside]], -1)
    expected = np.array([[np.hypot(*(points - (y, x)).T).min() for x in range(17)] for y in range(13)])
    assert np.allclose(interior_distance(mask), expected)
    assert not interior_distance(np.zeros((3, 4), bool)).any()


def test_next_click_when_nothing_was_answered_then_the_middle_of_the_object():
    truth = np.zeros((30, 40), bool)
    truth[5:20, 10:25] = True
    assert next_click(truth, np.zeros_like(truth)) == click(17.5, 12.5)


def test_next_click_when_the_larger_error_is_outside_then_it_says_so():
    truth, mask = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    truth[5:20, 5:20] = mask[5:20, 7:20] = mask[8:17, 28:37] = True
    assert next_click(truth, mask) == click(32.5, 12.5, False)
    assert next_click(truth, truth) is None
    with pytest.raises(ShapeError):
        next_click(truth, mask[:20])


def test_answer_clicks_when_each_click_paints_a_square_then_j_grows_until_nothing_is_left():
    truth = np.zeros((20, 40), bool)
    truth[5:14, 3:12] = truth[5:14, 23:32] = True

    def paint(marks):
        mask = np.zeros_like(truth)
        for mark in marks:
            ((x, y),) = mark.points
            mask[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5] = True
        return mask

    answers = answer_clicks(paint, truth, 4)
    assert answers.j == (0.5, 1.0, 1.0, 1.0) and len(answers.clicks) == 2
