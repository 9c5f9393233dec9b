"""Trimaps: where the unknown band lies, and the files that hold it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_mattes import info, plate_frame, read

from rotomem.errors import UsageError
from rotomem.io.mattes import MatteSettings, MatteWriter
from rotomem.io.trimap import trimap
from rotomem.types import Window


def edge(at: int = 20, size: tuple[int, int] = (24, 40)) -> np.ndarray:
    alpha = np.zeros(size, np.float32)
    alpha[:, :at] = 1
    return alpha


def test_trimap_when_the_edge_is_hard_then_band_pixels_on_either_side() -> None:
    for band in (0, 1, 5):
        row = trimap(edge(), band)[7]
        assert row.tolist() == [1.0] * (20 - band) + [0.5] * (2 * band) + [0.0] * (20 - band)


def test_trimap_when_the_edge_is_soft_then_all_of_it_and_the_band_beyond_are_unknown() -> None:
    alpha = edge()
    alpha[:, 18:22] = (0.96, 0.7, 0.3, 0.04)  # 0.05 off is sure still
    assert trimap(alpha, 3)[7].tolist() == [1.0] * 16 + [0.5] * 8 + [0.0] * 16


@pytest.mark.parametrize("band", [0, 1, 2, 3, 7, 60])
def test_trimap_when_compared_with_every_distance_then_the_same(band: int) -> None:
    rng = np.random.default_rng(band)
    alpha = np.clip(rng.normal(0.5, 1.2, (4, 5)), 0, 1).astype(np.float32).repeat(6, 0).repeat(5, 1)
    rows, cols = np.mgrid[: alpha.shape[0], : alpha.shape[1]]

    def near(marked: np.ndarray) -> np.ndarray:
        at = np.argwhere(marked)
        squares = (rows[..., None] - at[:, 0]) ** 2 + (cols[..., None] - at[:, 1]) ** 2
        return (squares <= band * band).any(-1)

    unknown = near(alpha > 0.05) & near(alpha < 0.95)
    assert np.array_equal(trimap(alpha, band), np.where(unknown, 0.5, alpha > 0.95))


def test_trimap_when_nothing_or_all_is_object_then_no_band() -> None:
    assert not trimap(np.zeros((5, 6), np.float32), 3).any()
    assert (trimap(np.ones((5, 6), np.float32), 3) == 1).all()  # a frame's border is no edge


def test_write_when_trimaps_then_exr_layers_or_eight_bit_png(tmp_path: Path) -> None:
    about = info(canvas=Window(-4, 0, 44, 24))
    plane = np.pad(edge(), ((0, 0), (4, 4)), "edge")
    data = Window(18, 0, 40, 24)
    for format in ("exr", "png", "mov"):
        settings = MatteSettings(format=format, also=("trimap",), trimap_band=3)
        with MatteWriter(tmp_path / format, info=about, objects={1: "hero", 2: "car"}, settings=settings) as writer:
            writer.write(plate_frame(about, data=data), {1: plane})
    spec, pixels = read(tmp_path / "exr" / "sh010_trimap.1001.exr")
    assert str(spec.format) == "half" and set(spec.channelnames) == {"hero.A", "car.A"}
    assert pixels["hero.A"][7].tolist() == [0.5] * 5 + [0.0] * 17 and not pixels["car.A"].any()
    _, pixels = read(tmp_path / "png" / "hero" / "sh010_trimap_hero.1001.png")
    assert pixels["Y"].dtype == np.uint8 and pixels["Y"][7].tolist() == [255] * 17 + [128] * 6 + [0] * 17
    assert np.array_equal(read(tmp_path / "mov" / "sh010_trimap_hero.1001.png")[1]["Y"], pixels["Y"])


def test_settings_when_the_band_is_negative_then_usage_error() -> None:
    with pytest.raises(UsageError, match="trimap_band is -1"):
        MatteSettings(trimap_band=-1)
