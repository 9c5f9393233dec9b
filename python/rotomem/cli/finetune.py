"""`rotomem train finetune`: tune a model to a shot's, or a show's, own key frames."""

from __future__ import annotations

import argparse
import sys
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
from rotomem.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

CPU_MINUTES, GPU_MINUTES = 4.0, 3.0


class _AddToShots(argparse.Action):
    """--plate begins a shot, --mask adds a key to the shot begun last."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, option: str | None = None
    ) -> None:
        shots = getattr(namespace, self.dest) or []
        if "--plate" in self.option_strings:
            shots = [*shots, (value, [])]
        elif not shots:
            parser.error("--mask stands before any --plate; give the plate it was drawn on first")
        else:
            shots[-1][1].append(value)
        setattr(namespace, self.dest, shots)


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to those of `train`."""
    parser = subparsers.add_parser(
        "finetune",
        help="tune a model to your own shot or show, from its key frames",
        description="Tune a model to the key frames of a shot, or of several, and write weights for "
        "`rotomem track --model`. With three or more keys one is kept out at first: where tuning does not tell it "
        "better than the untuned model does, nothing is written.",
        epilog="example: rotomem train finetune --plate sh010.%04d.exr --mask hero@1001=hero.1001.exr "
        "--mask hero@1040=hero.1040.exr --mask hero@1080=hero.1080.exr --out sh010.safetensors",
    )
    parser.add_argument(
        "--plate", dest="shots", action=_AddToShots, required=True, metavar="PLATE", help="again for another shot"
    )
    parser.add_argument(
        "-m",
        "--mask",
        dest="shots",
        action=_AddToShots,
        required=True,
        metavar="[NAME@]FRAME=PATH[:CHANNEL]",
        help="a key of the plate before it, as `rotomem track` takes it",
    )
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="NAME.safetensors")
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"everything counted (default: {CPU_MINUTES:g} on a CPU, {GPU_MINUTES:g} on a GPU)",
    )
    parser.add_argument("--steps", type=parse_positive, help="train this many steps instead")
    parser.add_argument("--data", type=Path, metavar="DIR", help="mix in clips generated from a training folder")
    parser.add_argument("--force", action="store_true", help="write the weights even where they are no better")
    parser.add_argument("--model", help="what to begin from: bundled model or checkpoint file (%(default)s)")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    parser.add_argument("--size", type=parse_size, metavar="N", help="as the shots will be tracked (%(default)s)")
    parser.add_argument("--rim", type=int, metavar="N", help="likewise")
    parser.add_argument("--threads", type=parse_positive, metavar="N", help="CPU threads")
    add_plate_options(parser)
    add_colour_options(parser)
    set_defaults(parser)


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    import torch

    from rotomem.models.registry import pick_device
    from rotomem.train.schedule import Budget
    from rotomem.train.show import finetune

    if args.threads:
        torch.set_num_threads(args.threads)
    minutes, steps = args.minutes, args.steps
    if minutes is None and steps is None:
        minutes = GPU_MINUTES if pick_device(args.device).type == "cuda" else CPU_MINUTES
    result = finetune(
        args.shots,
        args.out,
        Budget(minutes, steps),
        options=options_of(args),
        data=args.data,
        force=args.force,
        report=_Report(),
        say=print,
    )
    print(f"checked on {result.checked}: overlap {result.before:.3f} untuned, {result.after:.3f} tuned")
    if result.written is None:
        print(
            "rotomem: tuning did not help, so nothing was written; give more keys or more time, or --force",
            file=sys.stderr,
        )
        return EXIT_FAILED
    if not result.better:
        print("rotomem: warning: the tuned weights are no better than what they began from", file=sys.stderr)
    size = result.written.stat().st_size / 2**20
    print(f"{result.written}: {size:.1f} MiB after {result.steps} steps in {result.seconds / 60:.1f} minutes")
    return EXIT_OK


class _Report:
    """A line for every tenth of the way."""

    def __init__(self) -> None:
        self._told = 0
        self._losses: list[float] = []
        self._overlaps: list[float] = []

    def __call__(self, entry: dict[str, float]) -> None:
        self._losses.append(entry["loss"])
        self._overlaps.append(entry["overlap"])
        if int(entry["progress"] * 10) > self._told:
            self._told = int(entry["progress"] * 10)
            n = len(self._losses)
            print(
                f"{entry['progress']:4.0%}  step {entry['step']:.0f}  {entry['elapsed_s'] / 60:.1f} min"
                f"  loss {sum(self._losses) / n:.3f}  overlap {sum(self._overlaps) / n:.3f}",
                flush=True,
            )
            self._losses, self._overlaps = [], []
