"""The refinement head: what it may change, what it must not, and how weights with and without it load."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import rotomem
from engine.toy import TINY, labels, picture
from rotomem.errors import CheckpointError
from rotomem.models.interface import Query
from rotomem.models.layers.refine import RefinementHead
from rotomem.models.xmem import XMem, XMemConfig


def head(width: int = 8, seed: int = 0) -> RefinementHead:
    """One that says something."""
    torch.manual_seed(seed)
    made = RefinementHead(6, width)
    torch.nn.init.normal_(made.out.weight)
    return made.eval()


def refined() -> XMem:
    torch.manual_seed(4)
    model = XMem(replace(TINY, refine=8)).eval()
    assert model.refine is not None
    torch.nn.init.normal_(model.refine.out.weight)
    return model


@torch.no_grad()
def test_head_when_untrained_then_it_corrects_nothing() -> None:
    fresh = RefinementHead(6, 8)
    corrections = fresh(fresh.look(torch.rand(2, 3, 16, 24)), torch.randn(2, 3, 6, 4, 6))
    assert corrections.shape == (2, 3, 16, 24) and corrections.dtype == torch.float32
    assert not corrections.any()


@torch.no_grad()
def test_head_when_picture_and_features_move_by_a_block_then_corrections_move_with_them() -> None:
    made, image, g4 = head(), torch.randn(1, 3, 48, 48), torch.randn(1, 2, 6, 12, 12)
    still = made(made.look(image), g4)
    moved = made(made.look(image.roll((4, 8), (2, 3))), g4.roll((1, 2), (3, 4)))
    inside = (..., slice(24, 32), slice(24, 32))
    assert torch.allclose(moved[inside], still.roll((4, 8), (2, 3))[inside], atol=1e-5)


@torch.no_grad()
def test_head_when_one_pixel_changes_then_only_its_surroundings_do() -> None:
    made, image, g4 = head(), torch.randn(1, 3, 64, 64), torch.randn(1, 1, 6, 16, 16)
    before = made(made.look(image), g4)
    image[0, :, 33, 30] += 3
    changed = (made(made.look(image), g4) != before)[0, 0].nonzero()
    # it is seen by blocks 7 to 9 and 6 to 8, mixed into one more on every side, of which half a block is blended; the
    # level of every block that this touches is blended into its neighbours
    assert changed.amin(0).tolist() == [18, 14] and changed.amax(0).tolist() == [49, 45]


@torch.no_grad()
def test_head_when_its_last_layer_is_alike_everywhere_then_blocks_blend_bilinearly() -> None:
    made, image, g4 = head(), torch.randn(1, 3, 32, 32), torch.randn(1, 1, 6, 8, 8)
    made.out.weight.fill_(1)
    made.out.bias.zero_()
    inner = F.relu(made.mix(F.relu(made.objects(g4[0]) + made.look(image)))).sum(1, keepdim=True)
    expected = F.interpolate(inner, scale_factor=4, mode="bilinear", align_corners=False)
    level = F.interpolate(F.avg_pool2d(expected, 4), scale_factor=4, mode="bilinear", align_corners=False)
    inside = (..., slice(8, -8), slice(8, -8))
    assert torch.allclose(made(made.look(image), g4)[inside], (expected - level)[inside], atol=1e-4)


@torch.no_grad()
def test_head_when_it_would_raise_all_pixels_alike_then_nothing_changes() -> None:
    made = head()
    made.out.weight.zero_()
    made.out.bias.fill_(3)
    assert not made(made.look(torch.randn(1, 3, 32, 32)), torch.randn(1, 2, 6, 8, 8)).any()


@torch.no_grad()
def test_head_when_objects_are_many_then_each_is_corrected_as_if_alone() -> None:
    made, image, g4 = head(), torch.randn(2, 3, 32, 32), torch.randn(2, 3, 6, 8, 8)
    seen = made.look(image)
    together = made(seen, g4)
    for i in range(3):
        assert torch.allclose(together[:, i : i + 1], made(seen, g4[:, i : i + 1]), atol=1e-5)


def test_config_when_read_from_weights_then_the_width_is_the_heads() -> None:
    assert XMemConfig.from_state_dict(refined().state_dict()) == replace(TINY, refine=8)
    assert XMemConfig.from_state_dict(XMem(TINY).state_dict()).refine == 0


def test_weights_when_they_have_a_head_then_they_load_whole_and_alpha_is_theirs() -> None:
    model = refined()
    loaded = rotomem.build_model("xmem-s", model.state_dict())
    assert isinstance(loaded, XMem) and loaded.config.refine == 8
    base = {k: v for k, v in model.state_dict().items() if not k.startswith("refine.")}
    plain = rotomem.build_model("xmem-s", base)
    ours, theirs = (rotomem.Session(m, size=None) for m in (loaded, plain))
    for session in (ours, theirs):
        session.step(picture(0), labels((1, 8, 8, 24), (2, 30, 30, 40)))
    a, b = ours.step(picture(1)), theirs.step(picture(1))
    assert a.shape == b.shape and np.allclose(a.sum(0), 1, atol=1e-5)
    assert np.abs(a - b).max() > 0.01, "the head has its say"


@torch.inference_mode()
def test_session_when_a_head_refines_then_what_is_memorised_is_the_networks_own() -> None:
    model = refined()
    base = {k: v for k, v in model.state_dict().items() if not k.startswith("refine.")}
    sessions = [
        rotomem.Session(rotomem.build_model("xmem-s", weights), mem_every=1, size=None)
        for weights in (model.state_dict(), base)
    ]
    for session in sessions:
        for i in range(4):
            session.step(picture(i), labels((1, 8, 8, 24)) if i == 0 else None)
    ours, theirs = (session.memory.read(Query(torch.ones(1, 16, 4, 4))) for session in sessions)
    assert torch.equal(ours, theirs)


def test_weights_when_they_have_no_head_then_one_that_is_asked_for_changes_nothing() -> None:
    base = XMem(TINY).state_dict()
    sessions = [rotomem.Session(rotomem.build_model("xmem-s", base, refine=w), size=None) for w in (0, 8)]
    for session in sessions:
        session.step(picture(0), labels((1, 8, 8, 24)))
    plain, fresh = (session.step(picture(1)) for session in sessions)
    assert np.array_equal(plain, fresh)


def test_weights_when_half_of_a_head_is_missing_then_they_are_refused() -> None:
    state = {k: v for k, v in refined().state_dict().items() if k != "refine.out.bias"}
    with pytest.raises(CheckpointError, match=r"1 missing: refine\.out\.bias"):
        rotomem.build_model("xmem-s", state)
    with pytest.raises(CheckpointError, match="unexpected"):
        rotomem.build_model("xmem-s", refined().state_dict(), refine=0)
