"""`rotomem predict`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest
import torch
from safetensors.torch import save_file

from engine.shots import plate
from rotomem.cli import main
from rotomem.models.prediction import FramePredictor, PredictorConfig


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("predictor") / "tiny.safetensors"
    config = PredictorConfig((8, 12, 16), (1, 2, 2), key_dim=8, value_dim=12, update_dim=4)
    save_file(FramePredictor(config).state_dict(), path)
    return str(path)


def test_predict_when_asked_for_frames_then_they_follow_on_the_clips_numbers(tmp_path: Path, weights: str, capsys):
    pattern = plate(tmp_path / "in", range(1001, 1006))
    assert (
        main(["predict", pattern, "--model", weights, "--count", "2", "--size", "24", "-o", str(tmp_path / "out")])
        == 0
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["sh010.1006.png", "sh010.1007.png"]
    pixels = oiio.ImageBuf(str(tmp_path / "out/sh010.1007.png")).get_pixels(oiio.FLOAT)
    assert pixels.shape == (24, 36, 3) and np.isfinite(pixels).all() and pixels.std() > 0
    assert "sh010.1006.png to sh010.1007.png" in capsys.readouterr().out


def test_predict_when_frames_are_held_out_then_both_guesses_are_measured(tmp_path: Path, weights: str, capsys):
    pattern = plate(tmp_path, range(1001, 1007))
    assert main(["predict", pattern, "--model", weights, "--count", "2", "--size", "24", "--held-out", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"predicted", "last frame repeated"}
    assert 0 < told["last frame repeated"]["mse"] < told["predicted"]["mse"]  # nobody trained these weights
    assert told["last frame repeated"]["ssim"] > told["predicted"]["ssim"]


@pytest.mark.parametrize(
    ("extra", "said"),
    [([], "nothing would come of this"), (["--held-out", "--count", "4"], "2 frames are too few")],
)
def test_predict_when_it_cannot_then_it_says_why(tmp_path: Path, weights: str, capsys, extra, said):
    pattern = plate(tmp_path, range(1001, 1007))
    assert main(["predict", pattern, "--model", weights, *extra]) == 2
    assert said in capsys.readouterr().err
