"""What an artist writes into the Objects knob, as objects."""

from __future__ import annotations

import re
from typing import NamedTuple

CHANNEL = "rgba.alpha"

_LINE = re.compile(r"(?P<name>[^=@]+?)\s*(?:=\s*(?P<source>.+?))?\s*(?:@\s*(?P<frames>[-\d\s,x]*))?$")
_FRAMES = re.compile(r"(-?\d+)(?:-(-?\d+)(?:x(\d+))?)?$")


class HostProblem(Exception):
    """Something the artist has to put right; the text says what."""


class Thing(NamedTuple):
    """One object: its name, where its keys come from ("" the mask's alpha), its key frames (None: look for them)."""

    name: str
    source: str
    frames: list[int] | None

    @property
    def is_file(self) -> bool:
        return "/" in self.source or "\\" in self.source


def read_objects(text: str) -> list[Thing]:
    """The lines of the knob. Raises HostProblem naming the line."""
    things = []
    for line in filter(None, map(str.strip, text.splitlines())):
        found = _LINE.match(line)
        if not found:
            raise HostProblem(
                f"Objects: {line!r} is not NAME = SOURCE @ FRAMES, such as: hero = rgba.alpha @ 1001 1050"
            )
        written = found["frames"]
        frames = read_frames(written) if written and written.strip() else None
        things.append(Thing(found["name"].strip(), (found["source"] or "").strip(), frames))
    names = [thing.name for thing in things]
    if not things:
        raise HostProblem("Objects: no object. Write a name, such as: hero")
    for name in names:
        if names.count(name) > 1:
            raise HostProblem(
                f"Objects: two lines are called {name!r}. Rename one, or give all its frames in one line."
            )
    return things


def read_frames(text: str) -> list[int]:
    """`1001, 1050 1060-1070x5` as ascending frames. Raises HostProblem."""
    frames: set[int] = set()
    for word in text.replace(",", " ").split():
        found = _FRAMES.match(word)
        if not found:
            raise HostProblem(f"Objects: {word!r} is no frame. Frames are such as 1001 1050 1060-1070x5.")
        first = int(found[1])
        frames.update(range(first, int(found[2] or first) + 1, int(found[3] or 1) or 1))
    return sorted(frames)


def frame_of(path: str) -> int | None:
    """The frame number at the end of a file's name, or None."""
    found = re.search(r"(\d+)\.\w+$", path)
    return int(found[1]) if found else None


def numbered(path: str) -> bool:
    """Whether a path has a place for the frame number: %04d, ####."""
    return bool(re.search(r"%0?\d*d|#+", path.replace("\\", "/").rpartition("/")[2]))


def file_of(path: str, frame: int) -> str:
    """The path of one frame."""
    head, slash, name = path.rpartition("/")
    name = re.sub(r"%0?(\d*)d", lambda found: f"{frame:0{int(found[1] or 1)}d}", name)
    return head + slash + re.sub(r"#+", lambda found: f"{frame:0{len(found[0])}d}", name)
