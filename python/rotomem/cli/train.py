"""`rotomem train`: train a model, look at what it is trained on and how it went, export its weights."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rotomem.cli import finetune
from rotomem.cli.track import parse_positive
from rotomem.train.scene.config import KINDS

if TYPE_CHECKING:
    from rotomem.train.loop import Recipe

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

_RECIPES = {
    "xmem-s": ("xmem_s.XMemS", "train the bundled model"),
    "prediction": ("prediction.PredictionRecipe", "train STReMN's video prediction on generated scenes"),
    "refine": ("refine.Refine", "put a head for fractional alpha on a trained XMem (--start)"),
    "stm": ("stm.STMRecipe", "train STM on the data sets of its paper"),
    "stcn": ("stcn.STCNRecipe", "train STCN on the data sets of its paper"),
    "xmem": ("xmem.XMemRecipe", "train XMem on the data sets of its paper"),
    "stremn": ("stremn.STReMNRecipe", "train STReMN on the data sets of its paper"),
    "aot": ("aot.AOTRecipe", "train AOT on the data sets of its paper"),
    "aotv2": ("aot.AOTv2Recipe", "train AOTv2 on the data sets of its paper"),
    "aost": ("aot.AOSTRecipe", "train AOST on the data sets of its paper"),
}
"""What a recipe is called here: its class in `train/recipes`, and what it does."""

_OURS = ("xmem-s", "prediction", "refine")
"""Recipes that are no published ones: one stage, one folder of our own layout, or none at all."""


class _RecipeParser(argparse.ArgumentParser):
    """Help that ends with what a published recipe says of itself, looked up when asked for: torch is slow to load."""

    module = ""

    def format_help(self) -> str:
        if self.module:
            self.formatter_class = argparse.RawDescriptionHelpFormatter
            self.epilog = import_module(f"rotomem.train.recipes.{self.module}").__doc__
        return super().format_help()


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser("train", help="train a model, draw its clips and curves, export its weights")
    what: argparse._SubParsersAction[Any] = parser.add_subparsers(
        dest="what", required=True, metavar="WHAT", parser_class=_RecipeParser
    )
    for name, (where, summary) in _RECIPES.items():
        recipe = what.add_parser(name, help=summary)
        if name in _OURS:
            from_folder = name != "prediction"
            recipe.add_argument(
                "--data",
                required=from_folder,
                type=Path,
                help="folder that the recipe draws its clips from"
                if from_folder
                else "not needed: scenes are generated",
            )
        else:
            recipe.module = where.partition(".")[0]
            _add_published(recipe)
        _add_recipe(recipe, length_needed=name in _OURS)

    finetune.add_parser(what)

    plot = what.add_parser("plot", help="draw the curves of a run")
    plot.add_argument("folder", type=Path, help="folder of the run, or its log.jsonl")
    plot.add_argument("--out", type=Path, help="picture to write (default: plot.png beside the log)")

    sheet = what.add_parser("sheet", help="draw a contact sheet of training clips")
    sheet.add_argument("--data", required=True, type=Path)
    sheet.add_argument("--out", required=True, type=Path, help="picture to write")
    sheet.add_argument("--clips", type=int, default=12)
    sheet.add_argument("--frames", type=int, default=4)
    sheet.add_argument("--size", type=int, default=192)
    sheet.add_argument("--objects", type=int, default=2)
    sheet.add_argument("--seed", type=int, default=1)
    sheet.add_argument(
        "--kind",
        choices=(*KINDS, "all"),
        default="mixed",
        help="show one kind of clip only; all: a sheet of each, its kind added to the name (default: as in training)",
    )

    export = what.add_parser("export", help="write a checkpoint's averaged weights as float16 safetensors")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("out", type=Path)
    export.add_argument("--version", default="1")


def _add_published(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage", help="which of the stages told below (default: the main training)")
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        nargs="+",
        metavar="DIR",
        help="the stage's data sets, as they are unpacked",
    )
    parser.add_argument(
        "--imagenet", nargs="+", metavar="FILE", help="weights that the encoders of a first stage begin with"
    )


def _add_recipe(parser: argparse.ArgumentParser, *, length_needed: bool) -> None:
    parser.add_argument("--out", required=True, type=Path, help="folder for checkpoint.pt, log.jsonl and plot.png")
    length = parser.add_mutually_exclusive_group(required=length_needed)
    length.add_argument("--minutes", type=float, help="how long to train, resumed runs included")
    length.add_argument("--steps", type=parse_positive, help="train this many steps instead")
    parser.add_argument("--pause-after", type=float, metavar="MINUTES", help="stop then, to be resumed another time")
    parser.add_argument("--resume", action="store_true", help="go on from OUT, else from --deliver, else begin")
    parser.add_argument("--start", metavar="WEIGHTS", help="begin from these: a bundled model's name or a file")
    parser.add_argument("--rate", type=float, help="highest learning rate")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KNOB=VALUE",
        help="any knob of the recipe, as clip.boundary=0.5",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, or auto (a GPU where there is one)")
    parser.add_argument("--threads", type=parse_positive, default=1, help="CPU threads")
    parser.add_argument(
        "--deliver", type=Path, metavar="FOLDER", help="leave weights, log, plot and checkpoint there, 16 MiB a file"
    )
    parser.add_argument("--compact", action="store_true", help="deliver the checkpoint at half its size, rounded")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    return {"plot": _plot, "sheet": _sheet, "export": _export, "finetune": finetune.run}.get(args.what, _train)(args)


def _train(args: argparse.Namespace) -> int:
    import torch

    from rotomem.models.registry import pick_device
    from rotomem.train import loop
    from rotomem.train.deliver import collect, deliver, make_folder
    from rotomem.train.ranks import joined, share, wait
    from rotomem.train.recipes.staged import StagedRecipe
    from rotomem.train.schedule import Budget

    torch.set_num_threads(args.threads)
    recipe = _recipe(args)
    if isinstance(recipe, StagedRecipe) and args.minutes is None and args.steps is None:
        args.steps = recipe.stage.iterations
    budget = Budget(args.minutes, args.steps)
    with joined(pick_device(args.device)) as device:
        first = share().rank == 0
        for folder in filter(None, (args.out, args.deliver)):
            make_folder(folder)
        if first and args.resume and args.deliver is not None and not (args.out / "checkpoint.pt").exists():
            collect(args.deliver, args.out)
        wait()
        if isinstance(recipe, StagedRecipe) and not (args.out / "checkpoint.pt").exists():
            recipe.check_beginning()
        source = recipe.open(args.data, device)
        with _Teller(args.minutes, args.steps, sys.stderr) if first else nullcontext() as report:
            path = loop.train(
                recipe,
                source,
                args.out,
                budget,
                device=device,
                resume=args.resume,
                pause_s=None if args.pause_after is None else args.pause_after * 60,
                report=report,
            )
        if first:
            print(f"checkpoint {path}")
        if first and args.deliver is not None:
            files = deliver(args.out, args.deliver, compact=args.compact)
            print(f"delivered {len(files)} files, {sum(files.values()) / 2**20:.1f} MiB, to {args.deliver}")
    return 0


def _recipe(args: argparse.Namespace) -> Recipe:
    """The recipe with the knobs that were turned."""
    from rotomem.train.knobs import turned
    from rotomem.train.recipes.staged import StagedRecipe

    module, kind = _RECIPES[args.what][0].split(".")
    recipe: Recipe = getattr(import_module(f"rotomem.train.recipes.{module}"), kind)()
    given = {"peak": args.rate, "seed": args.seed, "start": args.start}
    if isinstance(recipe, StagedRecipe):
        recipe = recipe if args.stage is None else recipe.at(args.stage)
        given["imagenet"] = args.imagenet
    settings = [f"{knob}={value!r}" for knob, value in given.items() if value is not None]
    return turned(recipe, settings + args.set)


class _Teller:
    """How a run goes: a bar on a terminal, else a line every ten seconds; means over the steps since the last."""

    def __init__(self, minutes: float | None, steps: int | None, stream: TextIO) -> None:
        self._stream = stream
        self._of = f"{minutes:g} min" if minutes is not None else f"{steps} steps"
        self._since: list[dict[str, float]] = []
        self._said = 0.0
        self._rich: Any = None

    def __enter__(self) -> _Teller:
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._rich = Progress(
                TextColumn("{task.description}"),
                BarColumn(None),
                TimeRemainingColumn(),
                console=Console(file=self._stream),
            )
            self._task = self._rich.add_task(f"of {self._of}", total=1.0)
            self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich.stop()

    def __call__(self, entry: dict[str, float]) -> None:
        if "loss" not in entry:
            found = "  ".join(f"{k[11:]} {v:.4f}" for k, v in entry.items() if k.startswith("validation_"))
            self._line(f"step {entry['step']:6.0f}  validation: {found}")
            return
        self._since.append(entry)
        if time.monotonic() - self._said < (0.5 if self._rich is not None else 10):
            return
        self._said = time.monotonic()
        count = len(self._since)
        loss, overlap, compose, took, speed = (
            sum(e.get(k, 0.0) for e in self._since) / count
            for k in ("loss", "overlap", "compose_s", "step_s", "frames_per_s")
        )
        self._since.clear()
        how = f"loss {loss:.4f}  overlap {overlap:.3f}"
        if self._rich is not None:
            text = f"step {entry['step']:.0f} of {self._of}  {how}  {speed:.1f} frames/s"
            self._rich.update(self._task, completed=entry["progress"], description=text)
        else:
            self._line(
                f"step {entry['step']:6.0f}  {entry['elapsed_s'] / 60:6.1f} min  {how}"
                f"  rate {entry['rate']:.2e}  {speed:.1f} frames/s ({100 * compose / took:.0f} % composing)"
            )

    def _line(self, text: str) -> None:
        if self._rich is not None:
            self._rich.console.print(text, highlight=False)
        else:
            print(text, file=self._stream, flush=True)


def _plot(args: argparse.Namespace) -> int:
    from rotomem.train.plot import draw_log

    log = args.folder / "log.jsonl" if args.folder.is_dir() else args.folder
    print(draw_log(log, args.out or log.with_name("plot.png")))
    return 0


def _sheet(args: argparse.Namespace) -> int:
    import torch

    from rotomem.train.compose import Composer
    from rotomem.train.data import load_pool
    from rotomem.train.sheet import draw_sheet, write_picture

    pool = load_pool(args.data)
    for kind in KINDS if args.kind == "all" else (args.kind,):
        rng = torch.Generator().manual_seed(args.seed)
        clips = Composer(pool, KINDS[kind]).compose(
            rng, clips=args.clips, frames=args.frames, size=args.size, objects=args.objects
        )
        out = args.out.with_stem(f"{args.out.stem}-{kind}") if args.kind == "all" else args.out
        write_picture(draw_sheet(clips), out)
        print(out)
    return 0


def _export(args: argparse.Namespace) -> int:
    from rotomem.train.checkpoint import export_weights

    path = export_weights(args.checkpoint, args.out, version=args.version)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    return 0
