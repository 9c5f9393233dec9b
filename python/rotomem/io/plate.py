"""A plate: frames on disk, whatever they are made of, read one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from rotomem.types import Window


@dataclass(frozen=True)
class PlateInfo:
    """What was understood of a plate, before any pixel was read.

    path            as the user gave it
    kind            "exr", "png", "tiff", "jpeg", "dpx", ... or "movie"
    frames          frame numbers that exist on disk (of those asked for), ascending
    missing         frames asked for that are not on disk
    padding         digits of a frame number in the file names; 1 where they are not padded
    stem            base name without frame number and extension, "sh010"
    canvas          union of the display window and every frame's data window: the raster of masks and mattes
    colour_hints    what the files say about their colour: oiio:ColorSpace, colorInteropID, chromaticities, movie tags
    layer           the layer read, '' for the picture itself
    view            the view read, None where the plate has none
    pixel_type      "half", "float", "uint", "uint8", "uint16"
    notes           sentences worth telling the user once
    """

    path: str
    kind: str
    frames: tuple[int, ...]
    missing: tuple[int, ...]
    padding: int
    stem: str
    display_window: Window
    canvas: Window
    pixel_aspect: float = 1.0
    fps: Fraction | None = None
    timecode: str | None = None
    channels: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    layer: str = ""
    view: str | None = None
    pixel_type: str = "half"
    compression: str | None = None
    colour_hints: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
