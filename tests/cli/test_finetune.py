"""`rotomem train finetune` as a studio calls it, and what it wrote in `rotomem track`."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.shots import checkpoint, digests, label_key, plate
from rotomem.cli import _parser, main


def test_finetune_when_done_then_track_takes_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern, weights = plate(tmp_path / "plate"), checkpoint(tmp_path)
    masks = [f"--mask={label_key(tmp_path, frame)}" for frame in (1001, 1005)]
    out = tmp_path / "tuned.safetensors"
    size = ["--size", "32"]
    command = ["train", "finetune", "--plate", pattern, *masks, "--model", weights, "--out", str(out), *size]
    assert main([*command, "--steps", "2", "--force", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "sh010: keys 1001,1005, and 3 frames between, 48x32; Colour:" in said
    assert "warped copies" in said and "after 2 steps" in said and "100%  step 2" in said
    assert main(["track", pattern, *masks, "--model", str(out), "-o", str(tmp_path / "mattes"), *size]) == 0
    assert "tuned" in capsys.readouterr().out
    assert len(digests(tmp_path / "mattes")) == 8


def test_finetune_when_several_shots_then_each_mask_belongs_to_the_plate_before_it() -> None:
    words = "train finetune --plate a.%04d.exr --mask 1=a.png -m 2=b.png --plate b.mov -m 7=c.png --out t.safetensors"
    args = _parser().parse_args(words.split())
    assert args.shots == [("a.%04d.exr", ["1=a.png", "2=b.png"]), ("b.mov", ["7=c.png"])]
    assert args.minutes is None and args.steps is None and args.model == "xmem-s" and args.size == 480


def test_finetune_when_a_mask_comes_first_then_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    words = "train finetune --mask 1=a.png --plate a.%04d.exr --out t.safetensors"
    assert main(words.split()) == 2
    assert "before any --plate" in capsys.readouterr().err


def test_finetune_when_both_bounds_are_given_then_usage_error(tmp_path: Path) -> None:
    words = f"train finetune --plate a --mask 1=a.png --out {tmp_path}/t.safetensors --minutes 1 --steps 2"
    assert main(words.split()) == 2
