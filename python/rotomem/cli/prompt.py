"""`rotomem prompt`: clicks, scribbles or a box on one frame become a key mask."""

from __future__ import annotations

import argparse
import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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
    from rotomem.prompts.marks import Prompt

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "prompt",
        help="make a key mask from clicks, scribbles or a box",
        description="Make a soft key mask of one frame of PLATE from clicks, scribbles or a box. Look at it, add "
        "clicks where it is wrong, paint on it if need be; `rotomem track --mask` takes it as any other.",
        epilog="example: rotomem prompt plates/sh010.%04d.exr --frame 1001 --object hero --click 640,360 "
        "--click-out 100,50 -o roto/hero.1001.exr",
    )
    parser.add_argument("plate", metavar="PLATE")
    parser.add_argument("--frame", type=int, required=True, metavar="N", help="the frame to make a key of")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="the key mask, an .exr or .png")
    marks = parser.add_argument_group(
        "what is known",
        "places are in plate pixels, y down from the upper left corner; each click corrects the answer to those "
        "before, so add new ones at the end",
    )
    marks.add_argument(
        "--object", default="object", metavar="NAME", help="that --click and --box speak of (%(default)s)"
    )
    for option, inside, text in (("--click", True, "it is here"), ("--click-out", False, "it is not here")):
        marks.add_argument(
            option, type=partial(_click, inside), dest="clicks", action="append", default=[], metavar="X,Y", help=text
        )
    marks.add_argument("--box", type=_box, metavar="X0,Y0,X1,Y1", help="it lies inside")
    marks.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help='clicks and scribbles of any number of objects: {"hero": [{"in": [x, y]}, {"out": [[x, y], [x, y]], '
        '"radius": 3}], "car": [{"box": [x0, y0, x1, y1]}]}',
    )
    marks.add_argument(
        "--scribbles",
        type=Path,
        metavar="FILE",
        help="a picture painted over the frame: transparent says nothing, dark is background, each colour an object, "
        "named by its code (a single one: by --object)",
    )
    network = parser.add_argument_group("model")
    network.add_argument("--model", help="bundled model or checkpoint file (%(default)s)")
    network.add_argument("--device", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    network.add_argument("--dtype", help="float32, bfloat16, float16, or auto (%(default)s)")
    network.add_argument("--size", type=parse_size, metavar="N", help="shorter side that is worked on (%(default)s)")
    network.add_argument("--threads", type=parse_positive, metavar="N", help="CPU threads of the network")
    add_plate_options(parser, frames=False)
    add_colour_options(parser)
    out = parser.add_argument_group("output")
    out.add_argument("--overlay", type=Path, metavar="FILE", help="also the frame with tinted objects, .png or .jpg")
    out.add_argument("--overwrite", action="store_true", help="replace a picture that rotomem did not write")
    out.add_argument("--json", action="store_true", help="print what was made as JSON")
    set_defaults(parser)


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    prompts = _prompts_without_strokes(args)
    import torch

    from rotomem.prompts.key import draw_key
    from rotomem.quality.overlay import colours_of, overlay, write_jpeg, write_png

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.scribbles:
        from rotomem.prompts.marks import read_scribbles

        with options_of(args, frames=str(args.frame)).open_plate(args.plate) as plate:
            painted = read_scribbles(args.scribbles, plate.info.canvas)
        if len(painted) == 1:
            painted = {args.object: next(iter(painted.values()))}
        for name, prompt in painted.items():
            clicked = prompts.get(name)
            prompts[name] = dataclasses.replace(clicked, strokes=prompt.strokes) if clicked else prompt
    key = draw_key(args.plate, args.frame, prompts, args.out, options_of(args))
    if args.overlay:
        write = write_png if args.overlay.suffix.lower() == ".png" else write_jpeg
        write(args.overlay, overlay(key.picture, key.alphas, colours_of(list(key.alphas))))
    if args.json:
        told = {
            "paths": [str(path) for path in key.paths],
            "frame": key.frame,
            "coverage": key.coverage,
            "masks": list(key.masks),
        }
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return 0
    for name, share in key.coverage.items():
        print(f"{name}: {share:.1%} of frame {key.frame}")
    print(f"{', '.join(map(str, key.paths))}; use it with " + " ".join(f"--mask {mask}" for mask in key.masks))
    return 0


def _prompts_without_strokes(args: argparse.Namespace) -> dict[str, Prompt]:
    from rotomem.prompts.marks import Prompt, click, read_prompts
    from rotomem.types import Window

    prompts = dict(read_prompts(args.prompts)) if args.prompts else {}
    if args.clicks or args.box:
        told = prompts.get(args.object, Prompt())
        box = Window(*args.box) if args.box else told.box
        marks = tuple(click(x, y, inside) for x, y, inside in args.clicks)
        prompts[args.object] = dataclasses.replace(told, marks=(*told.marks, *marks), box=box)
    if not prompts and not args.scribbles:
        raise UsageError("nothing was marked", remedy="give --click X,Y, --box, --prompts FILE or --scribbles FILE")
    return prompts


def _click(inside: bool, text: str) -> tuple[float, float, bool]:
    x, y = _numbers(text, 2, "X,Y")
    return x, y, inside


def _box(text: str) -> tuple[int, ...]:
    box = _numbers(text, 4, "X0,Y0,X1,Y1")
    if box[0] >= box[2] or box[1] >= box[3]:
        raise argparse.ArgumentTypeError(f"'{text}' is an empty box")
    return tuple(round(value) for value in box)


def _numbers(text: str, count: int, form: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or any(value - value for value in values):  # neither nan nor inf is a place
        raise argparse.ArgumentTypeError(f"'{text}' is not {form}")
    return values
