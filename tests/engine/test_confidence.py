from __future__ import annotations

import math

import numpy as np
import pytest

from rotomem.engine.confidence import GONE, SIGNALS, confidence, frame_signals, step_signals
from rotomem.engine.session import Session
from rotomem.errors import ShapeError

from .toy import MODELS, labels, picture


def disc(x: float = 32, y: float = 24, radius: float = 10, soft: float = 1.0) -> np.ndarray:
    rows, columns = np.mgrid[:48, :64]
    distance = np.hypot(rows - y, columns - x) - radius
    return np.clip(0.5 - distance / (2 * soft), 0, 1).astype(np.float32)


def test_signals_when_nothing_is_wrong_then_all_are_small_and_confidence_is_high() -> None:
    signals = frame_signals(disc(34), forward=disc(34), backward=disc(34), distance=1)
    signals |= step_signals(disc(34), disc(32), 0.0)
    assert set(signals) == set(SIGNALS)
    assert signals["disagreement"] == signals["gone"] == signals["match"] == 0
    assert signals["shape_jump"] < 0.01 and signals["area_jump"] < 0.01 and signals["doubt"] < 0.1
    assert confidence(signals) > 0.9


def test_signals_when_only_one_pass_ran_then_what_is_unknown_is_left_out() -> None:
    assert set(frame_signals(disc())) == {"entropy", "doubt", "gone"}
    assert step_signals(disc(), None) == {}


def test_entropy_when_the_edge_is_twice_as_soft_then_it_doubles_whatever_the_radius() -> None:
    for radius in (8, 14):
        twice, once = (frame_signals(disc(radius=radius, soft=soft))["entropy"] for soft in (4, 2))
        assert twice / once == pytest.approx(2, rel=0.05)


def test_doubt_when_counted_by_hand_then_it_is_one_minus_the_promised_overlap() -> None:
    p = np.zeros((10, 10), np.float32)
    p[:4], p[4:6] = 0.8, 0.3
    # 40 pixels of mask hold 32, outside there are 6; the 4 are the module's guard against tiny objects
    assert frame_signals(p)["doubt"] == pytest.approx(1 - (32 + 4) / (40 + 6 + 4), abs=1e-6)


def test_disagreement_when_passes_share_nothing_then_it_is_nearly_one() -> None:
    half = (0.5 * (disc(15) + disc(50))).astype(np.float32)
    signals = frame_signals(half, forward=disc(15), backward=disc(50))
    assert signals["disagreement"] > 0.98
    assert confidence(signals) < 0.5


def test_area_jump_when_the_area_halves_or_doubles_then_it_is_ln_two_either_way() -> None:
    small, large = disc(radius=8), disc(radius=8 * math.sqrt(2))
    assert step_signals(large, small)["area_jump"] == pytest.approx(math.log(2), abs=0.03)
    assert step_signals(small, large)["area_jump"] == pytest.approx(math.log(2), abs=0.03)


def test_shape_jump_when_the_object_changes_shape_then_it_tells_and_motion_does_not() -> None:
    bar = np.zeros((48, 64), np.float32)
    bar[20:26, 5:57] = 1
    assert step_signals(disc(45, 30), disc(15, 15))["shape_jump"] < 0.02
    assert step_signals(disc(), bar)["shape_jump"] > 0.5


def test_confidence_when_the_object_shows_nowhere_then_it_is_three_quarters() -> None:
    signals = frame_signals(np.zeros((8, 8), np.float32))
    assert signals["gone"] == 1
    assert confidence(signals) == pytest.approx(GONE, abs=0.01)


def test_confidence_when_one_pass_leads_away_from_its_key_then_it_falls_and_two_passes_hold_it() -> None:
    near, far = (confidence({"doubt": 0.1, "gone": 0.0, "distance": d}) for d in (1, 100))
    both = confidence({"doubt": 0.1, "gone": 0.0, "disagreement": 0.1})
    assert 0 < far < near < both < 1
    assert confidence({"doubt": 0.1, "gone": 0.0}) == pytest.approx(0.9)


def test_signals_when_maps_have_different_sizes_then_it_says_so() -> None:
    with pytest.raises(ShapeError, match="raster"):
        frame_signals(disc(), forward=np.zeros((3, 3), np.float32))


def test_match_distance_when_the_keyed_picture_comes_again_then_it_is_nearly_nothing_and_grows_with_change() -> None:
    mask = labels((1, 0, 0, 32))
    session = Session(MODELS["xmem"](), size=None)
    session.step(picture(0), mask)
    assert math.isnan(session.match_distance()[1]), "nothing was segmented on a frame that the artist drew"
    # What the network says is of random weights: positions are those it takes for the object, if any.
    distances = []
    for t in (0, 2, 6):
        session.step(picture(t))
        distances.append(session.match_distance()[1])
    assert distances[0] < 1e-4
    assert distances[0] < distances[1] < distances[2] <= 1


@pytest.mark.parametrize("name", ["stm", "aost", "stremn"])
def test_match_distance_when_keys_depend_on_masks_then_it_is_not_known(name: str) -> None:
    session = Session(MODELS[name](), size=None)
    session.step(picture(0), labels((1, 4, 4, 20)))
    session.step(picture(1))
    assert math.isnan(session.match_distance()[1])
