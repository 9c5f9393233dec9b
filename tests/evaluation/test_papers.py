"""The papers' tables, and measuring them again on data sets and weights the tests make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rotomem.cli import main
from rotomem.evaluation import davis, papers

from .test_davis import all_frames, davis_sequence, labels_of, picture
from .tiny import tiny_model

ROWS = [row for table in papers.TABLES.values() for row in table]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.dataset}")
def test_row_when_its_figures_are_averaged_then_they_are_the_papers_mean(row: papers.Row) -> None:
    """A figure copied wrongly breaks the sums that the tables hold to, up to their rounding."""
    figures = [row.figures[name] for name in row.names if name in row.figures]
    assert all(40 < figure < 100 for figure in figures)
    if row.dataset.startswith("youtube"):
        assert len(figures) == 5
        assert figures[0] == pytest.approx(sum(figures[1:]) / 4, abs=0.101)
    elif len(figures) == 3:
        assert figures[0] == pytest.approx(sum(figures[1:]) / 2, abs=0.101)
    else:
        assert len(figures) == 2 and figures[1] < figures[0], "F is above J, and their mean too"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """DAVIS 2017 with a list, YouTube-VOS of 2018 with all frames, XMem's weights."""
    data, weights = tmp_path / "data", tmp_path / "weights"
    box, pair = labels_of((1, 8, 8, 24, 24)), labels_of((1, 8, 8, 24, 24), (2, 28, 30, 44, 60))
    davis_sequence(data / "davis2017", "pair", [pair] * 4, "480p")
    davis_sequence(data / "davis2017", "unlisted", [box] * 4, "480p")
    lists = data / "davis2017" / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("pair\n")
    valid = data / "youtube2018" / "valid"
    davis_sequence(valid, "v", [box, box, None])
    (valid / "meta.json").write_text(json.dumps({"videos": {"v": {"objects": {"1": {"category": "dog"}}}}}))
    picture(valid / "JPEGImages" / "v" / "00002.jpg")
    all_frames(data / "youtube2018" / "valid_all_frames" / "JPEGImages", "v", 4)
    weights.mkdir()
    torch.save(tiny_model().state_dict(), weights / "XMem.pth")
    return data, weights


def test_table_when_data_and_weights_are_there_then_paper_and_measured_stand_side_by_side(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, weights = folders
    command = ["eval", "--table", "xmem", "--data", str(data), "--weights", str(weights)]
    assert main([*command, "--json", str(tmp_path / "table.json")]) == 0
    printed = capsys.readouterr().out
    rows = {(r["method"], r["dataset"]): r for r in json.loads((tmp_path / "table.json").read_text())["rows"]}
    assert len(rows) == 8
    done = rows["XMem", "davis2017"]
    assert done["figures"]["jf"] == 86.2 and done["note"] is None
    assert 0 <= done["measured"]["jf"] <= 100 and done["measured"]["fps"] > 0
    assert done["measured"]["jf"] == pytest.approx((done["measured"]["j"] + done["measured"]["f"]) / 2, abs=1e-2)
    assert "davis2016" in rows["XMem", "davis2016"]["note"]
    assert "no public annotation" in rows["XMem", "youtube2018"]["note"]
    assert "XMem-s012.pth" in rows["XMem, BL30K", "davis2017"]["note"]
    assert sum(r["measured"] is not None for r in rows.values()) == 1
    assert "86.2" in printed and f"{done['measured']['j']:.1f}" in printed
    assert main([*command, "--out", str(tmp_path / "out"), "--json"]) == 0
    assert sum(r["measured"] is not None for r in json.loads(capsys.readouterr().out)["rows"]) == 2
    assert sorted(p.name for p in (tmp_path / "out" / "valid" / "Annotations" / "v").iterdir()) == [
        "00000.png", "00001.png", "00002.png"
    ]  # fmt: skip


def test_table_when_a_row_fails_then_it_is_named_and_the_others_are_measured(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, weights = folders
    (data / "davis2017/JPEGImages/480p/pair/00001.jpg").write_bytes(b"no picture")
    command = ["eval", "--table", "xmem", "--data", str(data), "--weights", str(weights)]
    for more, code, measured in (([], 1, 0), (["--out", str(tmp_path / "out")], 4, 1)):
        assert main([*command, *more, "--json"]) == code
        printed = capsys.readouterr()
        assert "XMem on davis2017 failed: " in printed.err
        rows = json.loads(printed.out)["rows"]
        assert sum(row["measured"] is not None for row in rows) == measured
        (failed,) = (row for row in rows if row["failed"])
        assert failed["dataset"] == "davis2017" and "00001.jpg" in failed["failed"]
    assert main(command) == 1
    assert "failed" in capsys.readouterr().out


def test_sequences_of_when_a_row_names_its_data_set_then_list_protocol_and_frames_are_its_own(
    folders: tuple[Path, Path],
) -> None:
    data, _ = folders
    rows = {row.dataset: row for row in papers.TABLES["xmem"]}
    (pair,) = papers.sequences_of(rows["davis2017"], data)
    assert (pair.name, pair.protocol) == ("pair", "davis") and papers.annotated_throughout([pair])
    (video,) = papers.sequences_of(rows["youtube2018"], data)
    assert video.protocol == "youtube" and len(video.images) == 4 and len(video.wanted) == 3
    assert not papers.annotated_throughout([video])
    davis_sequence(data / "davis2016", "pair", [labels_of((1, 8, 8, 24, 24))] * 3)
    (merged,) = papers.sequences_of(rows["davis2016"], data)
    assert merged.protocol == "davis2016" and isinstance(merged, davis.VideoSequence)
