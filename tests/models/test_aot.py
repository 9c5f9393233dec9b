"""What AOT's network promises beyond the recordings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rotomem.errors import ShapeError, UsageError
from rotomem.models.aot import AOT, AOTConfig, LayerMemory, join_passes, split_labels
from rotomem.models.layers.lstt import Tokens

from .golden import seeded_state_dict
from .test_aot_parity import build

MANIFESTS = (
    "aott",
    "aots",
    "aotb",
    "aotl",
    "aotv2",
    "aotv2l",
    "aost",
    "aost_share",
    "r50_aotl",
    "r50_aotv2",
    "r50_aotv2t",
    "r50_aotv2s",
    "r50_aotv2b",
    "r50_aotv2l",
    "r50_aost",
    "r50_aost_share",
    "r101_aotl",
    "swinb_aotl",
    "swinb_aotv2",
    "swinb_aotv2l",
    "swinb_aost",
)


def clip(model: AOT, frames: int = 3) -> tuple[list[Tensor], Tensor]:
    """Pictures [1, 3, h, w] and the first's labels: two squares on noise."""
    extra = int(model.config.align_corners)
    g = torch.Generator().manual_seed(5)
    labels = torch.zeros(1, 48 + extra, 64 + extra, dtype=torch.long)
    labels[:, 4:20, 4:24] = 1
    labels[:, 24:44, 30:60] = 2
    return [torch.rand(1, 3, 48 + extra, 64 + extra, generator=g) for _ in range(frames)], labels


@torch.inference_mode()
def propagate(model: AOT, depths: list[int] | None = None, frames: int = 3) -> tuple[list[Tensor], LayerMemory]:
    """Logits of each frame after the first, every frame kept in long-term memory; and the memory at the end."""
    pictures, labels = clip(model, frames)
    memory = model.remember_reference(model.encode_frame(pictures[0]), labels)
    out = []
    for i, picture in enumerate(pictures[1:]):
        if depths is not None:
            model.depth = depths[i]
        features = model.encode_frame(picture)
        logits, seen = model.segment(features, memory, objects=2)
        out.append(logits)
        found = model.resize_logits(logits, *labels.shape[1:]).argmax(1)
        memory = model.remember(seen, found, memory, long_term=True)
    return out, memory


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_network_when_published_keys_are_loaded_then_three_frames_run(shared: Path, manifest: str) -> None:
    model = build(shared, manifest)
    logits, memory = propagate(model)
    assert memory.frames == 3
    for x in logits:
        assert x.shape == (1, 11, *((13, 17) if model.config.align_corners else (12, 16)))
        assert bool(torch.isfinite(x).all()) and bool((x[:, 3:] == -1e10).all())


@pytest.fixture(scope="module")
def aost(shared: Path) -> AOT:
    return build(shared, "aost")


@pytest.mark.parametrize("manifest", ("aost", "aost_share"))
@pytest.mark.parametrize("depth", (1, 2))
def test_depth_when_lowered_then_the_output_is_that_of_the_smaller_network(
    shared: Path, manifest: str, depth: int
) -> None:
    model = build(shared, manifest)
    beyond = [f"{part}.{i}." for part in ("layers", "decoder_norms", "conv_in") for i in range(depth, 3)]
    state = {k: v for k, v in seeded_state_dict(shared, manifest).items() if not any(b in k for b in beyond)}
    small = AOT(AOTConfig.from_state_dict(state)).eval()
    assert small.config.layers == depth
    small.load_state_dict(state)
    ours, _ = propagate(model, [depth, depth])
    theirs, _ = propagate(small)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_depth_when_changed_between_frames_then_sleeping_layers_keep_their_memory(aost: AOT) -> None:
    logits, memory = propagate(aost, [3, 1, 2, 3], frames=5)
    assert [len(given) for given in memory.reference] == [5, 4, 3]
    assert [m.key.shape[1] // 20 for m in memory.long] == [5, 4, 3]
    steady, _ = propagate(aost, [3, 3, 3, 3], frames=5)
    assert torch.equal(logits[0], steady[0]) and not torch.equal(logits[1], steady[1])
    assert bool(torch.isfinite(logits[3]).all())


def test_depth_when_the_decoder_has_one_entrance_then_other_depths_are_refused(shared: Path) -> None:
    model = build(shared, "aots")
    model.depth = 2
    with pytest.raises(UsageError, match=r"depth is 1.*runs at depth 2"):
        model.depth = 1


def test_depth_when_zero_or_above_the_layers_then_it_is_refused(aost: AOT) -> None:
    for depth in (0, 4):
        with pytest.raises(UsageError):
            aost.depth = depth


def test_remember_reference_when_added_later_then_it_joins_long_term_and_becomes_the_latest(aost: AOT) -> None:
    pictures, labels = clip(aost)
    aost.depth = 3
    with torch.inference_mode():
        memory = aost.remember_reference(aost.encode_frame(pictures[0]), labels)
        labels = labels.clone()
        labels[:, 30:40, 4:14] = 3
        added = aost.remember_reference(aost.encode_frame(pictures[1]), labels, memory)
    for old, new, short in zip(memory.long, added.long, added.short, strict=True):
        n = old.key.shape[1]
        assert torch.equal(new.key[:, n:], old.key) and torch.equal(new.value[:, :n], short.value)
    assert added.reference == ((True, True),) * 3


def test_bounded_when_memory_is_over_the_limit_then_the_oldest_frames_without_given_labels_go() -> None:
    def tokens(*frames: int) -> Tokens:
        x = torch.tensor(frames, dtype=torch.float32).repeat_interleave(2).view(1, -1, 1)
        return Tokens(x, -x)

    memory = LayerMemory((tokens(5, 4, 3, 2, 1, 0),), (tokens(5),), ((False, False, True, False, False, True),))
    for most, kept in ((6, [5, 4, 3, 2, 1, 0]), (4, [5, 4, 3, 0]), (3, [5, 3, 0]), (1, [3, 0])):
        small = memory.bounded(most)
        assert small.long[0].key[0, ::2, 0].tolist() == kept
        assert torch.equal(small.long[0].value, -small.long[0].key)
        assert small.frames == len(kept) and sum(small.reference[0]) == 2
        assert small.short is memory.short


def test_encode_frame_when_off_the_grid_then_it_says_which_sizes_do(aost: AOT) -> None:
    with pytest.raises(ShapeError, match=r"64x48.*16k\+1"):
        aost.encode_frame(torch.zeros(1, 3, 48, 64))
    with pytest.raises(ShapeError, match=r"65x49.*16k with"):
        AOT(AOTConfig(encoder="swin_base", layers=1)).encode_frame(torch.zeros(1, 3, 49, 65))


def test_embed_identities_when_a_label_has_no_identity_then_it_is_refused(aost: AOT) -> None:
    with pytest.raises(ShapeError, match=r"label is 11.*10 objects"):
        aost.embed_identities(torch.full((1, 49, 65), 11))


def test_split_labels_when_there_are_more_than_one_pass_holds_then_ids_are_split_by_range() -> None:
    labels = torch.arange(24).view(1, 4, 6)
    passes = split_labels(labels, 10)
    assert len(passes) == 3
    again = sum(torch.where(p > 0, p + 10 * i, 0) for i, p in enumerate(passes))
    assert torch.equal(torch.as_tensor(again), labels)
    assert [int(p.max()) for p in passes] == [10, 10, 3]
    assert len(split_labels(torch.zeros(1, 2, 2, dtype=torch.long), 10)) == 1


def test_join_passes_when_two_passes_disagree_then_background_is_their_product() -> None:
    g = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 1, 4, 3, 3, generator=g).double().float()
    joined = join_passes([first, second], [3, 2])
    p, q = first.softmax(1), second.softmax(1)
    want = torch.cat([p[:, :1] * q[:, :1], p[:, 1:], q[:, 1:3]], 1)
    assert joined.shape == (1, 6, 3, 3)
    assert torch.allclose(joined.sigmoid(), want, atol=1e-6)
    assert torch.equal(join_passes([first], [2]), first[:, :3])


def test_segment_when_batched_or_in_another_memory_layout_then_nothing_changes(aost: AOT) -> None:
    aost.depth = 3
    pictures, labels = clip(aost)
    want, _ = propagate(aost, frames=2)
    pair = [torch.cat([p, p.flip(3)]).contiguous(memory_format=torch.channels_last) for p in pictures]
    with torch.inference_mode():
        memory = aost.remember_reference(aost.encode_frame(pair[0]), torch.cat([labels, labels.flip(2)]))
        logits, _ = aost.segment(aost.encode_frame(pair[1]), memory, objects=2)
    assert torch.allclose(logits[:1], want[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits[1:], want[0], rtol=1e-2)


def test_gradients_when_a_clip_is_decoded_then_they_reach_every_part_of_the_network(shared: Path) -> None:
    model = build(shared, "aott")
    pictures, labels = clip(model)
    memory = model.remember_reference(model.encode_frame(pictures[0]), labels)
    logits, _ = model.segment(model.encode_frame(pictures[1]), memory, objects=2)
    logits[:, :3].square().mean().backward()
    without = [k for k, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []
