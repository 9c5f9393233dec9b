"""Recordings of the published code, and the seeded weights behind them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from rotomem.models.interface import VOSModel


@lru_cache
def _make_weights(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_weights", shared / "models/golden/make_weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seeded_state_dict(shared: Path, manifest: str, gains: Any = None) -> dict[str, Tensor]:
    """The state_dict that the rule of the recordings makes from a manifest."""
    keys = json.loads((shared / "models/manifests" / f"{manifest}.json").read_text())
    made: dict[str, Tensor] = _make_weights(shared).make_state_dict(keys, gains)
    return made


@dataclass(frozen=True)
class Recording:
    """One npz: its configuration, pictures, probabilities and intermediates."""

    config: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    @property
    def frames(self) -> NDArray[np.float32]:
        """[T, H, W, 3] in 0..1."""
        return (self.arrays["frames"].astype(np.float64) / 255).astype(np.float32)

    def probability(self, t: int) -> NDArray[np.float32]:
        return self.arrays[f"prob_{t:03d}"]

    def tolerance(self, t: int) -> float:
        """Twenty times the published code's own float32 error, at least 1e-4 (README of the recordings)."""
        return max(1e-4, 20 * float(self.arrays["fp32_vs_fp64_maxabs"][t]))


@lru_cache
def recording(shared: Path, name: str) -> Recording:
    with np.load(shared / "models/golden" / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return Recording(json.loads(str(arrays.pop("config"))), arrays)


def close(ours: NDArray[Any], published: NDArray[Any], what: str, limit: float = 1e-4) -> None:
    """Relative to the tensor's own scale, as the recordings' README suggests."""
    error = np.abs(ours - published).max() / max(np.abs(published).max(), 1e-6)
    assert error < limit, f"{what}: relative error {error:.2e}"


def spy_on(model: VOSModel, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What passes between engine and model from now on: features, readout, decoded, masks, memorised."""
    seen: dict[str, Any] = {}
    encode_frame, encode_mask, decode = model.encode_frame, model.encode_mask, model.decode

    def spy_frame(image: Tensor) -> Any:
        seen["features"] = encode_frame(image)
        return seen["features"]

    def spy_decode(features: Any, memory: Any, sensory: Any, **options: Any) -> Any:
        read = memory.read

        def spy_read(query: Any, *, layer: int = 0) -> Any:
            seen["readout"] = read(query, layer=layer)
            return seen["readout"]

        memory.read = spy_read
        seen["decoded"] = decode(features, memory, sensory, **options)
        return seen["decoded"]

    def spy_mask(image: Any, features: Any, masks: Any, *rest: Any, **options: Any) -> Any:
        seen["masks"] = masks
        seen["memorised"] = encode_mask(image, features, masks, *rest, **options)
        return seen["memorised"]

    monkeypatch.setattr(model, "encode_frame", spy_frame)
    monkeypatch.setattr(model, "decode", spy_decode)
    monkeypatch.setattr(model, "encode_mask", spy_mask)
    return seen
