"""`rotomem bench`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rotomem.bench import peaks
from rotomem.cli import main


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the peaks of a machine takes two seconds, and tells a test nothing."""
    known = peaks.Machine("a machine", torch.device("cpu"), 1, {"float32": 100.0, "bfloat16": 400.0}, 1e10)
    monkeypatch.setattr(peaks, "measure_machine", lambda device: known)


def test_all_when_tiny_then_kernels_are_checked_and_lines_tables_and_plot_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "all", "--tiny", "--device", "cpu", "--out", str(tmp_path / "new")]) == 0
    lines = [json.loads(row) for row in (tmp_path / "new/timings.jsonl").read_text().splitlines()]
    assert {line["bench"] for line in lines} == {"machine", "read", "consolidate", "attention", "shot"}
    assert {"dense", "torch"} <= {line["backend"] for line in lines if line["bench"] == "read"}
    assert all(line["error_ratio"] < 4 for line in lines if "error_ratio" in line)
    assert any("late" in line for line in lines)
    assert "| 64x128 2 objects 3 frames + 0.05k |" in (tmp_path / "new/tables.md").read_text()
    assert (tmp_path / "new/plot.png").stat().st_size > 1000
    assert "late/early" in capsys.readouterr().err

    page = tmp_path / "page.md"
    page.write_text("<!-- timings: begin -->\n<!-- timings: end -->\n")
    assert main(["bench", "table", str(tmp_path / "new/timings.jsonl"), "--into", str(page)]) == 0
    assert (tmp_path / "new/tables.md").read_text().strip() in page.read_text()


def test_consolidate_when_json_then_a_line_each_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "consolidate", "--case", "480p 1 object 5", "--backend", "lean", "--repeats", "1"]
    assert main([*arguments, "--device", "cpu", "--json"]) == 0
    lines = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert [line["backend"] for line in lines if line["bench"] == "consolidate"] == ["dense", "dense, lean"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["read", "--case", "8K"], "no case is called so"),
        (["attention", "--case", "AOT local 480p", "--backend", "quick"], "no backend called 'quick'"),
        (["shot", "--model", "x"], "no model called 'x'"),
        (["shot", "--size", "big"], "no size 'big'"),
        (["shot", "--long", "--backend", "rotomem"], "--long is one clip of ours"),
        (["shot", "--long", "--frames", "20"], "a long shot has 256 frames or more"),
        (["read", "--device", "abacus"], "no device 'abacus'"),
        (["table", "none.jsonl"], "cannot read the timings"),
        (["read", "--objects", "one"], "'one' is no list of numbers"),
        (["read", "--seconds", "-1"], "'-1' is no number of seconds"),
    ],
)
def test_bench_when_asked_for_what_is_not_there_then_one_line_says_so(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_json_when_the_file_cannot_be_written_then_error_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["bench", "read", "--device", "cpu", "--json", str(tmp_path / "file/timings.jsonl")]) == 1
    assert "cannot write the timings" in capsys.readouterr().err
