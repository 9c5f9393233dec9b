"""A plate and its key masks become a matte for every frame: the whole job.

    read + colour + shrink  ->  passes (the caller's thread)  ->  store  ->  finish + write
        two threads, ahead                                                      one thread, behind

Key frames cut the shot into segments (segments.py). Each is tracked away from the key before it and from the key
after it (passes.py), what both say is blended (blend.py) and kept in a store (store.py), and a frame is written as
soon as all that it needs is there (delivery.py). What the artist drew is written as drawn. Only a handful of frames
are in memory at any time, so memory does not depend on the length of the shot.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch

import rotomem
from rotomem.engine.blend import Outputs
from rotomem.engine.delivery import Delivery
from rotomem.engine.finishing import Finishing
from rotomem.engine.footage import Cancelled, PlateFootage
from rotomem.engine.options import TrackOptions
from rotomem.engine.passes import track_segment
from rotomem.engine.pipeline import Clock
from rotomem.engine.report import Progress, Report, memory_bytes, peak_memory_bytes
from rotomem.engine.roi import OFF
from rotomem.engine.scout import choose_region, keyed_outside, reaches_border
from rotomem.engine.segments import Segment
from rotomem.engine.store import SegmentStore, StoredFrame, digest
from rotomem.engine.survey import Survey
from rotomem.errors import EXIT_INTERRUPTED, EXIT_OK, InputError, UsageError
from rotomem.io.masks import Masks
from rotomem.io.matte_files import told_confidence
from rotomem.io.quality import QualityFile
from rotomem.io.sequence import compact_frames
from rotomem.types import ObjectId


class Cancel(Protocol):
    """What `track` asks whether to stop; a threading.Event is one."""

    def is_set(self) -> bool: ...


def track(
    plate: str | Path,
    masks: Masks,
    out: str | Path,
    *,
    dry_run: bool = False,
    progress: Callable[[Progress], None] | None = None,
    cancel: Cancel | None = None,
    **options: Any,
) -> Report:
    """Write a matte for every frame of a plate, from key masks on some of them.

    plate      any spelling `open_plate` takes: `sh010.%04d.exr`, `####`, a folder, a movie
    masks      `["1001=key.png", "hero@1001=hero.exr:A", ...]`, one such text, `{1001: "key.png"}`, MaskSpecs, Keys.
               An object whose mask is empty on a frame is absent from there on, to its next key that shows it
    out        a folder, a pattern such as `mattes/hero.%04d.exr`, or `mattes/hero.mov`
    dry_run    look at everything, write nothing; the report's `frames` say what would be kept and what is left
    progress   called in this thread after every frame
    cancel     asked before every frame; where it is set the frames begun are finished and the report says
               "interrupted". The run can be resumed.
    options    fields of TrackOptions

    Raises any RotomemError; frames written before it are whole, and the error's `report` attribute tells them.
    Memory: independent of the number of frames; about 8 frames of the plate.
    Disk: between two keys a temporary folder holds what the first pass said, about 100 KB a frame; of a movie that
    is not tracked in its own order all of it.
    """
    try:
        settings = _options(options)
    except UsageError as error:
        Report(version=rotomem.__version__, plate=str(plate), out=str(out)).attach(error)
        raise
    with ShotRun(plate, masks, out, settings) as run:
        return run.dry_run() if dry_run else run.run(progress=progress, cancel=cancel)


def _options(given: Mapping[str, Any]) -> TrackOptions:
    try:
        return TrackOptions(**given)
    except TypeError as error:
        raise UsageError(
            f"track() {str(error).partition(') ')[2] or error}", remedy="options are the fields of TrackOptions"
        ) from None


class ShotRun:
    """A run that has looked at everything and written nothing yet; `report` says what it will do.

    A context manager. `run` does the work, once. Errors of looking are raised by the constructor.

    store      where segments are kept from run to run, and taken from where nothing changed; None: a temporary folder
    groups     objects that are tracked together, and compete; None: all of them
    outputs    what is delivered: id -> its name and the objects whose sum it is; an object in none competes, and gets
               no matte. None: every object by itself
    frozen     frames whose files stay as they are, whatever they were made from
    """

    def __init__(
        self,
        plate: str | Path,
        masks: Masks,
        out: str | Path,
        options: TrackOptions,
        *,
        store: str | Path | None = None,
        groups: Sequence[Collection[ObjectId]] | None = None,
        outputs: Outputs | None = None,
        frozen: Collection[int] = (),
    ) -> None:
        self.report = Report(version=rotomem.__version__, plate=str(plate), out=str(out))
        self._store = store
        self._clock = Clock()
        self._written: set[int] = set()
        self._kept: frozenset[int] = frozenset()
        self._stepped = 0
        self._closed = False
        self._start = time.perf_counter()
        self._progress: Callable[[Progress], None] | None = None
        self._cancel: Cancel | None = None
        self._delivery: Delivery | None = None
        try:
            self.survey = Survey(
                plate, masks, out, options, self.report, groups=groups, outputs=outputs, frozen=frozen
            )
        except BaseException as error:
            self.report.attach(error)
            raise
        self.footage = PlateFootage(
            self.survey.plate,
            self.survey.sight,
            drawn=self.survey.keys.by_frame,
            session=self.survey.session,
            # A frame that another window of it was seen of is looked at again.
            pixels=options.rgb != "none" or options.roi != OFF or options.edges().pixels,
            reach=options.edges().reach,
            clock=self._clock,
            on_step=self._advance,
        )

    def __enter__(self) -> ShotRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.survey.close()

    def dry_run(self) -> Report:
        """Look at what exists as `run` would, and tell what it would keep and what it would write."""
        self._kept = self._current()
        self._tell()
        return self.report

    def run(
        self,
        *,
        progress: Callable[[Progress], None] | None = None,
        cancel: Cancel | None = None,
        only: Collection[int] | None = None,
    ) -> Report:
        """Do it, or `only` these frames. Raises what `track` raises, with the report as the error's `report`."""
        self._progress, self._cancel = progress, cancel
        self._start = time.perf_counter()
        writer, report = self.survey.writer, self.report
        if report.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        try:
            self._kept = self._current()
            asked = set(self.survey.plate.frames) if only is None else set(only)
            complete = self._deliver(asked - self._kept)
            if complete:
                writer.close()
                self._closed = True
            else:
                writer.abandon()
            if only is None:
                self._tell_quality()
        except BaseException as error:
            writer.abandon()
            self._tell()
            report.attach(error)
            raise
        self._tell()
        if not complete:
            report.status, report.exit_code = "interrupted", EXIT_INTERRUPTED
        else:
            report.status = "done" if self._written else "nothing to do"
            report.exit_code = EXIT_OK
        return report

    # Working --------------------------------------------------------------------------------------

    def _current(self) -> frozenset[int]:
        return self.survey.current() if self.survey.options.resume else frozenset()

    def _deliver(self, wanted: Collection[int]) -> bool:
        """Write the wanted frames; False where the run was cancelled."""
        if not wanted:
            return True
        survey = self.survey
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rotomem-")))
            store = SegmentStore(self._store or scratch / "store", durable=self._store is not None)
            delivery = self._delivery = Delivery(
                survey.writer,
                self.footage,
                Finishing(survey.options.edges(), survey.sight, survey.info.pixel_aspect),
                self._clock,
                shots=survey.shots,
                segments=survey.segments,
                credits=survey.credits,
                wanted=wanted,
                ordered=survey.movie,
                outputs=survey.outputs,
            )
            try:
                delivery.begin()
                asked = delivery.neighbours(wanted)
                for group, segment in self._jobs():
                    if needed := asked.intersection(segment.frames):
                        self._segment(stack, store, scratch, group, segment, needed)
            except Cancelled:
                pass
            finally:
                # Frames that were begun are finished whatever happened; a writer's own error comes out here.
                try:
                    delivery.close()
                finally:
                    self._drain()
                    self.footage.tell_seconds()
            return delivery.complete

    def _jobs(self) -> list[tuple[int, Segment]]:
        """Groups and their segments, in the order of the shot."""
        jobs = [(group, segment) for group, own in enumerate(self.survey.segments) for segment in own]
        return sorted(jobs, key=lambda job: (job[1].frames[0], job[0]))

    def _segment(
        self, stack: ExitStack, store: SegmentStore, scratch: Path, group: int, segment: Segment, needed: set[int]
    ) -> None:
        """Have a group's segment told: from the store, else by the network.

        needed   the frames that are asked for; a store that is kept gets all of them
        """
        survey, delivery = self.survey, self._delivery
        assert delivery is not None
        inputs = survey.provenance.inputs(group, segment)
        name = digest(inputs)
        if self._store is not None:
            found = store.get(name, segment.frames)
            if found is not None:
                stack.callback(found.close)
                for frame in sorted(needed):
                    delivery.arrived(group, frame, found)
                    self._look_up(frame)
                return
            needed = set(segment.frames)
        shot, options = survey.shots[group], survey.options
        region, told = choose_region(shot, segment, self.footage, scratch, options, survey.model.plan)
        if told:
            self.report.regions.append(told)
        if region is not None:
            for frame, number in keyed_outside(shot, region, self.footage.canvas):
                self.report.warnings.append(
                    f"the key of {survey.names[number]} on {frame} lies outside of its region: "
                    "nothing is learnt from it; give a region that holds it with --roi"
                )
        footage = self.footage if region is None else self.footage.within(region)
        told_of = track_segment(shot, segment, footage, scratch, direction=options.direction, wanted=needed)
        frames = self._watched(told_of)
        if self._store is None and len(survey.shots) == 1 and not survey.movie:
            # Frames go as they come: nothing has to wait on disk.
            for stored in frames:
                delivery.arrived(group, stored.frame, stored)
            return
        writer = stack.enter_context(store.begin(name, inputs))
        for stored in frames:
            writer.put(stored)
            delivery.arrived(group, stored.frame, writer)
        if len(needed) == len(segment.frames):
            writer.finish()

    # Telling --------------------------------------------------------------------------------------

    def _watched(self, frames: Iterable[StoredFrame]) -> Iterator[StoredFrame]:
        """The frames, and a warning where an object may go on beyond its window."""
        cut = []
        for stored in frames:
            if reaches_border(stored, self.footage.canvas):
                cut.append(stored.frame)
            yield stored
        if cut:
            self.report.warnings.append(
                f"objects reach the border of their region on {compact_frames(cut)}; what lies beyond is not in the "
                "matte: add a key there, or give a larger region with --roi"
            )

    def _tell_quality(self) -> None:
        """Write what is known of the mattes beside them. Of frames that were kept it is what was known before: in
        that file, else (a run that was killed has left none, one before a renaming other names) in the store, else
        the confidence that the mattes themselves tell.
        """
        if self._delivery is None or (self.survey.movie and not self._closed):
            return
        writer, plate = self.survey.writer, self.survey.info.stem.rstrip("._- ")
        path, names = writer.beside("quality", ".json"), tuple(writer.objects.values())
        before: dict[int, Mapping[str, Mapping[str, float]]] = {}
        with suppress(InputError):  # there is none yet, or one that is damaged
            old = QualityFile.read(path)
            before.update(old.signals if old.objects == names else {})
        if self._store is not None:
            before.update(self._stored_signals(self._kept.difference(before, self.survey.frozen)))
        for frame in self._kept.difference(before):
            told = {name: c for p in writer.paths_by_kind(frame)["mattes"] for name, c in told_confidence(p).items()}
            before[frame] = {name: {"confidence": c} for name, c in told.items()}
        parts = {name: set(self.survey.outputs[i][1]) for i, name in writer.objects.items()}
        drawn = {f: set(key.objects) for f, key in sorted(self.survey.keys.by_frame.items())}
        keys = {f: tuple(n for n in names if parts[n] <= of) for f, of in drawn.items()}
        QualityFile(plate, names, keys, {**before, **self._delivery.signals}).write(path)
        self.report.quality = str(path)

    def _stored_signals(self, frames: Collection[int]) -> dict[int, dict[str, Mapping[str, float]]]:
        """What the store knows of mattes that were not written now, of frames that it holds for every group."""
        assert self._store is not None and self._delivery is not None
        survey, store = self.survey, SegmentStore(self._store)
        signals: dict[int, dict[ObjectId, Mapping[str, float]]] = {f: {} for f in frames}
        for group, segment in self._jobs():
            if not signals.keys().isdisjoint(segment.frames):
                found = store.get(digest(survey.provenance.inputs(group, segment)), segment.frames)
                for frame in signals.keys() & set(segment.frames):
                    if found is None:
                        del signals[frame]
                    else:
                        signals[frame].update(found.read(frame).signals)
                if found is not None:
                    found.close()
        for frame, of in signals.items():
            if (key := survey.keys.by_frame.get(frame)) is not None:
                of.update({number: {"confidence": 1.0} for number in key.objects})
        return {frame: self._delivery.known(of) for frame, of in signals.items()}

    def _look_up(self, frame: int) -> None:
        """A frame was taken from the store."""
        self._drain()
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled

    def _advance(self, frame: int) -> None:
        """A pass has taken a frame. Raises Cancelled where the run is to stop."""
        self._stepped += 1
        if frame not in self._drain():
            self._say(frame, "remember")
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled

    def _drain(self) -> set[int]:
        """Tell of the frames written since; in the caller's thread, so that callbacks need no locks."""
        written = set()
        while self._delivery is not None and self._delivery.written:
            frame = self._delivery.written.popleft()
            written.add(frame)
            self._written.add(frame)
            self._say(frame, "track")
        return written

    def _say(self, frame: int, doing: str) -> None:
        if self._progress is not None:
            elapsed = time.perf_counter() - self._start
            done = len(self._written) + len(self._kept)
            fps = self._stepped / elapsed if elapsed > 0 else 0.0
            self._progress(Progress(frame, done, len(self.survey.plate.frames), doing, fps, memory_bytes()))

    def _tell(self) -> None:
        """Bring the report up to date; also after an error."""
        report, survey = self.report, self.survey
        # A movie appears when it is complete or not at all.
        done = set() if survey.movie and not self._closed else self._written
        report.frames_written, report.frames_kept = len(done), len(self._kept)
        report.frames.update(
            written=compact_frames(done),
            kept=compact_frames(self._kept),
            left=compact_frames(set(survey.plate.frames) - done - self._kept),
        )
        seconds = self._clock.seconds()
        seconds["wall"] = time.perf_counter() - self._start
        report.seconds = {k: round(v, 4) for k, v in sorted(seconds.items())}
        if self._stepped:
            report.seconds_per_frame = {k: round(v / self._stepped, 4) for k, v in sorted(seconds.items())}
            report.fps = round(self._stepped / seconds["wall"], 3)
        report.peak_memory_bytes = peak_memory_bytes()
        if report.device.startswith("cuda"):
            report.peak_gpu_memory_bytes = torch.cuda.max_memory_allocated()
        report.tell_tamed(self.footage.tamed)
