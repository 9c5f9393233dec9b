from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from rotomem.cli import train as verb
from rotomem.train.compose import KINDS, Clips
from rotomem.train.data import read_bytes
from rotomem.train.sheet import draw_sheet


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verb.add_parser(parser.add_subparsers(dest="verb"))
    return parser.parse_args(["train", *arguments])


def test_draw_sheet_when_object_covers_a_pixel_then_it_is_tinted() -> None:
    coverage = torch.zeros(1, 2, 1, 16, 16)
    coverage[:, :, :, 4:8, 4:8] = 1
    clips = Clips(torch.full((1, 2, 3, 16, 16), 0.5), coverage, torch.tensor([[True]]))
    sheet = draw_sheet(clips, columns=1)
    assert sheet.shape == (32, 32, 3)
    assert torch.equal(sheet[5, 5], torch.full((3,), 0.5))
    assert sheet[16 + 5, 5, 0] > sheet[16 + 5, 5, 1] and torch.equal(sheet[16 + 1, 1], torch.full((3,), 0.5))


def test_sheet_verb_when_run_then_picture_is_written(source_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    code = verb.run(parse("sheet", "--data", str(source_folder), "--out", str(out), "--clips", "2", "--size", "48"))
    assert code == 0
    assert read_bytes(out, 3).shape == (3, 96, 384)


def test_sheet_verb_when_all_kinds_are_asked_for_then_each_has_its_sheet(source_folder: Path, tmp_path: Path) -> None:
    size = ("--clips", "1", "--frames", "2", "--size", "32")
    where = ("sheet", "--data", str(source_folder), "--out", str(tmp_path / "s.png"))
    assert verb.run(parse(*where, *size, "--kind", "all")) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"s-{kind}.png" for kind in KINDS)
    assert verb.run(parse(*where, *size, "--kind", "thin")) == 0
    assert (tmp_path / "s.png").read_bytes() == (tmp_path / "s-thin.png").read_bytes()


def test_train_verb_when_no_budget_is_given_then_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse("xmem-s", "--data", str(tmp_path), "--out", str(tmp_path))
    assert "--minutes" in capsys.readouterr().err
