"""How keys cut a shot, and from where every object is followed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotomem.engine.segments import Origin, Segment, Timeline, plan_segments
from rotomem.types import KeyMask

FRAMES = tuple(range(1, 21))


def cut(keys: dict[int, tuple[int, ...]], objects: tuple[int, ...] = (1,), **options: int) -> tuple[Segment, ...]:
    return plan_segments(FRAMES, keys, objects, **options)


def test_plan_segments_when_one_key_then_a_head_and_a_tail() -> None:
    head, tail = cut({8: (1,)})
    assert head == Segment(tuple(range(1, 8)), None, 8) and tail == Segment(tuple(range(9, 21)), 8, None)


def test_plan_segments_when_keys_are_at_the_ends_and_beside_each_other_then_nothing_is_empty() -> None:
    (one,) = cut({1: (1,), 2: (1,), 20: (1,)})
    assert one.frames == tuple(range(3, 20)) and (one.left, one.right) == (2, 20) and one.seen == (1,)


@pytest.mark.parametrize(("neighbours", "seen"), [(0, ()), (1, (5, 17)), (2, (2, 5, 17)), (9, (2, 5, 17))])
def test_plan_segments_when_neighbours_are_asked_then_so_many_keys_beyond_either_end(
    neighbours: int, seen: tuple[int, ...]
) -> None:
    keys = dict.fromkeys((2, 5, 9, 13, 17), (1,))
    (segment,) = (s for s in cut(keys, neighbours=neighbours) if s.left == 9)
    assert segment.seen == seen and segment.keys == tuple(sorted({9, 13, *seen}))


def test_plan_segments_when_a_key_speaks_for_some_then_it_lies_inside() -> None:
    keys = {1: (1, 2), 5: (1,), 10: (2, 1), 12: (2,), 15: (3,)}
    middle, tail = cut(keys, (1, 2))
    assert (middle.left, middle.inner, middle.right) == (1, (5,), 10)
    assert (tail.left, tail.inner, tail.right, tail.seen) == (10, (12,), None, (1,))
    (every,) = cut({3: (1,), 9: (2,)}, (1, 2))
    assert every == Segment(FRAMES, None, None, (3, 9))


@given(
    st.dictionaries(st.sampled_from(FRAMES), st.sets(st.sampled_from((1, 2)), min_size=1), min_size=1),
    st.integers(0, 3),
)
def test_plan_segments_when_keys_are_anywhere_then_every_frame_is_in_one_segment_or_drawn_whole(
    keys: dict[int, set[int]], neighbours: int
) -> None:
    segments = plan_segments(FRAMES, keys, (1, 2), neighbours=neighbours)
    whole = [f for f, objects in keys.items() if objects == {1, 2}]
    assert sorted([f for s in segments for f in s.frames] + whole) == list(FRAMES)
    for s in segments:
        assert not set(s.frames) & set(whole) and set(s.inner) == set(s.frames) & set(keys)
        assert len(s.seen) <= 2 * neighbours and not set(s.seen) & set(s.frames)


def key(frame: int, **shown: bool) -> KeyMask:
    """Of objects o1, o2: True draws a pixel, False none."""
    alpha = np.stack([np.full((2, 2), float(there), np.float32) for there in shown.values()])
    return KeyMask(frame, tuple(int(name[1:]) for name in shown), alpha)


def test_timeline_when_an_object_leaves_by_an_empty_key_then_absent_to_the_next_that_shows_it() -> None:
    keys = {k.frame: k for k in (key(5, o1=True, o2=True), key(9, o1=False), key(12, o2=True), key(15, o1=True))}
    line = Timeline.of(1, keys)
    assert [f for f in FRAMES if line.is_absent(f)] == list(range(9, 15))
    assert [f for f in FRAMES if line.is_key(f)] == [5, 9, 15]
    assert line.forward(4) is None and line.backward(4) == Origin(1, False)
    assert line.forward(8) == Origin(3, False) and line.backward(8) is None, "nothing comes back from an empty key"
    assert line.forward(14) is None and line.backward(14) == Origin(1, False)
    assert line.forward(20) == Origin(5, False) and line.backward(20) is None


def test_timeline_when_the_first_key_is_empty_then_absent_before_it_too() -> None:
    line = Timeline.of(1, {4: key(4, o1=False), 8: key(8, o1=True)})
    assert [f for f in FRAMES if line.is_absent(f)] == list(range(1, 8))
    assert Timeline.of(3, {}).is_absent(7)


def test_timeline_when_absence_is_declared_then_what_crosses_it_says_so() -> None:
    line = Timeline.of(1, {2: key(2, o1=True), 18: key(18, o1=True)}, absent=[8, 9, 18])
    assert [f for f in FRAMES if line.is_absent(f)] == [8, 9], "a key that shows the object is believed"
    assert line.forward(7) == Origin(5, False) and line.backward(7) == Origin(11, True)
    assert line.forward(10) == Origin(8, True) and line.backward(10) == Origin(8, True)
