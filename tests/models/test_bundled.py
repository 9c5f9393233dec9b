"""The weights that come with rotomem: their file, and that they track what is easy to track."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open

import rotomem
from rotomem.models.registry import REGISTRY

BUNDLED = [name for name, entry in REGISTRY.items() if entry.weights is not None]


@pytest.mark.parametrize("name", BUNDLED)
def test_weights_when_shipped_then_small_half_and_of_known_origin(name: str) -> None:
    path = REGISTRY[name].weights
    assert path is not None and path.stat().st_size <= 16_000_000
    with safe_open(path, "pt") as file:
        assert {file.get_tensor(k).dtype for k in file.keys()} == {torch.float16}  # noqa: SIM118
        assert {"recipe", "steps"} <= set(file.metadata()), "the file says how it was made"


def leaf(t: int, height: int = 240, width: int = 320) -> tuple[np.ndarray, np.ndarray]:
    """A textured disc that crosses a textured ground: picture [H, W, 3] and mask [H, W]."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = np.sin(x / 9) * np.cos(y / 7) + 0.5 * np.sin((x + 2 * y) / 23)
    picture = np.stack([0.35 + 0.1 * waves, 0.45 + 0.1 * waves, 0.4 - 0.08 * waves], -1)
    cx, cy = 90 + 6 * t, 120 + 20 * np.sin(t / 3)
    mask = (x - cx) ** 2 + (y - cy) ** 2 < 48**2
    stripes = 0.5 + 0.3 * np.sign(np.sin((x - cx) / 5) * np.sin((y - cy) / 8))
    picture[mask] = np.stack([0.4 + 0.5 * stripes, 0.2 + 0.2 * stripes, 0.15 * stripes], -1)[mask]
    return picture.astype(np.float32), mask.astype(np.uint8)


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize("dtype", ("float32", "auto"))
def test_bundled_model_when_a_disc_crosses_the_picture_then_it_is_followed(name: str, dtype: str) -> None:
    session = rotomem.Session(rotomem.load_model(name, device="cpu", dtype=dtype), size=None)
    overlaps = []
    for t in range(12):
        picture, mask = leaf(t)
        seen = session.step(picture, mask if t == 0 else None)[1] > 0.5
        overlaps.append((seen & (mask > 0)).sum() / (seen | (mask > 0)).sum())
    assert np.mean(overlaps[1:]) > 0.8
