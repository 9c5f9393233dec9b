"""What the buttons do. Called in the main thread; what goes wrong is told in the node and, with an interface, asked
to be read. Without one (`nuke -t`) it is raised, so that a render script ends with it."""

from __future__ import annotations

import html
import os
from typing import Callable, TypeVar

import nuke

from . import host
from .client import EngineError
from .node import SCRIPT
from .objects import HostProblem
from .run import Run, check_engine, close_engine

T = TypeVar("T")

_runs: list[Run] = []


def create() -> nuke.Node:
    """A Rotomem node below what is selected, its panel open where there is an interface."""
    made = nuke.nodePaste(SCRIPT.replace("\\", "/"))
    if made is None:
        raise RuntimeError(f"Nuke could not read {SCRIPT}")
    if nuke.GUI:
        made.showControlPanel()
    return made


def track(node: nuke.Node, direction: str = "both", segment: bool = False) -> None:
    """Write the keys, and have the engine track them; with an interface this returns at once.

    direction   "both", "forward" or "backward"
    segment     only the frames between the two keys around the current frame
    """
    if _run_of(node) is not None:
        return _tell(node, "It tracks already. Cancel it first.")
    work = _tried(node, lambda: host.work_of(node, direction, segment))
    if work is None:
        return
    run = Run(node, work, _engine_of(node), _say, _end)
    _runs.append(run)
    run.start()


def cancel(node: nuke.Node) -> None:
    """Stop when the frame begun is whole."""
    run = _run_of(node)
    if run is None:
        return _say_on(node, "Nothing to cancel.")
    run.cancelled.set()
    _say_on(node, "stops when the frame begun is whole")


def clear(node: nuke.Node) -> None:
    """Let the plate through again; files stay."""
    with nuke.Undo():
        _tried(node, lambda: host.clear(node))
    _say_on(node, f"The plate goes through. Mattes stay in {_folder(node)}.")


def make_reads(node: nuke.Node) -> None:
    """A Read for every sequence that was written."""
    with nuke.Undo():
        reads = _tried(node, lambda: host.make_reads(node))
    if reads:
        _say_on(node, "Made " + ", ".join(read.name() for read in reads))


def render_plate(node: nuke.Node) -> None:
    """Render the plate input anew."""
    frames = _tried(node, lambda: host.render_plate(node))
    if frames is not None:
        _say_on(node, f"Rendered {frames} frames of the plate input.")


def check(node: nuke.Node) -> None:
    """Start the engine and say which one it is."""
    said = _tried(node, lambda: check_engine(_engine_of(node)))
    if said:
        _say_on(node, said)
        if nuke.GUI:
            nuke.message(_shown(said))


def release(node: nuke.Node) -> None:
    """End the engine, which frees the memory it holds; the next track starts it again."""
    said = _tried(node, close_engine)
    if said:
        _say_on(node, said)


# Said -----------------------------------------------------------------------------------------------------------


def _end(run: Run) -> None:
    _runs.remove(run)
    if not _there(run.node):  # deleted meanwhile; its files are on disk
        return
    problem, sequences = run.problem, []
    try:
        with nuke.Undo():
            for view, report in run.reports:
                sequences = host.show(run.node, report, view)
    except Exception as error:  # it would be lost in Nuke's own output
        problem = problem or f"The mattes are written, but not wired in: {error}"
    if problem:
        _tell(run.node, problem)
    elif run.cancelled.is_set():
        _say_on(run.node, "Cancelled. What was written is whole; track again to go on.")
    else:
        _say_on(run.node, _summary(run, sequences))


def _summary(run: Run, sequences: list[host.Sequence]) -> str:
    done = sum(report["frames_written"] for _, report in run.reports)
    kept = sum(report["frames_kept"] for _, report in run.reports)
    lines = [f"Done: {done} frames tracked" + (f", {kept} kept" if kept else "")]
    lines += [f"{one.path} {one.first}-{one.last}" for one in sequences]
    lines += [note for one in run.work for note in one.notes]
    lines += [warning for _, report in run.reports for warning in report["warnings"]]
    return "\n".join(lines)


def _say(run: Run, text: str) -> None:
    if _there(run.node):
        _say_on(run.node, text)
    else:  # nobody waits for this any more
        run.cancelled.set()


def _there(node: nuke.Node) -> bool:
    """Whether the node was not deleted."""
    try:
        node.name()
    except ValueError:
        return False
    return True


def _say_on(node: nuke.Node, text: str) -> None:
    node["status"].setValue(_shown(text))
    if not nuke.GUI:
        nuke.tprint(f"rotomem: {node.name()}: {text}")


def _tell(node: nuke.Node, text: str) -> None:
    _say_on(node, text)
    if not nuke.GUI:
        raise RuntimeError(text)
    nuke.message(_shown(text))


def _tried(node: nuke.Node, do: Callable[[], T | None]) -> T | None:
    try:
        return do()
    except (HostProblem, EngineError) as problem:
        _tell(node, str(problem))
    except OSError as problem:
        _tell(node, f"{problem.strerror}: {problem.filename}. Choose another output folder.")
    return None


def _shown(text: str) -> str:
    """A text for Nuke to show, which takes < for markup and [ for Tcl."""
    return html.escape(text.replace("[", "(").replace("]", ")"), quote=False).replace("\n", "<br>")


def _run_of(node: nuke.Node) -> Run | None:
    return next((run for run in _runs if _there(run.node) and run.node == node), None)


def _engine_of(node: nuke.Node) -> str:
    return str(node["engine"].value() or "")


def _folder(node: nuke.Node) -> str:
    try:
        return os.path.join(host.output_folder(node), "mattes")
    except HostProblem:
        return "their folder"
