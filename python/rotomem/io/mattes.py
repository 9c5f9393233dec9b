"""Mattes out: EXR with the plate's geometry and metadata, PNG, or a ProRes 4444 movie.

What is where, and why:

- One object: channel `A`. Several: one layer each, `hero.A`, the same channels on every frame, zeros where an
  object is absent, so that no host ever meets a shot whose layers come and go.
- The data window is the plate frame's, the display window too; pixels of the canvas outside of it are cropped.
- The plate's RGB goes along only when asked for. `keep`: bit for bit, straight. `premult`: multiplied by the matte
  of the file; where a file holds several objects, by their union min(1, sum of alphas), which is then written as
  `A` beside the layers so that the file is a correct premultiplied RGBA. Plate pixels that are NaN or infinite
  become 0 where the matte is less than 1. Either brings the plate's colour tag along.
- Mattes are data: tagged `colorInteropID` "data", no chromaticities, never colour-transformed.
- Lossy compressions are refused. DWA, B44 and PXR24 move edges by up to 0.03 depending on the channel's name.
- Equal input gives equal bytes: no date is written but the plate's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from rotomem.errors import InputError, OutputError, ShapeError, UsageError
from rotomem.io import timecode
from rotomem.io.atomic import cannot_write, remove_leftovers, whole_file
from rotomem.io.exr import StillHeader, TypedValue, read_header, read_last_row, read_still, write_attributes
from rotomem.io.matte_movie import MatteMovie, frames_of_movie
from rotomem.io.names import legal_layer_names
from rotomem.io.outputs import FORMATS, format_of, parse_output
from rotomem.io.plate import PlateInfo
from rotomem.types import ObjectId, PlateFrame, Window

LOSSLESS = ("none", "rle", "zips", "zip", "piz", "zstd")
_LOSSY = ("dwaa", "dwab", "b44", "b44a", "pxr24", "jpeg", "lossy_dct")
_DEPTHS = {"exr": ("half", "float"), "png": ("16", "8"), "mov": ("10",)}
_FILE_LAYOUT = 1  # raised when the same settings would give other files, so that --resume redoes them

Alpha = NDArray[np.float32]


@dataclass(frozen=True)
class MatteSettings:
    """How mattes are written.

    format        "exr", "png" or "mov" (ProRes 4444); None: what OUT's name says, else "exr"
    depth         EXR "half" or "float"; PNG "16" or "8"; mov "10"; None: the first of these
    rgb           "none": alpha only; "keep": the plate's RGB, bit for bit; "premult": RGB multiplied by the matte
    per_object    one sequence for each object, channel `A` in each; PNG and mov always do that for several objects
    compression   of EXR: none, rle, zips, zip, piz or zstd

    Raises UsageError where a value is unknown, lossy, or contradicts another.
    """

    format: str | None = None
    depth: str | None = None
    rgb: str = "none"
    per_object: bool = False
    compression: str = "zip"

    def __post_init__(self) -> None:
        if self.format is not None:
            _one_of("format", self.format, FORMATS)
        _one_of("rgb", self.rgb, ("none", "keep", "premult"))
        if self.depth is not None:
            allowed = _DEPTHS[self.format] if self.format else tuple(d for ds in _DEPTHS.values() for d in ds)
            _one_of(f"depth of {self.format}" if self.format else "depth", self.depth, allowed)
        name = self.compression.lower().partition(":")[0]
        why = (
            "it may change their values"
            if name in _LOSSY
            else "it is lossless, but few programs read it"
            if name.startswith("htj2k")
            else ""
        )
        if why:
            raise UsageError(
                f"compression {self.compression} is refused for mattes: {why}",
                remedy=f"use one of {', '.join(LOSSLESS)}",
            )
        object.__setattr__(self, "compression", self.compression.lower())  # as everywhere, ZIP is zip
        _one_of("compression", self.compression, LOSSLESS)

    def for_output(self, out: str | Path) -> MatteSettings:
        """These settings with format and depth filled in from OUT's name."""
        named = format_of(out)
        format = self.format or named or "exr"
        full = replace(self, format=format)  # checks depth against the format
        return replace(full, depth=full.depth or _DEPTHS[format][0])


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{what} is '{value}'", remedy=f"use one of {', '.join(allowed)}")


@dataclass(frozen=True)
class _File:
    """One file (or movie) of a frame: which objects it holds, under which layer names ('' means bare `A`)."""

    objects: tuple[ObjectId, ...]
    layers: tuple[str, ...]
    label: str | None

    def alpha_names(self, rgb: str) -> tuple[str, ...]:
        """`A` for one object; one a layer for several, after their union `A` where RGB is premultiplied."""
        if self.layers == ("",):
            return ("A",)
        union = ("A",) if rgb == "premult" else ()
        return union + tuple(f"{layer}.A" for layer in self.layers)


class MatteWriter:
    """Writes the mattes of one run; `write` may be called by several threads (except for a movie).

    out          a folder, a pattern (`out/hero.%04d.exr`, `####`), or `out.mov`; see `outputs.parse_output`
    info         the plate: canvas, padding, rate
    objects      every object of the run, id -> the artist's name; one channel each on every frame
    settings     see MatteSettings; format and depth are filled in from `out`
    provenance   what made the mattes: "version", "model", "weights", "keys", "colour", ...; each becomes an
                 attribute `rotomem/<name>`, and all of them enter `rotomem/settings`, the hash that tells whether
                 a file on disk is still the one this run would make
    protect      files that are never written over whatever happens: the artist's key masks
    replace_foreign   True: replace pictures in the way that rotomem did not write; else they are an error

    Attributes: `settings`, `settings_hash`, `layers` (id -> layer name), `notes` (sentences worth telling once).
    Raises UsageError (see MatteSettings and parse_output), OutputError where the mattes would land on the plate.
    """

    def __init__(
        self,
        out: str | Path,
        *,
        info: PlateInfo,
        objects: Mapping[ObjectId, str],
        settings: MatteSettings | None = None,
        provenance: Mapping[str, str] | None = None,
        protect: Iterable[str | Path] = (),
        replace_foreign: bool = False,
    ) -> None:
        if not objects:
            raise UsageError("there is no object to write a matte of", remedy="give at least one key mask")
        self.info = info
        self.objects = dict(objects)
        self.settings = (settings or MatteSettings()).for_output(out)
        self.layers = legal_layer_names(self.objects, taken=info.views)
        self._provenance = {_plain_key(k): str(v) for k, v in (provenance or {}).items()}
        self._depth = str(self.settings.depth)
        self._format = str(self.settings.format)
        notes = []
        for number, name in self.objects.items():
            if self.layers[number] != name and len(self.objects) > 1:
                notes.append(f"object '{name}' is written as layer {self.layers[number]}")
        split = len(self.objects) > 1 and (self.settings.per_object or self._format != "exr")
        if split and not self.settings.per_object:
            notes.append(f"{self._format} holds one matte per file, so each object gets its own files")
        self._pattern = parse_output(out, info, format=self._format)
        if self.settings.per_object or split:
            own_folder = format_of(out) is None and self._format != "mov"
            self._pattern = self._pattern.per_object(own_folder=own_folder)
            self._files = tuple(_File((k,), ("",), self.layers[k]) for k in self.objects)
        elif len(self.objects) == 1:
            label = next(iter(self.layers.values())) if self._pattern.has_object else None
            self._files = (_File(tuple(self.objects), ("",), label),)
        elif self._pattern.has_object:
            raise UsageError(
                "the output names {object}, but all objects go into one file",
                remedy="ask for one sequence per object, or leave {object} out",
                out=os.fspath(out),
            )
        else:
            self._files = (_File(tuple(self.objects), tuple(self.layers.values()), None),)
        self._protected = tuple(Path(p) for p in protect)
        self._replace_foreign = replace_foreign
        self._refuse_plate_colours()
        self.settings_hash = self._hash()
        self.notes: tuple[str, ...] = tuple(notes)
        self._movies: dict[_File, MatteMovie] = {}
        self._movie_frames: dict[_File, frozenset[int]] = {}
        self._lock = threading.Lock()
        self._untidied = {self._path(0, file).parent for file in self._files}
        for frame in (info.frames[:1] + info.frames[-1:]) or (1,):
            for file in self._files:
                self._refuse_plate_name(self._path(frame, file), frame)

    # What the run is ------------------------------------------------------------------------------------------------

    def paths(self, frame: int) -> tuple[Path, ...]:
        """All files of a frame (the movies, for movies), in the order of the objects where each has its own."""
        return tuple(self._path(frame, file) for file in self._files)

    def _path(self, frame: int, file: _File) -> Path:
        return self._pattern.path(frame, file.label)

    def _hash(self) -> str:
        told = {
            "layout": _FILE_LAYOUT,
            "settings": asdict(self.settings),
            "objects": {self.layers[k]: [k, name] for k, name in self.objects.items()},
            "provenance": self._provenance,
            "canvas": str(self.info.canvas),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]

    def _attributes(self, file: _File, keys: str, source: str) -> dict[str, str]:
        told = {f"rotomem/{k}": v for k, v in self._provenance.items() if v != ""}
        if keys:
            told["rotomem/keys"] = keys
        if source:
            told["rotomem/source"] = source
        names = {layer or "A": self.objects[k] for k, layer in zip(file.objects, file.layers, strict=True)}
        told["rotomem/objects"] = json.dumps(names, ensure_ascii=False)
        if self.settings.rgb != "none":
            told["rotomem/rgb"] = "premultiplied" if self.settings.rgb == "premult" else "plate, not multiplied"
        told["rotomem/settings"] = self.settings_hash
        # A name may hold bytes that are no text, which no attribute takes.
        return {k: v.encode("utf-8", "backslashreplace").decode() for k, v in told.items()}

    def _refuse_plate_colours(self) -> None:
        if self.settings.rgb == "none" or self._format == "exr":
            return
        kind = self.info.pixel_type
        if kind not in ("uint8", "uint16"):
            raise UsageError(
                f"the plate's {kind} RGB does not fit into {self._format}",
                remedy="write EXR, or the matte alone",
            )
        if self._format == "png" and self._depth == "8" and kind == "uint16":
            raise UsageError("the plate's 16-bit RGB does not fit into an 8-bit PNG", remedy="use depth 16")

    def _refuse_plate_name(self, path: Path, frame: int, source: Path | None = None) -> None:
        plate = Path(self.info.path)
        folder = plate if plate.is_dir() else plate.parent
        same = source is not None and _same_file(path, source)
        if not same and _same_file(path, plate):
            same = True
        if not same and self.info.kind != "movie" and _same_file(path.parent, folder):
            name = rf"{re.escape(self.info.stem)}[._-]*-?\d+\.\w+"
            same = re.fullmatch(name, path.name) is not None and path.suffix[1:].lower() == self.info.kind.lower()
        if same:
            raise OutputError(
                "the matte would be written over the plate",
                remedy="choose another folder or name for the mattes",
                path=path,
                frame=frame,
            )

    # Writing --------------------------------------------------------------------------------------------------------

    def refuse(self, frame: int, source: Path | None = None) -> None:
        """Raise what `write` would raise for what stands in a frame's place now; nothing is written.

        source   the plate's file of that frame
        Raises OutputError where that is the plate, a key mask, or a picture that rotomem did not write.
        """
        for file in self._files:
            path = self._path(frame, file)
            self._refuse_plate_name(path, frame, source)
            if self._format == "mov" and not self._replace_foreign:
                MatteMovie.refuse_foreign_movie(path)
            elif self._format != "mov":
                self._refuse_foreign(path, frame)

    def write(self, frame: PlateFrame, alpha: Mapping[ObjectId, Alpha], keys: str = "", source: str = "") -> None:
        """Write the matte files of one frame; each appears whole or not at all.

        frame    the plate's frame: windows, aspect, metadata, and RGB where settings.rgb wants it
        alpha    object id -> [H, W] on the plate's canvas, 0..1; an object left out is absent (zeros);
                 values outside 0..1 are clamped, NaN becomes 0
        keys     the key frames this matte was made from, for `rotomem/keys`; "" leaves what provenance says
        source   which plate pixels it was made from, for `rotomem/source`: what `is_current` compares; of a movie
                 the same for every frame

        Raises ShapeError for another size than the canvas, UsageError for an object that was not announced,
        OutputError naming the file where it cannot be written (nothing is left behind then).
        """
        canvas = self.info.canvas
        for number, plane in alpha.items():
            if number not in self.objects:
                raise UsageError(f"object {number} is not one of this run's: {_listed(self.objects)}")
            if plane.shape != (canvas.height, canvas.width):
                raise ShapeError(
                    f"the matte of object {number} is {plane.shape}, the canvas is "
                    f"{(canvas.height, canvas.width)} [H, W]",
                    frame=frame.frame,
                )
        self._tidy()
        for file in self._files:
            path = self._path(frame.frame, file)
            self._refuse_plate_name(path, frame.frame, frame.path)
            attributes = self._attributes(file, keys, source)
            if self._format == "mov":
                self._write_movie(file, path, frame, alpha, attributes)
                continue
            self._refuse_foreign(path, frame.frame)
            with whole_file(path, frame=frame.frame) as part:
                if self._format == "png":
                    self._write_png(file, path, part, frame, alpha, attributes)
                else:
                    self._write_exr(file, path, part, frame, alpha, attributes)

    def _tidy(self) -> None:
        """Remove what killed runs left, once, before the first file: a run that only looks deletes nothing."""
        with self._lock:
            folders, self._untidied = self._untidied, set()
        for folder in folders:
            remove_leftovers(folder)

    def _refuse_foreign(self, path: Path, frame: int) -> None:
        """Do not replace the artist's key mask, nor unasked any other picture that rotomem did not make."""
        if not path.exists():
            return
        if any(_same_file(path, p) for p in self._protected):
            raise OutputError(
                "the matte would be written over a key mask",
                remedy="choose another folder or name for the mattes",
                path=path,
                frame=frame,
            )
        if self._replace_foreign:
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

    def _write_exr(
        self,
        file: _File,
        path: Path,
        part: Path,
        frame: PlateFrame,
        alpha: Mapping[ObjectId, Alpha],
        attributes: Mapping[str, str],
    ) -> None:
        window = frame.data_window
        planes = [_on_window(alpha.get(k), self.info.canvas, window) for k in file.objects]
        names = file.alpha_names(self.settings.rgb)
        if len(names) > len(planes):
            planes.insert(0, _union(planes))
        types = [self._depth] * len(names)
        colour: NDArray[np.generic] | None = None
        if self.settings.rgb != "none":
            colour = _plate_rgb(frame, planes[0] if self.settings.rgb == "premult" else None)
            names = ("R", "G", "B", *names)
            types = ["half" if colour.dtype == np.float16 else "float"] * 3 + types
        pixels = np.empty((window.height, window.width, len(names)), _common_type(types))
        at = 0
        if colour is not None:
            pixels[..., :3] = colour
            at = 3
        for k, plane in enumerate(planes):
            pixels[..., at + k] = plane

        spec = oiio.ImageSpec(window.width, window.height, len(names), oiio.TypeDesc(types[-1]))
        spec.channelnames = names
        if len(set(types)) > 1:
            spec.channelformats = tuple(oiio.TypeDesc(t) for t in types)
        spec.alpha_channel = names.index("A") if "A" in names else -1
        _set_windows(spec, window, frame.display_window)
        # Before the plate's metadata, which may bring a date of its own: without one the library writes the
        # clock's, and two runs would differ; an empty one is left out of the file.
        spec.attribute("DateTime", "")
        kept = {k: v for k, v in frame.metadata.items() if not k.startswith("rotomem/")}
        write_attributes(spec, _with_time(kept, frame, self.info), colour=colour is not None)
        spec.attribute("compression", self.settings.compression)
        spec.attribute("PixelAspectRatio", float(frame.pixel_aspect))
        if colour is None:
            spec.attribute("oiio:ColorSpace", "data")
            spec.attribute("colorInteropID", "data")
        elif "colorInteropID" not in kept and isinstance(tag := self.info.colour_hints.get("oiio:ColorSpace"), str):
            spec.attribute("oiio:ColorSpace", tag)  # of a PNG, say; the library spells it as colorInteropID
        for key, value in attributes.items():
            spec.attribute(key, value)
        # Some readers would make an ACES container of the plate's flag and refuse our channels.
        spec.erase_attribute("acesImageContainerFlag")
        _write_still("openexr", spec, pixels, path, part, frame.frame)
        try:
            header, row = read_last_row(part)
        except InputError as e:
            raise _not_read_back(path, e, frame.frame) from e
        self._verify(path, header, frame, dict(zip(names, types, strict=True)), window)
        # The last row is what a full disk swallows when the file is closed, and close() says nothing.
        order = [names.index(c.name) for c in header.channels]
        halves = [c.type == "half" for c in header.channels]
        meant = pixels[-1][:, order].astype(np.float32)
        with np.errstate(over="ignore"):
            meant[:, halves] = meant[:, halves].astype(np.float16)
        if row is None or not np.array_equal(row, meant, equal_nan=True):
            raise cannot_write(path, "the end of the file is missing", frame=frame.frame)

    def _write_png(
        self,
        file: _File,
        path: Path,
        part: Path,
        frame: PlateFrame,
        alpha: Mapping[ObjectId, Alpha],
        attributes: Mapping[str, str],
    ) -> None:
        # A PNG has no data window: its pixels are the display window.
        window = frame.display_window
        kind: Any = np.uint16 if self._depth == "16" else np.uint8
        plane = _on_window(alpha.get(file.objects[0]), self.info.canvas, window)
        matte = _to_integer(plane, kind)
        names: tuple[str, ...] = ("Y",)
        pixels = matte[..., None]
        if self.settings.rgb != "none":
            rgb = np.zeros((*matte.shape, 3), frame.rgb.dtype)
            rows, cols, inner = _overlap(frame.data_window, window)
            rgb[rows, cols] = frame.rgb[inner]
            if self.settings.rgb == "premult":
                rgb = _to_integer(_unit(rgb) * plane[..., None], kind)
            elif rgb.dtype != kind:
                rgb = rgb.astype(kind) * kind(257)  # 8 to 16 bit: 255 becomes 65535, exactly invertible
            names = ("R", "G", "B", "A")
            pixels = np.concatenate([rgb, matte[..., None]], axis=-1)
        spec = oiio.ImageSpec(window.width, window.height, len(names), oiio.TypeDesc(f"uint{self._depth}"))
        spec.channelnames = names
        spec.alpha_channel = 3 if len(names) == 4 else -1
        spec.attribute("oiio:UnassociatedAlpha", 1)  # as given: the library must not divide
        if self.settings.rgb == "none":
            spec.attribute("oiio:ColorSpace", "data")
        if frame.pixel_aspect != 1.0:
            spec.attribute("PixelAspectRatio", float(frame.pixel_aspect))
        for key, value in attributes.items():
            spec.attribute(key, value)
        _write_still("png", spec, pixels, path, part, frame.frame)
        try:
            still = read_still(part)
        except InputError as e:
            raise _not_read_back(path, e, frame.frame) from e
        self._verify(path, still.header, frame, dict.fromkeys(names, f"uint{self._depth}"), None)
        # The library's PNG writer says that all went well on a full disk.
        if not _png_is_whole(part):
            raise cannot_write(path, "the end of the file is missing", frame=frame.frame)
        for k, name in enumerate(names):
            if not np.array_equal(still.arrays[name], pixels[..., k]):
                raise cannot_write(path, "the file reads back with other pixels", frame=frame.frame)

    def _verify(
        self,
        path: Path,
        header: StillHeader,
        frame: PlateFrame,
        channels: Mapping[str, str],
        window: Window | None,
    ) -> None:
        """Compare the header of what was written with what was meant; the library may fail silently."""
        wrong = None
        if {c.name: c.type for c in header.channels} != dict(channels):
            wrong = "its channels are not those written"
        elif header.display_window.width != frame.display_window.width:
            wrong = "its display window is not the plate's"
        elif window is not None and (
            header.parts[0].data_window != window or header.display_window != frame.display_window
        ):
            wrong = "its windows are not the plate's"
        elif window is not None and header.parts[0].compression != self.settings.compression:
            wrong = f"its compression is {header.parts[0].compression}, not {self.settings.compression}"
        elif header.metadata.get("rotomem/settings") != self.settings_hash:
            wrong = "its metadata is not complete"
        if wrong:
            raise cannot_write(path, f"the file reads back wrongly: {wrong}", frame=frame.frame)

    # Movies ---------------------------------------------------------------------------------------------------------

    def _write_movie(
        self,
        file: _File,
        path: Path,
        frame: PlateFrame,
        alpha: Mapping[ObjectId, Alpha],
        attributes: Mapping[str, str],
    ) -> None:
        window = self.info.display_window
        with self._lock:
            movie = self._movies.get(file)
            if movie is None:
                movie = MatteMovie(path, frame, self.info, attributes, replace_foreign=self._replace_foreign)
                self._movies[file] = movie
            plane = _on_window(alpha.get(file.objects[0]), self.info.canvas, window)
            rgb = None
            if self.settings.rgb != "none":
                rgb = np.zeros((*plane.shape, 3), np.float32)
                rows, cols, inner = _overlap(frame.data_window, window)
                rgb[rows, cols] = _unit(frame.rgb[inner])
                if self.settings.rgb == "premult":
                    rgb *= plane[..., None]
            movie.add(frame, plane, rgb)

    # Resuming and closing -------------------------------------------------------------------------------------------

    def is_current(self, frame: int, source: str = "") -> bool:
        """True where every file of `frame` is whole: readable to the last pixel and made with these settings.

        The settings are those of this writer, its provenance and its objects, by `rotomem/settings`; `source` is
        what `write` would be given now, "" is not compared. Cost: the decoding of the files; of a movie once for
        all frames.
        """
        return all(self._file_is_current(frame, file, source) for file in self._files)

    def _file_is_current(self, frame: int, file: _File, source: str) -> bool:
        path = self._path(frame, file)
        if not path.exists():
            return False
        if self._format == "mov":
            with self._lock:
                if file not in self._movie_frames:
                    self._movie_frames[file] = frames_of_movie(path, self.info, self.settings_hash, source)
                return frame in self._movie_frames[file]
        if self._format == "png" and not _png_is_whole(path):
            return False
        try:
            header = read_header(path)
            if header.metadata.get("rotomem/settings") != self.settings_hash:
                return False
            if source and header.metadata.get("rotomem/source") != source:
                return False
            read_still(path, channels=[c.name for c in header.channels], header=header)
        except InputError:
            return False
        return True

    def close(self) -> None:
        """Finish: a movie gets its name now. Stills are complete already. May be called twice."""
        with self._lock:
            movies, self._movies = self._movies, {}
            self._movie_frames = {}
        try:
            while movies:
                _, movie = movies.popitem()
                movie.finish()
        finally:
            for movie in movies.values():
                movie.abandon()

    def abandon(self) -> None:
        """Give up: a movie that is not finished disappears; stills that were written stay."""
        with self._lock:
            movies, self._movies = self._movies, {}
        for movie in movies.values():
            movie.abandon()

    def __enter__(self) -> MatteWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


# Planes -----------------------------------------------------------------------------------------------------


def _overlap(inner: Window, outer: Window) -> tuple[slice, slice, tuple[slice, slice]]:
    """Rows and columns of `outer` that both hold, and the same pixels in an array of `inner`."""
    both = inner.intersect(outer)
    if both.empty:
        nothing = slice(0, 0)
        return nothing, nothing, (nothing, nothing)
    rows, cols = both.slices_in(outer)
    return rows, cols, both.slices_in(inner)


def _on_window(plane: Alpha | None, canvas: Window, window: Window) -> Alpha:
    """The part of a canvas-sized matte that lies in `window`, clamped to 0..1; zeros where there is none."""
    if plane is None:
        return np.zeros((window.height, window.width), np.float32)
    if window == canvas:
        cut: Alpha = np.asarray(plane, np.float32)
    else:
        cut = np.zeros((window.height, window.width), np.float32)
        rows, cols, inner = _overlap(canvas, window)
        cut[rows, cols] = plane[inner]
    if cut.size and not (cut.min() >= 0 and cut.max() <= 1):  # also where there is a NaN
        cut = np.clip(np.nan_to_num(cut, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    return cut


def _union(planes: list[Alpha]) -> Alpha:
    total = planes[0].copy()
    for plane in planes[1:]:
        total += plane
    return np.minimum(total, 1, out=total)


def _plate_rgb(frame: PlateFrame, matte: Alpha | None) -> NDArray[np.generic]:
    """RGB for an EXR: the plate's own type, integers as float32 v / max (exactly invertible)."""
    rgb = frame.rgb if frame.rgb.dtype in (np.float16, np.float32) else _unit(frame.rgb)
    if matte is None:
        return rgb
    alpha = matte[..., None]
    with np.errstate(invalid="ignore", over="ignore"):
        cut = rgb.astype(np.float32) * alpha
        # A NaN or infinity would stay one under the faintest edge; where the matte is full it is the plate's own.
        cut[~np.isfinite(rgb) & (alpha < 1)] = 0
        return cut.astype(rgb.dtype)


def _unit(rgb: NDArray[Any]) -> NDArray[np.float32]:
    unit = rgb.astype(np.float32)
    if rgb.dtype.kind != "f":
        unit /= np.float32(np.iinfo(rgb.dtype).max)
    return unit


def _to_integer(plane: NDArray[np.float32], kind: Any) -> NDArray[Any]:
    top = np.iinfo(kind).max
    return np.rint(plane * np.float64(top)).astype(kind)


def _common_type(types: list[str]) -> Any:
    # Half to float and back is exact, so one float array serves a file of mixed types.
    return np.float16 if set(types) == {"half"} else np.float32


# Files ------------------------------------------------------------------------------------------------------


def _set_windows(spec: oiio.ImageSpec, data: Window, display: Window) -> None:
    spec.x, spec.y = data.x0, data.y0
    spec.full_x, spec.full_y = display.x0, display.y0
    spec.full_width, spec.full_height = display.width, display.height


def _png_is_whole(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 12, 0))
        return file.read() == b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk: no bytes, its name, its CRC


def _not_read_back(path: Path, error: InputError, frame: int) -> OutputError:
    return cannot_write(path, f"the file cannot be read back, {error.what}", frame=frame)


def _write_still(format: str, spec: oiio.ImageSpec, pixels: NDArray[Any], path: Path, part: Path, frame: int) -> None:
    # A 2-D array is written as garbage without a word (OpenImageIO PR 4843), a permuted one is refused.
    assert pixels.ndim == 3 and pixels.flags.c_contiguous
    output = oiio.ImageOutput.create(format)
    if output is None:
        raise cannot_write(path, f"this OpenImageIO writes no {format}", frame=frame)

    def reason() -> str:
        return _library_error(output).replace(os.fspath(part), path.name)

    # By format, not by name: the temporary name has no extension that says so. close() returns True even where
    # the pixels failed, so each step is asked, and the caller reads the header back.
    if not output.open(os.fspath(part), spec):
        raise cannot_write(path, reason(), frame=frame)
    written = output.write_image(pixels)
    why = "" if written else reason()
    if not (output.close() and written):
        raise cannot_write(path, why or reason(), frame=frame)


def _library_error(output: oiio.ImageOutput) -> str:
    try:
        text = output.geterror() or oiio.geterror()
    except UnicodeDecodeError as e:
        text = e.object.decode("latin-1")
    return " ".join(text.split())[:300] or "no reason given"


def _with_time(metadata: Mapping[str, object], frame: PlateFrame, info: PlateInfo) -> dict[str, object]:
    """Metadata with the frame's own time code and rate: moved on where a frame was held, made for a movie plate."""
    result = dict(metadata)
    if info.fps is not None and not any(k.lower() == "framespersecond" for k in result):
        rate = info.fps.limit_denominator(1001)
        result["framesPerSecond"] = TypedValue("rational", (rate.numerator, rate.denominator))
    if info.fps is None:
        return result
    name = next((k for k in result if k.lower() == "smpte:timecode"), None)
    if name is not None:
        held = frame.source_frame is not None and frame.source_frame != frame.frame
        value = result[name]
        if held and isinstance(value, TypedValue):
            moved = timecode.shift_packed(value.value, frame.frame - int(frame.source_frame or 0), info.fps)
            result[name] = TypedValue(value.type, moved)
    elif info.timecode and info.frames:
        packed = timecode.pack(timecode.advance(info.timecode, frame.frame - info.frames[0], info.fps))
        if packed is not None:
            result["smpte:TimeCode"] = TypedValue("timecode", (packed, 0))
    return result


def _plain_key(key: str) -> str:
    return key.removeprefix("rotomem/")


def _same_file(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:
        return os.path.realpath(a) == os.path.realpath(b)


def _listed(objects: Mapping[ObjectId, str]) -> str:
    return ", ".join(f"{k} ({name})" for k, name in objects.items())
