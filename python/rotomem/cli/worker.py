"""`rotomem worker`: the engine as a process that a host talks to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "worker",
        help="work for a host: JSON lines on stdin and stdout, or a folder with a request",
        description="Work for a host: requests on stdin, events on stdout, a JSON object a line; with --job one "
        "request from a folder. host/client.py describes both and is the client.",
    )
    parser.add_argument("--job", type=Path, metavar="FOLDER", help="do FOLDER/request.json, tell FOLDER/events.jsonl")


def run(args: argparse.Namespace) -> int:
    """Serve; exit code."""
    from rotomem.host.worker import serve, serve_folder

    return serve() if args.job is None else serve_folder(args.job)
