"""The training loop: everything that is the same whatever is trained.

A recipe (`recipes/`) says what network, what clips, what losses and at which rate. The loop steps, clips gradients,
averages weights, logs, draws its curves, writes checkpoints and goes on from them, in one process or in several.

Nothing random is carried from step to step but torch's own generators (dropout and the like), which checkpoints hold:
the numbers of step n come from the recipe's seed and n alone. A run that stopped goes on exactly as if it had not.

On a GPU nothing waits for the device but the log, which is written every few steps.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rotomem.errors import OutputError, RotomemError, UsageError
from rotomem.models.interface import VOSModel
from rotomem.train.checkpoint import Average, load_checkpoint, load_start, save_checkpoint
from rotomem.train.compose import Clips
from rotomem.train.plot import draw_log
from rotomem.train.ranks import Share as Share
from rotomem.train.ranks import gathered, joined, mean_over_ranks, most, share
from rotomem.train.schedule import Budget, gathering_statistics

Report = Callable[[dict[str, float]], None]

_FIXED_CLIPS = 2**32 - 1
"""The step that validation takes its clips from; no run gets there."""


@dataclass(frozen=True)
class Recipe(ABC):
    """What is trained and how; every knob is a field, and a recipe adds its own.

    seed           of the first weights and of everything random
    start          weights to begin from: a file (safetensors, published or training checkpoint) or a bundled model
    clip_norm      largest norm of the gradient
    average        decay of the averaged weights, which are those that are exported
    half           bfloat16 where autocast allows it
    checkpoint_s   seconds between checkpoints
    validation     batches of fixed clips that the averaged weights are measured on at every checkpoint

    `progress` is 0 at the start and 1 when the budget is spent. `rng` is a CPU generator in the same state in every
    process; each process must draw the same amount from it.
    """

    seed: int = 1
    start: str | None = None
    clip_norm: float = 1.0
    average: float = 0.997
    half: bool = True
    checkpoint_s: float = 180
    validation: int = 2

    @property
    @abstractmethod
    def name(self) -> str:
        """The model's name in checkpoints and exported weights."""

    @abstractmethod
    def build(self) -> VOSModel:
        """A network with its first weights, on the CPU; random numbers come from torch's own generator."""

    @abstractmethod
    def optimiser(self, model: nn.Module) -> torch.optim.Optimizer:
        """What steps the model's parameters."""

    @abstractmethod
    def rate(self, progress: float) -> float:
        """The learning rate; a parameter group with a `scale` has it times that, above its `floor`."""

    @abstractmethod
    def prepare(self, model: nn.Module, progress: float) -> None:
        """Called before every step, in training mode: which norms are frozen now."""

    @abstractmethod
    def open(self, data: Path, device: torch.device) -> Any:
        """What `batch` draws from, of a folder."""

    @abstractmethod
    def batch(self, source: Any, rng: Generator, progress: float, share: Share, device: torch.device) -> Clips:
        """This process's share of the next batch, on the device; see `ranks.deal`."""

    @abstractmethod
    def losses(self, model: VOSModel, clips: Clips, rng: Generator, progress: float) -> dict[str, Tensor]:
        """Scalars of one batch, means over its clips: "loss" is minimised, all are logged. Called under autocast."""


class _Losses(nn.Module):
    """The recipe's losses as a module's forward, which is what DistributedDataParallel can wrap."""

    def __init__(self, recipe: Recipe, model: VOSModel) -> None:
        super().__init__()
        self.recipe, self.model = recipe, model

    def forward(self, clips: Clips, rng: Generator, progress: float) -> dict[str, Tensor]:
        with torch.autocast(clips.images.device.type, torch.bfloat16, enabled=self.recipe.half):
            return self.recipe.losses(self.model, clips, rng, progress)


@dataclass(frozen=True)
class Step:
    """What is known of a step before the device has computed it.

    facts     numbers the host knows
    losses    scalars on the device
    marks     times at which it began, had its clips, and ended
    """

    facts: dict[str, float]
    losses: dict[str, Tensor]
    marks: tuple[Any, Any, Any]


class Run:
    """A training in progress: model, optimiser, average, counters.

    begins   the recipe's `start` is loaded; not where `restore` follows
    """

    def __init__(
        self, recipe: Recipe, source: Any, device: str | torch.device = "cpu", *, begins: bool = True
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.source, self.device, self.share = recipe, source, torch.device(device), share()
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # sizes stay the same for thousands of steps
        model = recipe.build()
        if begins and recipe.start is not None:
            load_start(model, recipe.start)
        if self.share.world > 1 and self.device.type == "cuda":
            model = cast(VOSModel, nn.SyncBatchNorm.convert_sync_batchnorm(model))
        self.model = model.to(self.device).train()
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = recipe.optimiser(self.model)
        self.average = Average(self.model, recipe.average)
        self.losses: nn.Module = _Losses(recipe, self.model)
        if self.share.world > 1:
            # A clip need not use every weight: which frames are memorised is drawn anew each time.
            self.losses = DistributedDataParallel(self.losses, find_unused_parameters=True)
        torch.manual_seed(int(np.random.SeedSequence([recipe.seed, self.share.rank]).generate_state(1)[0]))
        self.step = 0
        self.elapsed_s = 0.0

    def state(self, *, alone: bool = False) -> dict[str, Any]:
        """Everything `restore` needs. Every process must call it; what counts is what rank 0 gets.

        alone   no other process calls it: their generators are left out
        """
        return {
            "recipe": type(self.recipe).__module__,
            "model_name": self.recipe.name,
            "settings": self._settings(),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.tensors,
            "rng": [self._generators()] if alone else gathered(self._generators()),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }

    def _settings(self) -> str:
        return json.dumps(asdict(self.recipe), default=str)

    def _generators(self) -> dict[str, Tensor]:
        """State of torch's own generators in this process."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; processes that were not there then begin with fresh generators."""
        if state["model_name"] != self.recipe.name:
            raise UsageError(f"the run to resume trains {state['model_name']}, not {self.recipe.name}")
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            what = " ".join(str(error).split())[:200]
            raise UsageError(
                f"the run to resume trains a network of other widths: {what}",
                remedy="resume with the settings the run began with",
            ) from None
        if changed := _changed(json.loads(state.get("settings", "{}")), json.loads(self._settings())):
            raise UsageError(
                f"the run to resume was begun with other settings: {changed}",
                remedy="resume it with those, or begin another in an --out of its own with --start",
            )
        for key, value in state["average"].items():
            self.average.tensors[key].copy_(value)
        generators = state["rng"] if isinstance(state["rng"], list) else []
        if self.share.rank < len(generators):
            torch.set_rng_state(generators[self.share.rank]["cpu"])
            if self.device.type == "cuda" and "cuda" in generators[self.share.rank]:
                torch.cuda.set_rng_state(generators[self.share.rank]["cuda"], self.device)
        self.step, self.elapsed_s = int(state["step"]), float(state["elapsed_s"])

    def advance(self, progress: float) -> Step:
        """One batch; what there is to log about it."""
        recipe, begun = self.recipe, self._mark()
        rng = step_rng(recipe.seed, self.step)
        self.model.train()
        recipe.prepare(self.model, progress)
        clips = recipe.batch(self.source, rng, progress, self.share._replace(step=self.step), self.device)
        composed = self._mark()
        statistics = [(b, b.clone()) for b in gathering_statistics(self.model)]
        losses = self.losses(clips, rng, progress)
        self.optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        rate = recipe.rate(progress)
        for group in self.optimiser.param_groups:
            floor = group.get("floor", 0.0)
            group["lr"] = floor + (rate - floor) * group.get("scale", 1.0)
        step_if_finite(self.optimiser, norm, statistics)
        self.average.update(self.model, self.step)
        self.step += 1
        b, t, _, _, w = clips.images.shape
        facts = {"step": self.step, "rate": rate, "size": w, "frames": b * t * self.share.world}
        scalars = {key: value.detach().float() for key, value in losses.items()}
        return Step(facts, {**scalars, "norm": norm.float()}, (begun, composed, self._mark()))

    def validate(self) -> dict[str, float]:
        """Losses of the averaged weights on clips that are always the same."""
        recipe = self.recipe
        own = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.tensors)
        self.model.eval()
        found: list[dict[str, Tensor]] = []
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            for i in range(recipe.validation):
                rng = step_rng(_FIXED_CLIPS, i)
                clips = recipe.batch(self.source, rng, 1.0, self.share._replace(step=_FIXED_CLIPS + i), self.device)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.half):
                    found.append(recipe.losses(self.model, clips, rng, 1.0))
        self.model.load_state_dict(own)
        means = [mean_over_ranks(torch.stack([one[key].float() for one in found]).mean()) for key in found[0]]
        return {f"validation_{key}": float(mean) for key, mean in zip(found[0], means, strict=True)}

    def entries(self, steps: list[Step]) -> list[dict[str, float]]:
        """What the log says of these steps, means over the processes; waits for the device."""
        keys = list(steps[0].losses)
        table = mean_over_ranks(torch.stack([torch.stack([s.losses[k] for k in keys]) for s in steps])).tolist()
        entries = []
        for step, values in zip(steps, table, strict=True):
            begun, composed, ended = step.marks
            seconds = self._between(begun, ended)
            timing = {
                "compose_s": round(self._between(begun, composed), 4),
                "step_s": round(seconds, 4),
                "frames_per_s": round(step.facts["frames"] / seconds, 2),
            }
            entries.append({**step.facts, **dict(zip(keys, values, strict=True)), **timing})
        return entries

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        mark = torch.cuda.Event(enable_timing=True)
        mark.record(torch.cuda.current_stream(self.device))
        return mark

    def _between(self, begun: Any, ended: Any) -> float:
        """Seconds from one mark to another."""
        if self.device.type != "cuda":
            return float(ended - begun)
        ended.synchronize()
        return float(begun.elapsed_time(ended)) / 1000


_MAY_CHANGE = ("start", "imagenet", "workers", "checkpoint_s", "validation")
"""Knobs that what follows does not depend on."""


def _changed(before: Any, now: Any, name: str = "") -> str:
    """What differs of two settings, as "peak 1e-05, now 0.001"; knobs that only one of them has do not."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in now if key in before and (name or key not in _MAY_CHANGE)]
        found = (_changed(before[key], now[key], f"{name}.{key}" if name else key) for key in keys)
        return "; ".join(one for one in found if one)
    return "" if before == now else f"{name} {before}, now {now}"


def step_rng(seed: int, step: int) -> Generator:
    """The random numbers of one step."""
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
    return Generator().manual_seed(mixed)


def step_if_finite(optimiser: torch.optim.Optimizer, norm: Tensor, statistics: list[tuple[Tensor, Tensor]]) -> None:
    """Step unless the gradient's norm is not finite: one bad batch must not end a night's run.

    statistics   running statistics, each with what it was before the batch, which a bad batch gets back
    """
    bad = ~torch.isfinite(norm)
    if getattr(optimiser, "_step_supports_amp_scaling", False):
        optimiser.found_inf = bad.float()  # type: ignore[attr-defined]  # a fused step asks it on the device
        optimiser.step()
    elif not bad:
        optimiser.step()
    with torch.no_grad():
        for now, before in statistics:
            now.copy_(torch.where(bad, before, now))


class _Stop:
    """Set by SIGTERM and SIGINT: the step under way is finished, a checkpoint written. Who presses Ctrl-C again does
    not want to wait for that."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def _stopping() -> Iterator[_Stop]:
    """Signals are heard while this lasts; only a process's main thread can listen."""
    stop = _Stop()
    main = threading.current_thread() is threading.main_thread()
    before = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)} if main else {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(
    recipe: Recipe,
    source: Any,
    out: str | Path,
    budget: Budget,
    *,
    device: str | torch.device = "cpu",
    resume: bool = False,
    pause_s: float | None = None,
    report: Report | None = None,
) -> Path:
    """Train until the budget is spent or the process is asked to stop; returns the last checkpoint.

    source    what the recipe's `open` gave
    out       gets checkpoint.pt and plot.png (rewritten as the run goes on) and log.jsonl (a line a step, and one a
              checkpoint with what validation found; null where a figure is not finite)
    resume    go on from out/checkpoint.pt where there is one
    pause_s   stop after so many seconds, wherever the run is then; `resume` goes on
    report    is given every line of the log, on rank 0

    Under `torchrun` every process calls this alike. Raises UsageError where `out` holds a run that is not resumed,
    and for a negative pause.
    """
    if pause_s is not None and not pause_s >= 0:
        raise UsageError(f"a pause after {pause_s / 60:g} minutes", remedy="give 0 or more")
    out = Path(out)
    path = out / "checkpoint.pt"
    if path.exists() and not resume:
        raise UsageError("the folder holds a run already", path=out, remedy="--resume it, or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    with joined(device) as own, _stopping() as stop:
        resumes = path.exists()
        run = Run(recipe, source, own, begins=not resumes)
        if resumes:
            run.restore(load_checkpoint(path))
        journal = _Journal(run, out, report)
        journal.forget_after(run.step)
        _loop(run, budget, journal, stop, pause_s)
    return path


class _Journal:
    """What a run leaves in its folder; only rank 0 writes."""

    def __init__(self, run: Run, out: Path, report: Report | None) -> None:
        self.run, self.out, self.report = run, out, report
        self.path = out / "log.jsonl"
        self.writes = run.share.rank == 0
        self._waiting: list[Step] = []
        self._warned = False

    def forget_after(self, step: int) -> None:
        """Drop lines of steps that no checkpoint knows of: they will be taken again."""
        if not self.writes or not self.path.exists():
            return
        lines = self.path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if _is_known(line, step)]
        if len(kept) < len(lines):
            part = self.path.with_name(f".{self.path.name}.part")
            part.write_text("".join(kept))
            part.replace(self.path)

    def add(self, step: Step) -> None:
        """Note a step; on a GPU several are written at a time, since that waits for the device."""
        self._waiting.append(step)
        if len(self._waiting) >= (10 if self.run.device.type == "cuda" else 1):
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            entries = self.run.entries(self._waiting)
            self._waiting = []
            self._write(entries)

    def checkpoint(self) -> None:
        """Write everything a run goes on from, what validation finds, and the curves."""
        self.flush()
        state = self.run.state()
        if self.writes:
            save_checkpoint(state, self.out / "checkpoint.pt")
        if self.run.recipe.validation:
            facts = {"step": self.run.step, "elapsed_s": round(self.run.elapsed_s, 2)}
            self._write([{**facts, **self.run.validate()}])
        if self.writes and self.run.step:
            self._draw()

    def _draw(self) -> None:
        """The curves; a run that cannot have them goes on without, and says so once."""
        try:
            draw_log(self.path, self.out / "plot.png")
        except RotomemError as error:
            if not self._warned:
                print(f"no curves are drawn: {error}", file=sys.stderr, flush=True)
            self._warned = True

    def _write(self, entries: list[dict[str, float]]) -> None:
        if not self.writes:
            return
        try:
            with self.path.open("a") as log:
                log.writelines(_line(entry) for entry in entries)
        except OSError as error:
            # The steps are worth more than their log; other processes do not know and cannot be asked.
            save_checkpoint(self.run.state(alone=True), self.out / "checkpoint.pt")
            raise OutputError(
                f"cannot write the log: {error.strerror}",
                remedy="the checkpoint is written: make room, then --resume",
                path=self.path,
            ) from None
        if self.report is not None:
            for entry in entries:
                self.report(entry)


def _line(entry: dict[str, float]) -> str:
    """A line of the log; JSON knows neither NaN nor infinity."""
    known = {key: value if math.isfinite(value) else None for key, value in entry.items()}
    return json.dumps(known, allow_nan=False) + "\n"


def _is_known(line: str, step: int) -> bool:
    try:
        return int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError, TypeError):  # a line cut short by a power failure
        return False


def _loop(run: Run, budget: Budget, journal: _Journal, stop: _Stop, pause_s: float | None) -> None:
    begun = last = time.monotonic()
    saved_s, saved_step = run.elapsed_s, run.step
    while True:
        now = time.monotonic()
        wants = stop.asked or (pause_s is not None and now - begun >= pause_s)
        # What the processes do next must be the same everywhere: the slowest clock counts, and anyone's wish to stop.
        run.elapsed_s, stopping = most(run.elapsed_s + now - last, float(wants))
        last = now
        progress = budget.progress(run.step, run.elapsed_s)
        if stopping or progress >= 1:
            break
        if run.elapsed_s - saved_s > run.recipe.checkpoint_s:
            journal.checkpoint()
            saved_s, saved_step = run.elapsed_s, run.step
        step = run.advance(progress)
        step.facts.update(elapsed_s=round(run.elapsed_s, 2), progress=round(progress, 5))
        journal.add(step)
    if run.step > saved_step or run.step == 0:
        journal.checkpoint()
