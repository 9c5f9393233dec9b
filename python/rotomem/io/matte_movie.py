"""ProRes 4444 movies, one a matte: alpha in the alpha plane, the matte (or the plate) as picture.

The encoder takes 10 bits, so a value may move by 1/2046; key frames that must be exact belong into EXR. The movie
grows under a temporary name and appears when it is finished.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from rotomem.errors import OutputError
from rotomem.io import timecode
from rotomem.io.atomic import cannot_write, whole_file
from rotomem.io.exr import TypedValue
from rotomem.io.kinds import File, Order, Output, Sources, Told
from rotomem.io.matte_stills import RGB_TOLD
from rotomem.io.outputs import OutputPattern
from rotomem.io.planes import Alpha, on_window, plate_on, premultiplied, unit
from rotomem.io.plate import PlateInfo
from rotomem.types import ObjectId, PlateFrame


class MatteMovies(Output):
    """One movie an object. Frames come in ascending order, from one thread at a time."""

    in_order = True

    def __init__(self, order: Order, pattern: OutputPattern, files: tuple[File, ...], kind: str = "mattes") -> None:
        # Beside stills it shows the matte: their RGB may be scene-linear, which no movie holds.
        self._rgb = order.settings.rgb if kind == "mattes" else "none"
        super().__init__(order, pattern, files, kind)
        self._all: dict[str, str] = {}
        self._movies: dict[File, MatteMovie] = {}
        self._frames: dict[File, frozenset[int]] = {}
        self._lock = threading.Lock()

    @classmethod
    def beside(cls, mattes: Output) -> MatteMovies:
        """A movie an object, beside stills."""
        order = mattes.order
        pattern = mattes.pattern.beside("matte", ".mov", padding=None)
        if len(order.objects) > 1:
            pattern = pattern.per_object(own_folder=False)
        return cls(order, pattern, tuple(File((k,), ("",), name) for k, name in order.layers.items()), "movie")

    def recipe(self) -> Mapping[str, object]:
        return {"rgb": self._rgb}

    def of_all(self, keys: str, source: str) -> None:
        self._all = {"keys": keys, "source": source}

    def refuse(self, frame: int, source: Path | None) -> None:
        for path in self.paths(frame):
            self._refuse_plate_name(path, frame, source)
            if not self.order.replace_foreign:
                MatteMovie.refuse_foreign_movie(path)

    def write(self, frame: PlateFrame, alpha: Mapping[ObjectId, Alpha], told: Told) -> None:
        info = self.order.info
        window = info.display_window
        for file in self.files:
            path = self.path(frame.frame, file)
            self._refuse_plate_name(path, frame.frame, frame.path)
            plane = on_window(alpha.get(file.objects[0]), info.canvas, window)
            with self._lock:
                movie = self._movies.get(file)
                if movie is None:
                    # What else the first frame says is of it alone.
                    first = {k: v for k, v in told(file.objects).items() if k in ("keys", "source")}
                    attributes = self.attributes(file, self._all or first)
                    if self._rgb != "none":
                        attributes["rotomem/rgb"] = RGB_TOLD[self._rgb]
                    movie = MatteMovie(path, frame, info, attributes, replace_foreign=self.order.replace_foreign)
                    self._movies[file] = movie
                movie.add(frame, plane, self._colour(frame, plane))

    def _colour(self, frame: PlateFrame, matte: Alpha) -> NDArray[np.float32] | None:
        if self._rgb == "none":
            return None
        plate = plate_on(frame, self.order.info.display_window)
        if self._rgb == "premult":
            return premultiplied(plate, matte)
        if self._rgb == "keep":
            return unit(plate)
        assert self.order.foreground is not None  # MatteWriter has seen to it
        return self.order.foreground(unit(plate), matte)

    def is_current(self, frame: int, sources: Sources) -> bool:
        """Cost: the decoding of the movie, once for all frames."""
        with self._lock:
            for file in self.files:
                if file not in self._frames:
                    path = self.path(frame, file)
                    source = self._all.get("source", "".join(sources(file.objects)))
                    self._frames[file] = frames_of_movie(path, self.order.info, self._digests[file], source)
            return all(frame in self._frames[file] for file in self.files)

    def close(self) -> None:
        """The movies get their names now."""
        with self._lock:
            movies, self._movies = self._movies, {}
            self._frames = {}
        try:
            while movies:
                _, movie = movies.popitem()
                movie.finish()
        finally:
            for movie in movies.values():
                movie.abandon()

    def abandon(self) -> None:
        """Movies that are not finished disappear."""
        with self._lock:
            movies, self._movies = self._movies, {}
        for movie in movies.values():
            movie.abandon()


class MatteMovie:
    """One ProRes 4444 movie on its way, under a temporary name until `finish`."""

    def __init__(
        self,
        path: Path,
        first: PlateFrame,
        info: PlateInfo,
        attributes: Mapping[str, str],
        *,
        replace_foreign: bool = False,
    ) -> None:
        self.path = path
        self.window = info.display_window
        self.count = 0
        self.last: int | None = None
        if not replace_foreign:
            self.refuse_foreign_movie(path)
        self._stack = contextlib.ExitStack()
        self._part = self._stack.enter_context(whole_file(path))
        self._rate = (info.fps or Fraction(24)).limit_denominator(1001)
        try:
            self._container = av.open(
                os.fspath(self._part),
                "w",
                format="mov",
                options={"movflags": "use_metadata_tags", "fflags": "+bitexact"},
            )
            for key, value in attributes.items():
                self._container.metadata[key] = value
            self._container.metadata["rotomem/first"] = str(first.frame)
            stream: Any = self._container.add_stream(
                "prores_ks", rate=self._rate, options={"profile": "4444", "alpha_bits": "16", "vendor": "apl0"}
            )
            stream.width, stream.height = self.window.width, self.window.height
            stream.pix_fmt = "yuva444p10le"
            context = stream.codec_context
            context.color_range = context.colorspace = context.color_primaries = context.color_trc = 1
            context.sample_aspect_ratio = Fraction(first.pixel_aspect).limit_denominator(1000)
            start = _movie_timecode(first, info)
            if start:
                stream.metadata["timecode"] = start
            self._stream = stream
        except BaseException as e:
            self._leave(e)
            if isinstance(e, (av.FFmpegError, OSError)):
                raise cannot_write(path, _reason(e), frame=first.frame) from e
            raise

    @staticmethod
    def refuse_foreign_movie(path: Path) -> None:
        """Raise OutputError where a movie that rotomem did not write has that name."""
        tags = _movie_tags(path) if path.exists() else None
        if tags is not None and "rotomem/settings" not in tags:
            raise OutputError(
                "a movie that rotomem did not write stands where the matte should go",
                remedy="move it away, or choose another name",
                path=path,
            )

    def add(self, frame: PlateFrame, plane: Alpha, rgb: NDArray[np.float32] | None) -> None:
        """Encode the next frame; frames come in ascending order, since a movie has no other."""
        if self.last is not None and frame.frame <= self.last:
            raise OutputError(
                f"frame {frame.frame} comes after frame {self.last}; a movie is written in order",
                remedy="write a sequence (.exr or .png) where frames are made backwards",
                path=self.path,
            )
        try:
            for packet in self._stream.encode(self._picture(plane, rgb)):
                self._container.mux(packet)
        except (av.FFmpegError, OSError) as e:
            self.abandon()
            raise cannot_write(self.path, _reason(e), frame=frame.frame) from e
        self.count += 1
        self.last = frame.frame

    def _picture(self, plane: Alpha, rgb: NDArray[np.float32] | None) -> Any:
        height, width = plane.shape
        if rgb is None:
            # Limited-range luma that shows the matte as a grey picture too, in players that ignore alpha.
            luma = np.rint(64 + 876 * plane).astype(np.uint16)
            grey = np.full((height, width), 512, np.uint16)
            planes = [luma, grey, grey]
        else:
            # BT.709, limited range, 10 bit (ITU-R BT.709-6, section 3).
            y = rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32)
            cb, cr = (rgb[..., 2] - y) / 1.8556, (rgb[..., 0] - y) / 1.5748
            planes = [
                np.rint(np.clip(base + scale * v, 4, 1019)).astype(np.uint16)
                for v, base, scale in ((y, 64, 876), (cb, 512, 896), (cr, 512, 896))
            ]
        planes.append(np.rint(1023 * plane).astype(np.uint16))
        picture: Any = av.VideoFrame(width, height, "yuva444p10le")
        for target, source in zip(picture.planes, planes, strict=True):
            rows = np.frombuffer(target, np.uint16).reshape(target.height, target.line_size // 2)
            rows[:, :width] = source
        picture.pts = self.count
        picture.time_base = 1 / self._rate
        picture.color_range = picture.colorspace = picture.color_primaries = picture.color_trc = 1
        return picture

    def finish(self) -> None:
        """Flush, check, and let the movie take its name."""
        try:
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()
            tags, frames = _movie_tags(self._part), _movie_length(self._part)
            if not tags or "rotomem/settings" not in tags or frames != self.count:
                raise cannot_write(self.path, f"the movie reads back with {frames} frames, {self.count} were written")
        except BaseException as e:
            self._leave(e)
            if isinstance(e, (av.FFmpegError, OSError)):
                raise cannot_write(self.path, _reason(e)) from e
            raise
        self._stack.close()

    def abandon(self) -> None:
        """Throw the unfinished movie away."""
        with contextlib.suppress(Exception):
            self._container.close()
        self._leave(KeyboardInterrupt())

    def _leave(self, error: BaseException) -> None:
        # Tells whole_file that the block failed, so that it removes the temporary file.
        with contextlib.suppress(BaseException):
            self._stack.__exit__(type(error), error, error.__traceback__)


def _reason(error: Exception) -> OSError | str:
    """Why, without the file name, which would be the temporary one; the system's errors keep their number."""
    if isinstance(error, OSError) and error.errno:
        return OSError(error.errno, os.strerror(error.errno))
    return str(getattr(error, "strerror", None) or error)


def _movie_timecode(first: PlateFrame, info: PlateInfo) -> str | None:
    name = next((k for k in first.metadata if k.lower() == "smpte:timecode"), None)
    value = first.metadata[name] if name else None
    if isinstance(value, TypedValue):
        return timecode.unpack(value.value)
    if info.timecode and info.frames and info.fps:
        return timecode.advance(info.timecode, first.frame - info.frames[0], info.fps)
    return info.timecode


def _movie_tags(path: Path) -> dict[str, str] | None:
    """A movie's metadata, or None where it is no movie that can be opened."""
    try:
        with av.open(os.fspath(path)) as container:
            return dict(container.metadata)
    except (av.FFmpegError, OSError):
        return None


def _movie_length(path: Path) -> int:
    """Frames that decode without damage."""
    count = 0
    with contextlib.suppress(av.FFmpegError, OSError), av.open(os.fspath(path)) as container:
        for packet in container.demux(video=0):
            if packet.size and not packet.is_corrupt:
                count += 1
    return count


def frames_of_movie(path: Path, info: PlateInfo, settings_hash: str, source: str = "") -> frozenset[int]:
    """The frames that a whole movie with these settings and this source ("": any) holds, else none."""
    tags = _movie_tags(path)
    if not tags or tags.get("rotomem/settings") != settings_hash:
        return frozenset()
    if source and tags.get("rotomem/source") != source:
        return frozenset()
    count = 0
    try:
        with av.open(os.fspath(path)) as container:
            for picture in container.decode(video=0):
                if getattr(picture, "is_corrupt", False):
                    return frozenset()
                count += 1
        first = int(tags["rotomem/first"])
    except (av.FFmpegError, OSError, KeyError, ValueError):
        return frozenset()
    present = [f for f in info.frames if f >= first]
    every = [f for f in sorted({*info.frames, *info.missing}) if f >= first]
    # Missing frames were held, black, or skipped; the movie's length says which.
    return frozenset(present if count == len(present) else every[:count])
