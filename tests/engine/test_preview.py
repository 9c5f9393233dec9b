"""A shot coarse to fine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rotomem.engine.options import TrackOptions
from rotomem.engine.preview import Preview, PreviewFrame
from rotomem.errors import UsageError

from .shots import HEIGHT, WIDTH, label_key, plate, soft_key
from .toy import tiny_model


def previewed(
    folder: Path, masks: list[str], every: int = 4, count: int = 11, **options: object
) -> list[PreviewFrame]:
    pattern = plate(folder, range(1001, 1001 + count))
    with Preview(pattern, masks, TrackOptions(model=tiny_model(), **options), every=every) as preview:
        return list(preview.frames())


def test_preview_when_one_key_then_it_comes_first_then_every_nth_then_the_rest(tmp_path: Path):
    told = previewed(tmp_path, [soft_key(tmp_path, 1003)])
    assert [(t.frame, t.level) for t in told[:5]] == [
        (1003, "key"),
        (1001, "coarse"),
        (1007, "coarse"),
        (1011, "coarse"),
        (1002, "fine"),
    ]
    assert sorted(t.frame for t in told) == list(range(1001, 1012))
    for t in told:
        assert t.picture is not None and t.picture.shape == (HEIGHT, WIDTH, 3)
        assert t.mattes[1].shape == (HEIGHT, WIDTH) and t.mattes[1].min() >= 0 and t.mattes[1].max() <= 1


def test_preview_when_it_is_done_twice_then_it_is_the_same(tmp_path: Path):
    masks = [label_key(tmp_path, 1002), label_key(tmp_path, 1009)]
    one, other = previewed(tmp_path, masks), previewed(tmp_path, masks)
    assert [t.frame for t in one] == [t.frame for t in other]
    for a, b in zip(one, other, strict=True):
        assert set(a.mattes) == set(b.mattes) == {1, 2}
        assert all(np.array_equal(a.mattes[i], b.mattes[i]) for i in a.mattes)
        assert sum(a.mattes.values()).max() <= 1 + 1e-5


def test_preview_when_an_object_comes_late_or_goes_then_its_frames_tell(tmp_path: Path):
    gone = soft_key(tmp_path, 1009, "car", r=-5)  # draws nothing
    masks = [soft_key(tmp_path, 1001), soft_key(tmp_path, 1005, "car", x=50, dx=-0.5, y=14, r=6), gone]
    told = {t.frame: t for t in previewed(tmp_path, masks)}
    assert len(told) == 11
    assert all(set(told[f].mattes) == {1, 2} for f in range(1001, 1009))
    assert all(2 not in told[f].mattes or not told[f].mattes[2].any() for f in (1009, 1010, 1011))


def test_preview_when_an_object_is_declared_absent_then_it_is_left_out(tmp_path: Path):
    told = {t.frame: t for t in previewed(tmp_path, [soft_key(tmp_path, 1001)], absent=("hero@1006-1007",))}
    assert [f for f, t in sorted(told.items()) if not t.mattes] == [1006, 1007]


def test_preview_when_every_frame_is_coarse_then_in_order(tmp_path: Path):
    told = previewed(tmp_path, [soft_key(tmp_path, 1001)], every=1, count=4)
    assert [(t.frame, t.level) for t in told] == [(1001, "key"), *((f, "coarse") for f in (1002, 1003, 1004))]


def test_preview_when_the_step_is_none_then_an_error(tmp_path: Path):
    with pytest.raises(UsageError, match="every 0 frames"):
        previewed(tmp_path, [soft_key(tmp_path, 1001)], every=0)
