"""`rotomem review`: which frames of a shot's mattes want looking at, on a page that opens from disk."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rotomem.cli.track import add_colour_options, add_plate_options, options_of, parse_size, set_defaults
from rotomem.errors import UsageError

if TYPE_CHECKING:
    from rotomem.engine.options import TrackOptions
    from rotomem.quality.overlay import Colour
    from rotomem.quality.review import Review

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "review",
        help="a page, a movie and a contact sheet of a shot's mattes: what to look at, where a key helps most",
        description="Write index.html (opens from disk), overlay.mp4, sheet.png, timeline.png and quality.json of "
        "the mattes of a shot to a folder.",
        epilog="example: rotomem review mattes/ --plate plates/sh010.%04d.exr -o review/",
    )
    parser.add_argument(
        "mattes",
        metavar="PROJECT|MATTES",
        help="a shot project, the folder that track wrote to, or mattes/hero.%%04d.exr",
    )
    parser.add_argument("--plate", help="sh010.%%04d.exr, a folder, a movie, ...; a project has its own")
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="folder for the page and its pictures")
    parser.add_argument(
        "--size", type=parse_size, metavar="N", help="shorter side of the pictures, or full (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print flags and the suggested key as JSON")
    add_plate_options(parser)
    add_colour_options(parser)
    set_defaults(parser, size=540)


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    from rich.console import Console

    from rotomem.quality.review import review

    mattes, plate, options, colours = _what(args)
    console = Console(stderr=True)

    def on_frame(done: int, of: int) -> None:
        if console.is_terminal:
            console.print(f"{done}/{of}   ", end="\r", highlight=False)

    result = review(mattes, plate, args.out, options=options, colours=colours, on_frame=on_frame)
    for note in result.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    if args.json:
        print(json.dumps(_as_dict(result), indent=2, ensure_ascii=False))
        return 0
    print(result.summary)
    for flag in result.flags:
        stretch = f"{flag.first}" if flag.first == flag.last else f"{flag.first}-{flag.last}"
        print(f"  look at {flag.worst} ({stretch}): {flag.name}, confidence {100 * flag.confidence:.0f} %")
    print(f"open {result.out / 'index.html'}", file=sys.stderr)
    return 0


def _what(args: argparse.Namespace) -> tuple[str, str, TrackOptions, dict[str, Colour]]:
    """Mattes, plate, how it is read, and colours of objects: of a project, or as given."""
    given = Path(args.mattes)
    if given.name != "rotomem.toml" and not (given / "rotomem.toml").is_file():
        if args.plate is None:
            raise UsageError("there is no plate", remedy="give --plate, or a shot project")
        return args.mattes, args.plate, options_of(args), {}
    from rotomem.project.project import Project

    if args.plate is not None:
        raise UsageError("a project has its own plate", remedy="leave --plate out, or give the mattes")
    file = Project.open(given).file
    colours = {o.name: _colour(o.colour) for o in file.objects if o.colour}
    return file.output, file.plate, file.options(size=args.size), colours


def _colour(text: str) -> Colour:
    """`#rrggbb` as three shares of 1."""
    r, g, b = bytes.fromhex(text.removeprefix("#"))
    return r / 255, g / 255, b / 255


def _as_dict(result: Review) -> dict[str, object]:
    suggestion = result.suggestion
    return {
        "page": str(result.out / "index.html"),
        "frames": len(result.frames),
        "flags": [
            {"object": f.name, "first": f.first, "last": f.last, "worst": f.worst, "confidence": f.confidence}
            for f in result.flags
        ],
        "suggestion": suggestion
        and {"frame": suggestion.frame, "objects": suggestion.objects, "gain": suggestion.gain},
        "notes": result.notes,
    }
