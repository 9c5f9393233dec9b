"""Whole runs: plate and keys in, mattes out."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from rotomem.engine.footage import PlateFootage
from rotomem.engine.options import TrackOptions
from rotomem.engine.report import Progress
from rotomem.engine.session import Session
from rotomem.engine.shot import ShotRun, track
from rotomem.engine.store import StoredFrame
from rotomem.errors import MaskError, OutputError, PlateError, UsageError
from rotomem.io.matte_files import told_confidence
from rotomem.io.mattes import MatteWriter
from rotomem.io.quality import QualityFile

from .shots import HEIGHT, WIDTH, digests, disc, label_key, matte, picture, plate, soft_key, write
from .toy import tiny_model

FAST = dict(size=32, mem_every=2, min_working_frames=2, max_working_frames=4, prototypes=4, top_k=8)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def test_track_when_run_twice_then_equal_bytes(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1001)
    for out in ("a", "b"):
        report = track(pattern, [key], tmp_path / out, model=model, **FAST)
        assert report.status == "done" and report.exit_code == 0
    first = digests(tmp_path / "a")
    assert len(first) == 8 and first == digests(tmp_path / "b")
    assert len(set(first.values())) == 8, "frames differ from each other"


def test_track_when_key_is_soft_then_its_frame_is_exact_and_others_are_not_empty(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), soft_key(tmp_path, 1001)
    track(pattern, [key], tmp_path / "out", model=model, **FAST)
    written = matte(tmp_path / "out" / "sh010_matte.1001.exr")
    assert written.dtype == np.float16
    np.testing.assert_array_equal(written, disc(0).astype(np.float16))
    others = matte(tmp_path / "out" / "sh010_matte.1005.exr")
    assert others.shape == (HEIGHT, WIDTH) and np.isfinite(others).all() and others.max() > 0


def test_track_when_key_is_in_the_middle_then_the_head_runs_backward_from_it(tmp_path, model):
    """A shot played backward gives the same mattes: frames before the key see it first, then go away from it."""
    pattern = plate(tmp_path / "plate", range(1001, 1006))
    for i, frame in enumerate(range(1001, 1006)):
        write(tmp_path / "reversed" / f"sh010.{1005 - i:04d}.exr", picture(frame - 1001))
    middle = soft_key(tmp_path, 1003)
    report = track(pattern, [middle], tmp_path / "out", model=model, **FAST)
    assert report.frames["written"] == "1001-1005"
    track(str(tmp_path / "reversed" / "sh010.%04d.exr"), [middle], tmp_path / "back", model=model, **FAST)
    for frame in range(1001, 1006):
        forward = matte(tmp_path / "out" / f"sh010_matte.{frame}.exr")
        backward = matte(tmp_path / "back" / f"sh010_matte.{2006 - frame}.exr")
        np.testing.assert_array_equal(forward, backward)


def test_track_when_object_is_drawn_late_then_followed_both_ways_and_exact_on_its_key(tmp_path, model):
    pattern = plate(tmp_path / "plate")
    late = dict(x=50, dx=-0.5, y=14, r=6)
    keys = [soft_key(tmp_path, 1001), soft_key(tmp_path, 1004, "ball", **late)]
    report = track(pattern, keys, tmp_path / "out", model=model, **FAST)
    assert report.objects == {"hero": "hero", "ball": "ball"}
    for frame in (1001, 1003):
        path = tmp_path / "out" / f"sh010_matte.{frame}.exr"
        assert matte(path, "ball.A").max() > 0
        assert (matte(path, "hero.A").astype(np.float32) + matte(path, "ball.A")).max() <= 1.001
    first = tmp_path / "out" / "sh010_matte.1001.exr"
    np.testing.assert_array_equal(matte(first, "hero.A"), disc(0).astype(np.float16))
    path = tmp_path / "out" / "sh010_matte.1004.exr"
    np.testing.assert_array_equal(matte(path, "ball.A"), disc(3, **late).astype(np.float16))
    assert not np.array_equal(matte(path, "hero.A"), disc(3).astype(np.float16)), "hero's key does not speak here"
    assert matte(tmp_path / "out" / "sh010_matte.1005.exr", "ball.A").max() > 0


def test_track_when_a_key_is_empty_then_the_object_is_absent_to_its_next_key(tmp_path, model):
    pattern, empty = plate(tmp_path / "plate"), np.zeros((HEIGHT, WIDTH, 1), np.float16)
    masks = [soft_key(tmp_path, 1001), soft_key(tmp_path, 1006)]
    masks.append(f"hero@1003={write(tmp_path / 'gone.exr', empty, channels=('A',))}")
    ball = dict(x=50, dx=-0.5, y=14, r=6)
    masks.append(soft_key(tmp_path, 1001, "ball", **ball))
    track(pattern, masks, tmp_path / "out", model=model, **FAST)
    for frame in range(1001, 1009):
        path = tmp_path / "out" / f"sh010_matte.{frame}.exr"
        assert (matte(path, "hero.A").max() > 0) == (frame not in (1003, 1004, 1005)), frame
        assert matte(path, "ball.A").max() > 0


@pytest.mark.parametrize("movie", [False, True])
def test_track_when_the_first_key_is_empty_then_the_object_is_absent_before_it_too(tmp_path, model, movie):
    pattern, empty = plate(tmp_path / "plate"), np.zeros((HEIGHT, WIDTH, 1), np.float16)
    gone = write(tmp_path / "gone.exr", empty, channels=("A",))
    masks = [soft_key(tmp_path, 1004, "ball", x=50, y=14, r=6), f"hero@1004={gone}", soft_key(tmp_path, 1006)]
    if movie:
        track(pattern, masks, tmp_path / "out" / "{object}.mov", model=model, **FAST)
        import av

        with av.open(str(tmp_path / "out" / "hero.mov")) as clip:
            seen = [bool(np.frombuffer(f.planes[3], np.uint16).any()) for f in clip.decode(video=0)]
    else:
        track(pattern, masks, tmp_path / "out", model=model, **FAST)
        files = [tmp_path / "out" / f"sh010_matte.{f}.exr" for f in range(1001, 1009)]
        seen = [bool(matte(path, "hero.A").any()) for path in files]
    assert seen == [False] * 5 + [True] * 3


def test_track_when_a_second_key_comes_then_it_is_exact_and_both_sides_learn_from_it(tmp_path, model):
    pattern = plate(tmp_path / "plate")
    one, two = soft_key(tmp_path, 1001), soft_key(tmp_path, 1005)
    track(pattern, [one], tmp_path / "one", model=model, **FAST)
    track(pattern, [one, two], tmp_path / "two", model=model, **FAST)

    def both(frame: int):
        return [matte(tmp_path / out / f"sh010_matte.{frame}.exr") for out in ("one", "two")]

    np.testing.assert_array_equal(both(1005)[1], disc(4).astype(np.float16))
    assert not np.array_equal(*both(1006)) and not np.array_equal(*both(1003))
    backward = track(pattern, [two], tmp_path / "one", model=model, overwrite=True, **FAST)
    assert backward.frames["written"] == "1001-1008"
    assert not np.array_equal(*both(1004)), "a frame between keys is told from both"


def test_track_when_one_of_many_keys_is_edited_then_only_frames_that_see_it_are_redone(tmp_path, model):
    pattern = plate(tmp_path / "plate", range(1001, 1019))
    keys = [soft_key(tmp_path, frame) for frame in (1003, 1006, 1009, 1012, 1015)]
    track(pattern, keys, tmp_path / "out", model=model, **FAST)
    before = digests(tmp_path / "out")
    assert soft_key(tmp_path, 1003, r=7) == keys[0]
    report = track(pattern, keys, tmp_path / "out", model=model, resume=True, **FAST)
    assert report.frames["written"] == "1001-1005,1007-1008", "the key's two sides, and their neighbour"
    after = digests(tmp_path / "out")
    assert {name for name in after if after[name] != before[name]} == {
        f"sh010_matte.{f}.exr" for f in (1001, 1002, 1003, 1004, 1005, 1007, 1008)
    }
    track(pattern, keys, tmp_path / "whole", model=model, **FAST)
    assert digests(tmp_path / "whole") == after


def test_track_when_no_neighbours_are_seen_then_a_key_beyond_the_own_ones_changes_nothing(tmp_path, model):
    pattern = plate(tmp_path / "plate")
    keys = [soft_key(tmp_path, frame) for frame in (1001, 1004, 1008)]
    for neighbours in (0, 1):
        for count in (2, 3):
            out = tmp_path / f"{neighbours}-{count}"
            track(pattern, keys[:count], out, model=model, neighbours=neighbours, **FAST)
    same = {n: [digests(tmp_path / f"{n}-{c}")["sh010_matte.1002.exr"] for c in (2, 3)] for n in (0, 1)}
    assert same[0][0] == same[0][1] and same[1][0] != same[1][1]


@pytest.mark.parametrize(("direction", "seen"), [("forward", range(1004, 1009)), ("backward", range(1001, 1005))])
def test_track_when_one_direction_is_asked_then_nothing_lies_on_the_other_side_of_the_key(
    tmp_path, model, direction, seen
):
    pattern = plate(tmp_path / "plate")
    track(pattern, [soft_key(tmp_path, 1004)], tmp_path / "out", model=model, direction=direction, **FAST)
    shown = [f for f in range(1001, 1009) if matte(tmp_path / "out" / f"sh010_matte.{f}.exr").any()]
    assert shown == list(seen)


def test_track_when_an_object_is_declared_absent_then_nowhere_there_and_back_after(tmp_path, model):
    pattern = plate(tmp_path / "plate")
    masks = [soft_key(tmp_path, 1001), soft_key(tmp_path, 1001, "ball", x=50, dx=-0.5, y=14, r=6)]
    track(pattern, masks, tmp_path / "out", model=model, absent="hero@1003-1004,1006", **FAST)
    for frame in range(1001, 1009):
        path = tmp_path / "out" / f"sh010_matte.{frame}.exr"
        assert matte(path, "hero.A").any() == (frame not in (1003, 1004, 1006)), frame
        assert matte(path, "ball.A").any()
    with pytest.raises(UsageError, match=r"no object 'her' to be absent .*; objects are ball, hero"):
        track(pattern, masks, tmp_path / "new", model=model, absent="her@1003", **FAST)
    with pytest.raises(UsageError, match="does not say who"):
        track(pattern, masks, tmp_path / "new", model=model, absent="1003-1004", **FAST)


def test_track_when_resumed_then_only_missing_and_damaged_frames_are_redone_with_equal_bytes(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1003)
    out = tmp_path / "out"
    track(pattern, [key], out, model=model, **FAST)
    before = digests(out)
    (out / "sh010_matte.1002.exr").unlink()
    damaged = out / "sh010_matte.1006.exr"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    untouched = (out / "sh010_matte.1005.exr").stat().st_mtime_ns
    said: list[Progress] = []
    report = track(pattern, [key], out, model=model, resume=True, progress=said.append, **FAST)
    assert digests(out) == before
    assert report.frames["written"] == "1002,1006" and report.frames["kept"] == "1001,1003-1005,1007-1008"
    assert (out / "sh010_matte.1005.exr").stat().st_mtime_ns == untouched
    assert {p.frame for p in said if p.doing == "track"} == {1002, 1006}
    assert max(p.frame for p in said) == 1006, "nothing runs beyond the last frame that is wanted"
    assert said[-1].done == said[-1].total == 8


def test_track_when_everything_is_current_then_the_network_does_not_run(tmp_path, model, monkeypatch):
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1001)
    track(pattern, [key], tmp_path / "out", model=model, **FAST)
    monkeypatch.setattr(Session, "step", lambda *a, **k: pytest.fail("a step was made"))
    report = track(pattern, [key], tmp_path / "out", model=model, resume=True, **FAST)
    assert report.status == "nothing to do" and report.exit_code == 0 and report.frames_kept == 8


def _kept(pattern, key, out, model, **options) -> str:
    report = track(pattern, [key], out, model=model, resume=True, dry_run=True, **options, **FAST)
    return report.frames["kept"]


def test_track_when_the_plate_is_another_then_resume_keeps_nothing(tmp_path, model):
    key = label_key(tmp_path, 1003)
    one, two = (plate(tmp_path / v, stem="sh") for v in ("v001", "v002"))
    track(one, [key], tmp_path / "out", model=model, **FAST)
    assert _kept(two, key, tmp_path / "out", model) == "none"
    assert _kept(one, key, tmp_path / "out", model) == "1001-1008"


def test_track_when_the_same_plate_is_spelled_or_stored_otherwise_then_resume_keeps_all(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1003)
    track(pattern, [key], tmp_path / "out", model=model, **FAST)
    for spelling in (tmp_path / "plate", pattern.replace("%04d", "####"), pattern.replace("%04d", "%d")):
        assert _kept(spelling, key, tmp_path / "out", model) == "1001-1008", spelling
    (tmp_path / "plate").rename(tmp_path / "moved")
    assert _kept(tmp_path / "moved", key, tmp_path / "out", model) == "1001-1008"


def test_track_when_a_plate_frame_was_rendered_again_then_it_and_what_follows_are_redone(tmp_path, model):
    """Away from the key in both directions: what lies beyond the frame has seen it."""
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1004)
    track(pattern, [key], tmp_path / "out", model=model, **FAST)
    for again, kept in ((1006, "1001-1005"), (1002, "1003-1008"), (1004, "none")):
        path = tmp_path / "plate" / f"sh010.{again}.exr"
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))
        assert _kept(pattern, key, tmp_path / "out", model) == kept
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    write(tmp_path / "plate" / "sh010.1006.exr", picture(0))
    report = track(pattern, [key], tmp_path / "out", model=model, resume=True, **FAST)
    assert report.frames["written"] == "1006-1008"
    track(pattern, [key], tmp_path / "whole", model=model, **FAST)
    assert digests(tmp_path / "whole") == digests(tmp_path / "out")


def test_track_when_a_held_frame_arrives_then_it_and_what_follows_are_redone(tmp_path, model):
    pattern, key = plate(tmp_path / "plate", [1001, 1002, 1004, 1005]), label_key(tmp_path, 1001)
    track(pattern, [key], tmp_path / "out", model=model, missing="hold", **FAST)
    assert _kept(pattern, key, tmp_path / "out", model, missing="hold") == "1001-1005"
    assert _kept(pattern, key, tmp_path / "out", model, missing="black") == "1001-1002"
    plate(tmp_path / "plate", [1003])
    assert _kept(pattern, key, tmp_path / "out", model) == "1001-1002"


def test_track_when_output_is_a_movie_and_the_plate_changed_then_resume_redoes_it(tmp_path, model):
    pattern, key = plate(tmp_path / "plate", range(1001, 1004)), soft_key(tmp_path, 1002)
    out = tmp_path / "out" / "one.mov"
    track(pattern, [key], out, model=model, **FAST)
    assert _kept(pattern, key, out, model) == "1001-1003"
    path = tmp_path / "plate" / "sh010.1001.exr"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1000))
    assert _kept(pattern, key, out, model) == "none"


def test_track_when_a_default_is_spelled_out_then_resume_keeps_everything(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1001)
    fast = {k: v for k, v in FAST.items() if k != "top_k"}
    track(pattern, [key], tmp_path / "out", model=model, **fast)
    report = track(pattern, [key], tmp_path / "out", model=model, resume=True, top_k=model.plan.top_k, **fast)
    assert report.frames_written == 0 and report.frames_kept == 8


@pytest.mark.parametrize("change", [{"top_k": 4}, {"depth": "float"}, {"exposure": 1.0}, {"size": 48}])
def test_track_when_resumed_with_other_settings_then_all_is_redone(tmp_path, model, change):
    pattern, key = plate(tmp_path / "plate", range(1001, 1004)), label_key(tmp_path, 1001)
    track(pattern, [key], tmp_path / "out", model=model, **FAST)
    report = track(pattern, [key], tmp_path / "out", model=model, resume=True, **{**FAST, **change})
    assert report.frames["written"] == "1001-1003"


def test_track_when_the_key_was_repainted_then_resume_redoes_all(tmp_path, model):
    pattern, key = plate(tmp_path / "plate", range(1001, 1004)), soft_key(tmp_path, 1001)
    track(pattern, [key], tmp_path / "out", model=model, **FAST)
    assert soft_key(tmp_path, 1001, r=5) == key
    report = track(pattern, [key], tmp_path / "out", model=model, resume=True, **FAST)
    assert report.frames_kept == 0
    np.testing.assert_array_equal(matte(tmp_path / "out" / "sh010_matte.1001.exr"), disc(0, r=5).astype(np.float16))


def test_track_when_the_shot_grows_then_resume_keeps_what_is_there(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1001)
    track(pattern, [key], tmp_path / "out", model=model, frames="1001-1005", **FAST)
    report = track(pattern, [key], tmp_path / "out", model=model, resume=True, **FAST)
    assert report.frames["kept"] == "1001-1005" and report.frames["written"] == "1006-1008"
    track(pattern, [key], tmp_path / "whole", model=model, **FAST)
    assert digests(tmp_path / "whole") == digests(tmp_path / "out")


def test_track_when_mattes_exist_then_refused_unless_overwrite(tmp_path, model):
    pattern, key = plate(tmp_path / "plate", range(1001, 1003)), label_key(tmp_path, 1001)
    track(pattern, [key], tmp_path / "out", model=model, **FAST)
    before = digests(tmp_path / "out")
    with pytest.raises(UsageError, match=r"2 of the mattes to write exist already.*resume"):
        track(pattern, [key], tmp_path / "out", model=model, **{**FAST, "top_k": 2})
    assert digests(tmp_path / "out") == before
    report = track(pattern, [key], tmp_path / "out", model=model, overwrite=True, **{**FAST, "top_k": 2})
    assert report.frames_written == 2 and digests(tmp_path / "out") != before


def test_track_when_dry_run_then_nothing_is_written_and_everything_is_said(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1001)
    report = track(pattern, [key], tmp_path / "out", model=model, dry_run=True, **FAST)
    assert not (tmp_path / "out").exists()
    assert report.status == "dry run" and report.exit_code == 0
    assert report.frames["asked"] == "1001-1008" and report.network_size == [48, 32]
    assert report.colour and report.outputs[0].endswith("sh010_matte.1001.exr")
    assert list(report.keys) == [1001] and len(report.keys[1001]) == 2
    report.to_json()


def test_track_when_dry_run_resumes_then_told_what_is_kept_and_left(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1001)
    out = tmp_path / "out"
    track(pattern, [key], out, model=model, **FAST)
    (out / "sh010_matte.1004.exr").unlink()
    leftover = out / ".a.rotomem-part"
    leftover.write_bytes(b"")
    os.utime(leftover, (0, 0))
    report = track(pattern, [key], out, model=model, resume=True, dry_run=True, **FAST)
    assert report.status == "dry run" and report.frames_kept == 7 and report.frames_written == 0
    assert report.frames["kept"] == "1001-1003,1005-1008" and report.frames["left"] == "1004"
    assert leftover.exists(), "looking deletes nothing"


@pytest.mark.parametrize("dry_run", [True, False])
def test_track_when_the_output_folder_cannot_be_made_then_output_error_before_any_work(
    tmp_path, model, monkeypatch, dry_run
):
    pattern, key = plate(tmp_path / "plate", [1001]), label_key(tmp_path, 1001)
    monkeypatch.setattr(Session, "step", lambda *a, **k: pytest.fail("a step was made"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"part of the path is a file"):
        track(pattern, [key], tmp_path / "file" / "below", model=model, dry_run=dry_run, **FAST)
    (tmp_path / "shut").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "shut" and access(path, mode))
    with pytest.raises(OutputError, match=r"Permission denied.*shut writable"):
        track(pattern, [key], tmp_path / "shut" / "below", model=model, dry_run=dry_run, **FAST)
    assert list((tmp_path / "shut").iterdir()) == []


@pytest.mark.parametrize("what", ["key", "foreign", "folder"])
def test_track_when_a_later_frame_may_not_be_replaced_then_told_before_any_is(tmp_path, model, what):
    pattern = plate(tmp_path / "plate")
    out = tmp_path / "out"
    key = write(tmp_path / "key.1003.exr", disc(2)[..., None], channels=("A",))
    masks = [f"hero@1003={key}"]
    track(pattern, masks, out, model=model, **FAST)
    in_the_way = out / "sh010_matte.1007.exr"
    in_the_way.unlink()
    if what == "folder":
        in_the_way.mkdir()
    else:
        write(in_the_way, disc(6)[..., None], channels=("A",))
    if what == "key":
        masks.append(f"hero@1007={in_the_way}")
    before = digests(out)
    mode = {"overwrite": True} if what == "key" else {"resume": True}
    for dry_run in (True, False):
        with pytest.raises(OutputError, match=r"key mask|did not write|folder stands") as caught:
            track(pattern, masks, out, model=model, dry_run=dry_run, **mode, **{**FAST, "top_k": 4})
        assert caught.value.report.exit_code == 1
    assert digests(out) == before


def test_track_when_cancelled_then_whole_frames_and_resume_completes_them(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1001)
    stop = threading.Event()

    def after_three(progress: Progress) -> None:
        if progress.done >= 3:
            stop.set()

    report = track(pattern, [key], tmp_path / "out", model=model, progress=after_three, cancel=stop, **FAST)
    assert report.status == "interrupted" and report.exit_code == 130
    assert 3 <= report.frames_written < 8
    assert len(digests(tmp_path / "out")) == report.frames_written
    track(pattern, [key], tmp_path / "out", model=model, resume=True, **FAST)
    track(pattern, [key], tmp_path / "whole", model=model, **FAST)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_track_when_the_writer_fails_then_that_error_and_the_frames_before_it(tmp_path, model, monkeypatch):
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1001)
    write_matte = MatteWriter.write

    def full_disk(self, frame, alpha, **told):
        if frame.frame == 1004:
            raise OutputError("disk full", frame=frame.frame)
        write_matte(self, frame, alpha, **told)

    monkeypatch.setattr(MatteWriter, "write", full_disk)
    with pytest.raises(OutputError, match="disk full") as caught:
        track(pattern, [key], tmp_path / "out", model=model, **FAST)
    report = caught.value.report
    assert report.exit_code == 4 and report.frames["written"] == "1001-1003" and report.frames["left"] == "1004-1008"
    assert len(digests(tmp_path / "out")) == 3
    assert threading.active_count() < 10, "no stage is left running"


def test_track_when_a_plate_frame_is_damaged_then_its_error_and_the_frames_before_it(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1001)
    bad = tmp_path / "plate" / "sh010.1006.exr"
    bad.write_bytes(bad.read_bytes()[:-200])
    with pytest.raises(PlateError, match="1006") as caught:
        track(pattern, [key], tmp_path / "out", model=model, **FAST)
    assert caught.value.report.frames["written"] == "1001-1005"
    assert sorted(digests(tmp_path / "out")) == [f"sh010_matte.{f}.exr" for f in range(1001, 1006)]


def test_track_when_data_window_is_smaller_and_moves_then_matte_has_the_plates_windows(tmp_path, model):
    for i, origin in enumerate([(-4, -2), (6, 3), (10, 8)]):
        write(
            tmp_path / "plate" / f"a.{1 + i:04d}.exr",
            picture(i),
            origin=origin,
            display=(80, 50),
            PixelAspectRatio=2.0,
        )
    canvas = (10 + WIDTH + 4, 8 + HEIGHT + 2)
    full = np.zeros((canvas[1], canvas[0], 1), np.float16)
    full[:HEIGHT, :WIDTH, 0] = disc(0)
    key = write(tmp_path / "key.exr", full, origin=(-4, -2), display=(80, 50), channels=("A",))
    report = track(str(tmp_path / "plate" / "a.####.exr"), [f"1={key}:A"], tmp_path / "out", model=model, **FAST)
    assert report.canvas == list(canvas) and report.network_size == [95, 32]
    from rotomem.io.exr import read_header

    for i in range(3):
        ours, theirs = (
            read_header(p)
            for p in (tmp_path / "out" / f"a_matte.{1 + i:04d}.exr", tmp_path / "plate" / f"a.{1 + i:04d}.exr")
        )
        assert ours.display_window == theirs.display_window
        assert ours.parts[0].data_window == theirs.parts[0].data_window
        assert ours.pixel_aspect == 2.0
    np.testing.assert_array_equal(matte(tmp_path / "out" / "a_matte.0001.exr"), disc(0).astype(np.float16))


@pytest.mark.parametrize(
    ("policy", "written"), [("skip", "1001-1003,1006"), ("hold", "1001-1006"), ("black", "1001-1006")]
)
def test_track_when_frames_are_missing_then_policy(tmp_path, model, policy, written):
    pattern, key = plate(tmp_path / "plate", [1001, 1002, 1003, 1006]), soft_key(tmp_path, 1001)
    report = track(pattern, [key], tmp_path / "out", model=model, missing=policy, frames="1001-1006", **FAST)
    assert report.frames["written"] == written
    if policy == "black":
        assert matte(tmp_path / "out" / "sh010_matte.1004.exr").max() == 0
        # The memory has not seen the black frames: what follows is as if they were not there.
        track(pattern, [key], tmp_path / "skip", model=model, missing="skip", frames="1001-1006", **FAST)
        np.testing.assert_array_equal(
            matte(tmp_path / "out" / "sh010_matte.1006.exr"), matte(tmp_path / "skip" / "sh010_matte.1006.exr")
        )


def test_track_when_the_key_lies_on_a_skipped_frame_then_mask_error(tmp_path, model):
    pattern, key = plate(tmp_path / "plate", [1001, 1002, 1004]), soft_key(tmp_path, 1003)
    with pytest.raises(MaskError, match=r"frame 1003 .*skip"):
        track(pattern, [key], tmp_path / "out", model=model, missing="skip", **FAST)


def test_track_when_output_is_a_movie_and_key_is_late_then_frames_are_in_order(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), soft_key(tmp_path, 1004)
    report = track(pattern, [key], tmp_path / "out.mov", model=model, **FAST)
    assert report.frames["written"] == "1001-1008"
    track(pattern, [key], tmp_path / "exr", model=model, **FAST)
    import av

    with av.open(str(tmp_path / "out.mov")) as movie:
        planes = [(f.format.name, f.planes[3].line_size // 2, bytes(f.planes[3])) for f in movie.decode(video=0)]
    assert {name for name, *_ in planes} == {"yuva444p12le"}
    frames = [np.frombuffer(b, np.uint16).reshape(HEIGHT, line)[:, :WIDTH] / 4095 for _, line, b in planes]
    assert len(frames) == 8
    for i, got in enumerate(frames):
        expected = matte(tmp_path / "exr" / f"sh010_matte.{1001 + i}.exr").astype(np.float32)
        assert np.abs(got - expected).max() < 0.01


def test_track_when_a_movie_fails_at_its_end_then_nothing_was_written(tmp_path, model, monkeypatch):
    pattern, key = plate(tmp_path / "plate"), soft_key(tmp_path, 1004)

    def full(path):
        raise OSError(28, "No space left on device", f"{path}")

    monkeypatch.setattr("rotomem.io.matte_movie._movie_length", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        track(pattern, [key], tmp_path / "out" / "m.mov", model=model, **FAST)
    report = caught.value.report
    assert report.exit_code == 1 and report.frames_written == 0
    assert report.frames["written"] == "none" and report.frames["left"] == "1001-1008"
    said = str(caught.value)
    assert "free some space" in said
    assert not any(text in said for text in ("whole frames", "rotomem-part", "Errno"))
    assert not list((tmp_path / "out").iterdir())


def test_track_when_plate_has_nan_and_inf_then_they_are_reported_with_frame(tmp_path, model):
    for i in range(3):
        pixels = picture(i)
        if i == 1:
            pixels[3, 4] = np.nan
            pixels[5, 6, 0] = np.inf
        write(tmp_path / "plate" / f"a.{1001 + i}.exr", pixels)
    report = track(tmp_path / "plate", [soft_key(tmp_path, 1001)], tmp_path / "out", model=model, **FAST)
    assert report.tamed["nan"]["first_frame"] == 1002 and report.tamed["inf"]["frames"] == 1
    assert any("NaN" in w and "1002" in w for w in report.warnings)


def test_track_when_both_passes_see_the_first_key_then_its_pixels_are_counted_once(tmp_path, model):
    for i in range(3):
        pixels = picture(i)
        if i == 1:
            pixels[3, 4], pixels[5, 6, 0], pixels[7, 8, 1] = np.nan, -np.inf, -0.25
        write(tmp_path / "plate" / f"a.{1001 + i}.exr", pixels)
    report = track(tmp_path / "plate", [soft_key(tmp_path, 1002)], tmp_path / "out", model=model, **FAST)
    once = {"pixels": 1, "frames": 1, "first_frame": 1002}
    assert report.tamed == {"nan": once, "inf": once, "negative": once}
    assert any("infinity" in w and "a negative one as black" in w for w in report.warnings)


def test_track_when_stages_run_then_seconds_tell_them_apart(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1001)
    report = track(pattern, [key], tmp_path / "out", model=model, **FAST)
    assert set(report.seconds) >= {"read", "colour", "network", "memory_read", "finish", "write", "wall"}
    assert all(v >= 0 for v in report.seconds.values())
    assert report.peak_memory_bytes > 1e6 and report.fps > 0


def test_track_when_option_is_unknown_then_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no_such") as caught:
        track("x", ["1=y"], tmp_path, no_such=1)
    assert caught.value.report.exit_code == 2 and caught.value.report.plate == "x"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": "480"}, r"size is '480' \(str\); give a whole number or None"),
        ({"mem_every": "a"}, "mem_every is 'a'.*'model'"),
        ({"mem_every": True}, "mem_every is True.*whole number"),
        ({"exposure": "1"}, "exposure is '1'.*a number"),
        ({"exposure": float("nan")}, "exposure is nan.*a number"),
        ({"long_term": 1}, "long_term is 1.*True or False"),
        ({"frames": (1, 2)}, "frames is .*a text or None"),
        ({"model": 3}, "model is 3.*loaded model"),
    ],
)
def test_track_when_an_option_has_another_type_then_usage_error_naming_it(tmp_path, options, text):
    with pytest.raises(UsageError, match=text) as caught:
        track("x", ["1=y"], tmp_path, **options)
    assert caught.value.report.exit_code == 2


@pytest.mark.parametrize("masks", [[1], {1001: np.zeros((2, 2))}, None, 5, [None], {(1,): "x"}])
def test_track_when_masks_have_another_type_then_usage_error(tmp_path, model, masks):
    with pytest.raises(UsageError, match=r"masks (is|holds).*give"):
        track(plate(tmp_path / "plate", [1001]), masks, tmp_path / "out", model=model, **FAST)


def test_track_when_plate_or_output_is_no_path_then_usage_error(tmp_path, model):
    with pytest.raises(UsageError, match="plate is 3"):
        track(3, ["1=y"], tmp_path, model=model)
    with pytest.raises(UsageError, match="out is None"):
        track("x", ["1=y"], None, model=model)


def test_options_when_numbers_are_numpys_then_plain_ones():
    options = TrackOptions(size=np.int64(32), exposure=np.float32(0.5))
    assert type(options.size) is int and type(options.exposure) is float


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 8}, "16 or more"),
        ({"resume": True, "overwrite": True}, "contradict"),
        ({"top_k": 0}, "top_k"),
        ({"max_working_frames": 2, "min_working_frames": 2}, "max_working_frames"),
        ({"rim": 1000}, "rim"),
        ({"compression": "dwaa"}, "lossless|refused"),
    ],
)
def test_track_when_options_are_wrong_then_usage_error_before_any_work(tmp_path, model, options, text):
    pattern, key = plate(tmp_path / "plate", [1001]), label_key(tmp_path, 1001)
    with pytest.raises(UsageError, match=text):
        track(pattern, [key], tmp_path / "out", model=model, **{**FAST, **options})
    assert not (tmp_path / "out").exists()


def test_track_when_masks_are_one_text_or_a_mapping_then_they_are_taken(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), label_key(tmp_path, 1001)
    path = key.partition("=")[2]
    for i, masks in enumerate(([key], key, {1001: path}, {"1001": Path(path)})):
        track(pattern, masks, tmp_path / str(i), model=model, frames="1001-1002", **FAST)
        assert digests(tmp_path / str(i)) == digests(tmp_path / "0")


def test_track_when_masks_are_missing_then_usage_error(tmp_path, model):
    for masks in ([], {}):
        with pytest.raises(UsageError, match="no key mask"):
            track(plate(tmp_path / "plate"), masks, tmp_path / "out", model=model)


def test_shot_run_when_left_without_running_then_nothing_was_written(tmp_path, model):
    pattern, key = plate(tmp_path / "plate", [1001]), label_key(tmp_path, 1001)
    with ShotRun(pattern, [key], tmp_path / "out", TrackOptions(model=model, **FAST)) as run:
        assert run.report.frames_asked == 1
    assert not Path(tmp_path / "out").exists()


class Alive:
    """Counts what a function returned and nobody has let go of yet."""

    def __init__(self, make):
        self.make, self.now, self.most, self.lock = make, 0, 0, threading.Lock()

    def __call__(self, *args, **options):
        made = self.make(*args, **options)
        self._count(1)
        weakref.finalize(made, self._count, -1)
        return made

    def _count(self, more: int) -> None:
        with self.lock:
            self.now += more
            self.most = max(self.most, self.now)


@pytest.mark.parametrize("out", ["out", "out.mov"])
def test_track_memory_when_shot_is_longer_then_frames_in_flight_stay_few(tmp_path, model, monkeypatch, out):
    """What bounds memory: frames that exist at one time are never more than the stages hold."""
    pattern = plate(tmp_path / "plate", range(1001, 1031))
    keys = [soft_key(tmp_path, 1001), soft_key(tmp_path, 1020)]
    seen, stored = Alive(PlateFootage.see), Alive(StoredFrame.of)
    monkeypatch.setattr(PlateFootage, "see", lambda self, frame: seen(self, frame))
    monkeypatch.setattr(StoredFrame, "of", stored)
    track(pattern, keys, tmp_path / out, model=model, **FAST)
    assert 2 < seen.most <= 10 and 1 <= stored.most <= 6


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_picture_when_one_pixel_is_negative_then_the_others_look_as_without_it(tmp_path, model, dtype):
    """A clean linear frame is shrunk before its colours are transformed, an odd one after: nobody may see which."""
    clean = picture(0).astype(dtype)
    odd = clean.copy()
    odd[2, 3, 0] = -0.5
    for frame, pixels in ((1, clean), (2, odd)):
        write(tmp_path / "plate" / f"a.{frame:04d}.exr", pixels)
    key = write(tmp_path / "key.exr", disc(0)[..., None], channels=("A",))
    options = TrackOptions(model=model, exposure=1.0, **FAST)
    with ShotRun(tmp_path / "plate", [f"1={key}"], tmp_path / "out", options) as run:
        a, b = (run.footage.see(frame).picture.numpy() for frame in (1, 2))
        assert run.report.colour and list(run.footage.tamed) == [2] and run.footage.tamed[2].negative == 1
    far = np.ones(a.shape[:2], bool)
    far[:6, :6] = False
    np.testing.assert_allclose(a[far], b[far], atol=2e-6)
    assert np.abs(a - b).max() > 1e-3


def test_track_when_a_layer_is_the_plate_then_it_is_read_and_part_of_the_settings(tmp_path, model):
    for frame in (1001, 1002):
        both = np.concatenate([np.zeros_like(picture(0)), picture(frame - 1001)], -1)
        names = ("R", "G", "B", "fg.R", "fg.G", "fg.B")
        write(tmp_path / "plate" / f"a.{frame}.exr", both, channels=names)
    key = soft_key(tmp_path, 1001)
    track(tmp_path / "plate", [key], tmp_path / "layer", model=model, layer="fg", **FAST)
    plain = plate(tmp_path / "plain", (1001, 1002), stem="a")
    track(plain, [key], tmp_path / "plain_out", model=model, **FAST)
    np.testing.assert_array_equal(
        matte(tmp_path / "layer" / "a_matte.1002.exr"), matte(tmp_path / "plain_out" / "a_matte.1002.exr")
    )
    report = track(tmp_path / "plate", [key], tmp_path / "layer", model=model, resume=True, **FAST)
    assert report.frames_written == 2, "the beauty is another picture than the layer"


def test_track_when_done_then_every_matte_and_the_quality_file_tell_confidence(tmp_path, model):
    pattern, key = plate(tmp_path / "plate"), soft_key(tmp_path, 1003)
    track(pattern, [key], tmp_path / "out", model=model, **FAST)
    quality = QualityFile.read(tmp_path / "out/sh010_quality.json")
    assert quality.objects == ("hero",) and quality.keys == {1003: ("hero",)}
    assert sorted(quality.signals) == list(range(1001, 1009))
    assert quality.signals[1003] == {"hero": {"confidence": 1.0}}
    assert quality.signals[1006]["hero"]["distance"] == 3
    for frame, told in quality.signals.items():
        assert told_confidence(tmp_path / f"out/sh010_matte.{frame}.exr") == {
            "hero": pytest.approx(told["hero"]["confidence"], abs=1e-3)
        }
    # As after a run that was killed before it could write the file.
    whole = (tmp_path / "out/sh010_quality.json").read_bytes()
    (tmp_path / "out/sh010_matte.1006.exr").unlink()
    track(pattern, [key], tmp_path / "out", model=model, resume=True, **FAST)
    assert (tmp_path / "out/sh010_quality.json").read_bytes() == whole
    (tmp_path / "out/sh010_quality.json").unlink()
    (tmp_path / "out/sh010_matte.1006.exr").unlink()
    track(pattern, [key], tmp_path / "out", model=model, resume=True, **FAST)
    again = QualityFile.read(tmp_path / "out/sh010_quality.json")
    assert {f: round(told["hero"]["confidence"], 3) for f, told in again.signals.items()} == {
        f: round(told["hero"]["confidence"], 3) for f, told in quality.signals.items()
    }


def test_track_when_both_passes_tell_then_their_disagreement_is_known(tmp_path, model):
    pattern = plate(tmp_path / "plate")
    track(pattern, [soft_key(tmp_path, 1001), soft_key(tmp_path, 1008)], tmp_path / "out", model=model, **FAST)
    signals = QualityFile.read(tmp_path / "out/sh010_quality.json").signals
    assert all(
        "disagreement" in signals[f]["hero"] and "distance" not in signals[f]["hero"] for f in range(1002, 1008)
    )
    assert all({"entropy", "doubt", "area_jump", "shape_jump"} <= set(signals[f]["hero"]) for f in range(1002, 1008))
