"""A clip told forward: frames that were seen go into a memory of fixed size, the next ones come out of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rotomem.engine.memory import MemoryBank, Store
from rotomem.engine.options import MemorySettings
from rotomem.errors import MemoryStateError, ShapeError
from rotomem.models.interface import MemoryElements, Query
from rotomem.models.prediction import STACK, FramePredictor, StackFeatures


class PredictionSession:
    """Give it frames in order, then ask for those that come next (STReMN, section 4.2).

    Whatever the number of frames, memory holds `model.config.slots` stacks of them. What was predicted is taken as
    seen, so predictions follow on predictions.
    """

    def __init__(self, model: FramePredictor) -> None:
        self.model = model.eval()
        self._device = next(model.parameters()).device
        settings = MemorySettings(top_k=None, long_term=False)
        self.memory = MemoryBank(model.plan, settings, self._device, model.choose_slot)
        self.memory.add_objects(1)
        self._frames: list[Tensor] = []
        self._size: tuple[int, int] | None = None
        self._asking: StackFeatures | None = None  # the last three frames; in memory only if they were the first
        self._step = -1

    @torch.inference_mode()
    def observe(self, frame: Tensor) -> None:
        """Take the next frame [H, W, 3] float32 0..1, of the same size as all others. Raises ShapeError."""
        if frame.ndim != 3 or frame.shape[2] != 3 or not frame.is_floating_point() or 0 in frame.shape:
            raise ShapeError(f"frame is {frame.dtype} {tuple(frame.shape)}, expected float32 [H, W, 3] in 0..1")
        size = (frame.shape[0], frame.shape[1])
        if self._size not in (None, size):
            raise ShapeError(f"frame is {size}, the first was {self._size}", remedy="give frames of one size")
        self._size = size
        picture = frame.to(self._device, torch.float32).permute(2, 0, 1)[None]
        stride = self.model.plan.stride
        self._take(F.pad(picture, (0, -size[1] % stride, 0, -size[0] % stride), mode="replicate"))

    @torch.inference_mode()
    def predict(self) -> Tensor:
        """The frame after the last one [H, W, 3] float32 0..1, which then counts as seen.

        Raises MemoryStateError before three frames were observed.
        """
        if self._asking is None or self._size is None:
            raise MemoryStateError(
                f"{len(self._frames)} frames are too few to predict from", remedy=f"observe at least {STACK}"
            )
        frame = self.model.decode(self._asking, _Reader(self.memory)).clamp(0, 1)
        self._take(frame)
        return frame[0, :, : self._size[0], : self._size[1]].permute(1, 2, 0).cpu()

    def _take(self, frame: Tensor) -> None:
        """A frame [1, 3, h, w] that was seen, or counts as if it were."""
        if self._asking is not None and self._step > 0:
            self._memorise(self._asking)
        self._frames = [*self._frames[1 - STACK :], frame]
        if len(self._frames) < STACK:
            return
        self._step += 1
        self._asking = self.model.encode(self._frames)
        if self._step == 0:  # else the first stack would ask an empty memory
            self._memorise(self._asking)

    def _memorise(self, features: StackFeatures) -> None:
        self.memory.memorise((features.template,), store=Store.WORKING, step=self._step)


class _Reader:
    """The bank as the model sees it."""

    def __init__(self, bank: MemoryBank) -> None:
        self._bank = bank

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        return self._bank.read(query, layer=layer)

    def latest(self, *, layer: int = 0) -> MemoryElements:
        return self._bank.latest(layer)
