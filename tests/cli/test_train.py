"""`rotomem train` from end to end, with a tiny network: train, stop, deliver, lose the run, go on."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from rotomem.cli import main
from rotomem.cli.train import _Teller
from rotomem.train.checkpoint import load_checkpoint
from train.conftest import source_folder
from train.tiny import TINY

__all__ = ["source_folder"]

KNOBS = {
    "stages": ((1.0, 32, 2, 2),),
    "sources.picture_px": 96,
    "sources.cutout_px": 64,
    "sources.cutout_least_px": 16,
    **{f"network.{key}": value for key, value in vars(TINY).items()},
}
SETTINGS = [f"--set={key}={value!r}" for key, value in KNOBS.items()]


def train(folder: Path, data: Path, *options: str) -> int:
    return main(["train", "xmem-s", "--data", str(data), "--out", str(folder), *SETTINGS, *options])


def test_train_when_the_run_is_lost_then_what_was_delivered_is_resumed(
    source_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = tmp_path / "parts"
    common = ("--resume", "--deliver", str(parts), "--rate", "1e-4", "--compact")
    assert train(tmp_path / "a", source_folder, *common, "--steps", "1000", "--pause-after", "0.002") == 0
    said = capsys.readouterr()
    assert re.search(r"delivered 5 files, [\d.]+ MiB", said.out)
    assert re.search(r"step      1 .* loss [\d.]+ .* frames/s \(\d+ % composing\)", said.err)
    begun = load_checkpoint(tmp_path / "a/checkpoint.pt")["step"]
    assert 1 <= begun < 1000
    steps = str(begun + 2)
    assert train(tmp_path / "b", source_folder, *common, "--steps", steps) == 0
    state = load_checkpoint(tmp_path / "b/checkpoint.pt")
    assert state["step"] == begun + 2 and json.loads(state["settings"])["peak"] == 1e-4
    log = [json.loads(line) for line in (tmp_path / "b/log.jsonl").read_text().splitlines()]
    assert [e["step"] for e in log if "loss" in e] == list(range(1, begun + 3))
    assert main(["train", "plot", str(tmp_path / "b"), "--out", str(tmp_path / "curves.png")]) == 0
    assert (tmp_path / "curves.png").stat().st_size > 1000
    sorted(parts.glob("*.part"))[0].unlink()
    capsys.readouterr()
    assert train(tmp_path / "c", source_folder, *common, "--steps", steps) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_train_when_a_folder_cannot_be_made_then_that_is_told_before_the_training(
    source_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for out, parts in (("file", "parts"), ("out", "file")):
        assert train(tmp_path / out, source_folder, "--steps", "1", "--deliver", str(tmp_path / parts)) == 1
        assert "cannot make the folder: File exists" in capsys.readouterr().err
    assert not (tmp_path / "out/checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "one of the arguments --minutes --steps is required"),
        (("--steps", "1", "--minutes", "1"), "not allowed with"),
        (("--steps", "1", "--set", "speed=1"), "no knob 'speed'"),
        (("--steps", "1", "--start", "nothing.safetensors"), "neither a bundled model nor a file"),
        (("--steps", "1", "--start", "xmem-s"), "the weights do not fit"),
        (("--steps", "1", "--device", "warp"), "no device 'warp'"),
        (("--minutes", "-1"), "a training of -1 minutes; give 0 or more"),
        (("--minutes", "nan"), "a training of nan minutes"),
        (("--steps", "1", "--pause-after", "-1"), "a pause after -1 minutes; give 0 or more"),
    ],
)
def test_train_when_asked_for_what_cannot_be_then_2_and_the_reason(
    options: tuple[str, ...], said: str, source_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, source_folder, *options) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "checkpoint.pt").exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_teller_when_on_a_terminal_then_a_bar_else_lines() -> None:
    entry = {"step": 5, "elapsed_s": 60, "loss": 0.5, "overlap": 0.7, "rate": 1e-3, "progress": 0.25}
    entry |= {"compose_s": 0.1, "step_s": 1.0, "frames_per_s": 12.0}
    found = {"step": 5, "elapsed_s": 60, "validation_overlap": 0.625}
    for stream, bar in ((Terminal(), True), (io.StringIO(), False)):
        with _Teller(4, None, stream) as tell:
            tell(entry)
            tell(found)
        said = stream.getvalue()
        assert ("━" in said) == bar
        assert "12.0 frames/s" in said and ("10 % composing" in said) != bar
        assert "validation: overlap 0.6250" in said
