"""A window of a plate is seen as it is seen in the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rotomem.engine.geometry import ShotGeometry
from rotomem.engine.options import TrackOptions
from rotomem.engine.sight import Sight
from rotomem.types import Window

from .shots import picture, write


def eight_bit(t: int) -> NDArray[np.uint8]:
    return (np.clip(picture(t).astype(np.float32), 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["exr", "png"])
def test_part_when_nothing_is_shrunk_then_it_is_that_part_of_the_whole(tmp_path: Path, suffix: str) -> None:
    pixels = picture(0) if suffix == "exr" else eight_bit(0)
    path = write(tmp_path / f"plate.0001.{suffix}", pixels, channels=("R", "G", "B"))
    options = TrackOptions(size=None)
    with options.open_plate(path) as plate, Sight(plate, options) as sight:
        frame, window = plate.read(plate.frames[0]), Window(16, 8, 48, 40)
        part, _ = sight.part(frame, window, ShotGeometry(32, 32, 32, 32))
        whole, _ = sight.picture(frame)
        torch.testing.assert_close(part, whole[window.slices_in(sight.canvas)], atol=2e-6, rtol=0)


@pytest.mark.parametrize("window", [Window(0, 0, 32, 16), Window(40, 20, 72, 48)])
def test_part_when_the_plate_has_no_pixels_there_then_black(tmp_path: Path, window: Window) -> None:
    path = write(tmp_path / "plate.0001.exr", picture(0)[30:44, 50:66], origin=(50, 30), display=(72, 48))
    options = TrackOptions(size=None)
    with options.open_plate(path) as plate, Sight(plate, options) as sight:
        frame = plate.read(plate.frames[0])
        part, _ = sight.part(frame, window, ShotGeometry(window.height, window.width, window.height, window.width))
        whole, _ = sight.picture(frame)
        torch.testing.assert_close(part, whole[window.slices_in(sight.canvas)], atol=2e-6, rtol=0)
