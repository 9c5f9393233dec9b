"""`rotomem.toml`: what an artist decides about a shot, as text that people and programs edit alike.

    plate = "plates/sh010.%04d.exr"     # paths are relative to this file
    output = "mattes"
    frozen = "1020-1040"                # mattes that stay as they are, whatever changes
    cache = ".rotomem"                  # what is computed; may be deleted at any time

    [settings]                          # fields of TrackOptions; full, all, keys, none as texts
    size = 720

    [[object]]
    id = 1                              # a number that no other object of the shot ever had
    name = "hero"
    group = "actors"                    # objects of one group are tracked together and compete; without: on its own
    colour = "#e6194b"                  # for overlays
    absent = "1060-1070"
    deliver = false                     # tracked, as a competitor of its group, but not written
    [object.keys]                       # FRAME = "PATH[:CHANNEL]", as --mask takes them
    1001 = "roto/hero.1001.exr"

    [[object]]                          # a merged object: the sum of others, which are no longer written themselves
    id = 3
    name = "crowd"
    parts = [4, 5]

This module turns text into checked values. Editing keeps comments and order, and is in edits.py.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import ParseError, TOMLKitError

from rotomem.engine.options import TrackOptions
from rotomem.errors import InputError, MissingFrameError, ProjectError, UsageError
from rotomem.io.masks import MaskSpec, split_channel
from rotomem.io.sequence import compact_frames, parse_frames
from rotomem.types import ObjectId

FILE_NAME = "rotomem.toml"
CACHE_NAME = ".rotomem"

_TOP = ("plate", "output", "cache", "frozen", "last_id", "settings", "object")
_OBJECT = ("id", "name", "group", "colour", "absent", "deliver", "keys", "parts")
_NOT_SETTINGS = {
    "resume": "leave it out: a project redoes exactly what is not current",
    "overwrite": "leave it out; whoever wants everything anew deletes the cache and the mattes",
    "absent": 'say it of the object: absent = "1020-1030"',
}
FILES = ("model", "ocio_config")
"""Settings that are a name or a file, which is then relative to the project."""

WORDS = {"size": "full", "mem_every": "keys", "top_k": "all", "memory_gib": "none"}
"""What stands for None, which TOML lacks; as on the command line."""


@dataclass(frozen=True)
class ShotObject:
    """One object of a shot.

    keys      frame -> "PATH[:CHANNEL]" as the file has it; none where the object has parts
    group     objects with the same text are tracked together; None: on its own
    absent    frames on which the artist says it is not there
    deliver   False: tracked for the others of its group, but not written
    parts     ids of the objects whose sum it is
    """

    id: ObjectId
    name: str
    keys: Mapping[int, str] = field(default_factory=dict)
    group: str | None = None
    colour: str | None = None
    absent: tuple[int, ...] = ()
    deliver: bool = True
    parts: tuple[ObjectId, ...] = ()


@dataclass(frozen=True)
class ProjectFile:
    """A checked `rotomem.toml`.

    path       the file, absolute
    plate, output, cache   absolute
    frozen     frames whose mattes stay as they are
    settings   fields of TrackOptions, as the file has them
    last_id    the largest id ever given, where its object is gone; 0: nothing was removed
    """

    path: Path
    plate: str
    output: str
    cache: Path
    objects: tuple[ShotObject, ...]
    frozen: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    last_id: int = 0

    @property
    def folder(self) -> Path:
        return self.path.parent

    def object(self, name: str) -> ShotObject:
        """The object called that. Raises UsageError listing the names there are."""
        for found in self.objects:
            if found.name == name:
                return found
        names = ", ".join(o.name for o in self.objects) or "none yet"
        raise UsageError(f"there is no object '{name}'", remedy=f"the objects are: {names}", path=self.path)

    def owner(self, part: ObjectId) -> ShotObject | None:
        """The merged object that a part belongs to."""
        return next((o for o in self.objects if part in o.parts), None)

    @property
    def tracked(self) -> tuple[ShotObject, ...]:
        """Objects that have keys of their own."""
        return tuple(o for o in self.objects if not o.parts)

    @property
    def delivered(self) -> dict[ObjectId, tuple[str, tuple[ObjectId, ...]]]:
        """Id -> name and the tracked objects it is the sum of, for what is written."""
        parts = {p for o in self.objects for p in o.parts}
        return {o.id: (o.name, o.parts or (o.id,)) for o in self.objects if o.deliver and o.id not in parts}

    @property
    def groups(self) -> dict[ObjectId, str]:
        """Tracked id -> its group; of an object on its own one that no text equals."""
        return {o.id: o.group or f"\0{o.id}" for o in self.tracked}

    @property
    def next_id(self) -> ObjectId:
        return max([self.last_id, *(o.id for o in self.objects)]) + 1

    def masks(self) -> list[MaskSpec]:
        """Every key, as `load_keys` takes them."""
        specs = []
        for o in self.tracked:
            for frame, text in o.keys.items():
                path, channel = split_channel(_joined(self.folder, text))
                specs.append(MaskSpec(frame, path, o.name, channel))
        return specs

    def options(self, **others: Any) -> TrackOptions:
        """The settings, `others` over them, as `track` takes them. Raises UsageError naming the setting."""
        given = {k: None if WORDS.get(k) == v else v for k, v in self.settings.items()}
        for name in FILES:
            if isinstance(value := given.get(name), str) and (self.folder / value).exists():
                given[name] = str(self.folder / value)
        return TrackOptions(**{**given, **others})


def find_project(where: str | Path | None = None) -> Path:
    """The project file: `where` itself, the one in that folder, or in the nearest folder above the present one.

    Raises MissingFrameError saying how to make one.
    """
    start = Path(where).expanduser() if where is not None else Path.cwd()
    start = start.absolute()
    candidates = [start] if start.is_file() else [start / FILE_NAME]
    if where is None:
        candidates += [folder / FILE_NAME for folder in start.parents]
    for path in candidates:
        if path.is_file():
            return path
    raise MissingFrameError(
        f"there is no {FILE_NAME} here" + ("" if where is not None else " nor above"),
        remedy="make one with `rotomem new PLATE --mask FRAME=PATH -o OUT`, or name its folder",
        path=start,
    )


def read_project(path: Path) -> tuple[ProjectFile, tomlkit.TOMLDocument]:
    """The checked file and its text, open for editing. Raises ProjectError naming the key and its line."""
    try:
        text = decoded(path.read_bytes())
    except UnicodeDecodeError as error:
        raise ProjectError("the project is not UTF-8 text", remedy="save it as UTF-8", path=path) from error
    except OSError as error:
        raise MissingFrameError(f"the project cannot be read: {error.strerror}", path=path) from error
    return parse_project(text, path)


def decoded(data: bytes, errors: str = "strict") -> str:
    """A project's bytes as text, without the mark that some editors put in front. Raises UnicodeDecodeError."""
    return data.decode("utf-8", errors).removeprefix("\ufeff")


def parse_project(text: str, path: Path) -> tuple[ProjectFile, tomlkit.TOMLDocument]:
    """As `read_project`, of text that would stand in `path`."""
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        line = error.line if isinstance(error, ParseError) else None
        what = re.sub(r" at line \d+ col \d+$", "", str(error))
        raise ProjectError(f"the project is no TOML: {what}", remedy="correct it", path=path, line=line) from error
    return _Reader(document.unwrap(), text, path.absolute()).read(), document


class _Reader:
    """Plain values of a document to a ProjectFile; knows where each stands, for errors."""

    def __init__(self, values: dict[str, Any], text: str, path: Path) -> None:
        self._values, self._lines, self._path = values, text.splitlines(), path

    def read(self) -> ProjectFile:
        values = self._values
        self._known(values, _TOP, None)
        settings = self._of(dict, values, "settings", None, {})
        known = tuple(f.name for f in fields(TrackOptions) if f.name not in _NOT_SETTINGS)
        self._known(settings, known, "[settings]")
        objects = self._of(list, values, "object", None, [])
        folder = self._path.parent
        file = ProjectFile(
            path=self._path,
            plate=_joined(folder, self._text(values, "plate", None)),
            output=_joined(folder, self._text(values, "output", None)),
            cache=Path(_joined(folder, self._of(str, values, "cache", None, CACHE_NAME))),
            objects=tuple(self._object(i, o) for i, o in enumerate(objects)),
            frozen=self._range(values, "frozen", None),
            settings=settings,
            last_id=self._of(int, values, "last_id", None, 0),
        )
        self._check(file)
        if error := _refused(file):
            alone = (name for name, value in settings.items() if _refused(replace(file, settings={name: value})))
            said = next(alone, "")
            remedy = str(error.remedy).replace("None", f'"{WORDS.get(said)}"')
            raise self._error(error.what, remedy, "[settings]", said)
        return file

    def _object(self, index: int, values: Any) -> ShotObject:
        if not isinstance(values, dict):
            raise self._error("object is no table", "write it as [[object]], see `rotomem new`", None, "object")
        self._known(values, _OBJECT, index)
        keys = self._of(dict, values, "keys", index, {})
        for frame, where in keys.items():
            if not re.fullmatch(r"[+-]?\d+", frame):
                raise self._error(f"'{frame}' is no frame", 'write keys as 1001 = "PATH"', index, frame)
            if not isinstance(where, str) or not where.strip():
                raise self._error(f"the key of {frame} is {where!r}", "give the path of its mask", index, frame)
        if len({int(f) for f in keys}) < len(keys):
            raise self._error("two keys stand on one frame", "leave one out", index, "keys")
        parts = self._of(list, values, "parts", index, [])
        if bool(parts) == bool(keys):
            what = "has keys and parts" if keys else "has no key"
            raise self._error(what, "an object has keys of its own, or is the sum of its parts", index, "keys")
        if any(type(p) is not int for p in parts) or len(set(parts)) < len(parts):
            raise self._error("parts are ids, each once", "write parts = [1, 2]", index, "parts")
        colour = self._of(str, values, "colour", index, None)
        if colour is not None and not is_colour(colour):
            raise self._error(f"the colour is '{colour}'", 'write it as "#rrggbb"', index, "colour")
        return ShotObject(
            id=self._number(values, index),
            name=self._name(values, index),
            keys={int(f): keys[f] for f in sorted(keys, key=int)},
            group=self._of(str, values, "group", index, None) or None,
            colour=colour,
            absent=self._range(values, "absent", index),
            deliver=self._of(bool, values, "deliver", index, True),
            parts=tuple(parts),
        )

    def _number(self, values: dict[str, Any], index: int) -> int:
        number: int | None = self._of(int, values, "id", index, None)
        if number is None or number < 1:
            taken = [o.get("id") for o in self._values["object"] if isinstance(o, dict)]
            free = max([0, *(n for n in taken if type(n) is int)]) + 1
            what = "has no id" if number is None else f"has the id {number}"
            raise self._error(what, f"give a number from 1 that no object ever had, such as {free}", index, "id")
        return number

    def _name(self, values: dict[str, Any], index: int) -> str:
        name = self._text(values, "name", index)
        if name != name.strip() or not name.isprintable():
            raise self._error(
                f"the name is {name!r}", "no spaces at its ends, nothing that does not print", index, "name"
            )
        return name

    def _check(self, file: ProjectFile) -> None:
        """What only all objects together can get wrong."""
        by_id: dict[int, int] = {}
        by_name: dict[str, int] = {}
        for index, o in enumerate(file.objects):
            if o.id in by_id:
                remedy = f"the next free one is {file.next_id}"
                raise self._error(
                    f"id {o.id} is that of {file.objects[by_id[o.id]].name} already", remedy, index, "id"
                )
            if o.name in by_name:
                raise self._error(f"two objects are called '{o.name}'", "give one another name", index, "name")
            by_id[o.id], by_name[o.name] = index, index
        whole: dict[int, str] = {}
        for index, o in enumerate(file.objects):
            for part in o.parts:
                if part not in by_id or file.objects[by_id[part]].parts:
                    remedy = "parts are ids of objects that have keys"
                    raise self._error(f"there is no part {part}", remedy, index, "parts")
                if part in whole:
                    remedy = "an object is part of one other at most"
                    raise self._error(f"{part} is part of {whole[part]} already", remedy, index, "parts")
                whole[part] = o.name
            if o.parts and (o.group or o.absent):
                raise self._error("has parts, and a group or an absence", "say it of its parts", index, "parts")

    def _known(self, values: Mapping[str, Any], known: tuple[str, ...], where: int | str | None) -> None:
        for name in values:
            if where == "[settings]" and name in _NOT_SETTINGS:
                raise self._error(f"'{name}' is no setting of a project", _NOT_SETTINGS[name], where, name)
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                remedy = f"is it {near[0]}?" if near else f"known are {', '.join(known)}"
                raise self._error(f"'{name}' is not known here", remedy, where, name)

    def _text(self, values: Mapping[str, Any], name: str, where: int | str | None) -> str:
        value: str | None = self._of(str, values, name, where, None)
        if value is None or not value.strip():
            raise self._error(f"{name} is missing", f'write {name} = "..."', where, name)
        return value

    def _range(self, values: Mapping[str, Any], name: str, where: int | str | None) -> tuple[int, ...]:
        text = self._of(str, values, name, where, "")
        if not text:
            return ()
        try:
            return parse_frames(text)
        except UsageError as error:
            raise self._error(f"{name}: {error.what}", str(error.remedy), where, name) from None

    def _of(self, kind: type, values: Mapping[str, Any], name: str, where: int | str | None, untold: Any) -> Any:
        value = values.get(name, untold)
        if name in values and type(value) is not kind:
            kinds = {str: "a text", int: "a whole number", bool: "true or false", dict: "a table", list: "a list"}
            raise self._error(f"{name} is {value!r}", f"give {kinds[kind]}", where, name)
        return value

    def _error(self, what: str, remedy: str, where: int | str | None, name: str) -> ProjectError:
        said = where
        if isinstance(where, int):
            called = self._values["object"][where]
            called = called.get("name") if isinstance(called, dict) else None
            printable = isinstance(called, str) and called.isprintable()
            said = f"object '{called}'" if printable else f"object {where + 1}"
        text = f"{said}: {what}" if said else what
        return ProjectError(text, remedy=remedy, path=self._path, line=self._line(where, name))

    def _line(self, where: int | str | None, name: str) -> int | None:
        """The line of `name`, or of the table it should be in."""
        table, seen, fallback = None, -1, None
        for number, line in enumerate(self._lines, 1):
            header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
            if header:
                table = header[1]
                seen += line.lstrip().startswith("[[")
            inside = (
                table is None
                if where is None
                else (table == "settings" if isinstance(where, str) else seen == where and table != "settings")
            )
            if inside and (header or fallback is None):
                fallback = fallback or number
            if inside and name and re.match(rf"""\s*(?:\S+\.)?["']?{re.escape(name)}["']?\s*=""", line):
                return number
        return fallback if where is not None else None


def _refused(file: ProjectFile) -> InputError | None:
    """What is wrong with its settings, as far as they alone can tell."""
    try:
        options = file.options()
        options.mattes()
        if options.frames is not None:
            parse_frames(options.frames)
    except InputError as error:
        return error
    return None


def is_colour(text: str) -> bool:
    return re.fullmatch(r"#[0-9a-fA-F]{6}", text) is not None


def range_text(frames: tuple[int, ...]) -> str:
    """Frames as the file has them; "" for none."""
    return compact_frames(frames) if frames else ""


def _joined(folder: Path, text: str) -> str:
    """`text` below `folder`; a slash at its end, which says that it is a folder, is kept."""
    joined = os.path.normpath(folder / Path(text).expanduser())
    return joined + "/" if text.endswith("/") else joined
