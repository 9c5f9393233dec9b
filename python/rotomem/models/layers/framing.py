"""Bringing pictures of any size to the raster a network takes, and predictions back."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _margins(size: int, stride: int) -> tuple[int, int]:
    extra = -size % stride
    return extra // 2, extra - extra // 2


@dataclass(frozen=True)
class PadToStride:
    """Pad to a multiple of `stride`, centred (the smaller half first), as STM, STCN and XMem do.

    colour   what the padding shows, display-referred RGB; the network's mean colour is zero after normalisation
    """

    stride: int = 16
    colour: tuple[float, float, float] = IMAGENET_MEAN

    def _pad(self, height: int, width: int) -> tuple[int, int, int, int]:
        return (*_margins(width, self.stride), *_margins(height, self.stride))

    def image(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, 3, h, w]."""
        pad = self._pad(*image.shape[-2:])
        if not any(pad):
            return image
        colour = image.new_tensor(self.colour).view(1, 3, 1, 1)
        return F.pad(image - colour, pad) + colour

    def mask(self, mask: Tensor) -> Tensor:
        """[B, O, H, W] to [B, O, h, w]; outside the picture there is no object."""
        return F.pad(mask, self._pad(*mask.shape[-2:]))

    def restore(self, probabilities: Tensor, height: int, width: int) -> Tensor:
        """[B, O, h, w] to [B, O, H, W]: the padding cut off."""
        left, _, top, _ = self._pad(height, width)
        return probabilities[..., top : top + height, left : left + width]
