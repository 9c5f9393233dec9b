"""`rotomem demo`: make a shot, track it, compare with the truth, draw a contact sheet."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotomem.errors import OutputError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rotomem.demo.scene import ShotFiles
    from rotomem.demo.sheet import SheetFrame

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

MEASURES = ("j", "f", "sad", "mse", "gradient")


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "demo",
        help="make a shot, track it and compare with the truth",
        description="Render a short EXR shot of a balloon and a kite, track both from the masks of its first frame, "
        "compare the mattes with the true ones, and draw a contact sheet. Takes a minute or two.",
    )
    parser.add_argument("--out", default="rotomem_demo", metavar="DIR", help="where everything goes (%(default)s)")
    parser.add_argument("--frames", type=int, default=24, metavar="N", help="length of the shot (%(default)s)")
    parser.add_argument("--height", type=int, default=540, metavar="N", help="of the picture, 16:9 (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="other clouds and trees (%(default)s)")
    parser.add_argument("--model", default="xmem-s", help="name or checkpoint (%(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--size", type=int, default=480, metavar="N", help="shorter side the network sees (%(default)s)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of renderer and network")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    if not 3 <= args.frames <= 60:
        raise UsageError(f"a demo of {args.frames} frames", remedy="ask for 3 to 60")
    if not 90 <= args.height <= 2160:
        raise UsageError(f"a demo {args.height} pixels high", remedy="ask for 90 to 2160")
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    import rotomem
    from rotomem.demo.scene import SceneSettings, write_shot
    from rotomem.demo.sheet import write_contact_sheet

    if args.threads:
        torch.set_num_threads(args.threads)
    started = time.perf_counter()
    # The model first: where its weights are missing nobody should wait for a rendering.
    model = rotomem.load_model(args.model, device=args.device)
    root = Path(args.out)
    bar = Progress(
        TextColumn("{task.description:28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    with bar:
        rendering = bar.add_task("rendering the shot", total=args.frames)
        shot = write_shot(
            root,
            SceneSettings(round(args.height * 16 / 9), args.height, frames=args.frames, seed=args.seed),
            threads=args.threads,
            progress=lambda done, _: bar.update(rendering, completed=done),
        )
        rendered = time.perf_counter()
        tracking = bar.add_task("tracking balloon and kite", total=args.frames)
        pattern = str(root / "mattes" / "balloon_kite.%04d.exr")
        report = rotomem.track(
            shot.plate,
            shot.masks,
            pattern,
            model=model,
            size=args.size,
            overwrite=True,
            progress=lambda p: bar.update(tracking, completed=p.done),
        )
        tracked = time.perf_counter()
        measuring = bar.add_task("comparing with the truth", total=args.frames)
        chosen = sheet_frames(shot.frames, args.frames)
        per_frame: dict[str, dict[str, list[float]]] = {name: {m: [] for m in MEASURES} for name in shot.truth}
        columns: list[SheetFrame] = []
        for frame in shot.frames:
            mattes, truth = read_mattes(pattern % frame, report.objects), read_truth(shot, frame)
            if frame != shot.frames[0]:
                for name, figures in measure(mattes, truth).items():
                    for key, value in figures.items():
                        per_frame[name][key].append(value)
            if frame in chosen:
                columns.append(_column(shot, frame, mattes, truth, chosen[frame]))
            bar.advance(measuring)
    means = {name: {key: sum(v) / len(v) for key, v in figures.items()} for name, figures in per_frame.items()}
    sheet = root / "contact_sheet.png"
    lines = [f"{name}   J {m['j']:.3f}   F {m['f']:.3f}   SAD {m['sad']:.2f}" for name, m in means.items()]
    lines.append(f"{report.model}, {report.fps:.1f} frames a second on {report.device}, {args.frames} frames")
    write_contact_sheet(sheet, columns, title="rotomem demo", figures=lines)
    seconds = {
        "render": rendered - started,
        "track": tracked - rendered,
        "measure": time.perf_counter() - tracked,
        "all": time.perf_counter() - started,
    }
    command = track_command(shot, pattern, args)
    if args.json:
        record: dict[str, Any] = {
            "objects": means,
            "per_frame": per_frame,
            "seconds": seconds,
            "fps": report.fps,
            "command": command,
        }
        try:
            Path(args.json).write_text(json.dumps(record, indent=2) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write the figures: {error.strerror}", path=args.json) from None
    print_outcome(means, seconds, report.fps, shot, pattern, sheet, command)
    return int(report.exit_code)


def measure(
    mattes: Mapping[str, NDArray[np.float32]], truth: Mapping[str, NDArray[np.float32]]
) -> dict[str, dict[str, float]]:
    """J and F of alpha above one half, and the alpha errors, per object of one frame."""
    from rotomem.evaluation import measures as m

    out = {}
    for name, true in truth.items():
        matte = mattes[name]
        out[name] = {
            "j": m.region_similarity(matte >= 0.5, true >= 0.5),
            "f": m.boundary_accuracy(matte >= 0.5, true >= 0.5),
            "sad": m.sad(matte, true),
            "mse": m.mse(matte, true),
            "gradient": m.gradient_error(matte, true),
        }
    return out


def read_mattes(path: str, layers: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
    """name -> [H, W] alpha of a matte file that `track` wrote; `layers` is its report's `objects`."""
    import numpy as np

    from rotomem.io.exr import read_still

    channels = {name: "A" if len(layers) == 1 else f"{layer}.A" for name, layer in layers.items()}
    still = read_still(path, channels=list(channels.values()))
    return {name: np.asarray(still.arrays[channel], np.float32) for name, channel in channels.items()}


def read_truth(shot: ShotFiles, frame: int) -> dict[str, NDArray[np.float32]]:
    """name -> [H, W] true alpha."""
    import numpy as np

    from rotomem.io.exr import read_still

    return {
        name: np.asarray(read_still(pattern % frame, channels=["A"]).arrays["A"], np.float32)
        for name, pattern in shot.truth.items()
    }


def sheet_frames(frames: tuple[int, ...], count: int) -> dict[int, str]:
    """Frame -> note of the sheet's five columns: the key, the occlusions, the end; evenly spread in other lengths."""
    first = frames[0]
    if count >= 24:
        return {first: "key", first + 7: "", first + 12: "", first + 17: "", frames[-1]: ""}
    picks = sorted({round(i * (count - 1) / 4) for i in range(5)})
    return {first + i: "key" if i == 0 else "" for i in picks}


def track_command(shot: ShotFiles, pattern: str, args: argparse.Namespace) -> str:
    """The command line that makes the same mattes."""
    parts = ["rotomem", "track", shot.plate]
    for mask in shot.masks:
        parts += ["--mask", mask]
    parts += ["-o", pattern]
    for flag, value, default in (
        ("--model", args.model, "xmem-s"),
        ("--device", args.device, "auto"),
        ("--size", args.size, 480),
    ):
        if value != default:
            parts += [flag, str(value)]
    return shlex.join([*parts, "--overwrite"])


def print_outcome(
    means: Mapping[str, Mapping[str, float]],
    seconds: Mapping[str, float],
    fps: float,
    shot: ShotFiles,
    pattern: str,
    sheet: Path,
    command: str,
) -> None:
    """Figures, files, and what to try next."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(shot.frames) - 1} tracked frames against the truth", title_justify="left")
    table.add_column("object")
    for name in ("J", "F", "SAD /1000", "MSE", "gradient /1000"):
        table.add_column(name, justify="right")
    for name, m in means.items():
        table.add_row(
            name, f"{m['j']:.3f}", f"{m['f']:.3f}", f"{m['sad']:.2f}", f"{m['mse']:.4f}", f"{m['gradient']:.2f}"
        )
    console = Console(file=sys.stdout)
    console.print(table)

    def say(text: str = "") -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(
        f"rendered in {seconds['render']:.0f} s, tracked in {seconds['track']:.0f} s ({fps:.1f} frames a second), "
        f"{seconds['all']:.0f} s in all"
    )
    say()
    for what, where in (("plate", shot.plate), ("mattes", pattern), ("contact sheet", str(sheet))):
        say(f"  {what:14} {os.path.relpath(where) if not os.path.isabs(where) else where}")
    say()
    say("The same by hand:")
    say(f"  {command}")


def _column(
    shot: ShotFiles,
    frame: int,
    mattes: dict[str, Any],
    truth: dict[str, Any],
    note: str,
) -> SheetFrame:
    import numpy as np

    from rotomem.demo.sheet import SheetFrame
    from rotomem.io.exr import read_still

    still = read_still(shot.plate % frame, channels=["R", "G", "B"])
    return SheetFrame(frame, np.asarray(still.stack(["R", "G", "B"]), np.float32), mattes, truth, note)
