"""A clip told forward: the same as in training, with a memory that does not grow."""

from __future__ import annotations

import pytest
import torch

from rotomem.engine.prediction import PredictionSession
from rotomem.errors import MemoryStateError, ShapeError
from rotomem.models.prediction import FramePredictor, PredictorConfig
from rotomem.train.recipes.prediction import predict_clip
from rotomem.train.slots import SlotMemory


def tiny(**settings: object) -> FramePredictor:
    torch.manual_seed(0)
    basic = {"widths": (8, 12, 16), "strides": (1, 2, 2), "key_dim": 8, "value_dim": 12, "update_dim": 4}
    return FramePredictor(PredictorConfig(**{**basic, **settings})).eval()  # type: ignore[arg-type]


def session_after(model: FramePredictor, frames: torch.Tensor) -> PredictionSession:
    session = PredictionSession(model)
    for frame in frames:
        session.observe(frame)
    return session


@pytest.mark.parametrize("given", (3, 4, 9))
def test_session_when_stepped_then_it_tells_what_training_would(given: int) -> None:
    """A rule that needs no chance, so that both memories hold the same."""
    model = tiny(slots=4, policy="oldest")
    frames = torch.rand(given, 16, 24, 3, generator=torch.Generator().manual_seed(1))
    session = session_after(model, frames)
    told = torch.stack([session.predict() for _ in range(3)])
    memory = SlotMemory(model.plan, "oldest", torch.Generator(), pinned=0)
    with torch.no_grad():
        expected = predict_clip(model, frames.permute(0, 3, 1, 2)[None], 3, memory)[0].clamp(0, 1)
    assert torch.allclose(told, expected.permute(0, 2, 3, 1), atol=1e-5)


@pytest.mark.parametrize(("policy", "slots"), (("learned", 5), ("first_and_last", 2)))
def test_session_when_a_clip_is_long_then_memory_stays_as_it_is(policy: str, slots: int) -> None:
    session = PredictionSession(tiny(policy=policy))
    bytes_held = []
    for _ in range(20):
        session.observe(torch.rand(16, 24, 3))
        bytes_held.append(session.memory.nbytes)
        frames = session.memory.layers[0]["frame"].unique().numel()
        assert frames <= slots
    assert frames == slots and len(set(bytes_held[10:])) == 1


def test_session_when_pictures_fit_no_grid_then_predictions_have_their_size() -> None:
    session = session_after(tiny(), torch.rand(4, 13, 21, 3))
    frame = session.predict()
    assert frame.shape == (13, 21, 3) and frame.min() >= 0 and frame.max() <= 1


def test_session_when_asked_too_early_or_given_the_wrong_then_it_says_so() -> None:
    session = session_after(tiny(), torch.rand(2, 16, 16, 3))
    with pytest.raises(MemoryStateError, match=r"2 frames are too few.*at least 3"):
        session.predict()
    with pytest.raises(ShapeError, match="expected float32"):
        session.observe(torch.zeros(16, 16, 3, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="one size"):
        session.observe(torch.rand(16, 18, 3))
