"""`rotomem new`: begin a shot project."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rotomem.cli.project import list_objects
from rotomem.errors import UsageError

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "new",
        help="begin a shot project: a file that says what is to be done, which `run` does",
        description="Write FOLDER/rotomem.toml: the plate, the objects with their keys, where mattes go, settings. "
        "It is text: edit it, or use `rotomem key`, `object`, `absent` and `freeze`. `rotomem run` does it.",
        epilog="example: rotomem new plates/sh010.%04d.exr --mask hero@1001=roto/hero.1001.exr -o mattes/ "
        "--set size=720",
    )
    parser.add_argument("plate", metavar="PLATE", help="sh010.%%04d.exr, sh010.####.exr, a folder, a movie, ...")
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default=".", help="where the project lives (here)")
    parser.add_argument("-o", "--out", required=True, help="a folder, mattes/hero.%%04d.exr, or mattes/hero.mov")
    parser.add_argument(
        "-m",
        "--mask",
        dest="masks",
        action="append",
        required=True,
        metavar="[NAME@]FRAME=PATH[:CHANNEL]",
        help="as `track` has it; give it again for more objects and more keys",
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of `track`, by its long name: size=720, input_space=ACEScg, format=png, ...",
    )


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    from rotomem.project.project import Project

    settings = dict(_setting(text) for text in args.settings)
    project = Project.create(args.folder, args.plate, args.masks, args.out, settings=settings)
    project.save()
    print(f"project  {project.path}")
    for line in list_objects(project):
        print(f"object {line}")
    print("`rotomem run` does it; `rotomem status` tells what is done")
    return 0


def _setting(text: str) -> tuple[str, Any]:
    """`size=720` as a name and what TOML would read of it, else the text itself."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    name, sign, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not (name and sign):
        raise UsageError(f"'{text}' is no setting", remedy="write NAME=VALUE, for example size=720")
    try:
        return name, tomlkit.value(value).unwrap()
    except TOMLKitError:
        return name, value
