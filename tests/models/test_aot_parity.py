"""AOT and AOST against recordings of the published code, run by a session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

import rotomem
from rotomem.engine.session import Session
from rotomem.models.aot import AOT, AOTFeatures
from rotomem.models.interface import Decoded, MemoryElements
from rotomem.models.layers.framing import ResizeToGrid
from rotomem.ops import backend

from .golden import Recording, recording, seeded_state_dict

NAMES = ("aott", "aotl", "aost")


@dataclass(frozen=True)
class Recorded(ResizeToGrid):
    """Hands the network the picture that was recorded at its raster; labels and answers are smaller by a pixel."""

    pictures: tuple[Tensor, ...] = ()

    def image(self, image: Tensor) -> Tensor:
        return self.pictures[int(image[0, 0, 0, 0])]


@lru_cache
def published(shared: Path, name: str) -> AOT:
    rec = recording(shared, name)
    state = seeded_state_dict(shared, name, rec.config["gains"])
    model = rotomem.build_model("aost" if name == "aost" else "aot", state)
    assert isinstance(model, AOT)
    model.framing = Recorded(16, 1, pictures=tuple(torch.from_numpy(rec.frames).permute(0, 3, 1, 2)[:, None]))
    return model


def step(session: Session, rec: Recording, t: int) -> np.ndarray:
    return session.step(np.full((96, 160, 3), t, np.float32), rec.arrays["masks"][0] if t == 0 else None)


@contextmanager
def recorded_labels_fed_back(session: Session, rec: Recording, t: int) -> Iterator[None]:
    """What the published code made of the frame is remembered, whatever we made of it."""
    label = torch.from_numpy(rec.arrays["labels"][t])
    probabilities = torch.stack([label == i for i in range(3)])[None].float()
    fed_back = session._fed_back
    with mock.patch.object(session, "_fed_back", lambda _, *size: fed_back(probabilities, *size)):
        yield


@dataclass
class Run:
    """A clip with the recorded labels fed back; memory and features are of the recorded frame."""

    probabilities: list[np.ndarray]
    frames: list[int]
    long: list[tuple[Tensor, Tensor]]
    short: list[MemoryElements]
    features: AOTFeatures
    decoded: Decoded


@lru_cache
def run(shared: Path, name: str, which: str = "auto") -> Run:
    rec, model = recording(shared, name), published(shared, name)
    session = Session(model, size=None)
    bank = session.memory
    heard: dict[str, Any] = {}
    encode_frame, decode = model.encode_frame, model.decode

    def hear_frame(image: Tensor) -> AOTFeatures:
        heard["features"] = encode_frame(image)
        return heard["features"]

    def hear_decode(*args: Any, **options: Any) -> Decoded:
        if session._step == rec.config["record_t"]:
            pools, size = bank.layers, bank.size
            heard["frames"] = pools[0]["frame"].unique().tolist()
            heard["long"] = [(b.key[:, :size].clone(), b.value[:, :size].clone()) for p in pools for b in p.buckets]
            heard["short"] = [bank.latest(layer) for layer in range(len(pools))]
        heard["decoded"] = decode(*args, **options)
        return heard["decoded"]

    probabilities = []
    at_record: dict[str, Any] = {}
    hearing = mock.patch.multiple(model, encode_frame=hear_frame, decode=hear_decode)
    with backend.use(which), hearing:
        for t in range(len(rec.frames)):
            with recorded_labels_fed_back(session, rec, t):
                probabilities.append(step(session, rec, t))
            if t == rec.config["record_t"]:
                at_record = dict(heard)
    return Run(probabilities, **at_record)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", ("auto", "torch"))
def test_session_when_recorded_labels_are_fed_back_then_probabilities_match(
    shared: Path, name: str, which: str
) -> None:
    """What "auto" chooses are the native kernels, where they are built; the other tests here run on them."""
    rec = recording(shared, name)
    for t, ours in enumerate(run(shared, name, which).probabilities[1:]):
        error = np.abs(ours - rec.arrays["prob"][t]).max()
        assert error < rec.tolerance(t), f"frame {t + 1}: {error:.2e} > {rec.tolerance(t):.2e}"


@pytest.mark.parametrize("name", NAMES)
def test_session_when_it_runs_freely_then_it_gives_the_recorded_labels_until_one_is_a_tie(
    shared: Path, name: str
) -> None:
    rec = recording(shared, name)
    session = Session(published(shared, name), size=None)
    for t in range(len(rec.frames)):
        ours = step(session, rec, t)
        if t == 0:
            continue
        theirs = rec.arrays["prob"][t - 1]
        assert np.abs(ours - theirs).max() < rec.tolerance(t - 1), f"frame {t}"
        other = ours.argmax(0) != rec.arrays["labels"][t]
        if other.any():
            # From here on another past is remembered; it may only come from two labels as likely as each other.
            best = np.sort(theirs[:, other], 0)
            assert (best[-1] - best[-2]).max() < 2 * rec.tolerance(t - 1), f"frame {t}: {other.sum()} labels differ"
            assert t > 1
            break


def close(ours: Tensor, published: np.ndarray, what: str, limit: float = 1e-4) -> None:
    """Relative to the tensor's own scale, as the recordings' README suggests."""
    assert tuple(ours.shape) == published.shape, what
    error = np.abs(ours.numpy() - published).max() / np.abs(published).max()
    assert error < limit, f"{what}: relative error {error:.2e}"


def tokens(x: Tensor) -> Tensor:
    """[B, N, C] or [B, C, y, x] in the recordings' order [N, B, C]."""
    return x.transpose(0, 1) if x.ndim == 3 else x.flatten(2).permute(2, 0, 1)


@pytest.mark.parametrize("name", NAMES)
def test_reference_frame_when_recorded_then_every_intermediate_matches(shared: Path, name: str) -> None:
    rec, model = recording(shared, name), published(shared, name)
    label = torch.from_numpy(rec.arrays["masks"][0])
    masks = model.framing.mask(torch.stack([label == 1, label == 2])[None].float())
    with torch.inference_mode():
        features = model.encode_frame(torch.from_numpy(rec.frames[0]).permute(2, 0, 1)[None])
        identity = model.embed_identities(masks)
        seen, kept = model.match_reference(features, identity)
    close(features.f4, rec.arrays["rec_t0_enc4x"], "1/4")
    close(features.f8, rec.arrays["rec_t0_enc8x"], "1/8")
    close(features.f16, rec.arrays["rec_t0_enc16x"], "1/16")
    close(features.projected, rec.arrays["rec_t0_proj"], "projection")
    close(tokens(features.positions), rec.arrays["rec_t0_pos_emb"], "positions", 1e-5)
    close(tokens(identity), rec.arrays["rec_t0_id_emb"], "identities")
    for layer, (memory, output) in enumerate(zip(kept, seen.outputs, strict=True)):
        close(tokens(memory.key), rec.arrays[f"rec_t0_lt_k{layer}"], f"key {layer}")
        close(tokens(memory.value), rec.arrays[f"rec_t0_lt_v{layer}"], f"value {layer}")
        close(tokens(output), rec.arrays[f"rec_t0_lstt_out{layer}"], f"output {layer}")


def newest_first(rows: Tensor, frames: int) -> Tensor:
    """Long-term rows [1, N, C] in the recordings' order of frames."""
    return rows.unflatten(1, (frames, -1)).flip(1).flatten(1, 2)


@pytest.mark.parametrize("name", NAMES)
def test_later_frame_when_recorded_then_memories_outputs_and_logits_match(shared: Path, name: str) -> None:
    rec, ours = recording(shared, name), run(shared, name)
    assert ours.frames == ([0] if name == "aott" else [0, 5])
    close(ours.features.projected, rec.arrays["rec_proj"], "projection")
    decoded = ours.decoded
    for layer, output in enumerate(decoded.state.outputs):
        long, short = ours.long[layer], ours.short[layer]
        for what, rows in zip("kv", long, strict=True):
            close(tokens(newest_first(rows, len(ours.frames))), rec.arrays[f"rec_lt_{what}{layer}"], f"long {what}")
        close(short.key, rec.arrays[f"rec_st_k{layer}"], f"short-term key {layer}")
        close(short.value[:, 0], rec.arrays[f"rec_st_v{layer}"], f"short-term value {layer}")
        close(tokens(output), rec.arrays[f"rec_lstt_out{layer}"], f"output {layer}")
    close(decoded.logits[:, :3], rec.arrays["rec_logits_4x"], "logits at 1/4")
    close(
        published(shared, name).framing.restore(decoded.logits, 96, 160)[:, :3],
        rec.arrays["rec_logits_out"],
        "logits",
    )
