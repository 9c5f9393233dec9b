"""Shots tracked in windows of the plate: found by a scout, or told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import rotomem
from rotomem.engine.report import Report
from rotomem.errors import UsageError

from .shots import digests, matte, write
from .sixth import Look, Sixth

HEIGHT, WIDTH = 160, 240
FRAMES = range(1001, 1009)


class ByColour(Sixth):
    """Follows objects by colour alone, so that its window may move."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = replace(self.plan, placed_keys=False)

    def encode_frame(self, image: Tensor) -> Look:
        key = super().encode_frame(image).key
        return Look(torch.cat([key[:, :3], torch.zeros_like(key[:, 3:])], 1))


def disc(frame: int, pace: float) -> NDArray[np.float32]:
    yy, xx = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    return np.clip(12.5 - np.hypot(yy - 70, xx - 40 - pace * (frame - 1001)), 0, 1).astype(np.float32)


def shot(folder: Path, pace: float = 20.0) -> tuple[str, list[str]]:
    """A warm disc that walks over a cold ground: the plate, and the key of its first frame."""
    yy, xx = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    ground = (0.1 + 0.02 * np.sin(xx / 7) * np.cos(yy / 5))[..., None] * np.array([0.6, 0.9, 1.2], np.float32)
    for frame in FRAMES:
        alpha = disc(frame, pace)[..., None]
        pixels = alpha * np.array([0.8, 0.3, 0.1], np.float32) + (1 - alpha) * ground
        write(folder / f"plate.{frame}.exr", pixels.astype(np.float16), channels=("R", "G", "B"))
    key = write(folder / "hero.1001.exr", disc(1001, pace)[..., None].astype(np.float16), channels=("A",))
    return str(folder / "plate.%04d.exr"), [f"hero@1001={key}:A"]


def track(given: tuple[str, list[str]], out: Path, model: Callable[[], Sixth] = ByColour, **options: Any) -> Report:
    return rotomem.track(*given, out / "hero.%04d.exr", model=model(), **{"size": 40, **options})


def error(out: Path, pace: float = 20.0) -> float:
    return float(np.mean([np.abs(matte(out / f"hero.{f}.exr") - disc(f, pace)).sum() for f in FRAMES]))


def test_track_when_the_actor_is_small_then_its_window_shows_it_finer(tmp_path: Path) -> None:
    given = shot(tmp_path)
    report = track(given, tmp_path / "auto", roi="auto")
    assert any("frames 1002-1008: a window of 48x48 in" in note for note in report.regions), report.regions
    off = track(given, tmp_path / "off")
    assert (
        off.regions == []
        and off.notes[-1] == "objects are small in this plate: --roi auto shows them 4.0 times as finely"
    )
    assert error(tmp_path / "auto") < 0.8 * error(tmp_path / "off")


def test_track_when_keys_hold_places_then_one_window_for_all_frames(tmp_path: Path) -> None:
    report = track(shot(tmp_path, pace=2.0), tmp_path / "auto", Sixth, roi="auto", size=60)
    assert any("a window of 52x48 at +" in note for note in report.regions), report.regions
    assert error(tmp_path / "auto", 2.0) < 60


def test_track_when_a_frame_is_missing_then_resume_makes_the_same_window_and_bytes(tmp_path: Path) -> None:
    given, out = shot(tmp_path), tmp_path / "auto"
    track(given, out, roi="auto")
    before = digests(out)
    (out / "hero.1004.exr").unlink()
    report = track(given, out, roi="auto", resume=True)
    assert report.frames_written == 1 and digests(out) == before
    assert track(given, out, roi="off", resume=True).frames_kept == 0


def test_track_when_keys_are_at_both_ends_then_both_passes_share_the_windows(tmp_path: Path) -> None:
    plate, masks = shot(tmp_path)
    last = write(tmp_path / "last.exr", disc(1008, 20.0)[..., None].astype(np.float16), channels=("A",))
    given = plate, [*masks, f"hero@1008={last}:A"]
    report = track(given, tmp_path / "auto", roi="auto")
    assert any("frames 1002-1007: a window of 48x48 in" in note for note in report.regions), report.regions
    track(given, tmp_path / "off")
    assert error(tmp_path / "auto") < 0.8 * error(tmp_path / "off")


def test_track_when_the_window_is_told_then_nothing_outside_of_it_but_the_key(tmp_path: Path) -> None:
    given, out = shot(tmp_path), tmp_path / "told"
    report = track(given, out, roi="80x80+20+30")
    assert np.array_equal(matte(out / "hero.1001.exr"), disc(1001, 20.0).astype(np.float16))
    assert matte(out / "hero.1003.exr")[30:110, 20:100].max() > 0.5
    outside = matte(out / "hero.1008.exr").copy()
    outside[30:110, 20:100] = 0
    assert not outside.any()
    assert any("reach the border of their region on 1004" in warning for warning in report.warnings)


def test_track_when_a_key_lies_outside_of_the_told_window_then_said(tmp_path: Path) -> None:
    report = track(shot(tmp_path), tmp_path / "told", roi="80x80+150+30")
    assert any("the key of hero on 1001 lies outside of its region" in warning for warning in report.warnings)


def test_track_when_the_scout_sees_nothing_then_the_whole_frame_and_said(tmp_path: Path) -> None:
    report = track(shot(tmp_path, pace=90.0), tmp_path / "auto", roi="auto")
    assert any("the whole frame, at 40 lines nothing is seen on 1004-1008" in note for note in report.regions), (
        report.regions
    )


@pytest.mark.parametrize(
    "roi, text", [("whole", "is no window"), ("100x100", "is no window"), ("9x9+300+0", "lies outside of the plate")]
)
def test_track_when_the_region_is_impossible_then_usage_error_before_any_work(
    tmp_path: Path, roi: str, text: str
) -> None:
    with pytest.raises(UsageError, match=text):
        track(shot(tmp_path), tmp_path / "out", dry_run=True, roi=roi)
