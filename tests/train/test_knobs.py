from __future__ import annotations

import pytest

from rotomem.errors import UsageError
from rotomem.train.knobs import turned
from rotomem.train.recipes.xmem_s import XMemS
from rotomem.train.schedule import Stage


def test_turned_when_knobs_are_named_then_they_are_set() -> None:
    recipe = turned(
        XMemS(),
        [
            "peak=1e-4",
            "checkpoint_s=30",
            "clip.boundary=1",
            "network.value_dim=96",
            "compose.size=(0.1, 0.5)",
            "stages=((0.5, 64, 2, 3), (1, 96, 2, 4))",
            "start=weights.safetensors",
            "half=False",
        ],
    )
    assert (recipe.peak, recipe.checkpoint_s, recipe.clip.boundary) == (1e-4, 30.0, 1.0)
    assert recipe.network.value_dim == 96 and recipe.compose.size == (0.1, 0.5)
    assert recipe.stages == (Stage(0.5, 64, 2, 3), Stage(1, 96, 2, 4))
    assert recipe.start == "weights.safetensors" and recipe.half is False
    assert recipe.clip.memorise == XMemS().clip.memorise


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("peak", "write KNOB=VALUE"),
        ("speed=1", "no knob 'speed'.*knobs: seed"),
        ("clip.speed=1", "no knob 'speed'.*knobs: memorise"),
        ("peak.x=1", "no knobs of its own"),
        ("peak=fast", "a float is wanted"),
        ("seed=1.5", "a int is wanted"),
        ("half=1", "a bool is wanted"),
        ("stages=((1, 2),)", "missing"),
    ],
)
def test_turned_when_a_setting_is_wrong_then_it_is_told(setting: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        turned(XMemS(), [setting])
