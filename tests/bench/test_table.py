from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
import pytest

from rotomem.bench.plot import draw
from rotomem.bench.table import BEGIN, END, put_into, read_lines, render, text_line
from rotomem.errors import InputError, UsageError

KERNELS = Path(__file__).resolve().parents[2] / "kernels"


def line(backend: str, median: float, elements: int = 100, **more: Any) -> dict[str, Any]:
    facts = {"elements": elements, "objects": 1, "value_channels": 512}
    name = {"bench": "read", "case": f"480p {elements}", "backend": backend, "device": "a machine", "threads": 2}
    times = {"median_s": median, "least_s": median, "spread": 0.02, "gflops": 3.0, "share": 0.5, "peak": "float32"}
    return {**name, **times, "version": "1", "facts": facts, **more}


def test_readme_when_timings_are_kept_then_its_tables_are_what_the_command_makes_of_them() -> None:
    text = (KERNELS / "README.md").read_text()
    between = text.partition(BEGIN)[2].partition(END)[0]
    lines = read_lines([KERNELS / "timings.jsonl"])
    assert {"machine", "read", "consolidate", "attention", "shot"} <= {one["bench"] for one in lines}
    assert between.strip() == render(lines).strip()


def test_render_when_a_way_was_skipped_then_its_cell_says_what_it_needs() -> None:
    skipped = {**line("dense", 1.0), "skipped": "needs 44.5 GiB, 3.0 GiB are free"}
    del skipped["median_s"]
    table = render([skipped, line("native-avx512", 0.002, error_ratio=0.5, peak_bytes=2**21)])
    assert table.splitlines()[0] == "a machine, 2 threads."
    assert table.splitlines()[-1] == (
        "| 480p 100 | 100 | needs 44.5 GiB | 2.00 ms | 3 | 50 % float32 | 2.0 MiB | 0.50 |"
    )


def test_put_into_when_markers_stand_then_only_what_is_between_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    lines = [line("dense", 1.0), line("native", 0.1, ratio=10.0)]
    put_into(page, lines)
    assert page.read_text() == f"before\n{BEGIN}\n{render(lines)}\n{END}\nafter\n"
    assert "100.0 ms (10.0x)" in page.read_text()
    page.write_text("nothing\n")
    with pytest.raises(UsageError, match="has no lines <!-- timings"):
        put_into(page, lines)


def test_read_lines_when_measured_twice_then_the_last_counts_and_rubbish_is_named(tmp_path: Path) -> None:
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text(json.dumps(line("dense", 1.0)) + "\n" + json.dumps(line("torch", 3.0)) + "\n")
    new.write_text(json.dumps(line("dense", 2.0)) + "\n")
    assert [(one["backend"], one["median_s"]) for one in read_lines([old, new])] == [("dense", 2.0), ("torch", 3.0)]
    peaks = [{**line("torch", 1.0), "bench": "machine", "case": "float32", "gflops": g} for g in (12.0, 6.0)]
    new.write_text("".join(json.dumps(one) + "\n" for one in [*peaks, line("native", 0.5)]))
    machine, native = read_lines([new])
    assert machine["gflops"] == 12 and native["share"] == 3 / 12, "of the peak that was reached"
    new.write_text("{}\n")
    with pytest.raises(InputError, match=r"no line of timings \[path=.*new.jsonl line=1\]"):
        read_lines([new])
    with pytest.raises(InputError, match="cannot read the timings"):
        read_lines([tmp_path / "none.jsonl"])


def test_text_line_when_skipped_or_not_then_it_says_so() -> None:
    assert "skipped: needs much" in text_line({**line("dense", 1.0), "skipped": "needs much"})
    told = text_line(line("dense", 0.25, ratio=1.0, error=1e-6, error_ratio=0.5))
    assert "250.0 ms" in told and "1.0x" in told and "+-1%" in told and "0.50 of torch's" in told


def test_draw_when_readings_grow_then_their_curve_rises(tmp_path: Path) -> None:
    lines = [line("dense", n / 1e3, elements=n) for n in (10, 100, 1000)]
    long = {**line("rotomem", 0.1), "bench": "shot", "series": [0.1] * 50, "facts": {"frames": 500}}
    picture = np.asarray(oiio.ImageBuf(str(draw([*lines, long], tmp_path / "plot.png"))).get_pixels(oiio.FLOAT))
    panel = picture[41:280, 67:525]
    red = (panel[..., 0] > 0.6) & (panel[..., 1] < 0.5) & (panel[..., 2] < 0.5)
    heights = [np.nonzero(red[:, x])[0].mean() for x in (10, 200, 450)]
    assert heights[0] > heights[1] > heights[2]
    with pytest.raises(InputError, match="nothing to draw"):
        draw(lines[:1], tmp_path / "plot.png")
