"""What an artist says about an object without drawing it: clicks, scribbles, a box; as values, as JSON, as a picture.

Places are in the plate's own pixels: x to the right, y down, (0, 0) the upper left corner of the pixel that EXR
windows count as 0, 0. A file of prompts tells of each object in the order in which it was said:

    {"hero": [{"in": [640, 360]}, {"in": [[600, 300], [620, 340]], "radius": 6}, {"out": [100, 50]}],
     "car": [{"box": [0, 0, 200, 80]}, {"in": [90, 40]}]}

"in" lies on the object, "out" beside it; a point is a click, a list of points a scribble.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rotomem.errors import MaskError
from rotomem.io.exr import read_still
from rotomem.types import Window

Point = tuple[float, float]

_RADIUS = 3.0
_DARK = 0.1  # of white: strokes below it are background
_OPAQUE = 0.5
_FEW = 0.05  # of the most used colour: what is rarer is where two strokes met


@dataclass(frozen=True)
class Mark:
    """One click (a single point) or scribble (a polyline).

    points   (x, y) in plate pixels, at least one
    inside   True on the object, False beside it
    radius   of the brush, in plate pixels
    """

    points: tuple[Point, ...]
    inside: bool = True
    radius: float = _RADIUS


def click(x: float, y: float, inside: bool = True) -> Mark:
    """One click on an object, or beside it."""
    return Mark(((float(x), float(y)),), inside)


@dataclass(frozen=True)
class Prompt:
    """All that was said about one object on one frame.

    marks   clicks and scribbles, in the order they were made: each corrects what was answered to those before it
    box     the object lies inside this window; None: anywhere
    strokes painted scribbles [H, W] int8 on the canvas: 1 on the object, -1 beside it, 0 nothing said; None: none
    """

    marks: tuple[Mark, ...] = ()
    box: Window | None = None
    strokes: NDArray[np.int8] | None = None


def as_prompts(told: Mapping[str, Prompt | Sequence[Any]], *, source: str = "the prompts") -> dict[str, Prompt]:
    """Object name -> prompt, from prompts and from what a file of prompts holds for an object.

    source   what errors call it
    Raises MaskError saying which object and which entry is wrong.
    """
    if not isinstance(told, Mapping) or not told:
        raise MaskError(f"{source} name no object", remedy='write {"hero": [{"in": [640, 360]}]}')
    return {name: of if isinstance(of, Prompt) else _prompt(name, of, source) for name, of in told.items()}


def read_prompts(path: str | Path) -> dict[str, Prompt]:
    """A JSON file of prompts. Raises MaskError naming the file."""
    path = Path(path)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MaskError(f"cannot read the prompts: {error.strerror}", path=path) from None
    except ValueError as error:
        raise MaskError(f"the prompts are no JSON: {error}", path=path) from None
    return as_prompts(told, source=path.name)


def as_json(prompts: Mapping[str, Prompt]) -> dict[str, Any]:
    """Prompts as a file of prompts holds them; painted strokes are left out."""
    told: dict[str, Any] = {}
    for name, prompt in prompts.items():
        box = prompt.box
        said: list[dict[str, Any]] = [] if box is None else [{"box": [box.x0, box.y0, box.x1, box.y1]}]
        for mark in prompt.marks:
            points = [list(point) for point in mark.points]
            one = {"in" if mark.inside else "out": points[0] if len(points) == 1 else points}
            said.append(one if mark.radius == _RADIUS else {**one, "radius": mark.radius})
        told[name] = said
    return told


def _prompt(name: str, told: Any, source: str) -> Prompt:
    if not _listed(told):
        raise MaskError(f"{source}: {name} has {told!r}", remedy='give a list such as [{"in": [640, 360]}]')
    marks: list[Mark] = []
    box: Window | None = None
    for said in told:
        kind = next((k for k in ("in", "out", "box") if isinstance(said, Mapping) and k in said), None)
        if kind is None or set(said) - {kind, "radius"}:
            raise MaskError(f"{source}: {name} has {said!r}", remedy='give one of "in", "out" and "box"')
        if kind == "box":
            box = _window(name, said["box"], source)
            continue
        radius, points = said.get("radius", _RADIUS), said[kind]
        points = [points] if _point(points) else points
        if not _listed(points) or not points or not all(map(_point, points)):
            raise MaskError(
                f"{source}: '{kind}' of {name} is {said[kind]!r}",
                remedy="a click is [x, y], a scribble a list of such points",
            )
        if not _number(radius) or radius <= 0:
            raise MaskError(f"{source}: a radius of {name} is {radius!r}", remedy="give plate pixels above 0")
        marks.append(Mark(tuple((float(x), float(y)) for x, y in points), kind == "in", float(radius)))
    return Prompt(tuple(marks), box)


def _window(name: str, told: Any, source: str) -> Window:
    if not (_listed(told) and len(told) == 4 and all(map(_number, told)) and told[0] < told[2] and told[1] < told[3]):
        raise MaskError(f"{source}: the box of {name} is {told!r}", remedy="give [x0, y0, x1, y1]")
    x0, y0, x1, y1 = told
    return Window(math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1))


def _listed(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _point(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_number, value))


def read_scribbles(path: str | Path, canvas: Window) -> dict[str, Prompt]:
    """Painted strokes: what is transparent says nothing, dark strokes are background, every other colour an object.

    path   a picture with alpha that covers the canvas; colours are compared as they are stored
    returns   colour as "ff0000" -> prompt, the most used colour first; a dark stroke is beside every one of them

    Raises MaskError for a picture without alpha, of another size, without a stroke on an object.
    """
    still = read_still(path)
    names = {c.component.upper(): n for n, c in zip(still.arrays, still.channels, strict=True)}
    if not {"R", "G", "B", "A"} <= set(names):
        raise MaskError(
            f"the scribbles have the channels {', '.join(still.arrays)}",
            remedy="paint on a transparent picture and save it with R, G, B and A",
            path=path,
        )
    rgba = np.stack([_unit(still.arrays[names[c]]) for c in "RGBA"], -1)
    if rgba.shape[:2] != (canvas.height, canvas.width):
        raise MaskError(
            f"the scribbles are {rgba.shape[1]}x{rgba.shape[0]}, the plate is {canvas.width}x{canvas.height}",
            remedy="paint over a frame of the plate",
            path=path,
        )
    painted = rgba[..., 3] >= _OPAQUE
    colour = (rgba[..., :3].clip(0, 1) * 255).round().astype(np.int64) @ np.array([65536, 256, 1])
    dark = painted & (rgba[..., :3].max(-1) < _DARK)
    values, counts = np.unique(colour[painted & ~dark], return_counts=True)
    if not values.size:
        raise MaskError("the scribbles mark no object", remedy="paint on it in a colour that is not dark", path=path)
    order = [i for i in np.argsort(-counts, kind="stable") if counts[i] >= _FEW * counts.max()]
    chosen = values[order]
    beside = np.where(dark, np.int8(-1), np.int8(0))
    return {
        f"{value:06x}": Prompt(strokes=np.where(painted & (colour == value), np.int8(1), beside)) for value in chosen
    }


def _unit(plane: NDArray[Any]) -> NDArray[np.float32]:
    full = np.iinfo(plane.dtype).max if plane.dtype.kind in "ui" else 1
    return plane.astype(np.float32) / np.float32(full)


def check_prompts(prompts: Mapping[str, Prompt], canvas: Window) -> None:
    """Raise MaskError for what cannot be answered: a mark off the canvas, an object without a mark on it, two objects
    at one place."""
    if not prompts:
        raise MaskError("nothing was marked", remedy="click on an object")
    owner: dict[Point, str] = {}
    for name, prompt in prompts.items():
        here = {p for mark in prompt.marks if mark.inside for p in mark.points}
        painted = prompt.strokes is not None and bool((prompt.strokes > 0).any())
        if not here and not painted and prompt.box is None:
            raise MaskError(f"{name} has no mark on it", remedy="click on the object at least once, or give a box")
        for mark in prompt.marks:
            for x, y in mark.points:
                if not (canvas.x0 <= x < canvas.x1 and canvas.y0 <= y < canvas.y1):
                    raise MaskError(
                        f"a mark of {name} at {x:g},{y:g} lies outside of the plate's {canvas}",
                        remedy="places are in plate pixels, y down",
                    )
                if not mark.inside and (x, y) in here:
                    raise MaskError(f"{name} is marked in and out at {x:g},{y:g}", remedy="take one of them away")
        if prompt.box is not None and prompt.box.intersect(canvas).empty:
            raise MaskError(f"the box of {name} lies outside of the plate's {canvas}")
        for point in here:
            if other := owner.get(point):
                raise MaskError(
                    f"{other} and {name} are both marked at {point[0]:g},{point[1]:g}", remedy="take one of them away"
                )
            owner[point] = name
