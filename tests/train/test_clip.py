from __future__ import annotations

import pytest
import torch

from rotomem.models.xmem import XMem
from rotomem.train.clip import ClipKnobs, clip_losses, encode_apart, encode_together, one_batch
from rotomem.train.compose import Clips
from train.tiny import TINY


def made(clips: int, *, void: bool = False) -> Clips:
    rng = torch.Generator().manual_seed(clips)
    coverage = torch.rand(clips, 3, 2, 32, 32, generator=rng) / 2
    return Clips(
        torch.rand(clips, 3, 3, 32, 32, generator=rng),
        coverage,
        torch.ones(clips, 2, dtype=torch.bool),
        torch.zeros(clips, 3, 32, 32, dtype=torch.bool) if void else None,
    )


@pytest.fixture(scope="module")
def model() -> XMem:
    torch.manual_seed(8)
    return XMem(TINY).eval()


def test_encode_together_when_norms_are_still_then_it_is_encode_apart(model: XMem) -> None:
    images = made(2).images
    for together, apart in zip(encode_together(model, images), encode_apart(model, images), strict=True):
        assert type(together) is type(apart)
        for name, value in vars(apart).items():
            torch.testing.assert_close(getattr(together, name), value, rtol=1e-4, atol=1e-5)


def test_one_batch_when_parts_are_joined_then_losses_are_their_mean(model: XMem) -> None:
    parts = [made(1, void=True), made(2, void=True)]
    batch = one_batch(parts)
    assert batch.images.shape[0] == 3 and batch.void is not None and batch.void.shape[0] == 3
    assert one_batch([made(1), made(2)]).void is None
    with torch.no_grad():
        found, *each = (clip_losses(model, clips, torch.Generator(), ClipKnobs()) for clips in (batch, *parts))
    for key, value in found.items():
        assert float(value) == pytest.approx((float(each[0][key]) + 2 * float(each[1][key])) / 3, rel=1e-4), key


def test_clip_losses_when_the_boundary_weighs_then_the_loss_is_the_sum_of_its_parts(model: XMem) -> None:
    with torch.no_grad():
        knobs = ClipKnobs(dice=0.5, boundary=0.25)
        found = clip_losses(model, made(2), torch.Generator(), knobs)
        plain = clip_losses(model, made(2), torch.Generator(), ClipKnobs())
    assert "boundary" not in plain
    whole = found["cross_entropy"] + 0.5 * found["dice"] + 0.25 * found["boundary"]
    assert float(found["loss"]) == pytest.approx(float(whole), rel=1e-6)


def test_clip_losses_when_an_object_is_not_followed_then_it_is_background(model: XMem) -> None:
    clips = made(1)
    coverage = clips.coverage.clone()
    coverage[:, :, 1] = 0
    present = torch.tensor([[True, False]])
    with torch.no_grad():
        hidden = clip_losses(model, Clips(clips.images, clips.coverage, present), torch.Generator(), ClipKnobs())
        never = clip_losses(model, Clips(clips.images, coverage, present), torch.Generator(), ClipKnobs())
    assert hidden.keys() == never.keys() and all(torch.equal(hidden[k], never[k]) for k in hidden)
