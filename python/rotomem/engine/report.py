"""What a run says of itself: progress while it runs, a report when it ends."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotomem.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_PARTLY, RotomemError

if TYPE_CHECKING:
    from rotomem.io.colour import TamedPixels

_TAMED = {
    "nan": "pixels with a NaN, seen by the network as black",
    "inf": "pixels with an infinity, seen by the network as white, a negative one as black",
    "negative": "pixels with a negative channel, seen by the network as 0",
}


@dataclass(frozen=True)
class Progress:
    """One frame further.

    frame        the number on disk
    done, total  frames whose matte is on disk, of those the run delivers
    doing        "track": the frame's matte was written; "remember": it was there already, the memory needed it
    fps          frames a second through the network, so far
    memory_bytes resident memory of the process now
    """

    frame: int
    done: int
    total: int
    doing: str
    fps: float
    memory_bytes: int


@dataclass
class Report:
    """The outcome of one `track`; plain values, so that `to_json` is complete.

    status          "done", "nothing to do", "dry run", "interrupted", "failed" (with `error`)
    exit_code       0 ok, 1 failed, 2 usage, 3 input missing, 4 partly done, 130 interrupted
    frames          asked, written, kept (whole and current before the run), missing (no plate), left: range texts;
                    after a dry run `left` is what the run would write
    files_existing  of the mattes to write, before the run
    outputs         the mattes of the first and the last frame
    also            kind ("crypto", "packed", ...) -> what goes beside them, of the same frames
    quality         the file of what is known of the mattes
    keys            frame -> names of the objects its key speaks for
    objects         name -> layer it is written as
    canvas, network_size   [width, height]
    regions         which windows of the plate the network saw, segment by segment; empty where nobody asked
    seconds         stage -> seconds the stage was busy, all threads; "wall" is the whole
    seconds_per_frame      the same over the frames that went through the network
    tamed           kind ("nan", "inf", "negative") -> pixels, frames, first frame: what plate pixels were made
                    harmless before the network
    """

    version: str = ""
    status: str = "failed"
    exit_code: int = EXIT_FAILED
    plate: str = ""
    out: str = ""
    model: str = ""
    weights: str = ""
    device: str = ""
    dtype: str = ""
    backend: str = ""
    frames: dict[str, str] = field(default_factory=dict)
    frames_asked: int = 0
    frames_written: int = 0
    frames_kept: int = 0
    files_existing: int = 0
    outputs: list[str] = field(default_factory=list)
    also: dict[str, list[str]] = field(default_factory=dict)
    quality: str = ""
    keys: dict[int, list[str]] = field(default_factory=dict)
    objects: dict[str, str] = field(default_factory=dict)
    colour: str = ""
    canvas: list[int] = field(default_factory=list)
    pixel_aspect: float = 1.0
    network_size: list[int] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    seconds_per_frame: dict[str, float] = field(default_factory=dict)
    fps: float = 0.0
    peak_memory_bytes: int = 0
    peak_gpu_memory_bytes: int = 0
    tamed: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: dict[str, str] | None = None

    def to_json(self) -> str:
        """The report as indented JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)

    def tell_tamed(self, by_frame: Mapping[int, TamedPixels]) -> None:
        """Sum up which plate pixels were made harmless before the network, and warn of them."""
        for kind, said in _TAMED.items():
            pixels = {frame: int(getattr(tamed, kind)) for frame, tamed in by_frame.items() if getattr(tamed, kind)}
            if pixels:
                total, count, first = sum(pixels.values()), len(pixels), min(pixels)
                self.tamed[kind] = {"pixels": total, "frames": count, "first_frame": first}
                on = f"on {count} frame{'s' if count > 1 else ''}, first on {first}"
                self.warnings.append(f"{total} {said}, {on}")

    def fail(self, error: BaseException) -> None:
        """Say that `error` ended the run: 4 where some frames were delivered, else the error's own exit code."""
        if isinstance(error, KeyboardInterrupt):
            self.status, self.exit_code = "interrupted", EXIT_INTERRUPTED
            return
        self.status = "failed"
        own = error.exit_code if isinstance(error, RotomemError) else EXIT_FAILED
        self.exit_code = EXIT_PARTLY if self.frames_written else own
        self.error = {"type": type(error).__name__, "message": str(error)}
        if isinstance(error, RotomemError):
            self.error.update({k: str(v) for k, v in error.context.items()})

    def attach(self, error: BaseException) -> None:
        """Make this the report of a run that `error` ended: it goes along as the error's `report`."""
        self.fail(error)
        error.report = self  # type: ignore[attr-defined]


def memory_bytes() -> int:
    """Resident memory of this process now; its peak where the system tells no more; 0 where nothing is known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return peak_memory_bytes()
    import resource

    return pages * resource.getpagesize()


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
