"""The Lua scripts held to the suite that every adapter passes."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakeresolve import Fake

from rotomem.host.conformance import CHECKS, Rig, Shot
from rotomem.interop.quoting import lua as lua_text
from rotomem.io.exr import read_header


class LuaRun:
    """A press of *Rotomem Clip Matte*; the script runs beside Resolve, as Resolve starts it."""

    def __init__(self, session: SimpleNamespace, shot: Shot, engine: str) -> None:
        first, last = shot.frames
        clips = shot.folder / "clips"
        options = ", ".join(f"{k} = {json.dumps(v)}" for k, v in shot.options.items())
        (session.fusion / "Modules/Lua/rotomem_settings.lua").write_text(
            f"return {{ engine = {lua_text(engine)}, folder = {lua_text(str(clips))}, options = {{ {options} }} }}",
            encoding="utf-8",
        )
        resolve = session.lua.eval("require('rotomem_resolve')")
        keys = clips / "show" / "sh010" / "keys"
        keys.mkdir(parents=True)
        for name, drawn in shot.keys.items():
            for frame, path in drawn.items():
                shutil.copy(path, keys / resolve.key_name(name, frame, "exr"))
        path = shot.plate.replace("%04d", f"[{first:04d}-{last:04d}]")
        self.fake = Fake(path, length=last - first + 1, lua=session.lua)
        self.state, self.text, self.progress, self.stop = "running", "", 0.0, False
        session.lua.globals()["bmd"] = session.lua.table_from({"wait": lambda s: time.sleep(s / 5)})
        track = session.lua.eval(
            "function(r, show) return pcall(require('rotomem_resolve').track, r, 'matte', show) end"
        )
        self.thread = threading.Thread(target=self._run, args=(track,), daemon=True)
        self.thread.start()

    def _run(self, track: Any) -> None:
        fine, out, *said = track(self.fake.resolve, self._show)
        self.text = said[0] if fine and said else str(out)
        self.progress = 1.0 if fine and out else self.progress
        self.state = "error" if not fine else "done" if out else "cancelled"

    def _show(self, text: str, share: float, new: bool) -> bool:
        self.text, self.progress = text, share
        return self.stop

    def turn(self) -> None:
        pass

    def cancel(self) -> None:
        self.stop = True

    def mattes(self, frame: int) -> Mapping[str, tuple[str, str]]:
        shown: dict[str, tuple[str, str]] = {}
        for spelling in self.fake.mattes:
            head, _, tail = spelling.rpartition("[")
            path = f"{head}{frame}{tail.partition(']')[2]}"
            packed = json.loads(str(read_header(Path(path)).metadata["rotomem/objects"]))
            shown.update({name: (path, channel) for channel, name in packed.items()})
        return shown

    def close(self) -> None:
        self.stop = True
        self.thread.join(60)


class LuaAdapter:
    modules = ("DaVinciResolveScript",)
    python = (3, 9)

    def __init__(self, start: Any) -> None:
        self.start = start
        self.folder = start().fusion

    def track(self, shot: Shot, engine: str) -> LuaRun:
        return LuaRun(self.start(), shot, engine)


@pytest.mark.parametrize("name", CHECKS)
def test_lua_when_held_to_the_suite_then_it_passes(name, start, weights, tmp_path):
    CHECKS[name](LuaAdapter(start), Rig(tmp_path, weights))
