import numpy as np
import pytest

from rotomem.errors import UsageError
from rotomem.evaluation.alpha_shots import KINDS, alpha_shot


@pytest.mark.parametrize("kind", KINDS)
def test_alpha_shot_when_composed_then_plate_is_what_its_parts_make(kind: str) -> None:
    first, second = alpha_shot(kind, height=96, width=128, frames=2)
    for frame in (first, second):
        composed = frame.foreground + (1 - frame.alpha)[..., None] * frame.background
        grain = frame.plate - composed
        assert np.abs(grain).max() < 0.15 and abs(grain.mean()) < 1e-3
        assert frame.alpha.min() == 0 and frame.alpha.max() == pytest.approx(1, abs=1e-5)
        soft = ((frame.alpha > 0.05) & (frame.alpha < 0.95)).mean()
        assert 0.01 < soft < 0.3
        assert (frame.foreground[frame.alpha == 0] == 0).all()
    assert np.abs(second.alpha - first.alpha).sum() > 5
    again = next(alpha_shot(kind, height=96, width=128, frames=2))
    np.testing.assert_array_equal(again.plate, first.plate)


@pytest.mark.parametrize("wrong", [{"kind": "smoke"}, {"height": 20}, {"frames": 0}])
def test_alpha_shot_when_there_is_none_then_usage_error(wrong: dict[str, object]) -> None:
    asked = {"kind": "hair", "height": 96, "width": 96, "frames": 1, **wrong}
    with pytest.raises(UsageError, match="hair"):
        next(alpha_shot(**asked))  # type: ignore[arg-type]
