"""The training loop: everything that is the same whatever is trained.

A recipe (`recipes/`) says what network, what clips, what losses and at which rate. The loop steps, clips gradients,
averages weights, logs, writes checkpoints and goes on from them.

Nothing random is carried from step to step: the numbers of step n come from the recipe's seed and n alone, the same
for every process of a distributed run. A run that stopped therefore goes on exactly as if it had not.
"""

from __future__ import annotations

import json
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TextIO

import numpy as np
import torch
from torch import Generator, Tensor, nn

from rotomem.models.interface import VOSModel
from rotomem.train.checkpoint import Average, load_checkpoint, save_checkpoint
from rotomem.train.compose import Clips
from rotomem.train.schedule import Budget

Report = Callable[[dict[str, float]], None]


class Share(NamedTuple):
    """Which of how many processes this is; each takes its part of every batch."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class Recipe(ABC):
    """What is trained and how; every knob is a field, and a recipe adds its own.

    seed           of the first weights and of everything random
    clip_norm      largest norm of the gradient
    average        decay of the averaged weights, which are those that are exported
    half           bfloat16 where autocast allows it
    checkpoint_s   seconds between checkpoints

    `progress` is 0 at the start and 1 when the budget is spent. `rng` is a CPU generator in the same state on every
    process; each process must draw the same amount from it.
    """

    seed: int = 1
    clip_norm: float = 1.0
    average: float = 0.997
    half: bool = True
    checkpoint_s: float = 180

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
        """The learning rate; a parameter group with a `scale` has it times that."""

    @abstractmethod
    def prepare(self, model: nn.Module, progress: float) -> None:
        """Called before every step, in training mode: which norms are frozen now."""

    @abstractmethod
    def open(self, data: Path, device: torch.device) -> Any:
        """What `batch` draws from, of a folder."""

    @abstractmethod
    def batch(self, source: Any, rng: Generator, progress: float, share: Share, device: torch.device) -> Clips:
        """This process's share of the next batch, on the device."""

    @abstractmethod
    def losses(self, model: VOSModel, clips: Clips, rng: Generator, progress: float) -> dict[str, Tensor]:
        """Scalars of one batch: "loss" is minimised, all are logged. Called under autocast."""


class Run:
    """A training in progress: model, optimiser, average, counters."""

    def __init__(self, recipe: Recipe, source: Any, device: str | torch.device = "cpu") -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.source, self.device = recipe, source, torch.device(device)
        self.model = recipe.build().to(self.device).train()
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = recipe.optimiser(self.model)
        self.average = Average(self.model, recipe.average)
        self.step = 0
        self.elapsed_s = 0.0

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs."""
        return {
            "recipe": type(self.recipe).__module__,
            "model_name": self.recipe.name,
            "settings": json.dumps(asdict(self.recipe), default=str),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.tensors,
            "torch_rng": torch.get_rng_state(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        for key, value in state["average"].items():
            self.average.tensors[key].copy_(value)
        torch.set_rng_state(state["torch_rng"])
        self.step, self.elapsed_s = int(state["step"]), float(state["elapsed_s"])

    def advance(self, progress: float) -> dict[str, float]:
        """One batch; what there is to log about it."""
        recipe, start = self.recipe, time.perf_counter()
        rng = step_rng(recipe.seed, self.step)
        recipe.prepare(self.model, progress)
        clips = recipe.batch(self.source, rng, progress, Share(), self.device)
        composed = time.perf_counter()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.half):
            losses = recipe.losses(self.model, clips, rng, progress)
        self.optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        rate = recipe.rate(progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        if torch.isfinite(norm):  # one bad batch must not end a night's run
            self.optimiser.step()
            self.average.update(self.model, self.step)
        self.step += 1
        return {
            "step": self.step,
            **{key: float(value.detach()) for key, value in losses.items()},
            "norm": float(norm),
            "rate": rate,
            "size": clips.images.shape[-1],
            "compose_s": composed - start,
            "step_s": time.perf_counter() - start,
        }


def step_rng(seed: int, step: int) -> Generator:
    """The random numbers of one step."""
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
    return Generator().manual_seed(mixed)


class _Stop:
    """Set by SIGTERM and SIGINT: the step under way is finished, a checkpoint written."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def train(
    recipe: Recipe,
    source: Any,
    out: str | Path,
    budget: Budget,
    *,
    device: str | torch.device = "cpu",
    resume: bool = False,
    report: Report | None = None,
) -> Path:
    """Train until the budget is spent or the process is asked to stop; returns the last checkpoint.

    source   what the recipe's `open` gave
    out      gets checkpoint.pt (rewritten as the run goes on) and log.jsonl (a line a step)
    resume   go on from out/checkpoint.pt where there is one
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, source, device)
    path = out / "checkpoint.pt"
    if resume and path.exists():
        run.restore(load_checkpoint(path))
    stop = _Stop()
    before = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        with (out / "log.jsonl").open("a", buffering=1) as log:
            _loop(run, budget, path, log, stop, report)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return path


def _loop(run: Run, budget: Budget, path: Path, log: TextIO, stop: _Stop, report: Report | None) -> None:
    last, saved = time.monotonic(), time.monotonic()
    while not stop.asked:
        progress = budget.progress(run.step, run.elapsed_s)
        if progress >= 1:
            break
        entry = run.advance(progress)
        now = time.monotonic()
        run.elapsed_s += now - last
        last = now
        entry.update(elapsed_s=round(run.elapsed_s, 2), progress=round(progress, 5))
        log.write(json.dumps(entry) + "\n")
        if report is not None:
            report(entry)
        if now - saved > run.recipe.checkpoint_s:
            save_checkpoint(run.state(), path)
            saved = now
    save_checkpoint(run.state(), path)
