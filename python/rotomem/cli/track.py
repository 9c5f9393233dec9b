"""`rotomem track`: a plate and key masks in, a matte for every frame out."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rotomem.cli.progress import STYLES, Reporter, make_progress, size_text
from rotomem.errors import RotomemError, UsageError
from rotomem.matting.settings import EDGES

if TYPE_CHECKING:
    from rotomem.engine.options import TrackOptions
    from rotomem.engine.report import Report
    from rotomem.engine.shot import ShotRun

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    from rotomem.engine.options import DIRECTIONS

    parser = subparsers.add_parser(
        "track",
        help="write a matte for every frame of a plate, from key masks on some of them",
        description="Write a matte for every frame of PLATE, from key masks on some of them.",
        epilog="example: rotomem track plates/sh010.%04d.exr --mask 1001=roto/hero.png -o mattes/",
    )
    parser.add_argument("plate", metavar="PLATE", help="sh010.%%04d.exr, sh010.####.exr, a folder, a movie, ...")
    parser.add_argument("-o", "--out", required=True, help="a folder, mattes/hero.%%04d.exr, or mattes/hero.mov")
    parser.add_argument(
        "-m",
        "--mask",
        dest="masks",
        action="append",
        required=True,
        metavar="[NAME@]FRAME=PATH[:CHANNEL]",
        help="a label map, or one object's soft matte; give it again for more objects and more keys. An empty matte "
        "says that the object is absent from that frame on, to its next key that shows it. PATH may be splines "
        "(.json, .fxs, .nk); NAME=SPLINES takes every frame they are keyed on",
    )
    add_plate_options(parser)
    add_colour_options(parser)

    keys = parser.add_argument_group("keys")
    keys.add_argument(
        "--direction",
        choices=DIRECTIONS,
        help="passes away from the keys: both, blended between two keys, or those of one direction (%(default)s)",
    )
    keys.add_argument(
        "--neighbours",
        type=int,
        metavar="N",
        help="a stretch between two keys also learns from N keys more on either side (%(default)s)",
    )
    keys.add_argument(
        "--absent",
        nargs="+",
        metavar="NAME@RANGE",
        help="frames on which an object is nowhere: hero@1020-1030,1044",
    )

    network = parser.add_argument_group("model")
    network.add_argument("--model", help="bundled model or checkpoint file (%(default)s)")
    network.add_argument("--device", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    network.add_argument(
        "--dtype",
        help="float32, bfloat16, float16 for all of the network, or auto: the fastest type this machine multiplies, "
        "float32 where a matte would show the difference (%(default)s)",
    )
    network.add_argument(
        "--size", type=parse_size, metavar="N", help="shorter side the network sees, or full (%(default)s)"
    )
    network.add_argument(
        "--roi",
        metavar="WHERE",
        help="auto: the network looks at a window that follows the objects, where that shows them finer than the "
        "whole frame does; WxH+X+Y: at that window, in pixels of the plate; off (%(default)s)",
    )
    network.add_argument(
        "--rim", type=int, metavar="N", help="replicate the picture's border by N network pixels (16 at --size 480)"
    )
    network.add_argument("--threads", type=parse_positive, metavar="N", help="CPU threads of the network")

    memory = parser.add_argument_group("memory")
    memory.add_argument(
        "--mem-every",
        type=parse_mem_every,
        metavar="N",
        help="memorise every Nth frame, only those with a mask (keys), or as the model does (%(default)s)",
    )
    memory.add_argument(
        "--top-k", type=_top_k, metavar="N", help="elements a pixel attends to, all, or model: its own (%(default)s)"
    )
    memory.add_argument("--min-working-frames", type=int, metavar="N")
    memory.add_argument("--max-working-frames", type=int, metavar="N")
    memory.add_argument("--prototypes", type=int, metavar="N")
    memory.add_argument("--max-long-term", type=int, metavar="N")
    memory.add_argument(
        "--long-term",
        action=argparse.BooleanOptionalAction,
        help="bound the memory, or keep every memory frame so that it grows (default: as the model was published)",
    )
    memory.add_argument(
        "--memory-gib",
        type=_gib,
        metavar="N",
        help="GiB that a memory which grows may fill before frames are kept less often, or none (%(default)s)",
    )
    memory.add_argument(
        "--include-last",
        action=argparse.BooleanOptionalAction,
        help="keep the previous frame in memory until the next one is kept (default: as the model was published)",
    )
    memory.add_argument("--deep-update-every", type=int, metavar="N", help="-1: with every memory frame")

    add_edge_options(parser)
    mattes = parser.add_argument_group("mattes")
    mattes.add_argument("--format", choices=("exr", "png", "mov"), help="default: what OUT's name says, else exr")
    mattes.add_argument(
        "--depth",
        type=_depth,
        action=_Depth,
        metavar="{half,float,8,16,10}",
        help="default: half, or 16 for PNG; 1 to 7 are the layers that run, of a model that has a choice (AOST)",
    )
    mattes.add_argument(
        "--rgb",
        choices=("none", "keep", "premult", "straight"),
        help="RGB beside: the plate's; that times the matte; or the object's own colour, estimated (%(default)s)",
    )
    mattes.add_argument("--per-object", action="store_true", help="one sequence for each object")
    mattes.add_argument("--compression", help="lossless EXR compression (%(default)s)")
    mattes.add_argument("--only", metavar="NAME,...", help="deliver these objects; all are tracked")
    mattes.add_argument(
        "--also",
        metavar="KIND,...",
        help="beside the mattes: crypto (Cryptomatte), packed (four mattes an RGBA), trimap, movie (ProRes 4444)",
    )
    mattes.add_argument(
        "--trimap-band",
        type=int,
        metavar="PX",
        help="plate pixels of a trimap left unknown on either side of an edge (%(default)s)",
    )

    run = parser.add_argument_group("run")
    existing = run.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume",
        action="store_true",
        help="redo what is missing, damaged, or made with other settings or from other plate files",
    )
    existing.add_argument("--overwrite", action="store_true", help="replace mattes that exist")
    add_run_options(run)
    set_defaults(parser)


def set_defaults(parser: argparse.ArgumentParser, **others: object) -> None:
    """Give arguments the defaults of the TrackOptions fields they are named after; `others` have their own."""
    from rotomem.engine.options import TrackOptions

    parser.set_defaults(**{**{f.name: f.default for f in dataclasses.fields(TrackOptions)}, **others})


def options_of(args: argparse.Namespace, **others: Any) -> TrackOptions:
    """Parsed arguments as TrackOptions; `others` instead of what was parsed. Raises UsageError."""
    from rotomem.engine.options import TrackOptions

    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(TrackOptions)}
    return TrackOptions(**{**given, **others})


def add_plate_options(parser: argparse.ArgumentParser, *, untold: str = "%(default)s", frames: bool = True) -> None:
    """Which part of a plate.

    untold   what happens where --missing is not given, for the help
    frames   whether a range may be asked for
    """
    plate = parser.add_argument_group("plate")
    if frames:
        plate.add_argument("--frames", metavar="RANGE", help="1001-1100, 1001-1100x2,1120 (all)")
    plate.add_argument(
        "--missing",
        choices=("error", "skip", "hold", "black"),
        help=f"what to do about frames that are not there ({untold})",
    )
    plate.add_argument("--layer", help="layer or part that holds the picture")
    plate.add_argument("--view", help="view of a multi-view plate")


def add_colour_options(parser: argparse.ArgumentParser) -> None:
    """What the network sees; mattes are never transformed."""
    colour = parser.add_argument_group("colour of what the network sees")
    colour.add_argument("--input-space", metavar="NAME", help="the plate's colour space, by its OCIO name or alias")
    colour.add_argument(
        "--transform",
        choices=("encode", "view", "none"),
        help="to sRGB with a shoulder, through a display view, or none (%(default)s)",
    )
    colour.add_argument("--exposure", type=float, metavar="STOPS")
    colour.add_argument("--display", metavar="NAME")
    colour.add_argument("--display-view", metavar="NAME")
    colour.add_argument("--ocio-config", metavar="PATH", help="default: $OCIO, else a built-in config")


def add_edge_options(parser: argparse.ArgumentParser) -> None:
    """How edges are finished at plate resolution; key frames stay as drawn."""
    edges = parser.add_argument_group("edges, in plate pixels; key frames stay as drawn")
    edges.add_argument(
        "--edge",
        choices=EDGES,
        help="learned: what the network's own refinement says; guided: that, fitted to the plate's colours; "
        "off: neither (%(default)s)",
    )
    edges.add_argument("--choke", type=float, metavar="PX", help="move edges inwards, outwards below 0 (%(default)g)")
    edges.add_argument("--feather", type=float, metavar="PX", help="soften by so much to either side (%(default)g)")
    edges.add_argument(
        "--despeckle", type=float, metavar="PX", help="drop islands smaller across, but the largest (%(default)g)"
    )
    edges.add_argument("--fill-holes", type=float, metavar="PX", help="close holes smaller across (%(default)g)")
    edges.add_argument(
        "--stabilise",
        type=float,
        metavar="0..1",
        help="lean on neighbouring frames, along the picture's motion, so that edges tremble less (%(default)g)",
    )


def parse_size(text: str) -> int | None:
    """A working size, or None for `full`; for argparse."""
    return None if text == "full" else parse_positive(text, " or full")


def _top_k(text: str) -> int | str | None:
    if text == "model":
        return text
    return None if text == "all" else parse_positive(text, " or all")


def _gib(text: str) -> float | None:
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of GiB, nor none") from None


def parse_mem_every(text: str) -> int | str | None:
    """What --mem-every takes: a number of frames, "keys", or "model"."""
    if text == "model":
        return text
    return None if text == "keys" else parse_positive(text, ", keys, or model")


_BIT_DEPTHS = ("half", "float", "8", "16", "10")


def _depth(text: str) -> int | str:
    """Of mattes a text, of a model a number."""
    if text in _BIT_DEPTHS:
        return text
    if text.isdecimal() and 1 <= int(text) < 8:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is none of {', '.join(_BIT_DEPTHS)}, and no number of layers")


class _Depth(argparse.Action):
    """--depth of mattes, or of the model; it may be given for both."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, "depth" if isinstance(values, str) else "model_depth", values)


def parse_positive(text: str, otherwise: str = "") -> int:
    """A whole number of 1 or more; `otherwise` is what else the message says was possible."""
    with contextlib.suppress(ValueError):
        if (value := int(text)) >= 1:
            return value
    raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more{otherwise}")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    from rotomem.engine.shot import ShotRun

    def shot() -> ShotRun:
        return ShotRun(args.plate, args.masks, args.out, options_of(args))

    return carry_out(shot, args, plate=args.plate, out=args.out, again="run the same command with --resume")


def add_run_options(run: argparse._ArgumentGroup) -> None:
    """How a run is told of, for `carry_out`."""
    run.add_argument("--dry-run", action="store_true", help="look at everything, write nothing")
    run.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write a report; without FILE to stdout")
    run.add_argument("--progress", choices=STYLES, default="auto", help="a bar, or lines for a farm (%(default)s)")
    run.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors and warnings")


def carry_out(
    shot: Callable[[], AbstractContextManager[ShotRun]],
    args: argparse.Namespace,
    *,
    plate: str,
    out: str,
    again: str,
    tell: Callable[[ShotRun], list[str]] = lambda shot: [],
) -> int:
    """Do the work of a shot, and tell of it as the arguments of `add_run_options` and --threads say; exit code.

    shot        opens the run
    plate, out  for the report of a run that never got so far
    again       what to do after an interruption
    tell        more lines about what is going to be done
    """
    if args.json not in (None, "-"):
        check_report_file(Path(args.json))
    # With the report on stdout everything else goes to stderr.
    stream = sys.stderr if args.json == "-" else sys.stdout
    report: Report | None = None
    try:
        report = _carry_out(shot, args, stream, again, tell)
        return report.exit_code
    except KeyboardInterrupt as error:
        report = getattr(error, "report", None)
        raise
    except Exception as error:
        report = getattr(error, "report", None) or _report_of(plate, out, error)
        if isinstance(error, RotomemError) and report.frames_written:
            _hint(f"{report.frames_written} frames are whole; {again} to go on", args, stream)
            print(f"rotomem: {error}", file=sys.stderr)
            return report.exit_code
        raise
    finally:
        if report is not None and args.json is not None:
            _write_report(report, args.json)


def _report_of(plate: str, out: str, error: Exception) -> Report:
    """The report of a run that ended before it looked at anything."""
    from rotomem import __version__
    from rotomem.engine.report import Report

    report = Report(version=__version__, plate=plate, out=out)
    report.fail(error)
    return report


def _carry_out(
    open_shot: Callable[[], AbstractContextManager[ShotRun]],
    args: argparse.Namespace,
    stream: TextIO,
    again: str,
    tell: Callable[[ShotRun], list[str]],
) -> Report:
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    with open_shot() as shot:
        report = shot.report
        for line in () if args.quiet else (*plan_lines(report), *tell(shot)):
            print(line, file=stream)
        if args.dry_run:
            shot.dry_run()
            if not args.quiet:
                for line in _dry_run_lines(report):
                    print(line, file=stream)
            return report
        reporter = make_progress("none" if args.quiet else args.progress, stream)
        with reporter, _stop_on_signals(reporter) as stop:
            shot.run(progress=reporter, cancel=stop)
    for warning in report.warnings:
        print(f"rotomem: warning: {warning}", file=sys.stderr)
    if not args.quiet:
        for line in outcome_lines(report):
            print(line, file=stream)
    if report.status == "interrupted":
        left = report.frames_asked - report.frames_written - report.frames_kept
        print(f"rotomem: interrupted with {left} frames left; {again} to go on", file=sys.stderr)
    return report


def plan_lines(report: Report) -> list[str]:
    """What is about to happen, a fact a line."""
    width, height = report.canvas
    aspect = "" if report.pixel_aspect == 1 else f", pixel aspect {report.pixel_aspect:g}"
    lines = [
        f"plate    {report.plate}: frames {report.frames['asked']} ({report.frames_asked}), {width}x{height}{aspect}",
        *(f"key      {frame}: {', '.join(names)}" for frame, names in report.keys.items()),
        f"colour   {report.colour.removeprefix('Colour: ')}",
        f"model    {report.model} {report.weights} on {report.device}, {report.dtype}, memory by {report.backend};"
        f" it sees {report.network_size[0]}x{report.network_size[1]}",
        f"mattes   {_span(report.outputs)}",
        *(f"{kind:<8} {_span(paths)}" for kind, paths in report.also.items()),
        *(f"object   {name}" + (f" as {layer}" if layer != name else "") for name, layer in report.objects.items()),
        *(f"note     {note}" for note in report.notes),
    ]
    return lines


def _span(paths: list[str]) -> str:
    return paths[0] + (f" ... {paths[-1]}" if len(paths) > 1 else "")


def _dry_run_lines(report: Report) -> Iterator[str]:
    if report.files_existing:
        yield f"note     {report.files_existing} of the files exist"
    kept = f", {report.frames_kept} kept" if report.frames_kept else ""
    left = report.frames_asked - report.frames_kept
    yield f"dry run: nothing was written; {left} frame{'' if left == 1 else 's'} would be{kept}"


def outcome_lines(report: Report) -> list[str]:
    """What happened: how many, how fast, where the time went."""
    if report.status == "nothing to do":
        return [f"all {report.frames_kept} mattes are there and current; nothing to do"]
    stages = ", ".join(
        f"{name} {report.seconds_per_frame[stage]:.3f}"
        for stage, name in (
            ("read", "read"),
            ("colour", "colour"),
            ("network", "network"),
            ("memory_read", "memory read"),
            ("finish", "finish"),
            ("write", "write"),
        )
        if stage in report.seconds_per_frame
    )
    kept = f", {report.frames_kept} kept" if report.frames_kept else ""
    written = f"{report.frames_written} matte{'' if report.frames_written == 1 else 's'} written"
    lines = [f"{written}{kept} in {report.seconds.get('wall', 0):.1f} s"]
    if stages:
        lines[0] += f", {report.fps:.2f} frames/s"
        lines.append(f"busy seconds per frame: {stages}")
    lines += [f"region of interest, {told}" for told in report.regions]
    lines.append(f"peak memory {size_text(report.peak_memory_bytes)}")
    return [*lines, *_quality_lines(report)]


def _quality_lines(report: Report) -> Iterator[str]:
    """What to look at, and the key that would help most."""
    if not report.quality:
        return
    from rotomem.io.quality import QualityFile
    from rotomem.quality.suggest import curves_of, flags, suggest, summary_of

    quality = QualityFile.read(Path(report.quality))
    curves = curves_of(quality, list(quality.signals))
    found = [flag for curve in curves for flag in flags(curve)]
    yield f"quality: {summary_of(curves, found, suggest(curves))}"


@contextlib.contextmanager
def _stop_on_signals(reporter: Reporter) -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, _: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        with contextlib.suppress(Exception):  # a full pipe, a print inside a print
            sys.stderr.write("rotomem: stopping when the frames begun are whole; once more stops at once\n")

    caught = [signal.SIGINT, signal.SIGTERM]
    before = {number: signal.signal(number, handle) for number in caught}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hint(text: str, args: argparse.Namespace, stream: TextIO) -> None:
    if not args.quiet:
        print(text, file=stream)


def check_report_file(path: Path) -> None:
    """An hour of work should not end in a report that cannot be written."""
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(
            "the report cannot be written there", remedy="give a file in a folder that exists", path=path
        )


def _write_report(report: Report, where: str) -> None:
    if where == "-":
        print(report.to_json())
        return
    from rotomem.io.atomic import whole_file

    with whole_file(Path(where), what="report") as part:
        part.write_text(report.to_json() + "\n", encoding="utf-8")
