"""Trimaps for matting tools: 0 is background, 1 is object, 0.5 (128 of 255) is for the tool to find out.

Unknown is every pixel whose matte is neither 0 nor 1 (within 0.05), and every pixel within `band` plate
pixels of one that differs from it: a hard edge gets a band 2 * `band` pixels wide. Distances are Euclidean between
the centres of pixels, exact. A frame's border is no edge.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rotomem.io.kinds import File, Output, Stills
from rotomem.io.planes import Alpha, on_window
from rotomem.io.stills import Picture
from rotomem.types import ObjectId, PlateFrame

_SURE = 0.05  # what a matte may lack of 0 or 1 and still be sure; networks seldom say 1


def trimap(alpha: Alpha, band: int) -> NDArray[np.float32]:
    """0, 0.5 or 1 for each pixel of a matte, [H, W] in and out.

    band   pixels, >= 0
    Cost: 2 * band + 1 passes of bytes over the box around the object and its band, twice.
    """
    result = (alpha > 1 - _SURE).astype(np.float32)
    rows, cols = (np.flatnonzero((alpha > _SURE).any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return result
    # All that is farther off is sure background.
    box = tuple(slice(max(int(at[0]) - band, 0), int(at[-1]) + band + 1) for at in (rows, cols))
    inside = alpha[box]
    near_object = _within(inside > _SURE, band)
    near_ground = _within(inside < 1 - _SURE, band)
    result[box][near_object & near_ground] = 0.5
    return result


def _within(marked: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Pixels at most `reach` from a marked one: runs along rows, as wide as the circle is that many rows away."""
    height, width = marked.shape
    before = np.zeros((height, width + 1), np.int32)
    np.cumsum(marked, axis=1, out=before[:, 1:])
    found = marked.copy()
    columns = np.arange(width)
    for away in range(min(reach, height - 1) + 1):
        half = int(np.sqrt(reach * reach - away * away))
        run = before[:, np.minimum(columns + half + 1, width)] > before[:, np.maximum(columns - half, 0)]
        found[: height - away] |= run[away:]
        found[away:] |= run[: height - away]
    return found


class TrimapStills(Stills):
    """A trimap for every matte, in files split as the mattes are: EXR (half), else PNG of 8 bit."""

    @classmethod
    def beside(cls, mattes: Output) -> TrimapStills:
        """For the objects of `mattes`."""
        suffix = ".exr" if mattes.order.settings.format == "exr" else ".png"
        pattern = mattes.pattern.beside(
            "trimap", suffix, padding=mattes.stills_padding, per_object=mattes.pattern.has_object
        )
        return cls(mattes.order, pattern, mattes.files, "trimap")

    def recipe(self) -> Mapping[str, object]:
        settings = self.order.settings
        return {"band": settings.trimap_band, "compression": settings.compression}

    def picture(self, file: File, frame: PlateFrame, alpha: Mapping[ObjectId, Alpha]) -> Picture:
        settings, canvas = self.order.settings, self.order.info.canvas
        window = frame.display_window if self.png else frame.data_window
        pixels = np.empty((window.height, window.width, len(file.objects)), np.float16)
        for at, number in enumerate(file.objects):
            # On the canvas, so that what lies just outside of the data window counts.
            plane = trimap(on_window(alpha.get(number), canvas, canvas), settings.trimap_band)
            pixels[..., at] = on_window(plane, canvas, window)
        if self.png:
            grey = np.array([0, 128, 255], np.uint8)[(2 * pixels).astype(np.uint8)]
            return Picture(("Y",), ("uint8",), grey, window)
        names = ("A",) if file.places == ("",) else tuple(f"{layer}.A" for layer in file.places)
        return Picture(names, ("half",) * len(names), pixels, window, compression=settings.compression)
