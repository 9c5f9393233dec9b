"""A real Blender: the `bpy` wheel, in an environment of its own that is kept between runs.

It lies in $XDG_CACHE_HOME/rotomem (default ~/.cache/rotomem), 0.9 GB a version, and is downloaded once, some 350 MB.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

VERSIONS = {"4.2.23": "3.11", "4.5.15": "3.11", "5.0.1": "3.11", "5.2.3": "3.13"}
"""Version -> the one Python that its wheel is for."""

NEWEST = "5.0.1"  # of those for the Python that the suite is run with most
HERE = Path(__file__).resolve().parent

Blender = Callable[..., Any]


def python_of(version: str) -> str:
    """The Python that a version's wheel is for; skips the test where there is none."""
    wanted = VERSIONS[version]
    if wanted == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{wanted}")
    # pyenv has a command for every Python it ever had; most of them only say that it is not chosen.
    if found is None or subprocess.run([found, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip(f"bpy {version} is for Python {wanted}, and there is no python{wanted} with pip here")
    return found


def installed(version: str) -> tuple[str, Path]:
    """A Python, and the folder that holds bpy and what it needs; skips the test where they cannot be had."""
    python = python_of(version)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rotomem"
    folder = cache / f"bpy-{version}"
    if folder.is_dir():
        return python, folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="bpy-") as half:
        target = Path(half) / "whole"
        pip = [python, "-m", "pip", "install", "-q", "--target", str(target), f"bpy=={version}"]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"bpy {version} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        if not folder.is_dir():  # another process may have been faster
            shutil.move(target, folder)
    return python, folder


@pytest.fixture(scope="session")
def blender() -> Blender:
    """`blender("script.py", **arguments)` runs a script of this folder in the newest; the JSON it prints last."""
    return _runner(NEWEST)


@pytest.fixture(scope="session", params=VERSIONS)
def every_blender(request: pytest.FixtureRequest) -> Blender:
    """The same in every version that we claim to work in and that has a wheel."""
    return _runner(request.param)


def command(version: str, script: str, **arguments: Any) -> list[str]:
    """The command that runs a script of this folder in a version; skips the test where that cannot be had."""
    python, folder = installed(version)
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import runpy; runpy.run_path(sys.argv[1])"
    return [python, "-I", "-c", code, str(HERE / script), json.dumps(arguments)]


def _runner(version: str) -> Blender:
    installed(version)

    def run(script: str, **arguments: Any) -> Any:
        done = subprocess.run(command(version, script, **arguments), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run
