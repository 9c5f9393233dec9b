"""Clicks, scribbles and boxes on one picture become soft masks.

    hint       discs around the clicks, the box
    learn      which look is the object's: logistic regression on the model's features and colour
    walk       a random walker follows the picture's edges from what was learned; marks are its seeds
    again      what came out is the next hint

as GrabCut does with other parts (Rother et al., SIGGRAPH 2004, section 3.2). Only what hangs together with a mark is
kept. Every mark starts from the answer to those before it, and only adds where it lies on the object, only takes away
where it lies beside: nothing that was right is lost to a click elsewhere. The encoder runs once a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from rotomem.prompts.marks import Mark, Point, Prompt, as_prompts, check_prompts
from rotomem.prompts.walker import GridWeights, walk
from rotomem.types import Window

_STRIDE = 4
_ROUNDS, _FURTHER_ROUNDS = 3, 1  # after the first mark, and after each other
_TRUST = 0.5  # in the answer before, as a share of its log odds
_HINT = 0.1  # of the shorter side: how far around a click the first round takes for what it says
_STROKE_HINT = 0.05  # around a scribble, which follows the object's shape
_FAR = 0.5  # of the shorter side: from here on nothing is farther from a mark
_NEARNESS = 0.25
_SHARPNESS = 2.0
_PRIOR = 0.1  # what was learned, against steps between places of up to 1
_SEED = 50.0
_FIRMNESS = 4.0
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
            raise ShapeError(f"picture is {tuple(image.shape)} {image.dtype}, expected [H, W, 3] float32 in 0..1")
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
        # Object -> what it began with, and its marks with the answers after each: the artist adds one at a time.
        self._chains: dict[str, tuple[tuple[bytes, ...], list[tuple[Mark, Tensor | None]]]] = {}

    @torch.inference_mode()
    def masks(self, prompts: Mapping[str, Prompt | Sequence[Any]]) -> NDArray[np.float32]:
        """Coverage [O, H, W] float32 in 0..1 of the objects prompted for, in their order; the sum is at most 1.

        prompts   object name -> Prompt, or as in a file of prompts: {"hero": [{"in": [640, 360]}, {"out": [9, 9]}]}

        A mark on one object lies beside all others. Raises MaskError for prompts that cannot be answered.
        Cost: about 0.1 s a new mark at 480 lines.
        """
        told = as_prompts(prompts)
        check_prompts(told, self.canvas)
        inside = {name: self._painted(prompt, prompt.marks, True) for name, prompt in told.items()}
        nothing = torch.zeros(self._grid, dtype=torch.bool)
        planes = []
        for name, prompt in told.items():
            others = [plane for other, plane in inside.items() if other != name]
            planes.append(self._answer(name, prompt, torch.stack([nothing, *others]).amax(0) & ~inside[name]))
        # What is more likely than not is firmly so: a key that is unsure inside would teach the tracker that.
        soft = from_network(torch.stack(planes), self.height, self.width)
        masks = torch.sigmoid(_FIRMNESS * torch.logit(soft, eps=1e-6)) * (soft > 0)
        return (masks / masks.sum(0).clamp(min=1)).numpy()

    def _answer(self, name: str, prompt: Prompt, others: Tensor) -> Tensor:
        """One object's mask [h, w] on the grid, mark after mark.

        others   [h, w] bool, where other objects are marked
        """
        box = self._box(prompt)
        inside, outside = self._painted(prompt, (), True), self._painted(prompt, (), False) | others
        start = tuple(plane.numpy().tobytes() for plane in (inside, outside, *([] if box is None else [box])))
        before, chain = self._chains.get(name, ((), []))
        chain = chain if before == start else []
        belief = None
        if inside.any() or box is not None:
            belief = self._learn(None, inside, True, _STROKE_HINT, inside, outside, box)
        answered: list[tuple[Mark, Tensor | None]] = []
        for place, mark in enumerate(prompt.marks):
            here = self._painted(Prompt(), (mark,), mark.inside)
            if mark.inside:  # of two marks on one place the later is right
                inside, outside = inside | here, outside & ~here
            else:
                inside, outside = inside & ~here, outside | here
            if place < len(chain) and chain[place][0] == mark:
                belief = chain[place][1]
            else:
                chain = chain[:place]
                if inside.any() or belief is not None:
                    hint = _HINT if len(mark.points) == 1 else _STROKE_HINT
                    belief = self._learn(belief, here, mark.inside, hint, inside, outside, box)
            answered.append((mark, belief))
        self._chains[name] = start, answered
        assert belief is not None  # `check_prompts` saw a mark inside, or a box
        return belief

    def _learn(
        self,
        before: Tensor | None,
        here: Tensor,
        there: bool,
        hint: float,
        inside: Tensor,
        outside: Tensor,
        box: Tensor | None,
    ) -> Tensor:
        """The mask [h, w] after one more mark.

        before            what was answered so far
        here, there       [h, w] bool, the places of the mark, and whether it says that the object is there
        hint              how far around it that is believed at first, as a share of the shorter side
        inside, outside   [h, w] bool, all that was marked by now
        box               [h, w] bool, outside of which the object is not; None: it may be anywhere
        """
        short = min(self._grid)
        to_inside, to_outside = (self._distance(marked, _FAR * short) for marked in (inside, outside))
        nearness = _NEARNESS * torch.log((to_outside + 2) / (to_inside + 2))
        around = self._distance(here, _FAR * short) < hint * short
        if before is not None:
            believed = torch.where(around & ((to_inside < to_outside) == there), float(there), before)
            nearness = nearness + _TRUST * torch.logit(before, eps=0.02)
        else:
            first = box if box is not None and not inside.any() else around & (to_inside < to_outside)
            believed = first.float()
        marked = inside | outside
        known = marked if box is None else marked | ~box
        drawn, strength = inside.float(), _PRIOR + _SEED * known
        belief = torch.where(known, drawn, believed)
        for _ in range(_ROUNDS if before is None else _FURTHER_ROUNDS):
            odds = tell_apart(self._rows, belief.flatten(), marked.flatten()).view(self._grid)
            prior = torch.where(known, drawn, torch.sigmoid(odds + nearness))
            belief = torch.where(known, drawn, walk(self._weights, prior, strength))
        if inside.any():
            belief = belief * _around(_reached(belief > 0.5, inside), 2)
        if before is None:
            return belief
        further = torch.maximum(before, belief) if there else torch.minimum(before, belief)
        return torch.where(known, drawn, further)

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

    def _painted(self, prompt: Prompt, marks: Sequence[Mark], inside: bool) -> Tensor:
        """[h, w] bool: the places under these marks and the prompt's strokes, of one kind."""
        h, w = self._grid
        out = torch.zeros(h, w, dtype=torch.bool)
        if prompt.strokes is not None:
            strokes = torch.from_numpy(prompt.strokes == (1 if inside else -1)).float()[None, None]
            out = F.adaptive_max_pool2d(strokes, (h, w))[0, 0] > 0
        y, x = torch.arange(h)[:, None] + 0.5, torch.arange(w)[None] + 0.5
        for mark in marks:
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
