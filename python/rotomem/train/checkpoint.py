"""Everything a run needs to go on as if it had never stopped, in one file; and the weights that come out of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rotomem.errors import CheckpointError, OutputError, UsageError
from rotomem.io.weights import write_weights
from rotomem.models.interface import VOSModel
from rotomem.models.registry import REGISTRY, load_strictly, read_state_dict

FORMAT = "rotomem-train-1"


class Average:
    """Exponential moving average of a model's weights and running statistics.

    decay    share kept per step; lower in the first steps, so that the average forgets where it began
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors: dict[str, Tensor] = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the model after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = [], []
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                mine.append(self.tensors[key])
                theirs.append(value)
            else:
                self.tensors[key].copy_(value)
        torch._foreach_lerp_(mine, theirs, 1 - decay)


def save_checkpoint(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a run's state; the file appears whole or not at all. Raises OutputError where it cannot be written."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch wraps a full disk in a RuntimeError
        what = next(
            (e.strerror for e in (error, error.__cause__, error.__context__) if isinstance(e, OSError)), error
        )
        raise OutputError(
            f"cannot write the checkpoint: {what}", path=path, remedy="make room; the one before it is whole"
        ) from None
    finally:
        part.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """A run's state, on the CPU. Raises CheckpointError where the file is none of ours or damaged."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError("no such checkpoint", path=path) from None
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint: {error.strerror}", path=path) from None
    except Exception as error:  # unpickling raises whatever the file's bytes lead it to
        raise CheckpointError(
            "the checkpoint is damaged, or none of rotomem's", path=path, remedy="use a copy, or a delivered one"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError("not a training checkpoint of rotomem", path=path)
    return state


def load_start(model: VOSModel, start: str | Path) -> None:
    """Give a fresh network the weights of another: every tensor of it, of the same shape.

    start   a bundled model's name, a safetensors or published checkpoint, or a training's (its average is taken)

    Raises UsageError where there is no such thing, CheckpointError telling what does not fit.
    """
    entry = REGISTRY.get(str(start))
    path = entry.weights if entry is not None and entry.weights is not None else Path(start)
    if not path.exists():
        raise UsageError(f"{str(start)!r} is neither a bundled model nor a file", remedy="check what to start from")
    try:
        tensors = load_checkpoint(path)["average"]
    except CheckpointError:  # no training's: weights alone, or something else of which that call tells
        tensors = read_state_dict(path)
    try:
        load_strictly(model, tensors)
    except CheckpointError as error:
        raise CheckpointError(error.what, remedy="start from weights of the same widths", path=path) from None


def export_weights(
    checkpoint: str | Path | Mapping[str, Any],
    path: str | Path,
    *,
    version: str = "1",
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write the averaged weights of a run as float16 safetensors, with where they come from in the metadata.

    checkpoint   a file that `save_checkpoint` wrote, or its contents
    facts        more for the metadata
    """
    state = checkpoint if isinstance(checkpoint, Mapping) else load_checkpoint(checkpoint)
    tensors = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in state["average"].items()
        if not key.endswith("num_batches_tracked")
    }
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{key} is not finite in float16", remedy="export an earlier checkpoint")
    metadata = {
        "format": "pt",
        "model": str(state["model_name"]),
        "version": version,
        "recipe": str(state["recipe"]),
        "steps": str(state["step"]),
        "minutes": f"{state['elapsed_s'] / 60:.1f}",
        **(facts or {}),
    }
    path = Path(path)
    write_weights(tensors, metadata, path)
    return path
