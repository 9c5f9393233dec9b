"""Key masks in: what the artist drew on some frames, as soft coverage per object on the plate's canvas.

A mask without a name is a picture of labels: palette indices, grey or integer labels, one colour an object, or
0 and 255 with soft edges, which is one object. With a name it is the soft matte of that object. Soft edges never
become objects (labels.py says how they are told apart), values are never scaled or resized: an 8-bit value v is
v / 255, a half value stays as it is.

A mask may also be a file of splines (.json, .fxs, .nk), drawn as they are on the frame asked for; without a frame
every frame that has a spline key is a key.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from rotomem.errors import InputError, MaskError, UsageError
from rotomem.io.cryptomatte import crypto_layers, read_objects
from rotomem.io.exr import Channel, StillHeader, read_header, read_still, shown
from rotomem.io.labels import Levels, find_levels, fold_edges, fold_noise, is_soft_matte, levels_of
from rotomem.io.plate import Plate, PlateInfo
from rotomem.io.sequence import compact_frames, find_frames
from rotomem.splines.files import is_spline_file, read_splines
from rotomem.splines.raster import rasterise
from rotomem.splines.types import Splines
from rotomem.types import KeyMask, ObjectId, Window

MAX_OBJECTS = 64
"""Labels one mask may hold before it is taken for an accident."""

_MASKS = "give FRAME=PATH or NAME@FRAME=PATH, for example 1001=key.png"
_UNNAMED = re.compile(r"^\s*([+-]?\d+)\s*=(.+)$", re.DOTALL)
_NAMED = re.compile(r"^(.*?)@\s*([+-]?\d+)\s*=(.+)$", re.DOTALL)
_LABEL = re.compile(r"\d+|#[0-9a-fA-F]{6}|#[0-9a-fA-F]{12}")
_DEFAULT_NAME = re.compile(r"obj([1-9]\d*)")
_WHITE = 0.97  # of full: what counts as white, as in labels.is_soft_matte
_FEW_LEVELS = 16  # an anti-aliased or blurred edge alone brings more; so many at most are drawn, every one
_LOSSY_FORMATS = frozenset({"jpeg", "webp", "jpeg2000", "jpegxl"})
_NEAR_GREYS, _NEAR_COLOURS = 12, 48  # how far, of 255, JPEG of quality 75 moves flat levels; with halved chroma
_MOSTLY = 0.95  # share of a picture in flat colours from which on it is drawn and no photograph


@dataclass(frozen=True)
class MaskSpec:
    """One `--mask`: the frame it was drawn on, the file, the object's name or None, the channel or None."""

    frame: int
    path: str
    name: str | None = None
    channel: str | None = None

    def __str__(self) -> str:
        channel = f":{self.channel}" if self.channel else ""
        return f"{self.name + '@' if self.name else ''}{self.frame}={self.path}{channel}"


@dataclass(frozen=True)
class ObjectTable:
    """The objects of a shot, in order of first appearance: ids that never change, and the artist's names.

    names   id -> name; ids are the labels of a label map, or the next free numbers from 1
    """

    names: Mapping[ObjectId, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Keys:
    """All key masks of a run.

    by_frame   frame -> what was drawn there, ascending
    notes      what each mask was taken for: the label list found, values that had to be tamed
    """

    objects: ObjectTable
    by_frame: Mapping[int, KeyMask]
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """Which keys these are: frames, ids and every value."""
        digest = hashlib.blake2b(digest_size=8)
        for frame, key in sorted(self.by_frame.items()):
            digest.update(f"{frame} {key.objects} {key.alpha.shape}".encode())
            digest.update(np.ascontiguousarray(key.alpha).data)
        return digest.hexdigest()


Masks = str | Sequence[str | MaskSpec] | Mapping[int | str, str | Path] | Keys
"""What `load_masks` takes for key masks."""


def parse_mask(text: str) -> MaskSpec:
    """Read `FRAME=PATH`, `NAME@FRAME=PATH`, either with `:channel` after the path.

    The frame may be negative. What follows the last colon is a channel unless the whole is an existing file, the
    rest would be a bare drive letter, or it holds a slash: `C:\\a.exr` has none, `C:\\a.exr:hero.A` has `hero.A`.
    `hero@1001=labels.png:2` and `...:#ff0000` are one label of a picture of labels, and one colour.

    >>> parse_mask("hero@1001=key.exr:hero.A")
    MaskSpec(frame=1001, path='key.exr', name='hero', channel='hero.A')

    Raises UsageError where the text is not of this form.
    """
    remedy = "write it as FRAME=PATH or NAME@FRAME=PATH, for example 1001=key.png or hero@1001=key.exr:A"
    name: str | None = None
    found = _UNNAMED.match(text)
    if found:
        number, rest = found.groups()
    else:
        found = _NAMED.match(text)
        if not found:
            raise UsageError(f"'{text}' does not say which frame the mask belongs to", remedy=remedy)
        name, number, rest = found.groups()
        name = name.strip()
        if not name:
            raise UsageError(f"'{text}' has an empty object name", remedy=remedy)
    rest = rest.strip()
    path, channel = split_channel(rest)
    if not path or "\0" in path:
        raise UsageError(f"'{text}' names no file", remedy=remedy)
    return MaskSpec(int(number), path, name, channel)


def split_channel(text: str) -> tuple[str, str | None]:
    """`PATH[:CHANNEL]` as path and channel; a file that is there settles what is which."""
    if os.path.exists(text):
        return text, None
    colons = [m.start() for m in re.finditer(":", text)]
    for at in reversed(colons):  # a file that is there settles it, colons in its name included
        if text[at + 1 :] and os.path.isfile(text[:at]):
            return text[:at], text[at + 1 :]
    if colons:
        at = colons[-1]
        path, channel = text[:at], text[at + 1 :]
        if channel and not re.search(r"[/\\]", channel) and not re.fullmatch(r"[A-Za-z]?", path):
            return path, channel
    return text, None


def parse_masks(text: str, info: PlateInfo) -> list[MaskSpec]:
    """Read one `--mask`: what `parse_mask` reads, or `NAME=SPLINES` or `SPLINES` for all key frames of a spline file.

    Splines keyed before or after the plate are left out. Without a name each object of the file keeps its own;
    `NAME=SPLINES:object` chooses one of several.

    Raises UsageError where the text is of neither form, SplineError and MaskError for the file.
    """
    if _UNNAMED.match(text) or _NAMED.match(text):
        return [parse_mask(text)]
    name, _, rest = text.rpartition("=") if not os.path.exists(text) else ("", "", text)
    path, chosen = split_channel(rest.strip())
    if not is_spline_file(path):
        return [parse_mask(text)]
    splines = read_splines(path, _size(info.display_window))
    keyed: list[tuple[int, str | None, str | None]] = []
    if name.strip():
        found = _chosen(MaskSpec(0, path, name.strip(), chosen), splines)
        keyed = [(f, name.strip(), chosen) for f in sorted({f for n in found for f in splines.key_frames(n)})]
    else:
        keyed = [(f, n, n) for n in _chosen(MaskSpec(0, path, None, chosen), splines) for f in splines.key_frames(n)]
    delivered = {*info.frames, *info.missing}
    specs = [MaskSpec(f, path, n, c) for f, n, c in keyed if f in delivered]
    if not specs:
        keys = compact_frames(sorted({f for f, _, _ in keyed})) or "no frames"
        raise MaskError(
            f"the splines have keys on {keys}, none of them on the plate's {compact_frames(sorted(delivered))}",
            remedy="name the frame they belong to: NAME@FRAME=PATH",
            path=path,
        )
    return specs


def _chosen(spec: MaskSpec, splines: Splines) -> list[str]:
    """The objects of a spline file that a mask means: the one after the colon, the one of its name, else all."""
    if spec.channel is not None:
        if spec.channel not in splines.objects:
            raise MaskError(
                f"the splines hold no object '{spec.channel}'",
                remedy="they hold " + (", ".join(map(shown, splines.objects)) or "none"),
                path=spec.path,
            )
        return [spec.channel]
    return [spec.name] if spec.name is not None and spec.name in splines.objects else list(splines.objects)


# One picture ---------------------------------------------------------------------------------------------------


@dataclass
class _Drawn:
    """One object of one picture: how it is called before ids are given, and its coverage on the picture's window.

    key       ("id", label), ("colour", hex) or ("name", text)
    channel   what `:channel` means this object alone in its picture; None: the picture shows no other
    """

    key: tuple[str, Any]
    alpha: NDArray[np.float32]
    window: Window
    spec: MaskSpec
    path: Path
    channel: str | None = None

    @property
    def empty(self) -> bool:
        return not self.alpha.any()


class _Picture:
    """A mask file: its header, its place on the canvas, and the ways to look at it."""

    def __init__(self, spec: MaskSpec, info: PlateInfo, notes: list[str]) -> None:
        self.spec = spec
        self.notes = notes
        self._info = info
        self.path = _resolve(spec)
        try:
            self.header: StillHeader = read_header(self.path)
        except InputError as e:
            raise self._unreadable(e) from e
        self.window = self._place(info)

    def error(self, what: str, remedy: str) -> MaskError:
        return MaskError(what, remedy=remedy, path=self.path, frame=self.spec.frame, object=self.spec.name)

    def empty(self) -> MaskError:
        remedy = "draw the object; to say that one is absent here, name it: NAME@FRAME=PATH"
        return self.error("the mask is empty", remedy)

    def note(self, text: str) -> None:
        self.notes.append(f"{self.spec.frame}: {text}")

    def _unreadable(self, e: InputError) -> MaskError:
        remedy = e.remedy or "give a PNG, TIFF or EXR picture"
        return self.error(f"the mask cannot be read: {e.what}", remedy)

    def _place(self, info: PlateInfo) -> Window:
        """Where the picture's pixels lie on the plate. Raises MaskError with both sizes where they fit nowhere."""
        display, canvas = info.display_window, info.canvas
        mine = self.header.display_window
        data = self.header.parts[0].data_window
        if self.header.format == "openexr":
            # Its windows say where it is; only the format must be the plate's, or an overscan one of the canvas.
            if mine in (display, canvas):
                return data
            if _size(mine) == _size(display):
                dx, dy = display.x0 - mine.x0, display.y0 - mine.y0
                return Window(data.x0 + dx, data.y0 + dy, data.x1 + dx, data.y1 + dy)
        elif _size(data) == _size(display):
            return display
        elif _size(data) == _size(canvas):
            return canvas
        size = mine if self.header.format == "openexr" else data
        what = f"the mask is {size.width}x{size.height}, the plate is {display.width}x{display.height}"
        if canvas != display:
            what += f" ({canvas.width}x{canvas.height} with its overscan)"
        remedy = "draw or render it at that size; masks are never resized"
        if info.pixel_aspect != 1.0:
            remedy += f" (the plate is anamorphic, pixel aspect {info.pixel_aspect:g}: keep it squeezed)"
        raise self.error(what, remedy)

    def read(self, *channels: Channel) -> list[NDArray[Any]]:
        """Pixels of channels, each [h, w] in its own type, on this picture's data window."""
        self._check_window(self.header.parts[channels[0].part].data_window)
        try:
            still = read_still(self.path, channels=[c.name for c in channels], header=self.header)
        except InputError as e:
            raise self._unreadable(e) from e
        return [still.arrays[c.name] for c in channels]

    def _check_window(self, window: Window) -> None:
        if window != self.header.parts[0].data_window:
            raise self.error("its channels lie in parts with different data windows", "give a picture of one part")

    def channel(self, name: str) -> Channel:
        """The channel a `:channel` means: its name, a layer that has one channel or an alpha, or a colour word."""
        try:
            found = self.header.find(name)
        except InputError:
            found = None
        if found is not None:
            return found
        words = {"alpha": "A", "red": "R", "green": "G", "blue": "B", "grey": "Y", "gray": "Y", "luma": "Y"}
        of_layer = [c for c in self.header.channels if c.layer.lower() == name.lower()]
        alpha = [c for c in of_layer if c.component.upper() in ("A", "ALPHA")]
        word = [c for c in self.header.channels if not c.layer and c.component == words.get(name.lower())]
        for choice in (alpha, of_layer, word):
            if len(choice) == 1:
                return choice[0]
        listing = ", ".join(shown(c.label) for c in self.header.channels[:24])
        raise self.error(f"the mask has no channel '{name}'", f"its channels are {listing}")

    def bare(self, component: str) -> Channel | None:
        for c in self.header.channels:
            if not c.layer and c.component.upper() == component:
                return c
        return None

    # As labels ------------------------------------------------------------------------------------------------

    def labels(self, max_objects: int) -> list[_Drawn]:
        """The objects of a picture that came without a name."""
        crypto = self._cryptomatte()
        if crypto is not None:
            return self._from_cryptomatte(crypto, max_objects)
        if self.spec.channel:
            channel = self.channel(self.spec.channel)
            if channel.layer and channel.component.upper() in ("A", "ALPHA"):
                return self._from_layers([channel])  # a layer that somebody named
            return self._from_plane(self.read(channel)[0], max_objects)
        if packed := self._packed():
            planes = self.read(*packed.values())
            return [
                self._drawn(("name", name), self.coverage(plane), channel.name)
                for (name, channel), plane in zip(packed.items(), planes, strict=True)
            ]
        palette = palette_indices(self.path) if self.header.format == "png" else None
        if palette is not None:
            return self._from_palette(*palette, max_objects)
        rgb = [self.bare(c) for c in "RGB"]
        alpha = self.bare("A")
        if all(rgb):
            return self._from_colours([c for c in rgb if c], alpha, max_objects)
        layers = [c for c in self.header.channels if c.component.upper() in ("A", "ALPHA")]
        if (
            layers
            and len(layers) == len(self.header.channels)
            and (len(layers) > 1 or layers[0].layer or self._told())
        ):
            return self._from_layers(layers)
        if len(self.header.channels) == 1:
            return self._from_plane(self.read(self.header.channels[0])[0], max_objects)
        grey = self.bare("Y")
        if grey and len(self.header.channels) == 2 and alpha:
            planes = self.read(grey, alpha)
            matte = planes[1] if _varies(planes[1]) and not _varies(planes[0]) else planes[0]
            return self._from_plane(matte, max_objects)
        if alpha and len(layers) == 1:
            return self._from_plane(self.read(alpha)[0], max_objects)
        listing = ", ".join(shown(c.label) for c in self.header.channels[:24])
        raise self.error(
            f"the mask has {len(self.header.channels)} channels: {listing}", "choose one with PATH:channel"
        )

    def _told(self) -> dict[str, str]:
        """Names of the objects in a matte that rotomem wrote, layer -> name."""
        try:
            told = json.loads(str(self.header.metadata.get("rotomem/objects", "{}")))
        except ValueError:
            return {}
        return {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}

    def _packed(self) -> dict[str, Channel]:
        """Name -> channel of the mattes that rotomem packed into this picture's R, G, B and A, if it did."""
        if self.header.metadata.get("rotomem/kind") != "packed":
            return {}
        return {name: c for component, name in self._told().items() if (c := self.bare(component))}

    def _cryptomatte(self) -> dict[str, NDArray[np.float32]] | None:
        """Name -> coverage of the objects that channel or name mean in a Cryptomatte, of all where there is neither.

        None where the picture is no Cryptomatte, or the channel is one of its channels.
        """
        channel = self.spec.channel
        try:
            layers = crypto_layers(self.header)
            known = any(channel in layer.manifest for layer in layers)
            if not layers or (channel and not known and self.header.find(channel)):
                return None
            layer, mattes = read_objects(layers, channel or self.spec.name)
        except InputError as e:
            raise self._unreadable(e) from e
        self._check_window(layer.data_window)
        return mattes

    def _from_cryptomatte(self, mattes: Mapping[str, NDArray[np.float32]], max_objects: int) -> list[_Drawn]:
        if not mattes:
            raise self.empty()
        if len(mattes) > max_objects:
            raise self.error(
                f"the Cryptomatte shows {len(mattes)} objects (at most {max_objects} are taken at once)",
                "name those you want: PATH:NAME, or NAME@FRAME=PATH",
            )
        drawn = [self._drawn(("name", name), self.coverage(plane), name) for name, plane in mattes.items()]
        self.note("Cryptomatte of " + ", ".join(f"{shown(d.key[1])} ({_share(d.alpha)})" for d in drawn))
        return drawn

    def _from_layers(self, layers: list[Channel]) -> list[_Drawn]:
        told = self._told()
        drawn = []
        for c, plane in zip(layers, self.read(*layers), strict=True):
            name = told.get(c.layer or "A") or c.layer or "obj1"
            drawn.append(self._drawn(("name", name), self.coverage(plane), c.label))
        seen = [d for d in drawn if not d.empty] or drawn
        self.note("one soft matte a layer: " + ", ".join(f"{d.key[1]} ({_share(d.alpha)})" for d in seen))
        return seen

    def _from_palette(self, index: NDArray[np.uint8], palette: NDArray[np.uint8], max_objects: int) -> list[_Drawn]:
        used, place = np.unique(index, return_inverse=True)
        place = place.reshape(index.shape)
        colours = palette[used].astype(np.float64)
        if used.size > 2 and (colours == colours[:, :1]).all():
            # A palette of greys may be a ramp of coverage; seen as greys it is the same picture as without palette.
            grey = palette[index, 0]
            if is_soft_matte(find_levels(grey), 255.0):
                return self._one_matte(self.coverage(grey))
        levels = fold_edges(levels_of(place, colours))
        return self._objects(levels, [int(v) for v in used], len(used), max_objects)

    def _from_colours(self, rgb: list[Channel], alpha: Channel | None, max_objects: int) -> list[_Drawn]:
        planes = self.read(*rgb)
        matte = self.read(alpha)[0] if alpha else None
        grey = all(np.array_equal(planes[0], p, equal_nan=p.dtype.kind == "f") for p in planes[1:])
        if matte is not None and _varies(matte):
            return self._from_rgba(planes, matte, max_objects)
        if grey:
            return self._from_plane(planes[0], max_objects)
        return self._from_colour_levels(find_levels(_integers(planes)), max_objects)

    def _from_rgba(self, planes: list[NDArray[Any]], matte: NDArray[Any], max_objects: int) -> list[_Drawn]:
        """Alpha is the matte, unless the picture is flat colours on nothing: then each colour is an object."""
        colours = _integers(planes)
        coverage = self.coverage(matte)
        colours[coverage == 0] = 0
        levels = find_levels(colours)
        solid = levels_of(np.where(coverage == 1, levels.index, len(levels.values)), np.r_[levels.values, [[-1] * 3]])
        coloured = (levels.values > 0).any(axis=1) & (solid.counts[:-1] > 0)
        flat = coloured & solid.drawn[:-1]
        mostly_flat = flat.sum() >= 2 and solid.counts[:-1][flat].sum() >= _MOSTLY * (coverage == 1).sum()
        if 2 <= coloured.sum() <= max_objects or (mostly_flat and flat.sum() <= max_objects):
            return self._from_colour_levels(levels, max_objects)
        self.note("the mask has an alpha channel, which is taken as the matte")
        return self._one_matte(coverage)

    def _from_colour_levels(self, levels: Levels, max_objects: int) -> list[_Drawn]:
        before = len(levels.values)
        levels = self._fold(levels)
        colours = [tuple(int(v) for v in c) for c in levels.values]
        kept = [c for c, n in zip(colours, levels.counts, strict=True) if n]
        if all(c in _VOC_PALETTE for c in kept):
            # An indexed label map that was saved as RGB: its colours are the indices.
            return self._objects(levels, [_VOC_PALETTE.get(c, 0) for c in colours], before, max_objects)
        drawn = self._objects(levels, [_hex(c) if any(c) else "" for c in colours], before, max_objects)
        if all(any(c) for c in kept):
            self.note("the mask has no black background, so every colour is an object")
        return drawn

    def _as_labels(self, plane: NDArray[Any]) -> NDArray[Any] | None:
        """A plane's whole numbers; None where a float plane's values are coverage."""
        if plane.dtype.kind != "f":
            return plane
        finite = np.nan_to_num(plane.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        whole = np.rint(finite)
        drawn, beyond = finite != 0, finite > 1
        exact = finite == whole
        # Labels are whole numbers, those above 1 too; a matte that overshoots has fractions there.
        if not beyond.any() or min(exact[drawn].mean(), exact[beyond].mean()) < 0.5 or whole.max() > 2**31:
            return None
        if not exact.all() or not np.isfinite(plane).all() or finite.min() < 0:
            self.note("values that are no labels (fractions, negative, not finite) were rounded, or taken as 0")
        return np.maximum(whole, 0).astype(np.int64)

    def _from_plane(self, plane: NDArray[Any], max_objects: int) -> list[_Drawn]:
        """One channel: labels where its values are whole numbers, else coverage."""
        whole = self._as_labels(plane)
        if whole is None:
            return self._one_matte(self.coverage(plane))
        levels = find_levels(whole)
        if is_soft_matte(levels, _full(plane)):
            return self._one_matte(self.coverage(plane))
        before = len(levels.values)
        folded = self._fold(levels)
        main = _left(folded)
        if len(main) == 1 and before > 2 and folded is not levels:
            coverage = self._share_of(whole, main[0])
            self.note(f"labels {main[0]} ({_share(coverage)}), its soft edges kept")
            return [self._drawn(("id", main[0]), coverage)]
        return self._objects(folded, [int(v) for v in levels.values[:, 0]], before, max_objects)

    def _fold(self, levels: Levels) -> Levels:
        """The levels without those that soft edges and lossy compression brought in."""
        if self.header.format not in _LOSSY_FORMATS or levels.drawn.sum() > 0.5 * len(levels.values):
            return fold_edges(levels)
        colours = levels.values.shape[1] > 1
        folded = fold_noise(levels, _NEAR_COLOURS if colours else _NEAR_GREYS)
        if folded is levels:
            return fold_edges(levels)
        gone = np.flatnonzero((folded.counts == 0) & levels.drawn & (levels.counts >= 0.01 * levels.index.size))
        if gone.size and not colours:
            greys = ", ".join(str(int(levels.values[i, 0])) for i in gone[:8])
            self.note(f"levels {greys} are too near another to be told from compression; save the mask as PNG")
        return folded

    def _share_of(self, whole: NDArray[Any], label: int) -> NDArray[np.float32]:
        """A single label's soft edges are its coverage."""
        coverage: NDArray[np.float32] = np.clip(whole.astype(np.float32) / np.float32(label), 0, 1)
        return coverage

    def _one_matte(self, coverage: NDArray[np.float32]) -> list[_Drawn]:
        soft = np.count_nonzero((coverage > 0) & (coverage < 1))
        told = f"one matte, obj1 ({_share(coverage)})"
        self.note(told + (f", soft on {100 * soft / coverage.size:.1f} %" if soft else ""))
        return [self._drawn(("id", 1), coverage)]

    def _objects(self, levels: Levels, labels: Sequence[int | str], before: int, max_objects: int) -> list[_Drawn]:
        """One row for each level that has pixels and is not background.

        labels   of each level: its id, or its colour as text; 0 and "" are the background
        before   how many levels there were with those of soft edges
        """
        kept = [(label, i) for i, label in enumerate(labels) if levels.counts[i]]
        present = sorted((label, i) for label, i in kept if label)  # type: ignore[type-var]
        if len(present) > max_objects:
            raise self.error(
                f"the mask holds {len(present)} different values, more than an artist draws objects "
                f"(at most {max_objects})",
                "save it as a palette or label picture without anti-aliasing, or give one soft matte per object as "
                "NAME@FRAME=PATH",
            )
        drawn = [
            self._drawn(
                ("colour" if isinstance(label, str) else "id", label),
                (levels.index == i).astype(np.float32),
                str(label),
            )
            for label, i in present
        ]
        if not drawn:
            return [self._drawn(("id", 1), np.zeros(levels.index.shape, np.float32))]
        text = "labels " + ", ".join(f"{d.key[1]} ({_share(d.alpha)})" for d in drawn)
        faint = before - len(kept)
        if faint > 0:
            text += f"; {faint} value{'s' if faint > 1 else ''} found only on edges went to the neighbouring label"
        self.note(text)
        return drawn

    # As a matte -----------------------------------------------------------------------------------------------

    def matte(self) -> list[_Drawn]:
        """The soft matte of the object that the mask is named for."""
        name = str(self.spec.name)
        crypto = self._cryptomatte()
        if crypto is not None:
            return [self._drawn(("name", name), self.coverage(np.sum(list(crypto.values()), axis=0)))]
        label = self.spec.channel
        if label and _LABEL.fullmatch(label) and all(label not in (c.label, c.layer) for c in self.header.channels):
            return [self._drawn(("name", name), self._of_label(label))]
        plane = self._matte_plane(name)
        return [self._drawn(("name", name), self.coverage(plane))]

    def _of_label(self, label: str) -> NDArray[np.float32]:
        """The coverage of one label, `2` or `#ff0000`, of a picture of labels."""
        whole = _Picture(replace(self.spec, channel=None), self._info, [])
        found = {str(d.key[1]): d.alpha for d in whole.labels(MAX_OBJECTS)}
        if label.lower() not in found:
            raise self.error(f"the mask holds no label {label}", f"its labels are {', '.join(found)}")
        return found[label.lower()]

    def _matte_plane(self, name: str) -> NDArray[Any]:
        if self.spec.channel:
            return self._not_labels(self.read(self.channel(self.spec.channel))[0])
        if name in (packed := self._packed()):
            return self.read(packed[name])[0]
        palette = palette_indices(self.path) if self.header.format == "png" else None
        if palette is not None:
            index, colours = palette
            used = np.unique(index)
            grey = bool((colours[used] == colours[used][:, :1]).all()) and used.size > 2
            return self._not_labels(colours[index, 0] if grey else index)
        told = {v: k for k, v in self._told().items()}
        layer = next((c for c in self.header.channels if c.layer and c.layer in (name, told.get(name))), None)
        if layer is not None:
            layer = next(
                (c for c in self.header.channels if c.layer == layer.layer and c.component.upper() == "A"), layer
            )
            return self._not_labels(self.read(layer)[0])
        alpha = self.bare("A")
        rgb = [c for c in (self.bare(k) for k in "RGB") if c]
        if alpha:
            plane = self.read(alpha)[0]
            if not (rgb or self.bare("Y")) or _varies(plane):
                return plane
        if len(rgb) == 3:
            planes = self.read(*rgb)
            if all(np.array_equal(planes[0], p) for p in planes[1:]):
                return self._not_labels(planes[0])
            return self._from_coloured(planes, name)
        single = self.bare("Y") or (rgb[0] if rgb else None)
        if single is None and len(self.header.channels) == 1:
            single = self.header.channels[0]
        if single is None:
            listing = ", ".join(shown(c.label) for c in self.header.channels[:24])
            raise self.error("the mask has no alpha, grey or RGB channel", f"choose one with :channel of {listing}")
        return self._not_labels(self.read(single)[0])

    def _from_coloured(self, planes: list[NDArray[Any]], name: str) -> NDArray[Any]:
        """The matte in a coloured picture: the share of its one colour, else its luminance; several are labels."""
        pixels = _integers(planes)
        folded = self._fold(find_levels(pixels))
        drawn = folded.values[folded.drawn & (folded.counts > 0)]
        colours = drawn[drawn.any(axis=1)]
        flat = folded.counts[folded.drawn].sum() >= _MOSTLY * folded.index.size
        if flat and len(colours) > 1:
            raise self.error(
                f"the mask holds the colours {', '.join(_hex(tuple(int(v) for v in c)) for c in colours[:8])}, "
                "not the matte of one object",
                "leave the name out to take them all, or give one matte per object (PATH:channel picks a channel)",
            )
        if flat and len(colours) == 1:
            (colour,) = colours
            self.note(f"{name}: the one colour of the mask, {_hex(tuple(int(v) for v in colour))}, is full coverage")
            return np.clip(pixels @ (colour / (colour @ colour)), 0, 1).astype(np.float32)
        weights = (0.2126, 0.7152, 0.0722)
        scale = 1.0 if planes[0].dtype.kind == "f" else 1.0 / np.iinfo(planes[0].dtype).max
        luma = sum(w * p.astype(np.float64) for w, p in zip(weights, planes, strict=True)) * scale
        self.note(f"{name}: the mask is coloured, its luminance is taken as the matte")
        return np.asarray(luma, np.float32)

    def _not_labels(self, plane: NDArray[Any]) -> NDArray[Any]:
        """The coverage in a channel of a named mask. Raises MaskError where it plainly holds several labels."""
        whole = self._as_labels(plane)
        if whole is None:
            return plane
        levels = find_levels(whole)
        full = _full(plane)
        if is_soft_matte(levels, full):
            return plane
        folded = self._fold(levels)
        left = _left(folded)
        if len(left) == 1 and left[0] < _WHITE * full and (folded is not levels or len(levels.values) <= 2):
            # As without a name: one flat level is the whole object, whatever its number.
            if left[0] != 1:
                self.note(f"the one level of the mask, {left[0]}, is taken as full coverage")
            return self._share_of(whole, left[0])
        drawn = [int(v) for v in levels.values[folded.drawn & (folded.counts > 0), 0] if v > 0]
        white = bool(left) and left[-1] >= _WHITE * full
        # Two levels one of which is white may be a body and its glass; three, or two without white, are labels.
        # A picture of few levels has no soft edges, so thin and tiny labels count there too.
        several = drawn if len(levels.values) > _FEW_LEVELS else left
        if len(several) >= (3 if white else 2) and not _is_ramp(folded):
            raise self.error(
                f"the mask holds the labels {', '.join(map(str, several[:8]))}"
                f"{', ...' if len(several) > 8 else ''}, not the matte of one object",
                "leave the name out to take them all, or give one matte per object (PATH:channel picks a channel)",
            )
        if white and len(drawn) > 1 and len(levels.values) <= _FEW_LEVELS:
            shares = ", ".join(f"{v} as {100 * v / full:.0f} %" for v in drawn)
            self.note(f"the levels of the mask are taken as coverage, {shares}; without its name as labels")
        return plane

    def coverage(self, plane: NDArray[Any]) -> NDArray[np.float32]:
        """Values as coverage 0..1, exactly: v / 255, v / 65535, floats as they are; wild floats tamed and told."""
        if plane.dtype.kind != "f":
            full = np.iinfo(plane.dtype).max
            if plane.dtype == np.uint32 and plane.max() != full:
                return (plane > 0).astype(np.float32)
            scaled: NDArray[np.float32] = plane.astype(np.float32) / np.float32(full)
            return scaled
        alpha: NDArray[np.float32] = plane.astype(np.float32)
        bad = np.count_nonzero(~np.isfinite(alpha))
        if bad:
            alpha = np.nan_to_num(alpha, nan=0.0, posinf=1.0, neginf=0.0)
            self.note(f"{bad} values of the mask are not finite; NaN became 0, infinity 1")
        low, high = float(alpha.min()), float(alpha.max())
        if low < 0 or high > 1:
            self.note(f"values of the mask run from {low:g} to {high:g}; they were clamped to 0..1")
            alpha = np.clip(alpha, 0, 1)
        return alpha

    def _drawn(self, key: tuple[str, Any], alpha: NDArray[np.float32], channel: str | None = None) -> _Drawn:
        return _Drawn(key, alpha, self.window, self.spec, self.path, channel)


def objects_of(spec: MaskSpec, info: PlateInfo) -> dict[str, str | None]:
    """What one mask shows: the name of each object -> the channel that means it alone, None: the whole picture.

    Without a name in `spec`, labels are called `obj<label>`, colours `#rrggbb`, layers as they are. Raises MaskError
    as `load_keys` does; an empty mask is allowed where it has a name.
    """
    if is_spline_file(spec.path):
        found = _draw(spec, info, [], MAX_OBJECTS, {})
        return {_called(d.key): spec.channel if spec.name is not None else str(d.key[1]) for d in found}
    _check_frame(spec, info)
    picture = _Picture(spec, info, [])
    if spec.name is not None:
        picture.matte()
        return {spec.name: spec.channel}
    drawn = picture.labels(MAX_OBJECTS)
    if any(d.empty for d in drawn):
        raise picture.empty()
    alone = len(drawn) == 1 and drawn[0].key[0] == "id"
    if len(drawn) > 1 and spec.channel:
        raise picture.error(f"channel {spec.channel} shows several objects", "give NAME@FRAME=PATH for each")
    return {_called(d.key): spec.channel if alone else spec.channel or d.channel for d in drawn}


def _check_frame(spec: MaskSpec, info: PlateInfo) -> None:
    frames = sorted({*info.frames, *info.missing})
    if spec.frame not in frames:
        raise MaskError(
            f"frame {spec.frame} is not one of the plate's frames {compact_frames(frames)}",
            remedy="check the frame before the = sign, or widen the frame range",
            path=spec.path,
            frame=spec.frame,
        )


def _draw(
    spec: MaskSpec, info: PlateInfo, notes: list[str], max_objects: int, splines: dict[str, Splines]
) -> list[_Drawn]:
    """The objects of one mask, a picture or splines; `splines` holds the files read so far.

    Raises MaskError where it shows none and names none that could be absent.
    """
    _check_frame(spec, info)
    if is_spline_file(spec.path):
        if spec.path not in splines:
            splines[spec.path] = read_splines(Path(spec.path).expanduser(), _size(info.display_window))
        return _draw_splines(spec, splines[spec.path], info, notes)
    picture = _Picture(spec, info, notes)
    found = picture.matte() if spec.name is not None else picture.labels(max_objects)
    if any(d.empty and d.key[0] != "name" for d in found):
        raise picture.empty()
    return found


def _draw_splines(spec: MaskSpec, splines: Splines, info: PlateInfo, notes: list[str]) -> list[_Drawn]:
    """The objects of a spline file on the frame of a mask; with a name, all that it means as one."""
    names = _chosen(spec, splines)
    origin = info.display_window
    x, y = -origin.x0, -origin.y0
    canvas = info.canvas
    around = Window(canvas.x0 + x, canvas.y0 + y, canvas.x1 + x, canvas.y1 + y)
    path = Path(spec.path).expanduser()
    notes.extend(f"{spec.frame}: {note}" for note in splines.notes)

    def drawn(name: str, sources: Iterable[str]) -> _Drawn:
        shapes = [s for n in sources for s in splines.objects[n]]
        return _Drawn(("name", name), rasterise(shapes, spec.frame, around), canvas, spec, path)

    if spec.name is not None:
        return [drawn(spec.name, names)]
    found = [d for d in (drawn(n, [n]) for n in names) if not d.empty]
    if not found:
        raise MaskError(
            "the splines show nothing on this frame",
            remedy=f"they have keys on {compact_frames(sorted({f for n in names for f in splines.key_frames(n)}))}",
            path=path,
            frame=spec.frame,
        )
    notes.append(f"{spec.frame}: splines, " + ", ".join(f"{d.key[1]} ({_share(d.alpha)})" for d in found))
    return found


def _resolve(spec: MaskSpec) -> Path:
    """The file of a spec; a frame pattern in its name is filled with the spec's frame."""
    path = Path(spec.path).expanduser()
    if not path.exists() and re.search(r"[#@]|%0?\d*d|\$F", path.name):
        try:
            return find_frames(path, str(spec.frame)).files[spec.frame]
        except (InputError, KeyError) as e:
            raise MaskError(
                "there is no mask file for this frame",
                remedy="check the path of the mask",
                path=spec.path,
                frame=spec.frame,
            ) from e
    return path


def _full(plane: NDArray[Any]) -> float:
    """The value of full coverage in a channel of integers; floats that are labels have none."""
    return np.inf if plane.dtype.kind == "f" else float(np.iinfo(plane.dtype).max)


def _left(levels: Levels) -> list[int]:
    """Labels that have pixels, ascending."""
    return [int(v) for v, n in zip(levels.values[:, 0], levels.counts, strict=True) if n and v > 0]


def _is_ramp(levels: Levels) -> bool:
    """Whether many levels go over into the next one nearly everywhere, as in a wide blur; labels lie anyhow."""
    if np.count_nonzero(levels.counts) <= _FEW_LEVELS:
        return False
    place = (np.cumsum(levels.counts > 0) - 1)[levels.index]
    steps = np.concatenate([np.abs(np.diff(place, axis=a)).reshape(-1) for a in (0, 1)])
    return bool((steps <= 1)[steps > 0].mean() >= 0.9)


def _size(window: Window) -> tuple[int, int]:
    return window.width, window.height


def _varies(plane: NDArray[Any]) -> bool:
    return bool((plane != plane.flat[0]).any())


def _share(alpha: NDArray[np.float32]) -> str:
    percent = 100 * float(alpha.mean(dtype=np.float64))
    return f"{percent:.1f} %" if percent >= 0.05 or percent == 0 else f"{percent:.2g} %"


def _hex(colour: tuple[int, ...]) -> str:
    return "#" + "".join(f"{v:02x}" if max(colour) < 256 else f"{v:04x}" for v in colour)


def _integers(planes: list[NDArray[Any]]) -> NDArray[Any]:
    """Colour planes as one integer picture [h, w, 3]."""
    if planes[0].dtype.kind == "f":
        planes = [
            np.rint(np.clip(np.nan_to_num(p.astype(np.float64)), 0, 1) * 65535).astype(np.uint16) for p in planes
        ]
    return np.stack(planes, axis=-1)


def palette_indices(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Indices [h, w] and colours [256, 3] of a palette PNG, None for any other.

    OpenImageIO expands palettes, so two indices of one colour would become one label, and 1 would become (128, 0, 0).
    FFmpeg keeps them; it also accepts cut files, which is why the header and pixels are asked of OpenImageIO first.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return None
    # Signature, IHDR: 8 + 4 + 4 bytes, then width, height, depth, and the colour type at 25; 3 is a palette.
    if len(data) < 33 or data[12:16] != b"IHDR" or data[25] != 3:
        return None
    try:
        read_still(path)
    except InputError as e:
        raise MaskError(f"the mask cannot be read: {e.what}", remedy=e.remedy, path=path) from e
    try:
        # From memory: a name with % or : would be a pattern or a protocol to FFmpeg.
        with av.open(io.BytesIO(data), "r", format="png_pipe") as container:
            picture = next(container.decode(video=0)).to_ndarray()
    except (av.FFmpegError, StopIteration, ValueError) as e:
        raise MaskError(
            f"the palette of the mask cannot be read: {e}", remedy="save it again as PNG", path=path
        ) from e
    if not isinstance(picture, tuple):
        return None
    index, argb = picture
    return np.ascontiguousarray(index), np.ascontiguousarray(argb[:, 1:4])


def _voc_palette() -> dict[tuple[int, ...], int]:
    """The colours that PASCAL VOC and DAVIS label pictures give to indices 0..255: bits of the index, interleaved."""
    palette: dict[tuple[int, ...], int] = {}
    for index in range(256):
        colour = [0, 0, 0]
        for bit in range(8):
            for c in range(3):
                colour[c] |= ((index >> (3 * bit + c)) & 1) << (7 - bit)
        palette[tuple(colour)] = index
    return palette


_VOC_PALETTE = _voc_palette()


# All of them ---------------------------------------------------------------------------------------------------


def load_keys(specs: Sequence[MaskSpec], info: PlateInfo, *, max_objects: int = MAX_OBJECTS) -> Keys:
    """Read every key mask and give each object its id.

    specs         in the order given; several on one frame are merged
    info          the plate: its frames, display window and canvas
    max_objects   labels one picture may hold

    Ids: a label is its own id, named `obj<label>`; one matte without a name is 1; then colours and names get the
    next free numbers, in order of frames and of `specs` within a frame. The same name, label or colour on another
    frame is the same object. An all-zero mask is allowed where it names an object that another key shows: it
    declares the object absent there.

    Raises MaskError naming frame and file: outside of the plate's frames, unreadable, of another size, empty, too
    many labels, one object twice on a frame; UsageError where there is no mask at all.
    """
    if not specs:
        raise UsageError("there is no key mask", remedy="give at least one, for example --mask 1001=key.png")
    notes: list[str] = []
    drawn: list[_Drawn] = []
    splines: dict[str, Splines] = {}
    for spec in sorted(specs, key=lambda s: s.frame):  # stable: within a frame as given
        found = _draw(spec, info, notes, max_objects, splines)
        if spec.name is not None and not found[0].empty:
            notes.append(f"{spec.frame}: {spec.name} ({_share(found[0].alpha)})")
        drawn.extend(found)
    ids = _give_ids(drawn)
    shown = {ids[d.key] for d in drawn if not d.empty}
    by_frame: dict[int, list[_Drawn]] = {}
    for d in drawn:
        number = ids[d.key]
        if d.empty:
            if number not in shown:
                raise MaskError(
                    f"the mask of {_called(d.key)} is empty, and no other key shows it",
                    remedy="draw the object on this or another frame",
                    path=d.spec.path,
                    frame=d.spec.frame,
                )
            notes.append(f"{d.spec.frame}: {_called(d.key)} is absent")
        others = by_frame.setdefault(d.spec.frame, [])
        twin = next((o for o in others if ids[o.key] == number), None)
        if twin is not None:
            raise MaskError(
                f"two masks show {_called(d.key)} on this frame: {twin.spec.path} and {d.spec.path}",
                remedy="leave one out, or give them names of their own: NAME@FRAME=PATH",
                frame=d.spec.frame,
            )
        others.append(d)
    names = {ids[d.key]: _called(d.key, ids[d.key]) for d in drawn}
    notes.extend(f"colour {d} is {names[n]}" for n, d in _colours(ids))
    keys = {frame: _merge(frame, parts, ids, info, notes) for frame, parts in sorted(by_frame.items())}
    return Keys(ObjectTable(names), keys, tuple(dict.fromkeys(notes)))


def load_masks(masks: Masks, plate: Plate) -> Keys:
    """Keys from what `track` takes as masks. Raises UsageError where there are none, MaskError for a bad one."""
    keys = masks if isinstance(masks, Keys) else load_keys(_mask_specs(masks, plate.info), plate.info)
    for frame in keys.by_frame:
        if frame not in plate.frames:
            raise MaskError(
                f"frame {frame} of a key mask is not one the run delivers: {compact_frames(plate.frames)}",
                remedy="widen the frame range; a key on a missing frame needs --missing hold or black, not skip",
                frame=frame,
            )
    if not keys.by_frame:
        raise UsageError("there is no key mask", remedy="give at least one")
    return keys


def _mask_specs(
    masks: str | Sequence[str | MaskSpec] | Mapping[int | str, str | Path], info: PlateInfo
) -> list[MaskSpec]:
    if isinstance(masks, str):
        masks = [masks]
    elif isinstance(masks, Mapping):
        for where, path in masks.items():
            if not isinstance(where, (int, str)) or not isinstance(path, (str, os.PathLike)):
                raise UsageError(
                    f"masks holds {type(where).__name__} -> {type(path).__name__}",
                    remedy='give frame -> path, such as {1001: "key.png"}; pixels go in as Keys',
                )
        masks = [f"{where}={os.fspath(path)}" for where, path in masks.items()]
    elif not isinstance(masks, Iterable):
        raise UsageError(f"masks is {masks!r} ({type(masks).__name__})", remedy=_MASKS)
    specs: list[MaskSpec] = []
    for mask in masks:
        if not isinstance(mask, (str, MaskSpec)):
            raise UsageError(f"masks holds a value of type {type(mask).__name__}", remedy=_MASKS)
        specs.extend(parse_masks(mask, info) if isinstance(mask, str) else [mask])
    if not specs:
        raise UsageError("there is no key mask", remedy="give at least one, as FRAME=PATH or NAME@FRAME=PATH")
    return specs


def _give_ids(drawn: list[_Drawn]) -> dict[tuple[str, Any], ObjectId]:
    ids: dict[tuple[str, Any], ObjectId] = {d.key: int(d.key[1]) for d in drawn if d.key[0] == "id"}
    labels = set(ids.values())
    for d in drawn:  # "obj3@1050=..." speaks of label 3 of another frame's label map
        said = _DEFAULT_NAME.fullmatch(d.key[1]) if d.key[0] == "name" else None
        if said and int(said[1]) in labels:
            ids[d.key] = int(said[1])
    taken = set(ids.values())
    following = 1
    for d in drawn:
        if d.key not in ids:
            while following in taken:
                following += 1
            ids[d.key] = following
            taken.add(following)
    return ids


def _called(key: tuple[str, Any], number: ObjectId | None = None) -> str:
    kind, value = key
    if kind == "name" or (kind == "colour" and number is None):
        return str(value)
    return f"obj{number if number is not None else value}"


def _colours(ids: Mapping[tuple[str, Any], ObjectId]) -> list[tuple[ObjectId, str]]:
    return sorted((n, str(k[1])) for k, n in ids.items() if k[0] == "colour")


def _merge(
    frame: int, parts: list[_Drawn], ids: Mapping[tuple[str, Any], ObjectId], info: PlateInfo, notes: list[str]
) -> KeyMask:
    canvas = info.canvas
    alpha = np.zeros((len(parts), canvas.height, canvas.width), np.float32)
    for row, d in zip(alpha, parts, strict=True):
        seen = d.window.intersect(canvas)
        if not seen.empty:
            row[seen.slices_in(canvas)] = d.alpha[seen.slices_in(d.window)]
        if seen != d.window and not d.empty and np.count_nonzero(row) < np.count_nonzero(d.alpha):
            if not row.any():
                raise MaskError(
                    f"the mask of {_called(d.key)} lies outside of the plate's canvas {canvas}",
                    remedy="check its data window",
                    path=d.spec.path,
                    frame=frame,
                )
            notes.append(f"{frame}: the mask of {_called(d.key)} goes beyond the plate and was cropped")
        _tell_lost(frame, _called(d.key, ids[d.key]), row, info, notes)
    objects = tuple(ids[d.key] for d in parts)
    return KeyMask(frame, objects, alpha, tuple(dict.fromkeys(str(d.path) for d in parts)))


def _tell_lost(frame: int, name: str, row: NDArray[np.float32], info: PlateInfo, notes: list[str]) -> None:
    """Note how much of a key lies where the plate's frame has no pixels: its matte has the frame's data window."""
    window = info.data_windows.get(frame)
    total = float(row.sum(dtype=np.float64))
    if window is None or total == 0:
        return
    seen = window.intersect(info.canvas)
    kept = 0.0 if seen.empty else float(row[seen.slices_in(info.canvas)].sum(dtype=np.float64))
    if kept < total:
        lost = 100 * (total - kept) / total
        share = "all" if kept == 0 else f"{lost:.1f} %" if lost >= 0.05 else f"{lost:.2g} %"
        notes.append(
            f"WARNING, frame {frame}: {share} of the mask of {name} lies where the plate has no pixels (its data "
            f"window is {window}) and will be missing from the matte"
        )
