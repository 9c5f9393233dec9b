"""Clicks, scribbles and boxes on one picture become soft masks.

    hint       discs around the clicks, the box
    learn      which look is the object's: logistic regression on the model's features and colour
    walk       a random walker follows the picture's edges from what was learned; marks are its seeds
    again      what came out is the next hint

as GrabCut does with other parts (Rother et al., SIGGRAPH 2004, section 3.2). Only what hangs together with a mark is
kept. The encoder runs once a picture; an answer depends on the marks alone, not on the order they came in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rotomem.engine.geometry import fit, from_network, to_network
from rotomem.engine.options import DEFAULT_SIZE
from rotomem.errors import ShapeError
from rotomem.matting.islands import Islands
from rotomem.models.interface import VOSModel
from rotomem.prompts.appearance import describe, opponent_colour, tell_apart
from rotomem.prompts.marks import Point, Prompt, as_prompts, check_prompts
from rotomem.prompts.walker import GridWeights, walk
from rotomem.types import Window

_STRIDE = 4
_ROUNDS = 3
_HINT = 0.1  # of the shorter side: the disc around a click that the first round takes for the object
_FAR = 0.5  # of the shorter side: from here on nothing is farther from a mark
_NEARNESS = 0.25
_SHARPNESS = 2.0
_PRIOR = 0.1  # what was learned, against steps between places of up to 1
_SEED = 50.0
_BRUSH = 1.5  # places: no mark is narrower, or it would fall between them
_MARKED = 512  # marked places that distances are taken from


class Prompter:
    """One picture that answers prompts; keep it while the artist clicks.

    model     from `load_model`
    picture   [H, W, 3] float32, display-referred 0..1, shown in square pixels
    size      shorter side of the picture that is worked on; None: as it is
    canvas    what the marks' places count on; None: the picture's own pixels

    Raises ShapeError for anything that is no picture.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: VOSModel,
        picture: NDArray[np.float32] | Tensor,
        *,
        size: int | None = DEFAULT_SIZE,
        canvas: Window | None = None,
    ) -> None:
        image = torch.as_tensor(picture)
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or not image.is_floating_point():
            raise ShapeError(
                f"picture is {tuple(image.shape)} {image.dtype}, expected [H, W, 3] float32 in 0..1",
            )
        self.height, self.width = image.shape[:2]
        self.canvas = canvas or Window(0, 0, self.width, self.height)
        stride = model.plan.stride
        # A whole number of strides, so that no model pads and its features lie evenly over the picture.
        h, w = (max(round(n / stride), 1) * stride for n in fit(self.height, self.width, size))
        self._grid = h // _STRIDE, w // _STRIDE
        network = to_network(image.float(), h, w)
        colour = to_network(network, *self._grid).permute(2, 0, 1)
        self._rows = describe(colour, _features(model, network, self._grid))
        self._weights = GridWeights.of(opponent_colour(colour), _SHARPNESS)

    @torch.inference_mode()
    def masks(self, prompts: Mapping[str, Prompt | Mapping[str, Any]]) -> NDArray[np.float32]:
        """Coverage [O, H, W] float32 in 0..1 of the objects prompted for, in their order; the sum is at most 1.

        prompts   object name -> Prompt, or as in a file of prompts: {"hero": {"in": [[640, 360]], "out": [[9, 9]]}}

        A mark on one object lies beside all others. Raises MaskError for prompts that cannot be answered.
        Cost: about 0.1 s an object at 480 lines.
        """
        told = as_prompts(prompts)
        check_prompts(told, self.canvas)
        inside = {name: self._painted(prompt, True) for name, prompt in told.items()}
        planes = []
        for name, prompt in told.items():
            others = [plane for other, plane in inside.items() if other != name]
            outside = torch.stack([self._painted(prompt, False), *others]).amax(0) & ~inside[name]
            planes.append(self._answer(prompt, inside[name], outside))
        masks = torch.stack(planes)
        masks = masks / masks.sum(0).clamp(min=1)
        return from_network(masks, self.height, self.width).numpy()

    def _answer(self, prompt: Prompt, inside: Tensor, outside: Tensor) -> Tensor:
        """One object's mask [h, w] on the grid; `inside` and `outside` [h, w] bool are what was marked."""
        short = min(self._grid)
        to_inside, to_outside = (self._distance(marked, _FAR * short) for marked in (inside, outside))
        marked = inside | outside
        box = self._box(prompt)
        known = marked if box is None else marked | ~box
        nearness = _NEARNESS * torch.log((to_outside + 2) / (to_inside + 2))
        belief = ((to_inside < _HINT * short) & (to_inside < to_outside)).float()
        if box is not None and not inside.any():
            belief = box.float()
        strength = _PRIOR + _SEED * known
        for _ in range(_ROUNDS):
            belief = torch.where(known, inside.float(), belief)
            odds = tell_apart(self._rows, belief.flatten(), marked.flatten()).view(self._grid)
            prior = torch.where(known, inside.float(), torch.sigmoid(odds + nearness))
            belief = walk(self._weights, prior, strength)
        belief = torch.where(known, inside.float(), belief)
        return belief * _around(_reached(belief > 0.5, inside), 2) if inside.any() else belief

    def _place(self, x: float, y: float) -> Point:
        """Plate pixels as places on the grid."""
        canvas, (h, w) = self.canvas, self._grid
        return (x - canvas.x0) * w / canvas.width, (y - canvas.y0) * h / canvas.height

    def _box(self, prompt: Prompt) -> Tensor | None:
        if prompt.box is None:
            return None
        (x0, y0), (x1, y1) = self._place(prompt.box.x0, prompt.box.y0), self._place(prompt.box.x1, prompt.box.y1)
        h, w = self._grid
        y, x = torch.arange(h)[:, None] + 0.5, torch.arange(w)[None] + 0.5
        return (y >= y0) & (y < y1) & (x >= x0) & (x < x1)

    def _painted(self, prompt: Prompt, inside: bool) -> Tensor:
        """[h, w] bool: the places under marks of one kind."""
        h, w = self._grid
        out = torch.zeros(h, w, dtype=torch.bool)
        if prompt.strokes is not None:
            strokes = torch.from_numpy(prompt.strokes == (1 if inside else -1)).float()[None, None]
            out = F.adaptive_max_pool2d(strokes, (h, w))[0, 0] > 0
        y, x = torch.arange(h)[:, None] + 0.5, torch.arange(w)[None] + 0.5
        for mark in prompt.marks:
            if mark.inside != inside:
                continue
            points = [self._place(*point) for point in mark.points]
            radius = max(mark.radius * h / self.canvas.height, _BRUSH)
            for a, b in zip(points, points[1:] or points, strict=False):
                out |= _to_segment(x, y, a, b) <= radius
        return out

    def _distance(self, marked: Tensor, most: float) -> Tensor:
        """[h, w] places to the nearest marked one, `most` at most."""
        places = marked.nonzero()
        if not len(places):
            return torch.full(self._grid, most)
        places = places[:: -(-len(places) // _MARKED)].float()
        h, w = self._grid
        y, x = torch.meshgrid(torch.arange(h).float(), torch.arange(w).float(), indexing="ij")
        nearest = torch.cdist(torch.stack([y, x], -1).view(-1, 2), places).amin(1)
        return nearest.view(h, w).clamp(max=most)


def _features(model: VOSModel, picture: Tensor, grid: tuple[int, int]) -> Tensor | None:
    """What the model sees at each place, [C, h, w], or None where it does not tell."""
    device = next(model.parameters()).device
    framed = model.framing.image(picture.permute(2, 0, 1)[None].to(device))
    with torch.autocast(device.type, model.compute_dtype, enabled=model.compute_dtype != torch.float32):
        fine = model.fine_features(model.encode_frame(framed.contiguous(memory_format=torch.channels_last)))
    if fine is None:
        return None
    fine = fine.float().cpu()
    if fine.shape[-2:] != grid:
        fine = F.interpolate(fine, grid, mode="bilinear", align_corners=False)
    return fine[0]


def _to_segment(x: Tensor, y: Tensor, a: Point, b: Point) -> Tensor:
    """Distance of each place from the line between two points."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    square = dx * dx + dy * dy
    along = ((x - a[0]) * dx + (y - a[1]) * dy) / square if square else torch.zeros(())
    along = along.clamp(0, 1)
    return torch.hypot(x - a[0] - along * dx, y - a[1] - along * dy)


def _reached(mask: Tensor, start: Tensor) -> Tensor:
    """Of a mask [h, w] bool what hangs together, by sides, with places of `start`."""
    islands = Islands(mask.numpy())
    return torch.from_numpy(islands.mask(islands.touched(start.numpy())))


def _around(mask: Tensor, reach: int) -> Tensor:
    """A mask [h, w] grown by `reach` places to all sides, as 0 and 1."""
    return F.max_pool2d(mask.float()[None, None], 2 * reach + 1, 1, reach)[0, 0]
