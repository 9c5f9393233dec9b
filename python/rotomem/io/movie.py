"""Movies through PyAV: frame-accurate in any order, colour matrix and range honoured, damage told.

Frames are counted from 1 in the order they are shown, whatever the time code says (that goes to the metadata). The
count is exact: it comes from the packets of the file, not from its duration. Everything that is needed of the stream
is copied while the file is open, since a stream outlives its container only as freed memory.
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from rotomem.errors import InputError, PlateError
from rotomem.io.exr import TypedValue, check_regular
from rotomem.io.timecode import advance, pack

_CACHE_BYTES = 192 << 20
"""Decoded frames kept for a caller who goes backwards; otherwise each step back would decode a whole group again."""

_UNSPECIFIED = (2, 3)
_MATRICES = {
    0: "rgb",
    1: "bt709",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    9: "bt2020nc",
    10: "bt2020c",
}
_PRIMARIES = {1: "bt709", 5: "bt470bg", 6: "smpte170m", 9: "bt2020", 11: "dci-p3", 12: "display-p3"}
_TRANSFERS = {
    1: "bt709",
    4: "gamma22",
    5: "gamma28",
    6: "smpte170m",
    8: "linear",
    13: "srgb",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "pq",
    18: "hlg",
}
_SWS_709, _SWS_601 = 1, 5
_UNTIMED = frozenset({"avi", "h264", "hevc", "mpegvideo", "m4v", "vc1"})
"""Containers that store no display time: what FFmpeg then makes up is wrong where frames are stored out of order."""

_FAILURES = (av.error.FFmpegError, OSError, ValueError, RuntimeError, MemoryError, LookupError)


@dataclass(frozen=True)
class MovieInfo:
    """What was understood of a movie. Sizes are those of the picture as shown, after any rotation."""

    width: int
    height: int
    frame_count: int
    fps: Fraction | None
    timecode: str | None
    pixel_aspect: float
    codec: str
    pixel_format: str
    pixel_type: str
    has_alpha: bool
    rotation: int
    colour_hints: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MoviePicture:
    """One frame: rgb [h, w, 3] uint8, uint16 (over 8 bits) or float32, alpha [h, w] of that type or None."""

    rgb: NDArray[np.generic]
    alpha: NDArray[np.generic] | None


class Movie:
    """An open movie. `read` may be called from several threads; one decoder serves them in turn.

    Asking for the next frame decodes one frame; asking for another one seeks to the key frame before it.
    Raises MissingFrameError, PlateError naming the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        check_regular(self.path)
        self._lock = threading.Lock()
        self._container: Any = None
        self._frames: Iterator[Any] | None = None
        self._at = -1  # place of the frame decoded last
        self._asked = -1
        self._cache: OrderedDict[int, Any] = OrderedDict()
        self._cached_bytes = 0
        try:
            self._index = _Index.of(self.path)
            self.info = self._look()
        except InputError:
            raise
        except _FAILURES as e:
            raise self._failure("the movie cannot be opened", e) from None

    def read(self, number: int) -> MoviePicture:
        """Frame `number`, counted from 1. Raises PlateError where it is damaged or absent."""
        with self._lock:
            place = number - 1
            if not 0 <= place < self._index.count:
                raise PlateError(
                    f"the movie has frames 1-{self._index.count}, not {number}", path=self.path, frame=number
                )
            try:
                frame = self._decode(place)
            except InputError:
                raise
            except _FAILURES as e:
                self._release()
                raise self._failure("the frame cannot be decoded", e, number) from None
            if frame is None:
                raise PlateError(
                    "the frame cannot be decoded",
                    path=self.path,
                    frame=number,
                    remedy="the movie may be damaged; export it again, or leave the frame out with --frames",
                )
            if frame.is_corrupt:
                raise PlateError(
                    "the frame is damaged",
                    path=self.path,
                    frame=number,
                    remedy="export the movie again, or leave the frame out with --frames",
                )
            self._asked = place
            return self._convert(frame)

    def metadata(self, number: int) -> dict[str, object]:
        """What a matte of frame `number` should carry on: rate and time code, as EXR attributes."""
        found: dict[str, object] = {}
        fps, start = self.info.fps, self.info.timecode
        if fps is not None:
            found["framesPerSecond"] = TypedValue("rational", (fps.numerator, fps.denominator))
            if start is not None and (bits := pack(advance(start, number - 1, fps))) is not None:
                found["smpte:TimeCode"] = TypedValue("timecode", (bits, 0))
        return found

    def close(self) -> None:
        with self._lock:
            self._release()

    # Looking ------------------------------------------------------------------------------------------

    def _look(self) -> MovieInfo:
        """Open, decode the first frame, and say what the movie is."""
        frame = self._decode(0)
        if frame is None:
            raise PlateError("no frame of the movie can be decoded", path=self.path, remedy="it may be damaged")
        stream = self._container.streams.video[0]
        fmt = frame.format
        bits = max((c.bits for c in fmt.components), default=8)
        is_float = "f32" in fmt.name or "f16" in fmt.name
        rotation = round(frame.rotation / 90) % 4 * 90
        width, height = int(frame.width), int(frame.height)
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
        pixel_aspect = float(aspect) if aspect and 0.05 < aspect < 20 else 1.0
        notes = list(self._index.notes)
        if rotation in (90, 270):
            width, height, pixel_aspect = height, width, 1.0 / pixel_aspect
        if rotation:
            notes.append(f"the movie is turned by {rotation} degrees, as it asks for")
        if frame.interlaced_frame:
            notes.append("the movie is interlaced; its fields are read woven together, as they are stored")
        untagged = not fmt.is_rgb and int(frame.colorspace) in _UNSPECIFIED
        if untagged:
            notes.append(
                f"the movie names no colour matrix; Rec.{'709' if height >= 720 else '601'} is taken from its height"
            )
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        tags: dict[str, object] = {
            "movie:codec": str(stream.codec_context.name),
            "movie:range": "full" if int(frame.color_range) == 2 or fmt.name.startswith("yuvj") else "video",
        }
        context = stream.codec_context
        for name, names, values in (
            ("movie:matrix", _MATRICES, (frame.colorspace, context.colorspace)),
            ("movie:primaries", _PRIMARIES, (frame.color_primaries, context.color_primaries)),
            ("movie:transfer", _TRANSFERS, (frame.color_trc, context.color_trc)),
        ):
            known = [names[int(v)] for v in values if int(v) in names]
            if known:
                tags[name] = known[0]
        return MovieInfo(
            width=width,
            height=height,
            frame_count=self._index.count,
            fps=Fraction(rate) if rate else None,
            timecode=_timecode(self._container, stream),
            pixel_aspect=pixel_aspect,
            codec=str(context.name),
            pixel_format=str(fmt.name),
            pixel_type="float" if is_float else "uint8" if bits <= 8 else "uint16",
            has_alpha=any(c.is_alpha for c in fmt.components) or "pal8" in fmt.name,
            rotation=rotation,
            colour_hints=tags,
            notes=tuple(notes),
        )

    # Decoding -----------------------------------------------------------------------------------------

    def _decode(self, place: int) -> Any:
        """The frame shown at `place` (from 0), or None where decoding passes it by."""
        if place in self._cache:
            return self._cache[place]
        index = self._index
        backwards = place < self._asked
        key = index.key_before(place)
        if self._frames is None or not (self._at < place and key <= self._at + 1):
            self._seek(key)
        found = self._forward(place, keep=backwards)
        step = 1
        while found is None and key > 0:
            # Open groups: frames shown before a key frame but stored after it are lost by a seek to that key frame.
            # Start further back until nothing is missed.
            key = index.key_before(max(key - step, 0))
            step *= 2
            self._seek(key)
            found = self._forward(place, keep=backwards)
        if found is None:
            self._release()
            self._seek(0)
            found = self._forward(place, keep=backwards)
        return found

    def _forward(self, place: int, keep: bool) -> Any:
        """Decode up to `place`; None where the first frame that comes is already later, or none comes."""
        assert self._frames is not None
        for frame in self._frames:
            at = self._index.place_of(frame.pts, self._at)
            if at is None:
                continue
            self._at = at
            if keep:
                self._remember(at, frame)
            if at == place:
                return frame
            if at > place:
                return None
        self._frames = None
        return None

    def _seek(self, place: int) -> None:
        """Stand before the frame at `place`, as near as the container's own index allows."""
        index = self._index
        if self._container is None or index.times is None or place == 0:
            # From the start by opening again: some containers cannot seek to their first frame.
            self._release()
            self._container = av.open(str(self.path))
            stream = self._container.streams.video[0]
            # Frame threads answer a seek only after as many frames as there are threads; where every frame is a key
            # frame, slices of one frame keep the cores as busy (ProRes backwards: 64 -> 30 ms a frame).
            stream.thread_type = "SLICE" if len(index.keys) == index.count else "AUTO"
        else:
            stream = self._container.streams.video[0]
        if index.times is not None and place > 0:
            self._container.seek(index.key_times[place], stream=stream, backward=True)
            self._at = -2
        else:
            self._at = -1
        self._frames = self._container.decode(stream)

    def _remember(self, at: int, frame: Any) -> None:
        if at in self._cache:
            return
        self._cache[at] = frame
        self._cached_bytes += _bytes_of(frame)
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            _, old = self._cache.popitem(last=False)
            self._cached_bytes -= _bytes_of(old)

    def _release(self) -> None:
        self._cache.clear()
        self._cached_bytes = 0
        self._frames = None
        if self._container is not None:
            self._container.close()
            self._container = None

    # Pixels -------------------------------------------------------------------------------------------

    def _convert(self, frame: Any) -> MoviePicture:
        info = self.info
        kind = {"uint8": ("rgb24", "rgba"), "uint16": ("rgb48le", "rgba64le"), "float": ("gbrpf32le", "gbrapf32le")}
        target = kind[info.pixel_type][int(info.has_alpha)]
        matrix = None
        if not frame.format.is_rgb and int(frame.colorspace) in _UNSPECIFIED:
            # FFmpeg would take Rec.601 for every untagged movie; HD ones are Rec.709.
            matrix = _SWS_709 if info.height >= 720 else _SWS_601
        size = (info.height, info.width) if info.rotation in (90, 270) else (info.width, info.height)
        picture = frame.reformat(
            width=size[0], height=size[1], format=target, src_colorspace=matrix, dst_color_range=2
        ).to_ndarray()
        if info.rotation:
            picture = np.ascontiguousarray(np.rot90(picture, info.rotation // 90))
        return MoviePicture(picture[:, :, :3], picture[:, :, 3] if info.has_alpha else None)

    def _failure(self, what: str, error: BaseException, number: int | None = None) -> PlateError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return PlateError(
            f"{what}: {' '.join(str(reason).split())[:160]}",
            path=self.path,
            frame=number,
            remedy="it may be damaged, incomplete, or no movie; export it again",
        )


@dataclass(frozen=True)
class _Index:
    """Every frame of a movie in the order shown.

    times      presentation time of each frame in stream ticks, ascending; None where packets do not say, then frames
               are counted as they are decoded and going back starts from the beginning
    keys       places of key frames, ascending
    key_times  place of a key frame -> the time to seek to
    """

    count: int
    times: tuple[int, ...] | None
    keys: tuple[int, ...]
    key_times: Mapping[int, int]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path) -> _Index:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise PlateError("the file holds no moving picture", path=path)
            stream = container.streams.video[0]
            claimed = int(stream.frames or 0)
            found = _intra_index(stream, claimed) or _packet_index(container, stream)
            times, keys, packets = found
            base = stream.time_base
            rate = stream.average_rate or stream.guessed_rate
            lasts = float(container.duration or 0) / av.time_base
        if packets == 0:
            raise PlateError("the movie holds no frames", path=path, remedy="it may be incomplete; export it again")
        if packets < claimed:
            raise PlateError(
                f"the movie claims {claimed} frames and holds {packets}",
                path=path,
                remedy="it is incomplete; copy or export it again",
            )
        if times is None:
            return cls(packets, None, (0,), {})
        ordered = sorted(times)
        places = {t: i for i, t in enumerate(ordered)}
        key_times = {places[t]: min(t, d) for t, d in keys.items() if t in places}
        key_times.setdefault(0, ordered[0])
        notes: list[str] = []
        gaps = np.diff(np.array(ordered, dtype=np.float64))
        if gaps.size > 1 and base and rate:
            # Millisecond clocks (mkv) round each time by up to one tick; more than that is a changing rate.
            expected = float(1 / (Fraction(rate) * Fraction(base)))
            allowed = max(1.01, 0.2 * expected) if expected > 4 else 0.5
            if float(np.abs(gaps - np.median(gaps)).max()) > allowed:
                notes.append(
                    "the frame rate changes within the movie; frames are counted in order, one after another"
                )
            missed = lasts * float(rate) - (ordered[-1] - ordered[0]) * float(base) * float(rate) - 1
            if missed > 2:
                notes.append(
                    f"the file says it lasts {lasts:.2f} s, about {missed:.0f} frames more than it holds: "
                    "it may be incomplete (or its sound is longer)"
                )
        return cls(len(ordered), tuple(ordered), tuple(sorted(key_times)), key_times, tuple(notes))

    def key_before(self, place: int) -> int:
        """The last key frame at or before `place`."""
        i = bisect.bisect_right(self.keys, place) - 1
        return self.keys[max(i, 0)]

    def place_of(self, pts: int | None, at: int) -> int | None:
        """The place of a decoded frame; None for one that the file shows at no time."""
        if self.times is None:
            return at + 1
        if pts is None:
            return at + 1 if at >= -1 else None
        i = bisect.bisect_left(self.times, pts)
        if i < self.count and self.times[i] == pts:
            return i
        return None


def _intra_index(stream: Any, claimed: int) -> tuple[set[int] | None, dict[int, int], int] | None:
    """The container's own index where it is whole and every frame is a key frame: no need to read all the packets."""
    try:
        entries = list(stream.index_entries)
    except (AttributeError, *_FAILURES):
        return None
    if claimed == 0 or len(entries) != claimed or any(not e.is_keyframe or e.is_discard for e in entries):
        return None
    times = [int(e.timestamp) for e in entries]
    last = max(entries, key=lambda e: e.pos)
    if len(set(times)) != len(times) or last.pos + last.size > _file_size(stream):
        return None
    return set(times), {t: t for t in times}, len(times)


def _packet_index(container: Any, stream: Any) -> tuple[set[int] | None, dict[int, int], int]:
    times: set[int] = set()
    keys: dict[int, int] = {}
    packets = 0
    untimed = any(f in _UNTIMED for f in str(container.format.name).split(","))
    intra = True
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        packets += 1
        intra &= bool(packet.is_keyframe)
        if packet.is_discard:
            continue
        if packet.pts is None:
            untimed, intra = True, False
            continue
        times.add(int(packet.pts))
        if packet.is_keyframe:
            keys[int(packet.pts)] = int(packet.dts if packet.dts is not None else packet.pts)
    if (untimed and not intra) or not times:
        return None, {}, packets
    return times, keys, packets


def _file_size(stream: Any) -> int:
    return int(stream.container.size or 0)


def _bytes_of(frame: Any) -> int:
    return sum(int(p.buffer_size) for p in frame.planes)


def _timecode(container: Any, stream: Any) -> str | None:
    for metadata in (stream.metadata, container.metadata, *(s.metadata for s in container.streams)):
        text = metadata.get("timecode")
        if text:
            return str(text)
    return None
