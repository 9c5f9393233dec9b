"""What each of two processes does in the test of distributed training; the second one is started as a script."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Generator

from rotomem.train.compose import Clips, Composer
from rotomem.train.data import PicturePool, SourceConfig, load_pool
from rotomem.train.loop import Run, train
from rotomem.train.ranks import Share, leave
from rotomem.train.recipes.xmem_s import XMemS
from rotomem.train.schedule import Budget, Stage
from train.tiny import RECIPE

SMALL = SourceConfig(picture_px=96, cutout_px=64, cutout_least_px=16)


class Uneven(XMemS):
    """The first clip of a batch has an object less, so a process that counts but its own would weigh them wrongly."""

    def batch(self, source: Composer, rng: Generator, progress: float, share: Share, device: torch.device) -> Clips:
        clips = super().batch(source, rng, progress, share, device)
        present = torch.ones_like(clips.present)
        present[0, 1] = share.rank > 0
        return replace(clips, present=present)


BASE = replace(RECIPE, stages=(Stage(1.0, 32, 2, 2),), frozen_from=0.0, clip_norm=1e9, half=False, two_objects=1.0)
FROZEN = Uneven(**{f.name: getattr(BASE, f.name) for f in fields(BASE)})
"""Norms hold still: statistics of a half batch would not be those of the whole."""


def gradients(pool: PicturePool) -> dict[str, torch.Tensor]:
    """Of one step, by parameter."""
    run = Run(FROZEN, Composer(pool))
    run.advance(0.5)
    return {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}


def work(
    rank: int, pool: PicturePool, folder: Path, report: Callable[[dict[str, float]], None] | None = None
) -> dict[str, torch.Tensor]:
    """Join, take one step, then train into `folder` until someone is stopped; the first step's gradients."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    try:
        mine = gradients(pool)
        train(FROZEN, Composer(pool), folder / "run", Budget(steps=60), report=report)
    finally:
        leave()
    return mine


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(1, load_pool(sys.argv[1], SMALL), Path(sys.argv[2]))
