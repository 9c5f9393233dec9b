"""AOT, AOTv2 and AOST as published (Yang, Wei and Yang: "Training Details", "Scalable Supervision").

    stage 0   photographs     100,000 iterations of 16 clips, every one with another's objects laid over it
    stage 1   DAVIS, YouTube  100,000 iterations of 16 clips, three in ten with another's objects laid over them

The paper has four Tesla V100 and tells no hours. Clips have five frames of 465 x 465.

The first frame's objects are given and get random identities. Every other frame is predicted from the first one, the
one before it and, in a model that keeps more than given ones (L), every second one. What a predicted frame is
remembered to show is its truth in the first half of a stage; in the second half, where the identities' embedding is
held still, it is the network's own answer. Half cross-entropy on the hardest pixels, half soft Jaccard; the first
frame's own answer counts too, less and less. AOST answers at every depth, each weighing twice what the one before
weighs. What self-attention and feed-forward add is left out at random. The encoder learns at a tenth of the rate, its
first stage and its norms not at all. Weights averaged with a decay of 0.9999 are exported. What the papers leave open
(gaps, warm-up, weights of the first frame's loss) is as in the published code.

The default is AOT-L. Others: `--set network.layers=1` (T) or 2 (S) and `--set memory_gap=0` (T, S, B);
`--set network.encoder=resnet50`, or swin_base with `--set stage.draw.augment.size=464`; `aotv2` and `aost` by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from rotomem.models.aot import AOT, AOTConfig, AOTFeatures, Seen
from rotomem.models.interface import MemoryElements, Query, VOSModel
from rotomem.models.layers.lstt import LSTTBlock, Tokens, attend
from rotomem.models.layers.norm import as_map, as_tokens
from rotomem.train.augment import STILLS, Augment, Colour
from rotomem.train.compose import Clips
from rotomem.train.datasets import Draw
from rotomem.train.encoders import settle_norms
from rotomem.train.losses import (
    bootstrapped_cross_entropy,
    soft_jaccard,
    soft_overlap,
    with_background,
)
from rotomem.train.recipes.staged import PublishedStage, StagedRecipe

_VIDEO = Augment(
    size=465,
    share=(0.31, 0.53),  # of 854 x 480, what 465 x 465 covers after an enlargement of 1 to 1.3
    ratio=(1.0, 1.0),
    grey=0.0,
    clip_colour=Colour(),
    frame_colour=Colour(),
    turn=0.0,
    shear=0.0,
)

STAGES = {
    "0": PublishedStage(
        "0", ("stills",), 100_000, 16, Draw(frames=5, objects=10, merge=1.0, augment=replace(STILLS, size=465))
    ),
    "1": PublishedStage(
        "1", ("davis", "youtube"), 100_000, 16, Draw(frames=5, objects=10, gap=12, merge=0.3, augment=_VIDEO)
    ),
}


@dataclass(frozen=True)
class AOTRecipe(StagedRecipe):
    """Every knob of the training; see StagedRecipe. Defaults are those of stage 1, `at` brings those of another.

    least          rate at both ends of a stage, the paper's; the published code has 1e-5 for ResNet and Swin
    warm_up        share of the stage in which the rate rises
    weight_decay   spares biases, norms, the last convolution and relative positions' values
    first_frame    weight of the first frame's loss at the beginning, 0 at the end
    own_from       progress from which the network's own answers are remembered
    memory_gap     frames from one remembered for long to the next; 0: only the given one
    left_out       chance that what a branch of a block adds is left out, for each clip of a batch
    """

    name = "aot"
    stages = STAGES
    encoder_names = ("the encoder",)

    clip_norm: float = 5.0
    average: float = 0.9999
    stage: PublishedStage = STAGES["1"]
    network: AOTConfig = field(default_factory=AOTConfig)
    peak: float = 2e-4
    least: float = 2e-5
    warm_up: float = 0.05
    weight_decay: float = 0.07
    bootstrap: tuple[float, float, float] | None = (0, 50_000, 0.15)
    first_frame: float = 1.0
    own_from: float = 0.5
    memory_gap: int = 2
    left_out: float = 0.1

    def at(self, stage: str) -> Self:
        """See StagedRecipe.at."""
        there = super().at(stage)
        return replace(there, peak=4e-4, weight_decay=0.03, first_frame=0.1) if stage == "0" else there

    def network_at_random(self) -> AOT:
        """The network. Its norms are constants: those of an encoder that begins at random are measured here."""
        model = AOT(self.network)
        for module in model.modules():
            if isinstance(module, LSTTBlock):
                module.self_attn.register_forward_hook(_leave_out(self.left_out))
                module.linear2.register_forward_hook(_leave_out(self.left_out))
        if self.norms_learn:
            settle_norms(model.encoder)
        return model

    def encoders(self, model: VOSModel) -> tuple[tuple[nn.Module, ...], ...]:
        """The one there is."""
        assert isinstance(model, AOT)
        return ((model.encoder,),)

    def optimiser(self, model: nn.Module) -> torch.optim.AdamW:
        """AdamW; the encoder at a tenth of the rate, its first stage still unless it began at random."""
        assert isinstance(model, AOT)
        if not self.norms_learn:
            for name, weight in model.encoder.named_parameters():
                if name.startswith(_FIRST_STAGE[self.network.encoder]):
                    weight.requires_grad_(False)
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, weight in model.named_parameters():
            spared = weight.dim() <= 1 or "relative_emb_v" in name or "conv_out" in name
            if weight.requires_grad:
                groups.setdefault((name.startswith("encoder."), spared), []).append(weight)
        return torch.optim.AdamW(
            [
                {
                    "params": weights,
                    "weight_decay": 0.0 if spared else self.weight_decay,
                    "scale": 0.1 if encoder else 1.0,
                    "floor": self.least,
                }
                for (encoder, spared), weights in groups.items()
            ],
            lr=self.peak,
            fused=True,
        )

    def rate(self, progress: float) -> float:
        """Linear up from `least`, then down to it by a power of 0.9."""
        if progress < self.warm_up:
            share = progress / self.warm_up
        else:
            share = (1 - (progress - self.warm_up) / (1 - self.warm_up)) ** 0.9
        return self.least + (self.peak - self.least) * share

    def prepare(self, model: nn.Module, progress: float) -> None:
        """Identities' embedding holds still once the network remembers its own answers."""
        super().prepare(model, progress)
        assert isinstance(model, AOT)
        model.patch_wise_id_bank.requires_grad_(progress < self.own_from)

    def losses(self, model: VOSModel, clips: Clips, rng: Generator, progress: float) -> dict[str, Tensor]:
        """Of the predicted frames and the first one; "loss" is what the paper minimises."""
        assert isinstance(model, AOT)
        clips = _at_random(clips, self.network.identities, rng)
        frames = _by_frame(model, clips.images)
        memory = _Memory(self.network, frames[0].projected.shape[-2:])
        entropies, jaccards, overlaps = [], [], []
        for i, features in enumerate(frames):
            truth = clips.coverage[:, i]
            if i == 0:
                seen, kept = model.match_reference(features, model.embed_identities(truth))
            else:
                seen = model.match(features, memory)
            answers = _answers(model, features, seen, clips.present)
            entropy, jaccard = _frame_losses(answers, clips, i, self.share(progress))
            entropies.append(entropy)
            jaccards.append(jaccard)
            if i > 0:
                answer = answers[-1].detach()
                overlaps.append(soft_overlap(answer.softmax(1)[:, 1:], truth))
                if progress >= self.own_from:
                    truth = F.one_hot(answer.argmax(1), answer.shape[1]).movedim(3, 1)[:, 1:]
                identity = model.embed_identities(truth)
                kept = tuple(model.LSTT.block(n).remember(own, identity) for n, own in enumerate(seen.own))
            memory.add(kept, long_term=i == 0 or (self.memory_gap > 0 and i % self.memory_gap == 0))
        first = 0.5 * (entropies[0] + jaccards[0])
        entropy, jaccard = torch.stack(entropies[1:]).mean(), torch.stack(jaccards[1:]).mean()
        there = clips.present.float().expand(len(overlaps), -1, -1)
        return {
            "loss": 0.5 * (entropy + jaccard) + self.first_frame * (1 - progress) * first,
            "cross_entropy": entropy,
            "jaccard": jaccard,
            "first_frame": first,
            "overlap": (torch.stack(overlaps) * there).sum() / there.sum().clamp_min(1),
            "present": clips.present.float().mean(),
        }


@dataclass(frozen=True)
class AOTv2Recipe(AOTRecipe):
    """AOTv2: the block that AOST has, one depth."""

    name = "aotv2"

    network: AOTConfig = field(default_factory=lambda: AOTConfig(gated=True))


@dataclass(frozen=True)
class AOSTRecipe(AOTRecipe):
    """AOST: one network that learns to run at every depth."""

    name = "aost"

    network: AOTConfig = field(default_factory=lambda: AOTConfig(gated=True, scalable=True))


_FIRST_STAGE = {
    "mobilenetv2": tuple(f"features.{i}." for i in range(4)),
    "resnet50": ("conv1.", "layer1."),
    "resnet101": ("conv1.", "layer1."),
    "swin_base": ("patch_embed.", "layers.0."),
}
"""What an encoder does to a quarter of the raster, by its parameters' names."""


def _leave_out(chance: float) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
    """A hook that drops what a branch adds, clip by clip, while it is trained (stochastic depth)."""

    def hook(module: nn.Module, _: Any, added: Tensor) -> Tensor | None:
        if not module.training or not chance:
            return None
        kept = torch.rand(added.shape[0], 1, 1, device=added.device) >= chance
        return added * kept / (1 - chance)

    return hook


def _at_random(clips: Clips, identities: int, rng: Generator) -> Clips:
    """The same clips, every one's objects on rows drawn at random of as many as there are identities."""
    b, _, objects = clips.coverage.shape[:3]
    assert objects <= identities
    coverage = clips.coverage * clips.present[:, None, :, None, None]
    coverage = F.pad(coverage, (0, 0, 0, 0, 0, identities - objects))
    present = F.pad(clips.present, (0, identities - objects))
    order = torch.stack([torch.randperm(identities, generator=rng) for _ in range(b)]).to(present.device)
    rows = torch.arange(b, device=present.device)[:, None]
    return replace(
        clips, coverage=coverage.transpose(1, 2)[rows, order].transpose(1, 2), present=present[rows, order]
    )


def _by_frame(model: AOT, images: Tensor) -> list[AOTFeatures]:
    """Features of every frame of [B, T, 3, h, w], all encoded at once."""
    b, t = images.shape[:2]
    whole = model.encode_frame(images.flatten(0, 1).contiguous(memory_format=torch.channels_last))
    positions = {"positions": whole.positions}
    names = [f.name for f in fields(whole) if f.name not in positions]
    parts = [getattr(whole, name).unflatten(0, (b, t)).unbind(1) for name in names]
    return [AOTFeatures(**dict(zip(names, frame, strict=True)), **positions) for frame in zip(*parts, strict=True)]


def _answers(model: AOT, features: AOTFeatures, seen: Seen, present: Tensor) -> list[Tensor]:
    """Logits [B, I+1, h, w] of every depth the network can run at; identities that nobody has are out of the race."""
    absent = F.pad(~present, (1, 0))[:, :, None, None]
    answers = []
    for depth in model.depths:
        model.depth = depth
        outputs = seen.outputs
        if not model.config.intermediate and depth < model.depths[-1]:  # the last output's norm is of the full depth
            norm, last = model.LSTT.norm(depth - 1, depth), outputs[depth - 1]
            assert norm is not None
            outputs = (*outputs[: depth - 1], as_map(norm(as_tokens(last)), *last.shape[-2:]))
        logits = model.decode_logits(features, replace(seen, outputs=outputs))
        size = tuple(4 * (side - 1) + 1 if model.config.align_corners else 4 * side for side in logits.shape[-2:])
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=model.config.align_corners)
        answers.append(logits.masked_fill(absent, -1e10))
    return answers


def _frame_losses(answers: list[Tensor], clips: Clips, frame: int, share: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Jaccard of one frame; of several depths, each weighs twice what the one before weighs."""
    truth = with_background(clips.coverage[:, frame])
    void = None if clips.void is None else clips.void[:, frame]
    whole = 2 ** len(answers) - 1
    entropy, jaccard = torch.zeros((), device=truth.device), torch.zeros((), device=truth.device)
    for depth, logits in enumerate(answers):
        weight = 2**depth / whole
        entropy = entropy + weight * bootstrapped_cross_entropy(logits, truth, share, void=void)
        jaccard = jaccard + weight * soft_jaccard(logits.softmax(1), truth, void=void)
    return entropy, jaccard


class _Memory:
    """What the frames of a clip leave in every layer, read as `AOT.match` asks for it."""

    def __init__(self, network: AOTConfig, size: torch.Size) -> None:
        self._heads, self._size = network.heads, size
        self._long: list[list[Tokens]] = [[] for _ in range(network.layers)]
        self._short: tuple[Tokens, ...] = ()

    def add(self, kept: tuple[Tokens, ...], *, long_term: bool) -> None:
        """Keep a frame as the latest one, and for good if it is to be."""
        self._short = kept
        for frames, tokens in zip(self._long, kept, strict=True):
            frames.extend([tokens] if long_term else [])

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        """See MemoryReader."""
        key, value = (torch.cat(part, 1) for part in zip(*((t.key, t.value) for t in self._long[layer]), strict=True))
        read = attend(as_tokens(query.key).to(key.dtype), key, value.to(key.dtype), self._heads)
        return as_map(read, *self._size)[:, None]

    def latest(self, *, layer: int = 0) -> MemoryElements:
        """See MemoryReader."""
        tokens = self._short[layer]
        return MemoryElements(as_map(tokens.key, *self._size), as_map(tokens.value, *self._size)[:, None])
