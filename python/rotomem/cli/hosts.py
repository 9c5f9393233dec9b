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
    install.add_argument("host", choices=("blender", "nuke"))
    install.add_argument(
        "-o", "--out", type=Path, default=Path(), metavar="DIR", help="blender: where to write (here)"
    )
    user = Path.home() / ".nuke"
    install.add_argument("--user", type=Path, default=user, metavar="DIR", help="nuke: its user folder (~/.nuke)")


def run(args: argparse.Namespace) -> int:
    """Write it and say what to do with it; exit code."""
    from rotomem.errors import EXIT_OK
    from rotomem.host.install import blender_zip, install_nuke

    if args.host == "nuke":
        written = install_nuke(args.user)
        then = "start Nuke: Nodes > rotomem > Rotomem, and rotomem > Self test in the menu bar"
    else:
        written = [blender_zip(args.out)]
        then = "in Blender: Edit > Preferences > Add-ons > Install from Disk; then set the engine in its preferences"
    for path in written:
        print(f"wrote {path}")
    print(then)
    return EXIT_OK
