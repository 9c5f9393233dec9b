"""Cryptomatte: all mattes of a run in one EXR, each under its name, for any compositor's Cryptomatte node.

Written and read after the Cryptomatte specification 1.2.0 (Psyop, github.com/Psyop/Cryptomatte):

- An object's id is the MurmurHash3_32 of its name in UTF-8, its bits read as a float32; a bit of the exponent is
  flipped where they would be a NaN, an infinity or a denormal (section "Conversion to float").
- A pixel lists the objects it shows by falling coverage, six of them, two to a layer: `RotoObject00.R` is the first
  id, `.G` its coverage, `.B` the second id, `.A` its coverage, then `RotoObject01`... Id 0 is nobody.
- Coverages sum to at most 1. Mattes that overlap beyond that, as an artist's keys may, are divided by their sum.
- float32 and lossless (ZIPS), on the plate's windows; a file of its own, since anything that touches ids destroys
  them. The manifest, name -> id, is in the header; names are the artist's own, whatever they hold.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mmh3
import numpy as np
from numpy.typing import NDArray

from rotomem.errors import PlateError, UsageError
from rotomem.io.exr import Channel, StillHeader, read_still, shown
from rotomem.io.kinds import File, Output, Stills, plain_text
from rotomem.io.planes import Alpha, on_window
from rotomem.io.stills import Picture
from rotomem.types import ObjectId, PlateFrame, Window

TYPE_NAME = "RotoObject"
RANKS = 6
"""Objects a pixel may list; what the specification suggests. On every frame, however few there are."""

_ROWS = 64  # encoded at a time, so that memory does not grow with the picture
_LOSSY = frozenset({"dwaa", "dwab", "b44a", "pxr24"})


def name_id(name: str) -> int:
    """The 32 bits of an object's id.

    >>> f"{name_id('torus'):08x}"
    'f39c73fd'
    """
    bits = mmh3.hash(plain_text(name).encode(), signed=False)
    if (bits >> 23) & 255 in (0, 255):
        bits ^= 1 << 23
    return bits


def encode(planes: Sequence[Alpha], ids: Sequence[int], *, ranks: int = RANKS) -> NDArray[np.float32]:
    """Mattes as ids and coverages, [h, w, 2 * ranks]: id, coverage, id, coverage, ... by falling coverage.

    planes   [h, w] 0..1, one an object; of equal coverages the earlier object is listed first
    ids      the objects' bits, see `name_id`

    Where more than `ranks` objects meet, the faintest are left out. Cost: a few passes over every matte, and
    objects log(objects) per pixel where two or more meet; scratch is a strip of 64 rows.
    """
    height, width = planes[0].shape
    as_floats = np.array(ids, np.uint32).view(np.float32)
    result = np.zeros((height, width, 2 * ranks), np.float32)
    for top in range(0, height, _ROWS):
        columns = np.flatnonzero(np.any([plane[top : top + _ROWS].any(axis=0) for plane in planes], axis=0))
        if not columns.size:
            continue
        box = slice(top, top + _ROWS), slice(columns[0], columns[-1] + 1)
        strip, target = np.stack([plane[box] for plane in planes]), result[box]
        count = np.count_nonzero(strip, axis=0)
        one, several = count == 1, count > 1
        target[one, 0] = as_floats[strip.argmax(axis=0)[one]]
        target[one, 1] = strip.max(axis=0)[one]
        target[several] = _by_coverage(strip[:, several].T, as_floats, ranks)
    return result


def _by_coverage(cover: NDArray[np.float32], ids: NDArray[np.float32], ranks: int) -> NDArray[np.float32]:
    """Pixels [N, 2 * ranks] from coverages [N, O] and the objects' ids [O]."""
    total = cover.sum(axis=1, dtype=np.float64)[:, None]
    share = np.where(total > 1, cover / np.maximum(total, 1), cover)
    cover = share.astype(np.float32)
    # Downwards, so that the sum cannot come out above 1.
    cover = np.where(cover > share, np.nextafter(cover, np.float32(0)), cover)
    order = np.argsort(-cover, axis=1, kind="stable")[:, :ranks]
    cover = np.take_along_axis(cover, order, axis=1)
    pairs = np.zeros((len(cover), ranks, 2), np.float32)
    pairs[:, : order.shape[1], 0] = np.where(cover > 0, ids[order], np.float32(0))
    pairs[:, : order.shape[1], 1] = cover
    return pairs.reshape(len(cover), 2 * ranks)


class CryptomatteStills(Stills):
    """A Cryptomatte a frame, beside the mattes: always EXR."""

    @classmethod
    def beside(cls, mattes: Output) -> CryptomatteStills:
        """For the objects of `mattes`. Raises UsageError where two names have one id."""
        names: dict[int, str] = {}
        for name in mattes.order.objects.values():
            other = names.setdefault(name_id(name), name)
            if other != name:
                raise UsageError(f"'{other}' and '{name}' have the same Cryptomatte id", remedy="rename one of them")
        ids = tuple(f"{name_id(name):08x}" for name in mattes.order.objects.values())
        pattern = mattes.pattern.beside("crypto", ".exr", padding=mattes.stills_padding)
        output = cls(mattes.order, pattern, (File(tuple(mattes.order.objects), ids),), "crypto")
        if commas := [name for name in mattes.order.objects.values() if "," in name]:
            told = f"Cryptomatte nodes take a comma for the end of a name: pick {', '.join(commas)} by eye"
            output.notes = (told,)
        return output

    def picture(self, file: File, frame: PlateFrame, alpha: Mapping[ObjectId, Alpha]) -> Picture:
        window, objects = frame.data_window, self.order.objects
        planes = [on_window(alpha.get(k), self.order.info.canvas, window) for k in file.objects]
        pixels = encode(planes, [int(place, 16) for place in file.places])
        names = tuple(f"{TYPE_NAME}{k:02d}.{c}" for k in range(RANKS // 2) for c in "RGBA")
        manifest = {plain_text(objects[k]): place for k, place in zip(file.objects, file.places, strict=True)}
        head = f"cryptomatte/{name_id(TYPE_NAME):08x}"[: len("cryptomatte/") + 7]
        told = {
            f"{head}/name": TYPE_NAME,
            f"{head}/hash": "MurmurHash3_32",
            f"{head}/conversion": "uint32_to_float32",
            f"{head}/manifest": json.dumps(manifest, ensure_ascii=False, separators=(",", ":")),
        }
        return Picture(names, ("float",) * len(names), pixels, window, told, compression="zips")


# Reading -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CryptoLayer:
    """One Cryptomatte of a file; a renderer may have put several in.

    name       of the type: "RotoObject", "CryptoMaterial", ...
    manifest   name -> bits of its id; empty where the file has none
    ranks      (id, coverage) channels, first rank first
    """

    header: StillHeader
    name: str
    manifest: Mapping[str, int]
    ranks: tuple[tuple[Channel, Channel], ...]

    @property
    def data_window(self) -> Window:
        """Where its pixels lie; in a file of several parts not always where those of the first do."""
        return self.header.parts[self.ranks[0][0].part].data_window

    def mattes(self, names: Iterable[str] | None = None) -> dict[str, Alpha]:
        """Name -> coverage [h, w] on `data_window`; zeros for a name that is not seen.

        names   None: those of the manifest that are seen. One that the manifest lacks goes by its hash

        Raises PlateError naming the file where it is damaged, or its ids cannot be what they were.
        """
        path = self.header.path
        channels = [c for pair in self.ranks for c in pair]
        compression = self.header.parts[channels[0].part].compression
        if compression in _LOSSY or any(i.type != "float" for i, _ in self.ranks):
            how = compression if compression in _LOSSY else self.ranks[0][0].type
            raise PlateError(
                f"the ids of the Cryptomatte were destroyed when the file was saved as {how}",
                remedy="save it as 32-bit float with a lossless compression (ZIPS)",
                path=path,
            )
        arrays = read_still(path, channels=[c.name for c in channels], header=self.header).arrays
        ids = [np.ascontiguousarray(arrays[i.name]).view(np.uint32) for i, _ in self.ranks]
        seen = {int(bits) for plane in ids for bits in np.unique(plane)}
        if names is None:
            names = [name for name, bits in self.manifest.items() if bits in seen]
        found: dict[str, Alpha] = {}
        for name in names:
            bits = self.manifest.get(name, name_id(name))
            matte = found[name] = np.zeros(ids[0].shape, np.float32)
            if bits in seen:
                for plane, (_, cover) in zip(ids, self.ranks, strict=True):
                    matte += np.where(plane == np.uint32(bits), arrays[cover.name], 0).astype(np.float32)
        return found


def crypto_layers(header: StillHeader) -> tuple[CryptoLayer, ...]:
    """The Cryptomattes of a picture whose header was read; none where it has none.

    Raises PlateError where a manifest is no JSON, or a file beside the picture that cannot be read.
    """
    keys = [k.split("/")[1] for k in header.cryptomatte if k.count("/") == 2 and k.endswith("/name")]
    layers = []
    for key in keys:
        about = {k.rpartition("/")[2]: v for k, v in header.cryptomatte.items() if k.split("/")[1] == key}
        ranks = tuple(_ranks(header, about["name"]))
        if ranks:
            layers.append(CryptoLayer(header, about["name"], _manifest(header.path, about), ranks))
    return tuple(layers)


def read_objects(layers: Sequence[CryptoLayer], asked: str | None) -> tuple[CryptoLayer, dict[str, Alpha]]:
    """What `asked` means in the Cryptomattes of a file, name -> coverage, and the one that has it.

    asked   an object's name, or several with commas between; None: all that are seen
    Raises PlateError where there is no such object, or nothing is asked of several Cryptomattes.
    """
    path = layers[0].header.path
    if asked is None:
        if len(layers) > 1:
            raise PlateError(
                f"the file holds {len(layers)} Cryptomattes: {', '.join(shown(y.name) for y in layers)}",
                remedy="say which objects: PATH:NAME, or NAME@FRAME=PATH",
                path=path,
            )
        return layers[0], layers[0].mattes()
    for names in ([asked], [part.strip() for part in asked.split(",") if part.strip()]):
        for layer in layers:
            # Without a manifest a name is looked for by its hash.
            if names and (not layer.manifest or all(name in layer.manifest for name in names)):
                return layer, layer.mattes(names)
    known = [shown(name) for layer in layers for name in layer.manifest]
    listing = ", ".join(known[:24]) + (f" and {len(known) - 24} more" if len(known) > 24 else "")
    raise PlateError(
        f"the Cryptomatte has no object '{asked}'",
        remedy=f"its objects are {listing}; one called otherwise is NAME@FRAME=PATH:OBJECT",
        path=path,
    )


def _ranks(header: StillHeader, name: str) -> list[tuple[Channel, Channel]]:
    by_place = {(c.layer, c.component[:1].upper()): c for c in header.channels}
    found: list[tuple[Channel, Channel]] = []
    number = 0
    while True:
        r, g, b, a = (by_place.get((f"{name}{number:02d}", c)) for c in "RGBA")
        if r is None or g is None:
            return found
        found.append((r, g))
        if b is not None and a is not None:
            found.append((b, a))
        number += 1


def _manifest(path: Path, about: Mapping[str, str]) -> dict[str, int]:
    text = about.get("manifest")
    try:
        if text is None and "manif_file" in about:
            text = (path.parent / os.path.basename(about["manif_file"])).read_text(encoding="utf-8")
        return {str(name): int(bits, 16) for name, bits in json.loads(text or "{}").items()}
    except (OSError, ValueError, AttributeError, TypeError) as e:
        raise PlateError(
            f"the manifest of the Cryptomatte cannot be read: {e}",
            remedy="render it again; a manifest may also be a file beside the picture",
            path=path,
        ) from e
