"""A Nuke that is none, with the plug-in installed as `rotomem hosts install nuke` does it, and workers for it."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakenuke
import pytest

from rotomem.host.install import install_nuke

STAND_IN = """\
import json, sys, threading
out = lambda **e: print(json.dumps(e), flush=True)
out(event="hello", id=None, protocol=1, version="0", pid=0, models=["none"])
stop = threading.Event()
def work(job):
    id = job["id"]
    stop.clear()
    out(event="queued", id=id, ahead=0)
    out(event="started", id=id, report={})
    for i in range(1, 500):
        if stop.wait(0.02):
            out(event="cancelled", id=id, report={"frames_written": i})
            return
        out(event="progress", id=id, doing="track", frame=1000 + i, done=i, total=500, fps=50.0)
for line in sys.stdin:
    job = json.loads(line)
    if job["do"] == "cancel":
        stop.set()
    else:
        threading.Thread(target=work, args=(job,), daemon=True).start()
"""
"""A worker that is at work for ten seconds unless it is told to stop."""

Start = Callable[..., SimpleNamespace]


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `rotomem` command of an installation: this very Python would be the host's own."""
    path = tmp_path_factory.mktemp("bin") / "rotomem"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m rotomem "$@"\n')
    os.chmod(path, 0o755)
    return path


@pytest.fixture(scope="session")
def warm() -> Iterator[list[Any]]:
    """The worker that one test leaves to the next: it takes seconds to start."""
    engines: list[Any] = []
    yield engines
    for engine in engines:
        engine.close(0)


@pytest.fixture
def start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    command: Path,
    warm: list[Any],
) -> Iterator[Start]:
    """`start(gui=..., ...)`: a new Nuke: its session `.nuke`, the package `.plugin`, the folder `.user`."""

    def start(**how: Any) -> SimpleNamespace:
        session = fakenuke.start(**{"gui": False, "script": str(tmp_path / "comp.nk"), **how})
        user = tmp_path / "home" / ".nuke"
        install_nuke(user)
        (user / "rotomem" / "rotomem_nuke" / "engine.txt").write_text(f"{command}\n")
        monkeypatch.setitem(sys.modules, "nuke", session.module)
        monkeypatch.setitem(sys.modules, "nuke.rotopaint", session.rotopaint)
        monkeypatch.syspath_prepend(str(user / "rotomem"))
        monkeypatch.delenv("ROTOMEM_PYTHON", raising=False)
        monkeypatch.delenv("OCIO", raising=False)
        for name in [n for n in sys.modules if n.partition(".")[0] == "rotomem_nuke"]:
            monkeypatch.delitem(sys.modules, name)
        runpy.run_path(str(user / "rotomem" / "init.py"))
        if session.module.GUI:
            runpy.run_path(str(user / "rotomem" / "menu.py"))
        import rotomem_nuke

        if warm and "stand_in" not in request.fixturenames:
            rotomem_nuke.run._engine = warm[-1]
        return SimpleNamespace(nuke=session, plugin=rotomem_nuke, user=user)

    yield start
    for run in [sys.modules[n] for n in sys.modules if n == "rotomem_nuke.run"]:
        if run._engine is not None and run._engine.command == [str(command)]:
            warm[:] = [run._engine]
        elif run._engine is not None:
            run._engine.close(0)


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """The path of a `rotomem` command that only talks like a worker."""
    command = tmp_path / "bin" / "rotomem"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable} -I\n{STAND_IN}")
    os.chmod(command, 0o755)
    return str(command)
