"""Mattes out: EXR with the plate's geometry and metadata, PNG, or a ProRes 4444 movie; and what goes beside them.

What is where, and why:

- One object: channel `A`. Several: one layer each, `hero.A`, the same channels on every frame, zeros where an
  object is absent, so that no host ever meets a shot whose layers come and go.
- The data window is the plate frame's, the display window too; pixels of the canvas outside of it are cropped.
- The plate's RGB goes along only when asked for. `keep`: bit for bit, straight. `premult`: multiplied by the matte
  of the file; where a file holds several objects, by their union min(1, sum of alphas), which is then written as
  `A` beside the layers so that the file is a correct premultiplied RGBA. `straight`: the estimated colour of what
  that matte shows, not multiplied. Plate pixels that are NaN or infinite become 0 where the premultiplied matte is
  less than 1. Each brings the plate's colour tag along.
- Mattes are data: tagged `colorInteropID` "data", no chromaticities, never colour-transformed.
- Lossy compressions are refused. DWA, B44 and PXR24 move edges by up to 0.03 depending on the channel's name.
- Equal input gives equal bytes: no date is written but the plate's own.
- What goes beside has sequences (or movies) of its own, `<stem>_crypto.%04d.exr`: one class each, see `also`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from rotomem.errors import OutputError, ShapeError, UsageError
from rotomem.io.atomic import remove_leftovers
from rotomem.io.cryptomatte import CryptomatteStills
from rotomem.io.kinds import File, Foreground, Order, Output, Sources, Told
from rotomem.io.matte_movie import MatteMovies
from rotomem.io.matte_stills import RGB_TOLD, MatteStills
from rotomem.io.names import legal_layer_names
from rotomem.io.outputs import FORMATS, format_of, parse_output
from rotomem.io.packed import PackedStills
from rotomem.io.planes import Alpha
from rotomem.io.plate import PlateInfo
from rotomem.io.trimap import TrimapStills
from rotomem.types import ObjectId, PlateFrame

_BESIDE: Mapping[str, Callable[[Output], Output]] = {
    "crypto": CryptomatteStills.beside,
    "packed": PackedStills.beside,
    "trimap": TrimapStills.beside,
    "movie": MatteMovies.beside,
}
ALSO = tuple(_BESIDE)
"""What can go beside the mattes."""

LOSSLESS = ("none", "rle", "zips", "zip", "piz", "zstd")
_LOSSY = ("dwaa", "dwab", "b44", "b44a", "pxr24", "jpeg", "lossy_dct")
_DEPTHS = {"exr": ("half", "float"), "png": ("16", "8"), "mov": ("10",)}


@dataclass(frozen=True)
class MatteSettings:
    """How mattes are written.

    format        "exr", "png" or "mov" (ProRes 4444); None: what OUT's name says, else "exr"
    depth         EXR "half" or "float"; PNG "16" or "8"; mov "10"; None: the first of these
    rgb           "none": alpha only; "keep": the plate's RGB, bit for bit; "premult": RGB multiplied by the matte;
                  "straight": the estimated colour of the object alone, not multiplied
    per_object    one sequence for each object, channel `A` in each; PNG and mov always do that for several objects
    compression   of EXR: none, rle, zips, zip, piz or zstd
    also          kinds of `ALSO` that go beside the mattes: "crypto" (Cryptomatte, EXR), "packed" (four mattes to
                  an RGBA), "trimap" (0, 0.5, 1), "movie" (ProRes 4444 beside stills)
    trimap_band   of trimaps: pixels of the plate that are unknown on either side of an edge, beyond its softness
    only          names of the objects to deliver, all where empty; a text may list several, commas between

    Raises UsageError where a value is unknown, lossy, or contradicts another.
    """

    format: str | None = None
    depth: str | None = None
    rgb: str = "none"
    per_object: bool = False
    compression: str = "zip"
    also: tuple[str, ...] = ()
    trimap_band: int = 10
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.format is not None:
            _one_of("format", self.format, FORMATS)
        _one_of("rgb", self.rgb, ("none", *RGB_TOLD))
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
        also = tuple(dict.fromkeys(kind.strip() for text in self.also for kind in text.split(",") if kind.strip()))
        for kind in also:
            _one_of("also", kind, ALSO)
        if self.format == "mov" and "movie" in also:
            raise UsageError("the mattes are a movie already", remedy="leave movie out of also, or write stills")
        object.__setattr__(self, "also", tuple(kind for kind in ALSO if kind in also))
        if not 0 <= self.trimap_band <= 1000:
            raise UsageError(f"trimap_band is {self.trimap_band}", remedy="give pixels, 0 to 1000")

    def for_output(self, out: str | Path) -> MatteSettings:
        """These settings with format and depth filled in from OUT's name."""
        named = format_of(out)
        format = self.format or named or "exr"
        full = replace(self, format=format)  # checks depth against the format
        return replace(full, depth=full.depth or _DEPTHS[format][0])

    def delivered(self, objects: Mapping[ObjectId, str]) -> dict[ObjectId, str]:
        """Those of `objects`, id -> name, that `only` names. Raises UsageError listing the names for another."""
        if not self.only:
            return dict(objects)
        names = set(objects.values())
        asked: set[str] = set()
        for text in self.only:
            # A name may hold a comma, so a text that is one as it stands is not taken apart.
            for name in [text] if text in names else [t.strip() for t in text.split(",") if t.strip()]:
                if name not in names:
                    listing = ", ".join(f"'{n}'" for n in objects.values())
                    raise UsageError(f"there is no object '{name}' to deliver", remedy=f"the objects are {listing}")
                asked.add(name)
        return {number: name for number, name in objects.items() if name in asked}


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{what} is '{value}'", remedy=f"use one of {', '.join(allowed)}")


class MatteWriter:
    """Writes the mattes of one run; `write` may be called by several threads, unless `in_order`.

    out          a folder, a pattern (`out/hero.%04d.exr`, `####`), or `out.mov`; see `outputs.parse_output`
    info         the plate: canvas, padding, rate
    objects      every object of the run, id -> the artist's name; one channel each on every frame
    settings     see MatteSettings; format and depth are filled in from `out`
    provenance   what made the mattes: "version", "model", "weights", "keys", "colour", ...; each becomes an
                 attribute `rotomem/<name>`, and all of them enter `rotomem/settings`, the hash that tells whether
                 a file on disk is still the one this run would make
    protect      files that are never written over whatever happens: the artist's key masks
    replace_foreign   True: replace pictures in the way that rotomem did not write; else they are an error
    foreground   estimates the colour of what a matte shows; needed where settings.rgb is "straight"

    Attributes: `settings`, `objects` (those delivered), `layers` (id -> layer name), `notes` (sentences worth
    telling once), `in_order` (frames must come in ascending order, since a movie is among the outputs).
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
        foreground: Foreground | None = None,
    ) -> None:
        if not objects:
            raise UsageError("there is no object to write a matte of", remedy="give at least one key mask")
        self.info = info
        self.settings = (settings or MatteSettings()).for_output(out)
        self._announced = dict(objects)
        self.objects = self.settings.delivered(objects)
        self.layers = legal_layer_names(self.objects, taken=info.views)
        self._refuse_plate_colours(foreground)
        order = Order(
            info=info,
            objects=self.objects,
            layers=self.layers,
            settings=self.settings,
            provenance={_plain_key(k): str(v) for k, v in (provenance or {}).items()},
            protected=tuple(Path(p) for p in protect),
            replace_foreign=replace_foreign,
            foreground=foreground,
        )
        notes = [
            f"object '{name}' is written as layer {self.layers[number]}"
            for number, name in self.objects.items()
            if self.layers[number] != name and len(self.objects) > 1
        ]
        self._outputs = self._make_outputs(out, order, notes)
        self.notes = (*notes, *(note for output in self._outputs for note in output.notes))
        self.in_order = any(output.in_order for output in self._outputs)
        self._refuse_same_names()
        self._lock = threading.Lock()
        self._untidied = {path.parent for path in self.paths(0)}

    # What the run is ------------------------------------------------------------------------------------------------

    def _make_outputs(self, out: str | Path, order: Order, notes: list[str]) -> list[Output]:
        settings, several = self.settings, len(self.objects) > 1
        pattern = parse_output(out, self.info, format=str(settings.format))
        singles = tuple(File((k,), ("",), layer) for k, layer in self.layers.items())
        layered = (File(tuple(self.objects), tuple(self.layers.values())),)
        split = several and (settings.per_object or settings.format != "exr")
        if split and not settings.per_object:
            notes.append(f"{settings.format} holds one matte per file, so each object gets its own files")
        if settings.per_object or split:
            pattern = pattern.per_object(own_folder=format_of(out) is None and settings.format != "mov")
            files = singles
        elif not several:
            files = singles if pattern.has_object else (replace(singles[0], label=None),)
        elif pattern.has_object:
            raise UsageError(
                "the output names {object}, but all objects go into one file",
                remedy="ask for one sequence per object, or leave {object} out",
                out=os.fspath(out),
            )
        else:
            files = layered
        main = (MatteMovies if settings.format == "mov" else MatteStills)(order, pattern, files)
        return [main, *(_BESIDE[kind](main) for kind in settings.also)]

    def _refuse_plate_colours(self, foreground: Foreground | None) -> None:
        settings, kind = self.settings, self.info.pixel_type
        if settings.rgb == "straight" and foreground is None:
            raise UsageError("rgb is 'straight', but nothing estimates the colour", remedy="give foreground")
        if settings.rgb == "none" or settings.format == "exr":
            return
        if kind not in ("uint8", "uint16"):
            raise UsageError(
                f"the plate's {kind} RGB does not fit into {settings.format}",
                remedy="write EXR, or the matte alone",
            )
        if settings.format == "png" and settings.depth == "8" and kind == "uint16":
            raise UsageError("the plate's 16-bit RGB does not fit into an 8-bit PNG", remedy="use depth 16")

    def _refuse_same_names(self) -> None:
        """An object may be called what a kind is."""
        paths = [path for output in self._outputs for path in output.paths(0)]
        twice = next((path for path in paths if paths.count(path) > 1), None)
        if twice is not None:
            raise OutputError(
                f"two outputs would be called {twice.name}", remedy="name the output otherwise", path=twice.parent
            )

    def paths(self, frame: int) -> tuple[Path, ...]:
        """All files of a frame, the mattes' first (the movies, for movies)."""
        return tuple(path for output in self._outputs for path in output.paths(frame))

    @property
    def held(self) -> set[tuple[ObjectId, ...]]:
        """Which objects lie together in a still."""
        return {file.objects for output in self._outputs if not output.in_order for file in output.files}

    def paths_by_kind(self, frame: int) -> dict[str, tuple[Path, ...]]:
        """The same by what they are: "mattes", and the kinds of settings.also."""
        return {output.kind: output.paths(frame) for output in self._outputs}

    def of_all(self, keys: str, source: str) -> None:
        """Say what all frames together are made from: a movie's `rotomem/keys` and `rotomem/source`."""
        for output in self._outputs:
            output.of_all(keys, source)

    # Writing --------------------------------------------------------------------------------------------------------

    def refuse(self, frame: int, source: Path | None = None) -> None:
        """Raise what `write` would raise for what stands in a frame's place now; nothing is written.

        source   the plate's file of that frame
        Raises OutputError where that is the plate, a key mask, or a picture that rotomem did not write.
        """
        for output in self._outputs:
            output.refuse(frame, source)

    def beside(self, word: str, suffix: str) -> Path:
        """Where one file about all of them goes: `mattes/sh010_<word><suffix>`."""
        return self._outputs[0].pattern.beside(word, suffix, padding=None).path(0)

    def write(
        self,
        frame: PlateFrame,
        alpha: Mapping[ObjectId, Alpha],
        keys: str = "",
        source: str = "",
        told: Mapping[str, str] | None = None,
        of: Told | None = None,
    ) -> None:
        """Write the files of one frame; each appears whole or not at all.

        frame    the plate's frame: windows, aspect, metadata, and RGB where settings.rgb wants it
        alpha    object id -> [H, W] on the plate's canvas, 0..1; an object left out is absent (zeros);
                 values outside 0..1 are clamped, NaN becomes 0
        keys     the key frames this matte was made from, for `rotomem/keys`; "" leaves what provenance says
        source   which plate pixels it was made from, for `rotomem/source`: what `is_current` compares; of a movie
                 the same for every frame, unless `of_all` was called
        told     more attributes of this frame, by name without `rotomem/`; stills only show their own
        of       what each file says of its own objects, over the others

        A file that `is_current` has found whole with the same source is left as it is.
        Raises ShapeError for another size than the canvas, UsageError for an object that was not announced,
        OutputError naming the file where it cannot be written (nothing is left behind then).
        """
        canvas = self.info.canvas
        for number, plane in alpha.items():
            if number not in self._announced:
                raise UsageError(f"object {number} is not one of this run's: {_listed(self._announced)}")
            if plane.shape != (canvas.height, canvas.width):
                raise ShapeError(
                    f"the matte of object {number} is {plane.shape}, the canvas is "
                    f"{(canvas.height, canvas.width)} [H, W]",
                    frame=frame.frame,
                )
        self._tidy()
        given = {**(told or {}), **({"keys": keys} if keys else {}), **({"source": source} if source else {})}
        for output in self._outputs:
            output.write(frame, alpha, lambda objects: {**given, **(of(objects) if of else {})})

    def _tidy(self) -> None:
        """Remove what killed runs left, once, before the first file: a run that only looks deletes nothing."""
        with self._lock:
            folders, self._untidied = self._untidied, set()
        for folder in folders:
            remove_leftovers(folder)

    # Resuming and closing -------------------------------------------------------------------------------------------

    def is_current(self, frame: int, source: str | Sources = "") -> bool:
        """True where every file of `frame` is whole: readable to the last pixel and made with these settings.

        The settings are those of this writer, its provenance and its objects, by `rotomem/settings`; `source` is
        what `write` would be given now, "" is not compared, or what each file may say, by the objects it holds.
        Cost: the decoding of the files; of a movie once for all frames.
        """
        if isinstance(source, str):
            only = (source,) if source else ()
            return self.is_current(frame, lambda objects: only)
        return all([output.is_current(frame, source) for output in self._outputs])  # each: `write` asks for them

    def close(self) -> None:
        """Finish: a movie gets its name now. Stills are complete already. May be called twice."""
        with ExitStack() as stack:  # every one is closed, whatever another raises
            for output in self._outputs:
                stack.callback(output.close)

    def abandon(self) -> None:
        """Give up: a movie that is not finished disappears; stills that were written stay."""
        for output in self._outputs:
            output.abandon()

    def __enter__(self) -> MatteWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def _plain_key(key: str) -> str:
    return key.removeprefix("rotomem/")


def _listed(objects: Mapping[ObjectId, str]) -> str:
    return ", ".join(f"{k} ({name})" for k, name in objects.items())
