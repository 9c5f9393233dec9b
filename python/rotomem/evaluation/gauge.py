"""What a tracker costs while it runs: seconds, resident memory, GPU memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from rotomem.engine.report import memory_bytes


@dataclass(frozen=True)
class Cost:
    """What the steps of one sequence took.

    steps              frames that went through the tracker
    step_s             seconds inside it; reading and measuring excluded
    memory_bytes       largest resident memory of the process after a step
    gpu_memory_bytes   most that was allocated on any GPU meanwhile; 0 without one
    """

    steps: int = 0
    step_s: float = 0.0
    memory_bytes: int = 0
    gpu_memory_bytes: int = 0

    @property
    def fps(self) -> float:
        """Frames a second; NaN before the first step."""
        return self.steps / self.step_s if self.step_s > 0 else float("nan")


class Gauge:
    """Reads the clock and the memory around every step of one sequence."""

    def __init__(self) -> None:
        self._steps, self._seconds, self._resident = 0, 0.0, 0
        self._gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else range(0)
        for gpu in self._gpus:
            torch.cuda.reset_peak_memory_stats(gpu)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around one step, which ends with its result on the host, so that a GPU has finished too."""
        start = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - start
        self._steps += 1
        self._resident = max(self._resident, memory_bytes())

    @property
    def cost(self) -> Cost:
        """So far."""
        gpu = max((torch.cuda.max_memory_allocated(gpu) for gpu in self._gpus), default=0)
        return Cost(self._steps, self._seconds, self._resident, gpu)
