"""What a host is told of a plate and its mattes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from rotomem.errors import PlateError
from rotomem.io.exr import read_header
from rotomem.io.sequence import FrameFiles, find_frames


@dataclass(frozen=True)
class Matte:
    """One object's matte in a file.

    name      the artist's
    channel   as the file spells it: `A`, or `hero.A`
    """

    name: str
    channel: str

    @property
    def layer(self) -> str:
        """'' where the matte is the picture's own alpha."""
        return self.channel.rpartition(".")[0]


@dataclass(frozen=True)
class Footage:
    """A sequence or a movie on disk, the same way for every host.

    path           absolute, `/` between folders, the frame number as `%04d`; a movie's own path
    first, last    frames on disk
    width, height, pixel_aspect, fps   of the display window; fps None where the files do not say
    space          colour space the files name, "" where they name none
    mattes         the objects in it, for mattes
    """

    path: str
    first: int
    last: int
    width: int
    height: int
    pixel_aspect: float
    fps: Fraction | None
    movie: bool = False
    space: str = ""
    mattes: tuple[Matte, ...] = ()

    def file(self, frame: int) -> str:
        """The path of one frame."""
        return self.path if self.movie else self.path % frame

    @property
    def frames(self) -> int:
        """How many, gaps counted."""
        return self.last - self.first + 1


def footage(spelling: str | Path) -> Footage:
    """Look at a sequence of stills: any spelling `rotomem track` takes. Raises what finding and opening it raises."""
    found = find_frames(spelling)
    if not found.present:
        raise PlateError("none of the frames asked for is there", remedy="widen the range", path=str(spelling))
    first = found.files[found.present[0]]
    if found.movie:
        from rotomem.io.plate import open_plate

        with open_plate(spelling) as plate:
            info = plate.info
        path = os.path.abspath(first).replace(os.sep, "/")
        window = info.display_window
        return Footage(
            path,
            info.frames[0],
            info.frames[-1],
            window.width,
            window.height,
            info.pixel_aspect,
            info.fps,
            movie=True,
        )
    header = read_header(first)
    window = header.display_window
    hints = header.colour_hints
    space = next((str(hints[k]) for k in ("oiio:ColorSpace", "colorInteropID") if hints.get(k)), "")
    return Footage(
        _pattern(found),
        found.present[0],
        found.present[-1],
        window.width,
        window.height,
        header.pixel_aspect,
        header.fps,
        space="" if space in ("data", "unknown") else space,
        mattes=_mattes(header.metadata, [c.name for c in header.channels]),
    )


def _pattern(found: FrameFiles) -> str:
    frame = found.present[0]
    folder, name = os.path.split(os.path.abspath(found.files[frame]))
    folder = folder.replace(os.sep, "/")
    if found.single and len(found.files) == 1 and str(abs(frame)) not in name:
        return f"{folder}/{name}"
    number = str(frame).zfill(found.padding)
    head, _, tail = name.rpartition(number)
    return f"{folder}/{head}%0{max(found.padding, 1)}d{tail}"


def _mattes(metadata: object, channels: list[str]) -> tuple[Matte, ...]:
    """The objects a matte file holds, by its channels; the artist's names where the file tells them."""
    told: dict[str, str] = {}
    if isinstance(metadata, dict) and isinstance(metadata.get("rotomem/objects"), str):
        try:
            said = json.loads(metadata["rotomem/objects"])
            told = {str(layer): str(name) for layer, name in said.items()} if isinstance(said, dict) else {}
        except ValueError:
            told = {}
    found = [c for c in channels if c.endswith(".A")] or [c for c in channels if c in ("A", "Y")]
    order = list(told)  # the artist's; a file sorts its channels by name

    def layer(channel: str) -> str:
        return channel.rpartition(".")[0] or "A"

    found.sort(key=lambda c: order.index(layer(c)) if layer(c) in told else len(order))
    return tuple(Matte(told.get(layer(c), c.rpartition(".")[0] or "matte"), c) for c in found)
