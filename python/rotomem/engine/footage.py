"""A plate as the passes see it: frames read, coloured and shrunk ahead of the network, and kept for the writer.

What the writer wants of a frame (windows, metadata, pixels where RGB goes along) was read for the network a moment
ago. The latest few frames are kept; of any other the writer asks the plate again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rotomem.engine.geometry import ShotGeometry
from rotomem.engine.pipeline import Clock, read_ahead
from rotomem.engine.roi import Region
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
    """A frame of the plate with what the network wants to see of it, [h, w, 3] with the rim, or None.

    window   what the picture shows of the canvas
    """

    plate: PlateFrame
    picture: Tensor | None
    window: Window


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
        self.canvas: Window = plate.info.canvas
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

    def window(self, frame: int) -> Window:
        """See Footage."""
        return self.canvas

    def within(self, region: Region) -> WindowFootage:
        """The same frames, of each the window that a region has there."""
        return WindowFootage(self, region)

    def masks(self, key: KeyMask) -> Tensor:
        """See Footage."""
        return self.geometry.masks(torch.from_numpy(key.alpha))

    def mattes(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """See Footage."""
        return self.geometry.cut_rim(probabilities)

    def pictures(
        self, frames: Sequence[int], region: Region | None = None
    ) -> Generator[tuple[int, Tensor | None], None, None]:
        """See Footage; of a region its windows."""
        # One decoder reads a movie, and only in order does it not seek.
        threads = 1 if self.plate.info.kind == "movie" else _READ_THREADS
        see = self.see if region is None else partial(self.see, region=region)
        ready = read_ahead(frames, see, ahead=_READ_AHEAD, threads=threads)
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

    def picture(self, seen: Seen, window: Window, size: tuple[int, int]) -> Tensor | None:
        """What the network saw of a window, [h, w, 3] without the rim.

        A frame that was seen otherwise meanwhile (by a scout, for another group of objects) is looked at again.
        """
        if seen.picture is None:
            return None
        inner = self.geometry.cut_rim(seen.picture.permute(2, 0, 1)).permute(1, 2, 0)
        if seen.window == window and tuple(inner.shape[:2]) == size:
            return inner
        return self.sight.part(seen.plate, window, ShotGeometry(window.height, window.width, *size))[0]

    def see(self, frame: int, region: Region | None = None) -> Seen:
        """A frame of the plate, through the network's eyes."""
        window = self.canvas if region is None else region.windows[frame]
        with self._clock.busy("read"):
            plate = self.plate.read(frame)
        picture = None
        # A frame that is not there teaches the memory nothing, unless the artist drew on it.
        if plate.source_frame is not None or frame in self._drawn:
            with self._clock.busy("colour"):
                picture, tamed = self.sight.part(plate, window, self.geometry if region is None else region.geometry)
            if tamed:
                with self._lock:
                    self.tamed[frame] = tamed
        return Seen(plate if self._pixels else _without_pixels(plate), picture, window)

    def tell_seconds(self) -> None:
        """Bring the clock up to date about the sessions."""
        for session in self._sessions:
            for stage, seconds in session.timings.items():
                self._clock.add("memory_read" if stage == "memory_read" else "network", seconds)
        self._sessions = []


class WindowFootage:
    """A region of a plate's footage; see `passes.Footage`. The network's pictures are made of the windows alone."""

    def __init__(self, whole: PlateFootage, region: Region) -> None:
        self._whole, self.region = whole, region
        self.size = (region.geometry.h, region.geometry.w)

    def window(self, frame: int) -> Window:
        """See Footage."""
        return self.region.windows[frame]

    def session(self) -> Session:
        """See Footage."""
        return self._whole.session()

    def pictures(self, frames: Sequence[int]) -> Generator[tuple[int, Tensor | None], None, None]:
        """See Footage."""
        return self._whole.pictures(frames, self.region)

    def masks(self, key: KeyMask) -> Tensor:
        """See Footage."""
        rows, columns = self.window(key.frame).slices_in(self._whole.canvas)
        return self.region.geometry.masks(torch.from_numpy(np.ascontiguousarray(key.alpha[:, rows, columns])))

    def mattes(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """See Footage."""
        return self.region.geometry.cut_rim(probabilities)


def _without_pixels(frame: PlateFrame) -> PlateFrame:
    """The frame as a matte needs it: windows and metadata, of the pixels the shape only."""
    return replace(frame, rgb=np.broadcast_to(frame.rgb.dtype.type(0), frame.rgb.shape), alpha=None)
