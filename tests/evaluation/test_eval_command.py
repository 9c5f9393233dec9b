"""`rotomem eval` from arguments to table and JSON, with an untrained network on tiny sequences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import rotomem
from rotomem.cli import main
from rotomem.evaluation import davis

from .test_davis import davis_sequence, labels_of


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    one, two = labels_of((1, 8, 8, 24, 24)), labels_of((1, 8, 8, 24, 24), (2, 28, 30, 44, 60))
    davis_sequence(tmp_path / "data" / "a", "box", [one] * 4)
    davis_sequence(tmp_path / "data" / "b", "pair", [two] * 4)
    model = rotomem.build_model("xmem-s")
    monkeypatch.setattr(rotomem, "load_model", lambda *_, **__: model)
    return tmp_path / "data"


def test_eval_when_run_then_table_json_and_labels_agree(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    code = main(["eval", str(data), "--json", str(figures), "--out", str(out), "--overlays"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    report = json.loads(figures.read_text())
    assert report["all"]["objects"] == 3 and list(report["datasets"]) == ["a", "b"]
    pair = report["sequences"][1]
    assert pair["name"] == "pair" and [o["id"] for o in pair["per_object"]] == [1, 2]
    assert pair["j_mean"] == pytest.approx(np.mean([o["j_mean"] for o in pair["per_object"]]), abs=1e-4)
    assert report["peak_memory_bytes"] > 1e7 and report["size"] == 480
    assert "pair" in printed.out and f"{pair['jf']:.3f}" in printed.out and "mean of 3" in printed.out
    key = davis.read_labels(out / "b" / "Annotations" / "pair" / "00000.png")
    assert np.array_equal(key, labels_of((1, 8, 8, 24, 24), (2, 28, 30, 44, 60))), (
        "the key comes back as it was given"
    )
    assert len(list((out / "b" / "Overlays" / "pair").glob("*.jpg"))) == 4


def test_eval_when_json_goes_to_standard_output_then_nothing_else_does(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(data), "--sequences", "box", "--limit", "3", "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [s["name"] for s in report["sequences"]] == ["box"] and report["sequences"][0]["frames"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--limit", "2"], 2, "3 or more"),
        (["--overlays"], 2, "--out"),
        (["--sequences", "nobody"], 3, "box, pair"),
        (["--size", "-1"], 2, "0 or more"),
    ],
)
def test_eval_when_arguments_make_no_sense_then_code_and_remedy(
    data: Path, arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(data), *arguments]) == code
    assert says in capsys.readouterr().err
