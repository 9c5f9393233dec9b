"""Every bench in one go: are the kernels right, then how fast are they."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from rotomem.bench import attention, consolidate, read, shot
from rotomem.bench.cases import Memory
from rotomem.bench.measure import Line, Settings, origin
from rotomem.bench.peaks import Machine
from rotomem.errors import BackendError

MOST_ERROR = 4.0
"""Times plain torch's error in float32, beyond which a kernel is wrong; what is allowed is for the tests to say."""

_ONCE = Settings(repeats=1, seconds=60)


def machine_lines(machine: Machine) -> list[Line]:
    """The measured peaks, as lines."""
    lines = [Line("machine", name, "torch", gflops=peak, **origin(machine)) for name, peak in machine.gflops.items()]
    copied = {"bytes_per_s": round(machine.bandwidth)}
    return [*lines, Line("machine", "copy", "torch", facts=copied, **origin(machine))]


def check(machine: Machine) -> list[Line]:
    """Small cases by every backend of the device. Raises BackendError where one is beyond MOST_ERROR."""
    small = Memory("64x128", 2, 3, 50)
    runs = (
        read.run(machine, _ONCE, backends=("all",), among=(small,)),
        consolidate.run(machine, _ONCE, backends=("all",), among=(small,)),
        attention.run(machine, _ONCE, backends=("all",), among=attention.SMALL),
    )
    lines = [line for run in runs for lines in run for line in lines]
    refuse_wrong(lines)
    return lines


def refuse_wrong(lines: Sequence[Line]) -> None:
    """Raises BackendError where a line's error is beyond MOST_ERROR, or is no number."""
    for line in lines:
        if line.error_ratio is not None and not line.error_ratio <= MOST_ERROR:
            raise BackendError(
                f"{line.backend} is wrong: its error is {line.error_ratio:.1f} times that of plain torch",
                remedy="report it with the name of the device",
                bench=line.bench,
                case=line.case,
                device=line.device,
            )


def run(
    machine: Machine,
    *,
    tiny: bool = False,
    seconds: float = 500.0,
) -> Iterator[list[Line]]:
    """Lines as they come: peaks, small cases that must be right, then everything.

    tiny      small cases alone, to see that it runs
    seconds   for all of it: what is not begun by then is left out, and said

    Raises BackendError where a kernel is wrong.
    """
    until = time.perf_counter() + seconds
    yield machine_lines(machine)
    yield check(machine)
    settings = Settings(repeats=5, seconds=4)
    shots = Settings(seconds=20)
    parts: dict[str, Callable[[], Iterator[list[Line]]]] = {
        "read": partial(read.run, machine, settings),
        "consolidate": partial(consolidate.run, machine, settings),
        "attention": partial(attention.run, machine, settings),
        "shot": partial(shot.run, machine, shots, among=shot.shots()),
        "long shot": partial(_long, machine, shot.LONG),
    }
    if tiny:
        parts = {
            "shot": partial(shot.run, machine, shots, among=[shot.Shot("xmem-s", "64x96", 1, 8)]),
            "long shot": partial(_long, machine, shot.Shot("xmem-s", "32x48", 1, 36), early=(10, 20)),
        }
    for name, part in parts.items():
        cases = part()
        while time.perf_counter() < until:
            if (lines := next(cases, None)) is None:
                break
            refuse_wrong(lines)
            yield lines
        else:
            yield [Line(name, "the rest", "-", skipped=f"the {seconds:g} s were over", **origin(machine))]


def _long(machine: Machine, chosen: shot.Shot, early: tuple[int, int] = shot.EARLY) -> Iterator[list[Line]]:
    yield [shot.run_long(machine, chosen, early=early)]
