"""What a run delivers beside what: the interface of every kind of output, and what sequences of stills share."""

from __future__ import annotations

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from rotomem.errors import InputError, OutputError
from rotomem.io.atomic import whole_file
from rotomem.io.exr import read_header, read_still
from rotomem.io.outputs import OutputPattern
from rotomem.io.planes import Alpha
from rotomem.io.plate import PlateInfo
from rotomem.io.stills import Picture, png_is_whole, write_exr, write_png
from rotomem.types import ObjectId, PlateFrame

if TYPE_CHECKING:
    from rotomem.io.mattes import MatteSettings

_LAYOUT = 2  # raised when the same settings would give other files, so that --resume redoes them

Told = Callable[[tuple[ObjectId, ...]], Mapping[str, str]]
"""Objects that a file holds -> its attributes on one frame, by name without `rotomem/`."""

Sources = Callable[[tuple[ObjectId, ...]], Collection[str]]
"""Objects that a file holds -> every `rotomem/source` that it may have; none: it is not looked at."""

Foreground = Callable[[NDArray[np.float32], Alpha], NDArray[np.float32]]
"""(plate RGB [h, w, 3], matte [h, w]) -> estimated colour of what the matte shows, [h, w, 3], not multiplied."""


@dataclass(frozen=True)
class Order:
    """What all outputs of a run know.

    objects      id -> the artist's name, of the objects that are delivered
    layers       id -> layer name
    provenance   what made the mattes, by attribute name without `rotomem/`
    protected    files that are never written over: the artist's key masks
    replace_foreign   True: replace pictures in the way that rotomem did not write; else they are an error
    foreground   estimates the colour under a matte, for rgb "straight"
    """

    info: PlateInfo
    objects: Mapping[ObjectId, str]
    layers: Mapping[ObjectId, str]
    settings: MatteSettings
    provenance: Mapping[str, str] = field(default_factory=dict)
    protected: tuple[Path, ...] = ()
    replace_foreign: bool = False
    foreground: Foreground | None = None


@dataclass(frozen=True)
class File:
    """One file (or movie) of a frame.

    objects   those it holds
    places    where it holds each: a layer, a channel, '' for a bare `A`
    label     what its path calls it, None where it is the only one
    """

    objects: tuple[ObjectId, ...]
    places: tuple[str, ...]
    label: str | None = None


class Output(ABC):
    """One kind of files that a run delivers: mattes, Cryptomattes, trimaps, ...

    kind       its name, "mattes" for the mattes themselves
    in_order   frames must be written in ascending order
    notes      sentences worth telling once
    """

    notes: tuple[str, ...] = ()

    in_order: ClassVar[bool] = False

    def __init__(self, order: Order, pattern: OutputPattern, files: tuple[File, ...], kind: str = "mattes") -> None:
        self.kind = kind
        self.order = order
        self.pattern = pattern
        self.files = files
        info = order.info
        self._digests = {file: self._digest(file) for file in files}
        for frame in (info.frames[:1] + info.frames[-1:]) or (1,):
            for file in files:
                self._refuse_plate_name(self.path(frame, file), frame)

    @property
    def stills_padding(self) -> int | None:
        """Digits of the frame number in names of stills beside these files; None for a single still."""
        return max(self.order.info.padding, 4) if self.in_order else self.pattern.padding

    def paths(self, frame: int) -> tuple[Path, ...]:
        """All files of a frame (the movies, for movies), in the order of the objects where each has its own."""
        return tuple(self.path(frame, file) for file in self.files)

    def path(self, frame: int, file: File) -> Path:
        return self.pattern.path(frame, file.label)

    @abstractmethod
    def refuse(self, frame: int, source: Path | None) -> None:
        """Raise OutputError for what `write` would not replace; nothing is written. `source` is the plate's file."""

    @abstractmethod
    def write(self, frame: PlateFrame, alpha: Mapping[ObjectId, Alpha], told: Told) -> None:
        """Write the files of one frame, but for those that `is_current` has found as they would be written.

        alpha   object id -> [H, W] on the plate's canvas; an object left out is absent; no value is trusted
        """

    @abstractmethod
    def is_current(self, frame: int, sources: Sources) -> bool:
        """True where every file of `frame` is whole and made with these settings, from one of the sources."""

    def of_all(self, keys: str, source: str) -> None:  # noqa: B027
        """What a file that spans all frames is made from, instead of what `write` and `is_current` say of each."""

    def close(self) -> None:  # noqa: B027
        """Finish what spans frames. May be called twice."""

    def abandon(self) -> None:  # noqa: B027
        """Throw away what spans frames and is not finished."""

    def recipe(self) -> Mapping[str, object]:
        """The settings that this kind's files depend on, for the hash that tells whether a file is current."""
        return {}

    def attributes(self, file: File, told: Mapping[str, str]) -> dict[str, str]:
        """What the header of a file tells."""
        given = {**self.order.provenance, **told}
        attributes = {f"rotomem/{k}": v for k, v in given.items() if v != ""}
        places = {place or "A": self.order.objects[k] for k, place in zip(file.objects, file.places, strict=True)}
        attributes["rotomem/objects"] = json.dumps(places, ensure_ascii=False)
        if self.kind != "mattes":
            attributes["rotomem/kind"] = self.kind
        attributes["rotomem/settings"] = self._digests[file]
        return {k: plain_text(v) for k, v in attributes.items()}

    def _digest(self, file: File) -> str:
        names = self.order.objects
        told = {
            "layout": _LAYOUT,
            "kind": self.kind,
            "recipe": self.recipe(),
            "objects": {p: [k, names[k]] for k, p in zip(file.objects, file.places, strict=True)},
            "provenance": self.order.provenance,
            "canvas": str(self.order.info.canvas),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]

    def _refuse_plate_name(self, path: Path, frame: int, source: Path | None = None) -> None:
        info = self.order.info
        plate = Path(info.path)
        folder = plate if plate.is_dir() else plate.parent
        same = source is not None and _same_file(path, source)
        if not same and _same_file(path, plate):
            same = True
        if not same and info.kind != "movie" and _same_file(path.parent, folder):
            name = rf"{re.escape(info.stem)}[._-]*-?\d+\.\w+"
            same = re.fullmatch(name, path.name) is not None and path.suffix[1:].lower() == info.kind.lower()
        if same:
            raise OutputError(
                "the matte would be written over the plate",
                remedy="choose another folder or name for the mattes",
                path=path,
                frame=frame,
            )


class Stills(Output):
    """Outputs of one or more stills a frame, EXR or PNG by the pattern's extension; several threads may write."""

    def __init__(self, order: Order, pattern: OutputPattern, files: tuple[File, ...], kind: str = "mattes") -> None:
        super().__init__(order, pattern, files, kind)
        self._whole: dict[tuple[File, int], str] = {}  # what the files say that they were made from

    @abstractmethod
    def picture(self, file: File, frame: PlateFrame, alpha: Mapping[ObjectId, Alpha]) -> Picture:
        """What `file` holds on a frame; its attributes are added by `write`."""

    def write(self, frame: PlateFrame, alpha: Mapping[ObjectId, Alpha], told: Told) -> None:
        """Each file appears whole or not at all. Raises OutputError naming the file."""
        # What is not current comes last: a run that is killed in between is asked for the frame again.
        for file in sorted(self.files, key=lambda file: (file, frame.frame) not in self._whole):
            given = told(file.objects)
            if self._whole.pop((file, frame.frame), None) == given.get("source", ""):
                continue
            path = self.path(frame.frame, file)
            self._refuse_plate_name(path, frame.frame, frame.path)
            self._refuse_foreign(path, frame.frame)
            with whole_file(path, frame=frame.frame) as part:
                picture = self.picture(file, frame, alpha)
                attributes = {**picture.attributes, **self.attributes(file, given)}
                picture = replace(picture, attributes=attributes)
                if self.png:
                    write_png(picture, frame, path, part)
                else:
                    write_exr(picture, frame, self.order.info, path, part)

    @property
    def png(self) -> bool:
        return self.pattern.suffix.lower() == ".png"

    def refuse(self, frame: int, source: Path | None) -> None:
        for path in self.paths(frame):
            self._refuse_plate_name(path, frame, source)
            self._refuse_foreign(path, frame)

    def is_current(self, frame: int, sources: Sources) -> bool:
        found = {file: self._source(file, self.path(frame, file), sources(file.objects)) for file in self.files}
        self._whole.update({(file, frame): source for file, source in found.items() if source})
        return None not in found.values()

    def _source(self, file: File, path: Path, accepted: Collection[str]) -> str | None:
        """What a file was made from; None where it is not there, not whole or not from what is accepted."""
        if not path.exists() or (self.png and not png_is_whole(path)):
            return None
        try:
            header = read_header(path)
            source = str(header.metadata.get("rotomem/source", ""))
            if header.metadata.get("rotomem/settings") != self._digests[file] or (
                accepted and source not in accepted
            ):
                return None
            read_still(path, channels=[c.name for c in header.channels], header=header)
        except InputError:
            return None
        return source

    def _refuse_foreign(self, path: Path, frame: int) -> None:
        """Do not replace the artist's key mask, nor unasked any other picture that rotomem did not make."""
        if not path.exists():
            return
        if any(_same_file(path, p) for p in self.order.protected):
            raise OutputError(
                "the matte would be written over a key mask",
                remedy="choose another folder or name for the mattes",
                path=path,
                frame=frame,
            )
        if self.order.replace_foreign:
            return
        try:
            header = read_header(path)
        except InputError:
            return  # a damaged or half-copied file: what resuming is for
        if "rotomem/settings" not in header.metadata:
            raise OutputError(
                "a picture that rotomem did not write stands where the matte should go",
                remedy="move it away, or choose another folder or name",
                path=path,
                frame=frame,
            )


def plain_text(text: str) -> str:
    """Text that an attribute takes: a name may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()


def _same_file(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:
        return os.path.realpath(a) == os.path.realpath(b)
