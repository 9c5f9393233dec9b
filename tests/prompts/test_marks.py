"""What an artist says without drawing: read, checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from rotomem.errors import MaskError
from rotomem.prompts.marks import (
    Mark,
    Prompt,
    as_json,
    as_prompts,
    check_prompts,
    click,
    read_prompts,
    read_scribbles,
)
from rotomem.types import Window

CANVAS = Window(0, 0, 40, 20)


def test_as_prompts_when_points_and_lists_of_points_then_clicks_and_scribbles_in_their_order():
    said = [{"in": [4, 5]}, {"out": [9, 9]}, {"in": [[1, 2], [3, 4.5]], "radius": 2}, {"box": [0, 1, 20.5, 10]}]
    hero = as_prompts({"hero": said})["hero"]
    assert hero.marks == (click(4, 5), click(9, 9, False), Mark(((1.0, 2.0), (3.0, 4.5)), True, 2.0))
    assert hero.box == Window(0, 1, 21, 10)
    assert as_prompts(as_json({"hero": hero})) == {"hero": hero}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([], "name no object"),
        ({"hero": {"in": [1, 2]}}, "hero has {'in'"),
        ({"hero": [[1, 2]]}, "hero has [1, 2]"),
        ({"hero": [{"inside": [1, 2]}]}, "hero has {'inside'"),
        ({"hero": [{"in": [1, 2], "out": [3, 4]}]}, "hero has {'in': [1, 2], 'out'"),
        ({"hero": [{"in": [1]}]}, "'in' of hero is [1]"),
        ({"hero": [{"in": [1, "2"]}]}, "'in' of hero is"),
        ({"hero": [{"out": []}]}, "'out' of hero is []"),
        ({"hero": [{"in": [1, float("nan")]}]}, "'in' of hero is"),
        ({"hero": [{"in": [1, 2], "radius": 0}]}, "radius of hero is 0"),
        ({"hero": [{"box": [5, 5, 5, 9]}]}, "box of hero is"),
    ],
)
def test_as_prompts_when_malformed_then_it_says_whose(told, said):
    with pytest.raises(MaskError) as raised:
        as_prompts(told)
    assert said in str(raised.value)


def test_read_prompts_when_the_file_is_no_json_then_it_is_named(tmp_path: Path):
    path = tmp_path / "clicks.json"
    with pytest.raises(MaskError, match=r"cannot read.*clicks\.json"):
        read_prompts(path)
    path.write_text("{")
    with pytest.raises(MaskError, match=r"no JSON.*clicks\.json"):
        read_prompts(path)
    path.write_text(json.dumps({"car": [{"in": [1, 2]}]}))
    assert read_prompts(path) == {"car": Prompt((click(1, 2),))}


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({}, "nothing was marked"),
        ({"a": Prompt((click(1, 1, False),))}, "a has no mark on it"),
        ({"a": Prompt((click(40, 1),))}, "at 40,1 lies outside of the plate's 40x20+0+0"),
        ({"a": Prompt((click(1, 1), click(1, 1, False)))}, "marked in and out at 1,1"),
        ({"a": Prompt((click(1, 1),)), "b": Prompt((click(1, 1),))}, "a and b are both marked at 1,1"),
        ({"a": Prompt(box=Window(50, 0, 60, 9))}, "box of a lies outside"),
    ],
)
def test_check_prompts_when_they_cannot_be_answered_then_one_clear_error(prompts, said):
    with pytest.raises(MaskError) as raised:
        check_prompts(prompts, CANVAS)
    assert said in str(raised.value)


def test_check_prompts_when_the_canvas_begins_elsewhere_then_places_count_on_it():
    check_prompts({"a": Prompt((click(-3, 2),))}, Window(-8, 0, 32, 20))
    with pytest.raises(MaskError, match="outside"):
        check_prompts({"a": Prompt((click(33, 2),))}, Window(-8, 0, 32, 20))


def painted(path: Path, channels: int = 4) -> Path:
    """A red stroke, a green one of nearly the same size, a black one, a trace of blue; 20 x 40."""
    pixels = np.zeros((20, 40, 4), np.uint8)
    pixels[2:4, 2:20] = 255, 0, 0, 255
    pixels[8:10, 2:18] = 0, 255, 0, 255
    pixels[14:16, 2:30] = 0, 0, 0, 255
    pixels[2, 2] = 0, 0, 255, 255
    pixels[4, 2:20] = 255, 0, 0, 60  # the brush's soft edge
    image = oiio.ImageBuf(np.ascontiguousarray(pixels[..., :channels]))
    assert image.write(str(path))
    return path


def test_read_scribbles_when_painted_in_colours_then_each_is_an_object_and_dark_is_beside(tmp_path: Path):
    read = read_scribbles(painted(tmp_path / "a.png"), CANVAS)
    assert list(read) == ["ff0000", "00ff00"]
    red = read["ff0000"].strokes
    assert red is not None and red.dtype == np.int8
    assert (red[2:4, 3:20] == 1).all() and (red[14:16, 2:30] == -1).all()
    assert (red == 1).sum() == 2 * 18 - 1 and (red == -1).sum() == 2 * 28


def test_read_scribbles_when_they_cannot_be_meant_then_it_says_why(tmp_path: Path):
    with pytest.raises(MaskError, match="the plate is 41x20"):
        read_scribbles(painted(tmp_path / "a.png"), Window(0, 0, 41, 20))
    with pytest.raises(MaskError, match="channels R, G, B"):
        read_scribbles(painted(tmp_path / "b.png", channels=3), CANVAS)
    empty = oiio.ImageBuf(np.zeros((20, 40, 4), np.uint8))
    assert empty.write(str(tmp_path / "c.png"))
    with pytest.raises(MaskError, match="mark no object"):
        read_scribbles(tmp_path / "c.png", CANVAS)
