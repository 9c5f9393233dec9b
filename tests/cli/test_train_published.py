"""`rotomem train` of published recipes: stages, data folders in their own layouts, what --help says of them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from rotomem.cli import main
from rotomem.cli.train import _OURS, _RECIPES
from rotomem.train.checkpoint import load_checkpoint
from train.folders import make_davis, make_stills, make_youtube

TINY = {
    "stage.clips": 2,
    "stage.draw.augment.size": 32,
    "workers": 0,
    "network.key_block": "basic",
    "network.key_stem": 8,
    "network.key_planes": (8, 8, 8),
    "network.key_depths": (1, 1, 1),
    "network.value_stem": 8,
    "network.value_planes": (8, 8, 16),
    "network.value_depths": (1, 1, 1),
    "network.key_dim": 8,
    "network.value_dim": 16,
    "network.thin_dim": 8,
    "network.decoder": (16, 8, 8),
}
SETTINGS = [word for knob, value in TINY.items() for word in ("--set", f"{knob}={value}")]
PUBLISHED = [name for name in _RECIPES if name not in _OURS]


def test_train_when_a_stage_follows_another_then_its_folders_and_weights_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "0", tmp_path / "3"
    folders = [str(make_davis(tmp_path / "davis")), str(make_youtube(tmp_path / "youtube"))]
    command = ["train", "stcn", "--stage", "0", "--data", str(make_stills(tmp_path / "stills")), "--out", str(first)]
    assert main([*command, "--steps", "1", *SETTINGS]) == 2
    assert "norms would never learn" in capsys.readouterr().err
    assert main([*command, "--steps", "1", *SETTINGS, "--set", "norms_learn=True"]) == 0
    command = ["train", "stcn", "--data", *folders, "--out", str(second), "--start", str(first / "checkpoint.pt")]
    assert main([*command, *SETTINGS, "--set", "stage.iterations=1"]) == 0
    state = load_checkpoint(second / "checkpoint.pt")
    assert state["model_name"] == "stcn" and state["step"] == 1 and '"name": "3"' in state["settings"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--stage", "9"], "stages: 0, 1, 2, 3"),
        (["--stage", "3", "--start", "x.pth"], "no data set this stage learns from"),
        (["--stage", "0", "--imagenet", "a.pth"], "ResNet-50 and ResNet-18, 1 files"),
    ],
)
def test_train_when_a_published_recipe_cannot_run_then_one_line_says_why(
    options: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(make_stills(tmp_path / "stills"))
    assert main(["train", "stcn", "--data", data, "--out", str(tmp_path / "o"), *options, *SETTINGS]) != 0
    assert says in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("knob", "says"),
    [
        ("stage.clips=0", "stage.clips is 0; give 1 or more"),
        ("stage.draw.frames=1", "stage.draw.frames is 1; give 2 or more"),
        ("stage.draw.augment.size=0", "stage.draw.augment.size is 0; give 16 or more"),
        ("stage.draw.augment.size=33", "size is 33, stcn takes multiples of 16; give 48"),
    ],
)
def test_train_when_a_clip_cannot_be_then_2_and_the_knob_is_named(
    knob: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "stcn", "--stage", "0", "--data", str(make_stills(tmp_path / "stills")), *SETTINGS]
    command += ["--out", str(tmp_path / "o"), "--steps", "1", "--set", "norms_learn=True", "--set", knob]
    assert main(command) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("name", PUBLISHED)
def test_help_when_asked_of_a_published_recipe_then_every_stage_is_told(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", name, "--help"]) == 0
    said = capsys.readouterr().out
    module, kind = _RECIPES[name][0].split(".")
    stages = getattr(import_module(f"rotomem.train.recipes.{module}"), kind).stages
    for stage in stages.values():
        (line,) = [text for text in said.splitlines() if text.strip().startswith(f"stage {stage.name} ")]
        assert f"{stage.iterations:,} iterations of {stage.clips} clips" in line
