"""Passes over a segment: what is stepped and remembered, and what comes of both directions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rotomem.engine.passes import Shot, plan_pass, track_segment
from rotomem.engine.segments import plan_segments
from rotomem.engine.session import Session
from rotomem.engine.store import StoredFrame
from rotomem.types import KeyMask, Window

from .toy import MODELS, labels, picture

FRAMES = tuple(range(1, 13))
BOUNDED: dict[str, Any] = dict(mem_every=1, min_working_frames=2, max_working_frames=4, prototypes=6)
BOX = {1: (4, 4, 14), 2: (28, 40, 14)}


def key(frame: int, *objects: int, empty: Sequence[int] = ()) -> KeyMask:
    """Boxes of the objects; those in `empty` are drawn as absent."""
    alpha = [labels((1, *BOX[i])).astype(np.float32) * (i not in empty) for i in objects]
    return KeyMask(frame, objects, np.stack(alpha))


class Drift:
    """Drifting waves as footage; `missing` frames have no picture."""

    size = (48, 64)

    def __init__(self, name: str = "sixth", missing: Sequence[int] = ()) -> None:
        self.model, self.missing = MODELS[name](), missing
        self.taken: list[int] = []

    def session(self) -> Session:
        return Session(self.model, size=None, **BOUNDED)

    def pictures(self, frames):
        for frame in frames:
            yield frame, None if frame in self.missing else picture(frame)
            self.taken.append(frame)

    def window(self, frame: int) -> Window:
        return Window(0, 0, 64, 48)

    def masks(self, key: KeyMask) -> np.ndarray:
        return key.alpha

    def mattes(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities


def tracked(shot: Shot, footage: Drift, scratch: Path, **options: Any) -> dict[int, StoredFrame]:
    drawn = {f: k.objects for f, k in shot.keys.items()}
    told = {}
    for segment in plan_segments(FRAMES, drawn, shot.objects):
        for stored in track_segment(shot, segment, footage, scratch, **options):
            assert stored.frame not in told
            told[stored.frame] = stored
    return told


def test_plan_pass_when_keys_are_at_both_ends_then_the_far_one_and_neighbours_are_primed() -> None:
    shot = Shot.of([1], {f: key(f, 1) for f in (1, 4, 8, 11)})
    middle = next(s for s in plan_segments(FRAMES, dict.fromkeys(shot.keys, (1,)), [1]) if s.left == 4)
    forward = plan_pass(shot, middle, {5, 6}, forward=True)
    backward = plan_pass(shot, middle, {6}, forward=False)
    assert forward is not None and forward.frames == (4, 5, 6) and forward.primed == (1, 8, 11)
    assert backward is not None and backward.frames == (8, 7, 6) and backward.primed == (1, 4, 11)
    assert plan_pass(shot, middle, set(), forward=True) is None


def test_plan_pass_when_an_object_is_drawn_late_then_it_is_fed_from_its_key_on() -> None:
    shot = Shot.of([1, 2], {1: key(1, 1), 6: key(6, 2), 9: key(9, 1, empty=[1])})
    (segment,) = plan_segments(FRAMES, {f: k.objects for f, k in shot.keys.items()}, [1, 2])
    forward = plan_pass(shot, segment, set(range(2, 13)), forward=True)
    assert forward is not None and forward.frames == FRAMES and forward.primed == ()
    assert [f for f in FRAMES if 2 in forward.absent[f]] == [1, 2, 3, 4, 5]
    assert [f for f in FRAMES if 1 in forward.absent[f]] == [10, 11, 12], "on 9 its empty key says so itself"
    backward = plan_pass(shot, segment, {2, 3, 4, 5}, forward=False)
    assert backward is not None and backward.frames == (6, 5, 4, 3, 2)
    assert all(1 in backward.absent[f] for f in backward.frames), "the backward pass meets its key last"


def test_plan_pass_when_nobody_is_there_then_frames_are_passed_over() -> None:
    shot = Shot.of([1], {1: key(1, 1)}, absent={1: range(4, 10)})
    (tail,) = plan_segments(FRAMES, {1: (1,)}, [1])
    plan = plan_pass(shot, tail, {2, 3, 10, 11}, forward=True)
    assert plan is not None and plan.frames == (1, 2, 3, 10, 11)


@pytest.mark.parametrize("name", MODELS)
def test_track_segment_when_two_keys_then_both_passes_have_their_say_for_every_model(
    name: str, tmp_path: Path
) -> None:
    shot = Shot.of([1, 2], {f: key(f, 1, 2) for f in (1, 6)})
    ends = {1: Shot.of([1, 2], {1: shot.keys[1]}), 6: Shot.of([1, 2], {6: shot.keys[6]})}
    both, again = (tracked(shot, Drift(name), tmp_path, wanted={3, 4}) for _ in range(2))
    assert sorted(both) == [3, 4]
    for frame, stored in both.items():
        assert stored.mattes.keys() == again[frame].mattes.keys()
        assert all(np.array_equal(m, again[frame].mattes[i]) for i, m in stored.mattes.items())
        assert sum(stored.mattes.values(), np.zeros((48, 64))).max() <= 1 + 1e-4
    one = {at: tracked(end, Drift(name), tmp_path, wanted={3}) for at, end in ends.items()}
    between = both[3].mattes[1]
    assert not np.array_equal(between, one[1][3].mattes[1]) and not np.array_equal(between, one[6][3].mattes[1])


def test_track_segment_when_one_direction_is_asked_then_the_blend_lies_between_the_two(tmp_path: Path) -> None:
    shot = Shot.of([1], {f: key(f, 1) for f in (1, 12)})
    both, there, back = (tracked(shot, Drift(), tmp_path, direction=d) for d in ("both", "forward", "backward"))
    for frame in range(2, 12):
        low, high = (of(there[frame].mattes[1], back[frame].mattes[1]) for of in (np.minimum, np.maximum))
        assert (low - 2e-3 <= both[frame].mattes[1]).all() and (both[frame].mattes[1] <= high + 2e-3).all()
    off = [[np.abs(both[f].mattes[1] - one[f].mattes[1]).mean() for f in (2, 11)] for one in (there, back)]
    assert off[0][0] < off[1][0] and off[1][1] < off[0][1], "beside a key its own pass leads"


def test_track_segment_when_frames_are_wanted_then_passes_go_no_further(tmp_path: Path) -> None:
    shot, footage = Shot.of([1], {6: key(6, 1)}), Drift()
    told = tracked(shot, footage, tmp_path, wanted={4, 8})
    assert sorted(told) == [4, 8] and footage.taken == [6, 5, 4, 6, 7, 8]


def test_track_segment_when_there_is_no_picture_or_no_object_then_nothing_is_told(tmp_path: Path) -> None:
    shot = Shot.of([1, 2], {1: key(1, 1, 2)}, absent={1: [4, 5], 2: [5]})
    told = tracked(shot, footage := Drift(missing=[3]), tmp_path)
    assert sorted(told) == list(range(2, 13)) and told[3].mattes == told[5].mattes == {}
    assert set(told[4].mattes) == {2} and 2 in told[6].mattes
    assert 5 not in footage.taken
