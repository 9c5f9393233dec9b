"""A batch of clips through a network, as the engine would run it, and what is to be said of the answers.

The first frame's mask is given, later ones are predicted, and predictions (soft) are what is memorised. Everything
goes through `VOSModel`, so the five methods share this page; a recipe chooses how often frames are remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from rotomem.models.interface import VOSModel
from rotomem.train.compose import Clips
from rotomem.train.losses import (
    bootstrapped_cross_entropy,
    boundary_loss,
    dice_loss,
    soft_overlap,
    with_background,
)
from rotomem.train.memory import ClipMemory
from rotomem.train.ranks import mean_count

Encode = Callable[[VOSModel, Tensor], list[Any]]
"""Pictures [B, T, 3, h, w] to the features of every frame."""


@dataclass(frozen=True)
class ClipKnobs:
    """How a clip is run, and what its losses weigh.

    memorise      chance that a predicted frame is memorised; the first frame always is, the last never
    deep_update   chance that a memorised frame deeply updates the sensory memory, in place of the decoder's
                  update as when the model is used; the first frame always does
    deep_adds     the deep update comes after the decoder's update instead of in its place (XMem as published)
    references    memory frames that a frame may read, the first one among them; None: all
    dice          weight of the dice loss beside the cross-entropy
    boundary      weight of the boundary loss; 0 leaves it out
    """

    memorise: float = 1.0
    deep_update: float = 1.0
    deep_adds: bool = False
    references: int | None = None
    dice: float = 1.0
    boundary: float = 0.0


def one_batch(parts: Sequence[Clips]) -> Clips:
    """Clips that were made apart, of one size and length, as a batch."""
    voids = [part.void for part in parts if part.void is not None]
    return Clips(
        torch.cat([part.images for part in parts]),
        torch.cat([part.coverage for part in parts]),
        torch.cat([part.present for part in parts]),
        torch.cat(voids) if voids else None,
    )


def encode_apart(model: VOSModel, images: Tensor) -> list[Any]:
    """Features frame by frame, whatever they are."""
    return [model.encode_frame(image) for image in images.unbind(1)]


def encode_together(model: VOSModel, images: Tensor) -> list[Any]:
    """Features of all frames from one call; for models whose features are tensors, or dataclasses of them."""
    flat = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return _frames(model.encode_frame(flat), *images.shape[:2])


def _frames(features: Any, b: int, t: int) -> list[Any]:
    """Features of B * T frames as T features of B."""
    if isinstance(features, Tensor):
        return list(features.unflatten(0, (b, t)).unbind(1))
    if isinstance(features, tuple):
        return [tuple(frame) for frame in zip(*(_frames(part, b, t) for part in features), strict=True)]
    if is_dataclass(features):
        make: Callable[..., Any] = type(features)
        parts = zip(*(_frames(getattr(features, f.name), b, t) for f in fields(features)), strict=True)
        return [make(*frame) for frame in parts]
    return [features] * t


def clip_losses(
    model: VOSModel,
    clips: Clips,
    rng: Generator,
    knobs: ClipKnobs,
    *,
    share: float = 1.0,
    rounded: bool = False,
    encode: Encode = encode_together,
    memory: ClipMemory | None = None,
) -> dict[str, Tensor]:
    """Run the model over a batch of clips and compare every predicted frame with its coverage.

    rng       decides which frames are memorised
    share     of the pixels that the cross-entropy looks at
    rounded   the mask given on the first frame is 0 or 1, as an artist's label map is
    memory    an empty one; None: all frames that were memorised

    returns   scalars: "loss", which is minimised; its parts; "overlap" of prediction and truth; "present", the share
              of the object rows that hold an object
    """
    images, present = clips.images, clips.present
    coverage = clips.coverage * present[:, None, :, None, None]
    t, _, h, w = images.shape[1:]
    stride = model.plan.stride
    features = encode(model, images)
    memory = memory or ClipMemory(model.plan)
    sensory = model.empty_sensory(images.shape[0], coverage.shape[2], h // stride, w // stride, images)
    first = coverage[:, 0]
    masks = model.aggregate((first > 0.5).float() if rounded else first)[:, 1:]
    decoded = None
    entropies, dices, boundaries, overlaps = [], [], [], []
    objects = mean_count(present)
    for i in range(t):
        keep = i == 0 or bool(torch.rand((), generator=rng) < knobs.memorise)
        deep = i == 0 or bool(torch.rand((), generator=rng) < knobs.deep_update)
        keep = keep and i < t - 1
        if i > 0:
            if knobs.references is not None:
                memory.choose(knobs.references, rng)
            update = knobs.deep_adds or not (keep and deep)
            decoded = model.decode(features[i], memory, sensory, update_sensory=update)
            sensory = decoded.sensory if decoded.sensory is not None else sensory
            masks = decoded.probabilities[:, 1:]
            truth = coverage[:, i]
            void = None if clips.void is None else clips.void[:, i]
            entropies.append(bootstrapped_cross_entropy(decoded.logits, with_background(truth), share, void=void))
            said = masks if void is None else masks.masked_fill(void[:, None], 0)
            dices.append(dice_loss(said, truth, present, objects))
            if knobs.boundary:
                boundaries.append(boundary_loss(said, truth, present, objects))
            overlaps.append(soft_overlap(said.detach(), truth))
        if keep:
            kept = model.encode_mask(
                images[:, i], features[i], masks, sensory, seen=decoded, drawn=i == 0, deep_update=deep
            )
            sensory = kept.sensory if kept.sensory is not None else sensory
            memory.add(kept.elements)
    entropy, dice = torch.stack(entropies).mean(), torch.stack(dices).mean()
    loss = entropy + knobs.dice * dice
    if knobs.boundary:
        loss = loss + knobs.boundary * torch.stack(boundaries).mean()
    return {
        "loss": loss,
        "cross_entropy": entropy,
        "dice": dice,
        **({"boundary": torch.stack(boundaries).mean()} if knobs.boundary else {}),
        "overlap": (torch.stack(overlaps) * present).sum() / (len(overlaps) * objects),
        "present": present.float().mean(),
    }
