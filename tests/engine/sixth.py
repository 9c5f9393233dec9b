"""What a newcomer writes to add a model: one that follows objects by colour and place, and learns nothing.

Every block of 4 x 4 pixels remembers its colour, where it lies, and how much of each object is in it; a later frame's
blocks take the answer of those they resemble most. Everything else (key frames anywhere, objects that come and go,
the bounds of memory, files, resuming) is the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.models.interface import Decoded, Memorised, MemoryElements, MemoryPlan, MemoryReader, Query, VOSModel
from rotomem.models.layers.aggregate import aggregate_logits
from rotomem.models.layers.framing import PadToStride

_BLOCK = 4


@dataclass(frozen=True)
class Look:
    """A frame's blocks. key [B, 5, y, x]: three of colour, two of place."""

    key: Tensor


class Sixth(VOSModel):
    """Objects by colour and place."""

    def __init__(self, sharpness: float = 40.0) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(sharpness))
        self.framing = PadToStride(_BLOCK)
        self.plan = MemoryPlan(
            key_dim=5, value_dim=1, similarity="l2", top_k=4, memory_every=1, placed_keys=True, stride=_BLOCK
        )

    def encode_frame(self, image: Tensor) -> Look:
        """image [B, 3, h, w] 0..1."""
        colour = F.avg_pool2d(image, _BLOCK)
        y, x = (torch.linspace(0, 1, n, device=image.device) for n in colour.shape[-2:])
        place = torch.stack(torch.meshgrid(y, x, indexing="ij"))[None].expand(colour.shape[0], -1, -1, -1)
        return Look(self.sharpness * torch.cat([colour, place], 1))

    def decode(
        self, features: Look, memory: MemoryReader, sensory: Tensor | None, *, update_sensory: bool = True
    ) -> Decoded:
        """See VOSModel.decode."""
        found = memory.read(Query(features.key))[:, :, 0]
        found = F.interpolate(found, scale_factor=_BLOCK, mode="bilinear", align_corners=False)
        logits = aggregate_logits(found.clamp(0, 1))
        return Decoded(logits)

    def encode_mask(
        self,
        image: Tensor,
        features: Look,
        masks: Tensor,
        sensory: Tensor | None,
        *,
        seen: Decoded | None = None,
        drawn: bool = False,
        deep_update: bool = False,
    ) -> Memorised:
        """See VOSModel.encode_mask."""
        return Memorised((MemoryElements(features.key, F.avg_pool2d(masks, _BLOCK)[:, :, None]),))

    def aggregate(self, masks: Tensor) -> Tensor:
        """See VOSModel.aggregate."""
        return aggregate_logits(masks).softmax(1)
