"""What a model costs: parameters, seconds a frame, bytes of its memory as a shot goes on, the process's peak."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rotomem.engine.consolidation import consolidate_if_full
from rotomem.engine.memory import MemoryBank, Store
from rotomem.engine.session import Session
from rotomem.models.interface import Memorised, MemoryElements, VOSModel
from rotomem.models.registry import build_model, place


@dataclass(frozen=True)
class Case:
    """A model to measure, with random weights.

    name       of the registry, and `settings` of its configuration
    depth      layers that run, of a model that has a choice
    """

    title: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    depth: int | None = None


CASES = (
    Case("xmem-s", "xmem-s"),
    Case("XMem", "xmem"),
    Case("STCN", "stcn"),
    Case("STM", "stm"),
    Case("STReMN", "stremn"),
    Case("AOT-T", "aot", {"layers": 1, "memory_every": None}),
    Case("AOT-L", "aot"),
    Case("R50-AOT-L", "aot", {"encoder": "resnet50"}),
    Case("SwinB-AOT-L", "aot", {"encoder": "swin_base"}),
    Case("AOTv2", "aotv2"),
    *(Case(f"AOST, depth {depth}", "aost", depth=depth) for depth in (1, 2, 3)),
)

STEPS = (50, 500)
"""Frames at which the memory's bytes are counted."""


def measure(
    case: Case, objects: int, *, size: tuple[int, int] = (480, 854), frames: int = 5, steps: Sequence[int] = STEPS
) -> dict[str, Any]:
    """Figures of one model with so many objects, as plain values. Run it in a process of its own: its peak counts.

    size      height and width of the pictures
    frames    that are timed; the drawn one and the first that is segmented come before and are not
    steps     frames after which the bytes that memory fills are counted
    returns   parameters; seconds a frame, the median; memory_bytes, by step; peak_bytes of the process after these
              frames, weights and torch itself included
    """
    torch.manual_seed(0)
    model = build_model(case.name, **case.settings)
    parameters = sum(p.numel() for p in model.parameters())
    model = place(model)
    session = Session(model, size=None, depth=case.depth)
    left: list[Memorised] = []
    encode_mask = model.encode_mask

    def listening(*args: Any, **options: Any) -> Memorised:
        left.append(encode_mask(*args, **options))
        return left[-1]

    model.encode_mask = listening  # type: ignore[method-assign]
    session.step(_picture(0, *size), _boxes(objects, *size))
    seconds = []
    for t in range(1, frames + 2):
        started = time.perf_counter()
        session.step(_picture(t, *size))
        seconds.append(time.perf_counter() - started)
    return {
        "model": case.title,
        "objects": objects,
        "parameters": parameters,
        "dtype": str(model.compute_dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "seconds": statistics.median(seconds[1:]),
        "peak_bytes": peak_bytes(),
        "memory_bytes": filled_bytes(model, session, left[0].elements, steps),
    }


def filled_bytes(
    model: VOSModel, session: Session, elements: tuple[MemoryElements, ...], steps: Sequence[int]
) -> dict[int, int]:
    """Bytes that memory fills after each of `steps`, where every kept frame leaves `elements`.

    The bank is the engine's, with the session's settings; nothing is segmented meanwhile.
    """
    settings, plan, out, last = session.settings, model.plan, dict[int, int](), 0
    identities = plan.objects_per_pass is not None
    bank = MemoryBank(plan, settings, elements[0].value.device, model.choose_slot)
    bank.add_objects(elements[0].value.shape[0 if identities else 1])
    for t in range(max(steps) + 1):
        kept = t == 0 or (settings.mem_every is not None and t - last >= settings.mem_every * bank.spacing)
        if kept or settings.include_last or plan.short_term:
            store = Store.LATEST if settings.include_last else None
            if kept:
                store = Store.WORKING if t else Store.PERMANENT
            bank.memorise(elements[: session.depth] if t else elements, store=store, step=t)
            consolidate_if_full(bank)
            last = t if kept else last
        if t in steps:
            out[t] = bank.filled_bytes
    return out


def peak_bytes() -> int:
    """Most memory this process has held."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _picture(t: int, height: int, width: int) -> NDArray[np.float32]:
    """[H, W, 3]: waves that drift."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / 40
    waves = [np.sin(x * (1 + c) + 0.3 * t) * np.cos(y * (2 - c) + 0.1 * t * c) for c in range(3)]
    return (0.5 + 0.5 * np.stack(waves, -1)).astype(np.float32)


def _boxes(objects: int, height: int, width: int) -> NDArray[np.uint8]:
    """A label map of as many boxes, side by side."""
    label = np.zeros((height, width), np.uint8)
    for i in range(objects):
        left, right = width * i // objects, width * (i + 1) // objects
        label[height // 3 : 2 * height // 3, left : max(left + 1, right - (right - left) // 4)] = i + 1
    return label
