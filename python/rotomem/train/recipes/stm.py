"""STM as its paper tells it (Oh, Lee, Xu and Kim, ICCV 2019); no training code was published.

    stage 0   photographs     300,000 iterations of 4 clips, one object each
    stage 1   DAVIS, YouTube  150,000 iterations of 4 clips, up to three objects

Four GTX 1080 Ti (11 GB each) took four days for the first and three for the second.

Clips have three frames of 384 x 384; the first two are remembered. Adam at a steady 1e-5, plain cross-entropy, norms
that hold still, full precision. Frames that may be skipped grow from 0 to 25, by 5 every 20 rounds through the data;
a round is 943 iterations with DAVIS five times, as later papers have it. The paper counts days, not iterations, and
says little of how pictures are changed: lengths and changes are those of STCN on the same data.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from rotomem.models.interface import VOSModel
from rotomem.models.stm import STM, STMConfig
from rotomem.train.augment import STILLS, VIDEO
from rotomem.train.clip import ClipKnobs
from rotomem.train.datasets import Draw
from rotomem.train.recipes.staged import PublishedStage, STMLineRecipe

_GROWTH = 20 * (60 * 5 + 3471) // 4
"""Iterations of 20 rounds."""

STAGES = {
    "0": PublishedStage("0", ("stills",), 300_000, 4, Draw(frames=3, objects=1, augment=STILLS)),
    "1": PublishedStage(
        "1",
        ("davis", "youtube"),
        150_000,
        4,
        Draw(frames=3, objects=3, gap=1, augment=VIDEO),
        gaps=tuple((_GROWTH * i, 1 + 5 * i) for i in range(1, 6)),
    ),
}


@dataclass(frozen=True)
class STMRecipe(STMLineRecipe):
    """Every knob of the training; see STMLineRecipe."""

    name = "stm"
    stages = STAGES
    encoder_names = ("ResNet-50",)

    half: bool = False
    stage: PublishedStage = STAGES["1"]
    bootstrap: tuple[float, float, float] | None = None
    clip: ClipKnobs = field(default_factory=lambda: ClipKnobs(dice=0.0))
    network: STMConfig = field(default_factory=STMConfig)

    def network_at_random(self) -> STM:
        """STM at the recipe's widths."""
        return STM(self.network)

    def encoders(self, model: VOSModel) -> tuple[tuple[nn.Module, ...], ...]:
        """Either encoder."""
        assert isinstance(model, STM)
        return ((model.Encoder_Q, model.Encoder_M),)

    def optimiser(self, model: nn.Module) -> torch.optim.Adam:
        """Adam."""
        return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=self.peak, fused=True)
