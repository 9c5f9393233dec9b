"""`rotomem train`: train the bundled model, look at what it is trained on, export its weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rotomem.errors import UsageError

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser("train", help="train a model, draw its training clips, export its weights")
    what = parser.add_subparsers(dest="what", required=True, metavar="{xmem-s,sheet,export}")

    model = what.add_parser("xmem-s", help="train the bundled model from nothing")
    model.add_argument("--data", required=True, type=Path, help="folder with manifest.json, photographs and masks")
    model.add_argument("--out", required=True, type=Path, help="folder for checkpoint.pt and log.jsonl")
    model.add_argument("--minutes", type=float, help="how long to train; the schedule is stretched to it")
    model.add_argument("--steps", type=int, help="train this many steps instead")
    model.add_argument("--threads", type=int, default=1, help="CPU threads")
    model.add_argument("--device", default="cpu", help="cpu or cuda")
    model.add_argument("--seed", type=int, default=1)
    model.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint.pt where there is one")

    sheet = what.add_parser("sheet", help="draw a contact sheet of training clips")
    sheet.add_argument("--data", required=True, type=Path)
    sheet.add_argument("--out", required=True, type=Path, help="picture to write")
    sheet.add_argument("--clips", type=int, default=12)
    sheet.add_argument("--frames", type=int, default=4)
    sheet.add_argument("--size", type=int, default=192)
    sheet.add_argument("--objects", type=int, default=2)
    sheet.add_argument("--seed", type=int, default=1)

    export = what.add_parser("export", help="write a checkpoint's averaged weights as float16 safetensors")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("out", type=Path)
    export.add_argument("--version", default="1")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    if args.what == "xmem-s":
        return _train(args)
    if args.what == "sheet":
        return _sheet(args)
    from rotomem.train.checkpoint import export_weights

    path = export_weights(args.checkpoint, args.out, version=args.version)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    return 0


def _train(args: argparse.Namespace) -> int:
    import torch

    from rotomem.train import loop
    from rotomem.train.recipes.xmem_s import XMemS
    from rotomem.train.schedule import Budget

    if args.minutes is None and args.steps is None:
        raise UsageError("how long to train was not said", remedy="give --minutes or --steps")
    torch.set_num_threads(args.threads)
    kept: list[dict[str, float]] = []

    def report(entry: dict[str, float]) -> None:
        kept.append(entry)
        if len(kept) == 20:
            mean = {k: sum(e[k] for e in kept) / len(kept) for k in ("loss", "overlap", "compose_s", "step_s")}
            print(
                f"step {entry['step']:6.0f}  {entry['elapsed_s'] / 60:6.1f} min  loss {mean['loss']:.4f}"
                f"  overlap {mean['overlap']:.3f}  rate {entry['rate']:.2e}"
                f"  {60 / mean['step_s']:.1f} steps/min ({100 * mean['compose_s'] / mean['step_s']:.0f} % composing)",
                flush=True,
            )
            kept.clear()

    recipe = XMemS(seed=args.seed)
    path = loop.train(
        recipe,
        recipe.open(args.data, torch.device(args.device)),
        args.out,
        Budget(args.minutes, args.steps),
        device=args.device,
        resume=args.resume,
        report=report,
    )
    print(f"checkpoint {path}")
    return 0


def _sheet(args: argparse.Namespace) -> int:
    import torch

    from rotomem.train.compose import Composer
    from rotomem.train.data import load_pool
    from rotomem.train.sheet import draw_sheet, write_picture

    composer = Composer(load_pool(args.data))
    rng = torch.Generator().manual_seed(args.seed)
    clips = composer.compose(rng, clips=args.clips, frames=args.frames, size=args.size, objects=args.objects)
    write_picture(draw_sheet(clips), args.out)
    print(args.out)
    return 0
