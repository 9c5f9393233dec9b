"""`rotomem status`: what of a shot project is done, what is not, and why."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rotomem.cli.progress import size_text
from rotomem.cli.project import list_objects, open_project

if TYPE_CHECKING:
    from rotomem.project.plan import PlannedSegment

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "status",
        help="what of a shot project is done, what is not, and why",
        description="Tell of every stretch between keys whether its result is there, and if not, what changed; which "
        "mattes are current; how much the cache holds. Nothing is written.",
    )
    parser.add_argument("project", metavar="PROJECT", nargs="?", help="rotomem.toml or its folder (the nearest one)")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    from rotomem.project.file import range_text

    project = open_project(args)
    status = project.status()
    frames = status.report.frames
    if args.json:
        told = {
            "project": str(project.path),
            "plate": project.file.plate,
            "output": project.file.output,
            "objects": [dataclasses.asdict(o) for o in project.file.objects],
            "frozen": list(project.file.frozen),
            "segments": [dataclasses.asdict(s) for s in status.segments],
            "mattes": {name: frames[name] for name in ("asked", "kept", "left")},
            "cache": {
                "folder": str(project.file.cache),
                "bytes": status.stored,
                "unused_bytes": status.unused,
            },
            "notes": status.report.notes,
        }
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return 0
    print(f"project  {project.path}")
    print(f"plate    {project.file.plate}: frames {frames['asked']}")
    for line in list_objects(project):
        print(f"object {line}")
    for line in segment_lines(status.segments):
        print(line)
    if project.file.frozen:
        print(f"frozen   {range_text(project.file.frozen)}")
    print(f"mattes   {frames['kept']} current, {frames['left']} to do, in {project.file.output}")
    for line in _worth_a_look(status.quality):
        print(f"quality  {line}")
    unused = f"; {size_text(status.unused)} that nothing asks for (`rotomem prune`)" if status.unused else ""
    print(f"cache    {size_text(status.stored)} in {project.file.cache}{unused}")
    return 0


def _worth_a_look(path: Path) -> list[str]:
    """What quality control says of the mattes that were written last."""
    from rotomem.io.quality import QualityFile
    from rotomem.quality.suggest import curves_of, flags, suggest, summary_of

    if not path.is_file():
        return []
    quality = QualityFile.read(path)
    curves = curves_of(quality, tuple(quality.signals))
    found = sorted((flag for curve in curves for flag in flags(curve)), key=lambda flag: flag.worst)
    return [
        summary_of(curves, found, suggest(curves)),
        *(f"at {f.worst} ({f.first}-{f.last}): {f.name}, confidence {100 * f.confidence:.0f} %" for f in found),
    ]


def segment_lines(segments: tuple[PlannedSegment, ...] | list[PlannedSegment]) -> list[str]:
    """A line for each segment: its result is there, or why it is not."""
    width = max([0, *(len(s.frames) for s in segments)])
    states = [f"to do: {s.why}" if s.why else "frozen" if s.frozen else "kept" for s in segments]
    return [
        f"segment  {s.frames:{width}}  {state}  ({', '.join(s.objects)})"
        for s, state in zip(segments, states, strict=True)
    ]
