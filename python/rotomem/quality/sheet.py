"""The contact sheet: a shot on one page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from rotomem.engine.geometry import to_network
from rotomem.quality.overlay import Colour, Picture, labelled, write_png

_PAPER = 0.075
_COLUMNS, _GAP, _FRAME = 6, 8, 3


def frames_to_show(frames: Sequence[int], always: Iterable[int], most: int) -> list[int]:
    """At most `most` frames in order: those wanted always (evenly thinned if too many), the others evenly between."""
    wanted = sorted(set(always) & set(frames))
    wanted = [
        wanted[i] for i in np.unique(np.linspace(0, len(wanted) - 1, min(len(wanted), most)).round().astype(int))
    ]
    chosen = set(wanted)
    for i in np.linspace(0, len(frames) - 1, most).round().astype(int):
        if len(chosen) < most:
            chosen.add(frames[i])
    return sorted(chosen)


class ContactSheet:
    """Cells of one width in rows, each with a text below its picture's edge and a frame around it."""

    def __init__(self, title: str, width: int = 300) -> None:
        self._title = title
        self._width = width
        self._cells: list[Picture] = []

    def add(self, picture: Picture, text: str, mark: tuple[str, Colour] | None = None) -> None:
        """The next cell. picture [h, w, 3] 0..1; mark: what sets the frame apart, and the colour it is framed in."""
        h, w = picture.shape[:2]
        small = to_network(torch.from_numpy(picture), max(round(self._width * h / w), 1), self._width).numpy()
        cell = labelled(small, text, [mark] if mark else [], size=15)
        framed = np.empty((cell.shape[0] + 2 * _FRAME, self._width + 2 * _FRAME, 3), np.float32)
        framed[:] = mark[1] if mark else _PAPER
        framed[_FRAME:-_FRAME, _FRAME:-_FRAME] = cell
        self._cells.append(framed)

    def write(self, path: Path) -> None:
        """Lay all cells out and write the sheet as PNG. Raises OutputError."""
        height, width = (max(c.shape[i] for c in self._cells) for i in (0, 1))
        columns = min(_COLUMNS, len(self._cells))
        rows = -(-len(self._cells) // columns)
        head = 44
        page = np.full((head + rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), _PAPER, np.float32)
        page[:head] = labelled(np.full((head, page.shape[1], 3), _PAPER, np.float32), self._title, size=20)
        for i, cell in enumerate(self._cells):
            y, x = head + i // columns * (height + _GAP), _GAP + i % columns * (width + _GAP)
            page[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
        write_png(path, page)
