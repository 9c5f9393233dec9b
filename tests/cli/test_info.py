"""`rotomem info`."""

from __future__ import annotations

import json
import re

import pytest

from engine.shots import picture, plate, write
from rotomem.cli import main


def test_info_when_plate_has_a_gap_and_windows_then_all_is_told(tmp_path, capsys):
    for frame in (1001, 1002, 1005):
        write(
            tmp_path / f"sh010.{frame}.exr",
            picture(0),
            origin=(-4, 2),
            display=(80, 60),
            PixelAspectRatio=2.0,
        )
    assert main(["info", str(tmp_path / "sh010.####.exr")]) == 0
    said = capsys.readouterr().out
    for text in ("1001-1002,1005 (3)", "1003-1004", "80x60+0+0", "84x60-4+0", "half", "colour decision"):
        assert text in said, text
    assert "track stops, unless --missing is skip, hold or black" in said and "left out" not in said
    assert main(["info", str(tmp_path / "sh010.####.exr"), "--missing", "skip"]) == 0
    said = capsys.readouterr().out
    assert "left out" in said and "track stops" not in said


def test_info_when_json_then_parseable_and_complete(tmp_path, capsys):
    pattern = plate(tmp_path, range(1001, 1004))
    assert main(["info", pattern, "--json", "--input-space", "ACEScg"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["frames"] == [1001, 1002, 1003] and told["display_window"] == [0, 0, 72, 48]
    assert told["fps"] == "24" and "ACEScg" in told["colour_decision"]


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["nothing.%04d.exr"], 3),
        (["{plate}", "--frames", "what"], 2),
        (["{plate}", "--input-space", "no such space"], 2),
        (["{plate}", "--layer", "no_such_layer"], 3),
        (["{plate}", "--frames", "1001-1010", "--missing", "error"], 3),
    ],
)
def test_info_when_it_cannot_then_one_line_and_exit_code(tmp_path, capsys, argv, code):
    pattern = plate(tmp_path, range(1001, 1003))
    assert main(["info", *(a.replace("{plate}", pattern) for a in argv)]) == code
    said = capsys.readouterr().err
    assert said.startswith("rotomem: ") and said.count("\n") == 1


def test_info_when_no_plate_is_given_then_tells_of_the_machine(capsys, monkeypatch):
    monkeypatch.delenv("ROTOMEM_BACKEND", raising=False)
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^kernels, CPU +\S+: ", said, re.M)
    assert re.search(r"^kernels, CUDA +(native-cuda: |torch, where it has such a device: .)", said, re.M)
    assert main(["info", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {"rotomem", "torch", "torch devices"}
