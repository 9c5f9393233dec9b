from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch

from rotomem.bench.measure import Entrant, Others, PeakMemory, Settings, compare, timed
from rotomem.bench.peaks import Machine
from rotomem.errors import BackendError

CPU = torch.device("cpu")
MACHINE = Machine("a machine", CPU, 1, {"float32": 100.0, "bfloat16": 400.0}, 1e10)
QUICK = Settings(repeats=3, seconds=1)


def test_compare_when_one_takes_three_times_as_long_then_the_ratio_says_so() -> None:
    entrants = [
        Entrant("slow", lambda: time.sleep(0.03)),
        Entrant("fast", lambda: time.sleep(0.01), peak="bfloat16", error=lambda made: (1e-6, 4e-6)),
    ]
    slow, fast = compare("read", "a case", entrants, 1e9, MACHINE, QUICK, {"objects": 1})
    assert slow.ratio == 1 and slow.median_s is not None and fast.median_s is not None
    assert slow.least_s is not None and 0.03 <= slow.least_s <= slow.median_s
    assert fast.ratio == slow.median_s / fast.median_s and 1.5 < fast.ratio < 4.5
    assert fast.gflops == pytest.approx(1 / fast.median_s) and fast.share == pytest.approx(fast.gflops / 400)
    assert fast.error_ratio == 0.25 and slow.error is None
    assert fast.repeats == 3 and fast.facts == {"objects": 1} and fast.device == "a machine"
    assert "skipped" not in fast.as_dict() and "error" not in slow.as_dict()


def test_compare_when_memory_is_short_then_it_is_counted_and_nothing_runs() -> None:
    def never() -> None:
        raise AssertionError("this was to be left out")

    entrants = [Entrant("vast", never, needs_bytes=2**60), Entrant("small", lambda: None)]
    vast, small = compare("read", "a case", entrants, 1e6, MACHINE, QUICK)
    assert vast.skipped is not None and vast.skipped.startswith("needs 1073741824.0 GiB, ") and vast.median_s is None
    assert small.median_s is not None and small.ratio is None, "there is nothing to hold it against"


def test_compare_when_a_part_takes_long_then_the_whole_is_left_out() -> None:
    asked: list[str] = []
    part = Entrant("slow", lambda: asked.append("whole"), part=lambda: time.sleep(0.02), parts=1000)
    (line,) = compare("read", "a case", [part], 1e13, MACHINE, QUICK)
    assert line.skipped == "would take about 20 s a call, it may take 1 s" or (line.skipped or "").startswith("would")
    assert not asked
    compare("read", "a case", [part], 1e9, MACHINE, QUICK)
    assert asked, "small work is not tried in parts"


def test_compare_when_the_budget_is_short_then_fewer_repeats() -> None:
    (line,) = compare(
        "read", "a case", [Entrant("slow", lambda: time.sleep(0.05))], 1, MACHINE, Settings(repeats=50, seconds=0.2)
    )
    assert line.repeats is not None and 2 <= line.repeats <= 5


def test_timed_when_times_differ_then_median_least_and_spread() -> None:
    assert timed([4.0, 1.0, 2.0, 3.0, 2.0]) == {"median_s": 2.0, "least_s": 1.0, "spread": 0.5, "repeats": 5}
    assert timed([4.0])["spread"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a stretch of time")
def test_peak_memory_when_something_large_is_held_and_freed_then_it_is_seen() -> None:
    with PeakMemory(CPU) as peak:
        held = torch.ones(2**24)
        del held
    with PeakMemory(CPU) as nothing:
        pass
    assert peak.nbytes is not None and 0.98 * 2**26 < peak.nbytes < 1.2 * 2**26
    assert nothing.nbytes is not None and nothing.nbytes < 2**23


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what all processes used")
def test_others_when_only_this_process_works_then_its_time_is_not_counted_to_others() -> None:
    others = Others()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    alone = others.share()
    others = Others()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        time.sleep(0.3)
        busy.kill()
    disturbed = others.share()
    assert alone is not None and disturbed is not None and 0 <= alone <= 1
    assert disturbed >= 0.15 / (os.cpu_count() or 1)


def test_compare_when_a_backend_cannot_then_its_line_says_why() -> None:
    def refuse() -> None:
        raise BackendError("backend x is forced, but it has no such kernel", remedy="use another")

    entrants = [Entrant("dense", lambda: None), Entrant("x", refuse)]
    dense, refused = compare("read", "a case", entrants, 1, MACHINE, QUICK)
    assert dense.median_s is not None and refused.skipped == "backend x is forced, but it has no such kernel"
