"""Where windows lie: around the objects, of one size, moving seldom and by whole elements."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotomem.engine.roi import Region, extent, fixed_region, moved, plan_region, scout_size
from rotomem.errors import UsageError
from rotomem.types import Window

UHD = Window(0, 0, 3840, 2160)


def box(x: int, y: int, width: int, height: int) -> Window:
    return Window(x, y, x + width, y + height)


def moves(region: Region) -> int:
    """How often the window moves."""
    return sum(a != b for a, b in pairwise(region.windows[f] for f in sorted(region.windows)))


def planned(extents: dict[int, Window | None], canvas: Window = UHD, **options: Any) -> Region:
    region = plan_region(extents, canvas, **{"size": 480, "stride": 16, **options})
    assert region is not None
    return region


def test_extent_when_matte_is_small_then_the_box_is_in_pixels_of_the_plate() -> None:
    matte = np.zeros((20, 40), np.float32)
    matte[4:6, 10:13] = 1
    assert extent([matte], Window(100, 50, 180, 90), drawn=True) == Window(120, 58, 126, 62)


def test_extent_when_a_speck_is_far_away_then_it_counts_only_where_it_was_drawn() -> None:
    matte = np.zeros((100, 100), np.float32)
    matte[40:60, 40:60] = 1
    matte[5, 90] = 0.9
    canvas = Window(0, 0, 100, 100)
    assert extent([matte], canvas) == Window(40, 40, 60, 60)
    assert extent([matte], canvas, drawn=True) == Window(40, 5, 91, 60)


def test_extent_when_a_small_thing_is_seen_faintly_then_it_is_there_all_the_same() -> None:
    matte = np.full((20, 40), 0.01, np.float32)
    matte[4:6, 10:13] = 0.2
    assert extent([matte], Window(0, 0, 40, 20)) == Window(10, 4, 13, 6)


def test_extent_when_nothing_is_likely_then_none() -> None:
    assert extent([np.full((8, 8), 0.05, np.float32)], Window(0, 0, 8, 8)) is None
    assert extent([np.zeros((8, 8), np.float32)], Window(0, 0, 8, 8), drawn=True) is None
    assert extent([], Window(0, 0, 8, 8)) is None


def test_plan_when_the_actor_is_small_then_it_is_seen_at_native_resolution() -> None:
    region = planned({1: box(1000, 900, 120, 260)})
    window, g = region.windows[1], region.geometry
    assert (g.h, g.w) == (window.height, window.width)
    assert window.intersect(box(1000, 900, 120, 260)) == box(1000, 900, 120, 260)
    assert g.h % 16 == g.w % 16 == 0


def test_plan_when_the_actor_is_larger_then_a_window_costs_no_more_than_the_whole_frame() -> None:
    g = planned({1: box(1000, 300, 900, 1300)}).geometry
    assert g.h * g.w <= 480 * 853
    assert 480 / 2160 < g.h / g.height < 1


def test_plan_when_objects_fill_the_plate_then_none() -> None:
    assert plan_region({1: box(200, 100, 3300, 1900)}, UHD, size=480, stride=16) is None
    assert plan_region({1: None}, UHD, size=480, stride=16) is None


def test_plan_when_the_whole_frame_is_seen_as_finely_then_none() -> None:
    small = {1: box(100, 100, 60, 60)}
    assert plan_region(small, Window(0, 0, 854, 480), size=480, stride=16) is None
    assert plan_region(small, Window(0, 0, 854, 480), size=240, stride=16) is not None


def test_plan_when_the_object_trembles_then_the_window_stands_still() -> None:
    trembling = {f: box(1000 + 20 * (f % 2), 900 - 15 * (f % 3), 200, 200) for f in range(20)}
    assert moves(planned(trembling)) == 0


def test_plan_when_the_object_walks_then_the_window_moves_by_whole_elements_and_seldom() -> None:
    walking = {f: box(500 + 9 * f, 900, 200, 300) for f in range(100)}
    region = planned(walking)
    assert 2 <= moves(region) <= 15
    for f in range(1, 100):
        down, right = moved(region.windows[f - 1], region.windows[f], (region.geometry.h, region.geometry.w), 16)
        assert down == 0
        assert region.windows[f].x0 - region.windows[f - 1].x0 == 16 * right


def test_plan_when_the_window_may_not_move_then_one_holds_all_frames() -> None:
    region = planned({f: box(500 + 9 * f, 900, 200, 300) for f in range(100)}, moving=False)
    assert moves(region) == 0
    assert box(500, 900, 1091, 300).intersect(region.windows[0]) == box(500, 900, 1091, 300)


def test_plan_when_the_object_is_lost_then_the_window_waits_where_it_was() -> None:
    region = planned({1: box(500, 500, 100, 100), 2: None, 3: None, 4: box(2500, 500, 100, 100)})
    assert region.windows[1] == region.windows[2] == region.windows[3] != region.windows[4]


def test_plan_when_pixels_are_wide_then_the_picture_is_square_again() -> None:
    region = planned({1: box(400, 500, 100, 300)}, Window(0, 0, 1828, 1556), pixel_aspect=2.0)
    g = region.geometry
    assert g.w / g.width == 2 * g.h / g.height


@given(
    st.lists(
        st.none() | st.tuples(st.integers(0, 700), st.integers(0, 500), st.integers(1, 300), st.integers(1, 220)),
        min_size=1,
        max_size=12,
    ),
    st.integers(64, 400),
)
def test_plan_when_objects_are_anywhere_then_windows_hold_them_on_the_canvas(
    boxes: list[tuple[int, int, int, int] | None], size: int
) -> None:
    canvas = Window(-7, 11, 1001, 733)
    extents = {f: None if b is None else box(*b).intersect(canvas) for f, b in enumerate(boxes)}
    extents = {f: b for f, b in extents.items() if b is None or not b.empty}
    region = plan_region(extents, canvas, size=size, stride=16)
    if region is None:
        return
    for f, b in extents.items():
        window = region.windows[f]
        assert (window.width, window.height) == (region.geometry.width, region.geometry.height)
        assert window.intersect(canvas) == window
        assert b is None or b.intersect(window) == b


def test_fixed_when_it_reaches_beyond_the_plate_then_only_what_lies_on_it() -> None:
    region = fixed_region([1, 2], Window.parse("1000x600+3400+100"), UHD, size=None)
    assert region.windows == {1: Window(3400, 100, 3840, 700), 2: Window(3400, 100, 3840, 700)}
    assert fixed_region([1], Window.parse("1920x1080+0+0"), UHD, size=480).geometry.h == 480


def test_fixed_when_it_misses_the_plate_then_said() -> None:
    with pytest.raises(UsageError, match=r"100x100\+5000\+0 lies outside"):
        fixed_region([1], Window.parse("100x100+5000+0"), UHD, size=480)


@pytest.mark.parametrize("text", ["", "auto", "10x10", "0x10+0+0", "10x10+0+0+0", "ax10+1+1"])
def test_window_when_the_spelling_is_none_then_said(text: str) -> None:
    with pytest.raises(UsageError, match="no window"):
        Window.parse(text)


def test_window_when_spelled_then_it_reads_back() -> None:
    assert str(Window.parse("640x480-12+7")) == "640x480-12+7"


def test_scout_when_the_object_is_small_then_it_looks_closer_but_never_closer_than_the_run() -> None:
    assert scout_size([box(0, 0, 900, 900)], UHD, 480) == 240
    assert scout_size([box(0, 0, 250, 250)], UHD, 480) == math.ceil(40 / 250 * 2160)
    assert scout_size([box(0, 0, 20, 20)], UHD, 480) == 480
    assert scout_size([], UHD, 200) == 200
