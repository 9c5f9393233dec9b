"""XMem against recordings of the published code, frame by frame, memories and intermediates included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rotomem
from rotomem.engine.memory import Store
from rotomem.engine.session import Session
from rotomem.models.interface import VOSModel
from rotomem.ops import backend

from .golden import Recording, close, recording, seeded_state_dict, spy_on

NAMES = ("xmem", "xmem_evict", "xmem_pad")


@pytest.fixture(scope="module")
def model(shared: Path) -> VOSModel:
    gains = recording(shared, "xmem").config["gains"]
    assert all(recording(shared, name).config["gains"] == gains for name in NAMES)
    return rotomem.build_model("xmem", seeded_state_dict(shared, "xmem", gains))


def session_of(model: VOSModel, config: dict[str, Any]) -> Session:
    return Session(
        model,
        mem_every=config["mem_every"],
        top_k=config["top_k"],
        min_working_frames=config["min_mid_term_frames"],
        max_working_frames=config["max_mid_term_frames"],
        prototypes=config["num_prototypes"],
        max_long_term=config["max_long_term_elements"],
        long_term=config["enable_long_term"],
        deep_update_every=config["deep_update_every"],
        size=None,
    )


def run(session: Session, rec: Recording, steps: int) -> None:
    for t in range(steps):
        session.step(rec.frames[t], rec.arrays["masks"][0] if t == 0 else None)


# One element of xmem_pad's sensory state sits on the slope of a tanh with large arguments: summing a convolution in
# another order alone moves it by 8e-5 to 1.1e-4, the mean of all elements by 1e-6.
SENSORY = 2e-4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", backend.available())
def test_session_when_the_recorded_clip_is_stepped_then_probabilities_match(
    shared: Path, model: VOSModel, name: str, which: str
) -> None:
    rec = recording(shared, name)
    with backend.use(which):
        session = session_of(model, rec.config)
        for t in range(len(rec.frames)):
            probabilities = session.step(
                rec.frames[t], rec.arrays["masks"][0] if t == 0 else None, last=t == len(rec.frames) - 1
            )
            error = np.abs(probabilities - rec.probability(t)).max()
            assert error < rec.tolerance(t), f"frame {t}: {error:.2e} > {rec.tolerance(t):.2e}"
            pool = session.memory.layers[0]
            sizes = (int((~pool.of(Store.LONG_TERM)).sum()), int(pool.of(Store.LONG_TERM).sum()))
            assert sizes == tuple(rec.arrays["sizes_work_long_groups"][t][:2]), f"frame {t}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("when", ("before", "after"))
def test_memory_when_recorded_then_every_store_matches(shared: Path, model: VOSModel, name: str, when: str) -> None:
    rec = recording(shared, name)
    session = session_of(model, rec.config)
    run(session, rec, rec.config["record_t"] + (when == "after"))
    pool = session.memory.layers[0]
    stores = {"work": ~pool.of(Store.LONG_TERM), "long": pool.of(Store.LONG_TERM)}
    checked = 0
    for store, members in stores.items():
        for column, ours in (
            ("key", pool["key"][members].T[None]),
            ("shrinkage", pool["shrinkage"][members][None, None]),
            ("selection", pool["selection"][members].T[None]),
            ("use_count", pool["use"][members][None, None]),
            ("life_count", pool["life"][members][None, None]),
            ("value_g0", pool.buckets[0].value[:, : pool.size][:, members].transpose(1, 2)),
        ):
            published = rec.arrays.get(f"rec_{when}_{store}_{column}")
            if published is not None:
                close(ours.numpy(), published, f"{store} {column}")
                checked += 1
    assert session._sensory is not None
    close(session._sensory.numpy(), rec.arrays[f"rec_{when}_hidden"], "sensory memory", SENSORY)
    assert checked >= 3


@pytest.mark.parametrize("name", NAMES)
def test_network_when_recorded_then_features_and_readout_match(
    shared: Path, model: VOSModel, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = recording(shared, name)
    session = session_of(model, rec.config)
    run(session, rec, rec.config["record_t"])
    seen = spy_on(model, monkeypatch)
    session.step(rec.frames[rec.config["record_t"]])
    close(seen["features"].key.numpy(), rec.arrays["rec_key"], "key")
    close(seen["features"].selection.numpy(), rec.arrays["rec_selection"], "selection")
    close(seen["features"].f16.numpy(), rec.arrays["rec_f16"], "f16")
    close(seen["readout"][0].numpy(), rec.arrays["rec_readout"], "readout")
    # Beyond 8 a logit is the log of a float32's last bits below 1; probabilities say the rest.
    inside = np.abs(rec.arrays["rec_segment_logits"]) < 8
    close(seen["decoded"].logits.numpy()[inside], rec.arrays["rec_segment_logits"][inside], "logits")
    close(seen["decoded"].probabilities.numpy(), rec.arrays["rec_segment_prob"], "probabilities")
    if "rec_value" in rec.arrays:
        close(seen["features"].shrinkage.numpy(), rec.arrays["rec_shrinkage"], "shrinkage")
        close(seen["masks"].numpy(), rec.arrays["rec_value_in_masks"], "memorised masks")
        close(seen["memorised"].elements[0].value.numpy(), rec.arrays["rec_value"], "value")
        close(seen["memorised"].sensory.numpy(), rec.arrays["rec_hidden_after_encode_value"], "deep update", SENSORY)
    else:
        close(seen["decoded"].sensory.numpy(), rec.arrays["rec_hidden_after_segment"], "sensory update", SENSORY)


def test_first_consolidation_when_recorded_then_prototypes_match(shared: Path, model: VOSModel) -> None:
    rec = recording(shared, "xmem")
    session = session_of(model, rec.config)
    run(session, rec, int(rec.arrays["rec_cons_t"]) + 1)
    pool = session.memory.layers[0]
    members = pool.of(Store.LONG_TERM)
    close(pool["key"][members].T[None].numpy(), rec.arrays["rec_cons_prototype_key"], "prototype key")
    close(pool["shrinkage"][members][None, None].numpy(), rec.arrays["rec_cons_prototype_shrinkage"], "shrinkage")
    value = pool.buckets[0].value[:, : pool.size][:, members].transpose(1, 2)
    close(value.numpy(), rec.arrays["rec_cons_prototype_value_g0"], "prototype value")
