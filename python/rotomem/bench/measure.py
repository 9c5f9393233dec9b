"""Timing several ways of doing the same work, in turn, on a machine that may be busy; and what they hold."""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from rotomem.bench.peaks import Machine, synchronise
from rotomem.engine.report import memory_bytes
from rotomem.errors import BackendError

_SHORT = 0.005
"""Calls shorter than this are timed several at once: a clock and a launch cost microseconds."""

_PROBED = 1e11
"""Operations from which a part of the work is tried before the whole."""


@dataclass(frozen=True)
class Settings:
    """How long it is measured.

    repeats   times an entrant is timed, at most
    seconds   an entrant may take over one case; one that would need longer for a single call is left out
    """

    repeats: int = 7
    seconds: float = 20.0


@dataclass(frozen=True)
class Entrant:
    """One way of doing a case's work.

    call          does it once
    needs_bytes   counted: what a call holds at its peak beside its inputs, at least
    peak          the machine's peak that its arithmetic is held against: "float32" or "bfloat16"
    error         of what the call made: its greatest difference from float64, and that of plain torch in float32;
                  None: not asked
    part          does 1/parts of the work, to tell how long the whole would take; None: not worth asking
    kept          bytes it keeps between calls
    absent        why it cannot run here
    """

    name: str
    call: Callable[[], Any]
    needs_bytes: int = 0
    peak: str = "float32"
    error: Callable[[Any], tuple[float, float]] | None = None
    part: Callable[[], object] | None = None
    parts: int = 1
    kept: Callable[[], int] | None = None
    absent: str = ""


@dataclass(frozen=True)
class Line:
    """One measurement, or why there is none.

    bench, case, backend   what was done by whom
    device, threads, version   on what
    median_s, least_s    of one call; spread: distance of the quartiles over the median, large where the machine was
                         busy; others: share of all its processors' time that other processes took meanwhile
    ratio                median of the case's first entrant over this one's
    peak_bytes           most that a call held beside its inputs, measured: scratch, results, what it keeps
    gflops               the work's operations (those of its definition, not what a formula does beyond) a second, 1e9
    share, peak          of the machine's measured peak for that type
    error, error_ratio   greatest difference from float64; over that of plain torch in float32
    fps, first_s, stages, differing   of whole shots: frames a second, seconds of the first frame, shares of the time
                         by stage, share of pixels that differ from the case's first entrant by 1/255 or more
    late, series   of long shots: median of the last frames over that of early ones; seconds, means of some frames
    skipped              why there are no figures
    facts                sizes
    """

    bench: str
    case: str
    backend: str
    device: str
    threads: int
    version: str
    median_s: float | None = None
    least_s: float | None = None
    spread: float | None = None
    repeats: int | None = None
    others: float | None = None
    ratio: float | None = None
    peak_bytes: int | None = None
    gflops: float | None = None
    share: float | None = None
    peak: str | None = None
    error: float | None = None
    error_ratio: float | None = None
    fps: float | None = None
    first_s: float | None = None
    stages: dict[str, float] | None = None
    differing: float | None = None
    late: float | None = None
    series: list[float] | None = None
    skipped: str | None = None
    facts: dict[str, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """What is known, for JSON."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}


def compare(
    bench: str,
    case: str,
    entrants: Sequence[Entrant],
    work: float,
    machine: Machine,
    settings: Settings,
    facts: dict[str, int] | None = None,
) -> list[Line]:
    """Time all entrants in turn, round by round, so that a busy machine disturbs them alike.

    work      operations (additions and multiplications) of the definition
    returns   a line each, in their order; ratios are to the first one
    """
    device = machine.device
    shared: dict[str, Any] = {"facts": facts, **origin(machine)}
    lines: dict[str, Line] = {}
    running = []
    for entrant in entrants:
        try:
            if why := _unfit(entrant, work, device, settings):
                lines[entrant.name] = Line(bench, case, entrant.name, skipped=why, **shared)
            else:
                running.append(_Running(entrant, device, settings))
        except BackendError as error:  # a backend is asked by its name, and says what it cannot do
            lines[entrant.name] = Line(bench, case, entrant.name, skipped=error.what, **shared)
    others = Others()
    for _ in range(settings.repeats):
        for runner in running:
            runner.time_once()
    shared["others"] = others.share()
    first = running[0].median if running and running[0].entrant is entrants[0] else None
    for runner in running:
        gflops = work / runner.median / 1e9
        lines[runner.entrant.name] = Line(
            bench,
            case,
            runner.entrant.name,
            **timed(runner.times),
            ratio=first / runner.median if first else None,
            peak_bytes=runner.peak_bytes,
            gflops=gflops,
            share=gflops / machine.gflops[runner.entrant.peak],
            peak=runner.entrant.peak,
            error=runner.error,
            error_ratio=runner.error_ratio,
            **shared,
        )
    return [lines[entrant.name] for entrant in entrants]


class _Running:
    """An entrant that takes part: its memory and error known, its caches warm."""

    def __init__(self, entrant: Entrant, device: torch.device, settings: Settings) -> None:
        self.entrant, self.times = entrant, list[float]()
        self.peak_bytes: int | None = None
        self.error: float | None = None
        self.error_ratio: float | None = None
        self._device, self._left, self._count = device, settings.seconds, 1
        took, made = self._watched()
        if entrant.error is not None:
            self.error, plain = entrant.error(made)
            self.error_ratio = self.error / plain if plain else None
        del made
        if 2 * took <= settings.seconds:
            took, _ = self._watched()  # the first call filled caches and started threads
            self._count = max(1, round(_SHORT / max(took, 1e-7)))
        else:
            self._note(took)  # there is no time for another one

    def time_once(self) -> None:
        """Time it once more, unless it has had its time."""
        if not self.times or self.median * self._count <= self._left:
            self._note(seconds(self.entrant.call, self._device, self._count))

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    def _note(self, took: float) -> None:
        self.times.append(took)
        self._left -= took * self._count

    def _watched(self) -> tuple[float, Any]:
        """Seconds of a call, and what it made; the memory it took is noted."""
        made = []
        with PeakMemory(self._device) as peak:
            took = seconds(lambda: made.append(self.entrant.call()), self._device)
        kept = 0 if self.entrant.kept is None else self.entrant.kept()
        self.peak_bytes = None if peak.nbytes is None else peak.nbytes + kept
        return took, made[0]


class Others:
    """How busy a machine is with other things, from now on."""

    def __init__(self) -> None:
        self._before = self._now()

    def share(self) -> float | None:
        """Share of all processors' time that other processes took; None where the system does not tell."""
        now = self._now()
        if now is None or self._before is None:
            return None
        every, busy, own = (b - a for a, b in zip(self._before, now, strict=True))
        return round(max(0.0, busy - own) / every, 3) if every > 0 else None

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        """Seconds of all processors, those of them that were used, those this process used."""
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
            user, nice, system, idle, waiting, *rest = (int(f) / os.sysconf("SC_CLK_TCK") for f in fields)
        except (OSError, ValueError, AttributeError):  # not Linux
            return None
        used = user + nice + system + sum(rest)
        return used + idle + waiting, used, time.process_time()


def timed(times: Sequence[float]) -> dict[str, Any]:
    """The figures of a `Line` that tell of times."""
    spread = 0.0
    if len(times) > 1:
        low, _, high = statistics.quantiles(times, n=4, method="inclusive")
        spread = (high - low) / statistics.median(times)
    return {
        "median_s": statistics.median(times),
        "least_s": min(times),
        "spread": spread,
        "repeats": len(times),
    }


def origin(machine: Machine) -> dict[str, Any]:
    """The fields of a `Line` that tell where it comes from."""
    from rotomem import __version__

    return {"device": machine.name, "threads": machine.threads, "version": __version__}


def seconds(call: Callable[[], object], device: torch.device, count: int = 1) -> float:
    """Seconds of one call, the mean of `count` of them in a row; on CUDA as the device counts them."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / count
    begun = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begun) / count


def _unfit(entrant: Entrant, work: float, device: torch.device, settings: Settings) -> str:
    """Why an entrant is left out, or nothing."""
    if entrant.absent:
        return entrant.absent
    free = free_bytes(device)
    if entrant.needs_bytes > free:
        return f"needs {gib(entrant.needs_bytes)}, {gib(free)} are free"
    if entrant.part is not None and work > _PROBED:
        entrant.part()
        whole = seconds(entrant.part, device) * entrant.parts
        if whole > settings.seconds:
            return f"would take about {whole:.0f} s a call, it may take {settings.seconds:g} s"
    return ""


def gib(count: int) -> str:
    """Bytes as people say them."""
    return f"{count / 2**30:.1f} GiB"


def free_bytes(device: torch.device) -> int:
    """Bytes a call could still take; a large number where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return 2**62


def held_bytes(device: torch.device) -> int:
    """Bytes held now: on CUDA by tensors, on a CPU by the process, without what it has freed."""
    if device.type == "cuda":
        synchronise(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or it would be taken again unseen
    return memory_bytes()


class PeakMemory:
    """Most that was held inside a `with` block beyond what was held before it.

    nbytes   on CUDA of tensors; on a CPU of the whole process, as the system counts resident pages; None where the
             system does not tell (other than Linux)
    """

    nbytes: int | None = None

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0

    def __enter__(self) -> PeakMemory:
        before = held_bytes(self._device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = before
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
            self._before = before
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            synchronise(self._device)
            self.nbytes = torch.cuda.max_memory_allocated(self._device) - self._before
        elif self._before:
            with suppress(OSError, ValueError):
                status = Path("/proc/self/status").read_text()
                high = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
                self.nbytes = max(1024 * high - self._before, 0)
