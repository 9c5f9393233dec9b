"""`rotomem preview`: small pictures of a shot's mattes, every Nth frame first."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotomem.cli.track import (
    add_colour_options,
    add_plate_options,
    options_of,
    parse_positive,
    parse_size,
    set_defaults,
)
from rotomem.errors import UsageError

if TYPE_CHECKING:
    from rotomem.engine.options import TrackOptions
    from rotomem.engine.preview import PreviewFrame

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

_SIZE, _EVERY = 240, 8


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "preview",
        help="small pictures of the mattes at once, every Nth frame first",
        description="Track PLATE at low resolution, every Nth frame first and then those between, and write a small "
        "picture of each frame as soon as it is known. PLATE may be a shot project (rotomem.toml or its folder), "
        "which has keys and settings. Pictures of an earlier preview are replaced.",
        epilog="example: rotomem preview plates/sh010.%04d.exr --mask hero@1001=roto/hero.exr -o look/",
    )
    parser.add_argument("plate", metavar="PLATE")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="folder for the pictures")
    parser.add_argument("-m", "--mask", dest="masks", action="append", metavar="[NAME@]FRAME=PATH[:CHANNEL]")
    look = parser.add_argument_group("pictures")
    look.add_argument("--every", type=parse_positive, default=_EVERY, metavar="N", help="coarse step (%(default)s)")
    look.add_argument(
        "--size", type=parse_size, metavar="N", help="shorter side of network and picture (%(default)s)"
    )
    look.add_argument(
        "--show",
        choices=("overlay", "matte"),
        default="overlay",
        help="tinted plate, or white on black (%(default)s)",
    )
    look.add_argument("--format", dest="picture", choices=("jpg", "png"), default="jpg", help="(%(default)s)")
    network = parser.add_argument_group("model")
    network.add_argument("--model", help="bundled model or checkpoint file (%(default)s)")
    network.add_argument("--device", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    network.add_argument("--dtype", help="float32, bfloat16, float16, or auto (%(default)s)")
    network.add_argument("--threads", type=parse_positive, metavar="N", help="CPU threads of the network")
    add_plate_options(parser)
    add_colour_options(parser)
    parser.add_argument("--json", action="store_true", help="a line of JSON for every picture")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    set_defaults(parser, size=_SIZE)


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    started = time.perf_counter()
    plate, masks, options = _what(args)
    import torch

    from rotomem.engine.preview import Preview

    if args.threads:
        torch.set_num_threads(args.threads)
    with Preview(plate, masks, options, every=args.every) as preview:
        loaded = time.perf_counter()
        total = len(preview.plate.frames)
        for done, shown in enumerate(preview.frames(), 1):
            path = args.out / f"{preview.plate.info.stem}_preview.{shown.frame:04d}.{args.picture}"
            _write(args, preview.names, shown, path)
            if not args.quiet:
                now = time.perf_counter()
                _say(args, shown, path, done, total, now - started, now - loaded)
    return 0


def _what(args: argparse.Namespace) -> tuple[str | Path, Any, TrackOptions]:
    """Plate, masks and options: of a project, or as given."""
    given = Path(args.plate)
    if given.name == "rotomem.toml" or (given / "rotomem.toml").is_file():
        from rotomem.project.project import Project

        if args.masks:
            raise UsageError("a project has its own keys", remedy="leave --mask out, or give the plate")
        file = Project.open(given).file
        return file.plate, file.masks(), file.options(size=args.size)
    if not args.masks:
        raise UsageError("there is no key mask", remedy="give --mask FRAME=PATH, or a shot project")
    return args.plate, args.masks, options_of(args, format=None)


def _write(args: argparse.Namespace, names: dict[int, str], shown: PreviewFrame, path: Path) -> None:
    import numpy as np

    from rotomem.quality.overlay import colours_of, matte_picture, overlay, write_jpeg, write_png

    colours = colours_of(list(names.values()))
    if shown.picture is None:
        return
    blank = np.zeros(shown.picture.shape[:2], np.float32)
    alphas = {name: shown.mattes.get(number, blank) for number, name in names.items()}
    look = overlay(shown.picture, alphas, colours) if args.show == "overlay" else matte_picture(alphas, colours)
    (write_png if args.picture == "png" else write_jpeg)(path, look)


def _say(
    args: argparse.Namespace, shown: PreviewFrame, path: Path, done: int, total: int, wall: float, loaded: float
) -> None:
    written = str(path) if shown.picture is not None else None
    if args.json:
        told = {"frame": shown.frame, "level": shown.level, "path": written, "done": done, "total": total}
        print(json.dumps({**told, "seconds": round(wall, 3), "since_loaded": round(loaded, 3)}), flush=True)
    else:
        print(f"Frame {shown.frame} ({done}/{total})  {shown.level}  {written or 'nothing to see'}", flush=True)
