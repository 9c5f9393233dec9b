"""The extension in real Blenders, with the real worker and real EXR files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from engine.shots import HEIGHT, WIDTH, checkpoint, plate
from rotomem.host.install import assemble, blender_zip
from rotomem.io.exr import read_still


def test_extension_when_an_artist_tracks_then_the_compositor_shows_the_mattes(
    tmp_path: Path, every_blender: Any
) -> None:
    folder = tmp_path / "a shot é {x} #2"
    out = folder / "out"
    out.mkdir(parents=True)
    said = every_blender(
        "use_extension.py",
        user=str(tmp_path / "user"),
        source=str(assemble("blender", tmp_path / "rotomem")),
        zip=str(blender_zip(tmp_path)),
        out=str(out),
        # The environment's folder, as the README says: this very Python would be the host's own.
        engine=str(engine(tmp_path)),
        plate=plate(folder / "plate", range(1001, 1005)),
        model=checkpoint(tmp_path),
        size=[WIDTH, HEIGHT],
        frames=[1, 3],
    )
    assert "no program" in said["missing"] and "No objects" in said["no_object"]
    assert "answers" in said["check"] and said["track"] == ["FINISHED"] and "4 mattes" in said["message"]
    assert (
        said["nodes"] == ["Cryptomatte", "Mattes", "Plate", "car", "hero / 1"]
        and not said["running"]
        and not said["left"]
    )
    for frame, path in said["comp"].items():
        matte = read_still(next((out / "mattes").glob(f"*_matte.{1000 + int(frame)}.exr")))
        shown = read_still(path, channels=["A"]).arrays["A"]
        layer = next(c.name for c in matte.header.channels if c.name.startswith("hero"))
        assert np.abs(shown - matte.arrays[layer]).max() == 0, frame
        picked = read_still(said["crypto"][frame], channels=["R"]).arrays["R"]
        assert np.abs(picked - matte.arrays[layer]).max() < 1e-3, frame  # half
    assert said["masks"][0] == ["FINISHED"] and "hero / 1" in said["masks"][1]
    traced = read_still(said["mask"].removesuffix(":R"), channels=["R"]).arrays["R"]
    first = read_still(next((out / "mattes").glob("*_matte.1001.exr"))).arrays
    drawn = read_still(out / "keys" / "hero___1.1.exr", channels=["R"]).arrays["R"]
    assert np.abs(first["hero_1.A"] - drawn).max() < 1e-3  # half
    # Blender's ramp adds some 0.6 pixels all around: a tenth of a square of 24.
    assert np.abs(traced - drawn).mean() < 0.025 and 0.98 < traced.sum() / drawn.sum() < 1.12
    rendered = [mask.partition("=") for mask in said["nodes_masks"]]
    assert [name.partition("@")[2] for name, _, _ in rendered] == ["1002", "1003"] * 3
    coverage = [read_still(path[:-2], channels=[path[-1]]).arrays[path[-1]] for _, _, path in rendered]
    for plane, quarter in zip(coverage, (0.25, 0.25, 0.0625, 0.0625), strict=False):
        assert np.abs(plane[:, :20] - quarter).max() == 0 and not plane[:, 20:].any()
    assert np.abs(coverage[-1] - drawn).max() < 1e-3
    assert "no node 'gone'" in said["no_node"]
    assert np.abs(first["car.A"][:, :20] - 0.5).max() == 0 and not first["car.A"][:, 20:].any()


def engine(folder: Path) -> Path:
    """A `rotomem` command, as an installation has it on the PATH."""
    command = folder / "bin" / "rotomem"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m rotomem "$@"\n')
    os.chmod(command, 0o755)
    return command
