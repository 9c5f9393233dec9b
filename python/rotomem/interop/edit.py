"""An edit, read: which frames of which plate every clip shows. OpenTimelineIO, and what its adapters read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rotomem.errors import BackendError, InputError, MissingFrameError, RotomemError, UsageError
from rotomem.interop.footage import Footage, footage
from rotomem.interop.timeline import opentimelineio
from rotomem.io import timecode
from rotomem.io.exr import read_header
from rotomem.io.sequence import MOVIE_SUFFIXES

_ADAPTERS = {
    ".edl": "otio-cmx3600-adapter",
    ".fcpxml": "otio-fcpx-xml-adapter",
    ".xml": "otio-fcp-adapter",
    ".aaf": "otio-aaf-adapter",
    ".ale": "otio-ale-adapter",
}
_RANGE = re.compile(r"\[(\d+)-\d+\](?=\.\w+$)")  # sh010.[1001-1100].exr, as Resolve writes sequences


@dataclass(frozen=True)
class Cut:
    """A clip of an edit.

    name          of the shot, safe as a folder's name, unique in the edit
    plate         absolute, the frame number as %04d; a movie's own path
    first, last   frames of the plate, handles included, as far as they are on disk
    notes         what an artist should know: dissolves, retimes, handles that are not there
    """

    name: str
    plate: str
    first: int
    last: int
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> str:
        """The range as text."""
        return f"{self.first}-{self.last}"


def read_edit(
    path: Path, *, handles: int = 0, root: Path | None = None, fps: float | None = None
) -> tuple[list[Cut], list[str]]:
    """The clips that show plates, in the edit's order, and what is to be said of the edit as a whole.

    handles   frames to add at both ends
    root      where plates lie that are not where the edit says: found by the name of file, clip or reel
    fps       of an EDL, which does not say; 24 where nobody does

    Frames that a dissolve or a faster retime shows are in the range. What `rotomem export --otio` wrote as mattes is
    left out. Raises BackendError naming the package that reads such a file, InputError for a file that is no edit,
    MissingFrameError listing every plate that is not there.
    """
    if handles < 0:
        raise UsageError(f"{handles} handles", remedy="give a number from 0")
    otio = opentimelineio()
    timeline, notes = _read(otio, path, fps), []
    plates = _Plates(path.parent, root)
    cuts: list[Cut] = []
    missing: list[str] = []
    gaps = 0
    for item in _items(otio, timeline):
        if isinstance(item, otio.schema.Gap):
            gaps += item.duration().value > 0
            continue
        media = item.media_reference
        if isinstance(media, otio.schema.GeneratorReference):
            notes.append(f"{item.name or 'a clip'} is generated ({media.generator_kind}) and has no plate")
            continue
        if _is_matte(item):
            continue
        try:
            cuts.append(_cut(otio, item, plates, handles))
        except RotomemError as error:
            missing.append(f"{item.name or 'a clip without a name'}: {error.what}")
    if missing:
        raise MissingFrameError(
            f"{len(missing)} of the edit's clips cannot be found: {'; '.join(missing)}",
            remedy="give --root, the folder that holds the plates",
            path=path,
        )
    if gaps:
        notes.append(f"{gaps} gap{'s' if gaps > 1 else ''} in the edit: nothing to do there")
    if not cuts:
        raise InputError(
            "the edit has no clip with a plate", remedy="export the tracks that hold the shots", path=path
        )
    return _named_apart(cuts), notes


def safe_name(text: str) -> str:
    """A text as the name of a folder on every system."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("._-")[:80]
    return f"{name}_" if re.fullmatch(r"(?i)con|prn|aux|nul|(com|lpt)\d", name) else name or "shot"


def _read(otio: Any, path: Path, fps: float | None) -> Any:
    if not path.is_file():
        raise MissingFrameError("the edit is not there", path=path, remedy="check the spelling of the path")
    told = {"rate": fps} if fps is not None and path.suffix.lower() == ".edl" else {}
    try:
        found = otio.adapters.read_from_file(str(path), **told)
    except otio.exceptions.NoKnownAdapterForExtensionError:
        package = _ADAPTERS.get(path.suffix.lower())
        raise BackendError(
            f"nothing here reads {path.suffix or 'a file without extension'}",
            remedy=f"pip install {package}" if package else "give an .otio, .edl or .fcpxml file",
            path=path,
        ) from None
    except Exception as error:  # every adapter has errors of its own
        told_why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"the edit cannot be read: {told_why}", remedy="export it again", path=path) from error
    if isinstance(found, otio.schema.SerializableCollection):
        found = next((t for t in found if isinstance(t, otio.schema.Timeline)), None)
    if not isinstance(found, otio.schema.Timeline):
        raise InputError("the file holds no timeline", remedy="export the timeline, not a clip", path=path)
    return found


def _items(otio: Any, timeline: Any) -> Iterator[Any]:
    """Clips and gaps of the video tracks, those in nested ones too."""
    for track in timeline.tracks:
        if getattr(track, "kind", None) != otio.schema.TrackKind.Audio:
            yield from (c for c in track.find_children() if isinstance(c, (otio.schema.Clip, otio.schema.Gap)))


def _is_matte(clip: Any) -> bool:
    told = clip.metadata.get("rotomem")
    return bool(told and told.get("objects"))


def _cut(otio: Any, clip: Any, plates: _Plates, handles: int) -> Cut:
    plate, media = plates.of(otio, clip)
    shown = clip.trimmed_range()
    notes = []
    with_dissolves = clip.visible_range() if clip.parent() is not None else shown
    dissolved = round((with_dissolves.duration - shown.duration).value)
    if dissolved > 0:
        notes.append(f"dissolves: {dissolved} more frame{'s' if dissolved > 1 else ''}")
    speed, said = _retime(otio, clip)
    notes += said
    start = _frame_of(otio, with_dissolves.start_time, media, plate)
    # Of a retime the range tells how long it lasts; it shows that many frames times the speed.
    length = max(1, -int(-with_dissolves.duration.value * max(abs(speed), 1.0 if speed else 0.0) // 1))
    first, last = start - handles, start + length - 1 + handles
    if last < plate.first or first > plate.last:
        raise MissingFrameError(
            f"the edit shows {start}-{start + length - 1}, on disk are {plate.first}-{plate.last} ({plate.path})"
        )
    short = max(plate.first - first, 0), max(last - plate.last, 0)
    if any(short):
        first, last = max(first, plate.first), min(last, plate.last)
        notes.append(f"frames that the plate lacks: {short[0]} at the head, {short[1]} at the tail")
    file = os.path.basename(plate.path)
    name = clip.name if clip.name and os.path.splitext(clip.name)[1] != os.path.splitext(file)[1] else _stem(file)
    return Cut(safe_name(name), plate.path, first, last, tuple(notes))


def _retime(otio: Any, clip: Any) -> tuple[float, list[str]]:
    """Source frames a frame of the edit, and what to say of it."""
    speed, notes = 1.0, []
    for effect in clip.effects:
        if isinstance(effect, otio.schema.FreezeFrame):
            speed = 0.0
            notes.append("freeze frame: one frame")
        elif isinstance(effect, otio.schema.LinearTimeWarp):
            speed *= effect.time_scalar
            notes.append(f"retimed to {100 * effect.time_scalar:g} %: the range covers it; check its ends")
        elif isinstance(effect, otio.schema.TimeEffect):
            notes.append(f"retimed by {effect.name or effect.effect_name or 'an effect'}: check the range")
    return speed, notes


def _frame_of(otio: Any, time: Any, media: Any, plate: Footage) -> int:
    """The number on disk of the frame at a source time: counted from where the media begin, from the numbers of the
    files, or from their time code."""
    rate = time.rate
    value = round(time.value)
    avail = media.available_range if media is not None else None
    if avail is not None:
        begins = round(avail.start_time.rescaled_to(rate).value)
        numbered = isinstance(media, otio.schema.ImageSequenceReference)
        number = media.start_frame if numbered else begins if plate.first <= begins <= plate.last else plate.first
        return int(number + value - begins)
    if plate.first <= value <= plate.last:
        return value
    code = None if plate.movie else _timecode_frame(Path(plate.file(plate.first)), rate)
    if code is not None and code <= value < code + plate.frames:
        return plate.first + value - code
    raise MissingFrameError(
        f"the edit shows frame {value}; on disk are {plate.first}-{plate.last}, no time code fits ({plate.path})"
    )


def _timecode_frame(file: Path, rate: float) -> int | None:
    """A file's time code, counted in frames."""
    try:
        text = read_header(file).timecode
    except RotomemError:
        return None
    parts = timecode.parse(text) if text else None
    if parts is None:
        return None
    h, m, s, f, drop = parts
    if drop:
        return None
    return ((h * 60 + m) * 60 + s) * round(Fraction(rate)) + f


class _Plates:
    """Where the media of an edit are."""

    def __init__(self, folder: Path, root: Path | None) -> None:
        self._folder, self._root = folder, root
        self._known: dict[str, Footage] = {}
        self._under: dict[str, list[str]] | None = None

    def of(self, otio: Any, clip: Any) -> tuple[Footage, Any]:
        """What a clip shows, and the edit's own word of it, None where it has none."""
        media = clip.media_reference
        spelling = self._spelling(otio, media)
        if spelling is not None:
            try:
                return self._look(spelling), media
            except MissingFrameError:  # elsewhere, perhaps
                if self._root is None:
                    raise MissingFrameError(f"no files at {spelling}") from None
        elif self._root is None:
            raise MissingFrameError("the edit does not say where its media are")
        wanted = [os.path.basename(spelling)] if spelling is not None else [clip.name, _reel(clip)]
        found = sorted({path for name in wanted if name for path in self._search(name)})
        if len(found) != 1:
            told = " or ".join(repr(name) for name in wanted if name)
            why = f"{len(found)} plates are called so: {', '.join(found[:4])}" if found else "nothing is called so"
            raise MissingFrameError(f"{told}: {why} under {self._root}")
        return self._look(found[0]), media

    def _look(self, spelling: str) -> Footage:
        if spelling not in self._known:
            self._known[spelling] = footage(spelling)
        return self._known[spelling]

    def _spelling(self, otio: Any, media: Any) -> str | None:
        if isinstance(media, otio.schema.ImageSequenceReference):
            number = f"%0{max(media.frame_zero_padding, 1)}d"
            base = self._path(media.target_url_base)
            return os.path.join(base, unquote(media.name_prefix) + number + unquote(media.name_suffix))
        if isinstance(media, otio.schema.ExternalReference) and media.target_url:
            path = self._path(media.target_url)
            if _RANGE.search(path):
                return _RANGE.sub(lambda found: "#" * len(found[1]), path)
            return self._sequence(path, media)
        return None

    def _sequence(self, path: str, media: Any) -> str:
        """One numbered still with a range of many frames stands for its sequence."""
        folder, name = os.path.split(path)
        number = re.fullmatch(r"(.*?)(\d+)(\.\w+)", name)
        many = media.available_range is None or media.available_range.duration.value > 1
        if number is None or not many or number[3].lower() in MOVIE_SUFFIXES:
            return path
        return os.path.join(folder, f"{number[1]}%0{len(number[2])}d{number[3]}")

    def _path(self, url: str) -> str:
        parts = urlsplit(url)
        path = unquote(parts.path) if parts.scheme == "file" else url
        if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
            path = f"//{parts.netloc}{path}"
        if os.name == "nt" and re.match(r"/[A-Za-z]:", path):
            path = path[1:]
        return str(self._folder / path)

    def _search(self, name: str) -> Sequence[str]:
        """Plates under the root by the name of their file, or of it without number and extension."""
        if self._under is None:
            self._under = {}
            for folder, folders, names in os.walk(self._root or "."):
                folders[:] = sorted(f for f in folders if not f.startswith("."))
                for path in sorted({_pattern(folder, n) for n in names if not n.startswith(".")}):
                    base = os.path.basename(path)
                    for key in {base, _stem(base), *([os.path.basename(folder)] if _stem(base) != base else [])}:
                        self._under.setdefault(key.lower(), []).append(path)
        return self._under.get(name.lower()) or self._under.get(_stem(name).lower(), [])


def _pattern(folder: str, name: str) -> str:
    number = re.fullmatch(r"(.*?)(\d+)(\.\w+)", name)
    numbered = number is not None and number[3].lower() not in MOVIE_SUFFIXES
    return os.path.join(folder, f"{number[1]}%0{len(number[2])}d{number[3]}" if numbered and number else name)


def _stem(name: str) -> str:
    return re.sub(r"[._-]?(%0\d+d|#+)?(\.\w{2,5})?$", "", name)


def _reel(clip: Any) -> str:
    told = clip.metadata.get("cmx_3600") or {}
    return str(told.get("reel") or "")


def _named_apart(cuts: Sequence[Cut]) -> list[Cut]:
    taken: set[str] = set()
    apart = []
    for cut in cuts:
        name, number = cut.name, 1
        while name.lower() in taken:
            number += 1
            name = f"{cut.name}_{number}"
        taken.add(name.lower())
        apart.append(replace(cut, name=name))
    return apart
