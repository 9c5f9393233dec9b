"""What AOT's network promises beyond the recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import rotomem
from engine.toy import labels, picture, tiny_aot
from rotomem.engine.session import Session
from rotomem.errors import ShapeError, UsageError
from rotomem.models.aot import AOT, AOTConfig
from rotomem.models.interface import Decoded, MemoryElements, Query
from rotomem.models.layers.lstt import attend
from rotomem.models.layers.norm import as_map, as_tokens

from .golden import seeded_state_dict

MASK = labels((1, 4, 4, 16), (2, 24, 30, 20))


def build(shared: Path, name: str, manifest: str) -> AOT:
    model = rotomem.build_model(name, seeded_state_dict(shared, manifest))
    assert isinstance(model, AOT)
    return model


class ClipMemory:
    """Every frame of a clip, with gradients: what a model reads while it is trained."""

    def __init__(self, heads: int) -> None:
        self.heads = heads
        self.frames: list[tuple[MemoryElements, ...]] = []

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        key, value = (
            torch.cat([as_tokens(x) for x in each], 1)
            for each in zip(*((f[layer].key, f[layer].value[:, 0]) for f in self.frames), strict=True)
        )
        asked = as_tokens(query.key).expand(key.shape[0], -1, -1)
        return as_map(attend(asked, key, value, self.heads), *query.key.shape[-2:])[:, None]

    def latest(self, *, layer: int = 0) -> MemoryElements:
        return self.frames[-1][layer]


def decode_second(model: AOT, pictures: Tensor, masks: Tensor) -> Decoded:
    """pictures [2, B, 3, h, w] and the first's masks [B, I, h, w]; what is said of the second."""
    memory = ClipMemory(model.config.heads)
    features = model.encode_frame(pictures[0])
    memory.frames.append(model.encode_mask(pictures[0], features, masks, None, drawn=True).elements)
    return model.decode(model.encode_frame(pictures[1]), memory, None)


def pair() -> tuple[Tensor, Tensor]:
    """Two pictures [2, 1, 3, 49, 65] and masks [1, 2, 49, 65]."""
    pictures = torch.from_numpy(np.stack([picture(t, 49, 65) for t in range(2)])).permute(0, 3, 1, 2)[:, None]
    label = torch.from_numpy(labels((1, 4, 4, 16), (2, 24, 30, 20), height=49, width=65))
    return pictures, torch.stack([label == 1, label == 2])[None].float()


@pytest.mark.parametrize("manifest", ("aost", "aost_share"))
@pytest.mark.parametrize("depth", (1, 2))
def test_depth_when_lowered_then_the_output_is_that_of_the_smaller_network(
    shared: Path, manifest: str, depth: int
) -> None:
    beyond = [f"{part}.{i}." for part in ("layers", "decoder_norms", "conv_in") for i in range(depth, 3)]
    state = {k: v for k, v in seeded_state_dict(shared, manifest).items() if not any(b in k for b in beyond)}
    small = rotomem.build_model("aost", state)
    assert small.depths == tuple(range(1, depth + 1))
    ours, theirs = Session(build(shared, "aost", manifest), depth=depth, size=None), Session(small, size=None)
    for t in range(3):
        mask = MASK if t == 0 else None
        assert np.array_equal(ours.step(picture(t), mask), theirs.step(picture(t), mask))


def test_depth_when_changed_between_frames_then_sleeping_layers_keep_their_memory() -> None:
    steady, changing = (Session(tiny_aot(), size=None, mem_every=2) for _ in range(2))
    last = []
    for t, depth in enumerate((2, 1, 1, 2, 2)):
        changing.depth = depth
        ours, theirs = (s.step(picture(t), MASK if t == 0 else None) for s in (changing, steady))
        assert np.array_equal(ours, theirs) == (t == 0)
        assert np.isfinite(ours).all()
        last.append([changing.memory.latest(layer).value for layer in range(2)])
    frames = [pool["frame"].unique().tolist() for pool in changing.memory.layers]
    assert frames == [[0, 2, 4], [0, 4]]
    assert last[0][1] is last[1][1] is last[2][1] and last[2][1] is not last[3][1]
    assert last[0][0] is not last[1][0]


def test_depth_when_two_sessions_share_a_model_then_each_has_its_own() -> None:
    model = tiny_aot()
    alone = Session(tiny_aot(), depth=1, size=None)
    first, second = Session(model, depth=1, size=None), Session(model, size=None)
    for t in range(3):
        mask = MASK if t == 0 else None
        second.step(picture(t), mask)
        assert np.array_equal(first.step(picture(t), mask), alone.step(picture(t), mask))
    assert (first.depth, second.depth) == (1, 2)


def test_depth_when_the_model_cannot_run_at_it_then_it_is_refused() -> None:
    for depth in (0, 3):
        with pytest.raises(UsageError, match=rf"depth is {depth}.*runs at depth 1, 2"):
            Session(tiny_aot(), depth=depth)
    with pytest.raises(UsageError, match="runs at depth 2"):
        Session(tiny_aot(scalable=False), depth=1)
    with pytest.raises(UsageError, match="none but its own"):
        Session(rotomem.build_model("xmem-s"), depth=1)


def test_encode_frame_when_off_the_grid_then_it_says_which_sizes_do() -> None:
    with pytest.raises(ShapeError, match=r"64x48.*16k\+1"):
        tiny_aot().encode_frame(torch.zeros(1, 3, 48, 64))
    with pytest.raises(ShapeError, match=r"65x49.*16k with"):
        AOT(AOTConfig(encoder="swin_base", layers=1)).encode_frame(torch.zeros(1, 3, 49, 65))


def test_embed_identities_when_there_are_more_masks_than_identities_then_it_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"4 objects.*3 apart"):
        tiny_aot().embed_identities(torch.zeros(1, 4, 49, 65))


def test_decode_when_batched_or_in_another_memory_layout_then_nothing_changes() -> None:
    model = tiny_aot()
    pictures, masks = pair()
    with torch.inference_mode():
        want = decode_second(model, pictures, masks).logits
        both = torch.cat([pictures, pictures.flip(4)], 1)
        both = torch.stack([p.contiguous(memory_format=torch.channels_last) for p in both])
        got = decode_second(model, both, torch.cat([masks, masks.flip(3)])).logits
    assert torch.allclose(got[:1], want, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(got[1:], want, rtol=1e-2)


def test_session_when_in_bfloat16_then_it_is_close_to_float32() -> None:
    """One frame after the key: labels fed back may differ later on."""
    model = tiny_aot()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model.compute_dtype = dtype
        session = Session(model, size=None)
        session.step(picture(0), MASK)
        found.append(session.step(picture(1)))
        pool = session.memory.layers[0]
        assert {pool.buckets[0].key.dtype, session.memory.latest(0).value.dtype} == {torch.float32}
    difference = np.abs(found[0] - found[1])
    assert 0 < difference.mean() < 0.02


def test_gradients_when_a_clip_is_decoded_then_they_reach_every_part_of_the_network(shared: Path) -> None:
    model = build(shared, "aot", "aott")
    decode_second(model, *pair()).logits[:, :3].square().mean().backward()
    without = [k for k, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []
