"""What the published trainings of STM, STCN, XMem and AOT have in common: stages, each on data sets of its own.

A stage begins with the weights that the one before ended with (`start`); the first begins with encoders trained on
ImageNet (`imagenet`), and norms hold still. A network that begins at random has nothing to hold still: then say
`norms_learn`, which no paper does.

A schedule is told in iterations of the stage's own length; a run of fewer steps goes through all of it, faster.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor, nn

from rotomem.errors import UsageError
from rotomem.models.interface import VOSModel
from rotomem.train.augment import Augment
from rotomem.train.clip import ClipKnobs, clip_losses
from rotomem.train.compose import Clips
from rotomem.train.datasets import ClipSource, Draw, Kind, open_folders
from rotomem.train.encoders import begin_encoder
from rotomem.train.loop import Recipe
from rotomem.train.losses import bootstrap_share
from rotomem.train.ranks import Share
from rotomem.train.schedule import freeze_norms


@dataclass(frozen=True)
class PublishedStage:
    """One stage of a published training.

    name          what it is called: "0", "1", ...
    kinds         data sets it learns from
    iterations    its length
    clips         of a batch, over all processes
    draw          how clips are taken; its gap is the one before the first of `gaps`
    gaps          (iteration, largest gap from there on), the curriculum
    drops         iterations at which the rate falls to a tenth
    settle        iteration from which single frames are not turned and sheared any more; None: to the end
    """

    name: str
    kinds: tuple[Kind, ...]
    iterations: int
    clips: int
    draw: Draw
    gaps: tuple[tuple[int, int], ...] = ()
    drops: tuple[int, ...] = ()
    settle: int | None = None

    def drawn(self, iteration: float) -> Draw:
        """How clips are taken at this iteration."""
        reached = [gap for start, gap in self.gaps if iteration >= start]
        look: Augment = self.draw.augment
        if self.settle is not None and iteration >= self.settle:
            look = replace(look, turn=0.0, shear=0.0, grow=(1.0, 1.0))
        return replace(self.draw, gap=reached[-1] if reached else self.draw.gap, augment=look)


@dataclass(frozen=True)
class StagedRecipe(Recipe):
    """A published training, at one of its stages.

    peak          highest learning rate
    bootstrap     iterations at which the cross-entropy begins to look at the hardest pixels only, at which it has
                  come down to the share, and the share; None: it looks at all
    workers       processes that read clips, for each process that trains
    imagenet      files of ImageNet weights in torchvision's layout, one for each of `encoder_names`, or none
    norms_learn   norms gather statistics and learn, as they must in a network that begins at random

    stages, encoder_names   of the model: its stages by name, and the classifiers that its encoders begin as
    """

    stages: ClassVar[Mapping[str, PublishedStage]]
    encoder_names: ClassVar[tuple[str, ...]]

    clip_norm: float = math.inf
    average: float = 0.0
    validation: int = 0
    stage: PublishedStage = field(kw_only=True)
    peak: float = 1e-5
    bootstrap: tuple[float, float, float] | None = (20_000, 70_000, 0.15)
    workers: int = 4
    imagenet: tuple[str, ...] = ()
    norms_learn: bool = False

    @abstractmethod
    def network_at_random(self) -> VOSModel:
        """The network before it is given any weights."""

    @abstractmethod
    def encoders(self, model: VOSModel) -> tuple[tuple[nn.Module, ...], ...]:
        """Parts of the network that begin as each of `encoder_names`."""

    def at(self, stage: str) -> Self:
        """The same recipe at a stage of this name. Raises UsageError where there is none."""
        if stage not in self.stages:
            raise UsageError(f"{self.name} has no stage {stage!r}", remedy="stages: " + ", ".join(self.stages))
        return replace(self, stage=self.stages[stage])

    def check_beginning(self) -> None:
        """Raises UsageError where a fresh run would have norms that hold still at nothing."""
        if self.start is None and not self.imagenet and not self.norms_learn:
            raise UsageError(
                f"stage {self.stage.name} of {self.name} begins with no weights, and its norms would never learn",
                remedy="give --start or --imagenet, or --set norms_learn=True",
            )

    def share(self, progress: float) -> float:
        """Of the pixels that the cross-entropy looks at."""
        if self.bootstrap is None:
            return 1.0
        start, end, least = self.bootstrap
        return bootstrap_share(self.iteration(progress), start=start, end=end, least=least)

    def iteration(self, progress: float) -> float:
        """Where in the published schedule the run is."""
        return progress * self.stage.iterations

    def build(self) -> VOSModel:
        """The network, its encoders as ImageNet left them where the files are given.

        Raises UsageError for a stage that it cannot be trained with, or not as many files as there are encoders.
        """
        model = self.network_at_random()
        self._check_clips(model)
        if self.imagenet and len(self.imagenet) != len(self.encoder_names):
            raise UsageError(
                f"{self.name} begins with {' and '.join(self.encoder_names)}, {len(self.imagenet)} files were given",
                remedy="give a file for each, in this order",
            )
        for parts, path in zip(self.encoders(model), self.imagenet, strict=False):
            for part in parts:
                begin_encoder(part, path)
        return model

    def _check_clips(self, model: VOSModel) -> None:
        """Raises UsageError naming the knob of a clip that cannot be."""
        draw = self.stage.draw
        size = draw.augment.size
        least = (
            ("stage.clips", self.stage.clips, 1),
            ("stage.draw.frames", draw.frames, 2),
            ("stage.draw.objects", draw.objects, 1),
            ("stage.draw.gap", draw.gap, 1),
            ("stage.draw.augment.size", size, model.plan.stride),
        )
        for knob, value, allowed in least:
            if value < allowed:
                raise UsageError(f"{knob} is {value}", remedy=f"give {allowed} or more")
        fitting = model.framing.mask(torch.zeros(1, 1, size, size)).shape[-1]
        if size != fitting:
            step = model.plan.stride
            more = f" and {fitting % step} more" if fitting % step else ""
            raise UsageError(
                f"stage.draw.augment.size is {size}, {self.name} takes multiples of {step}{more}",
                remedy=f"give {fitting}",
            )

    def prepare(self, model: nn.Module, progress: float) -> None:
        """Norms hold still, or do not."""
        freeze_norms(model, not self.norms_learn)

    def open(self, data: Path | Sequence[Path], device: torch.device) -> ClipSource:
        """The folders of the stage's data sets."""
        folders = [data] if isinstance(data, Path) else data
        return ClipSource(open_folders(folders, self.stage.kinds), seed=self.seed, workers=self.workers)

    def batch(self, source: ClipSource, rng: Generator, progress: float, share: Share, device: torch.device) -> Clips:
        """Clips as the stage takes them at this point."""
        draw = self.stage.drawn(self.iteration(progress))
        return source.batch(share.step, draw, self.stage.clips, rank=share.rank, world=share.world, device=device)


@dataclass(frozen=True)
class STMLineRecipe(StagedRecipe):
    """What STM, STCN and XMem share beyond that: a rate that falls in steps, clips run as the engine runs a shot."""

    clip: ClipKnobs = field(default_factory=ClipKnobs)

    def rate(self, progress: float) -> float:
        """The peak, a tenth of it after each drop."""
        return self.peak * 0.1 ** sum(self.iteration(progress) >= drop for drop in self.stage.drops)

    def losses(self, model: VOSModel, clips: Clips, rng: Generator, progress: float) -> dict[str, Tensor]:
        """Bootstrapped cross-entropy, and dice where the recipe weighs it, over the predicted frames."""
        return clip_losses(model, clips, rng, self.clip, share=self.share(progress))
