"""The plug-in held to the suite that every adapter passes, in one Nuke that stays open from press to press."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import fakenuke
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.shots import checkpoint, write
from rotomem.host.conformance import CHECKS, Rig, Shot
from rotomem.io.exr import read_header, read_still


class NukeRun:
    """Read, a Roto an object and a Rotomem node, whose Track was pressed."""

    def __init__(self, nuke: SimpleNamespace, plugin: SimpleNamespace, shot: Shot, engine: str) -> None:
        self.nuke, self.plugin, self.shot = nuke, plugin, shot
        text = plugin.host.tcl_text
        read = nuke.make("Read", file=text(shot.plate), first=shot.frames[0], last=shot.frames[1])
        lines = []
        for name, drawn in shot.keys.items():
            roto = nuke.make("Roto", draw=lambda frame, drawn=drawn: {"rgba.alpha": _drawn(drawn, frame)})
            roto["curves"].rootLayer = fakenuke.RotoLayer([fakenuke.shape(*drawn)])
            lines.append(f"{name} = {roto.name()}")
        self.node = plugin.create()
        self.node.setInput(0, read)
        for knob, value in {
            "objects": "\n".join(lines),
            "folder": text(str(shot.folder / "out")),
            "engine": engine,
            **shot.options,
        }.items():
            self.node[knob].setValue(value)
        self.before = len(nuke.tasks)
        self.node["track_both"].execute()

    @property
    def state(self) -> str:
        if self.plugin.panel._run_of(self.node) is not None:
            return "running"
        return {"Done": "done", "Canc": "cancelled"}.get(self.text[:4], "error")

    @property
    def text(self) -> str:
        return html.unescape(self.node["status"].value())

    @property
    def progress(self) -> float:
        tasks = self.nuke.tasks[self.before :]
        return tasks[0].progress[-1] / 100 if tasks and tasks[0].progress else 0.0

    def turn(self) -> None:
        self.nuke.turn()

    def cancel(self) -> None:
        self.node["cancel"].execute()

    def mattes(self, frame: int) -> Mapping[str, tuple[str, str]]:
        """What the node shows, in files of our own: its wiring and layers are tried with it."""
        picture, out = fakenuke._picture(self.node, frame), self.shot.folder / "out" / "mattes"
        told = json.loads(str(read_header(next(out.glob(f"*.{frame}.exr"))).metadata["rotomem/objects"]))
        files = {}
        for number, (layer, name) in enumerate(told.items()):
            alpha = picture["rgba.alpha" if layer == "A" else f"{layer}.alpha"][..., None]
            path = write(self.shot.folder / f"shown{number}.{frame}.exr", alpha, channels=("A",))
            files[name] = (str(path), "A")
        return files

    def close(self) -> None:
        """Nuke stays open with its engine, as an artist leaves it to the next node."""
        if self.state == "running":
            self.cancel()
            self.nuke.pump(lambda: self.state != "running")


def _drawn(drawn: Mapping[int, Path], frame: int) -> NDArray[np.float32]:
    path = drawn.get(frame)
    some = read_still(path or next(iter(drawn.values())), channels=["A"]).arrays["A"].astype(np.float32)
    return some if path else np.zeros_like(some)


class NukeAdapter:
    modules = ("nuke", "nukescripts")
    python = (3, 9)

    def __init__(self, made: SimpleNamespace) -> None:
        self.made, self.folder = made, made.user / "rotomem"

    def track(self, shot: Shot, engine: str) -> NukeRun:
        return NukeRun(self.made.nuke, self.made.plugin, shot, engine)


@pytest.mark.parametrize("name", CHECKS)
def test_nuke_when_held_to_the_suite_then_it_passes(name, start, tmp_path, monkeypatch):
    made = start(gui=True)
    monkeypatch.setattr(made.plugin.run, "_engine", None)  # that of the other tests stays warm
    monkeypatch.setattr(made.plugin.run, "_LOOK_S", 0.02)  # frames as small as these take milliseconds
    CHECKS[name](NukeAdapter(made), Rig(tmp_path, checkpoint(tmp_path)))
