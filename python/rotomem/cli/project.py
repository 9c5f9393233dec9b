"""What the verbs that edit a shot project share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rotomem.errors import UsageError

if TYPE_CHECKING:
    from rotomem.io.masks import MaskSpec
    from rotomem.project.project import Project

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_project_option(parser: argparse.ArgumentParser) -> None:
    """Which project: its file or folder; the nearest one above the present folder where it is not said."""
    parser.add_argument(
        "-C", "--project", metavar="PROJECT", help="rotomem.toml or its folder (the nearest one, from here upwards)"
    )


def add_actions(parser: argparse.ArgumentParser) -> SubParsers:
    """`rotomem VERB ACTION`."""
    return parser.add_subparsers(dest="action", required=True, metavar="ACTION")


def open_project(args: argparse.Namespace) -> Project:
    """The project that the arguments mean."""
    from rotomem.project.project import Project

    return Project.open(args.project)


def named_masks(texts: list[str], project: Project) -> list[MaskSpec]:
    """NAME@FRAME=PATH each, looked at: readable, of the plate's size, on one of its frames."""
    from rotomem.io.masks import objects_of, parse_masks

    found = []
    with project.file.options().open_plate(project.file.plate) as plate:
        for text in texts:
            for spec in parse_masks(text, plate.info):
                if spec.name is None:
                    raise UsageError(f"'{text}' does not say whose key it is", remedy="write NAME@FRAME=PATH")
                objects_of(spec, plate.info)
                found.append(spec)
    return found


def list_objects(project: Project) -> list[str]:
    """The objects with their keys, a line each."""
    from rotomem.io.sequence import compact_frames

    file = project.file
    names = {o.id: o.name for o in file.objects}
    width = max([4, *(len(o.name) for o in file.objects)])
    lines = []
    for o in file.objects:
        whole = file.owner(o.id)
        facts = [
            f"keys {', '.join(map(str, o.keys))}" if o.keys else f"sum of {', '.join(names[p] for p in o.parts)}",
            f"group {o.group}" if o.group else "",
            f"absent {compact_frames(o.absent)}" if o.absent else "",
            f"part of {whole.name}" if whole else "",
            "" if o.deliver else "not delivered",
        ]
        lines.append(f"{o.id:3d}  {o.name:{width}}  {'; '.join(filter(None, facts))}")
    return lines
