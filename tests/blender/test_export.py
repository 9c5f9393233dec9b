"""Exported scripts in real Blenders: the alpha they render is the matte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from engine.shots import disc, plate, write
from rotomem.cli import main
from rotomem.io.exr import read_still

FOLDER = 'it\'s [a] $HOME {folder} "é" ;x'


def test_export_when_blender_runs_the_script_then_its_alpha_is_the_matte(tmp_path: Path, every_blender: Any) -> None:
    folder = tmp_path / FOLDER
    given = plate(folder / "plate", range(1001, 1005))
    for frame in range(1001, 1005):
        pair = np.stack([disc(frame - 1001, x=50), disc(frame - 1001)], -1).astype(np.float16)
        names = json.dumps({"hero": "hero / [left] $1", "car": "car"})
        path = folder / "mattes" / f"sh010_matte.{frame}.exr"
        write(path, pair, channels=("car.A", "hero.A"), **{"rotomem/objects": names})
    script = tmp_path / "load.py"
    assert main(["export", given, str(folder / "mattes"), "--blender", "-o", str(script)]) == 0
    shown = every_blender("run_export.py", exported=str(script), frames=[1001, 1003], out=str(tmp_path))
    for frame, path in shown.items():
        alpha = read_still(path, channels=["A"]).arrays["A"]
        assert np.abs(alpha - disc(int(frame) - 1001).astype(np.float16)).max() == 0, frame
