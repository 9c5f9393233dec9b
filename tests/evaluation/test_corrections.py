"""Keys where quality control says, against keys placed evenly."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from engine.shots import write
from engine.toy import tiny_model
from rotomem.engine.session import Session
from rotomem.errors import InputError
from rotomem.evaluation import corrections, davis
from rotomem.quality.suggest import Curve


def sequence(root: Path, frames: int) -> davis.VideoSequence:
    """A square that moves."""
    for i in range(frames):
        labels = np.zeros((48, 64), np.uint8)
        labels[10:34, 4 + 3 * i : 28 + 3 * i] = 1
        write(root / "JPEGImages" / "square" / f"{i:05d}.png", davis.palette()[labels])
        davis.write_labels(root / "Annotations" / "square" / f"{i:05d}.png", labels)
    (found,) = davis.find_sequences(root)
    return found


def test_run_corrections_when_done_then_both_ways_have_as_many_keys_and_are_measured_on_the_same_frames(
    tmp_path: Path,
) -> None:
    told: list[tuple[str, int]] = []
    result = corrections.run_corrections(
        sequence(tmp_path, 9),
        lambda: Session(tiny_model(), size=None),
        2,
        on_track=lambda place, keys: told.append((place, keys)),
    )
    assert result.keys["first"] == (0,) and result.keys["even"] == (0, 3, 6)
    assert len(set(result.keys["quality"])) == 3 and result.keys["quality"][0] == 0
    assert told == [("quality", 1), ("quality", 2), ("quality", 3), ("even", 3)]
    drawn = {*result.keys["even"], *result.keys["quality"]}
    for place in corrections.PLACES:
        assert {s.frame for s in result.scores[place]} == set(range(9)) - drawn
        assert all(0 <= s.confidence <= 1 for s in result.scores[place])
    told_all = corrections.as_dict([result])
    assert told_all["all"]["jf"] == told_all["sequences"][0]["jf"]
    assert set(told_all["all"]["calibration"]["first"]) == {"rank", "j_flagged", "j_others", "flagged"}


def test_run_corrections_when_the_sequence_is_short_then_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="5 frames are too few for 2 corrections"):
        corrections.run_corrections(sequence(tmp_path, 5), lambda: Session(tiny_model(), size=None), 2)


def test_even_frames_when_the_tail_has_one_key_then_it_is_half_a_gap() -> None:
    assert corrections.even_frames(101, 2) == (0, 40, 80)


def test_worst_frame_when_nothing_is_in_doubt_then_the_widest_gap_is_parted() -> None:
    curve = Curve("1", tuple(range(21)), np.ones(21), frozenset({0, 12}))
    assert corrections.worst_frame([curve], [0, 12]) == 20
    assert corrections.worst_frame([Curve("1", tuple(range(15)), np.ones(15), frozenset({0, 12}))], [0, 12]) == 6


def test_spearman_when_counted_by_hand_then_ties_share_their_rank() -> None:
    assert corrections.spearman([1, 2, 3], [10, 100, 1000]) == pytest.approx(1)
    assert corrections.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert corrections.spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(corrections.spearman([1, 1], [1, 2]))


def test_calibration_when_the_flagged_are_worse_then_it_shows() -> None:
    scores = [corrections.FrameScore(t, 1, j, j, c, c < 0.5) for t, (j, c) in enumerate([(0.9, 0.8), (0.3, 0.2)])]
    expected = {"rank": 1, "j_flagged": 0.3, "j_others": 0.9, "flagged": 0.5}
    assert corrections.calibration(scores) == pytest.approx(expected)
