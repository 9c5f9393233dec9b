"""What a machine can do at best, measured: matrix products a second by type, bytes of memory a second."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Machine:
    """A device and its measured peaks.

    name        of the processor or GPU
    gflops      type of the numbers -> greatest rate of a large matrix product, in 1e9 additions and multiplications
                a second. On CUDA "float32" is without TF32
    bandwidth   bytes copied, read and written, a second
    """

    name: str
    device: torch.device
    threads: int
    gflops: dict[str, float]
    bandwidth: float


def device_name(device: torch.device) -> str:
    """As its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def measure_machine(device: torch.device) -> Machine:
    """Measure the peaks of a device with the threads torch has now. Cost: about two seconds."""
    cuda = device.type == "cuda"
    gflops = {
        name: _product(device, getattr(torch, name), 8192 if cuda else 2048) for name in ("float32", "bfloat16")
    }
    return Machine(device_name(device), device, torch.get_num_threads(), gflops, _copy(device))


def synchronise(device: torch.device) -> None:
    """Wait for a device to have done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _least(device: torch.device, call: object, seconds: float = 0.4) -> float:
    """Least seconds of a call, over as many as fit."""
    assert callable(call)
    call()
    least, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        least = min(least, time.perf_counter() - start)
    return least


def _product(device: torch.device, dtype: torch.dtype, size: int) -> float:
    a = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty_like(a)
    return 2 * size**3 / _least(device, lambda: torch.mm(a, a, out=out)) / 1e9


def _copy(device: torch.device) -> float:
    size = 2**28
    a = torch.zeros(size, dtype=torch.uint8, device=device)
    b = torch.ones_like(a)
    return 2 * size / _least(device, lambda: b.copy_(a))
