"""STCN against a recording of the published code, frame by frame, memory and intermediates included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rotomem
from rotomem.engine.session import Session
from rotomem.models.interface import VOSModel
from rotomem.ops import backend

from .golden import close, recording, seeded_state_dict, spy_on


@pytest.fixture(scope="module")
def model(shared: Path) -> VOSModel:
    return rotomem.build_model("stcn", seeded_state_dict(shared, "stcn", recording(shared, "stcn").config["gains"]))


@pytest.mark.parametrize("which", backend.available())
def test_session_when_the_recorded_clip_is_stepped_then_probabilities_match(
    shared: Path, model: VOSModel, which: str
) -> None:
    rec = recording(shared, "stcn")
    with backend.use(which):
        session = Session(model, size=None)
        for t in range(len(rec.frames)):
            ours = session.step(
                rec.frames[t], rec.arrays["masks"][0] if t == 0 else None, last=t == len(rec.frames) - 1
            )
            error = np.abs(ours - rec.arrays["prob"][t]).max()
            assert error < rec.tolerance(t), f"frame {t}: {error:.2e} > {rec.tolerance(t):.2e}"


def test_network_when_recorded_then_features_memory_and_value_match(
    shared: Path, model: VOSModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = recording(shared, "stcn")
    session = Session(model, size=None)
    for t in range(rec.config["record_t"]):
        session.step(rec.frames[t], rec.arrays["masks"][0] if t == 0 else None)
    pool = session.memory.layers[0]
    close(pool["key"].T[None].numpy(), rec.arrays["rec_mem_k"], "memory key")
    close(pool.buckets[0].value[:, : pool.size].transpose(1, 2).numpy(), rec.arrays["rec_mem_v"], "memory value")
    seen = spy_on(model, monkeypatch)
    session.step(rec.frames[rec.config["record_t"]])
    close(seen["features"].key.numpy(), rec.arrays["rec_key"], "key")
    close(seen["features"].thin.numpy(), rec.arrays["rec_f16_thin"], "f16_thin")
    close(seen["features"].f16.numpy(), rec.arrays["rec_f16"], "f16")
    close(seen["readout"][0].numpy(), rec.arrays["rec_readout"], "readout")
    close(seen["masks"][0][:, None].numpy(), rec.arrays["rec_value_in_masks"], "memorised masks")
    close(seen["memorised"].elements[0].value[0][:, :, None].numpy(), rec.arrays["rec_value"], "value")


def test_include_last_when_on_then_the_previous_frame_is_read_and_gives_way(shared: Path, model: VOSModel) -> None:
    rec = recording(shared, "stcn")
    session = Session(model, size=None, include_last=True, mem_every=3)
    held = []
    for t in range(6):
        session.step(rec.frames[t], rec.arrays["masks"][0] if t == 0 else None)
        held.append(session.memory.layers[0]["frame"].unique().tolist())
    assert held == [[0], [0, 1], [0, 2], [0, 3], [0, 3, 4], [0, 3, 5]]
