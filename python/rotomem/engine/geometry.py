"""Plate to network and back: square pixels, working size, edges.

A plate's canvas may have millions of pixels, and pixels that are not square. The network wants a moderate picture
of square ones, made by averaging whole areas so that thin things fade instead of flicker. What it answers goes
back the same way and stays soft: every resampling here is an average with weights that sum to 1, so
probabilities still sum to 1 and coverage stays in 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rotomem.engine.options import DEFAULT_SIZE
from rotomem.errors import ShapeError, UsageError
from rotomem.matting.raster import resample

_Planes = TypeVar("_Planes", Tensor, NDArray[Any])


def fit(height: int, width: int, size: int | None, pixel_aspect: float = 1.0) -> tuple[int, int]:
    """The network picture's (h, w) for a canvas of `height` x `width` pixels.

    size           shorter side wanted, in square pixels; None, or more than the canvas has, keeps its own size
    pixel_aspect   width of a pixel over its height; 2.0 for a classic anamorphic plate

    The vertical resolution of the canvas is never exceeded; only x is stretched, by the pixel aspect.
    """
    if height < 1 or width < 1:
        raise ShapeError(f"a picture of {width}x{height} has no pixels")
    if not (pixel_aspect > 0 and pixel_aspect != float("inf")):
        pixel_aspect = 1.0
    square_width = width * pixel_aspect
    shorter = min(height, square_width)
    scale = 1.0 if size is None else min(1.0, size / shorter)
    return max(round(height * scale), 1), max(round(square_width * scale), 1)


def rim_of(h: int, w: int, rim: int | None) -> int:
    """The rim of a network picture [h, w]; None: 8 pixels for every whole 240 of its shorter side, at most 64.

    Where the border cuts an object, the 4 pixels along it err by up to two thirds less with 16; at 480 that is 11 %
    more pixels. Small pictures, which have none to spare, get none. Raises UsageError for a negative or absurd rim.
    """
    if rim is None:
        return min(8 * (min(h, w) // 240), 64)
    if not 0 <= rim <= 64:
        raise UsageError(f"an edge rim of {rim} pixels", remedy="give 0 to 64")
    return rim


def to_network(image: Tensor, h: int, w: int) -> Tensor:
    """A picture or masks [H, W, C] resampled to [h, w, C] float32.

    Shrinking averages the area each new pixel covers, stretching is bilinear, each axis for itself. Give light
    (scene-linear values) for a picture and coverage for masks: averages of encoded values darken edges.
    float16 comes in without a float32 copy of the whole plate.
    """
    if image.shape[:2] == (h, w):
        return image.float()
    # Rows first: whole rows are gathered, and fewer of them are left for the scattered gather along x.
    return resample(resample(image, 0, h), 1, w).float()


def from_network(probabilities: Tensor, height: int, width: int) -> Tensor:
    """Probabilities [..., h, w] at `height` x `width`, bilinear (averaged along an axis that shrinks), float32."""
    if probabilities.shape[-2:] == (height, width):
        return probabilities.float()
    lead, (h, w) = probabilities.shape[:-2], probabilities.shape[-2:]
    if height >= h and width >= w:
        flat = probabilities.float().reshape(-1, 1, h, w)
        enlarged = F.interpolate(flat, (height, width), mode="bilinear", align_corners=False)
        return enlarged.view(*lead, height, width)
    rows = resample(probabilities.float(), probabilities.ndim - 2, height)
    return resample(rows, probabilities.ndim - 1, width)


@dataclass(frozen=True)
class ShotGeometry:
    """How one shot's canvas and its network picture lie on each other; the same on every frame.

    height, width   of the canvas
    h, w            of the network picture, without the rim
    rim             pixels replicated around the network picture before the network sees it and cut off after: what
                    touches the plate's border is then surrounded by more of itself instead of by nothing
    """

    height: int
    width: int
    h: int
    w: int
    rim: int = 0

    @classmethod
    def of(
        cls,
        height: int,
        width: int,
        *,
        size: int | None = DEFAULT_SIZE,
        pixel_aspect: float = 1.0,
        rim: int | None = 0,
    ) -> ShotGeometry:
        """For a canvas of `height` x `width`. Raises what `rim_of` raises."""
        h, w = fit(height, width, size, pixel_aspect)
        return cls(height, width, h, w, rim_of(h, w, rim))

    @property
    def network_size(self) -> tuple[int, int]:
        """(h, w) of what the session is given, rim included."""
        return self.h + 2 * self.rim, self.w + 2 * self.rim

    def shrink(self, picture: Tensor) -> Tensor:
        """Canvas [H, W, C] to [h, w, C] without the rim; a picture in linear light, or coverage."""
        if tuple(picture.shape[:2]) != (self.height, self.width):
            raise ShapeError(
                f"picture is {picture.shape[1]}x{picture.shape[0]}, the shot's canvas is {self.width}x{self.height}"
            )
        return to_network(picture, self.h, self.w)

    def add_rim(self, picture: Tensor) -> Tensor:
        """[h, w, C] with the rim replicated around it."""
        if not self.rim:
            return picture
        planes = picture.permute(2, 0, 1)[None]
        return F.pad(planes, (self.rim,) * 4, mode="replicate")[0].permute(1, 2, 0).contiguous()

    def masks(self, alpha: Tensor) -> Tensor:
        """Coverage [O, H, W] on the canvas to what the session takes, [O, h, w] with the rim."""
        # An average of values in 0..1 may leave 0..1 by a rounding error.
        return self.add_rim(self.shrink(alpha.permute(1, 2, 0))).permute(2, 0, 1).clamp(0, 1).contiguous()

    def restore(self, probabilities: Tensor) -> Tensor:
        """Session probabilities [O, h, w] with the rim to the canvas [O, H, W], 0..1."""
        return self.enlarge(self.cut_rim(probabilities))

    def cut_rim(self, planes: _Planes) -> _Planes:
        """[..., h, w] with the rim to what lies inside of it."""
        r = self.rim
        return planes[..., r : r + self.h, r : r + self.w] if r else planes

    def enlarge(self, probabilities: Tensor) -> Tensor:
        """[..., h, w] without the rim to the canvas [..., H, W], 0..1."""
        return from_network(probabilities, self.height, self.width).clamp(0, 1)
