"""Which windows of the plate a segment is tracked in: told by the artist, or by a scout sent ahead.

The scout is the same passes over the same frames, on the whole canvas at a low resolution. It is not sent where the
key frames alone say that a window would not be worth it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
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
from rotomem.types import KeyMask, ObjectId, Window

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
    boxes = {f: _boxes(shot.keys[f], canvas) for f in segment.keys}
    extents: dict[int, Window | None] = {f: _around(own) for f, own in boxes.items()}
    if planned(extents) is None:
        return None, whole
    size = scout_size((box for own in boxes.values() for box in own), canvas, options.size, pixel_aspect)
    look = footage.within(fixed_region(frames, canvas, canvas, size=size, pixel_aspect=pixel_aspect))
    lost = []
    for stored in track_segment(shot, segment, look, scratch, direction=options.direction):
        seen = extent(stored.mattes.values(), canvas)
        extents[stored.frame] = _around([box for box in (seen, extents.get(stored.frame)) if box is not None])
        if seen is None and shot.shares(stored.frame, options.direction):
            lost.append(stored.frame)
    if len(lost) > _LOST * len(segment.frames):
        return None, f"{where}: the whole frame, at {size} lines nothing is seen on {compact_frames(lost)}"
    region = planned(extents)
    return region, whole if region is None else _told(segment, region)


def gain(shots: Sequence[Shot], info: PlateInfo, options: TrackOptions, plan: MemoryPlan) -> float:
    """How many times finer the network would see some group of objects in a window, by its first key; 1 or more."""
    planned = _planner(info, options, plan)
    first = (shot.keys[min(shot.keys)] for shot in shots)
    regions = (planned({0: _around(_boxes(key, info.canvas))}) for key in first)
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


def _around(boxes: Sequence[Window]) -> Window | None:
    return reduce(Window.union, boxes) if boxes else None


def keyed_outside(shot: Shot, region: Region, canvas: Window) -> list[tuple[int, ObjectId]]:
    """(frame, object) of the keys that show an object of which no pixel lies in the window."""
    boxes = [
        (frame, number, extent([alpha], canvas, drawn=True))
        for frame in region.windows
        if (key := shot.keys.get(frame)) is not None
        for number, alpha in zip(key.objects, key.alpha, strict=True)
    ]
    return [
        (frame, number)
        for frame, number, box in boxes
        if box is not None and box.intersect(region.windows[frame]).empty
    ]


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


def _boxes(key: KeyMask, canvas: Window) -> list[Window]:
    """Around every object that a key shows."""
    boxes = (extent([alpha], canvas, drawn=True) for alpha in key.alpha)
    return [box for box in boxes if box is not None]


def _told(segment: Segment, region: Region) -> str:
    g, windows = region.geometry, [region.windows[f] for f in segment.frames]
    places = len(set(windows))
    where = f"at {windows[0].x0:+d}{windows[0].y0:+d}" if places == 1 else f"in {places} places"
    return f"frames {compact_frames(segment.frames)}: a window of {g.width}x{g.height} {where}, seen at {g.w}x{g.h}"
