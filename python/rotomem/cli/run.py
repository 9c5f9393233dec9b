"""`rotomem run`: do what a shot project says and what is not done."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rotomem.cli.project import open_project
from rotomem.cli.status import segment_lines
from rotomem.cli.track import add_run_options, carry_out, parse_positive

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rotomem.engine.shot import ShotRun

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "run",
        help="do what a shot project says and what is not done",
        description="Track the stretches between keys whose inputs changed, write the mattes that are not current. "
        "What did not change is neither tracked nor written again. A run that was killed is gone on with.",
        epilog="example: rotomem run shots/sh010 --explain",
    )
    parser.add_argument("project", metavar="PROJECT", nargs="?", help="rotomem.toml or its folder (the nearest one)")
    parser.add_argument("--explain", action="store_true", help="say of every stretch why it is tracked again, or not")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1 (the project's)")
    parser.add_argument("--threads", type=parse_positive, metavar="N", help="CPU threads of the network")
    add_run_options(parser.add_argument_group("run"))


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    from rotomem.project.plan import plan_run
    from rotomem.project.work import at_work, open_store, shot_of

    file = open_project(args).file
    others: dict[str, Any] = {} if args.device is None else {"device": args.device}

    def shot() -> AbstractContextManager[ShotRun]:
        return shot_of(file, **others) if args.dry_run else at_work(file, **others)

    def tell(shot: ShotRun) -> list[str]:
        return segment_lines(plan_run(shot.survey, open_store(file))) if args.explain else []

    return carry_out(shot, args, plate=file.plate, out=file.output, again="run it again", tell=tell)
