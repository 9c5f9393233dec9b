"""XMem as published (Cheng and Schwing, ECCV 2022, section 3.6 "Training", appendix G), 62.2 M parameters.

    stage 0   photographs     150,000 iterations of 16 clips of 3 frames, one object each
    stage 1   BL30K           250,000 iterations of 8 clips of 8 frames (optional)
    stage 2   DAVIS, YouTube  160,000 iterations of 8 clips of 8 frames, after stage 1
    stage 3   DAVIS, YouTube  110,000 iterations of 8 clips of 8 frames, after stage 0: the paper's main training

Stages 0 and 3 take about 35 hours on two RTX A6000 (48 GB each).

A frame reads at most three earlier ones, the first among them. The deep update comes with a chance of 0.2 and follows
the decoder's own update. The last 10,000 iterations of stages 2 and 3 leave single frames as they are. Cross-entropy
and dice weigh the same. What the paper leaves open (frames are gathered, gaps, the length of stage 2) is as in its
published code; there, a sample's absent objects are cut out of the softmax, here they are told to be background.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import nn

from rotomem.models.interface import VOSModel
from rotomem.models.xmem import XMem, XMemConfig
from rotomem.train.augment import STILLS, VIDEO
from rotomem.train.clip import ClipKnobs
from rotomem.train.datasets import Draw
from rotomem.train.recipes.staged import PublishedStage, STMLineRecipe

_CLIP = Draw(frames=8, objects=3, gap=5, spread="gather", augment=VIDEO)

STAGES = {
    "0": PublishedStage("0", ("stills",), 150_000, 16, Draw(frames=3, objects=1, augment=STILLS)),
    "1": PublishedStage(
        "1",
        ("bl30k",),
        250_000,
        8,
        replace(_CLIP, augment=replace(VIDEO, share=(0.25, 1.0))),
        gaps=((25_000, 10), (75_000, 15), (200_000, 5)),
        drops=(200_000,),
    ),
    "2": PublishedStage(
        "2",
        ("davis", "youtube"),
        160_000,
        8,
        _CLIP,
        gaps=((15_000, 10), (45_000, 15), (135_000, 5)),
        drops=(120_000,),
        settle=150_000,
    ),
    "3": PublishedStage(
        "3",
        ("davis", "youtube"),
        110_000,
        8,
        _CLIP,
        gaps=((10_000, 10), (30_000, 15), (90_000, 5)),
        drops=(80_000,),
        settle=100_000,
    ),
}


@dataclass(frozen=True)
class XMemRecipe(STMLineRecipe):
    """Every knob of the training; see STMLineRecipe.

    weight_decay   of AdamW, for all parameters
    """

    name = "xmem"
    stages = STAGES
    encoder_names = ("ResNet-50", "ResNet-18")

    stage: PublishedStage = STAGES["3"]
    weight_decay: float = 0.05
    clip: ClipKnobs = field(default_factory=lambda: ClipKnobs(deep_update=0.2, deep_adds=True, references=3))
    network: XMemConfig = field(default_factory=XMemConfig)

    def network_at_random(self) -> XMem:
        """XMem at the recipe's widths."""
        return XMem(self.network)

    def encoders(self, model: VOSModel) -> tuple[tuple[nn.Module, ...], ...]:
        """Keys, then values."""
        assert isinstance(model, XMem)
        return (model.key_encoder,), (model.value_encoder,)

    def optimiser(self, model: nn.Module) -> torch.optim.AdamW:
        """AdamW, everything decayed."""
        trained = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=self.peak, weight_decay=self.weight_decay, fused=True)
