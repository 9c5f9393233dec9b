"""`Project`: a shot's file, opened, edited and saved; comments and order survive."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit
from tomlkit.items import AoT, Table

from rotomem.errors import OutputError, ProjectError, UsageError
from rotomem.io.atomic import whole_file
from rotomem.io.masks import objects_of, parse_masks
from rotomem.io.sequence import parse_frames
from rotomem.project.file import (
    FILE_NAME,
    FILES,
    ProjectFile,
    ShotObject,
    decoded,
    find_project,
    is_colour,
    parse_project,
    range_text,
    read_project,
)
from rotomem.types import ObjectId

if TYPE_CHECKING:
    from rotomem.engine.report import Progress, Report
    from rotomem.engine.shot import Cancel
    from rotomem.project.work import Status

_HEAD = """\
# A rotomem shot. Paths are relative to this file; `rotomem run` does what is not done, `rotomem status` tells.
"""


class Project:
    """A shot project: `rotomem.toml` and its edits.

        project = rotomem.Project.open("shots/sh010")
        project.add_key("hero", 1042, "roto/hero.1042.exr")
        project.save()
        report = project.run()

    file    what it says now: objects, keys, settings; checked, read-only
    Edits are checked at once and raise ProjectError or UsageError, leaving everything as it was. Nothing is written
    before `save`, which refuses where somebody else changed the file meanwhile.
    """

    def __init__(self, path: Path, text: str, *, saved: bool) -> None:
        """`open` and `create` are for use; `saved` says whether `text` is what the file holds."""
        self._read = text if saved else None
        self._take(text, path)

    @classmethod
    def open(cls, where: str | Path | None = None) -> Project:
        """The project in a file or folder; None: in this folder or the nearest one above.

        Raises MissingFrameError where there is none, ProjectError naming the key and line of what is wrong.
        """
        path = find_project(where)
        document = read_project(path)[1]
        return cls(path, document.as_string(), saved=True)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        plate: str | Path,
        masks: Sequence[str],
        out: str | Path,
        *,
        settings: Mapping[str, Any] | None = None,
    ) -> Project:
        """A new project, not yet saved.

        masks      as `track` takes them. Objects that a picture of labels shows get a key each; all objects begin in
                   one group, as `track` has it. None: a project whose objects come later
        settings   fields of TrackOptions that are not to have their default
        Raises OutputError where the folder has a project, PlateError and MaskError for what cannot be read.
        """
        path = Path(folder).expanduser().absolute() / FILE_NAME
        if path.exists():
            raise OutputError(
                "there is a project here", remedy="edit it with `rotomem key` and `object`, or remove it", path=path
            )
        document = tomlkit.parse(_HEAD)
        document["plate"] = _relative(plate, path.parent)
        document["output"] = _relative(out, path.parent)
        if settings:
            files = {k: _relative(v, path.parent) for k, v in settings.items() if k in FILES and os.path.isfile(v)}
            document.append("settings", tomlkit.item({**settings, **files}))
        found = _keys_by_object(parse_project(document.as_string(), path)[0], masks)
        objects = tomlkit.aot()
        for number, (name, keys) in enumerate(found.items(), 1):
            objects.append(_object_table(number, name, keys, path.parent, group="shot" if len(found) > 1 else None))
        if found:
            document.append("object", objects)
        return cls(path, _tidied(document.as_string()), saved=False)

    def run(
        self,
        *,
        dry_run: bool = False,
        progress: Callable[[Progress], None] | None = None,
        cancel: Cancel | None = None,
        **options: Any,
    ) -> Report:
        """Do what is not done: segments whose inputs changed, mattes that are not current; nothing else.

        Arguments and errors are those of `rotomem.track`; `options` stand over the project's settings. Raises
        ProjectError where another run works on the project.
        """
        from rotomem.project.work import at_work, shot_of

        with (shot_of if dry_run else at_work)(self.file, **options) as shot:
            return shot.dry_run() if dry_run else shot.run(progress=progress, cancel=cancel)

    def status(self) -> Status:
        """What is done, what is not and why; nothing is written."""
        from rotomem.project.work import look

        return look(self.file)

    def prune(self, keep_bytes: int = 0) -> tuple[int, int]:
        """Drop results from the cache that nothing asks for any longer, until those left fill `keep_bytes` at most.

        Returns how many files and bytes went. An edit that is taken back finds its results again until then.
        """
        from rotomem.project.work import prune

        return prune(self.file, keep_bytes)

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def text(self) -> str:
        """What `save` would write."""
        return self._text

    def save(self) -> None:
        """Write the file, whole or not at all. Raises ProjectError where it changed since it was opened."""
        try:
            there: str | None = decoded(self.path.read_bytes(), "replace")
        except FileNotFoundError:
            there = None
        if there != self._read:
            raise ProjectError(
                "the project was changed by someone else meanwhile", remedy="do it again", path=self.path
            )
        with whole_file(self.path, what="project") as part:
            part.write_bytes(self._text.encode())
        self._read = self._text

    def _take(self, text: str, path: Path) -> None:
        self.file: ProjectFile = parse_project(text, path)[0]
        self._text = text

    @contextlib.contextmanager
    def _editing(self) -> Iterator[tomlkit.TOMLDocument]:
        document = tomlkit.parse(self._text)
        yield document
        self._take(_tidied(document.as_string()), self.path)

    def _table(self, document: tomlkit.TOMLDocument, of: ShotObject) -> Table:
        tables: AoT = document["object"]  # type: ignore[assignment]
        return tables[self.file.objects.index(of)]

    # Keys -----------------------------------------------------------------------------------------

    def add_key(self, name: str, frame: int, path: str | Path) -> None:
        """Give an object a key, `PATH[:CHANNEL]`; one that stands on that frame is replaced."""
        found = self._with_keys(name)
        with self._editing() as document:
            keys = self._table(document, found)["keys"]
            _replace(keys, frame, _relative(path, self.file.folder))

    def remove_key(self, name: str, frame: int) -> None:
        """Take a key away. Raises UsageError where there is none, or no other."""
        found = self._with_keys(name)
        if frame not in found.keys:
            said = ", ".join(map(str, found.keys))
            raise UsageError(f"'{name}' has no key on {frame}", remedy=f"it has keys on {said}", path=self.path)
        if len(found.keys) == 1:
            raise UsageError(
                f"{frame} is the only key of '{name}'", remedy="remove the object, or add a key first", path=self.path
            )
        with self._editing() as document:
            _replace(self._table(document, found)["keys"], frame, None)

    def _with_keys(self, name: str) -> ShotObject:
        found = self.file.object(name)
        if found.parts:
            parts = ", ".join(f"'{o.name}'" for o in self.file.objects if o.id in found.parts)
            raise UsageError(
                f"'{name}' is merged and has no keys of its own", remedy=f"say it of {parts}", path=self.path
            )
        return found

    # Objects --------------------------------------------------------------------------------------

    def add_object(
        self,
        name: str,
        keys: Mapping[int, str | Path] | None = None,
        *,
        group: str | None = None,
        colour: str | None = None,
    ) -> ObjectId:
        """Add an object with its keys, frame -> path; returns its id. It is tracked on its own, unless a group is
        named, and leaves what the others are untouched.

        An object that was removed, but stayed for the others of its group, comes back under its name without keys.
        """
        there = next((o for o in self.file.objects if o.name == name), None)
        if there is not None and not there.deliver and not keys:
            with self._editing() as document:
                del self._table(document, there)["deliver"]
            return there.id
        if not keys:
            raise UsageError(f"'{name}' has no key", remedy="give one, as NAME@FRAME=PATH", path=self.path)
        number = self.file.next_id
        with self._editing() as document:
            table = _object_table(number, name, keys, self.file.folder, group=group, colour=colour)
            tables = document.get("object", tomlkit.aot())
            tables.append(table)
            if "object" not in document:  # an empty array of tables is written as a value
                document.append("object", tables)
        return number

    def remove_object(self, name: str) -> None:
        """Deliver an object no more. Where others of its group are delivered it stays as their silent competitor,
        so that they do not change."""
        found = self.file.object(name)
        whole = self.file.owner(found.id)
        if whole is not None:
            raise UsageError(
                f"'{name}' is part of '{whole.name}'",
                remedy=f"split '{whole.name}' first, or remove it",
                path=self.path,
            )
        gone = {found.id, *found.parts}
        kept = [o for o in self.file.objects if o.id not in gone]
        delivered = {p for o in kept if o.deliver for p in o.parts or (o.id,)}
        groups = self.file.groups
        wanted = {groups[i] for i in delivered if i in groups}
        with self._editing() as document:
            tables: AoT = document["object"]  # type: ignore[assignment]
            for index in reversed(range(len(tables))):
                o = self.file.objects[index]
                if o.id in gone and not o.parts and groups[o.id] in wanted:
                    tables[index]["deliver"] = False
                elif o.id in gone or (not o.parts and groups[o.id] not in wanted):
                    del tables[index]
            if not tables:
                del document["object"]
            left = [int(t["id"]) for t in document.get("object", ())]
            if self.file.next_id - 1 > max(left, default=0):
                document["last_id"] = self.file.next_id - 1

    def rename_object(self, name: str, to: str) -> None:
        """Call an object otherwise; nothing is tracked again."""
        found = self.file.object(name)
        with self._editing() as document:
            self._table(document, found)["name"] = to

    def merge_objects(self, names: Sequence[str], into: str) -> ObjectId:
        """Deliver the sum of several objects as one called `into`; returns its id. Nothing is tracked again.

        Where one of them is called `into`, it becomes `<into> part`.
        """
        found = [self.file.object(n) for n in dict.fromkeys(names)]
        if len(found) < 2:
            raise UsageError("one object cannot be merged", remedy="name two or more", path=self.path)
        for o in found:
            whole = self.file.owner(o.id)
            if whole is not None:
                raise UsageError(
                    f"'{o.name}' is part of '{whole.name}'", remedy=f"name '{whole.name}'", path=self.path
                )
        number = self.file.next_id
        with self._editing() as document:
            for o in found:
                table = self._table(document, o)
                table.pop("deliver", None)
                if o.name == into and not o.parts:
                    table["name"] = f"{into} part"
            table = tomlkit.table()
            table.update({"id": number, "name": into, "parts": sorted(p for o in found for p in o.parts or (o.id,))})
            tables: AoT = document["object"]  # type: ignore[assignment]
            tables.append(table)
            for o in reversed(self.file.objects):
                if o in found and o.parts:
                    del tables[self.file.objects.index(o)]
        return number

    def split_object(self, name: str) -> tuple[str, ...]:
        """Deliver the parts of a merged object again; returns their names. Nothing is tracked again."""
        found = self.file.object(name)
        if not found.parts:
            raise UsageError(f"'{name}' is not merged from others", path=self.path)
        with self._editing() as document:
            tables: AoT = document["object"]  # type: ignore[assignment]
            for o in self.file.objects:
                if o.id in found.parts and o.name == f"{name} part":
                    self._table(document, o)["name"] = name
            del tables[self.file.objects.index(found)]
            if found.id == self.file.next_id - 1:
                document["last_id"] = found.id
        return tuple(o.name for o in self.file.objects if o.id in found.parts)

    def set_absent(self, name: str, frames: str | Iterable[int] | None) -> None:
        """Say on which frames an object is not there, as a range text or numbers; None: no longer on any."""
        found = self._with_keys(name)
        with self._editing() as document:
            _set_range(self._table(document, found), "absent", _frames(frames))

    def freeze(self, frames: str | Iterable[int]) -> None:
        """Keep the mattes of these frames as they are, byte for byte, whatever changes; what lies around them is tied
        to them as to keys. Adds to what is frozen already.

        Raises UsageError where a matte is not there, or not that of the project as it stands: `run` comes first.
        """
        from rotomem.project.work import keep_frozen

        wanted = tuple(sorted({*self.file.frozen, *_frames(frames)}))
        keep_frozen(self.file, wanted)
        with self._editing() as document:
            _set_range(document, "frozen", wanted)

    def unfreeze(self) -> None:
        """Let every matte follow what the project says again."""
        from rotomem.project.work import forget_frozen

        forget_frozen(self.file)
        with self._editing() as document:
            _set_range(document, "frozen", ())

    def set(self, setting: str, value: Any) -> None:
        """Change a setting, a field of TrackOptions; None: back to its default."""
        with self._editing() as document:
            if value is None:
                document.get("settings", {}).pop(setting, None)
                return
            if "settings" not in document:
                document.add("settings", tomlkit.table())
            document["settings"][setting] = value  # type: ignore[index]


def _frames(frames: str | Iterable[int] | None) -> tuple[int, ...]:
    if frames is None:
        return ()
    return parse_frames(frames) if isinstance(frames, str) else tuple(sorted(set(frames)))


def _set_range(table: Any, name: str, frames: tuple[int, ...]) -> None:
    if not frames:
        table.pop(name, None)
    else:
        table[name] = range_text(frames)


def _replace(keys: Any, frame: int, text: str | None) -> None:
    """Set or delete a frame's entry, whichever way its number is spelled; new ones go to the end."""
    spelled = next((k for k in keys if int(k) == frame), None)
    if spelled is not None and text is not None:
        keys[spelled] = text
    elif spelled is not None:
        del keys[spelled]
    else:
        keys[str(frame)] = text


def _object_table(
    number: ObjectId,
    name: str,
    keys: Mapping[int, str | Path],
    folder: Path,
    *,
    group: str | None = None,
    colour: str | None = None,
) -> Table:
    table, frames = tomlkit.table(), tomlkit.table()
    if colour is None and is_colour(name):  # what a picture of colours calls it
        colour = name
    told = {"id": number, "name": name, "group": group, "colour": colour}
    table.update({k: v for k, v in told.items() if v is not None})
    frames.update({str(frame): _relative(path, folder) for frame, path in sorted(keys.items())})
    table["keys"] = frames
    return table


def _keys_by_object(file: ProjectFile, masks: Sequence[str]) -> dict[str, dict[int, str]]:
    """Object name -> frame -> `PATH[:CHANNEL]`, in order of first appearance."""
    found: dict[str, dict[int, str]] = {}
    with file.options().open_plate(file.plate) as plate:
        specs = [spec for text in masks for spec in parse_masks(text, plate.info)]
        specs.sort(key=lambda spec: spec.frame)
        shown = [(spec, objects_of(spec, plate.info)) for spec in specs]
    for spec, objects in shown:
        for name, channel in objects.items():
            keys = found.setdefault(name, {})
            if spec.frame in keys:
                raise UsageError(f"two masks show '{name}' on frame {spec.frame}", remedy="leave one out")
            keys[spec.frame] = key_text(spec.path, channel)
    if masks and not found:
        raise UsageError("there is no key mask", remedy="give at least one, as NAME@FRAME=PATH")
    return found


def key_text(path: str, channel: str | None) -> str:
    """A mask as `PATH[:CHANNEL]`."""
    return path + (f":{channel}" if channel else "")


def _relative(path: str | Path, folder: Path) -> str:
    """A path as the file has it: relative to its folder where it lies in it or in the one above, else absolute."""
    text = os.fspath(path)
    there = os.path.abspath(os.path.expanduser(text))
    relative = os.path.relpath(there, folder)
    kept = there if relative.startswith(os.path.join("..", "..", "")) else relative
    return kept.replace(os.sep, "/") + ("/" if text.endswith("/") else "")


def _tidied(text: str) -> str:
    """A blank line before every object that has none, so that what was added reads like what was written."""
    lines = text.splitlines(keepends=True)
    result: list[str] = []
    for line in lines:
        if line.startswith(("[[object]]", "[settings]")) and result and result[-1].strip() and result[-1][0] != "#":
            result.append("\n")
        result.append(line)
    return "".join(result).rstrip() + "\n"
