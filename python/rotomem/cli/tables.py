"""Figures of `rotomem eval` as people compare them: a line a sequence, means below."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from rotomem.cli.progress import size_text

_WIDTH = 132
"""Columns where nobody's terminal says how many there are."""


def print_table(report: dict[str, Any], stream: TextIO) -> None:
    """Label maps: J and F with recall and decay, and where it was measured the flicker of tracker and truth."""
    from rich.console import Console

    columns = ["J&F", "J", "recall", "decay", "F", "recall", "decay"]
    keys = ["jf", "j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay"]
    if report["all"]["flicker"] is not None:
        columns, keys = [*columns, "flicker", "truth"], [*keys, "flicker", "truth_flicker"]

    def extra(means: dict[str, Any]) -> list[tuple[str, list[str]]]:
        """YouTube-VOS' seen and unseen categories, and G over both."""
        rows = []
        for name in ("seen", "unseen"):
            if f"{name}_j" in means:
                g = _number(means["overall"]) if name == "unseen" and "overall" in means else ""
                cells = [g, _number(means[f"{name}_j"]), "", "", _number(means[f"{name}_f"])]
                rows.append((f"  {name}{' (G, J, F)' if g else ''}", cells))
        return rows

    def label(o: dict[str, Any]) -> str:
        return f"{o['id']}{' ' + o['category'] if o['category'] else ''}"

    console = Console(file=stream, width=None if stream.isatty() else _WIDTH)
    _print(console, report, columns, lambda figures: [_number(figures[k]) for k in keys], label, extra)


def print_alpha_table(report: dict[str, Any], stream: TextIO) -> None:
    """Soft mattes: their errors, and beside SAD and gradient those of the bicubic enlargement."""
    from rich.console import Console

    def cells(figures: dict[str, Any]) -> list[str]:
        matte, bicubic = figures["matte"], figures["bicubic"] or {}
        return [
            _number(matte["sad"]),
            _number(bicubic.get("sad")),
            _number(matte["gradient"]),
            _number(bicubic.get("gradient")),
            _number(matte["mse"], 4),
            _number(matte["connectivity"]),
            _number(matte["dt_ssd"], 2),
            _number(matte["messd_dt"], 2),
            _number(figures["flicker"]),
            _number(figures["truth_flicker"]),
            _number(figures["j"]),
        ]

    columns = ["SAD", "bicubic", "grad", "bicubic", "MSE", "conn", "dtSSD", "MESSDdt", "flicker", "truth", "J"]
    console = Console(file=stream, width=None if stream.isatty() else _WIDTH)
    _print(console, report, columns, cells, lambda o: str(o["name"]), lambda means: [])


def _print(
    console: Any,
    report: dict[str, Any],
    columns: Sequence[str],
    cells: Callable[[dict[str, Any]], list[str]],
    label: Callable[[dict[str, Any]], str],
    extra: Callable[[dict[str, Any]], list[tuple[str, list[str]]]],
) -> None:
    from rich import box
    from rich.table import Table

    seen_at = "+".join(map(str, report["multi_scale"] or [report["size"] or "full size"]))
    mirrored = ", mirrored too" if report["flip"] else ""
    keys = f", keys {report['keys']}" if "keys" in report else ""
    table = Table(
        title=f"{report['model']} ({report['weights'] or 'random weights'}) at {seen_at}{mirrored}{keys}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("sequence", no_wrap=True)
    for name in ("frames", "object", *columns, "fps"):
        table.add_column(name, justify="right")
    for dataset, means in report["datasets"].items():
        for entry in (e for e in report["sequences"] if e["dataset"] == dataset):
            objects = entry["per_object"]
            what = label(objects[0]) if len(objects) == 1 else f"mean of {len(objects)}"
            table.add_row(entry["name"], str(entry["frames"]), what, *cells(entry), _number(entry["fps"], 1))
            for o in objects if len(objects) > 1 else ():
                table.add_row("", "", label(o), *cells(o), "", style="dim")
        table.add_section()
        table.add_row(
            dataset, "", f"mean of {means['objects']}", *cells(means), _number(means["fps"], 1), style="bold"
        )
        for name, row in extra(means):
            table.add_row(name, "", "", *row)
        table.add_section()
    if len(report["datasets"]) > 1:
        table.add_row("all", "", f"mean of {report['all']['objects']}", *cells(report["all"]), "", style="bold")
    console.print(table)
    steps = sum(e["steps"] for e in report["sequences"])
    gpu = report["peak_gpu_memory_bytes"]
    console.print(
        f"{steps} frames, {_number(report['all']['fps'], 1)} fps in the network on {report['device']} "
        f"({report['dtype']}, {report['threads']} threads), peak memory {size_text(report['peak_memory_bytes'])}"
        f"{f' and {size_text(gpu)} on the GPU' if gpu else ''}, {report['wall_s']:.0f} s in all",
        highlight=False,
    )


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
