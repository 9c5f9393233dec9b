from __future__ import annotations

from rotomem.io.chart import log_ticks, ticks


def test_ticks_when_asked_then_they_are_round_and_inside() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-3, 22) == [0, 5, 10, 15, 20]
    assert ticks(2, 2) == [2]
    assert log_ticks(-1, 1) == [0.1, 0.2, 0.5, 1, 2, 5, 10]
