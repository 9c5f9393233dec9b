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

VERSIONS = ("4.2.23", "4.5.15", "5.0.1")  # whose wheels are for Python 3.11 alone
NEWEST = VERSIONS[-1]
HERE = Path(__file__).resolve().parent

Blender = Callable[..., Any]


def installed(version: str) -> Path:
    """The folder that holds bpy and what it needs; skips the test where it cannot be had."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip(f"bpy {version} is for Python 3.11, this is {sys.version_info.major}.{sys.version_info.minor}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rotomem"
    folder = cache / f"bpy-{version}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="bpy-") as half:
        target = Path(half) / "whole"
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(target), f"bpy=={version}"]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"bpy {version} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        if not folder.is_dir():  # another process may have been faster
            shutil.move(target, folder)
    return folder


@pytest.fixture(scope="session")
def blender() -> Blender:
    """`blender("script.py", **arguments)` runs a script of this folder in the newest; the JSON it prints last."""
    return _runner(NEWEST)


@pytest.fixture(scope="session", params=VERSIONS)
def every_blender(request: pytest.FixtureRequest) -> Blender:
    """The same in every version that we claim to work in and that has a wheel."""
    return _runner(request.param)


def _runner(version: str) -> Blender:
    folder = installed(version)

    def run(script: str, **arguments: Any) -> Any:
        code = f"import sys; sys.path.insert(0, {str(folder)!r}); import runpy; runpy.run_path(sys.argv[1])"
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, str(HERE / script), json.dumps(arguments)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run
