"""One still written, EXR or PNG, with the plate's geometry and metadata, and read back before it counts.

The library may fail without a word (a full disk, an unknown compression, channels it renames), so every file is
looked at again: its header, and of its pixels what a full disk would have swallowed. No date is written but the
plate's own, so that equal input gives equal bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from rotomem.errors import InputError, OutputError
from rotomem.io import timecode
from rotomem.io.atomic import cannot_write
from rotomem.io.exr import StillHeader, TypedValue, read_last_row, read_still, write_attributes
from rotomem.io.plate import PlateInfo
from rotomem.types import PlateFrame, Window


@dataclass(frozen=True)
class Picture:
    """Pixels on their way into a file, and what its header tells.

    names        the channels, in the order of `pixels`
    types        of each channel: "half" or "float" for EXR, "uint8" or "uint16" for PNG
    pixels       [h, w, C] float16, float32, uint8 or uint16; float32 where EXR channels differ in type
    window       where the pixels lie; of a PNG the display window
    attributes   text for the header
    compression  of an EXR
    plate_rgb    R, G and B are the plate's, so that its colour tag goes along; False: the pixels are data
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    pixels: NDArray[Any]
    window: Window
    attributes: Mapping[str, str] = field(default_factory=dict)
    compression: str = "zip"
    plate_rgb: bool = False


def write_exr(picture: Picture, frame: PlateFrame, info: PlateInfo, path: Path, part: Path) -> None:
    """Write `picture` to `part` with windows, aspect and metadata of the plate's frame, and check it.

    path   the name the file will have, for messages
    Raises OutputError where the file cannot be written or reads back otherwise.
    """
    names, types, window = picture.names, picture.types, picture.window
    spec = oiio.ImageSpec(window.width, window.height, len(names), oiio.TypeDesc(types[-1]))
    spec.channelnames = names
    if len(set(types)) > 1:
        spec.channelformats = tuple(oiio.TypeDesc(t) for t in types)
    spec.alpha_channel = names.index("A") if "A" in names else -1
    spec.x, spec.y = window.x0, window.y0
    spec.full_x, spec.full_y = frame.display_window.x0, frame.display_window.y0
    spec.full_width, spec.full_height = frame.display_window.width, frame.display_window.height
    # Before the plate's metadata, which may bring a date of its own: without one the library writes the
    # clock's, and two runs would differ; an empty one is left out of the file.
    spec.attribute("DateTime", "")
    kept = {k: v for k, v in frame.metadata.items() if not k.startswith("rotomem/")}
    write_attributes(spec, _with_time(kept, frame, info), colour=picture.plate_rgb)
    spec.attribute("compression", picture.compression)
    spec.attribute("PixelAspectRatio", float(frame.pixel_aspect))
    if not picture.plate_rgb:
        spec.attribute("oiio:ColorSpace", "data")
        spec.attribute("colorInteropID", "data")
    elif "colorInteropID" not in kept and isinstance(tag := info.colour_hints.get("oiio:ColorSpace"), str):
        spec.attribute("oiio:ColorSpace", tag)  # of a PNG, say; the library spells it as colorInteropID
    for key, value in picture.attributes.items():
        spec.attribute(key, value)
    # Some readers would make an ACES container of the plate's flag and refuse our channels.
    spec.erase_attribute("acesImageContainerFlag")
    _write("openexr", spec, picture.pixels, path, part, frame.frame)
    try:
        header, row = read_last_row(part)
    except InputError as e:
        raise _not_read_back(path, e, frame.frame) from e
    wrong = _header_mistake(header, picture, frame)
    if not wrong and (header.parts[0].data_window != window or header.display_window != frame.display_window):
        wrong = "its windows are not the plate's"
    if not wrong and header.parts[0].compression != picture.compression:
        wrong = f"its compression is {header.parts[0].compression}, not {picture.compression}"
    if wrong:
        raise _reads_back_wrongly(path, wrong, frame.frame)
    # The last row is what a full disk swallows when the file is closed, and close() says nothing.
    order = [names.index(c.name) for c in header.channels]
    halves = [c.type == "half" for c in header.channels]
    meant = picture.pixels[-1][:, order].astype(np.float32)
    with np.errstate(over="ignore"):
        meant[:, halves] = meant[:, halves].astype(np.float16)
    if row is None or not np.array_equal(row, meant, equal_nan=True):
        raise cannot_write(path, "the end of the file is missing", frame=frame.frame)


def write_png(picture: Picture, frame: PlateFrame, path: Path, part: Path) -> None:
    """Write `picture` to `part` as PNG, and check every pixel. Raises OutputError as `write_exr` does."""
    names, window = picture.names, picture.window
    spec = oiio.ImageSpec(window.width, window.height, len(names), oiio.TypeDesc(picture.types[0]))
    spec.channelnames = names
    spec.alpha_channel = 3 if len(names) == 4 else -1
    spec.attribute("oiio:UnassociatedAlpha", 1)  # as given: the library must not divide
    if not picture.plate_rgb:
        spec.attribute("oiio:ColorSpace", "data")
    if frame.pixel_aspect != 1.0:
        spec.attribute("PixelAspectRatio", float(frame.pixel_aspect))
    for key, value in picture.attributes.items():
        spec.attribute(key, value)
    _write("png", spec, picture.pixels, path, part, frame.frame)
    try:
        still = read_still(part)
    except InputError as e:
        raise _not_read_back(path, e, frame.frame) from e
    wrong = _header_mistake(still.header, picture, frame)
    if wrong:
        raise _reads_back_wrongly(path, wrong, frame.frame)
    # The library's PNG writer says that all went well on a full disk.
    if not png_is_whole(part):
        raise cannot_write(path, "the end of the file is missing", frame=frame.frame)
    for k, name in enumerate(names):
        if not np.array_equal(still.arrays[name], picture.pixels[..., k]):
            raise cannot_write(path, "the file reads back with other pixels", frame=frame.frame)


def png_is_whole(path: Path) -> bool:
    """Does the file end as a PNG does?"""
    with open(path, "rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 12, 0))
        return file.read() == b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk: no bytes, its name, its CRC


def _header_mistake(header: StillHeader, picture: Picture, frame: PlateFrame) -> str:
    """What a header that was read back says otherwise than was meant; "" where it is right."""
    if {c.name: c.type for c in header.channels} != dict(zip(picture.names, picture.types, strict=True)):
        return "its channels are not those written"
    if header.display_window.width != frame.display_window.width:
        return "its display window is not the plate's"
    told = {**header.metadata, **header.cryptomatte}
    kept = [key for key in picture.attributes if key == "rotomem/settings" or key.startswith("cryptomatte/")]
    if any(told.get(key) != picture.attributes[key] for key in kept):
        return "its metadata is not complete"
    return ""


def _reads_back_wrongly(path: Path, wrong: str, frame: int) -> OutputError:
    return cannot_write(path, f"the file reads back wrongly: {wrong}", frame=frame)


def _not_read_back(path: Path, error: InputError, frame: int) -> OutputError:
    return cannot_write(path, f"the file cannot be read back, {error.what}", frame=frame)


def _write(format: str, spec: oiio.ImageSpec, pixels: NDArray[Any], path: Path, part: Path, frame: int) -> None:
    # A 2-D array is written as garbage without a word (OpenImageIO PR 4843), a permuted one is refused.
    assert pixels.ndim == 3 and pixels.flags.c_contiguous
    output = oiio.ImageOutput.create(format)
    if output is None:
        raise cannot_write(path, f"this OpenImageIO writes no {format}", frame=frame)

    def reason() -> str:
        return _library_error(output).replace(os.fspath(part), path.name)

    # By format, not by name: the temporary name has no extension that says so. close() returns True even where
    # the pixels failed, so each step is asked, and the caller reads the header back.
    if not output.open(os.fspath(part), spec):
        raise cannot_write(path, reason(), frame=frame)
    written = output.write_image(pixels)
    why = "" if written else reason()
    if not (output.close() and written):
        raise cannot_write(path, why or reason(), frame=frame)


def _library_error(output: oiio.ImageOutput) -> str:
    try:
        text = output.geterror() or oiio.geterror()
    except UnicodeDecodeError as e:
        text = e.object.decode("latin-1")
    return " ".join(text.split())[:300] or "no reason given"


def _with_time(metadata: Mapping[str, object], frame: PlateFrame, info: PlateInfo) -> dict[str, object]:
    """Metadata with the frame's own time code and rate: moved on where a frame was held, made for a movie plate."""
    result = dict(metadata)
    if info.fps is not None and not any(k.lower() == "framespersecond" for k in result):
        rate = info.fps.limit_denominator(1001)
        result["framesPerSecond"] = TypedValue("rational", (rate.numerator, rate.denominator))
    if info.fps is None:
        return result
    name = next((k for k in result if k.lower() == "smpte:timecode"), None)
    if name is not None:
        held = frame.source_frame is not None and frame.source_frame != frame.frame
        value = result[name]
        if held and isinstance(value, TypedValue):
            moved = timecode.shift_packed(value.value, frame.frame - int(frame.source_frame or 0), info.fps)
            result[name] = TypedValue(value.type, moved)
    elif info.timecode and info.frames:
        packed = timecode.pack(timecode.advance(info.timecode, frame.frame - info.frames[0], info.fps))
        if packed is not None:
            result["smpte:TimeCode"] = TypedValue("timecode", (packed, 0))
    return result
