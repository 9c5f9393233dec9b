"""Silhouette's shape files, `.fxs`: XML that Silhouette, Mocha and several Nuke tools read and write.

Its points are relative to the middle of the picture, y down, in units of the picture's height, x times the pixel
aspect; a Bezier point is (point), (handle in), (handle out), all absolute. Key frames count from 0 at
sessionStartFrame. Each layer at the top is an object, and so is each shape that lies in none; the lowest shape comes
first. Boris FX publishes no description: this is what M. Borgo's NukeFXSExporter (BSD) writes, for which Silhouette
reads uniform B-splines as well.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import numpy as np

from rotomem.splines.types import Array, Curve, Shape, SplineError, Splines

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_MODES = {"add": False, "max": False, "subtract": True}
# What a layer's transform properties say where it stays in its place; the matrix is column after column.
_AT_REST = {
    "transform.scale": (1, 1, 1),
    "transform.pin_ur": (1, 0),
    "transform.pin_lr": (1, 1),
    "transform.pin_ll": (0, 1),
    "transform.surface_ur": (1, 0),
    "transform.surface_lr": (1, 1),
    "transform.surface_ll": (0, 1),
    "transform.matrix": tuple(np.eye(4).ravel()),
}


def write(splines: Splines) -> str:
    """The text of an .fxs file. Raises SplineError for a feather, which has no place in it."""
    frames = [f for shapes in splines.objects.values() for s in shapes for f in (*s.keys, *(s.span or ()))]
    start, end = min(frames, default=0), max(frames, default=0)
    width, height = splines.size
    root = ET.Element(
        "Silhouette",
        {
            "width": str(width),
            "height": str(height),
            "pixelAspect": f"{splines.pixel_aspect:g}",
            "workRangeStart": "0",
            "workRangeEnd": str(end - start),
            "sessionStartFrame": str(start),
        },
    )
    for name, shapes in splines.objects.items():
        layer = ET.SubElement(root, "Layer", {"type": "Layer", "label": name, "expanded": "True"})
        properties = ET.SubElement(layer, "Properties")
        _constant(properties, "color", "(1.000000,1.000000,1.000000)")
        _constant(properties, "invert", "false")
        _constant(properties, "mode", "Add")
        objects = ET.SubElement(properties, "Property", {"id": "objects", "constant": "True", "expanded": "True"})
        for shape in shapes:
            _write_shape(objects, shape, splines, start)
    ET.indent(root)
    return "<!-- Silhouette Shape File -->\n" + ET.tostring(root, encoding="unicode") + "\n"


def _write_shape(parent: ET.Element, shape: Shape, splines: Splines, start: int) -> None:
    if any(c.feather.any() for c in shape.keys.values()):
        raise SplineError("an .fxs file holds no feather", remedy="write .json or .nk", shape=shape.name)
    element = ET.SubElement(
        parent,
        "Object",
        {"type": "Shape", "label": shape.name, "shape_type": "Bezier", "hidden": "False", "locked": "False"},
    )
    properties = ET.SubElement(element, "Properties")
    if shape.span is None:
        _constant(properties, "opacity", "100")
    else:
        opacity = ET.SubElement(properties, "Property", {"id": "opacity"})
        first, last = (f - start for f in shape.span)
        for frame, value in ((first - 1, 0), (first, 100), (last + 1, 0)):
            ET.SubElement(opacity, "Key", {"frame": str(frame), "interp": "hold"}).text = str(value)
    _constant(properties, "motionBlur", "false")
    _constant(properties, "mode", "Subtract" if shape.subtract else "Add")
    _constant(properties, "invert", "false")
    path = ET.SubElement(properties, "Property", {"id": "path"})
    for frame, curve in shape.keys.items():
        key = ET.SubElement(path, "Key", {"frame": str(frame - start), "interp": "linear"})
        drawn = ET.SubElement(key, "Path", {"closed": "True", "type": "Bezier"})
        for point in _from_pixels(curve.points[:, (1, 0, 2)], splines):
            ET.SubElement(drawn, "Point").text = ",".join(f"({x:.9f},{y:.9f})" for x, y in point)


def _constant(parent: ET.Element, name: str, value: str) -> None:
    ET.SubElement(ET.SubElement(parent, "Property", {"constant": "True", "id": name}), "Value").text = value


def _from_pixels(points: Array, splines: Splines) -> Array:
    width, height = splines.size
    return (points - (width / 2, height / 2)) / height * (splines.pixel_aspect, 1.0)


def _to_pixels(points: Array, splines: Splines) -> Array:
    width, height = splines.size
    return points / (splines.pixel_aspect, 1.0) * height + (width / 2, height / 2)


def read(text: str) -> Splines:
    """The splines in a file's text; what was left out stands in the notes.

    Raises SplineError for what cannot be drawn without it: transformed layers, inverted shapes, unknown modes.
    """
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError) as e:
        raise SplineError(f"it is not XML: {e}") from e
    if root.tag != "Silhouette":
        raise SplineError(f"it is no Silhouette file: its root is <{root.tag}>")
    try:
        size = int(float(root.get("width", "0"))), int(float(root.get("height", "0")))
        aspect = float(root.get("pixelAspect", "1"))
        start = int(float(root.get("sessionStartFrame", "0")))
    except (ValueError, OverflowError) as e:
        raise SplineError(f"its header holds no numbers: {e}") from e
    if min(*size, aspect) <= 0:
        raise SplineError(f"its header says {size[0]}x{size[1]} with pixel aspect {aspect:g}")
    frame = Splines(size, {}, aspect)
    notes: list[str] = []
    objects: dict[str, list[Shape]] = {}
    for element in root:
        if element.tag in ("Layer", "Shape", "Object"):
            label = element.get("label") or f"object{len(objects) + 1}"
            objects.setdefault(label, []).extend(_read_element(element, frame, start, notes))
    kept = {name: tuple(shapes) for name, shapes in objects.items() if shapes}
    return Splines(size, kept, aspect, tuple(dict.fromkeys(notes)))


def _read_element(element: ET.Element, frame: Splines, start: int, notes: list[str]) -> Iterator[Shape]:
    label = element.get("label") or "shape"
    if element.get("hidden", "").lower() == "true":
        notes.append(f"'{label}' is hidden and was left out")
        return
    properties = {p.get("id", ""): p for p in element.findall("Properties/Property")}
    if _text(properties, "invert", "false").lower() in ("true", "1"):
        raise SplineError(f"'{label}' is inverted", remedy="draw it the right way round, or render it as a mask")
    mode = _text(properties, "mode", "Add").lower()
    if element.get("type", element.tag) != "Shape":
        _check_at_rest(label, properties)
        if mode not in ("add", "max"):
            raise SplineError(f"the layer '{label}' has the mode {mode}", remedy="give its shapes that mode instead")
        children = properties.get("objects")
        for child in children if children is not None else ():
            yield from _read_element(child, frame, start, notes)
        return
    if mode not in _MODES:
        raise SplineError(f"'{label}' has the mode {mode}; add, max and subtract can be drawn")
    shape = _read_shape(label, properties, frame, start, notes)
    if shape is not None:
        yield Shape(label, shape.keys, _MODES[mode], shape.span)


def _read_shape(
    label: str, properties: dict[str, ET.Element], frame: Splines, start: int, notes: list[str]
) -> Shape | None:
    keys: dict[int, Curve] = {}
    path = properties.get("path")
    drawn = [] if path is None else [(k.get("frame", "0"), k.find("Path")) for k in path.findall("Key")]
    if path is not None and not drawn:
        drawn = [("0", path.find("Value/Path"))]
    for number, element in drawn:
        if element is None:
            continue
        if element.get("closed", "True").lower() != "true":
            notes.append(f"'{label}' is open and was left out")
            return None
        keys[start + _whole(number, label)] = _read_path(element, label, frame)
    if not keys:
        notes.append(f"'{label}' has no path and was left out")
        return None
    return Shape(label, keys, span=_read_span(label, properties.get("opacity"), start, notes))


def _read_path(element: ET.Element, label: str, frame: Splines) -> Curve:
    kind = element.get("type", "Bezier")
    count = {"Bezier": 6, "Bspline": 2}.get(kind)
    if count is None:
        raise SplineError(f"'{label}' is of the type {kind}; Bezier and Bspline can be drawn")
    rows = [[float(v) for v in _NUMBER.findall(p.text or "")] for p in element.findall("Point")]
    if any(len(r) < count for r in rows) or len(rows) < 2:
        raise SplineError(f"a path of '{label}' has {len(rows)} points, not all of {count // 2} places")
    places = _to_pixels(np.array([r[:count] for r in rows]).reshape(len(rows), -1, 2), frame)
    if kind == "Bezier":
        return Curve(places[:, (1, 0, 2)])
    # A uniform cubic B-spline as Beziers: its knots and handles are fixed means of its control points.
    p = places[:, 0]
    before, after = np.roll(p, 1, axis=0), np.roll(p, -1, axis=0)
    return Curve(np.stack([(2 * p + before) / 3, (before + 4 * p + after) / 6, (2 * p + after) / 3], axis=1))


def _read_span(label: str, opacity: ET.Element | None, start: int, notes: list[str]) -> tuple[int, int] | None:
    """The frames between the keys at which a shape is switched on and off; None: always there."""
    keys = [] if opacity is None else opacity.findall("Key")
    values = sorted((start + _whole(k.get("frame", "0"), label), _first(k.text)) for k in keys)
    on = [f for f, v in values if v > 0]
    if not values or len(on) == len(values):
        return None
    if any(0 < v < 100 for _, v in values) or not on:
        notes.append(f"'{label}' is faded; it was taken as there wherever its opacity is not 0")
    off = [f for f, v in values if v <= 0]
    if not on:
        return None
    first = on[0] if off[0] < on[0] else -(2**31)
    last = min((f for f in off if f > on[0]), default=2**31) - 1
    if any(f > last for f in on):
        notes.append(f"'{label}' comes back after frame {last}; only its first appearance was taken")
    return first, last


def _check_at_rest(label: str, properties: dict[str, ET.Element]) -> None:
    for name, element in properties.items():
        if not name.startswith("transform."):
            continue
        texts = [k.text for k in element.iter() if k.tag in ("Key", "Value")]
        for text in texts:
            found = [float(v) for v in _NUMBER.findall(text or "")]
            rest = _AT_REST.get(name, (0.0,) * len(found))
            if found and not np.allclose(found, rest[: len(found)], atol=1e-6):
                raise SplineError(
                    f"the layer '{label}' is transformed ({name})",
                    remedy="bake the transform into the shapes, or render them as a mask",
                )


def _text(properties: dict[str, ET.Element], name: str, default: str) -> str:
    element = properties.get(name)
    found = None if element is None else element.find("Value")
    return default if found is None or not found.text else found.text.strip()


def _first(text: str | None) -> float:
    found = _NUMBER.search(text or "")
    return float(found[0]) if found else 0.0


def _whole(text: str, label: str) -> int:
    try:
        return round(float(text))
    except (ValueError, OverflowError) as e:
        raise SplineError(f"'{label}' has a key on frame '{text}'") from e
