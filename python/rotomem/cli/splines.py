"""`rotomem splines`: mattes as closed Bezier curves that an artist can edit."""

from __future__ import annotations

import argparse
import dataclasses
import json


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "splines",
        help="mattes as few, editable Bezier curves: JSON, Silhouette, Nuke, Blender",
        description="Trace MATTES: closed Bezier curves around what is covered by at least a half, holes as curves "
        "that subtract. A curve keeps its points, in number and order, for as long as its outline stays one, and its "
        "points move with it.",
        epilog="example: rotomem splines mattes/ -o hero.fxs --only hero --keys 0.5",
    )
    parser.add_argument("mattes", metavar="MATTES", help="the folder that track wrote to, or mattes/hero.%%04d.exr")
    parser.add_argument(
        "-o",
        "--out",
        required=True,
        metavar="FILE",
        help=".json (also a key mask for track), .fxs (Silhouette), .nk (Nuke), or .py, a script that makes masks in "
        "Blender",
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="this object; give it again for more")
    parser.add_argument("--frames", metavar="RANGE", help="1001-1100x2,1120 (all)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1.0,
        metavar="PX",
        help="how far a curve may be off its outline, on nine frames of ten (%(default)s); more gives fewer points",
    )
    parser.add_argument(
        "--keys",
        type=float,
        default=0.0,
        metavar="PX",
        help="leave out key frames where the outline is then not more than this off (%(default)s: none)",
    )
    parser.add_argument(
        "--least-area", type=float, default=32.0, metavar="PX2", help="smaller islands and holes go (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""

    from rich.console import Console

    from rotomem.interop.splines import save_splines, trace_mattes
    from rotomem.splines.files import check_writable
    from rotomem.splines.trace import TraceOptions

    check_writable(args.out)
    options = TraceOptions(args.tolerance, args.keys, args.least_area)
    console = Console(stderr=True)

    def on_frame(done: int, of: int) -> None:
        if console.is_terminal:
            console.print(f"{done}/{of}   ", end="\r", highlight=False)

    splines, objects = trace_mattes(
        args.mattes, only=args.only, frames=args.frames, options=options, on_frame=on_frame
    )
    for note in splines.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    save_splines(splines, args.out)
    if args.json:
        print(json.dumps([dataclasses.asdict(o) for o in objects], indent=2, ensure_ascii=False))
        return 0
    for o in objects:
        shapes = f"{o.shapes} shape{'s' if o.shapes > 1 else ''}, {o.keys} keys"
        print(
            f"{o.name}: {o.points:.0f} points a frame, {shapes}; "
            f"J against the matte {o.overlap:.4f}, least {o.least_overlap:.4f}"
        )
    return 0
