"""Everything a run can know before it writes anything: the plate, its colours, the keys, the model, what comes out.

Whatever contradicts itself is refused here, before the first frame is tracked.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import rotomem
from rotomem.engine.blend import Outputs
from rotomem.engine.options import TrackOptions
from rotomem.engine.passes import Shot
from rotomem.engine.provenance import Credits, Provenance
from rotomem.engine.report import Report
from rotomem.engine.roi import AUTO, OFF, fixed_region
from rotomem.engine.scout import gain
from rotomem.engine.segments import Segment, plan_segments
from rotomem.engine.session import Session
from rotomem.engine.sight import Sight
from rotomem.errors import EXIT_OK, InputError, OutputError, UsageError
from rotomem.io.atomic import cannot_write
from rotomem.io.masks import Masks, load_masks
from rotomem.io.matte_files import told_objects
from rotomem.io.mattes import MatteWriter
from rotomem.io.quality import QualityFile
from rotomem.io.sequence import compact_frames, parse_frames
from rotomem.matting.foreground import estimate_foreground
from rotomem.models.interface import VOSModel
from rotomem.models.registry import load_model
from rotomem.ops import backend
from rotomem.types import ObjectId, Window

_CHECK_THREADS = 2
_TOLD_ONLY = ("inputSpaceFrom", "ocioConfig")  # who said it, where it lies: told in mattes, and no input of them
_SMALL = 2.0  # times finer that a region of interest has to be worth mentioning


class Survey:
    """A run that was looked at. Close it with `close`.

    report      what the run will do
    keys        as `load_masks` has them
    shots       the groups of objects that are tracked together, each with its keys
    segments    of each group
    absent      object -> frames on which it is declared absent
    credits     what files say they were made from

    Raises any RotomemError, with what is known by then in `report`.
    """

    def __init__(
        self,
        plate: str | Path,
        masks: Masks,
        out: str | Path,
        options: TrackOptions,
        report: Report,
        *,
        groups: Sequence[Collection[ObjectId]] | None = None,
        outputs: Outputs | None = None,
        frozen: Collection[int] = (),
    ) -> None:
        self.options, self.report = options, report
        self._stack = ExitStack()
        try:
            self._look_at_plate(plate, out)
            self.keys = load_masks(masks, self.plate)
            self._look_at_objects(groups)
            self._look_at_model()
            self._look_at_output(out, outputs, frozen)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the plate."""
        self._stack.close()

    def session(self) -> Session:
        """A fresh session with the run's settings, which takes pictures as they come."""
        return Session(self.model, size=None, **self.options.session())

    @property
    def movie(self) -> bool:
        """Whether files are written in ascending order, and appear when they are complete."""
        return self.writer.in_order

    def current(self) -> frozenset[int]:
        """Frames whose mattes are whole and made from the same inputs, or frozen; of a movie all or none."""
        with suppress(InputError):  # there was no run before
            before = QualityFile.read(self.writer.beside("quality", ".json")).objects
            self.credits.returned = frozenset(i for i, name in self.writer.objects.items() if name not in before)
        frames = [f for f in self.plate.frames if f not in self.frozen]
        sources = [partial(self.credits.sources, f) for f in frames]
        with ThreadPoolExecutor(_CHECK_THREADS, thread_name_prefix="rotomem-check") as pool:
            current = pool.map(self.writer.is_current, frames, sources)
            kept = self.frozen.union(f for f, whole in zip(frames, current, strict=True) if whole)
        return kept if len(kept) == len(self.plate.frames) or not self.movie else frozenset()

    def _look_at_plate(self, plate: str | Path, out: str | Path) -> None:
        options, report = self.options, self.report
        for what, path in (("plate", plate), ("out", out)):
            if not isinstance(path, (str, os.PathLike)):
                raise UsageError(f"{what} is {path!r} ({type(path).__name__})", remedy="give a path")
        self.plate = self._stack.enter_context(options.open_plate(plate))
        info = self.info = self.plate.info
        report.frames_asked = len(self.plate.frames)
        report.frames = {"asked": compact_frames(self.plate.frames), "missing": compact_frames(info.missing)}
        report.canvas, report.pixel_aspect = [info.canvas.width, info.canvas.height], info.pixel_aspect
        report.notes.extend(info.notes)
        self.sight = self._stack.enter_context(Sight(self.plate, options))
        self.colour, self.geometry = self.sight.colour, self.sight.geometry
        report.colour = self.colour.sentence

    def _look_at_objects(self, groups: Sequence[Collection[ObjectId]] | None) -> None:
        """Which objects there are, which of them are tracked together, and how the shot falls apart for them."""
        self.names = dict(self.keys.objects.names)
        self.report.notes.extend(self.keys.notes)
        self.report.keys = {
            frame: [self.names[i] for i in key.objects] for frame, key in sorted(self.keys.by_frame.items())
        }
        spoken_for = {i for key in self.keys.by_frame.values() for i in key.objects}
        together = [sorted(spoken_for.intersection(group)) for group in groups] if groups else [sorted(spoken_for)]
        listed = [i for group in together for i in group]
        if sorted(listed) != sorted(spoken_for):
            raise UsageError(
                f"groups hold objects {sorted(listed)}, the keys speak for {sorted(spoken_for)}",
                remedy="name each object in one group",
            )
        self.absent = absences(self.options.absent, self.names)
        for number, frames in self.absent.items():
            if outside := frames.difference(self.plate.frames):
                told = f"{self.names[number]} is declared absent on {compact_frames(outside)}, which the shot has not"
                self.report.notes.append(told)
        self.shots = [Shot.of(group, self.keys.by_frame, self.absent) for group in together if group]
        self.segments: list[tuple[Segment, ...]] = [
            plan_segments(
                self.plate.frames,
                {f: key.objects for f, key in shot.keys.items()},
                shot.objects,
                neighbours=self.options.neighbours,
            )
            for shot in self.shots
        ]

    def _look_at_model(self) -> None:
        options, report = self.options, self.report
        if isinstance(options.model, VOSModel):
            self.model = options.model
        else:
            self.model = load_model(options.model, device=options.device, dtype=options.dtype)
        parameter = next(self.model.parameters())
        report.model, report.weights = self.model.name, self.model.weights_hash
        report.device, report.dtype = str(parameter.device), self.model.precision
        report.backend = backend.current(parameter.device.type)
        if options.size is not None and options.size < self.model.plan.stride:
            raise UsageError(
                f"size is {options.size}", remedy=f"give {self.model.plan.stride} or more, or the plate's own size"
            )
        h, w = self.geometry.network_size
        report.network_size = [w, h]
        if options.roi not in (AUTO, OFF):
            fixed_region((), Window.parse(options.roi), self.info.canvas, size=options.size)
        elif options.roi == OFF:
            finer = gain(self.shots, self.info, options, self.model.plan)
            if finer >= _SMALL:
                report.notes.append(
                    f"objects are small in this plate: --roi auto shows them {finer:.1f} times as finely"
                )
        # Settings that contradict each other fail here; what is left to the model is decided.
        decided = self.session()
        self._common = self._inputs(decided)
        self.provenance = Provenance(
            self.plate,
            {name: value for name, value in self._common.items() if name not in _TOLD_ONLY},
            self.shots,
            self.segments,
            direction=options.direction,
            absent=self.absent,
            # A window that follows the objects is planned from all frames.
            whole=options.roi == AUTO,
            reach=options.edges().reach,
        )

    def _inputs(self, decided: Session) -> dict[str, str]:
        """What all of the run's mattes depend on, but for plate and keys; the device is not in it."""
        options, info = self.options, self.info
        h, w = self.geometry.network_size
        session = {**options.session(), **asdict(decided.settings), "depth": decided.depth}
        if len(self.model.depths) < 2:
            del session["depth"]
        told = {
            "version": rotomem.__version__,
            "model": self.model.name,
            "weights": self.model.weights_hash,
            "dtype": self.report.dtype,
            # Not as it was spelled: a folder and a pattern may mean the same files.
            "plate_name": info.stem + Path(info.first_file).suffix,
            "network": f"{w}x{h}"
            + (f" rim {self.geometry.rim}" if self.geometry.rim else "")
            + (f" roi {options.roi}" if options.roi != OFF else ""),
            "session": " ".join(f"{k}={v}" for k, v in session.items()),
        }
        told.update({k.removeprefix("rotomem/"): v for k, v in self.colour.as_metadata().items()})
        if info.layer:
            told["layer"] = info.layer
        if info.view:
            told["plate_view"] = info.view
        return told

    def _look_at_output(self, out: str | Path, outputs: Outputs | None, frozen: Collection[int]) -> None:
        options, report = self.options, self.report
        self.outputs = {i: (name, (i,)) for i, name in self.names.items()} if outputs is None else dict(outputs)
        provenance = {"plate" if k == "plate_name" else k: v for k, v in self._common.items()}
        edges = " ".join(f"{k}={v}" for k, v in asdict(options.edges()).items())
        names = {i: name for i, (name, _) in self.outputs.items()}
        self.writer = MatteWriter(
            out,
            info=self.info,
            objects=names,
            settings=options.mattes(),
            provenance={**provenance, "edges": edges},
            foreground=estimate_foreground,
            protect=[path for key in self.keys.by_frame.values() for path in key.paths],
            replace_foreign=options.overwrite,
        )
        report.notes.extend(self.writer.notes)
        report.objects = {names[i]: layer for i, layer in self.writer.layers.items()}
        frames = self.plate.frames
        for frame in sorted({frames[0], frames[-1]}):
            for kind, paths in self.writer.paths_by_kind(frame).items():
                told = report.outputs if kind == "mattes" else report.also.setdefault(kind, [])
                told.extend(str(path) for path in paths if str(path) not in told)
        report.settings = {**asdict(replace(options, model="")), "model": self.model.name}
        report.settings.update(asdict(self.writer.settings))
        keys = ",".join(map(str, sorted(self.keys.by_frame)))
        written = {i: self.outputs[i] for i in self.writer.objects}
        self.credits = Credits(self.provenance.made(), [shot.objects for shot in self.shots], written)
        self.writer.of_all(keys, self.credits.source_of_all())
        self.frozen = frozenset(frozen).intersection(frames)
        if self.frozen and self.movie:
            raise UsageError("frames of a movie cannot be frozen", remedy="deliver no movie, or freeze nothing")
        if bare := {f for f in self.frozen if not all(map(os.path.exists, self._paths(f)))}:
            report.notes.append(f"frozen frames {compact_frames(bare)} lack mattes, and get none")
        self._tell_what_is_not_frozen(self.frozen - bare)
        existing = [path for frame in frames for path in self._paths(frame) if os.path.exists(path)]
        report.files_existing = len(existing)
        report.status, report.exit_code = "dry run", EXIT_OK
        if existing and not (options.resume or options.overwrite):
            raise UsageError(
                f"{len(set(existing))} of the mattes to write exist already",
                remedy="use --resume to redo only what is missing, damaged or made with other settings, "
                "--overwrite to replace them all, or choose another output",
                path=existing[0],
            )
        self._refuse_outputs()

    def _tell_what_is_not_frozen(self, frames: Collection[int]) -> None:
        """Say of which objects frozen mattes know nothing: those that came later, or have another name since."""
        without: dict[str, list[int]] = {}
        for frame in sorted(frames):
            held: set[str] = set()
            for path in self.writer.paths_by_kind(frame)["mattes"]:
                with suppress(InputError):
                    held |= told_objects(path)
            for name in self.writer.objects.values():
                if name not in held:
                    without.setdefault(name, []).append(frame)
        for name, of in without.items():
            self.report.notes.append(f"frozen frames {compact_frames(of)} hold no matte of {name}, and get none")

    def _refuse_outputs(self) -> None:
        """Say before anything is replaced what a later frame's file would be refused for."""
        folders: set[Path] = set()
        for frame in self.plate.frames:
            paths = self._paths(frame)
            for path in paths:
                if path.parent not in folders:
                    folders.add(path.parent)
                    _refuse_unwritable(path)
                if os.path.isdir(path):
                    raise OutputError(
                        "a folder stands where the file should go",
                        remedy="choose another output name, or move the folder away",
                        path=path,
                        frame=frame,
                    )
            if any(map(os.path.exists, paths)):
                self.writer.refuse(frame, self.plate.file(frame))

    def _paths(self, frame: int) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(self.writer.paths(frame)))


def absences(texts: Sequence[str], names: Mapping[ObjectId, str]) -> dict[ObjectId, frozenset[int]]:
    """Object -> frames on which it is declared absent, of texts such as `hero@1020-1030`."""
    numbers = {name: number for number, name in names.items()}
    absent: dict[ObjectId, frozenset[int]] = {}
    for text in texts:
        found = re.fullmatch(r"(.+)@([^@]+)", text.strip(), re.DOTALL)
        if not found:
            raise UsageError(f"'{text}' does not say who is absent where", remedy="write it as hero@1020-1030")
        name = found[1].strip()
        if name not in numbers:
            raise UsageError(
                f"no object '{name}' to be absent", remedy="objects are " + ", ".join(sorted(numbers)), absent=text
            )
        frames = frozenset(parse_frames(found[2]))
        absent[numbers[name]] = absent.get(numbers[name], frozenset()) | frames
    return absent


def _refuse_unwritable(path: Path) -> None:
    """Raise OutputError where the folder of `path` cannot be made or written."""
    folder = path.parent
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise cannot_write(path, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise cannot_write(path, OSError(errno.EACCES, os.strerror(errno.EACCES)))
