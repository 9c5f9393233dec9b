"""`rotomem absent`: say on which frames an object is not there."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rotomem.cli.project import add_project_option, list_objects, open_project

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "absent",
        help="say on which frames an object of a shot project is not there",
        description="On these frames the object's matte is empty, whatever the network sees.",
        epilog="example: rotomem absent hero 1060-1070",
    )
    parser.add_argument("name", metavar="NAME")
    frames = parser.add_mutually_exclusive_group(required=True)
    frames.add_argument("frames", metavar="RANGE", nargs="?", help="all of them: what was said before is replaced")
    frames.add_argument("--none", action="store_true", help="on no frame any longer")
    add_project_option(parser)


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    project = open_project(args)
    project.set_absent(args.name, None if args.none else args.frames)
    project.save()
    print("\n".join(list_objects(project)))
    return 0
