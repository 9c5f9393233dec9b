"""What a host is told of a plate and its mattes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from rotomem.errors import PlateError
from rotomem.io.exr import read_header
from rotomem.io.matte_files import find_mattes
from rotomem.io.sequence import find_frames


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
        return re.sub(r"%0(\d+)d(?=[^/]*$)", lambda found: str(frame).zfill(int(found[1])), self.path)

    @property
    def frames(self) -> int:
        """How many, gaps counted."""
        return self.last - self.first + 1


def footage(spelling: str | Path) -> Footage:
    """Look at a plate: any spelling `rotomem track` takes. Raises what finding and opening it raises."""
    found = find_frames(spelling)
    if not found.present and not found.movie:
        raise PlateError("none of the frames asked for is there", remedy="widen the range", path=str(spelling))
    if not found.movie:
        return _stills({frame: found.files[frame] for frame in found.present}, numbered=not found.single)
    from rotomem.io.plate import open_plate

    with open_plate(spelling) as plate:
        info = plate.info
    path = os.path.abspath(found.files[1]).replace(os.sep, "/")
    first, last, window = info.frames[0], info.frames[-1], info.display_window
    return Footage(path, first, last, window.width, window.height, info.pixel_aspect, info.fps, movie=True)


def matte_footage(where: str | Path) -> list[Footage]:
    """The mattes that lie there, a Footage for every sequence: a folder, folders an object, a pattern, or a movie.

    Raises MissingFrameError where there are none.
    """
    if Path(where).suffix.lower() == ".mov":
        return [replace(footage(where), mattes=(Matte(Path(where).stem, "A"),))]
    sequences: dict[Path, tuple[Mapping[int, Path], list[Matte]]] = {}
    for name, (files, layer) in find_mattes(where).objects.items():
        first = files[min(files)]
        _, mattes = sequences.setdefault(first, (files, []))
        alone = "A" if first.suffix.lower() == ".exr" else "Y"
        mattes.append(Matte(name, f"{layer}.A" if layer else alone))
    return [replace(_stills(files), mattes=tuple(mattes)) for files, mattes in sequences.values()]


def _stills(files: Mapping[int, Path], *, numbered: bool = True) -> Footage:
    first, last = min(files), max(files)
    header = read_header(files[first])
    folder, name = os.path.split(os.path.abspath(files[first]))
    if numbered and (number := re.match(r"(.*?)(\d+)(\D*)$", os.path.splitext(name)[0])):
        name = f"{number[1]}%0{len(number[2])}d{number[3]}{os.path.splitext(name)[1]}"
    hints, window = header.colour_hints, header.display_window
    space = next((str(hints[k]) for k in ("oiio:ColorSpace", "colorInteropID") if hints.get(k)), "")
    return Footage(
        f"{folder.replace(os.sep, '/')}/{name}",
        first,
        last,
        window.width,
        window.height,
        header.pixel_aspect,
        header.fps,
        space="" if space in ("data", "unknown") else space,
    )
