"""A model that is none of rotomem's five, through the whole engine; `test_models_alike.py` has it too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rotomem.engine.shot import track

from .shots import digests, disc, label_key, matte, plate, soft_key
from .sixth import Sixth

BALL = dict(x=50.0, dx=-0.5, y=14.0, r=6.0)


def overlap(folder: Path, frame: int, channel: str, **where: float) -> float:
    """Intersection over union of what was delivered and what is true."""
    told, true = matte(folder / f"sh010_matte.{frame}.exr", channel) > 0.5, disc(frame - 1001, **where) > 0.5
    return float((told & true).sum() / (told | true).sum())


def test_sixth_when_counted_then_a_newcomer_writes_fewer_than_120_lines() -> None:
    assert len(Path(__file__).with_name("sixth.py").read_text().splitlines()) < 120


def test_track_when_keys_lie_anywhere_then_both_objects_are_followed_and_keys_come_back(tmp_path: Path) -> None:
    keys = [soft_key(tmp_path, 1003), soft_key(tmp_path, 1007), soft_key(tmp_path, 1005, "ball", **BALL)]
    track(plate(tmp_path / "plate"), keys, tmp_path / "out", model=Sixth())
    for frame in range(1001, 1009):
        assert overlap(tmp_path / "out", frame, "hero.A") > 0.75, frame
        if frame >= 1005:
            assert overlap(tmp_path / "out", frame, "ball.A", **BALL) > 0.7, frame
    for frame, name, where in ((1003, "hero", {}), (1007, "hero", {}), (1005, "ball", BALL)):
        written = matte(tmp_path / "out" / f"sh010_matte.{frame}.exr", f"{name}.A")
        np.testing.assert_array_equal(written, disc(frame - 1001, **where).astype(np.float16))


@pytest.mark.parametrize("long_term", ("model", True))
def test_track_when_mattes_went_missing_then_resume_brings_back_the_same_bytes(
    tmp_path: Path, long_term: str | bool
) -> None:
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1001)
    told = dict(model=Sixth(), long_term=long_term, min_working_frames=2, max_working_frames=4)
    track(pattern, [key], tmp_path / "out", **told)
    whole = digests(tmp_path / "out")
    for frame in (1003, 1008):
        (tmp_path / "out" / f"sh010_matte.{frame}.exr").unlink()
    report = track(pattern, [key], tmp_path / "out", resume=True, **told)
    assert report.exit_code == 0 and report.frames["written"] == "1003,1008"
    assert digests(tmp_path / "out") == whole
