"""The simplest good way from a decoder's raster to the picture's: what finer ways of delivering a matte must beat."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rotomem.engine.geometry import fit, from_network
from rotomem.errors import UsageError
from rotomem.models.interface import Decoded, VOSModel


class CoarseListener:
    """Hears what a model's decoder says at its own raster, and enlarges it bicubically. A context manager; inside it
    the model's `decode` is listened to.

    size   shorter side the session's network sees, as `Session` has it

    Raises UsageError where the model does not tell (`Decoded.coarse`).
    """

    def __init__(self, model: VOSModel, size: int | None) -> None:
        self._model, self._size = model, size
        self._heard: Decoded | None = None

    def __enter__(self) -> CoarseListener:
        decode = self._model.decode

        def listen(*args: Any, **kwargs: Any) -> Decoded:
            self._heard = decode(*args, **kwargs)
            if self._heard.coarse is None:
                raise UsageError(
                    f"{self._model.name} does not tell the logits of its decoder's raster",
                    remedy="measure it without the bicubic baseline",
                )
            return self._heard

        self._model.__dict__["decode"] = listen
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        del self._model.__dict__["decode"]

    @torch.inference_mode()
    def enlarged(self, height: int, width: int) -> NDArray[np.float32] | None:
        """Probabilities [O+1, H, W] of the latest frame, 0..1, for the objects that were there before it; None where
        the decoder did not run. Given once a frame.
        """
        heard, self._heard = self._heard, None
        if heard is None or heard.coarse is None:
            return None
        framed = heard.probabilities.shape[-2:]
        # a raster of a quarter has its samples at the middles of 4 x 4 pixels; others share their corners
        corners = framed != tuple(4 * side for side in heard.coarse.shape[-2:])
        coarse = torch.softmax(heard.coarse, 1)
        large = F.interpolate(coarse, framed, mode="bicubic", align_corners=corners).clamp(0, 1)
        h, w = (height, width) if self._size is None else fit(height, width, self._size)
        restored = self._model.framing.restore(large, h, w)
        return from_network(restored[0], height, width).cpu().numpy()
