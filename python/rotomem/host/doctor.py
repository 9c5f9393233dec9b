"""Which hosts are on this machine, whether their adapters are there and current, and whether they work."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rotomem.host import client
from rotomem.host.client import Engine, EngineError, find_engine
from rotomem.host.install import adapters_folder, blender_zip, resolve_folder

_OLDEST_BLENDER = (4, 2)
_SELF_TEST_S = 300.0


@dataclass(frozen=True)
class Place:
    """A machine: where to look. For tests, another one than this.

    root   what stands above /opt, /Applications, C:\\Program Files
    path   folders where commands are
    """

    platform: str = sys.platform
    home: Path = field(default_factory=Path.home)
    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def settings(self) -> Path:
        """Where programs keep what is a user's."""
        if self.platform == "win32":
            return Path(self.environ.get("APPDATA") or self.home / "AppData" / "Roaming")
        return self.home / ("Library/Application Support" if self.platform == "darwin" else ".config")

    def programs(self, linux: str, mac: str, windows: str) -> list[Path]:
        """What lies where installers put it: patterns of this system, several with `|` between."""
        patterns = {"darwin": mac, "win32": windows}.get(self.platform, linux)
        found = []
        for pattern in patterns.split("|"):
            below = self.home if pattern.startswith("~/") else self.root
            found += sorted(below.glob(pattern.removeprefix("~/")))
        return [p for p in found if p.is_file()]

    def commands(self, name: str) -> list[Path]:
        """A command on the PATH."""
        found = shutil.which(name, path=self.environ.get("PATH", ""))
        return [Path(found)] if found else []


@dataclass(frozen=True)
class Finding:
    """A host that is installed, or the engine.

    what      "engine", "blender", "nuke", "resolve"
    version   "" where it cannot be told without starting it
    program   what is started
    adapter   where ours lies, None where it is not installed
    state     "ok", "to do" (see `todo`), or "failed"
    todo      what to do, "" where nothing
    test      what was tried and came out, "" where nothing was tried
    """

    what: str
    version: str
    program: str
    adapter: str | None = None
    state: str = "ok"
    todo: str = ""
    test: str = ""


def examine(place: Place | None = None, *, test: bool = True) -> list[Finding]:
    """The engine, then every host found.

    test   run the self test of hosts that can do it without a licence: Blender, in a scratch profile
    """
    place = place or Place()
    findings = [_engine()]
    for finding in (*_blenders(place), *_nukes(place), *_resolves(place)):
        runs = test and finding.what == "blender" and _version(finding.version) >= _OLDEST_BLENDER
        findings.append(_tested(finding) if runs else finding)
    return findings


def blender_self_test(program: str, folder: Path, settings: Mapping[str, object] | None = None) -> str:
    """Install the extension into a profile in `folder`, draw a mask, track; the last line that Blender says of it.

    settings   of the panel: model, size
    """
    (folder / "shot").mkdir(parents=True)
    told = {
        "zip": str(blender_zip(folder)),
        "engine": _own_command(folder),
        "folder": str(folder / "shot"),
        "settings": dict(settings or {"size": 64}),
    }
    script = adapters_folder() / "blender" / "selftest.py"
    environ = {
        **client.clean_environment(),
        "BLENDER_USER_RESOURCES": str(folder / "profile"),
        "ROTOMEM_SELF_TEST": json.dumps(told),
    }
    try:
        done = subprocess.run(
            [program, "-b", "--factory-startup", "--python", str(script)],
            env=environ,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SELF_TEST_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"FAILED {error}"
    said = [line for line in done.stdout.splitlines() if line.startswith(("PASSED", "FAILED"))]
    return said[-1] if said else f"FAILED Blender ended with {done.returncode}: {(done.stderr.strip() or '?')[-300:]}"


def _own_command(folder: Path) -> str:
    """This very rotomem as a command, even where the host runs in the same Python."""
    if os.name == "nt":
        return sys.executable
    command = folder / "rotomem"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rotomem "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return str(command)


def _engine() -> Finding:
    command = [sys.executable, "-I", "-m", "rotomem"]
    try:
        with Engine(command) as engine:
            job = engine.wait(engine.submit("load", options={}), 120)
            version, message, model = engine.version, job.message, (job.result or {}).get("model")
    except EngineError as error:
        return Finding("engine", "", sys.executable, state="failed", todo=str(error))
    if job.state != "done" or model is None:
        return Finding("engine", version, sys.executable, state="failed", todo=message)
    from rotomem.ops import backend

    try:
        found = f"hosts find it: {find_engine()[0]}"
    except EngineError:
        found = "hosts do not find it by themselves: set it in their preferences"
    told = f"{model['name']} on {model['device']} in {model['dtype']}; kernels: {backend.explain()}; {found}"
    return Finding("engine", version, sys.executable, test=told)


def _tested(finding: Finding) -> Finding:
    with tempfile.TemporaryDirectory(prefix="rotomem_doctor_") as scratch:
        said = blender_self_test(finding.program, Path(scratch))
    if said.startswith("PASSED"):
        return replace(finding, test=said)
    return replace(finding, state="failed", test=said, todo=f"this Blender cannot track: {said}")


# The hosts ----------------------------------------------------------------------------------------------------


def _blenders(place: Place) -> Iterable[Finding]:
    programs = place.programs(
        "opt/blender*/blender|usr/local/blender*/blender|snap/bin/blender|~/blender*/blender",
        "Applications/Blender*.app/Contents/MacOS/Blender|~/Applications/Blender*.app/Contents/MacOS/Blender",
        "Program Files/Blender Foundation/Blender */blender.exe",
    )
    for program in _apart([*place.commands("blender"), *programs]):
        version = _asked(program, "--version", r"Blender (\d+\.\d+\.\d+)")
        if not version:
            yield Finding("blender", "", str(program), state="failed", todo="it does not tell its version")
            continue
        if _version(version) < _OLDEST_BLENDER:
            yield Finding("blender", version, str(program), state="to do", todo="the extension needs Blender 4.2")
            continue
        short = ".".join(version.split(".")[:2])
        user = place.environ.get("BLENDER_USER_RESOURCES")
        name = "Blender" if place.platform == "darwin" else "Blender Foundation/Blender"
        name = name if place.platform in ("darwin", "win32") else "blender"
        profile = Path(user) if user else place.settings / name / short
        adapters = sorted((profile / "extensions").glob("*/rotomem/client.py"))
        todo = "rotomem hosts install blender, then Edit > Preferences > Add-ons > Install from Disk"
        yield _with_adapter(Finding("blender", version, str(program)), adapters, todo)


def _nukes(place: Place) -> Iterable[Finding]:
    programs = place.programs(
        "usr/local/Nuke*/Nuke*|opt/Nuke*/Nuke*|~/Nuke*/Nuke*",
        "Applications/Nuke*/Nuke*.app/Contents/MacOS/Nuke*",
        "Program Files/Nuke*/Nuke*.exe",
    )
    programs = [p for p in programs if re.fullmatch(r"Nuke\d+\.\d+(v\d+)?(\.exe)?", p.name)]
    folders = [Path(p) for p in place.environ.get("NUKE_PATH", "").split(os.pathsep) if p]
    adapters = [
        client_file
        for folder in (place.home / ".nuke", place.home / ".nuke" / "rotomem", *folders)
        for client_file in (folder / "rotomem_nuke" / "client.py", folder / "rotomem" / "rotomem_nuke" / "client.py")
        if client_file.is_file()
    ]
    for program in _apart([*place.commands("nuke"), *programs]):
        found = re.search(r"Nuke(\d+\.\d+(?:v\d+)?)", str(program.resolve()))
        version = found[1] if found else ""
        yield _with_adapter(Finding("nuke", version, str(program)), adapters, "rotomem hosts install nuke")


def _resolves(place: Place) -> Iterable[Finding]:
    programs = place.programs(
        "opt/resolve/bin/resolve",
        "Applications/DaVinci Resolve*/DaVinci Resolve.app/Contents/MacOS/Resolve",
        "Program Files/Blackmagic Design/DaVinci Resolve/Resolve.exe",
    )
    user = resolve_folder(place.platform, place.home, place.environ)
    adapters = sorted(user.glob("Modules/Python/rotomem*/client.py"))
    for program in _apart(programs):
        yield _with_adapter(Finding("resolve", "", str(program)), adapters, "rotomem hosts install resolve")


def _with_adapter(finding: Finding, clients: Iterable[Path], todo: str) -> Finding:
    """Say whether an adapter is there, and whether the client that it carries is this rotomem's."""
    found = next(iter(clients), None)
    if found is None:
        return replace(finding, state="to do", todo=todo)
    current = found.read_bytes() == Path(client.__file__).read_bytes()
    todo = "" if current else f"the adapter is of another rotomem: {todo}"
    return replace(finding, adapter=str(found.parent), state="ok" if current else "to do", todo=todo)


def _apart(programs: Iterable[Path]) -> list[Path]:
    """Each program once, however many links lead to it."""
    by_file: dict[Path, Path] = {}
    for program in programs:
        by_file.setdefault(program.resolve(), program)
    return list(by_file.values())


def _asked(program: Path, option: str, pattern: str) -> str:
    try:
        done = subprocess.run([str(program), option], capture_output=True, text=True, errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(pattern, done.stdout)
    return found[1] if found else ""


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text)[:2])
