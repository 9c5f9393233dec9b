"""`rotomem bench`: how fast memory and shots are on this machine, beside what else does the same work."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rotomem.cli.track import parse_positive
from rotomem.errors import EXIT_OK, OutputError, UsageError

if TYPE_CHECKING:
    from rotomem.bench.measure import Line
    from rotomem.bench.peaks import Machine

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

_KERNELS = {
    "read": "a frame reads the memory: top 30 of its elements",
    "consolidate": "old frames become long-term prototypes",
    "attention": "full softmax over memory and frame, local attention",
}


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "bench",
        help="time kernels and whole shots beside plain torch, FAISS and torch's fused attention",
        description="Time what grows with a shot, in one process with what else does the same work: the published "
        "formula in plain torch, FAISS, torch's fused attention. A case's ways take turns, so that a busy machine "
        "disturbs them alike; ratios travel between machines, seconds do not.",
    )
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, text in _KERNELS.items():
        one = what.add_parser(name, help=text, description=f"Time it: {text}.")
        _add_choice(one)
        one.add_argument("--repeats", type=parse_positive, default=7, metavar="N", help="at most (%(default)s)")
        _add_machine(one, seconds=20.0, per="a way of doing one case may take")
        _add_output(one)

    shot = what.add_parser(
        "shot",
        help="whole frames of a clip, beside a straightforward float32 run in torch",
        description="Track a generated clip: frames a second, where the time goes, and the share of pixels that "
        "differ by 1/255 from float32. Models without bundled weights run with random ones.",
    )
    shot.add_argument("--model", action="append", metavar="NAME", help="repeatable (xmem-s and xmem)")
    shot.add_argument(
        "--size",
        action="append",
        metavar="SIZE",
        help="repeatable: 480p, 1080p, 4K or HEIGHTxWIDTH (the first three)",
    )
    shot.add_argument("--frames", type=parse_positive, metavar="N", help="of each clip (60; with --long 10000)")
    shot.add_argument(
        "--long", action="store_true", help="one long clip of a small picture: does a late frame take longer?"
    )
    _add_choice(shot)
    _add_machine(shot, seconds=120.0, per="one clip may take; frames left then are not tracked")
    _add_output(shot)

    everything = what.add_parser(
        "all",
        help="are the kernels right, then every case of every bench",
        description="Check every backend on small cases, then time every case; leave timings.jsonl, tables.md and "
        "plot.png in OUT. One call measures a machine.",
    )
    everything.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder; made where it is missing")
    everything.add_argument("--tiny", action="store_true", help="small cases alone, to see that it runs")
    _add_machine(everything, seconds=500.0, per="all of it may take; cases not begun by then are left out")

    table = what.add_parser("table", help="timings as tables in Markdown, and as a plot")
    table.add_argument("files", nargs="+", metavar="FILE", help="what --json wrote; the last of two alike counts")
    table.add_argument("--into", metavar="FILE", help="put them between the markers of this text")
    table.add_argument("--plot", metavar="FILE", help="draw them to a PNG")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--case", action="append", default=[], metavar="TEXT", help="cases with this in their name")
    parser.add_argument("--objects", type=_numbers, default=(), metavar="N,N", help="cases of so many objects")
    parser.add_argument(
        "--backend", action="append", default=[], metavar="NAME", help="repeatable; all: every instruction set too"
    )


def _add_machine(parser: argparse.ArgumentParser, *, seconds: float, per: str) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (%(default)s)")
    parser.add_argument("--threads", type=parse_positive, metavar="N", help="CPU threads")
    parser.add_argument("--seconds", type=_seconds, default=seconds, metavar="S", help=f"{per} (%(default)g)")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="JSON lines; without FILE to stdout")
    parser.add_argument("--plot", metavar="FILE", help="draw a PNG")


def _numbers(text: str) -> tuple[int, ...]:
    if not all(part.isdigit() and int(part) for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 1,3,10")
    return tuple(map(int, text.split(",")))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    if args.what == "table":
        return _table(args)
    import torch

    from rotomem.bench import everything
    from rotomem.bench.peaks import measure_machine
    from rotomem.models.registry import pick_device

    if args.threads:
        torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    with torch.no_grad(), torch.cuda.device(device if device.type == "cuda" else -1):
        if args.what == "all":
            machine = measure_machine(device)
            lines = everything.run(machine, tiny=args.tiny, seconds=args.seconds)
            done = _tell(lines, args.out / "timings.jsonl")
            return _deliver(args, done)
        cases = _chosen(args)
        machine = measure_machine(device)
        lines = itertools.chain([everything.machine_lines(machine)], cases(machine))
        done = _tell(lines, None if args.json is None else args.json if args.json == "-" else Path(args.json))
    if args.plot:
        _plot(done, args.plot)
    return EXIT_OK


def _chosen(args: argparse.Namespace) -> Callable[[Machine], Iterator[list[Line]]]:
    """What the arguments choose, for a machine that is yet to be measured."""
    from rotomem.bench import attention, consolidate, read, shot
    from rotomem.bench.measure import Settings

    chosen: dict[str, Any] = {"cases": args.case, "objects": args.objects, "backends": args.backend}
    if args.what == "shot" and args.long:
        long = _long(args)
        return lambda machine: iter([[shot.run_long(machine, long)]])
    if args.what == "shot":
        among = shot.shots(args.model or shot.MODELS, args.size or shot.SIZES, args.frames or 60)
        return lambda machine: shot.run(machine, Settings(seconds=args.seconds), among=among, **chosen)
    settings = Settings(args.repeats, args.seconds)
    bench = {"read": read.run, "consolidate": consolidate.run, "attention": attention.run}[args.what]
    return lambda machine: bench(machine, settings, **chosen)


def _long(args: argparse.Namespace) -> Any:
    """The one long clip that is asked for."""
    from rotomem.bench import shot

    if any(len(given or ()) > 1 for given in (args.model, args.size, args.objects)) or args.case or args.backend:
        raise UsageError(
            "--long is one clip of ours",
            remedy="give --model, --size and --objects once, and neither --case nor --backend",
        )
    return shot.Shot(
        args.model[0] if args.model else shot.LONG.model,
        args.size[0] if args.size else shot.LONG.size,
        args.objects[0] if args.objects else shot.LONG.objects,
        args.frames or shot.LONG.frames,
    )


def _tell(cases: Iterator[list[Line]], json_to: Path | str | None) -> list[dict[str, Any]]:
    """Every line as it comes: as text on stdout, or as JSON on "-" or into a file, and then as text on stderr."""
    from rotomem.bench.table import text_line

    done = []
    with ExitStack() as stack:
        out: TextIO | None = sys.stdout if json_to == "-" else None
        if isinstance(json_to, Path):
            try:
                json_to.parent.mkdir(parents=True, exist_ok=True)
                out = stack.enter_context(json_to.open("w", encoding="utf-8"))
            except OSError as error:
                raise OutputError(f"cannot write the timings: {error.strerror}", path=json_to) from None
        for lines in cases:
            for line in lines:
                told = line.as_dict()
                done.append(told)
                print(text_line(told), file=sys.stderr if out else sys.stdout, flush=True)
                if out:
                    print(json.dumps(told, ensure_ascii=False, allow_nan=False), file=out, flush=True)
    return done


def _deliver(args: argparse.Namespace, done: list[dict[str, Any]]) -> int:
    from rotomem.bench import table
    from rotomem.io.atomic import whole_file

    with whole_file(args.out / "tables.md", what="tables") as part:
        part.write_text(table.render(done) + "\n", encoding="utf-8")
    return _plot(done, args.out / "plot.png")


def _table(args: argparse.Namespace) -> int:
    from rotomem.bench import table

    lines = table.read_lines(args.files)
    if args.into:
        table.put_into(args.into, lines)
    else:
        print(table.render(lines))
    return _plot(lines, args.plot) if args.plot else EXIT_OK


def _plot(lines: list[dict[str, Any]], out: str | Path) -> int:
    from rotomem.bench.plot import draw

    draw(lines, out)
    return EXIT_OK
