"""Several answers become one: nothing beyond 1, nothing lost where nothing is contested."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rotomem.engine.blend import beside, blend, share_forward, within_one
from rotomem.engine.segments import Origin

UNIT = st.floats(0, 1, width=32)
PLANES = hnp.arrays(np.float32, (3, 2, 2), elements=UNIT)


def plane(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_share_when_a_key_is_near_then_its_pass_counts_more() -> None:
    shares = [share_forward(Origin(d, False), Origin(10 - d, False)) for d in range(11)]
    assert shares == sorted(shares, reverse=True) and shares[0] == 1 and shares[5] == 0.5 and shares[10] == 0
    assert share_forward(Origin(3, False), None) == 1 and share_forward(None, Origin(3, False)) == 0


def test_share_when_a_pass_crossed_an_absence_then_the_other_is_believed() -> None:
    assert share_forward(Origin(2, True), Origin(90, False)) == 0
    assert share_forward(Origin(90, False), Origin(2, True)) == 1
    assert share_forward(Origin(3, True), Origin(1, True)) == 0.25


def blob(inside: float, outside: float = 0.0) -> np.ndarray:
    """A square that is `inside`, in surroundings that are `outside`."""
    matte = np.full((24, 24), outside, np.float32)
    matte[6:18, 6:18] = inside
    return matte


def test_blend_when_passes_are_equally_sure_then_each_by_its_share() -> None:
    moved = np.roll(blob(1), 4, axis=1)
    alone = blend({1: blob(1)}, {1: moved}, {1: 0.25})[1]
    np.testing.assert_allclose(alone[10, [7, 12, 20]], [0.25, 1, 0.75])
    several = blend({1: blob(0.5), 2: blob(0.3), 4: blob(1)}, {1: moved, 3: blob(0.2)}, {1: 1.0, 3: 0.0, 5: 0.5})
    assert set(several) == {1, 3}, "an object without a share is left out, one that nobody saw is nowhere"
    np.testing.assert_array_equal(several[1], blob(0.5))


def test_blend_when_a_pass_is_unsure_or_has_lost_the_object_then_the_other_leads() -> None:
    for lost in ({1: blob(0.6, 0.4)}, {1: blob(0.2)}, {}):
        for share in (0.5, 0.7):
            led = blend({1: blob(1)}, lost, {1: share})[1]
            assert led[10, 10] > 0.9 and led[0, 0] < 0.05, (lost, share)
    assert not blend({1: blob(0)}, {}, {1: 0.5})[1].any(), "both say that it is gone"


def test_within_one_when_one_is_certain_then_the_unsure_give_way() -> None:
    mattes = {1: plane(0.99, 0.5, 1, 0.2), 2: plane(0.3, 0.5, 1, 0.3), 3: plane(0, 0, 0, 0.1)}
    less = within_one(mattes)
    assert less[1][0, 0] > 0.97 and less[2][0, 0] < 0.03
    np.testing.assert_array_equal([m[0, 1] for m in less.values()], [0.5, 0.5, 0], "complementary edges stay")
    np.testing.assert_allclose([m[0, 2] for m in less.values()], [0.5, 0.5, 0])
    np.testing.assert_array_equal([m[0, 3] for m in less.values()], [m[0, 3] for m in mattes.values()])
    assert mattes[1][0, 2] == 1, "what came in is left as it was"


@settings(deadline=None)
@given(PLANES)
def test_within_one_when_mattes_are_any_then_sums_are_at_most_one_and_nothing_grows(planes: np.ndarray) -> None:
    less = np.stack(list(within_one(dict(enumerate(planes, 1))).values()))
    assert less.sum(0).max() <= 1 + 1e-6 and less.min() >= 0 and (less <= planes + 1e-6).all()
    free = planes.sum(0) <= 1
    assert np.array_equal(less[:, free], planes[:, free])
    assert np.allclose(less[:, ~free].sum(0), 1, atol=1e-6), "no hole is torn where objects overlap"


@settings(deadline=None)
@given(PLANES)
def test_beside_when_keys_are_drawn_then_they_stay_and_others_take_what_is_left(planes: np.ndarray) -> None:
    drawn, others = {1: planes[0]}, within_one({2: planes[1], 3: planes[2]})
    both = beside(drawn, others)
    assert both[1] is drawn[1]
    assert sum(both.values()).max() <= 1 + 1e-6
    room = planes[0] + others[2] + others[3] < 1 - 1e-5
    assert np.array_equal(both[2][room], others[2][room])
