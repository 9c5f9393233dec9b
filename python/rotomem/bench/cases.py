"""What is timed: pictures, objects and memories as shots have them, and numbers that resemble a video's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rotomem.errors import UsageError

SIZES = {"480p": (480, 864), "1080p": (1088, 1920), "4K": (2160, 4096)}
"""Network pictures, height and width; a multiple of the stride of 16."""

STRIDE = 16
_DRAWN = 8191
"""Values that are drawn; more elements have them again. Billions would take longer to draw than to read."""

OBJECTS = (1, 3, 10)
PROTOTYPES = 10_000
"""Elements of a long-term memory that is full (XMem, section 4)."""


def grid(size: str) -> tuple[int, int]:
    """Rows and columns of elements of one frame. Raises UsageError for a size there is none of."""
    height, width = picture(size)
    return height // STRIDE, width // STRIDE


def picture(size: str) -> tuple[int, int]:
    """Height and width of a network picture: a name of SIZES or `HEIGHTxWIDTH`. Raises UsageError."""
    if size in SIZES:
        return SIZES[size]
    height, _, width = size.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) >= STRIDE and int(width) >= STRIDE):
        raise UsageError(f"no size {size!r}", remedy=f"use {', '.join(SIZES)} or HEIGHTxWIDTH, from {STRIDE} each")
    return int(height), int(width)


@dataclass(frozen=True)
class Memory:
    """A memory and one frame that reads it.

    size         of the picture; frames in working memory, each of a picture's elements; long-term prototypes
    key_channels, value_channels   CK and CV; the defaults are XMem's
    """

    size: str
    objects: int = 1
    frames: int = 10
    prototypes: int = 0
    key_channels: int = 64
    value_channels: int = 512

    @property
    def positions(self) -> int:
        """P."""
        return math.prod(grid(self.size))

    @property
    def elements(self) -> int:
        """N."""
        return self.frames * self.positions + self.prototypes

    @property
    def name(self) -> str:
        """Such as `480p 3 objects 10 frames + 10k`."""
        objects = "1 object" if self.objects == 1 else f"{self.objects} objects"
        frames = "1 frame" if self.frames == 1 else f"{self.frames} frames"
        long = f" + {self.prototypes / 1000:g}k" if self.prototypes else ""
        narrow = "" if self.value_channels == 512 else f" CV {self.value_channels}"
        return f"{self.size} {objects} {frames}{long}{narrow}"

    def nbytes(self) -> int:
        """Bytes of its tensors, float32."""
        elements = self.key_channels + self.objects * self.value_channels + 1
        return 4 * (self.elements * elements + 2 * self.key_channels * self.positions)


READS = (
    *(Memory("480p", o, 10, PROTOTYPES) for o in OBJECTS),
    *(
        Memory("480p", 1, frames, long)
        for long in (0, PROTOTYPES)
        for frames in (1, 2, 5, 10)
        if (frames, long) != (10, PROTOTYPES)
    ),
    Memory("480p", 1, 10, PROTOTYPES, value_channels=128),
    *(Memory("1080p", o, 10, PROTOTYPES) for o in OBJECTS),
    *(Memory("4K", o, 10, 0) for o in OBJECTS),
)
"""Readings: of a full memory, of what it grows through, of xmem-s' narrow values, and of the largest plate."""


def chosen(cases: Iterable[Memory], names: Iterable[str], objects: Iterable[int]) -> list[Memory]:
    """Cases whose name holds one of `names`, of one of these numbers of objects; nothing given means all.

    Raises UsageError where nothing is left.
    """
    names, objects = list(names), list(objects)
    left = [
        case
        for case in cases
        if (not names or any(name in case.name for name in names)) and (not objects or case.objects in objects)
    ]
    if not left:
        raise UsageError("no case is called so", remedy="cases have names such as " + repr(READS[0].name))
    return left


@dataclass(frozen=True)
class Inputs:
    """What `ops.read_memory` takes, laid out as a memory bank stores it: key [N, CK] and value [O, N, CV] below.

    key [1, CK, N]   query_key [1, CK, P]   value [1, O, CV, N]   shrinkage [1, N]   selection [1, CK, P]
    """

    key: Tensor
    query_key: Tensor
    value: Tensor
    shrinkage: Tensor
    selection: Tensor


def inputs(case: Memory, device: torch.device, seed: int = 0) -> Inputs:
    """Numbers for a case: frames of one scene that moves, as keys of trained networks have them.

    The same place has nearly the same key on every frame, its neighbours similar ones: spread, distances and ranges
    are about those of xmem-s. Prototypes are places picked from other frames.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, columns = grid(case.size)
    channels = case.key_channels
    margin = 4 * (case.frames + 1)
    coarse = torch.randn(1, channels, (rows + margin) // 3 + 2, (columns + margin) // 3 + 2, generator=generator)
    scene = F.interpolate(coarse, scale_factor=3.0, mode="bilinear", align_corners=False)[0]
    scene = 2.5 * scene + 1.4 * torch.randn(channels, 1, 1, generator=generator)

    def frame(number: int) -> Tensor:
        """[rows * columns, CK]"""
        view = scene[:, number : number + rows, 2 * number : 2 * number + columns]
        noisy = view + 0.3 * torch.randn(view.shape, generator=generator)
        return noisy.flatten(1).T

    key = torch.empty(case.elements, channels)
    places = torch.randint(rows * columns, (case.prototypes,), generator=generator)
    key[: case.prototypes] = frame(0)[places] + 0.5 * torch.randn(case.prototypes, channels, generator=generator)
    for number in range(case.frames):
        start = case.prototypes + number * rows * columns
        key[start : start + rows * columns] = frame(number)
    query = frame(case.frames).T.contiguous()
    some = torch.randn(case.objects, _DRAWN, case.value_channels, generator=generator)
    value = some.to(device)[:, torch.arange(case.elements, device=device) % _DRAWN]
    shrinkage = 1 + 2 * torch.rand(1, case.elements, generator=generator) ** 2
    selection = torch.rand(1, channels, case.positions, generator=generator) ** 0.5
    return Inputs(
        key.to(device).T[None],
        query.to(device)[None],
        value.transpose(1, 2)[None],
        shrinkage.to(device),
        selection.to(device),
    )
