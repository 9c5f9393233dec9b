"""What an adapter has to do, whoever wrote it, as checks that run it with the real engine.

    import pytest
    from rotomem.host.conformance import CHECKS, Rig

    @pytest.mark.parametrize("name", CHECKS)
    def test_adapter(name, tmp_path):
        CHECKS[name](MyAdapter(), Rig(tmp_path))

`MyAdapter` is glue: it brings the described shot into the host, or into what stands for it in a test, presses the
button, and tells what the artist sees. `tests/host/test_conformance.py` has that of `host_integrations/fake/`.
A check that fails raises HostError. POSIX: the engines that misbehave are shell scripts.
"""

from __future__ import annotations

import ast
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from rotomem.errors import HostError, RotomemError
from rotomem.host.client import PROTOCOL, Engine
from rotomem.io.exr import read_still

WIDTH, HEIGHT = 72, 48
_LIMIT_S = 120.0  # for anything to end, on a machine with other work


@dataclass(frozen=True)
class Shot:
    """What an artist has open.

    plate    pattern, frame number as %04d; EXR of WIDTH x HEIGHT
    frames   first and last, inclusive
    keys     object -> frame -> EXR with the coverage in a channel A
    folder   the artist's: keys and mattes may be written anywhere in it
    options  to be passed on, fields of TrackOptions
    """

    plate: str
    frames: tuple[int, int]
    keys: Mapping[str, Mapping[int, Path]]
    folder: Path
    options: Mapping[str, object]


class Run(Protocol):
    """A button that was pressed."""

    @property
    def state(self) -> str:
        """ "running", "done", "cancelled" or "error"."""

    @property
    def text(self) -> str:
        """What the panel says now."""

    @property
    def progress(self) -> float:
        """0 to 1."""

    def turn(self) -> None:
        """Let the host's event loop turn once."""

    def cancel(self) -> None:
        """Press Cancel."""

    def mattes(self, frame: int) -> Mapping[str, tuple[str, str]]:
        """Object -> file and channel that the host shows on a frame, once done."""

    def close(self) -> None:
        """Quit the host."""


class Adapter(Protocol):
    """An adapter, driven by its own glue.

    folder    its files, as they are installed
    modules   what its host lets it import
    python    the oldest Python of the hosts it claims
    """

    folder: Path
    modules: Collection[str]
    python: tuple[int, int]

    def track(self, shot: Shot, engine: str) -> Run:
        """Open the shot, choose the engine in the preferences, press Track."""


@dataclass(frozen=True)
class Rig:
    """Where a check works, and the model it tracks with: a small one is quicker."""

    folder: Path
    model: str = "xmem-s"

    def shot(self, name: str, objects: Mapping[str, int], frames: int = 4) -> Shot:
        """A shot of discs on disk: object -> its place from the left."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        first, last = 1001, 1000 + frames
        for frame in range(first, last + 1):
            picture = np.full((HEIGHT, WIDTH, 3), 0.18, np.float32)
            for number, x in enumerate(objects.values()):
                colour = np.roll(np.array((0.9, 0.4, 0.1), np.float32), number)
                alpha = _disc(x + frame - first)[..., None]
                picture = picture * (1 - alpha) + alpha * colour
            _write(folder / f"plate.{frame}.exr", picture)
        keys: dict[str, dict[int, Path]] = {}
        for number, (thing, x) in enumerate(objects.items()):
            keys[thing] = {first: folder / f"drawn{number}.exr"}
            _write(keys[thing][first], _disc(x)[..., None])
        options = {"model": self.model, "size": 32}
        return Shot(str(folder / "plate.%04d.exr"), (first, last), keys, folder, options)

    def engine(self, says: str | None = None) -> str:
        """The path of a `rotomem` command: the real one, or one that only says a line.

        The file `rotomem.pid` beside it holds the number of the process that was started last.
        """
        command = self.folder / "bin" / "rotomem"
        command.parent.mkdir(parents=True, exist_ok=True)
        does = f"exec {shlex.quote(sys.executable)} -I -m rotomem" if says is None else _saying(shlex.quote(says))
        command.write_text(f'#!/bin/sh\necho $$ > {shlex.quote(f"{command}.pid")}\n{does} "$@"\n', encoding="utf-8")
        command.chmod(0o755)
        return str(command)


def _saying(word: str) -> str:
    """Shell that says a line to whoever asks: through the pipe, or into the job's folder."""
    return f'echo {word}; [ "$2" = --job ] && echo {word} > "$3/events.jsonl"; :'


Check = Callable[[Adapter, Rig], None]

ODD = "a shot 'é\" $HOME [x] {y}; \\n"
"""A folder's name that no quoting must break."""


def odd_names(adapter: Adapter, rig: Rig) -> None:
    """Names and paths with everything in them arrive as they are; keys come out exactly as drawn."""
    objects = {"hero / 1": 20, 'O\'Brien "x" $a [é]': 50}
    shot = rig.shot(ODD, objects)
    run = _to_the_end(adapter.track(shot, rig.engine()))
    _expect(run.state == "done", f"the run ended as {run.state}: {run.text}", "quote nothing; pass texts as they are")
    for frame in range(shot.frames[0], shot.frames[1] + 1):
        shown = run.mattes(frame)
        _expect(set(shown) == set(objects), f"frame {frame} shows {sorted(shown)}", f"show {sorted(objects)}")
        for name, (path, channel) in shown.items():
            try:
                alpha = read_still(path, channels=[channel]).arrays[channel].astype(np.float32)
            except RotomemError as error:
                raise HostError(
                    f"the matte of {name} cannot be read: {error}", remedy="load what was written"
                ) from None
            if frame in shot.keys[name]:
                drawn = read_still(shot.keys[name][frame], channels=["A"]).arrays["A"].astype(np.float32)
                off = float(np.abs(alpha - drawn).max())
                _expect(
                    off == 0, f"the key of {name} comes out {off:.3g} off what was drawn", "write it linear, unscaled"
                )
    run.close()


def progress(adapter: Adapter, rig: Rig) -> None:
    """The bar moves, never back, and arrives; the panel says something meanwhile."""
    run, seen, said = adapter.track(rig.shot("shot", {"hero": 20}, 16), rig.engine()), [], set()
    until = time.monotonic() + _LIMIT_S
    while run.state == "running" and time.monotonic() < until:
        run.turn()
        seen.append(run.progress)
        said.add(run.text)
        time.sleep(0.005)
    _expect(run.state == "done", f"the run ended as {run.state}: {run.text}", "give the engine what it asks for")
    _expect(seen == sorted(seen), "the bar went back", "show done/total of the last progress event")
    between = {p for p in seen if 0 < p < 1}
    _expect(len(between) >= 2, "the bar did not move while frames were made", "poll the engine from the timer")
    _expect(run.progress == 1, f"the bar ends at {run.progress:g}", "show 1 when the job is done")
    _expect(len(said - {""}) >= 3, "the panel said nothing of it", "show the job's message")
    run.close()


def cancel(adapter: Adapter, rig: Rig) -> None:
    """Cancel is honoured within a frame, and what was written is whole."""
    shot = rig.shot("shot", {"hero": 20}, 60)
    run = adapter.track(shot, rig.engine())
    began = _until(run, lambda: run.progress > 0)
    _until(run, lambda: run.progress > 0.05)
    a_frame_s = (time.monotonic() - began) / 3
    run.cancel()
    pressed = time.monotonic()
    _to_the_end(run)
    took = time.monotonic() - pressed
    _expect(run.state == "cancelled", f"a cancelled run ended as {run.state}", "send the engine `cancel`")
    _expect(bool(run.text), "the panel does not say that it was cancelled", "say that mattes made so far are whole")
    _expect(took < 1 + 3 * a_frame_s, f"cancel took {took:.1f} s", "send it at once, from the button")
    given = {Path(shot.plate % f) for f in range(shot.frames[0], shot.frames[1] + 1)}
    given |= {path for keys in shot.keys.values() for path in keys.values()}
    for path in shot.folder.rglob("*.exr"):
        if path not in given:
            read_still(path)
    run.close()


def engine_missing(adapter: Adapter, rig: Rig) -> None:
    """No engine: the panel names the path that was chosen, and says what to do."""
    wanted = str(rig.folder / "no" / "rotomem")
    run = _to_the_end(adapter.track(rig.shot("shot", {"hero": 20}), wanted))
    _expect(run.state == "error", f"without an engine the run ended as {run.state}", "find the engine first")
    _says(run, wanted, "choose")
    run.close()


def other_version(adapter: Adapter, rig: Rig) -> None:
    """An engine that speaks another protocol: the panel says which of both is to be updated."""
    for theirs, update in ((PROTOCOL + 1, "update the plug-in"), (PROTOCOL - 1, "update rotomem")):
        says = f'{{"event": "hello", "protocol": {theirs}, "version": "7.7"}}'
        run = _to_the_end(adapter.track(rig.shot(f"shot{theirs}", {"hero": 20}), rig.engine(says)))
        _expect(run.state == "error", f"with another protocol the run ended as {run.state}", "read the hello")
        _says(run, "7.7", update)
        run.close()


def killed_worker(adapter: Adapter, rig: Rig) -> None:
    """An engine that dies: the panel says so and what is left; the next press starts another."""
    command = rig.engine()
    shot = rig.shot("shot", {"hero": 20}, 60)
    run = adapter.track(shot, command)
    _until(run, lambda: run.progress > 0)
    os.kill(int(Path(f"{command}.pid").read_text()), signal.SIGKILL)
    _to_the_end(run)
    _expect(run.state == "error", f"with its engine killed the run ended as {run.state}", "watch the engine's end")
    _says(run, "ended", "start again")
    run.close()
    again = _to_the_end(adapter.track(rig.shot("again", {"hero": 20}), command))
    _expect(again.state == "done", f"the next run ended as {again.state}: {again.text}", "start another engine")
    again.close()


def two_hosts(adapter: Adapter, rig: Rig) -> None:
    """Another host works at the same time; neither knows of the other."""
    mine, theirs = rig.shot("mine", {"hero": 20}, 12), rig.shot("theirs", {"hero": 50}, 12)
    with Engine([rig.engine()]) as other:
        run = adapter.track(mine, rig.engine())
        masks = [f"{name}@{frame}={path}" for name, keys in theirs.keys.items() for frame, path in keys.items()]
        job = other.submit(
            "track", plate=theirs.plate, masks=masks, out=str(theirs.folder / "out"), options=theirs.options
        )
        _to_the_end(run)
        other.wait(job, _LIMIT_S)
    _expect(run.state == "done", f"beside another host the run ended as {run.state}: {run.text}", "share nothing")
    _expect(
        job.state == "done", f"the other host's job ended as {job.state}: {job.message}", "leave its engine alone"
    )
    run.close()


def imports(adapter: Adapter, rig: Rig) -> None:
    """Nothing is imported but the standard library, the host's own and the adapter's own; its Python reads it."""
    files = sorted(adapter.folder.rglob("*.py"))
    own = {p.stem for p in files} | {p.name for p in adapter.folder.rglob("*") if p.is_dir()}
    allowed = set(sys.stdlib_module_names) | set(adapter.modules) | own
    for file in files:
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"), str(file), feature_version=adapter.python)
        except SyntaxError as error:
            version = ".".join(map(str, adapter.python))
            raise HostError(
                f"Python {version} cannot read it: {error}", remedy="write it plainer", path=file
            ) from None
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module or "")
            foreign = sorted({name.split(".")[0] for name in names} - allowed)
            _expect(not foreign, f"{file.name} imports {', '.join(foreign)}", "let the engine do it", path=file)


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (odd_names, progress, cancel, engine_missing, other_version, killed_worker, two_hosts, imports)
}


# Helpers ------------------------------------------------------------------------------------------------------


def _expect(holds: bool, what: str, remedy: str, **context: object) -> None:
    if not holds:
        raise HostError(what, remedy=remedy, **context)


def _says(run: Run, *wanted: str) -> None:
    for text in wanted:
        _expect(text.lower() in run.text.lower(), f"the panel says {run.text!r}", f"let it say {text!r}")


def _to_the_end(run: Run) -> Run:
    _until(run, lambda: run.state != "running")
    return run


def _until(run: Run, holds: Callable[[], bool]) -> float:
    """Turn the host's loop until it holds, or the run has ended; the time then."""
    until = time.monotonic() + _LIMIT_S
    while not holds() and run.state == "running":
        _expect(time.monotonic() < until, f"nothing happens: {run.text!r}", "let the timer call the engine's poll")
        run.turn()
        time.sleep(0.005)
    return time.monotonic()


def _disc(x: float, radius: float = 9) -> NDArray[np.float32]:
    """Coverage [H, W] with a soft edge, exact in half."""
    yy, xx = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    alpha = np.clip(radius - np.hypot(yy - HEIGHT / 2, xx - x) + 0.5, 0, 1)
    return (np.round(alpha * 64) / 64).astype(np.float32)


def _write(path: Path, pixels: NDArray[np.float32]) -> None:
    """Write [H, W, C] as a HALF EXR: RGB, or A."""
    height, width, count = pixels.shape
    spec = oiio.ImageSpec(width, height, count, oiio.HALF)
    if count == 1:
        spec.channelnames = ("A",)
    image = oiio.ImageBuf(spec)
    image.set_pixels(image.roi, np.ascontiguousarray(pixels))
    if not image.write(str(path)):
        raise HostError(f"the shot cannot be written: {image.geterror()}", remedy="choose another folder", path=path)
