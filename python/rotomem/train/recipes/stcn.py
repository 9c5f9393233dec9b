"""STCN as published (Cheng, Tai and Tang, NeurIPS 2021, section 5 and appendix F), 54.4 M parameters.

    stage 0   photographs     300,000 iterations of 16 clips, one object each
    stage 1   BL30K           500,000 iterations of 8 clips (optional)
    stage 2   DAVIS, YouTube  300,000 iterations of 8 clips, after stage 1
    stage 3   DAVIS, YouTube  150,000 iterations of 8 clips, after stage 0: the paper's main training

Stages 0 and 3 take about 30 hours on two RTX 2080 Ti (11 GB each) as F.4 has it, 36 and 16 hours as section 5 has it;
all with BL30K about four days.

Clips have three frames: the second is predicted from the first, the third from both. Cross-entropy alone, on the
hardest pixels. In the paper's code a sample's absent objects are cut out of the softmax, here they are told to be
background. Photographs of HRSOD and BIG come five times as often as others in the paper (F.3.1); here all come alike,
as a folder of stills does not say which they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import nn

from rotomem.models.interface import VOSModel
from rotomem.models.stcn import STCN, STCNConfig
from rotomem.train.augment import STILLS, VIDEO
from rotomem.train.clip import ClipKnobs
from rotomem.train.datasets import Draw
from rotomem.train.recipes.staged import PublishedStage, STMLineRecipe

_CLIP = Draw(frames=3, objects=2, gap=5, augment=VIDEO)


def _curriculum(iterations: int, end: float = 0.9) -> tuple[tuple[int, int], ...]:
    """Gaps of 10, 15, 20 and 25 at every tenth of the stage, and back to 5 from `end` on (F.4)."""
    return tuple((round(at * iterations), gap) for at, gap in ((0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25), (end, 5)))


STAGES = {
    "0": PublishedStage("0", ("stills",), 300_000, 16, Draw(frames=3, objects=1, augment=STILLS), drops=(150_000,)),
    "1": PublishedStage(
        "1",
        ("bl30k",),
        500_000,
        8,
        replace(_CLIP, augment=replace(VIDEO, share=(0.25, 1.0))),
        gaps=_curriculum(500_000, 0.8),
        drops=(450_000,),
    ),
    "2": PublishedStage("2", ("davis", "youtube"), 300_000, 8, _CLIP, gaps=_curriculum(300_000), drops=(250_000,)),
    "3": PublishedStage("3", ("davis", "youtube"), 150_000, 8, _CLIP, gaps=_curriculum(150_000), drops=(125_000,)),
}


@dataclass(frozen=True)
class STCNRecipe(STMLineRecipe):
    """Every knob of the training; see STMLineRecipe.

    weight_decay   added to the gradient, as Adam has it
    """

    name = "stcn"
    stages = STAGES
    encoder_names = ("ResNet-50", "ResNet-18")

    stage: PublishedStage = STAGES["3"]
    weight_decay: float = 1e-7
    clip: ClipKnobs = field(default_factory=lambda: ClipKnobs(dice=0.0))
    network: STCNConfig = field(default_factory=STCNConfig)

    def network_at_random(self) -> STCN:
        """STCN at the recipe's widths."""
        return STCN(self.network)

    def encoders(self, model: VOSModel) -> tuple[tuple[nn.Module, ...], ...]:
        """Keys, then values."""
        assert isinstance(model, STCN)
        return (model.key_encoder,), (model.value_encoder,)

    def optimiser(self, model: nn.Module) -> torch.optim.Adam:
        """Adam (F.1)."""
        trained = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.Adam(trained, lr=self.peak, weight_decay=self.weight_decay, fused=True)
