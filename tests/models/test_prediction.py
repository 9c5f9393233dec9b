"""The frame predictor as a network: shapes, what its frames depend on, its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rotomem.errors import CheckpointError, UsageError
from rotomem.models.interface import MemoryElements, Query
from rotomem.models.prediction import FramePredictor, PredictorConfig, load_predictor

TINY = PredictorConfig((8, 8, 12, 12, 16, 16), (1, 2, 1, 2, 1, 1), key_dim=8, value_dim=12, update_dim=4)


def tiny(seed: int = 0) -> FramePredictor:
    torch.manual_seed(seed)
    return FramePredictor(TINY).eval()


def frames(count: int, seed: int = 0) -> list[Tensor]:
    return list(torch.rand(count, 2, 3, 16, 24, generator=torch.Generator().manual_seed(seed)))


class Holding:
    """A memory of one template."""

    def __init__(self, held: MemoryElements) -> None:
        self.held = held

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        weights = (self.held.key[:, 0].flatten(2).transpose(1, 2) @ query.key.flatten(2)).softmax(1)
        return (self.held.value[:, 0].flatten(2) @ weights).view(2, 1, -1, *query.key.shape[-2:])

    def latest(self, *, layer: int = 0) -> MemoryElements:
        return self.held


def told(model: FramePredictor, stack: Sequence[Tensor], earlier: Sequence[Tensor]) -> Tensor:
    return model.decode(model.encode(stack), Holding(model.encode(earlier).template))


def test_predictor_when_built_as_published_then_it_has_six_blocks_either_way_and_five_slots() -> None:
    model = FramePredictor()
    assert len(model.encoder) == len(model.decoder) == 6
    assert model.plan.slots == 5 and model.plan.stride == 8
    kinds = [type(m) for block in (model.encoder[0], model.decoder[0]) for m in block]
    assert kinds.count(nn.Conv2d) == kinds.count(nn.ConvTranspose2d) == 2 and kinds.count(nn.GroupNorm) == 4


def test_predictor_when_given_a_stack_then_the_next_frame_is_of_its_size_and_batches_stay_apart() -> None:
    model = tiny()
    a, b = frames(3), frames(3, seed=1)
    next_frame = told(model, a, b)
    assert next_frame.shape == (2, 3, 16, 24)
    features = model.encode(a)
    assert features.key.shape == (2, 8, 4, 6) and features.extra.shape == (2, 1, 9, 4, 6)
    a[0][1] += 0.5
    assert torch.equal(told(model, a, b)[0], next_frame[0]) and not torch.equal(told(model, a, b)[1], next_frame[1])


@pytest.mark.parametrize("which", (0, 1, 2))
def test_predictor_when_any_frame_or_the_memory_changes_then_so_does_the_next_frame(which: int) -> None:
    model = tiny()
    a, b = frames(3), frames(3, seed=1)
    before = told(model, a, b)
    assert not torch.allclose(told(model, a, frames(3, seed=2)), before, atol=1e-4)
    a[which] = a[which].flip(-1)
    assert not torch.allclose(told(model, a, b), before, atol=1e-4)


@pytest.mark.parametrize("blend", (True, False))
def test_load_predictor_when_given_its_weights_then_they_tell_its_widths_and_its_memory(
    tmp_path: Path, blend: bool
) -> None:
    torch.manual_seed(0)
    model = FramePredictor(replace(TINY, blend=blend, slots=3, policy="oldest", seed=4)).eval()
    path = tmp_path / "clouds.safetensors"
    save_file(model.state_dict(), path)
    loaded = load_predictor(path, device="cpu")
    assert loaded.config == model.config
    assert torch.equal(told(loaded, frames(3), frames(3)), told(model, frames(3), frames(3)))


def test_blend_when_nothing_is_new_then_the_last_frame_stays_and_when_all_is_then_nothing_of_it() -> None:
    model = tiny()
    a, b = frames(3), frames(3, seed=1)
    assert model.picture.bias is not None
    with torch.no_grad():
        model.picture.weight[3:] = 0
        model.picture.bias[3:] = -40
        assert torch.equal(told(model, a, b), a[-1])
        model.picture.bias[3:] = 40
        all_new = told(model, a, b)
        published = FramePredictor(replace(TINY, blend=False)).eval()
        state = model.state_dict()
        published.load_state_dict({k: v[:3] if k.startswith("picture.") else v for k, v in state.items()})
        assert torch.allclose(all_new, told(published, a, b), atol=1e-6)


def test_load_predictor_when_the_weights_are_others_then_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"encoder.0.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not a frame predictor's"):
        load_predictor(path)
    missing = tiny().state_dict()
    del missing["picture.bias"]
    save_file(missing, path)
    with pytest.raises(CheckpointError, match=r"picture\.bias"):
        load_predictor(path)


@pytest.mark.parametrize("wrong", ({"strides": (1, 2)}, {"strides": (1, 2, 1, 2, 1, 3)}, {"slots": 1}))
def test_config_when_it_makes_no_network_then_it_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        PredictorConfig(**wrong)  # type: ignore[arg-type]
