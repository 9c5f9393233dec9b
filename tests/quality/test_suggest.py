from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from rotomem.quality.suggest import Curve, flags, gains, suggest, summary_of


def curve(confidence: Sequence[float], keys: Sequence[int] = (1001,), name: str = "hero") -> Curve:
    values = np.array(confidence, float)
    return Curve(name, tuple(range(1001, 1001 + len(values))), values, frozenset(keys))


def dipped(at: int, count: int = 60, depth: float = 0.4, width: int = 4) -> list[float]:
    return [0.92 - (depth if abs(i - at) <= width else 0) for i in range(count)]


def test_flags_when_a_stretch_dips_then_it_is_named_with_its_worst_frame() -> None:
    values = dipped(30)
    values[31] = 0.3
    (flag,) = flags(curve(values))
    assert (flag.name, flag.first, flag.last, flag.worst) == ("hero", 1027, 1035, 1032)
    assert flag.confidence == pytest.approx(0.3)


def test_flags_when_an_object_is_thin_throughout_then_its_usual_is_not_flagged_but_what_is_lost_is() -> None:
    assert flags(curve([0.65] * 40)) == []
    assert len(flags(curve([0.4] * 40))) == 1


def test_flags_when_two_frames_recover_then_the_stretch_is_one_unless_a_key_parts_it() -> None:
    values = [0.9] * 40
    for i in (10, 11, 14, 15):
        values[i] = 0.3
    assert [(f.first, f.last) for f in flags(curve(values))] == [(1011, 1016)]
    assert [(f.first, f.last) for f in flags(curve(values, [1001, 1014]))] == [(1011, 1012), (1015, 1016)]


def test_flags_when_nothing_is_known_or_a_frame_is_drawn_then_none() -> None:
    assert flags(curve([math.nan] * 5)) == []
    assert flags(curve([0.9, 0.9, 0.1, 0.9], [1003])) == []


def test_suggest_when_one_stretch_is_bad_then_the_key_goes_into_it() -> None:
    found = suggest([curve(dipped(40))])
    assert found is not None
    assert abs(found.frame - 1041) <= 1
    assert found.objects == ("hero",)
    assert 0 < found.gain < 1


def test_suggest_when_confidence_fades_to_the_end_then_the_key_goes_before_the_last_frame() -> None:
    fading = list(np.linspace(0.95, 0.2, 80))
    found = suggest([curve(fading)])
    assert found is not None and 1050 < found.frame < 1080


def test_gains_when_a_key_stands_there_then_nothing_is_won_and_it_parts_the_shot() -> None:
    values = dipped(40)
    alone, parted = gains(curve(values)), gains(curve(values, [1001, 1036]))
    assert parted[35] == 0
    assert parted[20] < alone[20], "what lies behind a key is not repaired across it"


def test_suggest_when_objects_disagree_then_the_sum_decides_and_names_those_who_win() -> None:
    early, late = curve(dipped(10, depth=0.2), name="a"), curve(dipped(50, depth=0.5), name="b")
    found = suggest([early, late])
    assert found is not None and abs(found.frame - 1051) <= 2
    assert found.objects == ("b",)


def test_suggest_when_all_is_well_or_there_is_nothing_then_none() -> None:
    assert suggest([curve([1.0] * 20)]) is None
    assert suggest([curve([0.9995] * 20)]) is None
    assert suggest([]) is None


def test_summary_when_told_then_it_counts_and_names_the_key() -> None:
    curves = [curve(dipped(40))]
    said = summary_of(curves, flags(curves[0]), suggest(curves))
    assert said.startswith("60 frames, mean confidence 86 %, 1 stretch to look at. A key at 104")
    assert said.endswith("for hero would help most")
    assert summary_of([curve([0.9])], [], None).startswith("1 frame, mean confidence 90 %, 0 stretches")
    assert summary_of([curve([math.nan] * 3)], [], None) == "nothing is known of the mattes"
