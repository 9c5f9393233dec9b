"""How far a training has come, and what follows from it: rates, stages, norms that hold still.

Everything is a function of progress, 0..1, which counts either time or steps; a run that has an hour and one that
has a night differ in nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rotomem.errors import UsageError


@dataclass(frozen=True)
class Budget:
    """Minutes of training, or steps; one of the two, 0 or more. 0 minutes leave a checkpoint of the first weights."""

    minutes: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise UsageError("a training needs either minutes or steps", remedy="give exactly one of the two")
        length = self.minutes if self.steps is None else self.steps
        assert length is not None
        if not length >= 0:  # not NaN either
            raise UsageError(
                f"a training of {length:g} {'minutes' if self.steps is None else 'steps'}", remedy="give 0 or more"
            )

    def progress(self, step: int, elapsed_s: float) -> float:
        """0 at the start, 1 when the budget is spent."""
        if self.steps is not None:
            return min(step / max(self.steps, 1), 1.0)
        assert self.minutes is not None
        return min(elapsed_s / max(self.minutes * 60, 1e-9), 1.0)


@dataclass(frozen=True)
class Stage:
    """What batches look like until `until` (progress 0..1).

    size      side of the clips in pixels, a multiple of 16
    clips     clips a batch
    frames    frames a clip
    """

    until: float
    size: int
    clips: int
    frames: int


def stage_at(stages: Sequence[Stage], progress: float) -> Stage:
    """The stage that `progress` falls in; the last one beyond all."""
    return next((s for s in stages if progress < s.until), stages[-1])


def cosine_rate(progress: float, *, peak: float, warm_up: float = 0.02, floor: float = 0.01) -> float:
    """Linear from 0 over the first `warm_up` of the run, then half a cosine down to `floor` times the peak."""
    if progress < warm_up:
        return peak * max(progress / warm_up, 1e-3)
    done = (progress - warm_up) / (1 - warm_up)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def freeze_norms(model: nn.Module, frozen: bool = True) -> None:
    """Batch norms use the statistics gathered so far (frozen), or those of the batch, and gather."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train(not frozen)


def gathering_statistics(model: nn.Module) -> list[Tensor]:
    """Running statistics of the batch norms that gather just now."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    return [s for norm in norms for s in (norm.running_mean, norm.running_var) if s is not None]


def decayed_apart(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: weights decay, biases and norms do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
