"""The self test of `rotomem hosts doctor`, in a real Blender."""

from __future__ import annotations

from pathlib import Path

from engine.shots import checkpoint
from rotomem.host.doctor import blender_self_test

from .conftest import NEWEST, installed


def blender_command(folder: Path) -> str:
    """A command that takes `-b --factory-startup --python FILE` as Blender does, made of the wheel."""
    python, bpy = installed(NEWEST)
    code = f"import sys, runpy; sys.path.insert(0, {str(bpy)!r}); runpy.run_path(sys.argv[-1])"
    command = folder / "blender"
    (folder / "blender.py").write_text(code)
    command.write_text(f'#!/bin/sh\nexec {python} -I {folder / "blender.py"} "$@"\n')
    command.chmod(0o755)
    return str(command)


def test_self_test_when_the_engine_works_then_it_passes_and_when_not_then_it_says_why(tmp_path: Path) -> None:
    program, model = blender_command(tmp_path), checkpoint(tmp_path)
    said = blender_self_test(program, tmp_path / "a b", {"model": model, "size": 32})
    assert said == "PASSED 4 mattes: rotomem square"
    said = blender_self_test(program, tmp_path / "c", {"model": "no-such-model", "size": 32})
    assert said.startswith("FAILED") and "no-such-model" in said
