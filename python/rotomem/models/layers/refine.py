"""A light head that turns a decoder's stride-4 logits into fractional alpha at the picture's resolution.

What an edge looks like between two stride-4 samples is in the picture, and only there. One strided convolution reads
every 4x4 block of it with a rim of as much, once a frame; each object adds what its decoder knew there, and a small
network answers with 16 numbers per position, the corrections of 16 pixels (sub-pixel convolution, Shi et al., CVPR
2016). Nothing runs at the full resolution but one sum.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.models.layers.blocks import per_object

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
        self.out = nn.Conv2d(width, _BLOCK**2, 1)
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
        x = F.relu(per_object(self.objects, g4) + seen[:, None])
        x = per_object(self.out, F.relu(per_object(self.mix, x)))
        return F.pixel_shuffle(x.float(), _BLOCK)[:, :, 0]
