"""The modal operator in a Blender that has windows and an event loop: the one of the system, under Xvfb."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.shots import checkpoint, plate, soft_key
from rotomem.host.install import assemble
from rotomem.io.exr import read_still

from .test_extension import engine

XVFB = ("xvfb-run", "-a", "-s", "-screen 0 1280x800x24")
HERE = Path(__file__).resolve().parent


@pytest.mark.skipif(
    not (shutil.which("blender") and shutil.which("xvfb-run")),
    reason="no Blender with windows here: apt-get install blender xvfb xauth",
)
def test_panel_when_track_and_cancel_are_pressed_then_the_interface_stays_alive(tmp_path: Path) -> None:
    adapter = assemble("blender", tmp_path / "scripts" / "addons" / "rotomem")
    # Blenders before 4.2 know no extensions and want this.
    with (adapter / "__init__.py").open("a") as file:
        file.write('\nbl_info = {"name": "rotomem", "blender": (3, 4, 0), "category": "Compositing"}\n')
    panel = adapter / "panel.py"
    panel.write_text(panel.read_text().replace('bl_category = "rotomem"', 'bl_category = "Footage"'))
    told = {
        "plate": plate(tmp_path / "plate", range(1001, 1041)),
        "frames": [1001, 1040],
        "key": soft_key(tmp_path, 1001).partition("=")[2],
        "out": str(tmp_path / "out"),
        "engine": str(engine(tmp_path)),
        "model": checkpoint(tmp_path),
        "picture": str(tmp_path / "panel.png"),
        "said": str(tmp_path / "said.json"),
    }
    done = subprocess.run(
        [*XVFB, "blender", "--factory-startup", "--python", str(HERE / "use_window.py")],
        env={
            **os.environ,
            "TOLD": json.dumps(told),
            "BLENDER_USER_SCRIPTS": str(tmp_path / "scripts"),
            "LIBGL_ALWAYS_SOFTWARE": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert Path(told["said"]).exists(), done.stdout[-2000:] + done.stderr[-2000:]
    said = json.loads(Path(told["said"]).read_text())
    assert "trouble" not in said, said
    assert "Traceback" not in done.stdout + done.stderr, done.stderr[-2000:]
    first, second = said["runs"]
    assert first["pressed"] == second["pressed"] == ["RUNNING_MODAL"] and said["cancelled"] == ["FINISHED"]
    assert "40 mattes" in second["message"] and "Cancelled" in first["message"]
    assert said["turns"] > 10 and said["longest_s"] < 3
    mattes = sorted((tmp_path / "out" / "mattes").glob("*.exr"))
    assert len(mattes) == 40 and all(read_still(m).header for m in mattes)
    assert read_still(told["picture"]).header.display_window.width > 600
