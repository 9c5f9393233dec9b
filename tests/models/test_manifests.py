"""Every published layout of weights: recognised by its keys, built, loaded, run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rotomem
from engine.toy import labels, picture
from rotomem.engine.session import Session
from rotomem.models.aot import AOT
from rotomem.models.registry import REGISTRY

from .golden import seeded_state_dict

MANIFESTS = {
    "xmem": ("xmem", "xmem_nohidden", "xmem_stage0_single_object"),
    "stcn": ("stcn", "stcn_stage0_single_object"),
    "stm": ("stm",),
    "aot": ("aott", "aots", "aotb", "aotl", "r50_aotl", "r101_aotl", "swinb_aotl"),
    "aotv2": (
        "aotv2",
        "aotv2l",
        "r50_aotv2",
        "r50_aotv2t",
        "r50_aotv2s",
        "r50_aotv2b",
        "r50_aotv2l",
        "swinb_aotv2",
        "swinb_aotv2l",
    ),
    "aost": ("aost", "aost_share", "r50_aost", "r50_aost_share", "swinb_aost"),
}
GIVEN_ONLY = ("aott", "aots", "r50_aotv2t", "r50_aotv2s")
MASK = labels((1, 4, 4, 16), (2, 24, 30, 20))


def test_manifests_when_listed_then_each_is_run_here(shared: Path) -> None:
    published = {p.stem for p in (shared / "models/manifests").glob("*.json")} - {"index"}
    assert published == {m for manifests in MANIFESTS.values() for m in manifests} and len(published) == 27


@pytest.mark.parametrize("name, manifest", [(n, m) for n, manifests in MANIFESTS.items() for m in manifests])
def test_session_when_published_keys_are_loaded_then_three_frames_run(shared: Path, name: str, manifest: str) -> None:
    state = seeded_state_dict(shared, manifest)
    assert [n for n, e in REGISTRY.items() if e.recognise and e.recognise(state)] == [name]
    model = rotomem.build_model(name, {f"module.{k}": v for k, v in state.items()})
    if isinstance(model, AOT):
        assert model.plan.memory_every == (None if manifest in GIVEN_ONLY else 5)
    session = Session(model, size=None)
    for t in range(3):
        probabilities = session.step(picture(t), MASK if t == 0 else None)
        assert probabilities.shape == (3, 48, 64)
        assert np.isfinite(probabilities).all() and np.allclose(probabilities.sum(0), 1, atol=1e-5)
    corners = isinstance(model, AOT) and model.config.align_corners
    frames = 2 if model.plan.latest_frame else 1  # beside the drawn one
    assert session.memory.size == frames * (20 if corners else 12)
