"""`rotomem export`: a script or snippet that loads a plate and its mattes in a host."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rotomem.interop import KINDS

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "export",
        help="write a script that loads plate and mattes: Nuke, Fusion, Blender, OpenTimelineIO",
        description="Write what loads PLATE and MATTES in a host, every object ready to use.",
        epilog="example: rotomem export plates/sh010.%04d.exr mattes/ --nk -o sh010.nk",
    )
    parser.add_argument("plate", metavar="PLATE", help="as for track")
    parser.add_argument("mattes", metavar="MATTES", nargs="+", help="what track wrote: a folder, or patterns")
    kind = parser.add_mutually_exclusive_group(required=True)
    for name, what in KINDS.items():
        kind.add_argument(f"--{name}", dest="kind", action="store_const", const=name, help=what)
    parser.add_argument("-o", "--out", metavar="FILE", help="where to write it (stdout)")


def run(args: argparse.Namespace) -> int:
    """Write it; exit code."""
    from rotomem.errors import EXIT_OK
    from rotomem.interop.export import exported, write_export

    text = exported(args.kind, args.plate, args.mattes)
    if args.out is None:
        sys.stdout.write(text)
        return EXIT_OK
    write_export(args.kind, text, Path(args.out))
    print(f"wrote {args.out}")
    return EXIT_OK
