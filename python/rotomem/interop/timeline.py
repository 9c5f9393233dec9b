"""OpenTimelineIO: a plate and its mattes as a timeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rotomem.errors import BackendError
from rotomem.interop.footage import Footage

_FPS = 24.0


def otio_timeline(plate: Footage, mattes: Sequence[Footage]) -> str:
    """A timeline as OTIO JSON: the plate on one video track, each sequence of mattes on a track above it.

    A plate that does not say how fast it runs runs at 24. Raises BackendError without opentimelineio.
    """
    otio = opentimelineio()
    fps = float(plate.fps or _FPS)
    timeline = otio.schema.Timeline(os.path.basename(plate.path))
    for name, footage in (("plate", plate), *((_objects(f), f) for f in mattes)):
        track = otio.schema.Track(name, kind=otio.schema.TrackKind.Video)
        called = os.path.basename(plate.path) if footage is plate else name
        clip = otio.schema.Clip(called, media_reference=_reference(otio, footage, fps))
        clip.metadata["rotomem"] = {"objects": {m.channel: m.name for m in footage.mattes}}
        track.append(clip)
        timeline.tracks.append(track)
    return str(otio.adapters.write_to_string(timeline, "otio_json"))


def opentimelineio() -> Any:
    """The library. Raises BackendError where it is not installed."""
    try:
        import opentimelineio
    except ImportError:
        raise BackendError("opentimelineio is not installed", remedy="pip install 'rotomem[otio]'") from None
    return opentimelineio


def _objects(footage: Footage) -> str:
    return ", ".join(m.name for m in footage.mattes) or "mattes"


def _reference(otio: Any, footage: Footage, fps: float) -> Any:
    start = otio.opentime.RationalTime(footage.first, fps)
    available = otio.opentime.TimeRange(start, otio.opentime.RationalTime(footage.frames, fps))
    if footage.movie or "%" not in footage.path:
        return otio.schema.ExternalReference(Path(footage.path).as_uri(), available)
    folder, name = os.path.split(footage.path)
    number = f"%0{(padding := int(name.rpartition('%0')[2].partition('d')[0]))}d"
    prefix, _, suffix = name.rpartition(number)
    return otio.schema.ImageSequenceReference(
        target_url_base=Path(folder).as_uri() + "/",
        name_prefix=quote(prefix),
        name_suffix=quote(suffix),
        start_frame=footage.first,
        frame_step=1,
        rate=fps,
        frame_zero_padding=padding,
        available_range=available,
    )
