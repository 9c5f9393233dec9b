"""Which windows of the plate a segment is tracked in: told by the artist, or by a scout sent ahead.

The scout is the same passes over the same frames, on the whole canvas at a low resolution. It is not sent where the
key frames alone say that a window would not be worth it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rotomem.engine.footage import PlateFootage
from rotomem.engine.geometry import fit
from rotomem.engine.options import TrackOptions
from rotomem.engine.passes import Shot, track_segment
from rotomem.engine.roi import AUTO, OFF, Region, extent, fixed_region, plan_region, scout_size
from rotomem.engine.segments import Segment
from rotomem.engine.store import StoredFrame
from rotomem.io.plate import PlateInfo
from rotomem.io.sequence import compact_frames
from rotomem.models.interface import MemoryPlan
from rotomem.types import KeyMask, Window

_LOST = 0.2  # share of the frames on which a scout may see nothing of what ought to be there


def choose_region(
    shot: Shot,
    segment: Segment,
    footage: PlateFootage,
    scratch: Path,
    options: TrackOptions,
    plan: MemoryPlan,
) -> tuple[Region | None, str]:
    """The windows that a segment is tracked in, and what to tell the artist of them.

    scratch   a folder for what one of the scout's passes says while the other runs
    options   those that matter: roi, size, rim, direction
    returns   None for the whole canvas, and why

    Depends on nothing but what the segment's mattes depend on; above all not on which of its frames are asked for.
    """
    canvas, pixel_aspect = footage.canvas, footage.plate.info.pixel_aspect
    frames = sorted({*segment.frames, *segment.keys})
    if options.roi == OFF:
        return None, ""
    if options.roi != AUTO:
        window = Window.parse(options.roi)
        told = fixed_region(frames, window, canvas, size=options.size, pixel_aspect=pixel_aspect, rim=options.rim)
        return told, _told(segment, told)

    planned = _planner(footage.plate.info, options, plan)
    where = f"frames {compact_frames(segment.frames)}"
    whole = f"{where}: the whole frame, no window around the objects shows them much finer"
    drawn = _drawn(shot, segment, canvas)
    if planned(drawn) is None:
        return None, whole
    size = scout_size(_boxes((shot.keys[f] for f in segment.keys), canvas), canvas, options.size, pixel_aspect)
    look = footage.within(fixed_region(frames, canvas, canvas, size=size, pixel_aspect=pixel_aspect))
    extents: dict[int, Window | None] = dict.fromkeys(segment.frames)
    lost = []
    for stored in track_segment(shot, segment, look, scratch, direction=options.direction):
        extents[stored.frame] = extent(stored.mattes.values(), canvas)
        if not stored.mattes and shot.shares(stored.frame, options.direction):
            lost.append(stored.frame)
    if len(lost) > _LOST * len(segment.frames):
        return None, f"{where}: the whole frame, at {size} lines nothing is seen on {compact_frames(lost)}"
    for frame, box in drawn.items():
        seen = extents.get(frame)
        extents[frame] = seen if box is None else box if seen is None else box.union(seen)
    region = planned(extents)
    return region, whole if region is None else _told(segment, region)


def gain(
    shots: Sequence[Shot],
    segments: Sequence[Sequence[Segment]],
    info: PlateInfo,
    options: TrackOptions,
    plan: MemoryPlan,
) -> float:
    """How many times finer the network would see some objects in a window of their own, by the keys alone; 1 or more.

    segments   of each of the shots
    """
    planned = _planner(info, options, plan)
    regions = (planned(_drawn(s, one, info.canvas)) for s, own in zip(shots, segments, strict=True) for one in own)
    h, _ = fit(info.canvas.height, info.canvas.width, options.size, info.pixel_aspect)
    finer = (r.geometry.h * info.canvas.height / (r.geometry.height * h) for r in regions if r is not None)
    return max((1.0, *finer))


def _planner(
    info: PlateInfo, options: TrackOptions, plan: MemoryPlan
) -> Callable[[Mapping[int, Window | None]], Region | None]:
    return partial(
        plan_region,
        canvas=info.canvas,
        size=options.size,
        stride=plan.stride,
        moving=not plan.placed_keys,
        pixel_aspect=info.pixel_aspect,
        rim=options.rim,
    )


def _drawn(shot: Shot, segment: Segment, canvas: Window) -> dict[int, Window | None]:
    """Key frame -> box around what it shows."""
    return {f: extent(shot.keys[f].alpha, canvas, drawn=True) for f in segment.keys}


def reaches_border(stored: StoredFrame, canvas: Window) -> bool:
    """Whether an object is likely on a border of its window that is none of the canvas: there may be more of it."""
    window = stored.window
    for matte in stored.mattes.values():
        borders = (
            (window.y0 > canvas.y0, matte[0]),
            (window.y1 < canvas.y1, matte[-1]),
            (window.x0 > canvas.x0, matte[:, 0]),
            (window.x1 < canvas.x1, matte[:, -1]),
        )
        if any(inside and bool((border > 0.5).any()) for inside, border in borders):
            return True
    return False


def _boxes(keys: Iterable[KeyMask], canvas: Window) -> list[Window]:
    """Around every object on every key that shows it."""
    boxes = (extent([alpha], canvas, drawn=True) for key in keys for alpha in key.alpha)
    return [box for box in boxes if box is not None]


def _told(segment: Segment, region: Region) -> str:
    g, windows = region.geometry, [region.windows[f] for f in segment.frames]
    places = len(set(windows))
    where = f"at {windows[0].x0:+d}{windows[0].y0:+d}" if places == 1 else f"in {places} places"
    return f"frames {compact_frames(segment.frames)}: a window of {g.width}x{g.height} {where}, seen at {g.w}x{g.h}"
