"""From what the network said of a frame to mattes at plate resolution: `matting.finish`, given what it asks for.

Settings of finishing are no inputs of a segment: who changes them has mattes written again, and nothing tracked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rotomem.engine.blend import Mattes
from rotomem.engine.footage import PlateFootage, Seen
from rotomem.engine.sight import Sight
from rotomem.engine.store import StoredFrame
from rotomem.matting.finish import finish
from rotomem.matting.motion import Motion
from rotomem.matting.settings import EdgeSettings
from rotomem.matting.stabilise import Motions, Neighbour
from rotomem.types import Window


class Finishing:
    """See `delivery.Finish`. Used by one thread.

    pixel_aspect   width of a plate pixel over its height
    """

    def __init__(self, settings: EdgeSettings, sight: Sight, pixel_aspect: float) -> None:
        self.settings, self._sight, self._pixel_aspect = settings, sight, pixel_aspect
        self.reach, self.pixels = settings.reach, settings.pixels
        self._motions = Motions()

    def finish(self, frames: Sequence[StoredFrame], at: int, footage: PlateFootage, seen: Seen) -> Mattes:
        """See `delivery.Finish`."""
        stored = frames[at]
        if not stored.mattes:
            return {}
        window, picture = stored.window, footage.picture(seen, stored.window, stored.size)

        def pixels(rows: slice, columns: slice) -> NDArray[np.float32]:
            x, y = window.x0, window.y0
            part = Window(x + columns.start, y + rows.start, x + columns.stop, y + rows.stop)
            return self._sight.pixels(seen.plate, part)

        near = self._near(frames, at, footage)
        mattes: Mattes = {}
        for number, matte in stored.mattes.items():
            finished = finish(
                matte,
                self.settings,
                size=(window.height, window.width),
                pixel_aspect=self._pixel_aspect,
                picture=picture,
                pixels=pixels,
                neighbours=[Neighbour(told.mattes[number], *how) for told, how in near if number in told.mattes],
            )
            mattes[number] = _placed(finished, window, footage.canvas)
        return mattes

    def _near(
        self, frames: Sequence[StoredFrame], at: int, footage: PlateFootage
    ) -> list[tuple[StoredFrame, tuple[Motion, NDArray[np.float32]]]]:
        """Neighbours that can be reached, each with motion and trust."""
        if not self.reach or len(frames) < 2:
            return []
        pictures = [footage.picture(footage.recall(one.frame), one.window, one.size) for one in frames]
        reached = self._motions.from_frame([(one.frame, one.window) for one in frames], pictures, at)
        return [(frames[k], (motion, trust)) for k, motion, trust in reached]


def _placed(matte: NDArray[np.float32], window: Window, canvas: Window) -> NDArray[np.float32]:
    """A matte of a window as one of the canvas."""
    if window == canvas:
        return matte
    whole = np.zeros((canvas.height, canvas.width), np.float32)
    common = window.intersect(canvas)
    whole[common.slices_in(canvas)] = matte[common.slices_in(window)]
    return whole
