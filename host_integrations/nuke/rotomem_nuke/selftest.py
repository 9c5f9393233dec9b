"""The whole way on a small shot of Nuke's own, told in a file that can be sent to whoever helps."""

from __future__ import annotations

import os
import platform
import tempfile
import time
import traceback
from typing import Callable

import nuke

from . import host, panel, run
from .objects import HostProblem

COUNT = 4
SIZE = (192, 108)


def self_test(folder: str | None = None) -> str:
    """Do it, and return the path of the report; its last line is PASSED or FAILED. Blocks for some seconds.

    folder   where to work; None: a new one among the temporary files
    """
    folder = folder or tempfile.mkdtemp(prefix="rotomem_self_test_")
    report = os.path.join(folder, "report.txt")
    lines = [
        f"rotomem in Nuke {nuke.NUKE_VERSION_STRING}, Python {platform.python_version()}, {platform.platform()}",
        f"interface: {nuke.GUI}, colour management: {nuke.root()['colorManagement'].value()}",
    ]
    made: list[nuke.Node] = []
    passed = True
    for name, step in _steps(folder.replace("\\", "/"), made):
        began = time.monotonic()
        try:
            said = step()
        except Exception as error:
            passed, said = False, f"FAILED: {error}"
            if not isinstance(error, HostProblem):
                said += "\n" + traceback.format_exc()
        lines.append(f"{name} ({time.monotonic() - began:.2f} s): {said}")
        if not passed:
            break
    for node in reversed(made):
        nuke.delete(node)
    lines.append("PASSED" if passed else "FAILED")
    with open(report, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    if nuke.GUI:
        nuke.message(panel._shown("\n".join([*lines[-3:], report])))
    return report


def _steps(folder: str, made: list[nuke.Node]) -> list[tuple[str, Callable[[], str]]]:
    first = nuke.frame()  # so that the node can be looked at where the artist is
    last = first + COUNT - 1

    def engine() -> str:
        return run.check_engine("")

    def plate() -> str:
        nuke.addFormat(f"{SIZE[0]} {SIZE[1]} rotomem_self_test")
        checks = nuke.nodes.CheckerBoard2()
        made.append(checks)
        checks["format"].setValue("rotomem_self_test")
        path = f"{folder}/plate/plate.%04d.exr"
        host.write_frames(checks, path, list(range(first, last + 1)), "", channels="rgb")
        read = host.make_read(host.Sequence(path, first, last), "rotomem_test_plate", 0, 0)
        made.append(read)
        return f"{path}, read back as {read.width()}x{read.height()}"

    def node() -> str:
        mask = nuke.nodes.Rectangle()
        made.append(mask)
        mask["area"].setValue([SIZE[0] * 0.25, SIZE[1] * 0.25, SIZE[0] * 0.75, SIZE[1] * 0.75])
        mask.setInput(0, made[1])
        group = panel.create()
        made.append(group)
        group.setInput(0, made[1])
        group.setInput(1, mask)
        group["objects"].setValue(f"square @ {first}")
        group["folder"].setValue(folder)
        group["size"].setValue(96)
        return f"{group.name()} of {len(group.knobs())} knobs, mask {mask.width()}x{mask.height()}"

    def track() -> str:
        group = made[-1]
        began = time.monotonic()
        notes: list[str] = []
        work = host.work_of(group, "both")
        one = run.Run(group, work, "", lambda _, text: notes.append(text), lambda _: None)
        one._work(None, one._told)
        if one.problem:
            raise HostProblem(one.problem)
        sequences = [host.show(group, report, view) for view, report in one.reports][-1]
        return f"{sequences[0].path} {sequences[0].first}-{sequences[0].last} after {time.monotonic() - began:.2f} s"

    def output() -> str:
        group = made[-1]
        inside = nuke.sample(group, "rgba.alpha", SIZE[0] // 2, SIZE[1] // 2)
        outside = nuke.sample(group, "rgba.alpha", 4, 4)
        if not (inside > 0.5 > outside):
            raise HostProblem(f"the node's alpha is {inside:.3f} inside the square and {outside:.3f} outside")
        return f"alpha {inside:.3f} inside the square, {outside:.3f} outside"

    return [("engine", engine), ("plate", plate), ("node", node), ("track", track), ("output", output)]
