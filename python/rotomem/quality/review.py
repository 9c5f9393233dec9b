"""The review of a shot: plate and mattes in; contact sheet, overlay movie, timeline and page out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from rotomem.engine.confidence import confidence, frame_signals, step_signals
from rotomem.engine.options import TrackOptions
from rotomem.engine.pipeline import read_ahead
from rotomem.engine.sight import Sight
from rotomem.errors import MissingFrameError, UsageError
from rotomem.io.matte_files import MatteFiles, find_mattes
from rotomem.io.plate import Plate, PlateInfo
from rotomem.io.quality import QualityFile
from rotomem.quality.overlay import (
    FLAG,
    KEY,
    Colour,
    OverlayMovie,
    Picture,
    colours_of,
    labelled,
    matte_picture,
    overlay,
    write_jpeg,
)
from rotomem.quality.page import frame_name, write_page
from rotomem.quality.sheet import ContactSheet, frames_to_show
from rotomem.quality.suggest import Curve, Flag, Suggestion, curves_of, flags, suggest, summary_of
from rotomem.quality.timeline import write_timeline

QUALITY_NAME = "quality.json"
_WISH = (0.95, 0.70, 0.19)
_THREADS, _AHEAD = 2, 4
_MOST_SHOWN = 24


@dataclass(frozen=True)
class Review:
    """What came of it: the files, and what they say."""

    out: Path
    frames: tuple[int, ...]
    curves: tuple[Curve, ...]
    flags: tuple[Flag, ...]
    suggestion: Suggestion | None
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One sentence or two for people."""
        return summary_of(self.curves, self.flags, self.suggestion)


def review(
    mattes: str | Path,
    plate: str | Path,
    out: str | Path,
    *,
    options: TrackOptions | None = None,
    colours: Mapping[str, Colour] | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> Review:
    """Write `index.html`, `overlay.mp4`, `sheet.png`, `timeline.png`, `quality.json` and `frames/` to a folder.

    mattes     as `find_mattes` takes them; their quality file is read where there is one, else what the files say
               of themselves, else the mattes are judged by their own looks, which knows less
    options    how the plate is read and shown; `size` is the shorter side of the pictures
    colours    object -> colour, where the artist chose one
    on_frame   called with (frames done, frames in all)

    Raises MissingFrameError where plate and mattes share no frame; PlateError, ColourError, OutputError.
    Memory: a few frames, whatever the shot's length.
    """
    options = replace(options or TrackOptions(size=540), rim=0)
    out = Path(out)
    found = find_mattes(mattes)
    if out.is_dir() and out.samefile(_folder(mattes)):
        raise UsageError("the review would lie among the mattes", remedy="choose another folder for it", path=out)
    tints = colours_of(tuple(found.objects), colours)
    with options.open_plate(plate) as shot, Sight(shot, options) as sight:
        frames = tuple(sorted(set(shot.frames).intersection(found.frames)))
        if not frames:
            raise MissingFrameError(
                f"no frame of the plate ({shot.frames[0]}-{shot.frames[-1]}) has a matte "
                f"({found.frames[0]}-{found.frames[-1]})",
                remedy="check that both are of the same shot",
                path=mattes,
            )
        quality, notes = _quality_of(mattes, found, shot, sight, frames)
        curves = [curve for curve in curves_of(quality, frames) if curve.name in found.objects]
        stretches = sorted((f for c in curves for f in flags(c)), key=lambda f: (f.first, f.name))
        suggestion = suggest(curves)
        result = Review(out, frames, tuple(curves), tuple(stretches), suggestion, notes)

        pictures = _frames(shot, sight, found, frames)
        _write_pictures(result, pictures, tints, shot.info, on_frame)
        write_timeline(out / "timeline.png", curves, stretches, suggestion, tints, result.summary)
        quality.write(out / QUALITY_NAME)
        write_page(
            out / "index.html",
            plate=shot.info.stem.rstrip("._-") or "shot",
            fps=shot.info.fps,
            summary=result.summary,
            curves=curves,
            flags=stretches,
            suggestion=suggestion,
            colours=tints,
        )
    return result


def _write_pictures(
    told: Review,
    pictures: Iterator[tuple[int, Picture, dict[str, Picture]]],
    tints: Mapping[str, Colour],
    info: PlateInfo,
    on_frame: Callable[[int, int], None] | None,
) -> None:
    """What takes every frame once: its pictures, the movie, the contact sheet."""
    wish = told.suggestion.frame if told.suggestion else None
    worst = sorted({f.worst for f in told.flags})[: _MOST_SHOWN // 2]
    always = {*worst, *(k for c in told.curves for k in c.keys), *([] if wish is None else [wish])}
    shown = set(frames_to_show(told.frames, always, _MOST_SHOWN))
    sheet = ContactSheet(f"{info.stem.rstrip('._-')}   {told.summary}")
    with OverlayMovie(told.out / "overlay.mp4", info.fps) as movie:
        for i, (frame, picture, alphas) in enumerate(pictures):
            over = overlay(picture, alphas, tints)
            views = {"plate": picture, "matte": matte_picture(alphas, tints), "overlay": over}
            for view, drawn in views.items():
                write_jpeg(told.out / "frames" / f"{view}.{frame_name(frame)}.jpg", drawn)
            marks = _marks(frame, told.curves, told.flags)
            movie.add(labelled(over, str(frame), marks))
            if frame in shown:
                mark = ("key here", _WISH) if frame == wish else next(iter(marks), None)
                sheet.add(over, _cell_text(i, frame, told.curves), mark)
            if on_frame:
                on_frame(i + 1, len(told.frames))
    sheet.write(told.out / "sheet.png")


def _marks(frame: int, curves: Sequence[Curve], stretches: Sequence[Flag]) -> list[tuple[str, Colour]]:
    keyed = [c.name for c in curves if frame in c.keys]
    doubted = [f.name for f in stretches if f.first <= frame <= f.last]
    marked = (("key", keyed, KEY), ("look", doubted, FLAG))
    return [(_named(word, names, curves), colour) for word, names, colour in marked if names]


def _named(word: str, names: Sequence[str], curves: Sequence[Curve]) -> str:
    """`key: hero, car`; no names where all are meant, three at most."""
    if len(names) == len(curves):
        return word
    return f"{word}: {', '.join(names[:3])}" + (f" +{len(names) - 3}" if len(names) > 3 else "")


def _cell_text(i: int, frame: int, curves: Sequence[Curve]) -> str:
    known = [c.confidence[i] for c in curves if math.isfinite(c.confidence[i])]
    return f"{frame}" + (f"  {100 * min(known):.0f} %" if known else "")


def _frames(
    shot: Plate, sight: Sight, found: MatteFiles, frames: Sequence[int]
) -> Iterator[tuple[int, Picture, dict[str, Picture]]]:
    """Every frame with its picture [h, w, 3] and alphas [h, w], at the pictures' size, read ahead."""

    def load(frame: int) -> tuple[int, Picture, dict[str, Picture]]:
        picture, _ = sight.picture(shot.read(frame))
        return frame, picture.numpy(), _alphas(found, frame, sight)

    return read_ahead(frames, load, ahead=_AHEAD, threads=_THREADS)


def _alphas(found: MatteFiles, frame: int, sight: Sight) -> dict[str, Picture]:
    """Object -> alpha [h, w] at the pictures' size."""
    alphas = found.read(frame, sight.canvas)
    stacked = torch.from_numpy(np.stack(list(alphas.values()), axis=-1))
    small = sight.geometry.shrink(stacked).clamp(0, 1).permute(2, 0, 1).contiguous().numpy()
    return dict(zip(alphas, small, strict=True))


def _quality_of(
    mattes: str | Path, found: MatteFiles, shot: Plate, sight: Sight, frames: Sequence[int]
) -> tuple[QualityFile, tuple[str, ...]]:
    """What is known of the mattes, and a note where that is less than tracking would have told."""
    files = sorted(_folder(mattes).glob("*quality.json"))
    known = [quality for path in files if set(found.objects) <= set((quality := QualityFile.read(path)).objects)]
    if len(known) == 1:
        return known[0], ()
    if files:
        raise UsageError(
            f"{len(known)} quality files know the objects {', '.join(found.objects)}",
            remedy="review the mattes that one run wrote, or remove the quality files of others",
            path=files[0],
        )
    told = {f: found.told(f) for f in frames}
    # A file says which keys it was made from, not whose they are.
    keys = sorted({int(n) for _, text in told.values() for n in re.findall(r"(?<!\d)-?\d+", text)})
    plain = dict.fromkeys(keys, tuple(found.objects))
    if any(confidences for confidences, _ in told.values()):
        signals = {f: {n: {"confidence": c} for n, c in of.items()} for f, (of, _) in told.items()}
        return QualityFile(shot.info.stem, tuple(found.objects), plain, signals), ()
    judged: dict[int, dict[str, dict[str, float]]] = {}
    before: dict[str, Picture] = {}
    for frame in frames:
        now = _alphas(found, frame, sight)
        judged[frame] = {}
        for name, alpha in now.items():
            signals_of = {**frame_signals(alpha), **step_signals(alpha, before.get(name))}
            judged[frame][name] = {**signals_of, "confidence": confidence(signals_of)}
        before = now
    note = "the mattes say nothing of their confidence: judged by their looks alone, which knows less"
    return QualityFile(shot.info.stem, tuple(found.objects), plain, judged), (note,)


def _folder(mattes: str | Path) -> Path:
    path = Path(mattes).expanduser()
    return path if path.is_dir() else path.parent
