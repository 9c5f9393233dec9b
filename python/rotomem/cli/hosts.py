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
    install.add_argument("host", choices=("blender", "nuke", "resolve"))
    install.add_argument(
        "-o", "--out", type=Path, default=Path(), metavar="DIR", help="blender: where to write (here)"
    )
    install.add_argument(
        "--user",
        type=Path,
        metavar="DIR",
        help="nuke: its user folder (~/.nuke); resolve: its folder Fusion, which holds Scripts",
    )
    doctor = verbs.add_parser(
        "doctor",
        help="find installed hosts, say what is missing, try what can be tried",
        description="Look for the engine and for Blender, Nuke and Resolve; try Blender in a scratch profile. "
        "Exit code 1 where something is to be done.",
    )
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.add_argument("--no-test", action="store_true", help="only look")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    return _doctor(args) if args.hosts_verb == "doctor" else _install(args)


def _doctor(args: argparse.Namespace) -> int:
    """Tell of the engine and of every host found; 1 where something is to be done."""
    import json
    from dataclasses import asdict

    from rotomem.errors import EXIT_FAILED, EXIT_OK
    from rotomem.host.doctor import examine

    findings = examine(test=not args.no_test)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for f in findings:
            print(f"{f.state:7} {f.what:8} {f.version:9} {f.program}")
            told = {"adapter": f.adapter, "tried": f.test, "do": f.todo}
            print("".join(f"{'':8}{name:8} {text}\n" for name, text in told.items() if text), end="")
        if len(findings) == 1:
            print("no Blender, Nuke or Resolve in the usual places, nor on the PATH")
    return EXIT_OK if all(f.state == "ok" for f in findings) else EXIT_FAILED


def _install(args: argparse.Namespace) -> int:
    """Write it and say what to do with it; exit code."""
    from rotomem.errors import EXIT_OK
    from rotomem.host.install import blender_zip, install_nuke, install_resolve, resolve_folder

    if args.host == "nuke":
        written = install_nuke(args.user or Path.home() / ".nuke")
        then = "start Nuke: Nodes > rotomem > Rotomem, and rotomem > Self test in the menu bar"
    elif args.host == "resolve":
        written = install_resolve(args.user or resolve_folder())
        then = "in Resolve: put the playhead on a clip, then Workspace > Scripts > Rotomem Clip Matte"
    else:
        written = [blender_zip(args.out)]
        then = "in Blender: Edit > Preferences > Add-ons > Install from Disk; then set the engine in its preferences"
    for path in written:
        print(f"wrote {path}")
    print(then)
    return EXIT_OK
