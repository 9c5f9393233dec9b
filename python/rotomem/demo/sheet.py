"""A contact sheet: what went in, what came out, what it is good for, and how far it is from the truth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from rotomem.demo.noise import Image
from rotomem.demo.scene import ACESCG_TO_REC709
from rotomem.errors import OutputError

INK = (0.93, 0.93, 0.91)
DIM = (0.58, 0.60, 0.63)
PAPER = (0.070, 0.075, 0.085)
TINTS = ((1.0, 0.56, 0.30), (0.33, 0.80, 0.93), (0.72, 0.86, 0.38), (0.90, 0.50, 0.85))
"""Display colours of objects, in their order."""

TOO_MUCH, TOO_LITTLE = (1.0, 0.45, 0.15), (0.25, 0.62, 1.0)

_MARGIN, _GAP, _LABELS, _HEAD, _FOOT = 28, 10, 142, 108, 46


@dataclass(frozen=True)
class SheetFrame:
    """One column of the sheet.

    rgb      [H, W, 3] the plate, scene-linear ACEScg
    mattes   name -> [H, W] what was tracked
    truth    name -> [H, W] what is true
    note     what to know about the frame ("key"), or nothing
    """

    frame: int
    rgb: NDArray[np.floating]
    mattes: Mapping[str, NDArray[np.floating]]
    truth: Mapping[str, NDArray[np.floating]]
    note: str = ""


def write_contact_sheet(
    path: str | Path,
    columns: Sequence[SheetFrame],
    *,
    title: str,
    figures: Sequence[str],
    cell_width: int = 368,
) -> None:
    """Draw plate, matte, a graded picture and the difference from truth for a few frames, and write it as PNG.

    columns   at least one, all of one size and with the same objects
    figures   short lines set to the right of the title
    Raises OutputError where the file cannot be written.
    """
    h, w = columns[0].rgb.shape[:2]
    cell_height = round(cell_width * h / w)
    rows = ("plate", "matte", "a use", "error")
    notes = (
        "scene-linear EXR",
        f"from the key at {columns[0].frame}",
        "night, lanterns lit",
        "against the truth",
    )
    width = 2 * _MARGIN + _LABELS + len(columns) * cell_width + (len(columns) - 1) * _GAP
    height = _HEAD + len(rows) * (cell_height + _GAP) + _FOOT
    canvas = oiio.ImageBuf(oiio.ImageSpec(width, height, 3, oiio.FLOAT))
    oiio.ImageBufAlgo.fill(canvas, PAPER)
    _text(canvas, _MARGIN, 50, title, 30, INK, bold=True)
    _text(canvas, _MARGIN, 82, "one key mask in, a matte for every frame out", 18, DIM)
    names = list(columns[0].truth)
    for i, line in enumerate(figures):
        y = 34 + 24 * i
        tint = next((TINTS[k % len(TINTS)] for k, name in enumerate(names) if line.startswith(name)), DIM)
        _text(canvas, width - _MARGIN, y, line, 17, tint, right=True)
    for r, (row, note) in enumerate(zip(rows, notes, strict=True)):
        y = _HEAD + r * (cell_height + _GAP)
        _text(canvas, _MARGIN, y + cell_height // 2 - 2, row, 19, INK, bold=True)
        _text(canvas, _MARGIN, y + cell_height // 2 + 20, note, 14, DIM)
        for c, column in enumerate(columns):
            picture = (
                _display(column.rgb),
                _coloured(column.mattes),
                _night(column),
                _difference(column),
            )[r]
            x = _MARGIN + _LABELS + c * (cell_width + _GAP)
            _paste(canvas, picture, x, y, cell_width, cell_height)
            if r == 0:
                label = f"{column.frame}" + (f"  {column.note}" if column.note else "")
                _text(canvas, x + 9, y + cell_height - 9, label, 16, (1.0, 1.0, 1.0), bold=True, shadow=2)
    x, y = _MARGIN + _LABELS, height - 18
    for name, tint in zip(names, TINTS, strict=False):
        x = _legend(canvas, x, y, name, tint)
    x += 30
    x = _legend(canvas, x, y, "matte holds too much", TOO_MUCH)
    _legend(canvas, x, y, "matte holds too little", TOO_LITTLE)

    out = canvas.copy(oiio.UINT8)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make a folder: {error.strerror}", path=path.parent) from None
    if not out.write(str(path)):
        raise OutputError(f"cannot write the contact sheet: {out.geterror()}", path=path)


def tone(rgb: Image) -> Image:
    """Linear Rec.709 [..., 3] to display values 0..1: a shoulder from 0.5 up, then the sRGB curve."""
    x = np.maximum(rgb, 0)
    x = np.where(x < 0.5, x, 1 - 0.5 * np.exp(-(x - 0.5) / 0.5 * 0.62))
    out: Image = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-6) ** (1 / 2.4) - 0.055)
    return np.clip(out, 0, 1).astype(np.float32)


def _display(aces: Image) -> Image:
    return tone(np.asarray(aces, np.float32) @ ACESCG_TO_REC709.T)


def _coloured(mattes: Mapping[str, Image]) -> Image:
    """Every object's matte in its tint."""
    out: Image | None = None
    for alpha, tint in zip(mattes.values(), itertools.cycle(TINTS), strict=False):
        layer = np.asarray(alpha, np.float32)[..., None] * np.array(tint, np.float32)
        out = layer if out is None else out + layer
    assert out is not None
    return np.clip(out + 0.03, 0, 1)


def _night(column: SheetFrame) -> Image:
    """Night falls on everything but what the mattes hold: a grade in linear light, as a compositor would make it."""
    rgb = np.asarray(column.rgb, np.float32) @ ACESCG_TO_REC709.T
    alpha: Image = np.clip(np.sum([np.asarray(a, np.float32) for a in column.mattes.values()], axis=0), 0, 1)
    grey = np.minimum(rgb @ np.array((0.2126, 0.7152, 0.0722), np.float32), 4.0)[..., None]
    night = (0.25 * np.minimum(rgb, 4.0) + 0.75 * grey) * np.array((0.055, 0.092, 0.20), np.float32)
    lit = rgb * np.array((1.25, 1.05, 0.80), np.float32)
    return tone(lit * alpha[..., None] + night * (1 - alpha[..., None]))


def _difference(column: SheetFrame) -> Image:
    """Where the mattes differ from truth, in colour over a faint plate."""
    grey = _display(column.rgb).mean(2, keepdims=True) * 0.20 + 0.02
    out = np.repeat(grey, 3, axis=2)
    for name, truth in column.truth.items():
        d = np.asarray(column.mattes[name], np.float32) - np.asarray(truth, np.float32)
        for amount, tint in ((d, TOO_MUCH), (-d, TOO_LITTLE)):
            k = np.clip(amount, 0, 1)[..., None]
            out = out * (1 - k) + np.array(tint, np.float32) * k
    return out


def _paste(canvas: oiio.ImageBuf, picture: Image, x: int, y: int, width: int, height: int) -> None:
    h, w = picture.shape[:2]
    source = oiio.ImageBuf(oiio.ImageSpec(w, h, 3, oiio.FLOAT))
    source.set_pixels(source.roi, np.ascontiguousarray(picture, np.float32))
    small = oiio.ImageBufAlgo.resize(source, filtername="triangle", roi=oiio.ROI(0, width, 0, height, 0, 1, 0, 3))
    oiio.ImageBufAlgo.clamp(small, small, 0.0, 1.0)
    oiio.ImageBufAlgo.paste(canvas, x, y, 0, 0, small)


def _text(
    canvas: oiio.ImageBuf,
    x: int,
    y: int,
    text: str,
    size: int,
    colour: tuple[float, float, float],
    *,
    bold: bool = False,
    right: bool = False,
    shadow: int = 0,
) -> None:
    """A line of text with its baseline at y. OpenImageIO brings the font; a build without fonts leaves it out."""
    align = "right" if right else "left"
    font = "DroidSans-Bold" if bold else "DroidSans"
    oiio.ImageBufAlgo.render_text(
        canvas, x, y, text, fontsize=size, fontname=font, textcolor=colour, alignx=align, shadow=shadow
    )


def _legend(canvas: oiio.ImageBuf, x: int, y: int, text: str, tint: tuple[float, float, float]) -> int:
    """A swatch and its name; returns where the next may begin."""
    oiio.ImageBufAlgo.fill(canvas, tint, roi=oiio.ROI(x, x + 14, y - 12, y + 2, 0, 1, 0, 3))
    _text(canvas, x + 22, y, text, 15, DIM)
    return x + 22 + 9 * len(text) + 24
