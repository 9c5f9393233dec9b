"""Pictures of a shot with its objects in their colours, one by one and as a movie that plays in browsers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from rotomem.errors import OutputError
from rotomem.io.atomic import cannot_write, whole_file

Picture = NDArray[np.float32]
"""[h, w, 3] display-referred 0..1."""
Colour = tuple[float, float, float]

COLOURS: tuple[Colour, ...] = (
    (0.95, 0.45, 0.15),
    (0.15, 0.60, 0.95),
    (0.35, 0.75, 0.25),
    (0.88, 0.32, 0.78),
    (0.93, 0.74, 0.10),
    (0.10, 0.74, 0.74),
    (0.60, 0.45, 0.95),
    (0.93, 0.25, 0.32),
)
"""Of objects, in their order: told apart on plates and on white."""

KEY, FLAG = (0.20, 0.78, 0.40), (0.95, 0.25, 0.22)
_TINT, _COLOUR_KEPT = 0.5, 0.3


def colours_of(names: Sequence[str], own: Mapping[str, Colour] | None = None) -> dict[str, Colour]:
    """A colour for every object: its own where it has one."""
    return {name: (own or {}).get(name, COLOURS[i % len(COLOURS)]) for i, name in enumerate(names)}


def overlay(picture: Picture, alphas: Mapping[str, Picture], colours: Mapping[str, Colour]) -> Picture:
    """The picture greyed, with every object tinted by its alpha [h, w] and outlined where that is one half."""
    # A warm tint on a warm actor would not be seen on the picture's own colours.
    grey = picture @ np.array((0.2126, 0.7152, 0.0722), np.float32)
    out = (_COLOUR_KEPT * picture + (1 - _COLOUR_KEPT) * grey[..., None]).astype(np.float32)
    for name, alpha in alphas.items():
        share = _TINT * alpha[..., None]
        out += share * (np.asarray(colours[name], np.float32) - out)
    for name, alpha in alphas.items():
        out[_outline(alpha > 0.5)] = colours[name]
    return out


def matte_picture(alphas: Mapping[str, Picture], colours: Mapping[str, Colour]) -> Picture:
    """White on black for one object, each in its colour for several."""
    planes = [
        alpha[..., None] * np.asarray((1, 1, 1) if len(alphas) == 1 else colours[name], np.float32)
        for name, alpha in alphas.items()
    ]
    return np.clip(np.sum(planes, axis=0), 0, 1).astype(np.float32)


def labelled(
    picture: Picture, text: str, marks: Sequence[tuple[str, Colour]] = (), *, size: int | None = None
) -> Picture:
    """The picture with a text at its lower left and marks, each in its colour, behind it.

    size   of the letters in pixels; None: what suits the picture
    """
    h, w = picture.shape[:2]
    out = oiio.ImageBuf(np.ascontiguousarray(picture, np.float32))
    size = size or max(round(min(h, w) / 22), 11)
    x = y = size // 2
    for part, colour in ((text, (1.0, 1.0, 1.0)), *marks):
        oiio.ImageBufAlgo.render_text(out, x, h - y, part, size, "", colour, shadow=max(size // 10, 1))
        x += round(oiio.ImageBufAlgo.text_size(part, size).width + 0.8 * size)
    return np.asarray(out.get_pixels(oiio.FLOAT), np.float32)[..., :3]


def write_jpeg(path: Path, picture: Picture, quality: int = 82) -> None:
    """Write a picture whole, without a date. Raises OutputError."""
    _write(path, picture, "jpeg", ("Compression", f"jpeg:{quality}"))


def write_png(path: Path, picture: Picture) -> None:
    """Write a picture whole, 8 bits. Raises OutputError."""
    _write(path, picture, "png", None)


def _write(path: Path, picture: Picture, kind: str, attribute: tuple[str, str] | None) -> None:
    image = oiio.ImageBuf(np.ascontiguousarray(np.clip(picture, 0, 1), np.float32))
    image.specmod().attribute("oiio:ColorSpace", "sRGB")
    if attribute:
        image.specmod().attribute(*attribute)
    with whole_file(path, what="picture") as part:
        if not image.write(str(part), "uint8", kind):
            raise OutputError(f"cannot write the picture: {image.geterror()}", path=path)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask that touch one outside it."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return mask & ~inner


class OverlayMovie:
    """An H.264 movie (8-bit 4:2:0, BT.709, limited range, index in front) that appears whole at the block's end.

    Raises OutputError where it cannot be written.
    """

    def __init__(self, path: Path, fps: Fraction | None) -> None:
        self.path = path
        self._rate = fps or Fraction(24)
        self._count = 0
        self._stream: Any = None

    def __enter__(self) -> OverlayMovie:
        self._stack = contextlib.ExitStack()
        part = self._stack.enter_context(whole_file(self.path, what="movie"))
        try:
            options = {"movflags": "+faststart"}
            self._container: Any = av.open(str(part), "w", format="mp4", options=options)
        except (av.FFmpegError, OSError) as error:
            self._stack.__exit__(type(error), error, None)
            raise cannot_write(self.path, str(error), what="movie") from None
        return self

    def add(self, picture: Picture) -> None:
        """The next frame; all are of one size. An odd row or column is repeated, since 4:2:0 has none."""
        h, w = picture.shape[:2]
        even = np.pad(picture, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        pixels = np.rint(np.clip(even, 0, 1) * 255).astype(np.uint8)
        if self._stream is None:
            self._begin(even.shape[1], even.shape[0])
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.color_range = frame.colorspace = frame.color_primaries = frame.color_trc = 1
        frame.pts, frame.time_base = self._count, 1 / self._rate
        self._count += 1
        self._mux(frame)

    def _begin(self, width: int, height: int) -> None:
        # A fixed number of threads: the encoder's choices depend on it.
        options = {"crf": "20", "threads": "2"}
        try:
            stream = self._container.add_stream("libx264", self._rate, options=options)
        except ValueError:
            raise OutputError(
                "this installation of PyAV has no H.264 encoder", remedy="install av from PyPI", path=self.path
            ) from None
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.color_range = context.colorspace = context.color_primaries = context.color_trc = 1
        self._stream = stream

    def _mux(self, frame: Any) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except (av.FFmpegError, OSError) as error:
            raise cannot_write(self.path, str(error), what="movie") from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._stream is not None:
                self._mux(None)
            self._container.close()
        except BaseException as failed:
            if kind is None:
                self._stack.__exit__(type(failed), failed, failed.__traceback__)
                raise
        self._stack.__exit__(kind, error, trace)
