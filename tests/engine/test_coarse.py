"""The logits of a decoder's own raster are those the delivered probabilities were enlarged from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rotomem.engine.session import Session
from rotomem.models.interface import Decoded

from .toy import MODELS, labels, picture


# AOST enlarges what is coarse, and the sixth model tells no coarse logits.
@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("aost", "sixth")])
def test_coarse_when_one_object_then_enlarged_it_is_the_delivered_probability(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS[name]()
    heard: list[Decoded] = []
    decode = model.decode

    def listen(*args: Any, **kwargs: Any) -> Decoded:
        heard.append(decode(*args, **kwargs))
        return heard[-1]

    monkeypatch.setattr(model, "decode", listen)
    session = Session(model, size=None)
    session.step(picture(0), labels((1, 8, 8, 24)))
    delivered = session.step(picture(1))
    coarse = heard[0].coarse
    assert coarse is not None and coarse.shape == (1, 2, 12, 16) and coarse.dtype == torch.float32
    # with one object the row of logits is its log odds, which every model enlarges bilinearly
    odds = F.interpolate(coarse[:, 1:], scale_factor=4, mode="bilinear", align_corners=False)
    assert delivered[1].std() > 0.01
    # soft aggregation makes p**2 / (p**2 + (1 - p)**2) of one object's p
    assert torch.allclose(torch.sigmoid(2 * odds)[0, 0], torch.from_numpy(delivered[1]), atol=1e-4)
