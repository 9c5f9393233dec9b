"""A project at work: what an edit has done again, and that nothing else is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PyOpenColorIO as ocio
import pytest

from engine.shots import checkpoint, digests, matte, plate, soft_key
from rotomem.engine.session import Session
from rotomem.errors import MaskError, ProjectError, UsageError
from rotomem.io.sequence import parse_frames
from rotomem.project.lock import locked
from rotomem.project.project import Project
from rotomem.project.work import keep_frozen

KEYS = (1001, 1006, 1011, 1016, 1021)
CAR = {"x": 50, "dx": -0.5, "y": 14, "r": 6}


def make(folder: Path, keys: tuple[int, ...], last: int, **settings: object) -> Project:
    pattern = plate(folder / "plates", range(1001, last + 1))
    masks = [soft_key(folder / "roto", frame, dx=0.4) for frame in keys]
    model = checkpoint(folder)
    project = Project.create(folder, pattern, masks, folder / "mattes/", settings={"model": model, **settings})
    project.save()
    return project


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A shot of 21 frames with five keys that has been run."""
    folder = tmp_path_factory.mktemp("done")
    make(folder, KEYS, 1021, size=48).run()
    return folder


@pytest.fixture
def shot(done, tmp_path) -> Path:
    """A copy of it; paths in the project are relative, so it runs where it is."""
    shutil.copytree(done, tmp_path / "shot")
    project = Project.open(tmp_path / "shot")
    project.set("model", "tiny.safetensors")
    project.save()
    return tmp_path / "shot"


@pytest.fixture
def steps(monkeypatch) -> list[str]:
    """What sessions were asked for since."""
    seen: list[str] = []
    for name in ("step", "remember"):
        plain = getattr(Session, name)
        monkeypatch.setattr(
            Session, name, lambda self, *a, _plain=plain, _n=name, **k: (seen.append(_n), _plain(self, *a, **k))[1]
        )
    return seen


def move_key(folder: Path, frame: int) -> None:
    """Draw a key anew: a little further to the right."""
    soft_key(folder / "roto", frame, x=22, dx=0.4)


def why(project: Project) -> dict[str, str]:
    """Frames of each segment -> why it has to be tracked."""
    return {segment.frames: segment.why for segment in project.status().segments}


def test_run_when_nothing_changed_then_nothing_is_stepped_nor_written(shot, steps):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in shot.rglob("*") if path.is_file()}
    report = Project.open(shot).run()
    assert report.status == "nothing to do" and report.frames_kept == 21 and not steps
    after = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in shot.rglob("*") if path.is_file()}
    lock = shot / ".rotomem/lock"
    assert {p: t for p, t in after.items() if p != lock} == {p: t for p, t in before.items() if p != lock}


@pytest.mark.parametrize(
    ("neighbours", "edited", "redone"),
    [
        (1, 1001, "1001-1025,1027-1050"),
        (0, 1051, "1027-1075"),
    ],
)
def test_run_when_one_of_five_keys_is_edited_then_only_segments_that_see_it_change(
    tmp_path, steps, neighbours, edited, redone
):
    keys = (1001, 1026, 1051, 1076, 1100)
    project = make(tmp_path, keys, 1100, size=32, neighbours=neighbours)
    project.run()
    before = digests(tmp_path / "mattes")
    assert len(before) == 100
    steps.clear()
    move_key(tmp_path, edited)
    segments = project.status().segments
    again = [s for s in segments if s.why]
    assert {s.why for s in again} == {f"key {edited} of hero changed"}
    report = project.run()
    after = digests(tmp_path / "mattes")
    frames = set(parse_frames(redone))

    assert {int(name.split(".")[1]) for name in before if before[name] != after[name]} == frames
    assert report.frames_written == len(frames)
    assert {f for s in again for f in parse_frames(s.frames)} == frames - {edited}
    # Each frame forwards and backwards, from the key at either end.
    assert steps.count("step") == 2 * (len(frames) - 1 + len(again))


def test_run_when_a_key_is_added_then_it_comes_out_as_drawn_and_taking_it_back_tracks_nothing(shot, steps):
    before = digests(shot / "mattes")
    project = Project.open(shot)
    project.add_key("hero", 1003, soft_key(shot / "new", 1003, x=24).partition("=")[2])
    project.save()
    told = why(project)
    assert told["1002"] == told["1004-1005"] == "key 1003 of hero is new" and told["1017-1020"] == ""
    project.run()
    np.testing.assert_array_equal(matte(shot / "mattes/sh010_matte.1003.exr"), matte(shot / "new/hero.1003.exr"))
    after = digests(shot / "mattes")
    assert all(before[f"sh010_matte.{f}.exr"] == after[f"sh010_matte.{f}.exr"] for f in range(1012, 1022))
    steps.clear()
    project.remove_key("hero", 1003)
    project.save()
    project.run()
    assert digests(shot / "mattes") == before and not steps


def test_run_when_settings_model_or_plate_change_then_that_is_said(shot):
    project = Project.open(shot)
    project.set("size", 32)
    assert set(why(project).values()) == {"network was 72x48, is 48x32"}
    project.set("size", 48)
    project.set("top_k", 5)
    project.set("mem_every", "keys")
    assert set(why(project).values()) == {"mem_every was 5, is None, top_k was 30, is 5"}
    project.set("top_k", None)
    project.set("mem_every", None)
    os.utime(shot / "plates/sh010.1008.exr", ns=(1, 1))
    told = why(project)
    assert told["1007-1010"] == "plate 1008 changed" and told["1012-1015"] == told["1002-1005"] == ""


def test_status_when_a_config_lies_elsewhere_or_a_space_is_named_then_results_are_those_there_were(shot):
    config = ocio.Config.CreateFromFile("ocio://default").serialize()
    for folder in (shot, shot / "elsewhere"):
        folder.mkdir(exist_ok=True)
        (folder / "show.ocio").write_text(config)
    project = Project.open(shot)

    def results(**settings: str) -> list[str]:
        for name, value in settings.items():
            project.set(name, value)
        return [segment.digest for segment in project.status().segments]

    here = results(ocio_config="show.ocio")
    assert here == results(ocio_config="elsewhere/show.ocio") == results(input_space="ACES2065-1")
    assert not set(here).intersection(results(input_space="ACEScg"))


def test_run_when_an_object_is_added_then_the_others_are_not_tracked_and_removing_it_restores_every_byte(shot, steps):
    before = digests(shot / "mattes")
    hero = {f: matte(shot / f"mattes/sh010_matte.{f}.exr") for f in range(1001, 1022)}
    project = Project.open(shot)
    project.add_object("car", {1001: soft_key(shot / "roto", 1001, "car", **CAR).partition("=")[2]})
    project.save()
    assert why(project) == {
        "1002-1021": "no result yet",
        **{s: "" for s in ("1002-1005", "1007-1010", "1012-1015", "1017-1020")},
    }
    project.run()
    assert steps == ["step"] * 21
    for frame, alpha in hero.items():
        path = shot / f"mattes/sh010_matte.{frame}.exr"
        now, car = matte(path, "hero.A"), matte(path, "car.A")
        np.testing.assert_array_equal(now[car == 0], alpha[car == 0])
        assert (now.astype(np.float32) + car <= 1.001).all()
    steps.clear()
    project.remove_object("car")
    project.save()
    project.run()
    assert digests(shot / "mattes") == before and not steps


def test_run_when_an_object_comes_or_is_edited_then_files_of_another_change_only_where_their_pixels_do(tmp_path):
    settings = {"per_object": True, "also": "trimap", "choke": 2.0}
    project = make(tmp_path, (1001, 1006), 1006, size=48, **settings)
    project.run()

    def hero() -> dict[Path, tuple[bytes, int]]:
        paths = sorted((tmp_path / "mattes").rglob("*hero*.exr"))
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}

    def alphas() -> dict[Path, bytes]:
        return {path: matte(path).tobytes() for path in hero()}

    def differing(before: dict, after: dict) -> set[str]:
        return {path.name.split(".")[1] for path in before if before[path] != after[path]}

    files, pixels = hero(), alphas()
    assert len(files) == 12
    moves = {"added": {"x": 30, "r": 4}, "moved": {"x": 62, "r": 9}}
    for edit in ("added", "moved", "removed", "restored", "removed again"):
        before, seen = hero(), alphas()
        if edit in moves:
            key = soft_key(tmp_path / "roto", 1004, "car", **moves[edit]).partition("=")[2]
        if edit == "added":
            project.add_object("car", {1004: key})
            project.set_absent("car", "1002-1003")
        if edit.startswith("removed"):
            text = project.text
            project.remove_object("car")
        if edit == "restored":  # by hand, or from a copy: car's files lie there, and are those of its key
            project = Project(tmp_path / "rotomem.toml", text, saved=False)
        assert project.run().frames_written, edit
        assert project.run().status == "nothing to do", edit
        # The network's answer is noise all over the picture: both claim pixels wherever both are.
        assert differing(before, hero()) == differing(seen, alphas()) == {"1004", "1005"}, edit
    assert {path: data for path, (data, _) in hero().items()} == {path: data for path, (data, _) in files.items()}
    assert alphas() == pixels


def test_run_when_objects_are_renamed_merged_and_split_then_nothing_is_tracked(shot, steps):
    project = Project.open(shot)
    project.add_object("car", {1001: soft_key(shot / "roto", 1001, "car", **CAR).partition("=")[2]})
    project.run()
    before = digests(shot / "mattes")
    paths = sorted((shot / "mattes").glob("*.exr"))
    single = [matte(p, "hero.A").astype(np.float32) + matte(p, "car.A") for p in paths]
    steps.clear()
    project.rename_object("car", "auto")
    project.run()
    np.testing.assert_array_equal(matte(paths[5], "auto.A").shape, (48, 72))
    project.merge_objects(["hero", "auto"], "both")
    project.run()
    for path, total in zip(paths, single, strict=True):
        np.testing.assert_allclose(matte(path), np.minimum(total, 1), atol=2e-3)
    project.split_object("both")
    project.rename_object("auto", "car")
    project.run()
    assert digests(shot / "mattes") == before and not steps


def test_run_when_one_of_a_group_is_removed_then_it_still_competes_and_the_other_stays_as_it_was(tmp_path, steps):
    pattern = plate(tmp_path / "plates", range(1001, 1006))
    masks = [soft_key(tmp_path / "roto", 1001), soft_key(tmp_path / "roto", 1001, "car", **CAR)]
    settings = {"model": checkpoint(tmp_path), "size": 48, "per_object": True}
    project = Project.create(tmp_path, pattern, masks, tmp_path / "mattes/", settings=settings)
    project.run()
    before = {f: matte(tmp_path / f"mattes/hero/sh010_matte_hero.{f}.exr") for f in range(1001, 1006)}
    steps.clear()
    project.remove_object("car")
    project.set("per_object", None)
    project.run()
    for frame, alpha in before.items():
        np.testing.assert_array_equal(matte(tmp_path / f"mattes/sh010_matte.{frame}.exr"), alpha)
    assert not steps


def test_run_when_an_object_is_absent_on_a_range_then_only_segments_there_change(shot, steps):
    project = Project.open(shot)
    project.set_absent("hero", "1012-1013")
    assert why(project)["1012-1015"] == "absence of hero changed" and why(project)["1017-1020"] == ""
    before = digests(shot / "mattes")
    project.run()
    after = digests(shot / "mattes")
    assert not matte(shot / "mattes/sh010_matte.1012.exr").any() and matte(shot / "mattes/sh010_matte.1014.exr").any()
    changed = {int(name.split(".")[1]) for name in before if before[name] != after[name]}
    assert {1012, 1013} <= changed <= {1012, 1013, 1014, 1015}


def test_freeze_when_everything_else_changes_then_these_files_stay_and_their_ends_are_keys(shot, steps):
    project = Project.open(shot)
    project.set("also", "trimap")
    project.set("only", "hero")
    project.run()
    project.freeze("1008-1013")
    project.save()
    assert not steps  # the ends come out of the cache
    assert sorted(p.name for p in (shot / "frozen").iterdir()) == ["object1.1008.exr", "object1.1013.exr"]
    before = digests(shot / "mattes")
    told = why(project)
    assert told["1007"] == "key 1008 of hero is new" and told["1014-1015"] == "key 1013 of hero is new"
    assert told["1009-1010"] == told["1012"] == "" and [s.frames for s in project.status().segments if s.frozen]
    move_key(shot, 1006)
    move_key(shot, 1011)
    project.set("size", 32)
    project.save()
    report = Project.open(shot).run()
    after = digests(shot / "mattes")
    kept = {int(name.split(".")[1]) for name in before if before[name] == after[name]}
    assert kept >= set(range(1008, 1014)) and report.frames_kept == 6
    assert 1007 not in kept and 1014 not in kept
    assert Project.open(shot).run().status == "nothing to do"
    with pytest.raises(UsageError, match="lies inside"):
        keep_frozen(project.file, range(1009, 1014))
    project.unfreeze()
    project.run()
    assert digests(shot / "mattes") != after and not any((shot / "frozen").iterdir())


def test_freeze_when_an_object_comes_later_or_is_renamed_then_it_is_said_that_frozen_mattes_lack_it(shot):
    project = Project.open(shot)
    project.freeze("1002-1004")
    project.rename_object("hero", "lead")
    key = soft_key(shot / "roto", 1001, "car", **CAR).partition("=")[2]
    project.add_object("car", {1001: key})
    notes = project.status().report.notes
    assert [note for note in notes if "frozen" in note] == [
        "frozen frames 1002-1004 hold no matte of lead, and get none",
        "frozen frames 1002-1004 hold no matte of car, and get none",
    ]


def test_freeze_when_some_frames_are_frozen_then_more_can_be_beside_and_apart_from_them(shot):
    project = Project.open(shot)
    want: dict[str, str] = {}
    for more in ("1009", "1008", "1018", "1010-1012"):
        project.freeze(more)
        mattes = digests(shot / "mattes")
        want.update({name: mattes[name] for name in (f"sh010_matte.{f}.exr" for f in parse_frames(more))})
        project.run()  # what lies around them is tied to them
        assert want.items() <= digests(shot / "mattes").items(), more
    assert len(want) == 6 and not list((shot / "frozen").glob(".*"))
    (shot / "frozen/object1.1018.exr").write_bytes(b"half")
    with pytest.raises(ProjectError, match=r"kept matte.*is damaged.*frame=1018.*freeze --none"):
        project.run()
    project.unfreeze()
    assert project.run().status == "done"


def test_freeze_when_mattes_are_not_current_or_not_there_then_it_is_refused(shot):
    project = Project.open(shot)
    with pytest.raises(UsageError, match="not in the shot"):
        project.freeze("1020-1023")
    move_key(shot, 1006)
    with pytest.raises(UsageError, match=r"`rotomem run` first") as caught:
        project.freeze("1007-1014")
    assert "1007-1010,1012-1014" in str(caught.value)
    project.freeze("1018-1019")  # sees 1016, 1021 and 1011
    assert project.file.frozen == (1018, 1019)
    text = project.text.replace("1018-1019", "1002-1019")
    (shot / "rotomem.toml").write_text(text)
    with pytest.raises(ProjectError, match="1002 is an end of a frozen range"):
        Project.open(shot).run()


def test_freeze_when_an_object_is_not_there_at_an_end_then_it_may_come_back(shot):
    project = Project.open(shot)
    project.set_absent("hero", "1012-1013")
    project.run()
    project.freeze("1008-1013")
    move_key(shot, 1016)
    project.run()
    assert matte(shot / "mattes/sh010_matte.1014.exr").any() and not matte(shot / "mattes/sh010_matte.1013.exr").any()


def test_prune_when_an_edit_stays_then_its_old_results_go_and_those_in_use_do_not(shot, steps):
    project = Project.open(shot)
    entries = sorted((shot / ".rotomem/segments").iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name))
    project.set("size", 32)
    project.run()
    status = project.status()
    assert status.unused == sum(path.stat().st_size for path in entries) and status.stored
    assert project.prune(keep_bytes=status.unused) == (0, 0)
    assert project.prune(keep_bytes=entries[-1].stat().st_size)[0] == len(entries) - 1
    assert project.prune()[0] == 1
    steps.clear()
    (shot / "mattes/sh010_matte.1003.exr").unlink()
    assert project.run().frames_written == 1 and not steps  # what is in use was kept
    project.set("size", 48)
    project.run()
    assert steps


def test_run_when_a_stored_result_is_damaged_then_it_alone_is_made_again_with_the_same_bytes(shot):
    want = {path: path.read_bytes() for path in _results(shot)}
    project = Project.open(shot)
    files = {s.frames: shot / f".rotomem/segments/{s.digest}.segment" for s in project.status().segments}
    flipped, cut = files["1002-1005"], files["1012-1015"]
    at = want[flipped].index(b"1004") + 60  # among the frame's bytes, behind its name
    flipped.write_bytes(want[flipped][:at] + bytes([want[flipped][at] ^ 16]) + want[flipped][at + 1 :])
    cut.write_bytes(want[cut][:-30])
    told = why(project)
    assert told["1002-1005"] == "its result is damaged" and told["1012-1015"] and not told["1007-1010"]
    for frame in (1003, 1014, 1008):
        (shot / f"mattes/sh010_matte.{frame}.exr").unlink()
    assert project.run().frames_written == 3
    assert {path: path.read_bytes() for path in _results(shot)} == want
    cut.write_bytes(b"nothing")
    project.set("size", 32)
    assert project.prune() == (4, sum(len(want[p]) for p in files.values()) - len(want[cut]) + 7)


def test_run_when_another_run_works_on_it_then_that_is_said_and_looking_goes_on(shot):
    project = Project.open(shot)
    with locked(shot / ".rotomem"):
        with pytest.raises(ProjectError, match="another run works on this project"):
            project.run()
        assert project.status().report.frames_kept == 21 and project.run(dry_run=True).frames_kept == 21


def test_run_when_a_key_file_is_gone_or_no_object_is_left_then_one_line_says_so(shot):
    (shot / "roto/hero.1006.exr").unlink()
    project = Project.open(shot)
    with pytest.raises(MaskError) as caught:
        project.run()
    assert caught.value.context["frame"] == 1006 and "hero.1006.exr" in str(caught.value)
    project.remove_object("hero")
    with pytest.raises(UsageError, match="has no object"):
        project.run()


def test_run_when_killed_anywhere_then_the_next_one_gives_the_same_bytes(shot):
    """Killed in the first network steps, between them, and at every few renames of files."""
    want = {str(p.relative_to(shot)): p.read_bytes() for p in _results(shot)}
    shutil.rmtree(shot / "mattes")
    shutil.rmtree(shot / ".rotomem")
    killer = Path(__file__).with_name("killed_runs.py")
    told = subprocess.run(
        [sys.executable, killer, shot, "1", "2", "7", "5", "9", "3", "8"], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.split().count("killed") == 7
    Project.open(shot).run()
    assert {str(p.relative_to(shot)): p.read_bytes() for p in _results(shot)} == want


def _results(shot: Path) -> list[Path]:
    return sorted([*(shot / "mattes").glob("sh010_*"), *(shot / ".rotomem/segments").iterdir()])


def test_run_when_finishing_changes_then_mattes_are_written_again_and_nothing_is_tracked(shot, steps):
    before = digests(shot / "mattes")
    project = Project.open(shot)
    project.set("choke", 1.0)
    assert set(why(project).values()) == {""}
    assert project.run().frames_written and not steps
    after = digests(shot / "mattes")
    assert {f"sh010_matte.{f}.exr" for f in range(1002, 1006)} <= {n for n in before if before[n] != after[n]}
    project.set("roi", "auto")
    assert all("roi" in reason for reason in why(project).values())
