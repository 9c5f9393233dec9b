"""One run at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from rotomem.errors import ProjectError
from rotomem.project.lock import locked

HOLD = """
import pathlib, sys
from rotomem.project.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_lock_when_another_process_holds_it_then_that_is_named_and_when_it_dies_it_is_taken_over(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout and other.stdout.readline()
    with pytest.raises(ProjectError, match="another run") as caught, locked(tmp_path):
        pass
    assert caught.value.context["pid"] == other.pid and caught.value.context["host"]
    other.kill()
    other.wait()
    other.stdout.close()
    assert other.stdin
    other.stdin.close()
    with locked(tmp_path):  # nobody tidied up after it
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        with pytest.raises(ProjectError), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass
