"""Small test pictures and movies, written with the libraries themselves and never with ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import OpenImageIO as oiio

_TYPES = {"float16": "half", "float32": "float", "uint32": "uint", "uint16": "uint16", "uint8": "uint8"}


def ramp(height: int = 24, width: int = 32, channels: int = 3, dtype: Any = np.float16) -> np.ndarray:
    """[h, w, C] of values that differ at every place and channel, within 0..1 (0..max for integers)."""
    n = height * width * channels
    flat = np.arange(n, dtype=np.float64) / n
    if np.issubdtype(np.dtype(dtype), np.integer):
        flat = flat * np.iinfo(dtype).max
    return flat.reshape(height, width, channels).astype(dtype)


def spec_of(
    pixels: np.ndarray,
    *,
    channels: Sequence[str] | None = None,
    data: tuple[int, int] = (0, 0),
    display: tuple[int, int, int, int] | None = None,
    attributes: Mapping[str, Any] | None = None,
    formats: Sequence[str] | None = None,
) -> oiio.ImageSpec:
    h, w, c = pixels.shape
    spec = oiio.ImageSpec(w, h, c, oiio.TypeDesc(_TYPES[pixels.dtype.name]))
    if channels is not None:
        spec.channelnames = tuple(channels)
        spec.alpha_channel = channels.index("A") if "A" in channels else -1
    if formats is not None:
        spec.channelformats = tuple(oiio.TypeDesc(f) for f in formats)
    spec.x, spec.y = data
    x0, y0, x1, y1 = display if display is not None else (0, 0, w, h)
    spec.full_x, spec.full_y, spec.full_width, spec.full_height = x0, y0, x1 - x0, y1 - y0
    for name, value in (attributes or {}).items():
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
            spec.attribute(name, value[0], value[1])
        else:
            spec.attribute(name, value)
    return spec


def write_picture(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """One still of any format; see `spec_of` for the options."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[:, :, None])
    tile = options.pop("tile", 0)
    spec = spec_of(pixels, **options)
    spec.tile_width = spec.tile_height = tile
    out = oiio.ImageOutput.create(str(path))
    assert out is not None, oiio.geterror()
    assert out.open(str(path), spec), out.geterror()
    assert out.write_image(pixels), out.geterror()
    assert out.close()
    return path


def write_parts(path: Path, parts: Sequence[tuple[np.ndarray, Mapping[str, Any]]]) -> Path:
    """A multi-part EXR; each part is pixels and the options of `spec_of`."""
    specs = [spec_of(np.ascontiguousarray(p), **o) for p, o in parts]
    out = oiio.ImageOutput.create(str(path))
    assert out.open(str(path), tuple(specs)), out.geterror()
    for k, (pixels, _) in enumerate(parts):
        if k:
            assert out.open(str(path), specs[k], "AppendSubimage"), out.geterror()
        assert out.write_image(np.ascontiguousarray(pixels)), out.geterror()
    assert out.close()
    return path


def write_sequence(folder: Path, frames: Iterable[int], pattern: str = "shot.{:04d}.exr", **options: Any) -> Path:
    """Frames whose pixels are all (frame % 1000) / 1000, so that a test can tell which one it got."""
    for f in frames:
        pixels = np.full((6, 8, 3), (f % 1000) / 1000, np.float16)
        write_picture(folder / pattern.format(f), pixels, **options)
    return folder


def write_movie(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: Fraction | int = 24,
    options: Mapping[str, str] | None = None,
    colorspace: int | None = None,
    full_range: bool = False,
    aspect: Fraction | None = None,
    timecode: str | None = None,
    pts: Sequence[int] | None = None,
    rotation: float | None = None,
    src_format: str = "rgb24",
) -> Path:
    """A movie of [h, w, 3] frames, uint8 (uint16 with rgb48le); `colorspace` 1 is Rec.709, 5 Rec.601, 9 Rec.2020."""
    frames = list(frames)
    h, w = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = w, h, pix_fmt
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if timecode is not None:
            stream.metadata["timecode"] = timecode
        if rotation is not None:
            stream.set_display_rotation(rotation)
        sws = {1: 1, 5: 5, 6: 5, 9: 9}.get(colorspace or 0)
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        stream.codec_context.color_range = 2 if full_range else 1
        if pts is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format=src_format)
            frame = frame.reformat(
                format=pix_fmt,
                src_colorspace=sws,
                dst_colorspace=sws,
                src_color_range=2,
                dst_color_range=2 if full_range else 1,
            )
            if pts is not None:
                frame.pts, frame.time_base = pts[i], Fraction(1, 1000)
            else:
                frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbered(count: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Grey frames that say their place: level 16 + 4 * place, with a ramp along x so that codecs have work to do."""
    frames = []
    for i in range(count):
        level = 16 + (4 * i) % 224
        picture = np.full((height, width, 3), level, np.uint8)
        picture[:, : width // 4] = (np.arange(width // 4) * 3 % 64)[None, :, None]
        frames.append(picture)
    return frames


def place_in(rgb: np.ndarray) -> int:
    """Which frame of `numbered` this is (of the first 56)."""
    peak = 255 if rgb.dtype == np.uint8 else 65535
    level = float(np.median(rgb[:, rgb.shape[1] // 2 :].astype(np.float64))) * 255 / peak
    return round((level - 16) / 4)
