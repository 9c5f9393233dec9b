"""`rotomem new`, `key`, `object`, `absent`."""

from __future__ import annotations

import pytest

from engine.shots import plate, soft_key
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
