"""The masks that our script makes in Blender are where our curves are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rotomem.io.exr import read_still
from rotomem.splines.files import write_splines
from rotomem.splines.raster import rasterise
from rotomem.splines.types import Curve, Shape, Splines
from rotomem.types import Window

WIDTH, HEIGHT, TIMES = 160, 90, 8
FRAMES = (1000, 1003, 1009)
KAPPA = 0.5522847498


def oval(x: float, y: float, wide: float, high: float, feather: float = 0.0) -> Curve:
    angle = np.arange(4) * np.pi / 2
    out = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    along = np.stack([-out[:, 1], out[:, 0]], axis=1)
    points = np.stack([out - KAPPA * along, out, out + KAPPA * along], axis=1)
    return Curve(points * (wide, high) + (x, y), np.full(4, feather))


def splines() -> Splines:
    """An oval that moves, with a hole that stays, on 1001..1008; and a soft disc named as no language likes."""
    body = Shape("body", {1001: oval(60.3, 40, 30, 20), 1005: oval(70.3, 45, 20, 25)}, span=(1001, 1008))
    hole = Shape("hole {x}", {1001: oval(60.3, 40, 10, 8)}, subtract=True)
    disc = Shape("disc", {1001: oval(120, 40, 12, 12, feather=6)})
    return Splines((WIDTH, HEIGHT), {"hero": (body, hole), 'é"""\\\'{x}': (disc,)})


def drawn(path: str) -> np.ndarray:
    """A render of TIMES the size, [HEIGHT, WIDTH] means."""
    mask = read_still(Path(path), channels=["R"]).arrays["R"].astype(np.float64)
    return mask.reshape(HEIGHT, TIMES, WIDTH, TIMES).mean((1, 3))


def test_mask_script_when_blender_runs_it_then_masks_are_where_the_curves_are(
    tmp_path: Path, every_blender: Any
) -> None:
    script = tmp_path / "roto.py"
    script.write_text(write_splines(splines(), script), encoding="utf-8")
    size = [WIDTH, HEIGHT]
    made = every_blender(
        "draw_masks.py", masks=str(script), size=size, times=TIMES, frames=FRAMES, folder=str(tmp_path)
    )
    assert set(made) == set(splines().objects)
    for name, shapes in splines().objects.items():
        for frame, path in zip(FRAMES, made[name], strict=True):
            mine, theirs = rasterise(shapes, frame, Window(0, 0, WIDTH, HEIGHT)), drawn(path)
            # Blender's ramp adds some 0.6 pixels of its raster all around: less than 0.1 of ours at this size.
            soft = shapes[0].name == "disc"
            assert abs(mine - theirs).max() < (0.01 if soft else 0.25), (name, frame)
            assert theirs.sum() == pytest.approx(mine.sum(), rel=0.025), (name, frame)
            assert (mine.sum() > 0) == (theirs.sum() > 0)
