"""A light head that turns a decoder's stride-4 logits into fractional alpha at the picture's resolution.

What an edge looks like between two stride-4 samples is in the picture, and only there. One strided convolution reads
every 4x4 block of it with a rim of as much, once a frame; each object adds what its decoder knew there, and a small
network answers with the corrections of 16 pixels per position (sub-pixel convolution, Shi et al., CVPR 2016). Each
pixel's is blended from the four nearest positions with bilinear weights: where every block answers for itself, its
borders show in the matte. From the corrections their own local level is taken: the head says how alpha is spread
over the pixels of a position, not how much of it there is. Left free to say that, it learns to doubt what the network
doubts.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.models.layers.convolution import add_frame, apart, convolve, merged

_BLOCK = 4


class RefinementHead(nn.Module):
    """Corrections to enlarged logits. An untrained head corrects nothing: its last layer starts at zero.

    decoder_dim   channels of the decoder's last features
    width         channels inside
    """

    def __init__(self, decoder_dim: int, width: int) -> None:
        super().__init__()
        self.picture = nn.Conv2d(3, width, 3 * _BLOCK, stride=_BLOCK, padding=_BLOCK)
        self.objects = nn.Conv2d(decoder_dim, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.out = _BlendedConv(width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(cast(Tensor, self.out.bias))

    def look(self, image: Tensor) -> Tensor:
        """What a normalised picture [B, 3, h, w] says, [B, C, h/4, w/4]; once a frame, whatever the objects."""
        seen: Tensor = self.picture(image)
        return seen

    def forward(self, seen: Tensor, g4: Tensor) -> Tensor:
        """Corrections [B, O, h, w] float32 to logits enlarged to the picture.

        seen   what `look` said
        g4     [B, O, CD, h/4, w/4] the features the logits were made from
        """
        x = F.relu(add_frame(self.objects(merged(g4)), seen))
        x = convolve(self.mix, x, relu=True)
        fine = F.pixel_shuffle(self.out(x), _BLOCK)
        level = F.interpolate(F.avg_pool2d(fine, _BLOCK), scale_factor=_BLOCK, mode="bilinear", align_corners=False)
        return apart(fine - level, g4.shape[1])[:, :, 0]


class _BlendedConv(nn.Conv2d):
    """Features to the 16 pixels of a position, every weight held to the bilinear one of where it comes from."""

    def __init__(self, width: int) -> None:
        super().__init__(width, _BLOCK**2, 3, padding=1)
        self.register_buffer("_blend", _bilinear(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # In float32: what is rounded here is seen in the matte.
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = (cast(Tensor, t).float() for t in (self.weight * cast(Tensor, self._blend), self.bias))
            return F.conv2d(x.float(), weight, bias, padding=1)


def _bilinear() -> Tensor:
    """What each of a block's pixels takes from the 3x3 positions around, [16, 1, 3, 3]; rows and columns sum to 1."""
    pixel = (torch.arange(_BLOCK) + 0.5) / _BLOCK - 0.5
    line = (1 - (torch.arange(-1, 2) - pixel[:, None]).abs()).clamp_min(0)
    return (line[:, None, :, None] * line[None, :, None, :]).reshape(_BLOCK**2, 1, 3, 3)
