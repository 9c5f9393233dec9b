"""Mattes that lie on disk, ours or another program's: EXR and PNG sequences, found and read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rotomem.errors import MissingFrameError, PlateError
from rotomem.io.exr import Channel, StillHeader, read_header, read_still
from rotomem.io.sequence import find_frames
from rotomem.types import Window

Alpha = NDArray[np.float32]

_FORMATS = (".exr", ".png")
_NUMBERED = re.compile(r"(?P<stem>.*?)[._-]*(?P<frame>(?<!\d)-?\d+)$")


@dataclass(frozen=True)
class MatteFiles:
    """A shot's mattes.

    objects   name -> where it is: (frame -> file, layer or "" for the file's only alpha)
    frames    every frame that any object has, ascending
    """

    objects: Mapping[str, tuple[Mapping[int, Path], str]]
    frames: tuple[int, ...] = field(default=())

    def read(self, frame: int, canvas: Window) -> dict[str, Alpha]:
        """Object -> alpha [H, W] on the canvas, 0..1; zeros where the file has no pixels, or there is no file."""
        layers: dict[Path, dict[str, Alpha]] = {}
        out = {}
        for name, (files, layer) in self.objects.items():
            path = files.get(frame)
            if path is None:
                out[name] = np.zeros((canvas.height, canvas.width), np.float32)
                continue
            if path not in layers:
                layers[path] = read_layers(path, canvas)
            found = layers[path] if layer else {"": next(iter(layers[path].values()))}
            if layer not in found:
                raise PlateError(
                    f"the matte has no layer {layer}", remedy="track the frame again", path=path, frame=frame
                )
            out[name] = np.clip(np.nan_to_num(found[layer]), 0, 1)
        return out

    def told(self, frame: int) -> tuple[dict[str, float], str]:
        """What the files of a frame say of themselves: object -> confidence, and the keys they were made from."""
        headers = [read_header(path) for path in sorted({f[frame] for f, _ in self.objects.values() if frame in f})]
        confidence = {
            name: c for header in headers for name, c in _confidence(header).items() if name in self.objects
        }
        return confidence, ",".join(str(h.metadata["rotomem/keys"]) for h in headers if "rotomem/keys" in h.metadata)


def find_mattes(where: str | Path) -> MatteFiles:
    """The mattes of a folder (or of one folder an object in it), or of a pattern.

    Objects are called what the files say they are, else as their layers or files are.
    Raises MissingFrameError where there are none.
    """
    place = Path(where).expanduser()
    if place.is_dir():
        objects = _objects(_stills(place.iterdir()))
        if not objects:  # nothing, or only what lies beside mattes that have a folder each
            objects = _objects(_stills(f for d in place.iterdir() if d.is_dir() for f in d.iterdir()))
    else:
        found = find_frames(where)
        objects = {} if found.movie else _objects({place.name: dict(found.files)})
    if not objects:
        raise MissingFrameError(
            "no mattes there: expected EXR or PNG files with a frame number; movies are not read",
            remedy="give the folder that `rotomem track` wrote to, or a pattern such as mattes/hero.%04d.exr",
            path=where,
        )
    return MatteFiles(objects, tuple(sorted({f for numbered, _ in objects.values() for f in numbered})))


def _objects(sequences: Mapping[str, Mapping[int, Path]]) -> dict[str, tuple[Mapping[int, Path], str]]:
    """Object -> (frame -> file, layer), of sequences by name; of two with an object of one name, the first."""
    objects: dict[str, tuple[Mapping[int, Path], str]] = {}
    for stem, numbered in sorted(sequences.items()):
        header = read_header(numbered[min(numbered)])
        if "rotomem/kind" not in header.metadata:  # a trimap, a Cryptomatte or packed mattes, beside the mattes
            for name, layer in _names(header, Path(stem).name).items():
                objects.setdefault(name, (numbered, layer))
    return objects


def read_layers(path: Path, canvas: Window | None = None) -> dict[str, Alpha]:
    """Layer -> alpha [H, W] float32 of one picture, "" for a bare `A` or the only channel there is.

    canvas   what to lay it on; None: the file's display window. Pixels that the file has not are 0

    Integers are scaled to 0..1, floats are as they are. Raises PlateError where there is no alpha.
    """
    still = read_still(path, select=_alphas)
    canvas = still.display_window if canvas is None else canvas
    out: dict[str, Alpha] = {}
    for channel, values in zip(still.channels, still.arrays.values(), strict=True):
        full = np.zeros((canvas.height, canvas.width), np.float32)
        inside = still.data_window.intersect(canvas)
        scale = np.iinfo(values.dtype.name).max if values.dtype.kind == "u" else 1
        full[inside.slices_in(canvas)] = values[inside.slices_in(still.data_window)].astype(np.float32) / np.float32(
            scale
        )
        out[channel.layer] = full
    return out


def _alphas(header: StillHeader) -> Sequence[Channel]:
    alphas = [c for c in header.channels if c.component == "A"]
    layered = [c for c in alphas if c.layer]
    chosen = layered or alphas or (list(header.channels) if len(header.channels) == 1 else [])
    if not chosen:
        raise PlateError(
            "the matte has no alpha",
            remedy="expected a channel A, layers with one, or a single channel",
            path=header.path,
        )
    return chosen


def _names(header: StillHeader, stem: str) -> dict[str, str]:
    """Object -> its layer, "" for a file with one alpha."""
    layers = [c.layer for c in _alphas(header)]
    told = _table(header.metadata, "rotomem/objects")
    if layers == [""]:
        return {str(told.get("A", re.sub(r"[%#@].*", "", stem).rstrip("._-") or "matte")): ""}
    order = list(told)  # the artist's; a file sorts its channels by name
    layers.sort(key=lambda layer: order.index(layer) if layer in told else len(order))
    return {str(told.get(layer, layer)): layer for layer in layers}


def told_objects(path: Path) -> set[str]:
    """Objects whose mattes a file holds, as it tells itself where rotomem wrote it; empty for another."""
    return {str(name) for name in _table(read_header(path).metadata, "rotomem/objects").values()}


def told_confidence(path: Path) -> dict[str, float]:
    """Object -> confidence, as a matte file that rotomem wrote tells it; empty for another."""
    return _confidence(read_header(path))


def _confidence(header: StillHeader) -> dict[str, float]:
    told = _table(header.metadata, "rotomem/confidence")
    return {name: float(c) for name, c in told.items() if isinstance(c, (int, float))}


def _table(metadata: Mapping[str, object], name: str) -> dict[str, object]:
    """An attribute that holds a JSON object; empty where there is none."""
    try:
        return dict(json.loads(str(metadata.get(name, "{}"))))
    except (ValueError, TypeError):
        return {}


def _stills(paths: Iterable[Path]) -> dict[str, dict[int, Path]]:
    """Name without its number -> frame -> file."""
    out: dict[str, dict[int, Path]] = {}
    for path in sorted(paths):
        match = _NUMBERED.fullmatch(path.stem)
        if path.suffix.lower() in _FORMATS and match and not path.name.startswith("."):
            out.setdefault(str(path.with_name(match["stem"])), {})[int(match["frame"])] = path
    return out
