"""AOT and AOST against recordings of the published code, teacher-forced: the recorded labels are what is remembered,
since one pixel whose argmax falls the other way would change every frame after it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rotomem.models.aot import AOT, AOTConfig, AOTFeatures, LayerMemory, Seen

from .golden import Recording, recording, seeded_state_dict

NAMES = ("aott", "aotl", "aost")
EVERY = {"aott": None, "aotl": 5, "aost": 5}


def build(shared: Path, manifest: str, gains: object = None) -> AOT:
    state = seeded_state_dict(shared, manifest, gains)
    model = AOT(AOTConfig.from_state_dict(state)).eval()
    model.load_state_dict(state)  # strict: every published key, and no other
    return model


def image(rec: Recording, t: int) -> Tensor:
    return torch.from_numpy(rec.frames[t]).permute(2, 0, 1)[None]


def labels(rec: Recording, t: int, size: tuple[int, int] = (97, 161)) -> Tensor:
    """[1, h, w] at the network's raster, nearest as published."""
    picture = torch.from_numpy(rec.arrays["labels"][t])[None, None].float()
    return torch.nn.functional.interpolate(picture, size=size)[0].long()


@dataclass
class Step:
    features: AOTFeatures
    logits: Tensor
    seen: Seen
    probabilities: Tensor
    memory_before: LayerMemory


@dataclass
class Run:
    model: AOT
    reference: Seen
    reference_features: AOTFeatures
    reference_memory: LayerMemory
    steps: dict[int, Step]


@lru_cache
def run(shared: Path, name: str) -> Run:
    rec = recording(shared, name)
    model = build(shared, name, rec.config["gains"])
    every = EVERY[name]
    steps = {}
    with torch.inference_mode():
        first = model.encode_frame(image(rec, 0))
        reference, _ = model.match_reference(first, labels(rec, 0))
        start = memory = model.remember_reference(first, labels(rec, 0))
        for t in range(1, len(rec.frames)):
            features = model.encode_frame(image(rec, t))
            logits, seen = model.segment(features, memory, objects=2)
            probabilities = model.resize_logits(logits, 96, 160).softmax(1)
            steps[t] = Step(features, logits, seen, probabilities, memory)
            memory = model.remember(seen, labels(rec, t), memory, long_term=every is not None and t % every == 0)
    return Run(model, reference, first, start, steps)


def close(ours: Tensor, published: np.ndarray, what: str, limit: float = 1e-4) -> None:
    """Relative to the tensor's own scale, as the recordings' README suggests."""
    assert tuple(ours.shape) == published.shape, what
    error = np.abs(ours.numpy() - published).max() / np.abs(published).max()
    assert error < limit, f"{what}: relative error {error:.2e}"


def tokens(x: Tensor) -> Tensor:
    """[B, N, C] or [B, C, y, x] in the recordings' order [N, B, C]."""
    return x.transpose(0, 1) if x.ndim == 3 else x.flatten(2).permute(2, 0, 1)


@pytest.mark.parametrize("name", NAMES)
def test_segment_when_labels_are_fed_back_then_probabilities_match(shared: Path, name: str) -> None:
    rec = recording(shared, name)
    for t, step in run(shared, name).steps.items():
        error = np.abs(step.probabilities[0, :3].numpy() - rec.arrays["prob"][t - 1]).max()
        assert error < rec.tolerance(t - 1), f"frame {t}: {error:.2e} > {rec.tolerance(t - 1):.2e}"
        assert step.probabilities[0, 3:].max() == 0, "an identity without an object took part"


@pytest.mark.parametrize("name", NAMES)
def test_reference_frame_when_recorded_then_every_intermediate_matches(shared: Path, name: str) -> None:
    rec, ours = recording(shared, name), run(shared, name)
    features = ours.reference_features
    close(features.f4, rec.arrays["rec_t0_enc4x"], "1/4")
    close(features.f8, rec.arrays["rec_t0_enc8x"], "1/8")
    close(features.f16, rec.arrays["rec_t0_enc16x"], "1/16")
    close(features.projected, rec.arrays["rec_t0_proj"], "projection")
    close(tokens(features.positions), rec.arrays["rec_t0_pos_emb"], "positions", 1e-5)
    close(tokens(ours.model.embed_identities(labels(rec, 0)).detach()), rec.arrays["rec_t0_id_emb"], "identities")
    for layer, (memory, output) in enumerate(zip(ours.reference_memory.long, ours.reference.outputs, strict=True)):
        close(tokens(memory.key), rec.arrays[f"rec_t0_lt_k{layer}"], f"key {layer}")
        close(tokens(memory.value), rec.arrays[f"rec_t0_lt_v{layer}"], f"value {layer}")
        close(tokens(output), rec.arrays[f"rec_t0_lstt_out{layer}"], f"output {layer}")


@pytest.mark.parametrize("name", NAMES)
def test_later_frame_when_recorded_then_memories_outputs_and_logits_match(shared: Path, name: str) -> None:
    rec, ours = recording(shared, name), run(shared, name)
    step = ours.steps[rec.config["record_t"]]
    close(step.features.projected, rec.arrays["rec_proj"], "projection")
    y, x = step.features.projected.shape[-2:]
    for layer, output in enumerate(step.seen.outputs):
        long, short = step.memory_before.long[layer], step.memory_before.short[layer]
        close(tokens(long.key), rec.arrays[f"rec_lt_k{layer}"], f"long-term key {layer}")
        close(tokens(long.value), rec.arrays[f"rec_lt_v{layer}"], f"long-term value {layer}")
        close(short.key.mT.unflatten(2, (y, x)), rec.arrays[f"rec_st_k{layer}"], f"short-term key {layer}")
        close(short.value.mT.unflatten(2, (y, x)), rec.arrays[f"rec_st_v{layer}"], f"short-term value {layer}")
        close(tokens(output), rec.arrays[f"rec_lstt_out{layer}"], f"output {layer}")
    close(step.logits[:, :3], rec.arrays["rec_logits_4x"], "logits at 1/4")
    resized = ours.model.resize_logits(step.logits, 96, 160)
    close(resized[:, :3], rec.arrays["rec_logits_out"], "logits")
