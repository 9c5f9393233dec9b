"""`rotomem eval`: how good a model is on data sets with ground truth, and on clips composed with exact alpha."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rotomem.cli.reproduce import reproduce
from rotomem.cli.tables import print_alpha_table, print_table
from rotomem.cli.track import check_report_file, parse_mem_every, parse_positive
from rotomem.errors import EXIT_OK, EXIT_PARTLY, OutputError, RotomemError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from rotomem.engine.session import Session
    from rotomem.evaluation.alpha import AlphaClipScore
    from rotomem.evaluation.alpha_clips import AlphaClip
    from rotomem.evaluation.davis import Labels, SequenceScore, VideoSequence
    from rotomem.evaluation.ensemble import Ensemble
    from rotomem.models.interface import VOSModel
    from rotomem.train.compose import Composer

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

_Item = TypeVar("_Item", "VideoSequence", "AlphaClip")
_Score = TypeVar("_Score")

_GENERATED = ("motion_blur", "defocus", "thin")
_TABLES = ("stm", "stcn", "xmem", "aot", "stremn")
_OF_LABELS = ("out", "all_frames", "flicker", "protocol", "keys", "clicks", "corrections")
"""Options that change nothing where mattes are measured; their flicker always is."""
_SOURCES = 160
"""Photographs that clips are composed from: reading thousands would take longer than measuring a few clips."""


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "eval",
        help="measure a model on DAVIS or YouTube-VOS folders, on true mattes, on composed clips",
        description="Track every sequence below DIR from its first masks and measure what comes out. DIR holds "
        "JPEGImages and Annotations (or JPEGImages/480p ...): region similarity J and boundary accuracy F; or "
        "JPEGImages and Alphas: errors of soft mattes; or several such data sets. Protocol davis leaves out each "
        "sequence's first and last frame, davis2016 also merges all objects into one; youtube counts every annotated "
        "frame after an object's first.",
    )
    parser.add_argument("dir", metavar="DIR", nargs="?")
    network = parser.add_argument_group("model")
    network.add_argument("--model", default="xmem-s", help="name or checkpoint (default xmem-s)")
    network.add_argument("--device", default="auto")
    network.add_argument("--dtype", default="auto")
    network.add_argument(
        "--size",
        type=_size,
        default=480,
        metavar="N",
        help="shorter side the network sees; 0: as it is (%(default)s)",
    )
    network.add_argument(
        "--multi-scale",
        type=_sizes,
        metavar="N,N",
        help="average over these sizes; one above the picture's own enlarges it",
    )
    network.add_argument("--flip", action="store_true", help="average with the mirrored picture")
    network.add_argument(
        "--mem-every",
        type=parse_mem_every,
        default="model",
        metavar="N",
        help="frames between memory frames, keys, or as the model has it (%(default)s)",
    )
    network.add_argument("--depth", type=int, metavar="N", help="layers that run, where a model has a choice (AOST)")
    network.add_argument("--threads", type=parse_positive, metavar="N", help="CPU threads of the network")

    data = parser.add_argument_group("what is measured")
    data.add_argument(
        "--sequences", nargs="+", metavar="NAME", help="only these; a .txt file of names stands for its lines"
    )
    data.add_argument("--protocol", choices=("auto", "davis", "davis2016", "youtube"), default="auto")
    data.add_argument(
        "--all-frames",
        action="store_true",
        help="track through every frame of JPEGImages_all_frames; count and write those of JPEGImages",
    )
    data.add_argument(
        "--corrections",
        type=parse_positive,
        metavar="N",
        help="add N true keys, one after the other where quality control says so, and N placed evenly; whether "
        "confidence is right; on frames that are keys of neither",
    )
    data.add_argument(
        "--keys",
        type=_keys,
        metavar="N[,N...]",
        help="true masks on N frames, evenly spread (1: the first; 2: the first and the last; ...), tracked both "
        "ways as track does; key frames do not count, nor do those of the other numbers given",
    )
    data.add_argument(
        "--clicks",
        type=parse_positive,
        metavar="N",
        help="not tracking, but `rotomem prompt`: J after 1 to N clicks on each object of the first annotated frame",
    )
    data.add_argument("--limit", type=int, metavar="N", help="only the first N frames of each sequence")
    data.add_argument(
        "--flicker", action="store_true", help="also how steady probabilities are along the picture's motion; slower"
    )

    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="what --generated composes from, or the data sets of --table"
    )
    composed = parser.add_argument_group("composed clips with exact alpha, in the place of DIR")
    composed.add_argument("--generated", choices=_GENERATED, help="what the clips are full of")
    composed.add_argument("--clips", type=int, default=8, metavar="N", help="how many (%(default)s)")
    composed.add_argument("--frames", type=int, default=8, metavar="N", help="frames of each (%(default)s)")
    composed.add_argument("--seed", type=int, default=1, help="the same seed composes the same clips (%(default)s)")

    paper = parser.add_argument_group("a paper's main table, in the place of DIR")
    paper.add_argument(
        "--table",
        choices=_TABLES,
        help="measure its rows again; --data holds davis2016, davis2017, youtube2018 and youtube2019",
    )
    paper.add_argument("--weights", type=Path, metavar="DIR", help="folder of the published checkpoints")

    out = parser.add_argument_group("output")
    out.add_argument("--out", metavar="DIR", help="write label maps to DIR/<data set>/Annotations")
    out.add_argument("--overlays", action="store_true", help="with --out: also pictures with the objects tinted")
    out.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write all figures; without FILE to stdout")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    _check(args)
    import torch
    from rich.console import Console

    import rotomem
    from rotomem.evaluation import figures
    from rotomem.evaluation.alpha_clips import find_alpha_clips
    from rotomem.evaluation.davis import find_sequences

    if args.threads:
        torch.set_num_threads(args.threads)
    console = Console(stderr=True)
    if args.table:
        return reproduce(args, lambda model, sequence, own: _run_sequence(args, model, sequence, console, **own))
    clips = _composed(args) if args.generated else find_alpha_clips(args.dir, args.sequences)
    sequences = []
    if clips:
        _refuse(args, _OF_LABELS, "about label maps, not mattes")
    else:
        sequences = find_sequences(args.dir, args.sequences, protocol=args.protocol, all_frames=args.all_frames)
    model = rotomem.load_model(args.model, device=args.device, dtype=args.dtype)
    started = time.perf_counter()
    measured: dict[str, Any]
    if clips:
        mattes, failed = _each(clips, lambda clip: _run_clip(args, model, clip, console), console)
        measured = figures.alpha_as_dict(mattes)
    elif args.corrections:
        return _run_corrections(args, model, sequences, console)
    elif args.keys:
        return _run_keyed(args, model, sequences, console, started)
    elif args.clicks:
        return _run_clicks(args, model, sequences, console)
    else:
        labels, failed = _each(sequences, lambda one: _run_sequence(args, model, one, console), console)
        measured = figures.as_dict(labels)
    report = _report(args, model, measured, failed, started)
    _write_json(args, report)
    if args.json != "-":
        (print_alpha_table if clips else print_table)(report, sys.stdout)
    return EXIT_PARTLY if failed else EXIT_OK


def _report(
    args: argparse.Namespace, model: VOSModel, measured: dict[str, Any], failed: dict[str, str], started: float
) -> dict[str, Any]:
    """What was measured, and how."""
    import torch

    import rotomem
    from rotomem.engine.report import peak_memory_bytes

    return {
        "version": rotomem.__version__,
        "model": model.name,
        "weights": model.weights_hash,
        "device": str(next(model.parameters()).device),
        "dtype": model.precision,
        "threads": torch.get_num_threads(),
        "size": args.size,
        "multi_scale": args.multi_scale,
        "flip": args.flip,
        "mem_every": model.plan.memory_every if args.mem_every == "model" else args.mem_every,
        "depth": args.depth,
        "limit": args.limit,
        "generated": args.generated,
        "wall_s": round(time.perf_counter() - started, 2),
        "peak_memory_bytes": peak_memory_bytes(),
        "peak_gpu_memory_bytes": max((s["gpu_memory_bytes"] for s in measured["sequences"]), default=0),
        "failed": failed,
        **measured,
    }


def _write_json(args: argparse.Namespace, report: Any) -> None:
    if not args.json:
        return
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    if args.json == "-":
        print(text)
        return
    try:
        Path(args.json).write_text(text + "\n")
    except OSError as error:
        raise OutputError(f"cannot write the report: {error.strerror}", path=args.json) from None


def _run_keyed(
    args: argparse.Namespace, model: VOSModel, sequences: Sequence[VideoSequence], console: Console, started: float
) -> int:
    """Measure with every number of keys asked for, on the same frames; a table and a report each."""
    from rotomem.engine.session import Session
    from rotomem.evaluation import davis, figures, keyed

    def session() -> Session:
        return Session(model, mem_every=args.mem_every, depth=args.depth, size=args.size)

    def measure(count: int, sequence: VideoSequence) -> SequenceScore:
        length = min(len(sequence.images), args.limit or len(sequence.images))
        annotated = sorted(f for f in sequence.annotations if f < length)
        score = keyed.run_keyed(
            sequence,
            session,
            count,
            skip={f for n in args.keys for f in keyed.spread(n, annotated)},
            limit=args.limit,
            on_step=lambda frame: _say_where(console, sequence.name, frame, length),
        )
        s = davis.summarise([score])
        said = f"{score.name}, keys {count}: J&F {s.jf:.3f}  J {s.j.mean:.3f}  F {s.f.mean:.3f}"
        _say_done(console, f"{said}  {score.cost.fps:.1f} fps")
        return score

    reports = []
    for count in args.keys:
        scores, failed = _each(sequences, partial(measure, count), console)
        report = {**_report(args, model, figures.as_dict(scores), failed, started), "keys": count}
        reports.append(report)
        if args.json != "-":
            print_table(report, sys.stdout)
    _write_json(args, reports)
    return EXIT_PARTLY if any(report["failed"] for report in reports) else EXIT_OK


def _run_corrections(
    args: argparse.Namespace, model: VOSModel, sequences: Sequence[VideoSequence], console: Console
) -> int:
    """Place keys where quality control says and evenly; a line a sequence, and all of it as JSON."""
    from rotomem.engine.session import Session
    from rotomem.evaluation import corrections

    def session() -> Session:
        return Session(model, mem_every=args.mem_every, depth=args.depth, size=args.size)

    def measure(sequence: VideoSequence) -> corrections.Corrections:
        total = args.corrections + 1
        return corrections.run_corrections(
            sequence,
            session,
            args.corrections,
            limit=args.limit,
            on_track=lambda place, keys: _say_where(console, f"{sequence.name} {place}", keys - 1, total),
        )

    measured, failed = _each(sequences, measure, console)
    report: dict[str, Any] = {
        "model": model.name,
        "weights": model.weights_hash,
        "size": args.size,
        "corrections": args.corrections,
        **corrections.as_dict(measured),
        "failed": failed,
    }
    if args.json != "-":
        print(f"J&F{'':17} {'  '.join(f'{place:>7}' for place in corrections.PLACES)}")
        for name, jf in [*((s["name"], s["jf"]) for s in report["sequences"]), ("mean", report["all"]["jf"])]:
            print(f"{name:20} {'  '.join(f'{jf[place]:7.3f}' for place in corrections.PLACES)}")
        print("confidence and J     rank correlation; J where flagged, elsewhere; share flagged")
        for place, told in report["all"]["calibration"].items():
            print(f"{place:20} {'  '.join('   -   ' if v is None else f'{v:7.3f}' for v in told.values())}")
    _write_json(args, report)
    return EXIT_PARTLY if failed else EXIT_OK


def _run_clicks(
    args: argparse.Namespace, model: VOSModel, sequences: Sequence[VideoSequence], console: Console
) -> int:
    """Click on every object of every sequence; a line each and the mean."""
    import numpy as np

    from rotomem.evaluation.clicks import run_clicks

    scores, failed = _each(sequences, lambda one: run_clicks(one, model, args.clicks, size=args.size), console)
    mean = [float(j) for j in np.mean([score.j for score in scores], axis=0)]
    _write_json(args, {"model": model.name, "sequences": [asdict(s) for s in scores], "j": mean, "failed": failed})
    if args.json != "-":
        for score in scores:
            objects = f"{score.objects} object{'s' if score.objects > 1 else ''}"
            print(f"{score.name:20} {_figures(score.j)}  {objects}, {score.answer_s:.2f} s an answer")
        print(f"{'mean J':20} {_figures(mean)}  after 1 to {args.clicks} clicks")
    return EXIT_PARTLY if failed else EXIT_OK


def _figures(values: Sequence[float]) -> str:
    return "  ".join(f"{value:.3f}" for value in values)


def _each(
    items: Sequence[_Item], measure: Callable[[_Item], _Score], console: Console
) -> tuple[list[_Score], dict[str, str]]:
    """Scores of what could be measured, and why the others could not, by data set and name.

    Raises the first error where nothing could be measured.
    """
    scores, failed = [], {}
    first: RotomemError | None = None
    for item in items:
        try:
            scores.append(measure(item))
        except RotomemError as error:
            first = first or error
            failed[f"{item.dataset}/{item.name}"] = str(error)
            if len(items) > 1:
                console.print(f"{item.name} failed: {error}", highlight=False, markup=False, soft_wrap=True)
    if first is not None and not scores:
        raise first
    return scores, failed


def _check(args: argparse.Namespace) -> None:
    """Refuse what contradicts itself before anything is loaded."""
    if sum(map(bool, (args.dir, args.generated, args.table))) != 1:
        raise UsageError("what to measure on was not said, or twice", remedy="give DIR, or --generated, or --table")
    if args.table and not (args.data and args.weights):
        raise UsageError("--table without --data and --weights", remedy="give the folders of data sets and weights")
    if args.generated and not args.data:
        raise UsageError("--generated without --data", remedy="give the training folder to compose clips from")
    if args.generated:
        _refuse(args, (*_OF_LABELS, "sequences"), "not about composed clips")
    if args.table:
        _refuse(
            args, ("flicker", "protocol", "sequences", "keys", "clicks", "corrections"), "not about a paper's table"
        )
    if args.corrections:
        others = ("keys", "clicks", "out", "all_frames", "flicker", "multi_scale", "flip")
        _refuse(args, others, "not measured with --corrections")
    if args.keys:
        _refuse(args, ("out", "all_frames", "flicker", "multi_scale", "flip"), "not measured with --keys")
    if args.clicks:
        others = ("keys", "out", "all_frames", "flicker", "multi_scale", "flip", "limit")
        _refuse(args, others, "not measured with --clicks")
    if args.generated and (args.clips < 1 or args.frames < 2 or not args.size):
        raise UsageError(
            f"{args.clips} clips of {args.frames} frames at {args.size or 'full size'}",
            remedy="give 1 clip or more, 2 frames or more, and a --size",
        )
    if args.json not in (None, "-"):
        check_report_file(Path(args.json))
    if args.limit is not None and args.limit < 3:
        raise UsageError(f"--limit {args.limit} leaves no frame to measure", remedy="give 3 or more")
    if args.overlays and not args.out:
        raise UsageError("--overlays without --out", remedy="say where to write with --out DIR")


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Raises UsageError where options that would change nothing were given."""
    given = ["--" + name.replace("_", "-") for name in names if getattr(args, name) not in (None, False, "auto")]
    if given:
        raise UsageError(f"{' and '.join(given)} {'are' if len(given) > 1 else 'is'} {why}", remedy="leave that out")


def _tracker(args: argparse.Namespace, model: VOSModel, **settings: Any) -> Session | Ensemble:
    """A fresh tracker of one sequence; `settings` of its sessions instead of the arguments'."""
    from rotomem.engine.session import Session
    from rotomem.evaluation.ensemble import Ensemble, views

    def session(size: int | None) -> Session:
        return Session(model, **{"mem_every": args.mem_every, "depth": args.depth, "size": size, **settings})

    if not args.multi_scale and not args.flip:
        return session(args.size)
    return Ensemble(views(args.multi_scale or [args.size], flip=args.flip), session)


def _run_sequence(
    args: argparse.Namespace, model: VOSModel, sequence: VideoSequence, console: Console, **settings: Any
) -> SequenceScore:
    """Measure label maps on one sequence, write them where asked, say how it went."""
    from rotomem.evaluation import davis

    def on_frame(index: int, picture: NDArray[np.float32], labels: Labels) -> None:
        total = min(len(sequence.images), args.limit or len(sequence.images))
        _say_where(console, sequence.name, index, total)
        if not args.out or index not in sequence.wanted:
            return
        stem = sequence.images[index].stem
        folder = Path(args.out) / sequence.dataset
        try:
            davis.write_labels(folder / "Annotations" / sequence.name / f"{stem}.png", labels)
            if args.overlays:
                davis.write_overlay(folder / "Overlays" / sequence.name / f"{stem}.jpg", picture, labels)
        except OSError as error:
            raise OutputError(
                f"cannot write labels: {error.strerror}", remedy="choose another --out", path=error.filename
            ) from None

    score = davis.run_sequence(
        sequence, _tracker(args, model, **settings), limit=args.limit, flicker=args.flicker, on_frame=on_frame
    )
    lacking = [
        i
        for i in sequence.wanted
        if davis.counts(sequence.protocol, i, score.frames) and i not in sequence.annotations
    ]
    if lacking and sequence.protocol != "youtube":  # there only some frames are annotated anyway
        console.print(f"{score.name}: frames without annotation, which do not count: {len(lacking)}", highlight=False)
    s = davis.summarise([score])
    _say_done(console, f"{score.name}: J&F {s.jf:.3f}  J {s.j.mean:.3f}  F {s.f.mean:.3f}  {score.cost.fps:.1f} fps")
    return score


def _run_clip(args: argparse.Namespace, model: VOSModel, clip: AlphaClip, console: Console) -> AlphaClipScore:
    """Measure soft mattes on one clip, say how it went."""
    from rotomem.engine.session import Session
    from rotomem.evaluation.alpha import run_alpha, summarise_alpha
    from rotomem.evaluation.coarse import CoarseListener

    def on_frame(index: int) -> None:
        _say_where(console, clip.name, index, min(clip.length, args.limit or clip.length))

    tracker = _tracker(args, model)
    if isinstance(tracker, Session):
        with CoarseListener(model, args.size) as coarse:
            score = run_alpha(clip, tracker, coarse=coarse, limit=args.limit, on_frame=on_frame)
    else:
        score = run_alpha(clip, tracker, limit=args.limit, on_frame=on_frame)
    s = summarise_alpha([score])
    _say_done(
        console, f"{score.name}: SAD {s.matte.sad:.3f}  gradient {s.matte.gradient:.3f}  {score.cost.fps:.1f} fps"
    )
    return score


def _composed(args: argparse.Namespace) -> list[AlphaClip]:
    """Clips with one object and exact alpha, the same for the same arguments and sources."""
    from rotomem.evaluation.alpha_clips import AlphaClip
    from rotomem.train.compose import Composer, defocused, motion_blur, thin_structures
    from rotomem.train.data import SourceConfig, load_pool

    config = {"motion_blur": motion_blur, "defocus": defocused, "thin": thin_structures}[args.generated]()
    composer = Composer(load_pool(args.data, SourceConfig(limit=_SOURCES)), config)
    return [
        AlphaClip(
            args.generated,
            f"seed {seed}",
            ("object",),
            args.frames,
            partial(_compose, composer, seed, args.frames, args.size),
        )
        for seed in range(args.seed, args.seed + args.clips)
    ]


def _compose(
    composer: Composer, seed: int, frames: int, size: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Pictures and mattes of the first clip from a seed whose object can be followed from its first frame."""
    import numpy as np
    import torch

    rng = torch.Generator().manual_seed(seed)
    for _ in range(100):
        clip = composer.compose(rng, clips=1, frames=frames, size=size, objects=1)
        if bool(clip.present[0, 0]):
            for picture, mattes in zip(clip.images[0], clip.coverage[0], strict=True):
                yield np.ascontiguousarray(picture.permute(1, 2, 0).numpy()), mattes.numpy()
            return
    raise UsageError(f"seed {seed} composes no clip whose object can be followed", remedy="give another --seed")


def _say_where(console: Console, name: str, index: int, total: int) -> None:
    if console.is_terminal:
        console.print(f"{name}  {index + 1}/{total}   ", end="\r", highlight=False)


def _say_done(console: Console, line: str) -> None:
    if not console.is_terminal:
        console.print(line, highlight=False, soft_wrap=True)


def _size(text: str) -> int | None:
    try:
        size = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pixels") from None
    if size < 0:
        raise argparse.ArgumentTypeError("a size is 0 or more")
    return size or None


def _keys(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError("keys are numbers of 1 or more, with commas between")
    return list(dict.fromkeys(counts))


def _sizes(text: str) -> list[int]:
    sizes = [_size(part) for part in text.split(",")]
    if None in sizes or len(set(sizes)) != len(sizes):
        raise argparse.ArgumentTypeError("sizes are numbers of pixels, each once, with commas between")
    return [size for size in sizes if size]
