"""Connected parts of a mask."""

from __future__ import annotations

import numpy as np

from rotomem.matting.islands import Islands


def test_touched_when_marks_lie_on_some_parts_then_those_and_no_others():
    mask = np.array([[1, 1, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 1, 1, 1]], bool)
    marks = np.zeros_like(mask)
    marks[1, 1] = marks[2, 2] = marks[3, 4] = True
    islands = Islands(mask)
    assert islands.touched(marks).tolist() == [True, False, False, True]
    shown = np.array([[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]], bool)
    assert np.array_equal(islands.mask(islands.touched(marks)), shown)
    assert Islands(np.zeros((3, 3), bool)).touched(np.ones((3, 3), bool)).size == 0
