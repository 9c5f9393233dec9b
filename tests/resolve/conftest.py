"""Scripts installed as `rotomem hosts install resolve` does it, in LuaJIT, with a Resolve that is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakeresolve import NASTY

from engine.shots import checkpoint
from rotomem.host.install import install_resolve
from rotomem.interop.quoting import lua as lua_text

STAND_IN = """\
import json, os, sys, time
folder = sys.argv[sys.argv.index("--job") + 1]
request = json.load(open(folder + "/request.json"))
said = open(folder + "/events.jsonl", "wb", buffering=0)
def say(**event):
    said.write(json.dumps(event).encode() + b"\\n")
say(event="hello", id=None, protocol=PROTOCOL, version="9.9", pid=0, models=[])
if "garbage" in request["out"]:
    for line in (b"no json", b"[1]", b'{"event": 3}', b"{" * 300, b'\\xff\\xfe', b'{"event": "progress"}', b""):
        said.write(line + b"\\n")
if "dies" in request["out"]:
    sys.stderr.write("z" * 5000 + " the graphics card is gone")
    sys.stderr.flush()
    os._exit(9)
for i in range(500):
    if os.path.exists(folder + "/cancel"):
        say(event="cancelled", id="x", report={"frames_written": i})
        break
    half = json.dumps(dict(event="progress", id="x", frame=i, done=i, total=500, fps=50.0)).encode() + b"\\n"
    said.write(half[:20])
    time.sleep(0.01)
    said.write(half[20:])
    if "short" in request["out"] and i == 20:
        say(event="done", id="x", report={"objects": {"hero": "A"}})
        break
"""
"""A worker that counts for some seconds unless it is told to stop; it writes lines in two halves."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str) -> Callable[..., SimpleNamespace]:
    """`start(engine=...)`: a new LuaJIT with the scripts: `.lua`, `.printed`, `.fusion`, `.clips`."""
    luajit = pytest.importorskip("lupa.luajit21", reason="no LuaJIT here: pip install lupa")
    monkeypatch.delenv("ROTOMEM_PYTHON", raising=False)

    def start(engine: str = sys.executable) -> SimpleNamespace:
        fusion, clips = tmp_path / "Fusion", tmp_path / NASTY / "clips"
        install_resolve(fusion)
        (fusion / "Modules/Lua/rotomem_settings.lua").write_text(
            f"return {{ engine = {lua_text(engine)}, folder = {lua_text(str(clips))}, "
            f"options = {{ model = {lua_text(weights)}, size = 32, mem_every = 2 }} }}",
            encoding="utf-8",
        )
        runtime = luajit.LuaRuntime(encoding="utf-8", unpack_returned_tuples=True)
        printed: list[str] = []
        runtime.globals()["print"] = lambda *texts: printed.append(" ".join(map(str, texts)))
        runtime.execute(f"package.path = {lua_text(str(fusion / 'Modules/Lua/?.lua'))} .. ';' .. package.path")
        return SimpleNamespace(lua=runtime, printed=printed, fusion=fusion, clips=clips)

    return start


@pytest.fixture
def stand_in(tmp_path: Path) -> [Callable[[int], str]]:
    """`stand_in(protocol)`: the path of a `rotomem` command that only talks like a worker."""

    def make(protocol: int = 1) -> str:
        command = tmp_path / 'it\'s "a" bin' / "rotomem"
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!{sys.executable} -I\nPROTOCOL = {protocol}\n{STAND_IN}")
        os.chmod(command, 0o755)
        return str(command)

    return make
