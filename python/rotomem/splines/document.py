"""rotomem's own spline file: JSON that a host's script writes with a few lines.

    {
      "rotomem_splines": 1,
      "size": [1920, 1080],                     the display window, in pixels
      "pixel_aspect": 1.0,                      may be left out
      "objects": [
        {"name": "hero", "shapes": [            from the lowest up
          {"name": "body",                      may be left out
           "operation": "add",                  or "subtract"; may be left out
           "frames": [1001, 1040],              first and last it exists on; left out: all
           "keys": [
             {"frame": 1001,
              "points": [[in_x, in_y, x, y, out_x, out_y], ...],   or [x, y] for a corner without handles
              "feather": [0, 2.5, ...]}         pixels per point, or one number for all; left out: 0
    ]}]}]}

Pixels of the display window, y down, (0, 0) the outer corner of the first pixel; handles are absolute. Numbers are
written to 1/10000 of a pixel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from rotomem.splines.types import Curve, Shape, SplineError, Splines

VERSION = 1
_DIGITS = 4
_Json = Mapping[str, Any]


def write(splines: Splines) -> str:
    """The text of a spline file; the same splines give the same text."""
    objects = [{"name": name, "shapes": [_shape(s) for s in shapes]} for name, shapes in splines.objects.items()]
    document = {
        "rotomem_splines": VERSION,
        "size": list(splines.size),
        "pixel_aspect": splines.pixel_aspect,
        "objects": objects,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), indent=None) + "\n"


def _shape(shape: Shape) -> dict[str, Any]:
    said: dict[str, Any] = {"name": shape.name, "operation": "subtract" if shape.subtract else "add"}
    if shape.span is not None:
        said["frames"] = list(shape.span)
    said["keys"] = [_key(frame, curve) for frame, curve in shape.keys.items()]
    return said


def _key(frame: int, curve: Curve) -> dict[str, Any]:
    said: dict[str, Any] = {"frame": frame, "points": curve.points.reshape(-1, 6).round(_DIGITS).tolist()}
    if curve.feather.any():
        said["feather"] = curve.feather.round(_DIGITS).tolist()
    return said


def read(text: str) -> Splines:
    """The splines in a file's text. Raises SplineError naming the object, shape and frame that is wrong."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise SplineError(f"it is not JSON: {e}") from e
    if not isinstance(document, dict) or "rotomem_splines" not in document:
        raise SplineError(
            'it is JSON but holds no splines ("rotomem_splines" is missing)',
            remedy="write it as described in rotomem/splines/document.py",
        )
    if document["rotomem_splines"] != VERSION:
        raise SplineError(
            f"its version is {document['rotomem_splines']!r}, this rotomem reads {VERSION}", remedy="update rotomem"
        )
    size = _numbers(document.get("size"), 2, "size")
    aspect = _numbers([document.get("pixel_aspect", 1.0)], 1, "pixel_aspect")[0]
    if min(*size, aspect) <= 0:
        raise SplineError("size and pixel_aspect must be positive", size=document.get("size"), pixel_aspect=aspect)
    objects: dict[str, tuple[Shape, ...]] = {}
    for said in _list(document, "objects", "the file"):
        name = said.get("name")
        if not isinstance(name, str) or not name.strip():
            raise SplineError(f"an object has the name {name!r}, expected text")
        if name in objects:
            raise SplineError(f"two objects are named '{name}'")
        shapes = enumerate(_list(said, "shapes", f"object '{name}'"), 1)
        objects[name] = tuple(_read_shape(s, name, f"shape{i}") for i, s in shapes)
    return Splines((int(size[0]), int(size[1])), objects, float(aspect))


def _read_shape(said: _Json, owner: str, default: str) -> Shape:
    name = str(said.get("name", default))
    where: dict[str, Any] = {"object": owner, "shape": name}
    operation = said.get("operation", "add")
    if operation not in ("add", "subtract"):
        raise SplineError(f"its operation is {operation!r}, expected add or subtract", **where)
    span = None
    if said.get("frames") is not None:
        first, last = _frames(said["frames"], 2, "frames", where)
        if last < first:
            raise SplineError(f"its frames run from {first} to {last}", **where)
        span = (first, last)
    keys: dict[int, Curve] = {}
    for key in _list(said, "keys", f"shape '{name}'"):
        (frame,) = _frames([key.get("frame")], 1, "frame", where)
        if frame in keys:
            raise SplineError(f"it has two keys on frame {frame}", **where)
        try:
            keys[frame] = _read_curve(key)
        except SplineError as e:
            raise SplineError(e.what, frame=frame, **where) from e
    try:
        return Shape(name, keys, operation == "subtract", span)
    except SplineError as e:
        raise SplineError(e.what, **where) from e


def _read_curve(said: _Json) -> Curve:
    rows = said.get("points")
    if not isinstance(rows, list) or not rows or not all(isinstance(r, list) and len(r) in (2, 6) for r in rows):
        raise SplineError("points is no list of [in_x, in_y, x, y, out_x, out_y] or [x, y]")
    points = np.array([_numbers(r * 3 if len(r) == 2 else r, 6, "a point") for r in rows]).reshape(-1, 3, 2)
    feather = said.get("feather", 0.0)
    widths = feather if isinstance(feather, list) else [feather] * len(points)
    return Curve(points, np.array(_numbers(widths, len(points), "feather")))


def _list(said: _Json, key: str, where: str) -> list[_Json]:
    found = said.get(key) if isinstance(said, dict) else None
    if not isinstance(found, list) or not all(isinstance(f, dict) for f in found):
        raise SplineError(f'"{key}" of {where} is no list of objects')
    return found


def _frames(found: Any, count: int, what: str, where: dict[str, Any]) -> list[int]:
    numbers = _numbers(found, count, what, **where)
    if any(v != int(v) for v in numbers):
        raise SplineError(f"{what} is {found!r}, expected whole numbers", **where)
    return [int(v) for v in numbers]


def _numbers(found: Any, count: int, what: str, **where: Any) -> list[float]:
    whole = isinstance(found, list) and len(found) == count
    if not whole or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in found):
        raise SplineError(f"{what} is {found!r}, expected {count} number{'s' * (count > 1)}", **where)
    try:
        numbers = [float(v) for v in found]
    except OverflowError:
        numbers = [np.inf]
    if not np.isfinite(numbers).all():
        raise SplineError(f"{what} holds a number that is not finite", **where)
    return numbers
