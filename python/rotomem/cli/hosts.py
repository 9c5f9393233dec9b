"""`rotomem hosts`: adapters for the programs that artists work in."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "hosts", help="make the adapter of a host ready to install", description="Adapters for the artist's program."
    )
    verbs = parser.add_subparsers(dest="hosts_verb", required=True, metavar="VERB")
    install = verbs.add_parser("install", help="write what the host installs")
    install.add_argument("host", choices=("blender",))
    install.add_argument("-o", "--out", type=Path, default=Path(), metavar="DIR", help="where to write it (here)")


def run(args: argparse.Namespace) -> int:
    """Write it and say what to do with it; exit code."""
    from rotomem.errors import EXIT_OK
    from rotomem.host.install import blender_zip

    path = blender_zip(args.out)
    print(f"wrote {path}")
    print("in Blender: Edit > Preferences > Add-ons > Install from Disk; then set the engine in its preferences")
    return EXIT_OK
