"""The simplest good way from a decoder's raster to the picture's: what finer ways of delivering a matte must beat."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rotomem.engine.geometry import fit, from_network
from rotomem.models.interface import Decoded, VOSModel


class CoarseListener:
    """Hears what a model's decoder says at its own raster, and enlarges it bicubically. A context manager; inside it
    the model's `decode` is listened to.

    size   shorter side the session's network sees, as `Session` has it
    """

    def __init__(self, model: VOSModel, size: int | None) -> None:
        self._model, self._size = model, size
        self._heard: list[Decoded] = []
        self._own: Any = None

    def __enter__(self) -> CoarseListener:
        decode = self._model.decode

        def listen(*args: Any, **kwargs: Any) -> Decoded:
            decoded: Decoded = decode(*args, **kwargs)
            self._heard.append(decoded)
            return decoded

        self._own = self._model.__dict__.get("decode")
        self._model.__dict__["decode"] = listen
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        del self._model.__dict__["decode"]
        if self._own is not None:  # somebody else listens too
            self._model.__dict__["decode"] = self._own

    @torch.inference_mode()
    def enlarged(self, height: int, width: int) -> NDArray[np.float32] | None:
        """Probabilities [O+1, H, W] of the latest frame, 0..1, for the objects that were there before it. Given once
        a frame.

        None where the decoder did not run, ran in several passes (many objects with AOT), or where the model does
        not tell (`Decoded.coarse`).
        """
        heard, self._heard = self._heard, []
        coarse = heard[0].coarse if len(heard) == 1 else None
        if coarse is None:
            return None
        framed = heard[0].probabilities.shape[-2:]
        # a raster of a quarter has its samples at the middles of 4 x 4 pixels; others share their corners
        corners = framed != tuple(4 * side for side in coarse.shape[-2:])
        probabilities = torch.softmax(coarse, 1)
        large = F.interpolate(probabilities, framed, mode="bicubic", align_corners=corners).clamp(0, 1)
        h, w = (height, width) if self._size is None else fit(height, width, self._size)
        restored = self._model.framing.restore(large, h, w)
        return from_network(restored[0], height, width).cpu().numpy()
