"""A plate as the passes see it: frames read, coloured and shrunk ahead of the network, and kept for the writer.

What the writer wants of a frame (windows, metadata, pixels where RGB goes along) was read for the network a moment
ago. The latest few frames are kept; of any other the writer asks the plate again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rotomem.engine.pipeline import Clock, read_ahead
from rotomem.engine.session import Session
from rotomem.engine.sight import Sight
from rotomem.io.colour import TamedPixels
from rotomem.io.plate import Plate
from rotomem.types import KeyMask, PlateFrame, Window

_READ_THREADS = 2
_READ_AHEAD = 3
_KEPT = 4  # what the writer may be behind


class Cancelled(Exception):
    """The run was asked to stop. Never leaves the engine."""


@dataclass(frozen=True)
class Seen:
    """A frame of the plate with what the network wants to see of it, [h, w, 3] with the rim, or None."""

    plate: PlateFrame
    picture: Tensor | None


class PlateFootage:
    """See `passes.Footage`.

    drawn      frames that are seen even where the plate has none: those the artist drew on
    session    makes a fresh session
    pixels     whether the writer wants the plate's pixels
    reach      frames on either side that finishing looks at
    clock      counts the seconds of the stages
    on_step    called after each frame that a pass has taken, in the thread of the pass; may raise Cancelled
    """

    def __init__(
        self,
        plate: Plate,
        sight: Sight,
        *,
        drawn: Collection[int],
        session: Callable[[], Session],
        pixels: bool,
        reach: int,
        clock: Clock,
        on_step: Callable[[int], None],
    ) -> None:
        self.plate, self.sight, self.geometry = plate, sight, sight.geometry
        self.window: Window = plate.info.canvas
        self.size = (self.geometry.h, self.geometry.w)
        self.tamed: dict[int, TamedPixels] = {}
        self._drawn, self._new_session, self._pixels = drawn, session, pixels
        self._clock, self._on_step = clock, on_step
        self._sessions: list[Session] = []
        self._latest: OrderedDict[int, Seen] = OrderedDict()
        self._kept = _KEPT + 2 * reach
        self._lock = threading.Lock()

    def session(self) -> Session:
        """See Footage."""
        self._sessions.append(session := self._new_session())
        return session

    def masks(self, key: KeyMask) -> Tensor:
        """See Footage."""
        return self.geometry.masks(torch.from_numpy(key.alpha))

    def mattes(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """See Footage."""
        return self.geometry.cut_rim(probabilities)

    def pictures(self, frames: Sequence[int]) -> Generator[tuple[int, Tensor | None], None, None]:
        """See Footage."""
        # One decoder reads a movie, and only in order does it not seek.
        threads = 1 if self.plate.info.kind == "movie" else _READ_THREADS
        ready = read_ahead(frames, self.see, ahead=_READ_AHEAD, threads=threads)
        try:
            for seen in ready:
                with self._lock:
                    self._latest[seen.plate.frame] = seen
                    while len(self._latest) > self._kept:
                        self._latest.popitem(last=False)
                yield seen.plate.frame, seen.picture
                self._on_step(seen.plate.frame)
        finally:
            ready.close()

    def recall(self, frame: int) -> Seen:
        """A frame for the writer, from any thread: as it was seen lately, else read again."""
        with self._lock:
            seen = self._latest.get(frame)
        return seen if seen is not None else self.see(frame)

    def see(self, frame: int) -> Seen:
        """A frame of the plate, through the network's eyes."""
        with self._clock.busy("read"):
            plate = self.plate.read(frame)
        picture = None
        # A frame that is not there teaches the memory nothing, unless the artist drew on it.
        if plate.source_frame is not None or frame in self._drawn:
            with self._clock.busy("colour"):
                picture, tamed = self.sight.picture(plate)
            if tamed:
                with self._lock:
                    self.tamed[frame] = tamed
        return Seen(plate if self._pixels else _without_pixels(plate), picture)

    def tell_seconds(self) -> None:
        """Bring the clock up to date about the sessions."""
        for session in self._sessions:
            for stage, seconds in session.timings.items():
                self._clock.add("memory_read" if stage == "memory_read" else "network", seconds)
        self._sessions = []


def _without_pixels(frame: PlateFrame) -> PlateFrame:
    """The frame as a matte needs it: windows and metadata, of the pixels the shape only."""
    return replace(frame, rgb=np.broadcast_to(frame.rgb.dtype.type(0), frame.rgb.shape), alpha=None)
