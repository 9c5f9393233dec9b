"""A real Blender: the `bpy` wheel, in an environment of its own that is kept between runs.

It lies in $XDG_CACHE_HOME/rotomem (default ~/.cache/rotomem), 0.9 GB, and is downloaded once, some 350 MB.
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

BPY = "5.0.1"  # its wheel is for Python 3.11 alone
HERE = Path(__file__).resolve().parent

Blender = Callable[..., Any]


def installed() -> Path:
    """The folder that holds bpy and what it needs; skips the test where it cannot be had."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip(f"bpy {BPY} is for Python 3.11, this is {sys.version_info.major}.{sys.version_info.minor}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rotomem"
    folder = cache / f"bpy-{BPY}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="bpy-") as half:
        target = Path(half) / "whole"
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(target), f"bpy=={BPY}"]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"bpy {BPY} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        if not folder.is_dir():  # another process may have been faster
            shutil.move(target, folder)
    return folder


@pytest.fixture(scope="session")
def blender() -> Blender:
    """`blender("script.py", **arguments)` runs a script of this folder; returns the JSON it prints last."""
    folder = installed()

    def run(script: str, **arguments: Any) -> Any:
        code = f"import sys; sys.path.insert(0, {str(folder)!r}); import runpy; runpy.run_path(sys.argv[1])"
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, str(HERE / script), json.dumps(arguments)],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run
