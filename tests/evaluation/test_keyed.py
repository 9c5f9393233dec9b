"""Sequences tracked from several keys: where keys lie, which frames count, and that more keys help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.shots import write
from engine.sixth import Sixth
from rotomem.engine.session import Session
from rotomem.errors import InputError
from rotomem.evaluation import davis, keyed


def sequence(root: Path, frames: int = 7, late: int = 4) -> davis.VideoSequence:
    """A square that moves, and one that is seen from frame `late` on."""
    for i in range(frames):
        labels = np.zeros((48, 64), np.uint8)
        labels[10:22, 4 + 4 * i : 16 + 4 * i] = 1
        if i >= late:
            labels[30:44, 40:54] = 2
        write(root / "JPEGImages" / "square" / f"{i:05d}.png", davis.palette()[labels])
        davis.write_labels(root / "Annotations" / "square" / f"{i:05d}.png", labels)
    (found,) = davis.find_sequences(root)
    return found


@pytest.mark.parametrize(("count", "keys"), [(1, [10]), (2, [10, 19]), (3, [10, 14, 19]), (10, list(range(10, 20)))])
def test_spread_when_keys_are_asked_then_evenly_and_the_ends_first(count: int, keys: list[int]) -> None:
    assert keyed.spread(count, range(10, 20)) == keys


def test_spread_when_there_are_fewer_annotations_then_input_error() -> None:
    with pytest.raises(InputError, match="3 keys on 2 annotated frames"):
        keyed.spread(3, [0, 5])


def test_true_keys_when_objects_come_and_go_then_each_is_drawn_where_it_is_first_seen() -> None:
    shown = {0: (1,), 1: (1, 2), 2: (2,), 3: (1, 2), 4: (1,)}
    keys = keyed.true_keys({0, 2, 4}, range(5), lambda f: np.array([[0, *shown[f]]], np.uint8))
    assert {f: key.objects for f, key in keys.items()} == {0: (1,), 1: (2,), 2: (2,), 4: (1, 2)}
    assert not keys[4].alpha[1].any(), "who is not on the last frame is gone"


def test_run_keyed_when_keys_are_more_then_fewer_frames_count_and_overlap_grows(tmp_path: Path) -> None:
    def run(count: int, **options: object) -> davis.SequenceScore:
        return keyed.run_keyed(sequence(tmp_path), lambda: Session(Sixth(), size=None), count, **options)  # type: ignore[arg-type]

    one, three = run(1), run(3)
    assert [o.frames for o in one.objects] == [4, 1], "neither end counts, nor a key, nor what lies before it"
    assert [o.frames for o in three.objects] == [3, 1] and [o.key_frame for o in three.objects] == [0, 4]
    again = run(1, skip={3})
    assert again.objects[0].frames == 3 and three.objects[0].jf > again.objects[0].jf
    assert one.cost.steps == 7 + 5, "forward to the end, backward for the object that came late"
