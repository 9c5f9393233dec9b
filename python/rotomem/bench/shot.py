"""`rotomem bench shot`: whole frames of a clip, ours beside a straightforward float32 run in torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rotomem.bench import peers, plain
from rotomem.bench.cases import OBJECTS, PROTOTYPES, STRIDE, picture
from rotomem.bench.clip import Clip
from rotomem.bench.measure import Line, Others, PeakMemory, Settings, free_bytes, gib, held_bytes, origin, timed
from rotomem.bench.peaks import Machine, synchronise
from rotomem.engine.session import Session
from rotomem.errors import UsageError
from rotomem.models.registry import build_model, place

MODELS = ("xmem-s", "xmem")
SIZES = ("480p", "1080p", "4K")
PLAIN, OURS = "float32 torch, dense", "rotomem"

_WARM = 6
"""First frames, which are not counted: the key, one memory frame, and what is made once."""

_VISIBLE = 1 / 255


@dataclass(frozen=True)
class Shot:
    """A clip and the model that tracks it.

    size    of the picture the network sees, of `cases.picture`
    """

    model: str
    size: str
    objects: int
    frames: int = 60

    @property
    def name(self) -> str:
        """Such as `xmem-s 480p 3 objects`."""
        return f"{self.model} {self.size} {self.objects} object{'s' if self.objects > 1 else ''}"


def shots(models: Sequence[str] = MODELS, sizes: Sequence[str] = SIZES, frames: int = 60) -> list[Shot]:
    """Every model at every size with 1, 3 and 10 objects."""
    return [Shot(model, size, objects, frames) for model in models for size in sizes for objects in OBJECTS]


def run(
    machine: Machine,
    settings: Settings,
    *,
    among: Iterable[Shot],
    cases: Iterable[str] = (),
    objects: Iterable[int] = (),
    backends: Sequence[str] = (),
) -> Iterator[list[Line]]:
    """Lines, shot by shot; both runs take each frame in turn, so that a busy machine disturbs them alike.

    settings   seconds: of both runs together; frames that are left then are not tracked. The plain run is left out
               where its formula does not fit the memory, and where one of its frames would take half of that time
    backends   PLAIN or OURS, or parts of these names; nothing: both

    Raises UsageError where no shot is called so; what `Session` and `load_model` raise.
    """
    names, counts = list(cases), list(objects)
    left = [
        s for s in among if (not names or any(n in s.name for n in names)) and (not counts or s.objects in counts)
    ]
    if not left:
        raise UsageError("no case is called so", remedy="cases have names such as 'xmem-s 480p 3 objects'")
    for shot in left:
        yield _run(shot, machine, settings, backends)


@dataclass
class _Run:
    """One of the sessions, and what was seen of it.

    before, built   bytes held before there was a session; of the network, its first frame seen
    beyond          most that a frame took beside what was held before it
    """

    name: str
    session: Session
    device: torch.device
    before: int
    times: list[float] = field(default_factory=list)
    first_s: float = 0.0
    beyond: int | None = 0
    built: int = 0
    differing: int = 0
    compared: int = 0
    warm: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, shot: Shot, weights: dict[str, Tensor], device: torch.device) -> _Run:
        """A session that has seen nothing."""
        before = held_bytes(device)
        return cls(name, _session(name, shot.model, weights, device), device, before)

    def step(self, t: int, image: NDArray[np.float32], mask: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Track frame t; its time and memory are noted."""
        if 1 <= t < _WARM:  # not later: what measures memory takes time, of the frame too
            with PeakMemory(self.device) as peak:
                mattes = self.session.step(image, mask)
            if self.beyond is not None:
                self.beyond = None if peak.nbytes is None else max(self.beyond, peak.nbytes)
            self.warm = dict(self.session.timings)
            return mattes
        start = time.perf_counter()
        mattes = self.session.step(image, mask)
        synchronise(self.device)
        took = time.perf_counter() - start
        if t == 0:
            self.first_s = took
            pool = self.session.memory.layers[0]
            # Spare rows of zeros take memory of a GPU, of a CPU not yet.
            used = 1.0 if self.device.type == "cuda" else pool.size / pool.capacity
            self.built = held_bytes(self.device) - self.before - round(used * self.session.memory.nbytes)
        else:
            self.times.append(took)
        return mattes

    def compare(self, mattes: NDArray[np.float32], true: NDArray[np.float32]) -> None:
        """Count the pixels where any object differs visibly."""
        self.differing += int((np.abs(mattes - true) >= _VISIBLE).any(0).sum())
        self.compared += mattes[0].size

    @property
    def peak(self) -> str:
        """The machine's peak that most of its arithmetic is held against."""
        return "float32" if self.session.model.compute_dtype == torch.float32 else "bfloat16"

    def held(self) -> int:
        """Bytes of the network, as it was after the first frame, and of the memory, its spare capacity included."""
        return self.built + self.session.memory.nbytes

    def stages(self) -> dict[str, float]:
        """Share of the counted frames' time by stage; "rest" is pictures in, mattes out."""
        total = sum(self.times)
        shares = {k: (v - self.warm.get(k, 0.0)) / total for k, v in self.session.timings.items()}
        return {**shares, "rest": max(0.0, 1 - sum(shares.values()))}


def _run(shot: Shot, machine: Machine, settings: Settings, backends: Sequence[str]) -> list[Line]:
    height, width = picture(shot.size)
    device = machine.device
    clip = Clip(height, width, shot.objects)
    weights = plain.state_dict(shot.model)
    wanted = [n for n in (PLAIN, OURS) if not backends or any(b == "all" or b in n for b in backends)]
    if not wanted:
        raise UsageError(f"no backend called {backends[0]!r}", remedy=f"use {PLAIN!r} or {OURS!r}")
    facts = {"objects": shot.objects, "height": height, "width": width, "frames": shot.frames}
    lines: dict[str, Line] = {}
    if PLAIN in wanted and (why := _too_large(shot, machine)):
        lines[PLAIN] = Line("shot", shot.name, PLAIN, skipped=why, facts=facts, **origin(machine))
    runs = [_Run.of(name, shot, weights, device) for name in wanted if name not in lines]
    others = Others()
    operations = _track(clip, runs, shot.frames, settings)
    first = statistics.mean(runs[0].times) if runs[0].name == PLAIN else None
    for run in runs:
        mean = statistics.mean(run.times)
        gflops = operations / mean / 1e9 if operations else None
        lines[run.name] = Line(
            "shot",
            shot.name,
            run.name,
            **timed(run.times),
            others=others.share(),
            ratio=first / mean if first else None,
            peak_bytes=None if run.beyond is None else run.held() + run.beyond,
            gflops=gflops,
            share=gflops / machine.gflops[run.peak] if gflops else None,
            peak=run.peak if gflops else None,
            fps=1 / mean,
            first_s=run.first_s,
            stages=run.stages() if device.type == "cpu" else None,
            differing=run.differing / run.compared if run.compared else None,
            facts={**facts, "counted": len(run.times)},
            **origin(machine),
        )
    return [lines[name] for name in wanted]


def _session(name: str, model: str, weights: dict[str, Tensor], device: torch.device) -> Session:
    if name == PLAIN:
        return plain.plain_session(model, weights, device, None)
    return Session(place(build_model(model, weights), device=device), size=None)


def _too_large(shot: Shot, machine: Machine) -> str:
    """Why the plain run is left out, or nothing: its affinity is all of S, for a memory that is full."""
    height, width = picture(shot.size)
    positions = -(-height // STRIDE) * -(-width // STRIDE)
    memory_frames = min(10, 1 + shot.frames // 5)
    elements = memory_frames * positions + (PROTOTYPES if shot.frames > 1000 else 0)
    needs, free = peers.similarity_bytes(elements, positions), free_bytes(machine.device)
    return f"needs {gib(needs)} for its affinity, {gib(free)} are free" if needs > free else ""


def _track(clip: Clip, runs: list[_Run], frames: int, settings: Settings) -> float:
    """Track all frames in all sessions; operations of a frame as the plain run does them, 0 where it is not there."""
    operations, counted = 0.0, 0
    until = time.perf_counter() + settings.seconds
    for t in range(frames):
        if t > _WARM and time.perf_counter() > until:
            break
        image, mask = clip.frame(t), clip.mask(0) if t == 0 else None
        true: NDArray[np.float32] | None = None
        for run in runs:
            if run.name == PLAIN and 1 <= t < _WARM:
                with FlopCounterMode(display=False) as counter:
                    mattes = run.step(t, image, mask)
                operations, counted = operations + counter.get_total_flops(), counted + 1
            else:
                mattes = run.step(t, image, mask)
            if run.name == PLAIN:
                true = mattes
            elif true is not None and t > 0:
                run.compare(mattes, true)
    return operations / counted if counted else 0.0


LONG = Shot("xmem-s", "64x96", 1, 10_000)
"""A shot of seven minutes, of a picture small enough to wait for."""

_MEAN_OF = 25
"""Frames of which a mean is kept: five memory frames, about one consolidation."""


EARLY = (150, 250)
"""Frames with which the last ones of a long shot are compared; from then on working memory is full."""


def run_long(machine: Machine, shot: Shot = LONG, *, early: tuple[int, int] = EARLY) -> Line:
    """Time per frame over a long shot: the median of its last frames over that of as many early ones, and all.

    Raises UsageError where the shot ends before the early frames do.
    """
    if shot.frames < early[1] + _WARM:
        raise UsageError(
            f"a long shot has {early[1] + _WARM} frames or more, not {shot.frames}", remedy="raise --frames"
        )
    height, width = picture(shot.size)
    clip = Clip(height, width, shot.objects)
    weights = plain.state_dict(shot.model)
    run = _Run.of(OURS, shot, weights, machine.device)
    run.beyond = None
    others = Others()
    for t in range(shot.frames):
        run.step(t, clip.frame(t), clip.mask(0) if t == 0 else None)
    first, last = (statistics.median(part) for part in (run.times[slice(*early)], run.times[early[0] - early[1] :]))
    each = min(_MEAN_OF, early[1] - early[0])
    whole = len(run.times) // each * each
    return Line(
        "shot",
        f"{shot.name} {shot.frames} frames",
        OURS,
        **timed(run.times),
        others=others.share(),
        fps=1 / statistics.mean(run.times),
        first_s=run.first_s,
        late=last / first,
        series=[round(float(m), 6) for m in np.reshape(run.times[:whole], (-1, each)).mean(1)],
        facts={
            "objects": shot.objects,
            "height": height,
            "width": width,
            "frames": shot.frames,
            "memory_bytes": run.session.memory.nbytes,
        },
        **origin(machine),
    )
