"""Stages that overlap."""

from __future__ import annotations

import threading
import time

import pytest

from rotomem.engine.pipeline import Clock, WriteBehind, read_ahead


def test_read_ahead_when_work_ends_out_of_order_then_results_in_order():
    def work(i: int) -> int:
        time.sleep(0.01 if i % 2 == 0 else 0)
        return i * i

    assert list(read_ahead(range(20), work, ahead=4, threads=4)) == [i * i for i in range(20)]


def test_read_ahead_when_the_consumer_is_slow_then_no_more_than_ahead_are_begun():
    begun: list[int] = []
    results = read_ahead(range(100), lambda i: begun.append(i) or i, ahead=3, threads=2)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(begun) <= 3
    results.close()
    assert len(begun) <= 3 and threading.active_count() < 10


def test_read_ahead_when_an_item_fails_then_its_error_in_its_turn():
    def work(i: int) -> int:
        if i == 2:
            raise ValueError("two")
        return i

    results = read_ahead(range(9), work, ahead=4, threads=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_write_behind_when_items_are_put_then_done_in_order_before_finish_returns():
    done: list[int] = []
    behind = WriteBehind(lambda i: (time.sleep(0.001), done.append(i))[0], depth=2)
    for i in range(10):
        behind.put(i)
    behind.finish()
    behind.finish()
    assert done == list(range(10))


def test_write_behind_when_work_fails_then_put_raises_and_later_items_are_dropped():
    done: list[int] = []

    def work(i: int) -> None:
        if i == 1:
            raise OSError("disk")
        done.append(i)

    behind = WriteBehind(work, depth=1)
    with pytest.raises(OSError, match="disk"):
        for i in range(50):
            behind.put(i)
    with pytest.raises(OSError, match="disk"):
        behind.finish()
    assert done == [0]


def test_clock_when_threads_add_then_nothing_is_lost():
    clock = Clock()
    threads = [threading.Thread(target=lambda: [clock.add("a", 1) for _ in range(1000)]) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert clock.seconds() == {"a": 8000}
