"""A plate: frames on disk, whatever they are made of, read one at a time.

`open_plate` looks at every frame's header before any pixel is read, so that a shot with a missing layer or another
resolution on its last frame fails in the first second and not after an hour. `Plate.read` gives a frame as it lies on
disk, from any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rotomem.errors import InputError, PlateError, ShapeError
from rotomem.io.exr import (
    Channel,
    Still,
    StillHeader,
    check_window,
    colour_channels,
    read_header,
    read_still,
    refuse_deep,
    shown,
)
from rotomem.io.sequence import FrameFiles, compact_frames, find_frames, plan_frames
from rotomem.types import PlateFrame, Window

_KINDS = {"openexr": "exr", "jpeg": "jpeg", "cineon": "cin", "targa": "tga"}
_DTYPES: dict[str, type[np.generic]] = {
    "half": np.float16,
    "float": np.float32,
    "uint": np.float32,
    "uint8": np.uint8,
    "uint16": np.uint16,
}
_SCAN_THREADS = 8


@dataclass(frozen=True)
class PlateInfo:
    """What was understood of a plate, before any pixel was read.

    path            as the user gave it
    kind            "exr", "png", "tiff", "jpeg", "dpx", ... or "movie"
    frames          frame numbers that exist on disk (of those asked for), ascending
    missing         frames asked for that are not on disk
    padding         digits of a frame number in the file names; 1 where they are not padded
    stem            base name without frame number and extension, "sh010"
    canvas          union of the display window and every frame's data window: the raster of masks and mattes
    fps, timecode   of the first frame; None where the files do not say
    channels        channels of the first frame, as the file spells them
    layers          its layers, 'rgba' for the picture itself
    colour_hints    what the files say about their colour: oiio:ColorSpace, colorInteropID, chromaticities, movie tags
    layer           the layer read, '' for the picture itself
    view            the view read, None where the plate has none
    pixel_type      "half", "float", "uint", "uint8", "uint16"
    notes           sentences worth telling the user once
    first_file      path of the first frame (or of the movie): what a config's file rules look at
    data_windows    frame on disk -> where it has pixels, for frames that do not fill the canvas
    """

    path: str
    kind: str
    frames: tuple[int, ...]
    missing: tuple[int, ...]
    padding: int
    stem: str
    display_window: Window
    canvas: Window
    pixel_aspect: float = 1.0
    fps: Fraction | None = None
    timecode: str | None = None
    channels: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    layer: str = ""
    view: str | None = None
    pixel_type: str = "half"
    compression: str | None = None
    colour_hints: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    first_file: str = ""
    data_windows: Mapping[int, Window] = field(default_factory=dict)


class _Source(Protocol):
    """Where pixels come from: a folder of stills or a movie."""

    def file(self, source: int) -> Path: ...

    def read(self, frame: int, source: int) -> PlateFrame: ...

    def close(self) -> None: ...


class Plate:
    """An open plate. Made by `open_plate`; a context manager.

    info     what was understood of it
    frames   frames it delivers, ascending, after the policy for missing ones
    """

    def __init__(self, info: PlateInfo, plan: Mapping[int, int | None], source: _Source) -> None:
        self.info = info
        self._plan = dict(plan)
        self._frames = tuple(self._plan)
        self._source = source
        self._closed = False

    @property
    def frames(self) -> tuple[int, ...]:
        return self._frames

    def file(self, frame: int) -> Path | None:
        """The file that a frame of `frames` is read from; None where it is black."""
        source = self._plan[frame]
        return None if source is None else self._source.file(source)

    def read(self, frame: int) -> PlateFrame:
        """One frame, in any order, from any thread.

        Raises PlateError naming file and frame where it is damaged or has changed since the plate was opened.
        """
        if self._closed:
            raise PlateError("the plate is closed", path=self.info.path, frame=frame)
        if frame not in self._plan:
            raise PlateError(
                f"the plate delivers no frame {frame}, only {compact_frames(self._plan)}", path=self.info.path
            )
        source = self._plan[frame]
        if source is None:
            return self._black(frame)
        try:
            found = self._source.read(frame, source)
        except InputError as e:
            e.context.setdefault("frame", source)
            raise
        if found.display_window != self.info.display_window or (
            found.data_window.union(self.info.canvas) != self.info.canvas
        ):
            raise PlateError(
                "the file has other windows than when the plate was opened",
                path=found.path,
                frame=frame,
                remedy="wait until it is rendered, then start again",
            )
        return found

    def close(self) -> None:
        """Let go of open files. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._source.close()

    def __enter__(self) -> Plate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _black(self, frame: int) -> PlateFrame:
        window = self.info.display_window
        dtype = _DTYPES[self.info.pixel_type]
        return PlateFrame(
            frame=frame,
            rgb=np.zeros((window.height, window.width, 3), dtype),
            alpha=None,
            data_window=window,
            display_window=window,
            pixel_aspect=self.info.pixel_aspect,
            path=None,
            source_frame=None,
        )


def open_plate(
    path: str | Path,
    *,
    frames: str | None = None,
    missing: str = "error",
    layer: str | None = None,
    view: str | None = None,
) -> Plate:
    """Find a plate and look at all its headers.

    path      any spelling that io/sequence.py knows: a pattern, one file, a folder, a movie; `%V` and `%v` in it
              stand for the view and its first letter
    frames    a range such as `1001-1100x2,1120`; None: what the spelling says, else first to last on disk.
              A movie's frames count from 1, whatever its time code
    missing   "error", "skip", "hold" (repeat the frame before) or "black"
    layer     '' or 'rgba' for the picture itself, a layer, a part, or one channel ("Z"), shown as grey
    view      of a multi-view file; None: its first

    Raises MissingFrameError, PlateError (unreadable, deep, another display window on some frame, no such layer or
    view), UsageError for a range or policy that does not exist.
    """
    text = str(path)
    if view is not None and re.search(r"%[vV]", Path(text).name):
        found = find_frames(text.replace("%V", view).replace("%v", view[:1]), frames)
        files, view = replace(found, spelling=text), None
    else:
        files = find_frames(text, frames)
    if files.movie:
        return _open_movie(files, missing, layer, view)
    plan = plan_frames(files, missing)
    return _open_stills(files, plan, missing, layer or "", view)


def canvas_image(frame: PlateFrame, canvas: Window, *, dtype: DTypeLike = np.float32) -> NDArray[np.generic]:
    """A frame's RGB placed on the canvas, zeros where it has no pixels.

    canvas    any window; what of the data window lies outside it is cut
    dtype     a float type
    returns   [H, W, 3] of `dtype`; integer pixels scaled to 0..1, floats as they are
    """
    if not np.issubdtype(np.dtype(dtype), np.floating):
        raise ShapeError(f"the canvas needs a float type, got {np.dtype(dtype)}")
    if frame.data_window == canvas and np.issubdtype(frame.rgb.dtype, np.floating):
        whole = frame.rgb.base
        if isinstance(whole, np.ndarray) and whole.flags.c_contiguous and whole.shape == (*frame.rgb.shape[:2], 4):
            # RGB of an RGBA buffer: converting all of it in one run takes a third of the time that gaps cost.
            place = (frame.rgb.ctypes.data - whole.ctypes.data) // whole.itemsize
            return whole.astype(dtype)[:, :, place : place + 3]
        return frame.rgb.astype(dtype)
    out = np.zeros((canvas.height, canvas.width, 3), dtype)
    common = frame.data_window.intersect(canvas)
    if common.empty:
        return out
    rgb = frame.rgb[common.slices_in(frame.data_window)]
    target = out[common.slices_in(canvas)]
    if np.issubdtype(rgb.dtype, np.integer):
        target[...] = rgb.astype(np.float32) / float(np.iinfo(rgb.dtype.type).max)  # type: ignore[type-var]
    else:
        target[...] = rgb
    return out


# Stills ---------------------------------------------------------------------------------------------------


class _Stills:
    def __init__(self, files: Mapping[int, Path], layer: str, view: str | None) -> None:
        self._files = files
        self._layer = layer
        self._view = view

    def file(self, source: int) -> Path:
        return self._files[source]

    def read(self, frame: int, source: int) -> PlateFrame:
        path = self._files[source]
        colours = 0

        def pick(header: StillHeader) -> list[Channel]:
            nonlocal colours
            rgb, alpha = colour_channels(header, self._layer, self._view)
            colours = len(rgb)
            return [*rgb, alpha] if alpha is not None and _same_window(header, rgb[0], alpha) else rgb

        still = read_still(path, select=pick)
        names = [c.name for c in still.channels]
        return PlateFrame(
            frame=frame,
            rgb=_three(still, names[:colours]),
            alpha=_plain(still.arrays[names[-1]]) if len(names) > colours else None,
            data_window=still.data_window,
            display_window=still.display_window,
            pixel_aspect=still.pixel_aspect,
            path=path,
            source_frame=source,
            metadata=still.metadata,
        )

    def close(self) -> None:
        pass


def _same_window(header: StillHeader, a: Channel, b: Channel) -> bool:
    return header.parts[a.part].data_window == header.parts[b.part].data_window


def _plain(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """EXR's 32-bit integers by value, as OpenEXR itself converts them; everything else as it is."""
    return pixels.astype(np.float32) if pixels.dtype == np.uint32 else pixels


def _three(still: Still, names: Sequence[str]) -> NDArray[np.generic]:
    pixels = _plain(still.stack(names))
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels[:, :, :1], 3, axis=2)


def _open_stills(
    files: FrameFiles, plan: Mapping[int, int | None], policy: str, layer: str, view: str | None
) -> Plate:
    present = files.present
    first_path = files.files[present[0]]
    try:
        first = read_header(first_path)
        rgb, _ = colour_channels(first, layer, view)
        refuse_deep(first, rgb)
    except InputError as e:
        e.context.setdefault("frame", present[0])
        raise
    view = first.pick_view(view)
    scan = _Scan(present[0], first, rgb)
    rest = present[1:]
    if rest:
        # Headers only, in a few threads: on a network disk the time goes into waiting.
        with ThreadPoolExecutor(_SCAN_THREADS, thread_name_prefix="rotomem-scan") as pool:
            looked = pool.map(lambda f: _look(files.files[f], f, layer, view), rest, chunksize=1)
            try:
                for f, (header, channels) in zip(rest, looked, strict=True):
                    scan.add(f, header, channels)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    check_window("canvas (display window and all data windows)", scan.canvas, files.spelling)
    info = PlateInfo(
        path=files.spelling,
        kind=_KINDS.get(first.format, first.format),
        frames=present,
        missing=files.missing,
        padding=files.padding,
        stem=files.stem,
        display_window=first.display_window,
        canvas=scan.canvas,
        pixel_aspect=first.pixel_aspect,
        fps=first.fps,
        timecode=first.timecode,
        channels=tuple(c.name for c in first.channels),
        layers=first.layers,
        views=first.views,
        parts=tuple(p.name for p in first.parts) if len(first.parts) > 1 else (),
        layer=rgb[0].layer if len(rgb) > 1 else layer,
        view=view,
        pixel_type=_widest(scan.types),
        compression=first.parts[rgb[0].part].compression,
        colour_hints=first.colour_hints,
        first_file=str(first_path),
        data_windows={f: w for f, w in scan.data_windows.items() if w != scan.canvas},
        notes=_notes(files, policy, first, rgb, view, scan),
    )
    return Plate(info, plan, _Stills(files.files, layer, view))


def _look(path: Path, frame: int, layer: str, view: str | None) -> tuple[StillHeader, list[Channel]]:
    try:
        header = read_header(path)
        rgb, _ = colour_channels(header, layer, view)
        refuse_deep(header, rgb)
    except InputError as e:
        e.context.setdefault("frame", frame)
        raise
    return header, rgb


class _Scan:
    """What all frames have in common, gathered header by header."""

    def __init__(self, frame: int, first: StillHeader, rgb: Sequence[Channel]) -> None:
        self.first = first
        self.data_windows = {frame: first.parts[rgb[0].part].data_window}
        self.canvas = first.display_window.union(first.parts[rgb[0].part].data_window)
        self.types = {c.type for c in rgb}
        self.formats = {first.format}

    def add(self, frame: int, header: StillHeader, rgb: Sequence[Channel]) -> None:
        first = self.first
        if header.display_window != first.display_window:
            raise PlateError(
                f"the display window is {header.display_window}, on the first frame it is {first.display_window}",
                path=header.path,
                frame=frame,
                remedy="a shot has one format; render the frame again or leave it out with --frames",
            )
        if abs(header.pixel_aspect - first.pixel_aspect) > 1e-3:
            raise PlateError(
                f"the pixel aspect is {header.pixel_aspect:g}, on the first frame it is {first.pixel_aspect:g}",
                path=header.path,
                frame=frame,
                remedy="render the frame again or leave it out with --frames",
            )
        window = header.parts[rgb[0].part].data_window
        self.data_windows[frame] = window
        self.canvas = self.canvas.union(window)
        self.types |= {c.type for c in rgb}
        self.formats.add(header.format)


def _widest(types: Iterable[str]) -> str:
    types = set(types)
    order = ("float", "uint", "half", "uint16", "uint8")
    return next(t for t in order if t in types)


def _notes(
    files: FrameFiles,
    policy: str,
    first: StillHeader,
    rgb: Sequence[Channel],
    view: str | None,
    scan: _Scan,
) -> tuple[str, ...]:
    notes = list(files.notes)
    if files.missing:
        early = min(files.missing) < files.present[0]
        held = "filled with the frame before" + (f", those before {files.present[0]} with it" if early else "")
        done = {"skip": "left out", "hold": held, "black": "filled with black"}
        notes.append(f"frames {compact_frames(files.missing)} are missing and {done[policy]}")
    if len(first.views) > 1:
        notes.append(f"views {', '.join(shown(v) for v in first.views)}: {shown(view or '')} is read")
    if len(rgb) == 1:
        notes.append(f"channel {shown(rgb[0].name)} alone makes the picture, shown as grey")
    if "uint" in scan.types:
        notes.append("32-bit integer channels are taken by value, not scaled")
    if len(scan.types) > 1:
        notes.append(f"channels have several types: {', '.join(sorted(scan.types))}")
    if len(scan.formats) > 1:
        notes.append(f"frames have several file formats: {', '.join(sorted(scan.formats))}")
    if first.subsampled:
        notes.append("luminance and subsampled chroma, converted to RGB")
    display = first.display_window
    windows = set(scan.data_windows.values())
    if any(w.intersect(display).empty for w in windows):
        notes.append("on some frame no pixel lies inside the display window")
    elif any(w.union(display) != display for w in windows):
        notes.append(f"pixels outside the display window (overscan) are kept: the canvas is {scan.canvas}")
    if first.orientation != 1:
        notes.append(f"the files ask to be turned (orientation {first.orientation}); they are read as stored")
    return tuple(notes)


# Movies ---------------------------------------------------------------------------------------------------


class _MovieFrames:
    def __init__(self, path: Path) -> None:
        from rotomem.io.movie import Movie

        self.movie = Movie(path)

    def file(self, source: int) -> Path:
        return self.movie.path

    def read(self, frame: int, source: int) -> PlateFrame:
        picture = self.movie.read(source)
        movie = self.movie.info
        window = Window(0, 0, movie.width, movie.height)
        return PlateFrame(
            frame=frame,
            rgb=picture.rgb,
            alpha=picture.alpha,
            data_window=window,
            display_window=window,
            pixel_aspect=movie.pixel_aspect,
            path=self.movie.path,
            source_frame=source,
            metadata=self.movie.metadata(source),
        )

    def close(self) -> None:
        self.movie.close()


def _open_movie(files: FrameFiles, policy: str, layer: str | None, view: str | None) -> Plate:
    path = files.files[1]
    if view is not None:
        raise PlateError("a movie has no views", path=path, remedy="leave the view out")
    if (layer or "").lower() not in ("", "rgb", "rgba"):
        raise PlateError(f"a movie has no layer '{layer}'", path=path, remedy="leave the layer out")
    source = _MovieFrames(path)
    try:
        movie = source.movie.info
        whole = range(1, movie.frame_count + 1)
        files = replace(files, files=dict.fromkeys(whole, path), asked=files.asked or tuple(whole))
        plan = plan_frames(files, policy)
        window = Window(0, 0, movie.width, movie.height)
        check_window("picture", window, path)
        notes = [*files.notes, *movie.notes]
        if files.missing:
            notes.append(
                f"the movie has frames 1-{movie.frame_count}, frames {compact_frames(files.missing)} are not in it"
            )
        info = PlateInfo(
            path=files.spelling,
            kind="movie",
            frames=files.present,
            missing=files.missing,
            padding=files.padding,
            stem=files.stem,
            display_window=window,
            canvas=window,
            pixel_aspect=movie.pixel_aspect,
            fps=movie.fps,
            timecode=movie.timecode,
            channels=("R", "G", "B", "A") if movie.has_alpha else ("R", "G", "B"),
            layers=("rgba",),
            pixel_type=movie.pixel_type,
            compression=movie.codec,
            colour_hints=movie.colour_hints,
            notes=tuple(notes),
            first_file=str(path),
        )
    except BaseException:
        source.close()
        raise
    return Plate(info, plan, source)
