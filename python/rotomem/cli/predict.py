"""`rotomem predict`: the frames that come after a clip."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rotomem.cli.track import add_colour_options, add_plate_options, options_of, parse_positive, set_defaults
from rotomem.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "predict",
        help="tell the frames that come after a clip",
        description="Tell the frames that come after CLIP, as display-referred PNG pictures.",
    )
    parser.add_argument("clip", metavar="CLIP")
    parser.add_argument("--model", required=True, type=Path, help="checkpoint of a predictor")
    parser.add_argument("-o", "--out", type=Path, help="folder for the predicted frames")
    parser.add_argument("--count", type=parse_positive, default=4, help="frames to tell (default: 4)")
    parser.add_argument(
        "--held-out", action="store_true", help="do not look at the last COUNT frames; measure against them"
    )
    parser.add_argument("--size", type=parse_positive, help="shorter side of the picture (default: 128)")
    parser.add_argument("--device", help="auto, cpu, cuda")
    parser.add_argument("--json", action="store_true", help="print measures as JSON")
    add_plate_options(parser)
    add_colour_options(parser)
    set_defaults(parser, size=128)


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    if args.out is None and not args.held_out:
        raise UsageError("nothing would come of this", remedy="give -o FOLDER, --held-out, or both")
    from rotomem.engine.prediction import PredictionSession
    from rotomem.engine.sight import Sight
    from rotomem.evaluation.prediction import frame_measures
    from rotomem.models.prediction import STACK, load_predictor

    options = options_of(args)
    session = PredictionSession(load_predictor(args.model, device=args.device))
    with options.open_plate(args.clip) as plate, Sight(plate, options) as sight:
        numbers = plate.frames
        seen = len(numbers) - (args.count if args.held_out else 0)
        if seen < STACK:
            raise UsageError(f"{max(seen, 0)} frames are too few to predict from", remedy=f"give {STACK} or more")
        for number in numbers[:seen]:
            last = sight.picture(plate.read(number))[0]
            session.observe(last)
        truth = [sight.picture(plate.read(number))[0] for number in numbers[seen:]]
    predicted = [session.predict() for _ in range(args.count)]
    if args.out is not None:
        first = numbers[seen - 1] + 1
        files = [args.out / f"{plate.info.stem}.{first + i:04d}.png" for i in range(args.count)]
        for frame, path in zip(predicted, files, strict=True):
            _write(frame, path)
        if not args.json:
            print(f"{args.count} frames, {files[0]} to {files[-1].name}")
    if args.held_out:
        measures = {
            "predicted": frame_measures(predicted, truth),
            "last frame repeated": frame_measures([last] * args.count, truth),
        }
        if args.json:
            print(json.dumps(measures, indent=2))
        else:
            for name, of in measures.items():
                print(f"{name:20}", "  ".join(f"{key} {value:.5g}" for key, value in of.items()))
    return 0


def _write(frame: Tensor, path: Path) -> None:
    """[H, W, 3] 0..1 as a 16-bit PNG that appears whole. Raises OutputError."""
    import OpenImageIO as oiio

    from rotomem.errors import OutputError
    from rotomem.io.atomic import whole_file

    pixels = (frame.contiguous().double() * 65535).round().numpy().astype("uint16")
    picture = oiio.ImageBuf(pixels)
    with whole_file(path, what="frame") as part:
        if not picture.write(str(part), "uint16", "png"):
            raise OutputError(f"cannot write the frame: {picture.geterror()}", path=path)
