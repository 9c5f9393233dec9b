"""A network and a recipe small enough that a step takes a tenth of a second."""

from __future__ import annotations

import json
from pathlib import Path

from rotomem.models.xmem import XMemConfig
from rotomem.train.recipes.xmem_s import XMemS
from rotomem.train.schedule import Stage

TINY = XMemConfig(
    key_block="basic",
    key_stem=16,
    key_planes=(16, 16, 32),
    key_depths=(1, 1, 1),
    value_stem=16,
    value_planes=(16, 16, 16),
    value_depths=(1, 1, 1),
    key_dim=16,
    value_dim=32,
    sensory_dim=16,
    decoder=(32, 16, 16),
    update_dim=16,
)
RECIPE = XMemS(
    stages=(Stage(0.5, 32, 2, 3), Stage(1.0, 48, 2, 3)),
    network=TINY,
    warm_up=0.1,
    checkpoint_s=1e9,
    peak=2e-3,
    validation=0,
)


def entries(folder: Path) -> list[dict[str, float]]:
    """A run's log, steps only."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]
