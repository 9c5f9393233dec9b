"""The verbs of a shot project: `new`, `key`, `object`, `absent`, `freeze`, `run`, `status`, `prune`."""

from __future__ import annotations

import json

import pytest

from engine.shots import checkpoint, plate, soft_key
from rotomem.cli import main
from rotomem.project.project import Project


@pytest.fixture
def shot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plate(tmp_path / "plates", range(1001, 1005))
    soft_key(tmp_path / "roto", 1001)
    soft_key(tmp_path / "roto", 1004)
    soft_key(tmp_path / "roto", 1001, "car", x=50)
    assert main(["new", "plates/sh010.%04d.exr", "-m", "hero@1001=roto/hero.1001.exr", "-o", "mattes/"]) == 0
    return tmp_path


def test_verbs_when_an_artist_goes_through_them_then_the_project_says_what_was_said(shot, capsys):
    for command in (
        "key add hero@1004=roto/hero.1004.exr",
        "object add car@1001=roto/car.1001.exr --colour #00ff00",
        "object rename hero lead",
        "absent lead 1002-1003",
    ):
        assert main(command.split()) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "  1  lead  keys 1001, 1004; absent 1002-1003",
        "  2  car   keys 1001",
    ]
    assert main(["object", "merge", "lead", "car", "--into", "both"]) == 0
    assert "sum of lead, car" in capsys.readouterr().out
    for command in ("object split both", "absent lead --none", "key remove lead@1004", "object remove car"):
        assert main(command.split()) == 0
    capsys.readouterr()
    assert main(["key", "list", "-C", str(shot)]) == 0
    assert capsys.readouterr().out == "  1  lead  keys 1001\n"
    assert Project.open(shot).file.object("lead").keys == {1001: "roto/hero.1001.exr"}


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("key add hero@1009=roto/hero.1004.exr", 2, "not one of the plate's frames 1001-1004"),
        ("key add 1004=roto/hero.1004.exr", 2, "write NAME@FRAME=PATH"),
        ("key add hero@1004=roto/none.exr", 2, "roto/none.exr"),
        ("key remove hero", 2, "write NAME@FRAME"),
        ("key remove villain@1001", 2, "the objects are: hero"),
        ("object add bird", 2, "'bird' has no key"),
        ("absent hero soon", 2, "not a frame range"),
        ("key list -C nowhere", 3, "rotomem new"),
        ("new plates/sh010.%04d.exr -m hero@1001=roto/hero.1001.exr -o mattes/", 1, "there is a project here"),
        ("new plates/sh010.%04d.exr b -m h@1001=roto/hero.1001.exr -o m/ --set sise=3", 2, "sise"),
        ("new plates/sh010.%04d.exr b -m h@1001=roto/hero.1001.exr -o m/ --set size", 2, "NAME=VALUE"),
    ],
)
def test_verb_when_something_is_wrong_then_one_line_says_so_and_nothing_is_written(shot, capsys, command, code, said):
    before = (shot / "rotomem.toml").read_bytes()
    assert main(command.split()) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert (shot / "rotomem.toml").read_bytes() == before and not (shot / "b").exists()


def test_new_when_settings_are_given_then_they_stand_in_the_file_as_they_are_meant(shot):
    text = "new plates/sh010.%04d.exr b -m h@1001=roto/hero.1001.exr -o m/ --set size=full --set rim=8 "
    assert main((text + "--set input-space=ACEScg --set frames=1001-1003").split()) == 0
    file = Project.open(shot / "b").file
    assert file.settings == {"size": "full", "rim": 8, "input_space": "ACEScg", "frames": "1001-1003"}
    assert file.plate == str(shot / "plates/sh010.%04d.exr") and file.output == f"{shot}/m/"


def test_run_status_freeze_and_prune_when_an_artist_uses_them_then_each_says_what_it_did(shot, capsys):
    checkpoint(shot)
    settings = "--set size=48 --set model=tiny.safetensors"  # of the present folder, not of the project's
    assert main(f"new plates/sh010.%04d.exr s -m hero@1001=roto/hero.1001.exr -o s/m/ {settings}".split()) == 0
    assert main(["freeze", "1002-1003", "-C", "s"]) == 2 and "`rotomem run` first" in capsys.readouterr().err
    assert main(["run", "s", "--explain", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "segment  1002-1004  to do: no result yet  (hero)" in said and "4 frames would be" in said
    assert main(["run", "s", "--progress", "none"]) == 0 and "4 mattes written" in capsys.readouterr().out
    assert main(["freeze", "1002-1003", "-C", "s"]) == 0 and capsys.readouterr().out == "frozen 1002-1003\n"
    assert main(["run", "s", "--json", "--explain"]) == 0
    told = capsys.readouterr()
    assert "segment  1004  to do: key 1002 of hero is new, key 1003 of hero is new" in told.err
    report = json.loads(told.out)
    assert report["frames"]["written"] == "1004" and report["frames"]["kept"] == "1001-1003"
    assert main(["status", "s"]) == 0
    said = capsys.readouterr().out
    for text in ("mattes   1001-1004 current, none to do", "quality  4 frames, mean", "KiB that nothing asks for"):
        assert text in said
    assert main(["prune", "s"]) == 0 and capsys.readouterr().out.startswith("1 result dropped, ")
    assert main(["status", "s", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["frozen"] == [1002, 1003] and status["cache"]["unused_bytes"] == 0 < status["cache"]["bytes"]
    assert [(s["frames"], s["why"]) for s in status["segments"]] == [("1004", "")]
    assert main(["freeze", "--none", "-C", "s"]) == 0 and capsys.readouterr().out == "frozen none\n"
    assert main(["prune", "s", "--keep-bytes", "2G"]) == 0 and capsys.readouterr().out.startswith("0 results")
    assert main(["prune", "s", "--keep-bytes", "much"]) == 2 and "no number of bytes" in capsys.readouterr().err
