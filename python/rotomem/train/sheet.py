"""Contact sheets: what the network sees, and what it is asked to say of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import torch
from torch import Tensor

from rotomem.errors import OutputError
from rotomem.train.compose import Clips

_COLOURS = ((1.0, 0.25, 0.2), (0.2, 0.6, 1.0), (0.3, 0.9, 0.3))


def draw_sheet(clips: Clips, columns: int = 2) -> Tensor:
    """Clips as rows of frames with their objects tinted by coverage: [H, W, 3] float32 0..1.

    Objects that are not followed (absent in the first frame) are drawn in grey.
    """
    shown = clips.images.clone()
    grey = torch.tensor((0.5, 0.5, 0.5))
    for b in range(shown.shape[0]):
        for o in range(clips.coverage.shape[2]):
            colour = torch.tensor(_COLOURS[o % len(_COLOURS)]) if clips.present[b, o] else grey
            alpha = clips.coverage[b, :, o, None] * 0.55
            shown[b] = torch.lerp(shown[b], colour.view(1, 3, 1, 1).expand_as(shown[b]), alpha)
    b, t, _, h, w = shown.shape
    shown[:, :, :, -1] = shown[:, :, :, :, -1] = 0
    both = torch.stack([clips.images, shown], 1)  # [B, 2, T, 3, h, w]
    rows = -(-b // columns)
    sheet = torch.zeros(rows * 2 * h, columns * t * w, 3)
    for i in range(b):
        r, q = divmod(i, columns)
        tile = both[i].permute(0, 3, 1, 4, 2).reshape(2 * h, t * w, 3)
        sheet[r * 2 * h : (r + 1) * 2 * h, q * t * w : (q + 1) * t * w] = tile
    return sheet


def write_picture(picture: Tensor, path: str | Path) -> None:
    """[H, W, 3] 0..1 as an 8-bit picture; OutputError where it cannot be written."""
    pixels = (picture.clamp(0, 1) * 255).round().byte().numpy()
    buffer = oiio.ImageBuf(np.ascontiguousarray(pixels))
    if not buffer.write(str(path)):
        raise OutputError(f"cannot write the sheet: {buffer.geterror()}", path=path)
