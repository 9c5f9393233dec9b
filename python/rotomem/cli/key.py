"""`rotomem key`: keys of a shot project's objects, added, replaced, removed."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from rotomem.cli.project import add_actions, add_project_option, list_objects, named_masks, open_project
from rotomem.errors import UsageError

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "key",
        help="add, replace, remove keys of a shot project",
        description="A key on a bad frame corrects it and its neighbours up to the next keys; `rotomem run` redoes "
        "only those.",
        epilog="example: rotomem key add hero@1042=roto/hero.1042.exr",
    )
    actions = add_actions(parser)
    add = actions.add_parser("add", help="add keys; one that stands on that frame is replaced")
    add.add_argument("masks", nargs="+", metavar="NAME@FRAME=PATH[:CHANNEL]")
    remove = actions.add_parser("remove", help="take keys away; their pictures stay")
    remove.add_argument("keys", nargs="+", metavar="NAME@FRAME")
    listing = actions.add_parser("list", help="the objects and their keys")
    for action in (add, remove, listing):
        add_project_option(action)


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    from rotomem.project.project import key_text

    project = open_project(args)
    if args.action == "add":
        for spec in named_masks(args.masks, project):
            project.add_key(str(spec.name), spec.frame, key_text(spec.path, spec.channel))
            if spec.frame in project.file.frozen:
                print(f"{spec.frame} is frozen: its matte stays as it is until `rotomem freeze --none`")
    elif args.action == "remove":
        for text in args.keys:
            found = re.fullmatch(r"(.+)@\s*([+-]?\d+)", text)
            if not found:
                raise UsageError(f"'{text}' is no key", remedy="write NAME@FRAME, for example hero@1042")
            project.remove_key(found[1].strip(), int(found[2]))
    if args.action != "list":
        project.save()
    print("\n".join(list_objects(project)))
    return 0
