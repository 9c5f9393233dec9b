"""A refinement head on top of a trained XMem: fractional alpha from stride-4 logits and the picture.

The network itself is frozen, so what it finds stays as it was; the head (`models/layers/refine.py`) learns what the
pixels between its samples are. It is trained on what the network says of composed clips whose coverage is known
exactly, many of them blurred by motion or thin; what is memorised is the network's own answer, as in use. The
exported weights are the network's with the head's among them.

A quarter of an hour on one CPU thread is enough for a head of 41,584 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from rotomem.errors import UsageError
from rotomem.models.interface import VOSModel
from rotomem.models.registry import load_model
from rotomem.models.xmem import XMem
from rotomem.train.clip import encode_together
from rotomem.train.compose import Clips, ComposeConfig, Composer, motion_blur, thin_structures
from rotomem.train.data import SourceConfig, load_pool
from rotomem.train.loop import Recipe, Share
from rotomem.train.losses import bootstrapped_cross_entropy, soft_overlap, with_background
from rotomem.train.memory import ClipMemory
from rotomem.train.schedule import cosine_rate, decayed_apart, freeze_norms

_HEAD = "refine."


@dataclass(frozen=True)
class AlphaKnobs:
    """What the error of a matte weighs.

    absolute        mean absolute difference
    gradient        mean squared difference of the gradients' magnitudes, as matting measures it
    cross_entropy   divergence of the distributions over objects; keeps saturated mistakes moving
    """

    absolute: float = 4.0
    gradient: float = 2.0
    cross_entropy: float = 0.4


@dataclass(frozen=True)
class Refine(Recipe):
    """Every knob of it.

    start                 the model the head is put on, a bundled name or a file; a head it has goes on learning
    width                 of a new head
    size, clips, frames   side of a clip in pixels, clips a batch, frames a clip
    peak                  highest learning rate, after a short warm-up
    two_objects           share of the batches that follow two objects
    blurred, thin         share of the batches that are blurred by motion, of thin structures; the rest are mixed
    """

    average: float = 0.98
    start: str | None = "xmem-s"
    width: int = 32
    size: int = 256
    clips: int = 4
    frames: int = 2
    peak: float = 3e-3
    weight_decay: float = 1e-3
    two_objects: float = 0.25
    blurred: float = 0.35
    thin: float = 0.35
    alpha: AlphaKnobs = field(default_factory=AlphaKnobs)
    compose: ComposeConfig = field(default_factory=ComposeConfig)
    sources: SourceConfig = field(default_factory=SourceConfig)

    @property
    def name(self) -> str:
        """Whose alpha is refined."""
        return Path(str(self.start)).stem

    def build(self) -> XMem:
        """The network to begin from with room for a head."""
        base = load_model(str(self.start), device="cpu", dtype="float32")
        if not isinstance(base, XMem):
            raise UsageError(f"{self.start} is no XMem", remedy="the refinement head is made for XMem's decoder")
        return XMem(replace(base.config, refine=base.config.refine or self.width))

    def optimiser(self, model: nn.Module) -> torch.optim.AdamW:
        """AdamW over the head alone."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(_HEAD))
        groups = decayed_apart(model, self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.peak, betas=(0.9, 0.99), fused=True)

    def rate(self, progress: float) -> float:
        """Warm-up and half a cosine."""
        return cosine_rate(progress, peak=self.peak, warm_up=0.05)

    def prepare(self, model: nn.Module, progress: float) -> None:
        """The network is as it is used."""
        freeze_norms(model)

    def open(self, data: Path, device: torch.device) -> tuple[Composer, Composer, Composer]:
        """Makers of mixed, blurred and thin clips from the photographs, masks and clips of a folder."""
        pool = load_pool(data, self.sources).to(device)
        mixed, blurred, thin = (Composer(pool, c) for c in (self.compose, motion_blur(), thin_structures()))
        return mixed, blurred, thin

    def batch(
        self,
        source: tuple[Composer, Composer, Composer],
        rng: Generator,
        progress: float,
        share: Share,
        device: torch.device,
    ) -> Clips:
        """Clips of one of the three kinds."""
        drawn = float(torch.rand((), generator=rng))
        objects = 2 if torch.rand((), generator=rng) < self.two_objects else 1
        kind = 1 if drawn < self.blurred else 2 if drawn < self.blurred + self.thin else 0
        return source[kind].compose(
            rng,
            clips=self.clips,
            frames=self.frames,
            size=self.size,
            objects=objects,
            chunk=1 if device.type == "cpu" else self.clips,
        )

    def losses(self, model: VOSModel, clips: Clips, rng: Generator, progress: float) -> dict[str, Tensor]:
        """Errors of the mattes of every frame after the first, refined; the network's own are memorised."""
        images = clips.images
        coverage = clips.coverage * clips.present[:, None, :, None, None]
        b, t, o, h, w = coverage.shape
        stride = model.plan.stride
        features = encode_together(model, images)
        memory = ClipMemory(model.plan)
        sensory = model.empty_sensory(b, o, h // stride, w // stride, images)
        masks, seen = model.aggregate(coverage[:, 0])[:, 1:], None
        found: list[dict[str, Tensor]] = []
        for i in range(t):
            if i > 0:
                seen = model.decode(features[i], memory, sensory)
                sensory, masks = seen.sensory, seen.probabilities[:, 1:]
                assert seen.refined is not None
                found.append(self._errors(seen.refined, coverage[:, i]))
            if i < t - 1:
                kept = model.encode_mask(
                    images[:, i], features[i], masks, sensory, seen=seen, drawn=i == 0, deep_update=True
                )
                sensory = kept.sensory
                memory.add(kept.elements)
        return {key: torch.stack([one[key] for one in found]).mean() for key in found[0]}

    def _errors(self, logits: Tensor, truth: Tensor) -> dict[str, Tensor]:
        masks = logits.softmax(1)[:, 1:]
        absolute = (masks - truth).abs().mean()
        gradient = (edge_strength(masks) - edge_strength(truth)).square().mean()
        entropy = bootstrapped_cross_entropy(logits, with_background(truth))
        knobs = self.alpha
        return {
            "loss": knobs.absolute * absolute + knobs.gradient * gradient + knobs.cross_entropy * entropy,
            "absolute": absolute,
            "gradient": gradient,
            "cross_entropy": entropy,
            "overlap": soft_overlap(masks.detach(), truth).mean(),
        }


def edge_strength(alpha: Tensor, sigma: float = 1.4) -> Tensor:
    """Magnitude of the gradient of [B, O, h, w]: first derivatives of a Gaussian, filters of unit energy, edges
    repeated, as the gradient error of Rhemann et al. (CVPR 2009) takes it."""
    half = 4
    at = torch.arange(-half, half + 1, dtype=torch.float32, device=alpha.device)
    smooth = torch.exp(-at.square() / (2 * sigma * sigma))
    derive = at * smooth
    smooth, derive = smooth / smooth.norm(), derive / derive.norm()
    padded = F.pad(alpha.flatten(0, 1)[:, None].float(), (half,) * 4, mode="replicate")
    with torch.autocast(alpha.device.type, enabled=False):
        rows = F.conv2d(padded, torch.stack([derive, smooth])[:, None, None])
        gx = F.conv2d(rows[:, :1], smooth.view(1, 1, -1, 1))
        gy = F.conv2d(rows[:, 1:], derive.view(1, 1, -1, 1))
    magnitude = (gx.square() + gy.square() + 1e-8).sqrt()  # the root has no slope at 0
    return magnitude.view_as(alpha)
