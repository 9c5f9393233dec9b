"""`rotomem freeze`: mattes of a shot project that stay as they are, whatever changes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rotomem.cli.project import add_project_option, open_project

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "freeze",
        help="keep mattes of a shot project as they are, whatever changes",
        description="The mattes of RANGE stay byte for byte; what lies around them is tied to them as to keys.",
        epilog="example: rotomem freeze 1020-1040",
    )
    frames = parser.add_mutually_exclusive_group(required=True)
    frames.add_argument("frames", metavar="RANGE", nargs="?", help="more frames to freeze")
    frames.add_argument("--none", action="store_true", help="let all follow the project again")
    add_project_option(parser)


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    from rotomem.io.sequence import compact_frames

    project = open_project(args)
    if args.none:
        project.unfreeze()
    else:
        project.freeze(args.frames)
    project.save()
    print(f"frozen {compact_frames(project.file.frozen)}")
    return 0
