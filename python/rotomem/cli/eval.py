"""`rotomem eval`: J and F of a model on data sets with ground truth."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotomem.errors import OutputError, UsageError

if TYPE_CHECKING:
    from rotomem.evaluation.davis import SequenceScore

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "eval",
        help="measure a model on DAVIS or YouTube-VOS folders",
        description="Track every sequence below DIR from its first masks; measure region similarity J and boundary "
        "accuracy F. DIR holds JPEGImages and Annotations (or JPEGImages/480p ...), or several such data sets. "
        "Protocol davis leaves out each sequence's first and last frame; youtube counts every annotated frame after "
        "an object's first.",
    )
    parser.add_argument("dir", metavar="DIR")
    parser.add_argument("--model", default="xmem-s", help="name or checkpoint (default xmem-s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument(
        "--size", type=_size, default=480, metavar="N", help="shorter side the network sees; 0: as it is"
    )
    parser.add_argument("--mem-every", type=int, default=5, metavar="N", help="frames between memory frames")
    parser.add_argument(
        "--sequences", nargs="+", metavar="NAME", help="only these; a .txt file of names stands for its lines"
    )
    parser.add_argument("--protocol", choices=("auto", "davis", "youtube"), default="auto")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N frames of each sequence")
    parser.add_argument("--out", metavar="DIR", help="write label maps to DIR/<data set>/Annotations")
    parser.add_argument("--overlays", action="store_true", help="with --out: also pictures with the objects tinted")
    parser.add_argument("--json", metavar="FILE", help="write all figures as JSON; - for standard output")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of the network")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    if args.limit is not None and args.limit < 3:
        raise UsageError(f"--limit {args.limit} leaves no frame to measure", remedy="give 3 or more")
    if args.overlays and not args.out:
        raise UsageError("--overlays without --out", remedy="say where to write with --out DIR")
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from rich.console import Console

    import rotomem
    from rotomem.engine.report import peak_memory_bytes
    from rotomem.evaluation import davis

    sequences = davis.find_sequences(args.dir, args.sequences, protocol=args.protocol)
    if args.threads:
        torch.set_num_threads(args.threads)
    model = rotomem.load_model(args.model, device=args.device, dtype=args.dtype)
    console = Console(stderr=True)
    scores: list[SequenceScore] = []
    started = time.perf_counter()
    for sequence in sequences:
        session = rotomem.Session(model, mem_every=args.mem_every, size=args.size)

        def show(
            index: int, picture: NDArray[np.float32], labels: davis.Labels, sequence: davis.VideoSequence = sequence
        ) -> None:
            total = min(len(sequence.images), args.limit or len(sequence.images))
            if console.is_terminal:
                console.print(f"{sequence.name}  {index + 1}/{total}   ", end="\r", highlight=False)
            if not args.out:
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

        score = davis.run_sequence(sequence, session, limit=args.limit, on_frame=show)
        scores.append(score)
        if not console.is_terminal:
            console.print(_line(score), highlight=False, soft_wrap=True)
    report = {
        "version": rotomem.__version__,
        "model": model.name,
        "weights": model.weights_hash,
        "device": str(next(model.parameters()).device),
        "dtype": str(model.compute_dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "size": args.size,
        "mem_every": args.mem_every,
        "limit": args.limit,
        "wall_s": round(time.perf_counter() - started, 2),
        "peak_memory_bytes": peak_memory_bytes(),
        **as_dict(scores),
    }
    if args.json:
        text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
        if args.json == "-":
            print(text)
            return 0
        try:
            Path(args.json).write_text(text + "\n")
        except OSError as error:
            raise OutputError(f"cannot write the report: {error.strerror}", path=args.json) from None
    print_table(scores, report, sys.stdout)
    return 0


def as_dict(scores: list[SequenceScore]) -> dict[str, Any]:
    """All figures as JSON values: data sets with their means, sequences, objects. None where there is no figure."""
    from rotomem.evaluation.davis import summarise
    from rotomem.evaluation.measures import Statistics

    def figure(value: float) -> float | None:
        return round(value, 5) if math.isfinite(value) else None

    def both(j: Statistics, f: Statistics) -> dict[str, Any]:
        return {
            "jf": figure((j.mean + f.mean) / 2),
            **{f"j_{k}": figure(v) for k, v in j.as_dict().items()},
            **{f"f_{k}": figure(v) for k, v in f.as_dict().items()},
        }

    def summary(chosen: list[SequenceScore]) -> dict[str, Any]:
        s = summarise(chosen)
        out = {"objects": s.objects, **both(s.j, s.f)}
        if s.seen:
            out["seen_j"], out["seen_f"] = map(figure, s.seen)
        if s.unseen:
            out["unseen_j"], out["unseen_f"] = map(figure, s.unseen)
        if s.overall is not None:
            out["overall"] = figure(s.overall)
        return out

    names = list(dict.fromkeys(s.dataset for s in scores))
    return {
        "all": summary(scores),
        "datasets": {name: summary([s for s in scores if s.dataset == name]) for name in names},
        "sequences": [
            {
                "dataset": s.dataset,
                "name": s.name,
                "frames": s.frames,
                "size": list(s.size),
                "fps": figure(s.fps),
                **summary([s]),
                "per_object": [
                    {
                        "id": o.object_id,
                        "category": o.category,
                        "seen": o.seen,
                        "key_frame": o.key_frame,
                        "frames": o.frames,
                        **both(o.j, o.f),
                    }
                    for o in s.objects
                ],
            }
            for s in scores
        ],
    }


def print_table(scores: list[SequenceScore], report: dict[str, Any], stream: Any) -> None:
    """The figures as people compare them."""
    from rich.console import Console
    from rich.table import Table

    from rotomem.cli.progress import size_text

    table = Table(
        title=f"{report['model']} ({report['weights'] or 'random weights'}) at {report['size'] or 'full size'}"
    )
    table.add_column("sequence")
    for name in ("frames", "object", "J&F", "J", "recall", "decay", "F", "recall", "decay", "fps"):
        table.add_column(name, justify="right")

    def cells(figures: dict[str, Any]) -> list[str]:
        keys = ("jf", "j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")
        return ["-" if figures[k] is None else f"{figures[k]:.3f}" for k in keys]

    several = len(report["datasets"]) > 1
    for dataset, means in report["datasets"].items():
        for entry in (e for e in report["sequences"] if e["dataset"] == dataset):
            objects = entry["per_object"]
            what = str(objects[0]["id"]) if len(objects) == 1 else f"mean of {len(objects)}"
            speed = "-" if entry["fps"] is None else f"{entry['fps']:.1f}"
            table.add_row(entry["name"], str(entry["frames"]), what, *cells(entry), speed)
            if len(objects) > 1:
                for o in objects:
                    label = f"{o['id']}{' ' + o['category'] if o['category'] else ''}"
                    table.add_row("", "", label, *cells(o), "", style="dim")
        table.add_section()
        table.add_row(dataset, "", f"mean of {means['objects']}", *cells(means), "", style="bold")
        if "overall" in means:
            table.add_row(
                "  seen J, F", "", "", "", f"{means['seen_j']:.3f}", "", "", f"{means['seen_f']:.3f}", "", "", ""
            )
            table.add_row(
                "  unseen J, F", "", "", f"{means['overall']:.3f}", f"{means['unseen_j']:.3f}", "", "",
                f"{means['unseen_f']:.3f}", "", "", "",
            )  # fmt: skip
        table.add_section()
    if several:
        table.add_row("all", "", f"mean of {report['all']['objects']}", *cells(report["all"]), "", style="bold")
    console = Console(file=stream, width=None if stream.isatty() else 110)
    console.print(table)
    frames, seconds = sum(s.frames for s in scores), sum(s.step_s for s in scores)
    console.print(
        f"{frames} frames, {frames / seconds if seconds else math.inf:.1f} fps in the network on {report['device']} "
        f"({report['dtype']}, {report['threads']} threads), peak memory {size_text(report['peak_memory_bytes'])}, "
        f"{report['wall_s']:.0f} s in all",
        highlight=False,
    )


def _line(score: SequenceScore) -> str:
    from rotomem.evaluation.davis import summarise

    s = summarise([score])
    return f"{score.name}: J&F {s.jf:.3f}  J {s.j.mean:.3f}  F {s.f.mean:.3f}  {score.fps:.1f} fps"


def _size(text: str) -> int | None:
    try:
        size = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pixels") from None
    if size < 0:
        raise argparse.ArgumentTypeError("a size is 0 or more")
    return size or None
