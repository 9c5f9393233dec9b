"""Video prediction as the paper of STReMN tells it (Nguyen, Kim and Li 2022, section 4.2), on generated scenes.

Adam at 1e-3; shrinkage loss on L1 and L2 and the scale-invariant gradient loss; nothing pretrained. A clip's first
frames are given, the others predicted, each from what was predicted before it, as when the network is used. The
authors averaged weights of steps with a high SSIM; here it is the running average. They trained on Human3.6M (4
frames to 4) and KTH (10 to 20) at 128 x 128, which are not at hand: scenes are made on the fly (`train/moving.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from rotomem.models.prediction import STACK, FramePredictor, PredictorConfig
from rotomem.train.compose import Clips
from rotomem.train.loop import Recipe
from rotomem.train.memory import ClipMemory
from rotomem.train.moving import MovingScenes
from rotomem.train.prediction_losses import prediction_losses
from rotomem.train.ranks import Share, deal
from rotomem.train.schedule import cosine_rate
from rotomem.train.slots import SlotMemory


@dataclass(frozen=True)
class PredictionRecipe(Recipe):
    """Every knob of the training.

    size       side of the pictures, a multiple of the network's stride
    clips      of a batch, over all processes
    given      frames of a clip that are given, three or more
    told       frames that are predicted
    alone      share of the training in which the first of them is predicted alone: motion is learned four times as
               fast from what was seen as from what was told
    peak       highest learning rate
    gradient   weight of the gradient loss
    temperature   of the Gumbel-softmax that draws a slot
    """

    name = "prediction"

    size: int = 128
    clips: int = 8
    given: int = 4
    told: int = 4
    alone: float = 0.5
    peak: float = 1e-3
    warm_up: float = 0.02
    gradient: float = 0.01
    temperature: float = 1.0
    network: PredictorConfig = field(default_factory=PredictorConfig)
    scenes: MovingScenes = field(default_factory=MovingScenes)

    def build(self) -> FramePredictor:  # type: ignore[override]  # the loop asks a network for its weights alone
        """A fresh network."""
        return FramePredictor(self.network)

    def optimiser(self, model: nn.Module) -> torch.optim.Adam:
        """Adam."""
        return torch.optim.Adam(model.parameters(), lr=self.peak, fused=True)

    def rate(self, progress: float) -> float:
        """Warm-up and half a cosine; the paper has a steady rate."""
        return cosine_rate(progress, peak=self.peak, warm_up=self.warm_up)

    def prepare(self, model: nn.Module, progress: float) -> None:
        """Group norms hold no statistics."""

    def open(self, data: Path | None, device: torch.device) -> MovingScenes:
        """Scenes are generated: no folder is looked at."""
        return self.scenes

    def batch(self, source: Any, rng: Generator, progress: float, share: Share, device: torch.device) -> Clips:
        """This process's scenes; they show no objects to follow."""
        parts = [
            source.draw(one, clips=1, frames=self.given + self.told, size=self.size)
            for one in deal(rng, self.clips, share)
        ]
        images = torch.cat(parts).to(device)
        none = images.new_zeros(*images.shape[:2], 0, *images.shape[3:])
        return Clips(images, none, torch.zeros(images.shape[0], 0, dtype=torch.bool, device=device))

    def losses(self, model: Any, clips: Clips, rng: Generator, progress: float) -> dict[str, Tensor]:
        """Those of section 4.2, and the mean squared errors of prediction and of repeating the last given frame."""
        memory = SlotMemory(
            model.plan,
            self.network.policy,
            rng,
            seed=self.network.seed,
            pinned=0,
            temperature=self.temperature,
        )
        told = 1 if progress < self.alone else self.told
        predicted = predict_clip(model, clips.images[:, : self.given], told, memory)
        truth = clips.images[:, self.given : self.given + told]
        losses = prediction_losses(predicted.flatten(0, 1), truth.flatten(0, 1), gradient=self.gradient)
        with torch.no_grad():
            error = (predicted.clamp(0, 1) - truth).square().mean()
            repeat = (clips.images[:, self.given - 1 : self.given] - truth).square().mean()
        return {**losses, "mse": error, "mse_repeat": repeat}


def predict_clip(model: FramePredictor, given: Tensor, told: int, memory: ClipMemory) -> Tensor:
    """The frames after the given ones.

    given     [B, T, 3, h, w] 0..1, three or more frames
    memory    an empty one
    returns   [B, told, 3, h, w] float32, not clamped
    """
    frames = list(given.unbind(1))
    predicted: list[Tensor] = []
    for i in range(STACK, given.shape[1] + told):
        features = model.encode(frames[i - STACK : i])
        if i == STACK:  # an empty memory cannot be read
            memory.add([features.template])
        if i >= given.shape[1]:
            predicted.append(model.decode(features, memory))
            frames.append(predicted[-1].clamp(0, 1))
        if i > STACK:
            memory.add([features.template])
    return torch.stack(predicted, 1)
