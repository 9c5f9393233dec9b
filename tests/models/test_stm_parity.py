"""STM against a recording of the published code, frame by frame, memory and intermediates included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import rotomem
from rotomem.engine.session import Session
from rotomem.models.interface import VOSModel
from rotomem.ops import backend

from .golden import close, recording, seeded_state_dict, spy_on


@pytest.fixture(scope="module")
def model(shared: Path) -> VOSModel:
    return rotomem.build_model("stm", seeded_state_dict(shared, "stm", recording(shared, "stm").config["gains"]))


@pytest.mark.parametrize("which", backend.available())
def test_session_when_the_recorded_clip_is_stepped_then_probabilities_match(
    shared: Path, model: VOSModel, which: str
) -> None:
    rec = recording(shared, "stm")
    with backend.use(which):
        session = Session(model, size=None)
        for t in range(len(rec.frames)):
            ours = session.step(rec.frames[t], rec.arrays["masks"][0] if t == 0 else None)
            error = np.abs(ours - rec.arrays["prob"][t]).max()
            assert error < rec.tolerance(t), f"frame {t}: {error:.2e} > {rec.tolerance(t):.2e}"


def test_network_when_recorded_then_features_memory_and_new_elements_match(
    shared: Path, model: VOSModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = recording(shared, "stm")
    session = Session(model, size=None)
    for t in range(rec.config["record_t"]):
        session.step(rec.frames[t], rec.arrays["masks"][0] if t == 0 else None)
    pool = session.memory.layers[0]
    bucket = pool.buckets[0]
    for name, rows in (("rec_keys", bucket.key), ("rec_values", bucket.value)):
        published = rec.arrays[name]
        close(rows[:, : pool.size].transpose(1, 2).reshape(published.shape).numpy(), published, name)
    seen = spy_on(model, monkeypatch)
    session.step(rec.frames[rec.config["record_t"]])
    close(seen["features"].key.numpy(), rec.arrays["rec_query_key"], "query key")
    close(seen["features"].value.numpy(), rec.arrays["rec_query_value"], "query value")
    close(seen["readout"][0].numpy(), rec.arrays["rec_readout"], "readout")
    published = rec.arrays["rec_logit"][:, :3]
    # Beyond 8 a logit is the log of a float32's last bits below 1; probabilities say the rest.
    inside = np.abs(published) < 8
    close(seen["decoded"].logits.numpy()[inside], published[inside], "logits")
    close(seen["masks"].numpy(), rec.arrays["rec_memorize_in_masks"][:, 1:], "memorised masks")
    element = seen["memorised"].elements[0]
    close(element.key[0][:, :, None].numpy(), rec.arrays["rec_new_key"], "new key")
    close(element.value[0][:, :, None].numpy(), rec.arrays["rec_new_value"], "new value")


def test_step_when_the_picture_is_padded_then_masks_are_fed_back_without_the_padding(
    shared: Path, model: VOSModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = recording(shared, "stm")
    session = Session(model, size=None)
    seen = spy_on(model, monkeypatch)
    for t in range(2):
        session.step(rec.frames[t][:90, :149], rec.arrays["masks"][0][:90, :149] if t == 0 else None)
    fed = seen["masks"][0].clone()
    assert fed[:, 3:93, 5:154].max() > 0
    fed[:, 3:93, 5:154] = 0
    assert torch.count_nonzero(fed) == 0
