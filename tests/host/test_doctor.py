"""What the doctor finds on made-up machines of all three systems."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rotomem.cli import main
from rotomem.host import client, doctor
from rotomem.host.doctor import Finding, Place, examine


@pytest.fixture
def without_engine(monkeypatch):
    monkeypatch.setattr(doctor, "_engine", lambda: Finding("engine", "1", "python"))


def program(path: Path, says: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def put_client(folder: Path, *, older: bool = False) -> None:
    folder.mkdir(parents=True)
    shutil.copy(client.__file__, folder / "client.py")
    if older:
        (folder / "client.py").write_text("PROTOCOL = 0\n")


def machine(tmp_path: Path, platform: str, **environ: str) -> Place:
    return Place(platform, tmp_path / "home", tmp_path / "root", {"PATH": "", **environ})


def test_doctor_when_linux_then_hosts_adapters_and_what_is_missing_are_told(tmp_path, without_engine):
    place = machine(tmp_path, "linux", PATH=str(tmp_path / "bin"))
    program(tmp_path / "root/opt/blender-5.0/blender", "Blender 5.0.1")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/blender").symlink_to(tmp_path / "root/opt/blender-5.0/blender")
    program(tmp_path / "root/usr/local/Nuke15.1v4/Nuke15.1")
    program(tmp_path / "root/usr/local/Nuke15.1v4/NukeServer")
    program(tmp_path / "root/opt/resolve/bin/resolve")
    put_client(tmp_path / "home/.config/blender/5.0/extensions/user_default/rotomem")
    put_client(tmp_path / "home/.nuke/rotomem/rotomem_nuke", older=True)
    _, blender, nuke, resolve = examine(place, test=False)
    assert (blender.version, blender.state, blender.todo) == ("5.0.1", "ok", "")
    assert blender.adapter is not None and blender.adapter.endswith("user_default/rotomem")
    assert (nuke.version, nuke.state) == ("15.1v4", "to do") and "of another rotomem" in nuke.todo
    assert (resolve.adapter, resolve.state, resolve.todo) == (None, "to do", "rotomem hosts install resolve")


def test_doctor_when_blender_is_too_old_or_says_nothing_then_it_is_not_tried(tmp_path, without_engine):
    program(tmp_path / "root/opt/blender-3/blender", "Blender 3.4.1")
    program(tmp_path / "root/opt/blender-x/blender", "cannot open shared object")
    old, broken = examine(machine(tmp_path, "linux"))[1:]
    assert old.state == "to do" and "4.2" in old.todo and not old.test
    assert broken.state == "failed" and not broken.test


@pytest.mark.parametrize(
    ("platform", "where", "adapter"),
    [
        (
            "darwin",
            "root/Applications/Blender 4.2.app/Contents/MacOS/Blender",
            "home/Library/Application Support/Blender/4.2/extensions/user_default/rotomem",
        ),
        (
            "win32",
            "root/Program Files/Blender Foundation/Blender 4.2/blender.exe",
            "home/AppData/Roaming/Blender Foundation/Blender/4.2/extensions/user_default/rotomem",
        ),
    ],
)
def test_doctor_when_mac_or_windows_then_their_places_are_looked_at(
    platform, where, adapter, tmp_path, without_engine
):
    program(tmp_path / where, "Blender 4.2.23 LTS")
    put_client(tmp_path / adapter)
    (blender,) = examine(machine(tmp_path, platform), test=False)[1:]
    assert (blender.version, blender.adapter) == ("4.2.23", str(tmp_path / adapter))


def test_doctor_when_a_self_test_fails_then_it_says_why(tmp_path, without_engine):
    program(tmp_path / "root/opt/blender-4/blender", "Blender 4.2.23\nFAILED the extension broke")
    put_client(tmp_path / "home/.config/blender/4.2/extensions/user_default/rotomem")
    (blender,) = examine(machine(tmp_path, "linux"))[1:]
    assert blender.state == "failed" and "the extension broke" in blender.todo


def test_doctor_when_asked_on_the_command_line_then_the_exit_code_says_whether_all_is_well(monkeypatch, capsys):
    found = [Finding("engine", "1", "python"), Finding("nuke", "15.1", "Nuke", None, "to do", "install it")]
    monkeypatch.setattr(doctor, "examine", lambda test: found)
    assert main(["hosts", "doctor", "--json"]) == 1
    assert [f["state"] for f in json.loads(capsys.readouterr().out)] == ["ok", "to do"]
    assert main(["hosts", "doctor"]) == 1 and "install it" in capsys.readouterr().out
    del found[1:]
    assert main(["hosts", "doctor"]) == 0 and "no Blender" in capsys.readouterr().out


def test_engine_when_looked_at_then_it_loads_its_model_and_tells_its_kernels():
    engine = doctor._engine()
    assert engine.state == "ok" and "xmem-s on" in engine.test and "kernels" in engine.test
