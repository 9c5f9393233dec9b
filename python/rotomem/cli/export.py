"""`rotomem export`: a script or snippet that loads a plate and its mattes in a host."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

_KINDS = {
    "nk": "a Nuke script",
    "comp": "a Fusion composition",
    "setting": "tools to paste into Fusion",
    "blender": "a Python script for Blender",
    "otio": "an OpenTimelineIO timeline",
}


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "export",
        help="write a script that loads plate and mattes: Nuke, Fusion, Blender, OpenTimelineIO",
        description="Write what loads PLATE and MATTES in a host, every object ready to use.",
        epilog="example: rotomem export plates/sh010.%%04d.exr mattes/ --nk -o sh010.nk",
    )
    parser.add_argument("plate", metavar="PLATE", help="as for track")
    parser.add_argument("mattes", metavar="MATTES", nargs="+", help="what track wrote: a folder, or patterns")
    kind = parser.add_mutually_exclusive_group(required=True)
    for name, what in _KINDS.items():
        kind.add_argument(f"--{name}", dest="kind", action="store_const", const=name, help=what)
    parser.add_argument("-o", "--out", metavar="FILE", help="where to write it (stdout)")


def run(args: argparse.Namespace) -> int:
    """Write it; exit code."""
    from rotomem.errors import EXIT_OK
    from rotomem.interop.blender import blender_script
    from rotomem.interop.footage import footage, matte_footage
    from rotomem.interop.fusion import fusion_comp, fusion_setting
    from rotomem.interop.nuke import nuke_script
    from rotomem.interop.timeline import otio_timeline
    from rotomem.io.atomic import whole_file

    writers = {
        "nk": nuke_script,
        "comp": fusion_comp,
        "setting": fusion_setting,
        "blender": blender_script,
        "otio": otio_timeline,
    }
    plate, mattes = footage(args.plate), [one for where in args.mattes for one in matte_footage(where)]
    text = writers[args.kind](plate, mattes)
    if args.out is None:
        sys.stdout.write(text)
        return EXIT_OK
    with whole_file(Path(args.out), what=_KINDS[args.kind]) as part:
        part.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")
    print(f"wrote {args.out}")
    return EXIT_OK
