"""What clips are composed from: photographs, cut-outs and real footage, held in memory as bytes.

A source folder has a `manifest.json` that lists `images` (file, mask or null, licence, ...) and `clips` (a folder of
numbered frames each). Masks are 8-bit label maps: 0 is background, every other value one object or region.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
import torch
import torch.nn.functional as F
from torch import Tensor

from rotomem.errors import InputError


@dataclass(frozen=True)
class SourceConfig:
    """How sources are kept.

    picture_px       side of the square a picture is squeezed into (its aspect is remembered and undone)
    cutout_px        side of the square that holds one cut-out object
    cutout_margin    room around a cut-out, as a share of its larger side
    cutout_least_px  an object smaller than this, in pixels of its photograph, is not cut out
    cutout_slimmest  nor one whose bounding box is slimmer than this
    cutouts_a_picture    most objects taken from one photograph
    limit            use this many images only (tests); None uses all
    """

    picture_px: int = 288
    cutout_px: int = 144
    cutout_margin: float = 0.06
    cutout_least_px: int = 40
    cutout_slimmest: float = 0.2
    cutouts_a_picture: int = 3
    limit: int | None = None


@dataclass(frozen=True)
class PicturePool:
    """All sources as tensors.

    pictures   uint8 [N, 3, S, S], squeezed to squares; stills first, then the frames of the real clips
    aspect     float32 [N], width / height before squeezing
    labels     uint8 [M, S, S], label maps of the pictures `labelled`
    labelled   int64 [M], ascending
    stills     number of photographs among the pictures
    runs       int64 [R, 2], first picture and number of frames of each real clip
    cutouts    uint8 [K, 4, P, P], objects with coverage, colours not multiplied by it
    """

    pictures: Tensor
    aspect: Tensor
    labels: Tensor
    labelled: Tensor
    stills: int
    runs: Tensor
    cutouts: Tensor

    def to(self, device: torch.device | str) -> PicturePool:
        """The same pool with its pixels on `device`; indices stay on the CPU."""
        return PicturePool(
            self.pictures.to(device),
            self.aspect,
            self.labels.to(device),
            self.labelled,
            self.stills,
            self.runs,
            self.cutouts.to(device),
        )


def read_bytes(path: Path, channels: int, *, exact: bool = False) -> Tensor:
    """A picture as uint8 [channels, H, W]; grey is repeated, further channels are dropped.

    exact   its values mean something by themselves, as labels do: a picture of more than 8 bits, which would be
            scaled to them, raises InputError
    """
    image = oiio.ImageInput.open(str(path))
    if image is None:
        raise InputError(f"cannot read {path.name}: {oiio.geterror()}", path=path)
    try:
        kind = str(image.spec().format)
        if exact and kind != "uint8":
            raise InputError(f"the labels are of {kind}, not of 8 bits", remedy="save an 8-bit PNG", path=path)
        pixels = image.read_image(format="uint8")
    finally:
        image.close()
    if pixels is None:
        raise InputError(f"cannot decode {path.name}: {oiio.geterror()}", path=path)
    array = np.atleast_3d(np.asarray(pixels))
    if array.shape[2] < channels:
        array = np.repeat(array[:, :, :1], channels, axis=2)
    return torch.from_numpy(np.ascontiguousarray(array[:, :, :channels].transpose(2, 0, 1)))


def _squeeze(picture: Tensor, side: int) -> Tensor:
    """uint8 [C, H, W] to uint8 [C, side, side], low-passed before it shrinks."""
    wide = F.interpolate(picture[None].float(), (side, side), mode="bilinear", antialias=True)
    return wide[0].round().clamp(0, 255).byte()


def _squeeze_labels(labels: Tensor, side: int) -> Tensor:
    """uint8 [H, W] to uint8 [side, side], nearest."""
    return F.interpolate(labels[None, None].float(), (side, side), mode="nearest-exact")[0, 0].byte()


def cut_out(picture: Tensor, coverage: Tensor, side: int, margin: float) -> Tensor:
    """One object in a square of its own: uint8 [4, side, side].

    picture    uint8 [3, H, W]
    coverage   bool [H, W], not empty; the square is centred on its bounding box, zeros beyond the picture
    """
    height, width = coverage.shape
    rows, columns = coverage.any(1).nonzero()[:, 0], coverage.any(0).nonzero()[:, 0]
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    x0, x1 = int(columns[0]), int(columns[-1]) + 1
    half = int(max(y1 - y0, x1 - x0) * (0.5 + margin)) + 1
    cy, cx = (y0 + y1) // 2, (x0 + x1) // 2
    full = torch.cat([picture, coverage[None].byte() * 255])
    top, left, bottom, right = cy - half, cx - half, cy + half, cx + half
    inside = full[:, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    square = F.pad(inside, (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0)))
    return _squeeze(square, side)


def _entries(root: Path) -> dict[str, Any]:
    manifest = root / "manifest.json"
    if not manifest.is_file():
        raise InputError(
            "no manifest.json in the training folder",
            path=root,
            remedy="point --data at a folder that has one",
        )
    entries: dict[str, Any] = json.loads(manifest.read_text())
    return entries


def load_pool(root: str | Path, config: SourceConfig | None = None) -> PicturePool:
    """Read every photograph, mask and clip that the folder's manifest lists.

    Raises InputError naming the file where one is missing or cannot be decoded.
    """
    root, config = Path(root), config or SourceConfig()
    entries = _entries(root)
    images: list[dict[str, Any]] = entries["images"]
    clips: list[dict[str, Any]] = entries.get("clips", [])
    if config.limit is not None:
        step = max(len(images) // config.limit, 1)
        images, clips = images[::step][: config.limit], clips[:1]
    side = config.picture_px
    pictures: list[Tensor] = []
    aspect: list[float] = []
    labels: list[Tensor] = []
    labelled: list[int] = []
    cutouts: list[Tensor] = []
    for entry in images:
        picture = read_bytes(root / entry["file"], 3)
        if entry.get("mask"):
            mask = read_bytes(root / entry["mask"], 1, exact=True)[0]
            if mask.shape != picture.shape[1:]:
                mask = F.interpolate(mask[None, None].float(), picture.shape[1:], mode="nearest-exact")[0, 0].byte()
            labels.append(_squeeze_labels(mask, side))
            labelled.append(len(pictures))
            cutouts += list(_objects(picture, mask, config))
        aspect.append(picture.shape[2] / picture.shape[1])
        pictures.append(_squeeze(picture, side))
    stills = len(pictures)
    runs: list[tuple[int, int]] = []
    for clip in clips:
        files = sorted(p for p in (root / clip["dir"]).iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        runs.append((len(pictures), len(files)))
        for file in files:
            picture = read_bytes(file, 3)
            aspect.append(picture.shape[2] / picture.shape[1])
            pictures.append(_squeeze(picture, side))
    if not pictures:
        raise InputError("the training folder lists no pictures", path=root)
    px = config.cutout_px
    return PicturePool(
        torch.stack(pictures),
        torch.tensor(aspect),
        torch.stack(labels) if labels else torch.zeros(0, side, side, dtype=torch.uint8),
        torch.tensor(labelled, dtype=torch.int64),
        stills,
        torch.tensor(runs, dtype=torch.int64).view(-1, 2),
        torch.stack(cutouts) if cutouts else torch.zeros(0, 4, px, px, dtype=torch.uint8),
    )


def _objects(picture: Tensor, mask: Tensor, config: SourceConfig) -> Iterable[Tensor]:
    """Cut-outs of the largest objects of one label map."""
    areas = torch.bincount(mask.flatten().long(), minlength=256)
    areas[0] = 0
    order = areas.argsort(descending=True)[: config.cutouts_a_picture].tolist()
    for label in order:
        if areas[label] < config.cutout_least_px**2 / 2:
            break
        coverage = mask == label
        sides = sorted((int(coverage.any(0).sum()), int(coverage.any(1).sum())))
        if sides[0] < config.cutout_slimmest * sides[1]:
            continue
        yield cut_out(picture, coverage, config.cutout_px, config.cutout_margin)
