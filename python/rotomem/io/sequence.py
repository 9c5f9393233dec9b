"""Frame paths: every usual spelling of a sequence, frame ranges, and what to do about frames that are not there.

Spellings of the file name (folders are taken as they are):

    shot.%04d.exr   shot.####.exr   shot.@@@@.exr   shot.$F4.exr     four digits
    shot.%d.exr     shot.#.exr      shot.@.exr      shot.$F.exr      however many digits the files have
    shot.1001-1100#.exr, shot.1001-1100####.exr, shot.####.exr 1001-1100   the range with the name
    shot.1001.exr   one file: that one frame, or a movie
    plates/sh010    a folder that holds exactly one sequence

One `#` is one digit, as Nuke and Deadline count them, so `####` is four; a lone `#` also finds padded files, since
some hosts write four digits that way. Padding is the least width: `####` finds 10000 as well. Negative frames may be
written `-003` (printf's %04d) or `-0003`. `<UDIM>` is a texture tile, not time, and refused.

Ranges are Fileseq's: `1001-1100x2,1120`, `-5-5`; they come out ascending, each frame once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from fileseq.exceptions import FileSeqException, MaxSizeException
from fileseq.frameset import FrameSet

from rotomem.errors import MissingFrameError, PlateError, UsageError
from rotomem.io.exr import STILL_SUFFIXES

MISSING_POLICIES = ("error", "skip", "hold", "black")
MAX_FRAMES = 1_000_000

MOVIE_SUFFIXES = frozenset(
    ".mov .qt .mp4 .m4v .mxf .mkv .avi .webm .mpg .mpeg .m2v .ts .mts .m2ts .wmv .flv .ogv .y4m .gif .3gp "  # noqa: SIM905
    ".nut .h264 .264 .hevc .265 .ivf".split()
)

_RANGE = r"-?\d+(?:-(?:-?\d+))?(?:[xy:]\d+)?"
_TOKEN = re.compile(
    r"(?:(?P<range>(?:(?<=[._ ])|^)" + _RANGE + r"(?:," + _RANGE + r")*)(?=[#@%$]))?"
    r"(?P<token>%\(UDIM\)d|<UDIM>|<uvtile>|%0?\d*d|\$\{?F\d*\}?|\#+|@+)",
    re.IGNORECASE,
)
_TRAILING_RANGE = re.compile(r"^(?P<path>.*\S)\s+(?P<range>" + _RANGE + r"(?:," + _RANGE + r")*)$", re.DOTALL)
_NUMBER = re.compile(r"^(?P<prefix>.*?)(?P<number>(?:(?:(?<=[._ ])|^)-)?\d+)$", re.DOTALL)


@dataclass(frozen=True)
class FrameFiles:
    """Where the frames of a plate are.

    files      frame number -> file, for every file of the sequence that is on disk
    asked      frames wanted, ascending, on disk or not
    padding    digits of a frame number; 1 where unpadded
    stem       base name without number and extension
    single     one file was given (a still or a movie)
    """

    spelling: str
    files: Mapping[int, Path]
    asked: tuple[int, ...]
    padding: int
    stem: str
    single: bool = False
    movie: bool = False
    notes: tuple[str, ...] = ()

    @property
    def present(self) -> tuple[int, ...]:
        """Frames asked for that are on disk, ascending."""
        return tuple(f for f in self.asked if f in self.files)

    @property
    def missing(self) -> tuple[int, ...]:
        """Frames asked for that are not on disk, ascending."""
        return tuple(f for f in self.asked if f not in self.files)


def parse_frames(text: str) -> tuple[int, ...]:
    """Frame numbers of a range such as `1001-1100x2,1120` or `-5-5`: ascending, each once.

    Raises UsageError where the text is no range, is empty, or names more than `MAX_FRAMES` frames.
    """
    remedy = "write it as 1001-1100, 1001-1100x2 or 1001,1005-1010"
    cleaned = re.sub(r"\s*([,x:-])\s*", r"\1", text.strip())
    if not cleaned or re.search(r"\s", cleaned) or not re.search(r"\d", cleaned):
        raise UsageError(f"'{text}' is not a frame range", remedy=remedy)
    numbers = [int(n) for n in re.findall(r"\d+", cleaned)]
    if max(numbers) > 99_999_999:
        raise UsageError(f"'{text}' has frame numbers of more than eight digits", remedy=remedy)
    try:
        frames = FrameSet(cleaned)
        if len(frames) > MAX_FRAMES:
            raise UsageError(f"'{text}' names {len(frames)} frames, at most {MAX_FRAMES} are taken", remedy=remedy)
        found = tuple(sorted({int(f) for f in frames}))
    except MaxSizeException:
        raise UsageError(f"'{text}' names more than {MAX_FRAMES} frames", remedy=remedy) from None
    except (FileSeqException, ValueError, TypeError, ZeroDivisionError):
        raise UsageError(f"'{text}' is not a frame range", remedy=remedy) from None
    if not found:
        raise UsageError(f"'{text}' names no frame", remedy=remedy)
    return found


def compact_frames(frames: Iterable[int]) -> str:
    """Frame numbers as the shortest range text: `1001-1003,1006`; 'none' where there are none."""
    ordered = sorted(set(frames))
    if not ordered:
        return "none"
    return str(FrameSet.framesToFrameRange(ordered, sort=False, compress=False))


def plan_frames(files: FrameFiles, policy: str) -> dict[int, int | None]:
    """Which frames to deliver, ascending, and the frame on disk that each is read from (None: black).

    policy   "error" (any missing frame stops), "skip" (deliver what is there), "hold" (repeat the frame before, or
             the first one where none is before), "black"
    Raises UsageError for another policy, MissingFrameError listing what is missing.
    """
    if policy not in MISSING_POLICIES:
        raise UsageError(
            f"there is no policy '{policy}' for missing frames", remedy=f"use {', '.join(MISSING_POLICIES)}"
        )
    present, missing = files.present, files.missing
    if not present:
        raise MissingFrameError(
            f"none of the frames {compact_frames(files.asked)} is on disk",
            path=files.spelling,
            remedy=f"the files there are frames {compact_frames(files.files)}",
        )
    if missing and policy == "error":
        few = len(missing) == 1
        raise MissingFrameError(
            f"no file for frame{'' if few else 's'} {compact_frames(missing)} of {files.asked[0]}-{files.asked[-1]}",
            path=files.spelling,
            frame=missing[0] if few else None,
            remedy="use --missing hold, black or skip, or narrow the range with --frames",
        )
    if policy in ("error", "skip"):
        return {f: f for f in present}
    plan: dict[int, int | None] = {}
    last = present[0]
    for f in files.asked:
        if f in files.files:
            last = f
            plan[f] = f
        else:
            plan[f] = last if policy == "hold" else None
    return plan


def find_frames(spelling: str | Path, frames: str | None = None) -> FrameFiles:
    """Find the files that a spelling means.

    frames   a range that narrows (or widens) it; None: the range in the spelling, else first to last on disk
    Raises MissingFrameError where nothing is there, PlateError where it could mean several things, UsageError for a
    range that is none.
    """
    text = os.fspath(spelling)
    if not text.strip() or "\0" in text:
        raise PlateError("the plate has no name", path=repr(text), remedy="give a file, a folder or a sequence")
    asked = parse_frames(frames) if frames is not None else None
    path = Path(text).expanduser()
    if path.is_dir():
        return _in_folder(text, path, asked)
    if not path.exists():
        trailing = _TRAILING_RANGE.match(text)
        if trailing and _TOKEN.search(Path(trailing["path"]).name):
            asked = asked or parse_frames(trailing["range"])
            path = Path(trailing["path"]).expanduser()
        tokens = list(_TOKEN.finditer(path.name))
        if tokens:
            return _of_pattern(text, path, tokens, asked)
        if path.parent.is_dir():
            raise MissingFrameError("no such file", path=text, remedy=_what_is_there(path.parent))
        raise MissingFrameError("no such file or folder", path=text, remedy="check the spelling of the path")
    return _one_file(text, path, asked)


def _of_pattern(text: str, path: Path, tokens: list[re.Match[str]], asked: tuple[int, ...] | None) -> FrameFiles:
    if any("UDIM" in t["token"].upper() or "UVTILE" in t["token"].upper() for t in tokens):
        raise PlateError(
            "UDIM names the tiles of a texture, not the frames of a plate", path=text, remedy="use #### or %04d"
        )
    if len(tokens) > 1:
        raise PlateError(
            f"the name has {len(tokens)} places for a frame number", path=text, remedy="leave one of them"
        )
    token = tokens[0]
    prefix, suffix = path.name[: token.start()], path.name[token.end() :]
    width = _width(token["token"])
    span = token["range"]
    if span and not re.search(r"\d-|,", span) and token["token"] not in ("#", "@"):
        prefix += span  # "v.2####.exr": digits of the name, not a range
        span = None
    if asked is None and span:
        asked = parse_frames(span)
    folder = path.parent
    if not folder.is_dir():
        raise MissingFrameError("no such folder", path=folder, remedy="check the spelling of the path")
    shape = re.compile(re.escape(prefix) + r"(-?\d+)" + re.escape(suffix), re.DOTALL)
    numbers: dict[int, list[str]] = {}
    for name in _names(folder):
        m = shape.fullmatch(name)
        if m and _fits(m[1], width):
            numbers.setdefault(int(m[1]), []).append(name)
    if not numbers:
        raise MissingFrameError("no file on disk has that name", path=text, remedy=_what_is_there(folder))
    return _build(text, folder, numbers, prefix, suffix, width, asked)


def _one_file(text: str, path: Path, asked: tuple[int, ...] | None) -> FrameFiles:
    """One file by its own name: a movie, or a still that is its own frame number."""
    stem, number, _, digits = _split(path.name)
    if path.suffix.lower() in MOVIE_SUFFIXES:
        return FrameFiles(text, {1: path}, asked or (), 4, path.stem, single=True, movie=True)
    if number is None:
        number, stem, digits = 1, path.stem, 4
        note: tuple[str, ...] = ()
    else:
        note = (f"{path.name} is read as the one frame {number}; spell it with #### to read its sequence",)
    if asked is not None and any(f != number for f in asked):
        raise PlateError(
            f"one file was given, frame {number}, but frames {compact_frames(asked)} are wanted",
            path=text,
            remedy="spell the sequence with #### or %04d instead of a number",
        )
    return FrameFiles(text, {number: path}, (number,), digits, _tidy(stem, path), single=True, notes=note)


def _in_folder(text: str, folder: Path, asked: tuple[int, ...] | None) -> FrameFiles:
    groups, movies = _groups(folder)
    if not groups and not movies:
        raise MissingFrameError(
            "the folder holds no picture or movie", path=text, remedy="give the folder that holds the frames"
        )
    groups, movies, mattes = _without_mattes(folder, groups, movies)
    sequences = {k: v for k, v in groups.items() if len(v) > 1}
    others: list[str] = []
    if len(sequences) == 1:
        others = [names[0] for k, v in groups.items() if k not in sequences for names in v.values()] + movies
        groups = sequences
    elif len(sequences) + len(movies) > 1 or len(groups) + len(movies) > 1:
        raise PlateError(
            f"the folder holds {len(groups) + len(movies)} plates", path=text, remedy=_what_is_there(folder)
        )
    if not groups:
        found = _one_file(text, folder / movies[0], asked)
        return FrameFiles(text, found.files, found.asked, found.padding, found.stem, True, True, mattes)
    (prefix, suffix), numbers = next(iter(groups.items()))
    if len(numbers) == 1 and not re.search(r"(^|[._ -])$", prefix):
        found = _one_file(text, folder / next(iter(numbers.values()))[0], asked)
        return replace(found, notes=(*found.notes, *mattes))
    notes = mattes
    if others:
        notes = (*mattes, f"the folder also holds {', '.join(sorted(others)[:5])}, left out")
    return _build(text, folder, numbers, prefix, suffix, None, asked, notes)


def _build(
    text: str,
    folder: Path,
    numbers: Mapping[int, list[str]],
    prefix: str,
    suffix: str,
    width: int | None,
    asked: tuple[int, ...] | None,
    notes: tuple[str, ...] = (),
) -> FrameFiles:
    twice = {n: names for n, names in numbers.items() if len(names) > 1}
    wanted = None if asked is None else set(asked)
    for n in sorted(twice):
        if wanted is None or n in wanted:
            raise PlateError(
                f"frame {n} is there more than once, as {' and '.join(sorted(twice[n]))}",
                path=text,
                remedy="remove one, or spell the padding out, for example with ####",
            )
    files = {n: folder / numbers[n][0] for n in sorted(numbers)}
    first, last = min(files), max(files)
    if asked is None:
        if last - first >= MAX_FRAMES:
            raise PlateError(
                f"the files run from frame {first} to {last}, more than a shot has",
                path=text,
                remedy="name the range with --frames",
            )
        asked = tuple(range(first, last + 1))
    if width is None:
        width = _padding(names[0][len(prefix) : len(names[0]) - len(suffix)] for names in numbers.values())
    return FrameFiles(text, files, asked, width, _tidy(prefix, folder / "x"), notes=notes)


def _width(token: str) -> int | None:
    """Digits a token asks for; None where it takes any."""
    if token[0] in "#@":
        return len(token) if len(token) > 1 else None
    digits = re.sub(r"\D", "", token)
    return int(digits) if digits and int(digits) > 1 else None


def _fits(number: str, width: int | None) -> bool:
    """Whether a number as written on disk belongs to a padding: exactly so wide, or wider without leading zeros."""
    if width is None:
        return True
    digits = number.lstrip("-")
    if len(digits) == width or len(number) == width:
        return True
    return len(digits) > width and digits[0] != "0"


def _padding(numbers: Iterable[str]) -> int:
    """Padding of numbers as written, signs not counted: the width of those that start with zero, else the least.

    Beside "0000", "-003" is printf's %04d and "-0003" Nuke's: the positive ones are asked first.
    """
    ordered = sorted(numbers, key=lambda n: n.startswith("-"))
    digits = [n.lstrip("-") for n in ordered]
    return next((len(d) for d in digits if len(d) > 1 and d[0] == "0"), min(len(d) for d in digits))


def _split(name: str) -> tuple[str, int | None, str, int]:
    """Prefix, frame number or None, suffix and digits of one file name; only a number set apart is a frame."""
    base, suffix = os.path.splitext(name)
    m = _NUMBER.match(base)
    if m is None or not re.search(r"(^|[._ -])$", m["prefix"]) or len(m["number"]) > 9:
        return base, None, suffix, 1
    return m["prefix"], int(m["number"]), suffix, len(m["number"].lstrip("-"))


def _tidy(prefix: str, path: Path) -> str:
    """The base name of a sequence without the separators before its number; the folder's where nothing is left."""
    stem = prefix.rstrip("._- ")
    return stem or path.resolve().parent.name or "plate"


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_file())
    except OSError as e:
        raise PlateError(f"the folder cannot be listed: {e.strerror}", path=folder) from None


def _groups(folder: Path) -> tuple[_Groups, list[str]]:
    """Picture files of a folder by what stands before and after their number, and its movies."""
    groups: _Groups = {}
    movies = []
    for name in _names(folder):
        base, suffix = os.path.splitext(name)
        if name.startswith("."):
            continue
        if suffix.lower() in MOVIE_SUFFIXES:
            movies.append(name)
        elif suffix.lower() in STILL_SUFFIXES:
            m = _NUMBER.match(base)
            key, number = ((m["prefix"], suffix), int(m["number"])) if m else ((base, suffix), 1)
            groups.setdefault(key, {}).setdefault(number, []).append(name)
    return groups, movies


_Groups: TypeAlias = dict[tuple[str, str], dict[int, list[str]]]


def _without_mattes(folder: Path, groups: _Groups, movies: list[str]) -> tuple[_Groups, list[str], tuple[str, ...]]:
    """The plates of a folder where rotomem's mattes lie beside them, and a note about what was left out."""
    if len(groups) + len(movies) < 2:
        return groups, movies, ()
    first = {key: numbers[min(numbers)][0] for key, numbers in groups.items()}
    mattes = {name for name in [*first.values(), *movies] if _is_matte(folder / name)}
    kept = {key: numbers for key, numbers in groups.items() if first[key] not in mattes}
    left = [name for name in movies if name not in mattes]
    if not mattes or not (kept or left):
        return groups, movies, ()
    return kept, left, (f"the folder also holds mattes of rotomem ({', '.join(sorted(mattes)[:5])}), left out",)


def _is_matte(path: Path) -> bool:
    """Whether rotomem wrote a file; its mark stands in the open near the start of stills and the end of movies."""
    mark, span = b"rotomem/settings", 1 << 16
    try:
        with open(path, "rb") as file:
            if mark in file.read(span):
                return True
            file.seek(max(file.seek(0, os.SEEK_END) - span, 0))
            return mark in file.read(span)
    except OSError:
        return False


def _what_is_there(folder: Path, most: int = 6) -> str:
    """The plates of a folder, as a remedy to a spelling that found none."""
    try:
        groups, movies = _groups(folder)
    except PlateError:
        return "check the permissions of the folder"
    found = []
    for (prefix, suffix), numbers in groups.items():
        if len(numbers) > 1:
            width = _padding(names[0][len(prefix) : len(names[0]) - len(suffix)] for names in numbers.values())
            found.append(f"{prefix}{'#' * width}{suffix} {_span(numbers)}")
        else:
            found += [names[0] for names in numbers.values()]
    found += movies
    if not found:
        return "the folder holds no pictures"
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"the folder holds {', '.join(found[:most])}{more}; name one of them"


def _span(numbers: Iterable[int]) -> str:
    text = compact_frames(numbers)
    return text if len(text) <= 40 else f"{text[:37]}..."
