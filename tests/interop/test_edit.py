"""Edits in: which frames of which plate, what is said of the rest; with real OTIO, EDL and EXR files."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.shots import plate, soft_key
from rotomem.cli import main
from rotomem.interop.edit import read_edit, safe_name
from rotomem.project.project import Project

otio = pytest.importorskip("opentimelineio", reason="no opentimelineio here: pip install 'rotomem[otio]'")
T, R = otio.opentime.RationalTime, otio.opentime.TimeRange


def span(first: int, frames: int):
    return R(T(first, 24), T(frames, 24))


def sequence(folder: Path, stem: str, first: int = 1001, frames: int = 8):
    """A plate on disk, as Hiero and others refer to it."""
    plate(folder, range(first, first + frames), stem)
    return otio.schema.ImageSequenceReference(
        folder.as_uri() + "/", f"{stem.replace(' ', '%20')}.", ".exr", start_frame=first, rate=24,
        frame_zero_padding=4, available_range=span(86400, frames),
    )  # fmt: skip


def write(path: Path, *tracks) -> Path:
    timeline = otio.schema.Timeline("edit")
    for children in tracks:
        track = otio.schema.Track(kind=otio.schema.TrackKind.Video)
        track.extend(children)
        timeline.tracks.append(track)
    otio.adapters.write_to_file(timeline, str(path))
    return path


def clip(name: str, media, first: int, frames: int, *effects):
    return otio.schema.Clip(name, media_reference=media, source_range=span(first, frames), effects=list(effects))


def test_edit_when_clips_share_a_plate_then_names_are_apart_and_ranges_are_those_on_disk(tmp_path):
    media = sequence(tmp_path / "pl at$es é", "sh 010")
    gap = otio.schema.Gap(duration=T(5, 24))
    edit = write(tmp_path / "e.otio", [clip("sh/010", media, 86402, 3), gap, clip("SH:010", media, 86400, 1)])
    cuts, notes = read_edit(edit, handles=2)
    assert [(c.name, c.frames) for c in cuts] == [("sh_010", "1001-1007"), ("SH_010_2", "1001-1003")]
    assert "2 at the head" in cuts[1].notes[0] and "1 gap" in notes[0]
    assert cuts[0].plate == str(tmp_path / "pl at$es é" / "sh 010.%04d.exr")


def test_edit_when_clips_dissolve_or_are_retimed_then_the_range_covers_what_is_seen_and_says_so(tmp_path):
    one, two = sequence(tmp_path, "a", frames=20), sequence(tmp_path, "b", frames=20)
    dissolve = otio.schema.Transition("d", "SMPTE_Dissolve", in_offset=T(1, 24), out_offset=T(2, 24))
    fast, still = otio.schema.LinearTimeWarp(time_scalar=2.5), otio.schema.FreezeFrame()
    edit = write(
        tmp_path / "e.otio",
        [clip("a", one, 86402, 4), dissolve, clip("b", two, 86405, 4), clip("c", one, 86400, 4, fast)],
        [clip("d", two, 86403, 9, still)],
    )
    cuts, _ = read_edit(edit)
    assert [c.frames for c in cuts] == ["1003-1008", "1005-1009", "1001-1010", "1004-1004"]
    assert "2 more frames" in cuts[0].notes[0] and "250 %" in cuts[2].notes[0] and "freeze" in cuts[3].notes[0]


def test_edit_when_media_are_missing_then_one_error_names_all_and_nothing_is_begun(tmp_path, capsys):
    good = sequence(tmp_path / "there", "ok")
    gone = otio.schema.ExternalReference("file:///no/where.%04d.exr", span(1, 9))
    edit = write(tmp_path / "e.otio", [clip("x", gone, 1, 3), clip("ok", good, 86400, 3), clip("y", None, 1, 3)])
    assert main(["shots", str(edit), "-o", str(tmp_path / "shots")]) == 3
    said = capsys.readouterr().err
    assert (
        "2 of the edit's clips" in said and "x: no files at /no/where" in said and "y:" in said and "--root" in said
    )
    assert not (tmp_path / "shots").exists()


def test_edit_when_plates_moved_then_they_are_found_under_the_root(tmp_path):
    plate(tmp_path / "new" / "sh010" / "v2", stem="sh010_bg")
    plate(tmp_path / "new" / "sh020", stem="main")
    gone = otio.schema.ExternalReference("/old/sh010_bg.[1001-1008].exr", span(1001, 8))
    edit = write(tmp_path / "e.otio", [clip("one", gone, 1003, 2), clip("sh020", None, 1002, 3)])
    cuts, _ = read_edit(edit, root=tmp_path / "new")
    assert [(c.name, Path(c.plate).parent.name, c.frames) for c in cuts] == [
        ("one", "v2", "1003-1004"),
        ("sh020", "sh020", "1002-1004"),
    ]


def test_edit_when_edl_then_its_reels_are_plates(tmp_path):
    pytest.importorskip("otio_cmx3600_adapter", reason="no EDLs here: pip install otio-cmx3600-adapter")
    plate(tmp_path / "p", stem="sh010")
    edit = tmp_path / "e.edl"
    edit.write_text("TITLE: t\n001  SH010    V     C        00:00:41:18 00:00:41:21 01:00:00:00 01:00:00:03\n")
    cuts, _ = read_edit(edit, root=tmp_path / "p", fps=24)
    assert [c.frames for c in cuts] == ["1002-1004"]


def test_edit_when_nothing_reads_it_then_the_package_is_named(tmp_path, capsys):
    for name, said in (("e.aaf", "pip install otio-aaf-adapter"), ("e.otio", "cannot be read")):
        (tmp_path / name).write_text("no edit")
        assert main(["shots", str(tmp_path / name), "-o", str(tmp_path)]) in (1, 2)
        assert said in capsys.readouterr().err


def test_shots_when_begun_then_projects_take_keys_and_stay_on_another_go(tmp_path, capsys):
    media = sequence(tmp_path / "plates", "sh010")
    edit = write(tmp_path / "e.otio", [clip("sh010", media, 86402, 3)])
    asked = ["shots", str(edit), "-o", str(tmp_path / "shots")]
    assert main([*asked, "--dry-run"]) == 0 and not (tmp_path / "shots").exists()
    assert main(asked) == 0 and "begun" in capsys.readouterr().out
    project = Project.open(tmp_path / "shots" / "sh010")
    assert project.file.settings["frames"] == "1003-1005" and not project.file.objects
    key = soft_key(tmp_path, 1003)
    assert main(["object", "add", key, "-C", str(project.path)]) == 0
    text = project.path.read_bytes()
    assert Project.open(project.path).run(dry_run=True, model="xmem-s").frames_asked == 3
    assert main([*asked, "--handles", "1"]) == 0 and "has 1003-1005" in capsys.readouterr().out
    assert project.path.read_bytes() == text


def test_shots_when_given_our_own_export_then_the_plate_comes_back_and_mattes_do_not(tmp_path, capsys):
    spelling = plate(tmp_path / "plates")
    plate(tmp_path / "mattes", stem="hero")
    for path in (tmp_path / "mattes").glob("*.exr"):
        path.unlink()
    for frame in (1001, 1002):
        soft_key(tmp_path / "mattes", frame)
    edit = tmp_path / "e.otio"
    assert main(["export", spelling, str(tmp_path / "mattes"), "--otio", "-o", str(edit)]) == 0
    cuts, notes = read_edit(edit)
    assert [(c.name, c.plate, c.frames) for c in cuts] == [("sh010", spelling, "1001-1008")] and not notes


@pytest.mark.parametrize(
    ("text", "name"),
    [("../../etc", "etc"), ("a b/c", "a_b_c"), ("", "shot"), ("CON", "CON_"), ("x" * 99, "x" * 80), ("é", "é")],
)
def test_safe_name_when_a_clip_is_called_anything_then_it_is_one_folder(text, name):
    assert safe_name(text) == name
