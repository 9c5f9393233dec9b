"""Clicks on pictures whose objects are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.toy import MODELS, tiny_model
from rotomem.errors import MaskError, ShapeError
from rotomem.evaluation.measures import region_similarity
from rotomem.prompts.marks import Prompt, click
from rotomem.prompts.prompter import Prompter
from rotomem.types import Window

H, W = 96, 128


def scene() -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """A picture with two red discs and a blue box on a green texture; where each is."""
    y, x = np.mgrid[:H, :W].astype(np.float32)
    left, right = np.hypot(y - 45, x - 32) < 18, np.hypot(y - 45, x - 92) < 18
    box = (y >= 72) & (y < 90) & (x >= 40) & (x < 90)
    picture = np.stack([0.2 + 0 * x, 0.45 + 0.08 * np.sin(x / 3) * np.cos(y / 4), 0.2 + 0 * x], -1)
    picture[left | right] = 0.8, 0.2, 0.15
    picture[box] = 0.15, 0.2, 0.7
    return picture.astype(np.float32), left, right, box


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    return Prompter(tiny_model(), scene()[0])


def test_masks_when_one_click_then_that_disc_and_not_its_twin(prompter: Prompter):
    _, left, right, _ = scene()
    (mask,) = prompter.masks({"hero": [{"in": [32, 45]}]})
    assert mask.shape == (H, W) and mask.dtype == np.float32 and mask.min() >= 0 and mask.max() <= 1
    assert region_similarity(mask > 0.5, left) > 0.9
    assert mask[right].max() == 0


@pytest.mark.parametrize("name", sorted(MODELS))
def test_masks_when_another_model_looks_then_the_disc_is_found(name: str):
    (mask,) = Prompter(MODELS[name](), scene()[0]).masks({"hero": [{"in": [32, 45]}]})
    assert region_similarity(mask > 0.5, scene()[1]) > 0.85


def test_masks_when_both_twins_are_clicked_then_both(prompter: Prompter):
    _, left, right, _ = scene()
    (mask,) = prompter.masks({"hero": Prompt((click(32, 45), click(92, 45)))})
    assert region_similarity(mask > 0.5, left | right) > 0.9


def test_masks_when_two_objects_then_neither_holds_the_other_and_they_sum_to_one_at_most(prompter: Prompter):
    _, left, _, box = scene()
    hero, car = prompter.masks({"hero": [{"in": [32, 45]}], "car": [{"in": [65, 80]}]})
    assert region_similarity(hero > 0.5, left) > 0.9 and region_similarity(car > 0.5, box) > 0.85
    assert (hero + car).max() <= 1 + 1e-6


def test_masks_when_clicks_come_one_by_one_then_the_answer_is_that_to_all_at_once(prompter: Prompter):
    marks = (click(32, 45), click(92, 45), click(92, 59, False), click(28, 40))
    one_by_one = [prompter.masks({"a": Prompt(marks[:n])})[0] for n in range(1, 5)]
    (at_once,) = Prompter(tiny_model(), scene()[0]).masks({"a": Prompt(marks)})
    assert np.array_equal(one_by_one[-1], at_once)
    (taken_back,) = prompter.masks({"a": Prompt(marks[:2])})
    assert np.array_equal(taken_back, one_by_one[1])
    first, second, third, _ = one_by_one
    assert (second >= first).all() and (third <= second).all() and (third != second).any()


def test_masks_when_another_object_is_marked_later_then_the_first_makes_room(prompter: Prompter):
    both = prompter.masks({"a": [{"in": [32, 45]}, {"in": [92, 45]}], "b": [{"in": [88, 32]}]})
    alone = prompter.masks({"a": [{"in": [32, 45]}, {"in": [92, 45]}]})
    assert alone[0][32, 88] > 0.7 and both[0][32, 88] < 0.1 < 0.9 < both[1][32, 88]


def test_masks_when_clicked_out_then_that_place_is_out(prompter: Prompter):
    (mask,) = prompter.masks({"a": [{"in": [32, 45]}, {"in": [92, 45]}, {"out": [92, 59]}]})
    assert mask[59, 92] < 0.1 and mask[45, 32] > 0.9


def test_masks_when_only_a_box_then_what_stands_out_in_it(prompter: Prompter):
    _, left, _, _ = scene()
    (mask,) = prompter.masks({"a": [{"box": [10, 22, 54, 68]}]})
    assert region_similarity(mask > 0.5, left) > 0.8  # places are 4 pixels wide


def test_masks_when_scribbled_or_painted_then_alike(prompter: Prompter):
    strokes = np.zeros((H, W), np.int8)
    strokes[43:48, 22:43] = 1
    strokes[10:14, 10:60] = -1
    (painted,) = prompter.masks({"a": Prompt(strokes=strokes)})
    (drawn,) = prompter.masks({"a": [{"in": [[24, 45.5], [41, 45.5]]}, {"out": [[12, 12], [58, 12]]}]})
    assert region_similarity(painted > 0.5, drawn > 0.5) > 0.95
    assert region_similarity(painted > 0.5, scene()[1]) > 0.9


def test_masks_when_the_canvas_begins_elsewhere_then_places_move_with_it():
    shifted = Prompter(tiny_model(), scene()[0], canvas=Window(-100, 50, W - 100, H + 50))
    straight = Prompter(tiny_model(), scene()[0])
    a, b = shifted.masks({"a": [{"in": [-68, 95]}]}), straight.masks({"a": [{"in": [32, 45]}]})
    assert np.array_equal(a, b)


def test_masks_when_the_size_is_odd_then_they_have_it():
    picture = scene()[0][:83, :117]
    (mask,) = Prompter(tiny_model(), picture, size=64).masks({"a": [{"in": [32, 45]}]})
    assert mask.shape == (83, 117) and region_similarity(mask > 0.5, scene()[1][:83, :117]) > 0.8


def test_masks_when_a_click_is_off_the_canvas_then_an_error(prompter: Prompter):
    with pytest.raises(MaskError, match="outside"):
        prompter.masks({"a": [{"in": [32, 96]}]})


def test_prompter_when_given_no_picture_then_an_error():
    with pytest.raises(ShapeError, match="expected"):
        Prompter(tiny_model(), np.zeros((3, 8, 8), np.uint8))
