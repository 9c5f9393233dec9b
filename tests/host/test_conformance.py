"""The suite for adapters: the worked example passes it, and each fault an adapter may have is told."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from engine.shots import checkpoint
from rotomem.errors import HostError
from rotomem.host.conformance import CHECKS, Rig, Shot
from rotomem.host.install import assemble


class FakeRun:
    """The glue between suite and adapter, all that a studio writes to be tested."""

    def __init__(self, modules, shot: Shot, engine: str) -> None:
        self.document = modules["studio"].Document(shot.plate, shot.keys, str(shot.folder))
        self.panel = modules["panel"].Panel(self.document, engine)
        self.panel.track(**shot.options)

    state = property(lambda self: self.panel.state)
    text = property(lambda self: self.panel.text)
    progress = property(lambda self: self.panel.bar)

    def turn(self) -> None:
        self.document.loop()

    def cancel(self) -> None:
        self.panel.cancel()

    def mattes(self, frame: int):
        return {name: (files[frame], channel) for name, (channel, files) in self.document.layers.items()}

    def close(self) -> None:
        self.panel.close()


class FakeAdapter:
    modules = ()
    python = (3, 9)

    def __init__(self, folder: Path, run: type = FakeRun) -> None:
        self.folder, self.run = folder, run

    def track(self, shot: Shot, engine: str) -> FakeRun:
        names = ("studio", "panel")
        return self.run({n: importlib.import_module(f"{self.folder.name}.{n}") for n in names}, shot, engine)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    sys.path.insert(0, str(folder))
    yield assemble("fake", folder / "rotomem_fake")
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("name", CHECKS)
def test_fake_when_held_to_the_suite_then_it_passes(name, installed, weights, tmp_path):
    CHECKS[name](FakeAdapter(installed), Rig(tmp_path, weights))


def test_blender_when_read_then_it_imports_what_blender_has(tmp_path):
    adapter = FakeAdapter(assemble("blender", tmp_path / "blender"))
    adapter.modules, adapter.python = ("bpy",), (3, 11)
    CHECKS["imports"](adapter, Rig(tmp_path))


class _Deaf(FakeRun):
    def cancel(self) -> None:
        pass


class _Silent(FakeRun):
    text = ""


class _Still(FakeRun):
    progress = property(lambda self: float(self.panel.state == "done"))


class _Renaming(FakeRun):
    def mattes(self, frame: int):
        return {name.replace(" ", "_"): shown for name, shown in super().mattes(frame).items()}


class _Late(FakeRun):
    def mattes(self, frame: int):
        return super().mattes(min(frame + 1, 1004))


@pytest.mark.parametrize(
    ("fault", "check", "said"),
    [
        (_Deaf, "cancel", "ended as done"),
        (_Silent, "engine_missing", "let it say"),
        (_Silent, "other_version", "let it say '7.7'"),
        (_Still, "progress", "did not move"),
        (_Renaming, "odd_names", "hero_/_1"),
        (_Late, "odd_names", "off what was drawn"),
    ],
)
def test_suite_when_an_adapter_has_a_fault_then_it_is_told(fault, check, said, installed, weights, tmp_path):
    with pytest.raises(HostError, match=said):
        CHECKS[check](FakeAdapter(installed, fault), Rig(tmp_path, weights))


@pytest.mark.parametrize(
    ("line", "said"), [("import numpy as np", "imports numpy"), ("match x:\n    case 1: pass", "3.9 cannot read")]
)
def test_suite_when_an_adapter_imports_or_is_written_too_newly_then_it_is_told(line, said, tmp_path):
    (tmp_path / "plug.py").write_text(line + "\n")
    with pytest.raises(HostError, match=said):
        CHECKS["imports"](FakeAdapter(tmp_path), Rig(tmp_path))
