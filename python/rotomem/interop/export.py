"""Plate and mattes as the text that loads them in a host, by the host's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rotomem.errors import UsageError
from rotomem.interop import KINDS
from rotomem.interop.blender import blender_script
from rotomem.interop.footage import footage, matte_footage
from rotomem.interop.fusion import fusion_comp, fusion_setting
from rotomem.interop.nuke import nuke_script
from rotomem.interop.timeline import otio_timeline
from rotomem.io.atomic import whole_file

_WRITERS = {
    "nk": nuke_script,
    "comp": fusion_comp,
    "setting": fusion_setting,
    "blender": blender_script,
    "otio": otio_timeline,
}


def exported(kind: str, plate: str, mattes: Sequence[str], *, origin: int | None = None) -> str:
    """The text of one of KINDS for a plate as `track` takes it, and folders, patterns or movies of mattes.

    origin   of a "comp" or "setting": the frame on disk that is at time 0 of the composition

    Raises UsageError for another kind, and what looking at plate and mattes raises.
    """
    if kind not in _WRITERS:
        raise UsageError(f"cannot export {kind!r}", remedy=f"give one of {', '.join(KINDS)}")
    seen = footage(plate), [one for where in mattes for one in matte_footage(where)]
    if origin is None:
        return _WRITERS[kind](*seen)
    if kind == "setting":
        return fusion_setting(*seen, origin=origin)
    if kind != "comp":
        raise UsageError(f"an origin for {kind}", remedy="leave it out; only a comp and a setting have one")
    return fusion_comp(*seen, origin=origin)


def write_export(kind: str, text: str, path: Path) -> None:
    """Write it whole, or not at all. Raises OutputError."""
    with whole_file(path, what=KINDS[kind]) as part:
        part.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")
