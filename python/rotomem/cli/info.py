"""`rotomem info`: what was understood of a plate, or what there is on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rotomem.cli.track import add_colour_options, add_plate_options, options_of, set_defaults
from rotomem.errors import ColourError

if TYPE_CHECKING:
    from rotomem.io.plate import PlateInfo

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "info",
        help="say what is understood of a plate, or what runs on this machine",
        description="Say what is understood of PLATE: frames, windows, channels, colour, and what track would do. "
        "Without PLATE, say what this machine offers: versions, devices, kernels.",
    )
    parser.add_argument("plate", metavar="PLATE", nargs="?")
    add_plate_options(parser, untold="named, and looked past")
    add_colour_options(parser)
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    set_defaults(parser, missing=None)


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    if args.plate is None:
        machine = describe_machine()
        if args.json:
            print(json.dumps(machine, indent=2, ensure_ascii=False))
        else:
            _tell(machine)
        return 0
    # Not told what to do about gaps, info looks at what is there, and says that track would not.
    options = options_of(args, missing=args.missing or "skip")
    with options.open_plate(args.plate) as plate:
        info = plate.info
    if info.missing and args.missing is None:
        info = dataclasses.replace(info, notes=(*_without_gap_note(info), _gap_note(info)))
    try:
        colour = options.decide_colour(info).sentence
    except ColourError as error:
        if args.input_space or args.display or args.display_view or args.ocio_config:
            raise
        colour = f"undecided: {error}"
    facts = describe(info)
    facts["colour decision"] = colour.removeprefix("Colour: ")
    if args.json:
        print(json.dumps({**_plain(info), "colour_decision": colour}, indent=2, ensure_ascii=False))
        return 0
    _tell(facts, info.notes)
    return 0


def _tell(facts: dict[str, str], notes: Sequence[str] = ()) -> None:
    width = max(map(len, facts))
    for name, value in (*facts.items(), *(("note", note) for note in notes)):
        print(f"{name:{width}}  {value}")


def describe_machine() -> dict[str, str]:
    """Name of a fact -> the fact: versions, what torch sees, which kernels run on it and why."""
    import torch

    import rotomem
    from rotomem.ops import backend

    seen = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "rotomem": rotomem.__version__,
        "torch": torch.__version__,
        "torch devices": ", ".join(["cpu", *seen]),
        "kernels, CPU": backend.explain(),
        "kernels, CUDA": backend.explain_cuda(),
    }


def describe(info: PlateInfo) -> dict[str, str]:
    """Name of a fact -> the fact, in the order they are read; what a plate does not say is left out."""
    from rotomem.io.sequence import compact_frames

    facts = {
        "plate": info.path,
        "kind": info.kind,
        "frames": f"{compact_frames(info.frames)} ({len(info.frames)})",
        "missing": compact_frames(info.missing) if info.missing else "",
        "display window": str(info.display_window),
        "canvas": str(info.canvas) if info.canvas != info.display_window else "",
        "pixel aspect": f"{info.pixel_aspect:g}",
        "channels": ", ".join(info.channels),
        "layers": ", ".join(info.layers),
        "layer read": info.layer,
        "views": ", ".join(info.views),
        "view read": info.view or "",
        "parts": ", ".join(info.parts),
        "pixel type": info.pixel_type,
        "compression": info.compression or "",
        "rate": f"{float(info.fps):.3f} fps ({info.fps})" if info.fps else "",
        "timecode": info.timecode or "",
        "colour hints": ", ".join(f"{k}={_short(v)}" for k, v in info.colour_hints.items()),
    }
    return {name: value for name, value in facts.items() if value}


def _gap_note(info: PlateInfo) -> str:
    from rotomem.io.sequence import compact_frames

    return f"frames {compact_frames(info.missing)} are missing: track stops, unless --missing is skip, hold or black"


def _without_gap_note(info: PlateInfo) -> list[str]:
    return [note for note in info.notes if not note.endswith("are missing and left out")]


def _short(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return "(" + " ".join(_short(v) for v in value) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(info: PlateInfo) -> dict[str, Any]:
    """PlateInfo as JSON values; windows as [x0, y0, x1, y1], half-open."""
    out: dict[str, Any] = {}
    for field in dataclasses.fields(info):
        value = getattr(info, field.name)
        if field.name in ("display_window", "canvas"):
            value = [value.x0, value.y0, value.x1, value.y1]
        elif field.name == "fps" and value is not None:
            value = str(value)
        elif field.name == "colour_hints":
            value = json.loads(json.dumps(dict(value), default=str))
        out[field.name] = value
    return out
