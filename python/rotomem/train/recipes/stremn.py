"""STReMN as its paper tells it (Nguyen, Kim and Li 2022, section 4.1.1); no training code was published.

    stage 0   photographs     300,000 iterations of 4 clips of 5 frames (COCO, ECSSD, SBD, MSRA10K, HKU-IS)
    stage 1   DAVIS, YouTube  150,000 iterations of 4 clips of 10 frames

Clips are of 384 x 384. Adam, plain cross-entropy; a steady 1e-4 on photographs, half a cosine from 1e-5 to 1e-7 on
videos. The memory has its 6 slots as at test, so that in stage 1 the last frames of a clip are what the update keys
learn from; in stage 0 every frame has a free slot and they learn nothing. Norms are group norms and never hold still.

The paper says neither how many clips a step sees, nor how many steps there are, nor on what machine; these, the
objects of a clip and the changes of its pictures are those of STM on the same data (`recipes/stm.py`). Nor does it
say how far apart a clip's frames are: the steady gap of at most 5 is in no source, it is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from rotomem.models.interface import VOSModel
from rotomem.models.stremn import STReMN, STReMNConfig
from rotomem.train.augment import STILLS, VIDEO
from rotomem.train.clip import ClipKnobs, clip_losses
from rotomem.train.compose import Clips
from rotomem.train.datasets import Draw
from rotomem.train.recipes.staged import PublishedStage, StagedRecipe
from rotomem.train.schedule import cosine_rate
from rotomem.train.slots import SlotMemory

STAGES = {
    "0": PublishedStage("0", ("stills",), 300_000, 4, Draw(frames=5, objects=1, augment=STILLS)),
    "1": PublishedStage("1", ("davis", "youtube"), 150_000, 4, Draw(frames=10, objects=3, gap=5, augment=VIDEO)),
}


@dataclass(frozen=True)
class STReMNRecipe(StagedRecipe):
    """Every knob of the training; see StagedRecipe.

    still_rate    learning rate on photographs; on videos it falls from `peak` to a hundredth of it
    temperature   of the Gumbel-softmax that draws a slot (section 3.2)
    """

    name = "stremn"
    stages = STAGES
    encoder_names = ("ResNet-50 with group norms",)

    half: bool = False
    norms_learn: bool = True
    stage: PublishedStage = STAGES["1"]
    bootstrap: tuple[float, float, float] | None = None
    clip: ClipKnobs = field(default_factory=lambda: ClipKnobs(dice=0.0))
    network: STReMNConfig = field(default_factory=STReMNConfig)
    still_rate: float = 1e-4
    temperature: float = 1.0

    def network_at_random(self) -> STReMN:
        """STReMN at the recipe's widths."""
        return STReMN(self.network)

    def encoders(self, model: VOSModel) -> tuple[tuple[nn.Module, ...], ...]:
        """Either encoder."""
        assert isinstance(model, STReMN)
        return ((model.query_encoder, model.memory_encoder),)

    def optimiser(self, model: nn.Module) -> torch.optim.Adam:
        """Adam."""
        return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=self.rate(0), fused=True)

    def rate(self, progress: float) -> float:
        """Steady on photographs, falling on videos."""
        if self.stage.kinds == ("stills",):
            return self.still_rate
        return cosine_rate(progress, peak=self.peak, warm_up=0, floor=0.01)

    def losses(self, model: VOSModel, clips: Clips, rng: Generator, progress: float) -> dict[str, Tensor]:
        """Cross-entropy over the predicted frames, each read from the slots that were filled before it."""
        config = self.network
        memory = SlotMemory(model.plan, config.policy, rng, seed=config.seed, temperature=self.temperature)
        return clip_losses(model, clips, rng, self.clip, memory=memory)
