"""`rotomem object`: objects of a shot project, added, removed, renamed, merged."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rotomem.cli.project import add_actions, add_project_option, list_objects, named_masks, open_project

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "object",
        help="add, remove, rename, merge objects of a shot project, without touching the others",
        description="None of these tracks another object again; renaming and merging track nothing at all.",
        epilog="example: rotomem object add car@1001=roto/car.1001.exr",
    )
    actions = add_actions(parser)
    add = actions.add_parser("add", help="add objects with their keys; or bring a removed one back by its name")
    add.add_argument("masks", nargs="+", metavar="NAME@FRAME=PATH[:CHANNEL]")
    add.add_argument("--group", help="track it together with the objects of that group (on its own)")
    add.add_argument("--colour", metavar="#RRGGBB", help="its colour in overlays")
    remove = actions.add_parser("remove", help="deliver objects no more; others of their group stay as they are")
    remove.add_argument("names", nargs="+", metavar="NAME")
    rename = actions.add_parser("rename", help="call an object otherwise")
    rename.add_argument("name", metavar="NAME")
    rename.add_argument("to", metavar="TO")
    merge = actions.add_parser("merge", help="deliver the sum of several objects as one")
    merge.add_argument("names", nargs="+", metavar="NAME")
    merge.add_argument("--into", required=True, metavar="NAME")
    split = actions.add_parser("split", help="deliver the parts of a merged object again")
    split.add_argument("name", metavar="NAME")
    listing = actions.add_parser("list", help="the objects and their keys")
    for action in (add, remove, rename, merge, split, listing):
        add_project_option(action)


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    from rotomem.project.project import key_text

    project = open_project(args)
    if args.action == "add":
        back = [text for text in args.masks if "=" not in text]
        for name in back:
            project.add_object(name)
        keys: dict[str, dict[int, str]] = {}
        for spec in named_masks([text for text in args.masks if text not in back], project):
            keys.setdefault(str(spec.name), {})[spec.frame] = key_text(spec.path, spec.channel)
        for name, of_name in keys.items():
            project.add_object(name, of_name, group=args.group, colour=args.colour)
    elif args.action == "remove":
        for name in args.names:
            project.remove_object(name)
    elif args.action == "rename":
        project.rename_object(args.name, args.to)
    elif args.action == "merge":
        project.merge_objects(args.names, args.into)
    elif args.action == "split":
        project.split_object(args.name)
    if args.action != "list":
        project.save()
    print("\n".join(list_objects(project)))
    return 0
