"""xmem-s: the narrow XMem that comes with rotomem, from nothing but composed clips.

One hour and a half on one CPU thread makes weights worth using; more time makes better ones. The network is trained
as it runs: the first frame's mask is given, later ones are predicted, and predictions (soft) are what is memorised.
Unlike the published recipe the norms are trained too, since there is no pretrained backbone whose statistics would
be worth freezing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from rotomem.models.interface import VOSModel
from rotomem.models.xmem import XMEM_S, XMem, XMemConfig
from rotomem.train.clip import ClipKnobs, clip_losses, one_batch
from rotomem.train.compose import Clips, ComposeConfig, Composer
from rotomem.train.data import SourceConfig, load_pool
from rotomem.train.loop import Recipe, Share
from rotomem.train.losses import bootstrap_share
from rotomem.train.ranks import deal
from rotomem.train.schedule import Stage, cosine_rate, decayed_apart, freeze_norms, stage_at


@dataclass(frozen=True)
class XMemS(Recipe):
    """Every knob of the training.

    stages         size of the batches as the run goes on
    times          clips a batch, as a multiple of the stage's; 0: 1 on a CPU, 8 on a GPU
    group          clips composed at a time, which are of one structure; 0: 1 on a CPU, whose cache holds one, else 8
    two_objects    share of the batches that follow two objects
    peak           highest learning rate; weight decay spares biases and norms
    frozen_from    progress from which the norms use the statistics gathered so far, as they do when they are used
    soft_first     share of the batches whose given mask is soft; the others round it as an artist's label map is
    bootstrap      progress at which the cross-entropy begins to look at the hardest pixels only, at which it
                   has come down to the share, the share
    """

    name = "xmem-s"

    stages: tuple[Stage, ...] = (Stage(0.52, 192, 6, 3), Stage(0.78, 192, 5, 4), Stage(1.0, 256, 4, 5))
    times: int = 0
    group: int = 0
    two_objects: float = 0.3
    peak: float = 8e-4
    warm_up: float = 0.015
    weight_decay: float = 0.05
    frozen_from: float = 0.78
    soft_first: float = 0.5
    bootstrap: tuple[float, float, float] = (0.15, 0.55, 0.25)
    clip: ClipKnobs = field(default_factory=lambda: ClipKnobs(memorise=0.6, deep_update=0.6))
    network: XMemConfig = field(default_factory=lambda: XMEM_S)
    compose: ComposeConfig = field(default_factory=ComposeConfig)
    sources: SourceConfig = field(default_factory=SourceConfig)

    def build(self) -> XMem:
        """A fresh network whose first answers are faint and lean to the background, as most pixels do."""
        model = XMem(self.network)
        with torch.no_grad():
            model.decoder.pred.weight.mul_(0.1)
            model.decoder.pred.bias.fill_(-1.5)  # type: ignore[union-attr]
        return model

    def optimiser(self, model: nn.Module) -> torch.optim.AdamW:
        """AdamW; biases and norms are not decayed."""
        groups = decayed_apart(model, self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.peak, betas=(0.9, 0.99), fused=True)

    def rate(self, progress: float) -> float:
        """Warm-up and half a cosine."""
        return cosine_rate(progress, peak=self.peak, warm_up=self.warm_up)

    def prepare(self, model: nn.Module, progress: float) -> None:
        """Norms hold still at the end of the run."""
        freeze_norms(model, progress >= self.frozen_from)

    def open(self, data: Path, device: torch.device) -> Composer:
        """Photographs, masks and clips of a folder, made into clips on the device."""
        return Composer(load_pool(data, self.sources).to(device), self.compose)

    def batch(self, source: Composer, rng: Generator, progress: float, share: Share, device: torch.device) -> Clips:
        """Composed clips of the stage that progress has reached."""
        stage = stage_at(self.stages, progress)
        objects = 2 if torch.rand((), generator=rng) < self.two_objects else 1
        usual = 1 if device.type == "cpu" else 8
        group, clips = self.group or usual, stage.clips * (self.times or usual)
        parts = [
            source.compose(one, clips=group, frames=stage.frames, size=stage.size, objects=objects, chunk=group)
            for one in deal(rng, clips, share, group=group)
        ]
        return one_batch(parts)

    def losses(self, model: VOSModel, clips: Clips, rng: Generator, progress: float) -> dict[str, Tensor]:
        """Bootstrapped cross-entropy and dice over the predicted frames."""
        begin, end, least = self.bootstrap
        share = bootstrap_share(progress, start=begin, end=end, least=least)
        rounded = bool(torch.rand((), generator=rng) >= self.soft_first)
        return clip_losses(model, clips, rng, self.clip, share=share, rounded=rounded)
