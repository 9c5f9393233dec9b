"""What the network sees of a shot: the plate's colour decided once, its frames brought to the working size."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rotomem.engine.geometry import ShotGeometry
from rotomem.engine.options import TrackOptions
from rotomem.io.colour import NetworkColour, TamedPixels, tame
from rotomem.io.plate import Plate, canvas_image
from rotomem.types import PlateFrame, Window


class Sight:
    """A plate through the network's eyes. A context manager; `picture` may be called from any thread.

    colour     what was decided about the plate's colours
    geometry   the canvas and the network picture

    Raises ColourError, and UsageError for an absurd rim.
    """

    def __init__(self, plate: Plate, options: TrackOptions) -> None:
        info = plate.info
        self.canvas = info.canvas
        self.colour = options.decide_colour(info)
        self.geometry = ShotGeometry.of(
            info.canvas.height,
            info.canvas.width,
            size=options.size,
            pixel_aspect=info.pixel_aspect,
            rim=options.rim,
        )
        self._network_colour = NetworkColour(self.colour)

    def __enter__(self) -> Sight:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the threads that transform colours."""
        self._network_colour.close()

    def picture(self, frame: PlateFrame) -> tuple[Tensor, TamedPixels]:
        """A frame as [h, w, 3] float32 display-referred 0..1, rim included; and what had to be tamed in it."""
        return self.part(frame, self.canvas, self.geometry)

    def part(self, frame: PlateFrame, canvas: Window, geometry: ShotGeometry) -> tuple[Tensor, TamedPixels]:
        """As `picture`, of a window in the place of the canvas; what lies outside of it costs nothing.

        geometry   of the window
        """
        colour = self._network_colour
        if canvas != self.canvas:
            frame = _cut(frame, canvas)
        if colour.linear_input:
            # Averaging and the matrix between primaries may change places, so only the small picture is transformed.
            rgb, tamed = tame(frame.rgb)
            dtype = rgb.dtype if np.issubdtype(rgb.dtype, np.floating) else np.dtype(np.float32)
            if frame.data_window != canvas or rgb.dtype != dtype:
                rgb = canvas_image(replace(frame, rgb=rgb), canvas, dtype=dtype)
            small = geometry.shrink(torch.from_numpy(np.require(rgb, requirements=["C", "W"])))
            encoded, _ = colour.apply(small.numpy())
        elif self.colour.identity:
            small = geometry.shrink(torch.from_numpy(canvas_image(frame, canvas)))
            encoded, tamed = colour.apply(small.numpy())
        else:
            linear, tamed = colour.to_linear(canvas_image(frame, canvas))
            encoded = colour.encode(geometry.shrink(torch.from_numpy(linear)).numpy())
        return geometry.add_rim(torch.from_numpy(encoded)), tamed

    def pixels(self, frame: PlateFrame, window: Window) -> NDArray[np.float32]:
        """A part of a frame at its own resolution, [H, W, 3] display-referred 0..1; window: on the canvas."""
        return self._network_colour.apply(canvas_image(frame, window))[0]


def _cut(frame: PlateFrame, window: Window) -> PlateFrame:
    """What of a frame's pixels lies in a window."""
    common = frame.data_window.intersect(window)
    rows, columns = (slice(0), slice(0)) if common.empty else common.slices_in(frame.data_window)
    return replace(frame, rgb=frame.rgb[rows, columns], alpha=None, data_window=common)
