"""A project at work: what it asks of the engine, what of that is done already, what its cache holds.

The cache holds what the network said, a file a segment (engine/store.py), and nothing that cannot be made again.
Beside the project, in `frozen/`, lie the mattes of the ends of frozen ranges, of every object that is tracked: they
are keys for what lies around them.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rotomem.engine.blend import Outputs
from rotomem.engine.report import Report
from rotomem.engine.shot import ShotRun
from rotomem.engine.store import SegmentStore
from rotomem.errors import InputError, ProjectError, UsageError
from rotomem.io.atomic import cannot_write, remove_leftovers
from rotomem.io.exr import read_still
from rotomem.io.masks import Keys, MaskSpec, ObjectTable, load_keys
from rotomem.io.plate import Plate
from rotomem.io.sequence import compact_frames
from rotomem.project.file import ProjectFile
from rotomem.project.lock import locked
from rotomem.project.plan import PlannedSegment, plan_run
from rotomem.types import KeyMask, ObjectId


@contextlib.contextmanager
def shot_of(
    file: ProjectFile, *, out: str | None = None, outputs: Outputs | None = None, **others: Any
) -> Iterator[ShotRun]:
    """What the project asks of the engine; `others` are options over its settings."""
    if not file.tracked:
        raise UsageError("the project has no object", remedy="add one with `rotomem object add`", path=file.path)
    absent = tuple(f"{o.name}@{compact_frames(o.absent)}" for o in file.tracked if o.absent)
    groups: dict[str, list[ObjectId]] = {}
    for number, group in file.groups.items():
        groups.setdefault(group, []).append(number)
    options = file.options(**{"resume": True, "absent": absent, **others})
    with options.open_plate(file.plate) as plate:
        keys = _keys(file, plate)
    with ShotRun(
        file.plate,
        keys,
        out or file.output,
        options,
        store=_store_folder(file),
        groups=list(groups.values()),
        outputs=outputs or file.delivered,
        frozen=file.frozen,
    ) as run:
        yield run


@contextlib.contextmanager
def at_work(file: ProjectFile, **others: Any) -> Iterator[ShotRun]:
    """As `shot_of`, while no other run works on the project. Raises ProjectError where one does."""
    with locked(file.cache):
        remove_leftovers(_store_folder(file), older_than_s=0)  # of killed runs: there is no other
        with shot_of(file, **others) as run:
            yield run


def open_store(file: ProjectFile) -> SegmentStore:
    """The results of its segments."""
    return SegmentStore(_store_folder(file))


def _store_folder(file: ProjectFile) -> Path:
    return file.cache / "segments"


def _keys(file: ProjectFile, plate: Plate) -> Keys:
    """The artist's keys, and the ends of frozen ranges as keys, under the ids that the project gives."""
    specs = {(spec.name, spec.frame): spec for spec in file.masks()}
    for frame in set(range_ends(file.frozen)).intersection(plate.frames):
        taken = {o.name: _frozen_path(file, o.id, frame) for o in file.tracked}
        there = {name: path for name, path in taken.items() if path.exists()}
        if not there:
            raise ProjectError(
                f"{frame} is an end of a frozen range, and its mattes are not in {_frozen_folder(file)}",
                remedy="freeze with `rotomem freeze RANGE`, which keeps them",
                path=file.path,
            )
        # An empty key would say that the object stays away; that it was not seen here says less.
        shown = {name: path for name, path in there.items() if _shows(path, frame)}
        specs.update({(name, frame): MaskSpec(frame, str(path), name, "A") for name, path in shown.items()})
    loaded = load_keys(list(specs.values()), plate.info)
    ids = {number: file.object(name).id for number, name in loaded.objects.names.items()}
    names = {ids[number]: name for number, name in loaded.objects.names.items()}
    by_frame = {frame: _renumbered(key, ids) for frame, key in loaded.by_frame.items()}
    return Keys(ObjectTable(dict(sorted(names.items()))), by_frame, loaded.notes)


def _shows(path: Path, frame: int) -> bool:
    """Whether a kept matte shows anything. Raises ProjectError where it is damaged."""
    try:
        return bool(read_still(path).arrays["A"].any())
    except (InputError, KeyError) as error:
        raise ProjectError(
            "the kept matte of an end of a frozen range is damaged",
            remedy="unfreeze with `rotomem freeze --none`, run, and freeze anew",
            path=path,
            frame=frame,
        ) from error


def _renumbered(key: KeyMask, ids: Mapping[ObjectId, ObjectId]) -> KeyMask:
    """The same key with its rows in the order of other ids."""
    rows = sorted(range(len(key.objects)), key=lambda row: ids[key.objects[row]])
    alpha = np.ascontiguousarray(key.alpha[rows])
    return KeyMask(key.frame, tuple(ids[key.objects[row]] for row in rows), alpha, key.paths)


# Telling ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status:
    """What of a project is done.

    report    of a run that only looked: `frames` says which mattes are current ("kept") and which are not ("left")
    segments  with their results
    quality   the file beside the mattes that tells what is known of them; may not be there
    stored    bytes in the cache, of results that are asked for
    unused    bytes in the cache that nothing asks for any longer; `prune` drops them
    """

    report: Report
    segments: tuple[PlannedSegment, ...]
    quality: Path
    stored: int
    unused: int


def look(file: ProjectFile, **others: Any) -> Status:
    """See Status. Nothing is written."""
    with shot_of(file, **others) as run:
        segments = plan_run(run.survey, open_store(file))
        report = run.dry_run()
        quality = run.survey.writer.beside("quality", ".json")
    asked = {segment.digest for segment in segments}
    sizes = {path.stem: path.stat().st_size for path in open_store(file).paths()}
    stored = sum(size for name, size in sizes.items() if name in asked)
    return Status(report, tuple(segments), quality, stored, sum(sizes.values()) - stored)


def prune(file: ProjectFile, keep_bytes: int = 0) -> tuple[int, int]:
    """Drop results that nothing asks for, the oldest first, until those left fill `keep_bytes` at most.

    Returns how many files and bytes went. Raises ProjectError where a run works on the project.
    """
    with locked(file.cache):
        with shot_of(file) as run:
            asked = {segment.digest for segment in plan_run(run.survey, open_store(file))}
        unused = [path for path in open_store(file).paths() if path.stem not in asked]
        unused.sort(key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
        kept = count = freed = 0
        for path in unused:
            size = path.stat().st_size
            if kept + size <= keep_bytes:
                kept += size
                continue
            path.unlink()
            count, freed, keep_bytes = count + 1, freed + size, kept
        return count, freed


# Freezing ---------------------------------------------------------------------------------------------------------


def range_ends(frames: Collection[int]) -> list[int]:
    """First and last frames of every stretch of numbers without a gap."""
    there = set(frames)
    return sorted(f for f in there if f - 1 not in there or f + 1 not in there)


def keep_frozen(file: ProjectFile, frames: Collection[int]) -> None:
    """Make sure of all that it takes to freeze these frames: their mattes, and those of the ends as keys.

    frames    all that are to be frozen from now on
    Raises UsageError where a frame's mattes are not there or not those of the project as it stands.
    """
    new = set(frames) - set(file.frozen)
    ends = range_ends(frames)
    with locked(file.cache):
        with shot_of(file) as run:
            if run.survey.movie:
                raise UsageError("frames of a movie cannot be frozen", remedy="deliver EXR or PNG", path=file.path)
            there = set(run.survey.plate.frames)
            if outside := set(frames) - there:
                remedy = f"the shot has {compact_frames(there)}"
                raise UsageError(
                    f"frames {compact_frames(outside)} are not in the shot", remedy=remedy, path=file.path
                )
            if stale := new - run.survey.current():
                raise UsageError(
                    f"the mattes of {compact_frames(stale)} are not there, or not those of the project as it stands",
                    remedy="`rotomem run` first",
                    path=file.path,
                )
        lost = [
            f for f in ends if f not in new and not any(_frozen_path(file, o.id, f).exists() for o in file.tracked)
        ]
        if lost:
            raise UsageError(
                f"{compact_frames(lost)} would end a frozen range, and lies inside the one there is",
                remedy="unfreeze with `rotomem freeze --none`, run, and freeze anew",
                path=file.path,
            )
        if wanted := sorted(new.intersection(ends)):
            _keep_ends(file, wanted)


def forget_frozen(file: ProjectFile) -> None:
    """Let go of the ends of frozen ranges: mattes that will change are no keys for a range frozen later."""
    for frame in range_ends(file.frozen):
        for o in file.tracked:
            _frozen_path(file, o.id, frame).unlink(missing_ok=True)


def _keep_ends(file: ProjectFile, frames: Collection[int]) -> None:
    outputs = {o.id: (f"object{o.id}", (o.id,)) for o in file.tracked}
    plain = {"format": "exr", "depth": "float", "rgb": "none", "per_object": True, "also": (), "only": ()}
    folder = _frozen_folder(file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Elsewhere first: those that are there are keys of this run, and keys are not written over.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as new:
            with shot_of(file, out=f"{new}/{{object}}.%04d.exr", outputs=outputs, resume=False, **plain) as run:
                run.run(only=frames)
            for frame in frames:
                for o in file.tracked:
                    path = _frozen_path(file, o.id, frame)
                    os.replace(Path(new) / path.name, path)
    except OSError as error:
        raise cannot_write(folder, error, what="ends of the frozen range") from error


def _frozen_folder(file: ProjectFile) -> Path:
    return file.folder / "frozen"


def _frozen_path(file: ProjectFile, number: ObjectId, frame: int) -> Path:
    return _frozen_folder(file) / f"object{number}.{frame:04d}.exr"
