"""The extension held to the suite that every adapter passes, in a real Blender: one, for all checks."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.shots import checkpoint
from rotomem.host.conformance import CHECKS, Rig, Shot
from rotomem.host.install import assemble, blender_zip

from .conftest import NEWEST, command

LIMIT_S = 60.0


class Pipe:
    """The running Blender."""

    def __init__(self, folder: Path) -> None:
        told = {"user": str(folder / "user"), "zip": str(blender_zip(folder))}
        self.log = (folder / "stderr").open("w+b")
        self.process = subprocess.Popen(
            command(NEWEST, "serve_extension.py", **told),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.said.put(json.loads(line))
        self.said.put(None)

    def ask(self, **what: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def hear(self, wait_s: float = LIMIT_S) -> dict[str, Any]:
        """The next that Blender says. Raises queue.Empty where it says nothing in time."""
        said = self.said.get(timeout=wait_s)
        if said is None:
            self.log.seek(0)
            raise AssertionError(f"Blender has ended: {self.log.read()[-3000:].decode(errors='replace')}")
        return said


def openable(folder: Path) -> Path:
    """A folder as an artist can have it open: on every system Blender takes a backslash for a slash."""
    if "\\" not in folder.name:
        return folder
    link = folder.with_name(folder.name.replace("\\", ""))
    link.symlink_to(folder, target_is_directory=True)
    return link


class BlenderRun:
    def __init__(self, pipe: Pipe, shot: Shot, engine: str) -> None:
        self.pipe, folder = pipe, openable(shot.folder)
        self.state, self.text, self.progress = "running", "", 0.0
        pipe.ask(
            do="track",
            engine=engine,
            plate=str(folder / Path(shot.plate).name),
            frames=shot.frames,
            keys={n: {str(f): str(folder / p.name) for f, p in keys.items()} for n, keys in shot.keys.items()},
            folder=str(folder / "out"),
            settings=shot.options,
        )

    def turn(self, wait_s: float = 0.1) -> None:
        try:
            said = self.pipe.hear(wait_s)
        except queue.Empty:
            return
        self.state, self.text, self.progress = said["state"], said["text"], said["progress"]

    def cancel(self) -> None:
        self.pipe.ask(do="cancel")

    def mattes(self, frame: int) -> Mapping[str, tuple[str, str]]:
        self.pipe.ask(do="shown", frame=frame)
        return {name: (path, "A") for name, path in self.pipe.hear()["shown"].items()}

    def close(self) -> None:
        self.pipe.ask(do="close")
        assert self.pipe.hear() == {"closed": True}


class BlenderAdapter:
    modules = ("bpy",)
    python = (3, 11)

    def __init__(self, pipe: Pipe, folder: Path) -> None:
        self.pipe, self.folder = pipe, folder

    def track(self, shot: Shot, engine: str) -> BlenderRun:
        return BlenderRun(self.pipe, shot, engine)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlenderAdapter]:
    folder = tmp_path_factory.mktemp("blender")
    pipe = Pipe(folder)
    yield BlenderAdapter(pipe, assemble("blender", folder / "rotomem"))
    assert pipe.process.stdin is not None
    pipe.process.stdin.close()
    try:
        pipe.process.wait(LIMIT_S)
    finally:
        pipe.process.kill()
        pipe.log.close()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("name", CHECKS)
def test_blender_when_held_to_the_suite_then_it_passes(
    name: str, adapter: BlenderAdapter, weights: str, tmp_path: Path
) -> None:
    CHECKS[name](adapter, Rig(tmp_path, weights))
