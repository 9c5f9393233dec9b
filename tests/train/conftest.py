"""A miniature source folder, written by the tests themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from rotomem.train.data import PicturePool, SourceConfig, load_pool


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert oiio.ImageBuf(np.ascontiguousarray(pixels)).write(str(path))


@pytest.fixture(scope="session")
def source_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of which three have masks, and a clip of five frames."""
    root = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:120, 0:160]
    images = []
    for i in range(6):
        waves = [np.sin(x / (5 + 3 * rng.random()) + y / (7 + 9 * rng.random()) + c) for c in range(3)]
        picture = ((np.stack(waves, -1) * 0.3 + 0.5) * 255).astype(np.uint8)
        entry: dict[str, object] = {"file": f"img/{i}.png", "mask": None}
        if i < 3:
            mask = (np.hypot(x - 70 - 10 * i, y - 60) < 30).astype(np.uint8)
            picture[mask > 0] = picture[mask > 0][:, ::-1] // 2 + 60
            write_png(root / f"mask/{i}.png", mask)
            entry["mask"] = f"mask/{i}.png"
        write_png(root / f"img/{i}.png", picture)
        images.append(entry)
    for i in range(5):
        frame = ((np.sin((x + 6 * i) / 9)[..., None] * 0.3 + 0.5) * np.array([255, 200, 150])).astype(np.uint8)
        write_png(root / f"clips/one/{i:05d}.png", frame)
    manifest = {"images": images, "clips": [{"dir": "clips/one", "frames": 5}]}
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root


SMALL = SourceConfig(picture_px=96, cutout_px=64, cutout_least_px=16)


@pytest.fixture(scope="session")
def pool(source_folder: Path) -> PicturePool:
    return load_pool(source_folder, SMALL)
