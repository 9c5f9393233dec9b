"""How far a run is: a bar for people, lines for farms."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rotomem.engine.report import Progress

STYLES = ("auto", "bar", "lines", "openjd", "none")


def size_text(size: float) -> str:
    """Bytes as people say them: `20 KiB`, `312 MiB`, `1.4 GiB`."""
    if size < 2**20:
        return f"{size / 2**10:.0f} KiB"
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def make_progress(style: str, stream: TextIO) -> Reporter:
    """The reporter for a style; "auto" is a bar on a terminal, else lines."""
    if style == "auto":
        style = "bar" if stream.isatty() else "lines"
    return {"bar": Bar, "lines": Lines, "openjd": OpenJobDescription, "none": Reporter}[style](stream)


class Reporter:
    """Says nothing; the base of those who do. A context manager, called with every Progress."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self.stream = stream

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, progress: Progress) -> None:
        pass


class Lines(Reporter):
    """`Frame 1042 (42/100)` and `Progress: 42%`, a line each: what render farms look for."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        super().__init__(stream)
        self._last_said = 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.doing == "track":
            self.say(
                f"Frame {progress.frame} ({progress.done}/{progress.total})"
                f"  {progress.fps:.2f} fps  {size_text(progress.memory_bytes)}"
            )
            self.say(f"Progress: {100 * progress.done // max(progress.total, 1)}%")
        elif time.monotonic() - self._last_said > 10:
            # Frames that exist are looked at again for the memory's sake; a farm must see that we live.
            self._last_said = time.monotonic()
            self.say(f"Remembering frame {progress.frame}  {progress.fps:.2f} fps")

    def say(self, line: str) -> None:
        """A line, at once: a farm reads along."""
        print(line, file=self.stream, flush=True)


class OpenJobDescription(Lines):
    """The same in the words of Open Job Description (`openjd_progress: 42.0`)."""

    def __call__(self, progress: Progress) -> None:
        if progress.doing == "track":
            self.say(f"openjd_progress: {100 * progress.done / max(progress.total, 1):.1f}")
            self.say(f"openjd_status: Frame {progress.frame} ({progress.done}/{progress.total})")
        else:
            super().__call__(progress)


class Bar(Reporter):
    """A bar with frames, speed, memory and the time left."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        super().__init__(stream)
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[memory]}"),
            TimeRemainingColumn(),
            console=Console(file=stream),
            transient=False,
        )
        self._task: Any = None

    def __enter__(self) -> Reporter:
        self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rich.stop()

    def __call__(self, progress: Progress) -> None:
        if self._task is None:
            self._task = self._rich.add_task("", total=progress.total, speed="", memory="")
        self._rich.update(
            self._task,
            description=f"{'frame' if progress.doing == 'track' else 'recall'} {progress.frame}",
            completed=progress.done,
            speed=f"{progress.fps:.2f} fps",
            memory=size_text(progress.memory_bytes),
        )
