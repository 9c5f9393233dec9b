"""`rotomem eval --table`: a paper's main table measured again, row by row, paper and measured side by side."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotomem.errors import EXIT_FAILED, EXIT_OK, EXIT_PARTLY, OutputError, RotomemError

if TYPE_CHECKING:
    from rotomem.evaluation.davis import SequenceScore, VideoSequence
    from rotomem.evaluation.papers import Row
    from rotomem.models.interface import VOSModel

    Measure = Callable[[VOSModel, VideoSequence, dict[str, Any]], SequenceScore]


def reproduce(args: argparse.Namespace, measure: Measure) -> int:
    """Measure every row whose data and weights are there; say of the others what is missing. Exit code.

    A row that fails is left without figures, its "failed" says why, and the others are measured.

    measure   tracks one sequence with a model and settings of `Session`
    """
    from rotomem.evaluation.papers import TABLES

    rows = [_row(args, row, measure) for row in TABLES[args.table]]
    code = EXIT_OK
    if any(row["failed"] for row in rows):
        code = EXIT_PARTLY if any(row["measured"] for row in rows) else EXIT_FAILED
    if args.json:
        text = json.dumps({"table": args.table, "rows": rows}, indent=2, ensure_ascii=False, allow_nan=False)
        if args.json == "-":
            print(text)
            return code
        try:
            Path(args.json).write_text(text + "\n")
        except OSError as error:
            raise OutputError(f"cannot write the report: {error.strerror}", path=args.json) from None
    _print(args.table, rows)
    return code


def _row(args: argparse.Namespace, row: Row, measure: Measure) -> dict[str, Any]:
    """One row as plain values: the paper's figures, the measured ones, or why there are none."""
    import rotomem
    from rotomem.evaluation import figures, papers

    out: dict[str, Any] = {
        **asdict(row),
        "measured": None,
        "failed": None,
        "note": papers.lacking(row, args.data, args.weights),
    }
    if out["note"]:
        return out
    try:
        sequences = papers.sequences_of(row, args.data)
        if not papers.annotated_throughout(sequences) and not args.out:
            out["note"] = "no public annotation; --out writes labels for the data set's server"
            return out
        model = rotomem.load_model(args.weights / row.weights, device=args.device, dtype=args.dtype)
        scores = [measure(model, sequence, dict(row.settings)) for sequence in sequences]
    except RotomemError as error:
        out["failed"] = str(error)
        print(f"{row.method} on {row.dataset} failed: {error}", file=sys.stderr, flush=True)
        return out
    out["measured"] = papers.measured(row, figures.as_dict(scores)["all"])
    if args.limit:
        out["note"] = f"first {args.limit} frames only"
    return out


_TITLES = {"davis": ("J&F", "J", "F"), "youtube": ("G", "J seen", "F seen", "J unseen", "F unseen")}


def _print(name: str, rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from rotomem.evaluation.papers import DAVIS, YOUTUBE

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 118)
    for kind, names in (("davis", DAVIS), ("youtube", YOUTUBE)):
        chosen = [row for row in rows if row["dataset"].startswith(kind)]
        table = Table(title=f"{name}, per cent", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for title in ("method", "data set", ""):
            table.add_column(title, no_wrap=True)
        for title in (*_TITLES[kind], "fps"):
            table.add_column(title, justify="right")
        table.add_column("")
        for row in chosen:
            keys = (*names, "fps")
            table.add_row(row["method"], row["dataset"], "paper", *(_cell(row["figures"].get(k)) for k in keys), "")
            here = row["measured"] or {}
            note = "failed" if row["failed"] else row["note"] or ""
            table.add_row("", "", "here", *(_cell(here.get(k)) for k in keys), note, style="bold")
        console.print(table)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
