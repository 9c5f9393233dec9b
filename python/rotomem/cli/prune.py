"""`rotomem prune`: drop from a shot project's cache what nothing asks for any longer."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rotomem.cli.progress import size_text
from rotomem.cli.project import open_project

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "prune",
        help="drop from a shot project's cache what nothing asks for any longer",
        description="What the project asks for as it stands is kept. Of the rest, which an edit that is taken back "
        "would find again, the latest results stay that --keep-bytes has room for.",
    )
    parser.add_argument("project", metavar="PROJECT", nargs="?", help="rotomem.toml or its folder (the nearest one)")
    parser.add_argument("--keep-bytes", type=_size, default=0, metavar="N", help="such as 500M or 2G (0)")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    count, freed = open_project(args).prune(args.keep_bytes)
    print(f"{count} result{'' if count == 1 else 's'} dropped, {size_text(freed)}")
    return 0


def _size(text: str) -> int:
    factors = {"K": 10, "M": 20, "G": 30, "T": 40}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in factors else (text, "")
    if not number.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no number of bytes")
    return int(number) << factors.get(unit, 0)
