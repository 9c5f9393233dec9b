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


@dataclass(frozen=True)
class ResizeToGrid:
    """Resize both sides to the nearest `stride`*k + `offset`, half to even, k >= 1, as AOT does: nothing is padded,
    and the pixel aspect changes by a little.

    offset    1 where a position of the feature map lies on every corner (then maps are resized corner to corner),
              0 where patches lie side by side
    longest   pixels that the longer side may have before it is brought to the grid; None is any number

    The picture is resized with a cubic of a = -0.75 between pixel centres and is not clipped, so it may leave 0..1
    beside edges; that is OpenCV's INTER_CUBIC, which the published pipeline uses, up to rounding.
    """

    stride: int = 16
    offset: int = 1
    longest: int | None = None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The raster that a picture of this size is brought to."""
        scale = 1.0 if self.longest is None else min(1.0, self.longest / max(height, width))

        def grid(side: int) -> int:
            steps = round((round(side * scale) - self.offset) / self.stride)
            return max(1, steps) * self.stride + self.offset

        return grid(height), grid(width)

    def image(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, 3, h, w]."""
        height, width = image.shape[-2:]
        if self.size(height, width) == (height, width):
            return image
        return F.interpolate(image, size=self.size(height, width), mode="bicubic", align_corners=False)

    def mask(self, mask: Tensor) -> Tensor:
        """[B, O, H, W] to [B, O, h, w]; a pixel takes what the nearest one above and left of it shows."""
        return F.interpolate(mask, size=self.size(*mask.shape[-2:]), mode="nearest")

    def restore(self, probabilities: Tensor, height: int, width: int) -> Tensor:
        """[B, O, h, w] to [B, O, H, W]."""
        if probabilities.shape[-2:] == (height, width):
            return probabilities
        corners = self.offset == 1
        return F.interpolate(probabilities, size=(height, width), mode="bilinear", align_corners=corners)
