"""Nuke's Roto and RotoPaint nodes: the text of their `curves` knob.

Pixels of the format, y up from its lower border. A shape is `{curvegroup NAME flags bezier {outline feather} {t ...}
{a attributes}}`; an outline lists of each point the handle in, the point and the handle out, handles relative to the
point; the feather curve has the offset of each point in the point's place. `px T` stands before points with one key
at T, `p` before points whose numbers may be curves `{{time value} ...}`. Numbers are float32 bits in hexadecimal
after an x, or decimals. The shape that lies on top comes first.

The Foundry publishes no description: this is what nodes in public scripts hold. None of them shows an animated
outline; it is written as their animated transforms are, and Nuke itself has not read one of ours.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from rotomem.splines.types import Array, Curve, Shape, SplineError, Splines

_DEEPEST = 200
_OPEN = 1 << 5
_RELATIVE = 1 << 13
_OVER, _MAX, _MINUS = 0, 4, 12
_ALWAYS, _UNTIL, _ONE_FRAME, _FROM, _RANGE = range(5)
_PLANAR = frozenset({"pterr", "ptrefset", "ptmot", "ptref", "pt"})  # of the planar tracker, but no motion
_BARE = re.compile(r'[^\s{}"]+')

_Item: TypeAlias = "str | list[_Item]"
_Keyed: TypeAlias = Mapping[float | None, float]


def write(splines: Splines) -> str:
    """The text of a script with one Roto node: one layer an object. Paste it into Nuke, or open it as .nk."""
    width, height = splines.size
    pivot = f"{{t {_hex(width / 2)} {_hex(height / 2)}}}"
    lines = ["set cut_paste_input [stack 0]", "version 13.0 v1", "push $cut_paste_input", "Roto {", " output alpha"]
    lines += [" cliptype none", " curves {{{v x3f99999a}", "  {f 0}", "  {n", "   {layer Root", "    {f 0}"]
    lines += [f"    {pivot}", "    {a}"]
    for name, shapes in reversed(list(splines.objects.items())):
        lines += [f"    {{layer {_word(name)}", "     {f 512}", f"     {pivot}", "     {a}"]
        for shape in reversed(shapes):
            lines += _shape_lines(shape, height)
        lines.append("    }")
    lines += ["   }}}}", " name Roto1", "}", ""]
    return "\n".join(lines)


def _shape_lines(shape: Shape, height: int) -> Iterator[str]:
    yield f"     {{curvegroup {_word(shape.name)} 512 bezier"
    curves = list(shape.keys.values())
    outlines = [c.points * (1, -1) + (0, height) for c in curves]
    relative = [np.stack([p[:, 0] - p[:, 1], p[:, 1], p[:, 2] - p[:, 1]], axis=1) for p in outlines]
    yield "      {" + _curve(list(shape.keys), relative)
    if any(c.feather.any() for c in curves):
        edges = [(c.outer() - c.points[:, 1:2]) * (1, -1) for c in curves]
        feathers = [np.stack([e[:, 0] - e[:, 1], e[:, 1], e[:, 2] - e[:, 1]], axis=1) for e in edges]
        yield "      " + _curve(list(shape.keys), feathers) + "}"
    else:
        yield "      idem}"
    middle = np.mean([p[:, 1].mean(axis=0) for p in outlines], axis=0)
    first = min(shape.keys)
    yield f"      {{tx {_hex(first)} {_hex(middle[0])} {_hex(middle[1])}}}"
    attributes = f"opc 1 bm {_hex(_MINUS) if shape.subtract else 0} inv 0 str 1 ss 0"
    if shape.span is not None:
        attributes += f" ltn {_hex(shape.span[0])} ltm {_hex(shape.span[1])} ltt {_hex(_RANGE)}"
    yield f"      {{a {attributes}}}}}"


def _curve(frames: Sequence[int], keys: Sequence[Array]) -> str:
    """One `cc`; `keys` hold of each frame [N, 3, 2]."""
    values = np.stack([k.reshape(-1, 2) for k in keys])
    if len(frames) == 1:
        pairs = "\n".join(f"        {{{_hex(x)} {_hex(y)}}}" for x, y in values[0])
        return f"{{cc\n       {{f {_RELATIVE}}}\n       {{px {_hex(frames[0])}\n{pairs}}}}}"
    times = [_hex(f) for f in frames]
    rows = []
    for place in values.transpose(1, 2, 0):
        animated = [
            "{" + " ".join(f"{{{t} {_hex(v)}}}" for t, v in zip(times, axis, strict=True)) + "}" for axis in place
        ]
        rows.append(f"        {{{animated[0]} {animated[1]}}}")
    return f"{{cc\n       {{f {_RELATIVE}}}\n       {{p\n" + "\n".join(rows) + "}}"


def _hex(value: float) -> str:
    bits = struct.unpack(">I", struct.pack(">f", float(value)))[0]
    return f"x{bits:08x}" if bits & 0x7FFFFFFF else "0"


def _word(name: str) -> str:
    """A name as one word of Nuke's language, without what would be evaluated there."""
    plain = re.sub(r'[\x00-\x1f\x7f{}\[\]"\\$;]', "_", name).strip() or "shape"
    return plain if re.fullmatch(r"[A-Za-z_]\w*", plain, re.ASCII) else f'"{plain}"'


def read(text: str, size: tuple[int, int]) -> Splines:
    """The splines of all Roto and RotoPaint nodes of a script; the format, which they do not say, is `size`.

    Raises SplineError for what cannot be drawn without it: transforms, inverted shapes, unknown blending modes.
    """
    notes: list[str] = []
    objects: dict[str, list[Shape]] = {}
    found = False
    for body in _nodes(_parse(text)):
        found = True
        for at, item in enumerate(body[:-1]):
            following = body[at + 1]
            if item == "curves" and isinstance(following, list):
                for root in _tagged(following, "layer"):
                    _read_root(root, size[1], objects, notes)
    if not found:
        raise SplineError("it holds no Roto or RotoPaint node")
    kept = {name: tuple(shapes) for name, shapes in reversed(list(objects.items())) if shapes}
    return Splines(size, kept, notes=tuple(dict.fromkeys(notes)))


def _read_root(root: list[_Item], height: int, objects: dict[str, list[Shape]], notes: list[str]) -> None:
    _check_at_rest("Root", root)
    for element in root[1:]:
        if isinstance(element, list) and _tag(element) in ("layer", "curvegroup", "cubiccurve"):
            name = element[1] if len(element) > 1 and isinstance(element[1], str) else "shape"
            objects[name] = list(_read_element(element, height, notes)) + objects.get(name, [])


def _read_element(element: list[_Item], height: int, notes: list[str]) -> Iterator[Shape]:
    """The shapes of a layer or of one shape, the lowest first."""
    name = element[1] if len(element) > 1 and isinstance(element[1], str) else "shape"
    attributes = _attributes(element)
    if attributes.get("vis", 1) == 0:
        notes.append(f"'{name}' is hidden and was left out")
        return
    _check_at_rest(name, element)
    if _tag(element) == "layer":
        for child in reversed(element[2:]):
            if isinstance(child, list) and _tag(child) in ("layer", "curvegroup", "cubiccurve"):
                yield from _read_element(child, height, notes)
        return
    kind = element[3] if len(element) > 3 else ""
    if _tag(element) != "curvegroup" or kind != "bezier":
        notes.append(f"'{name}' is no closed Bezier shape and was left out")
        return
    if attributes.get("inv", 0) != 0:
        raise SplineError(f"'{name}' is inverted", remedy="draw it the right way round, or render it as a mask")
    mode = attributes.get("bm", _OVER)
    if mode not in (_OVER, _MAX, _MINUS):
        raise SplineError(f"'{name}' has the blending mode number {mode:g}; over, max and minus can be drawn")
    if attributes.get("opc", 1) != 1:
        notes.append(f"'{name}' has the opacity {attributes['opc']:g}; it was taken as 1")
    curves = [c for c in _tagged(element[4:], "cc")]
    if not curves:
        notes.append(f"'{name}' has no points and was left out")
        return
    if int(_scalar(next(iter(_tagged(curves[0], "f")), ["f", "0"])[1])) & _OPEN:
        notes.append(f"'{name}' is open and was left out")
        return
    yield Shape(name, _read_keys(name, curves, height, notes), mode == _MINUS, _read_span(attributes))


def _read_span(attributes: Mapping[str, float]) -> tuple[int, int] | None:
    kind = int(attributes.get("ltt", _ALWAYS))
    first, last = int(attributes.get("ltn", 0)), int(attributes.get("ltm", 0))
    spans = {_UNTIL: (-(2**31), first), _ONE_FRAME: (first, first), _FROM: (first, 2**31), _RANGE: (first, last)}
    return spans.get(kind)


def _read_keys(name: str, curves: list[list[_Item]], height: int, notes: list[str]) -> dict[int, Curve]:
    outline, default = _places(name, curves[0])
    feather = _places(name, curves[1])[0] if len(curves) > 1 else []
    if feather and len(feather) != len(outline):
        raise SplineError(f"'{name}' has {len(outline)} places and {len(feather)} feather places")
    times = sorted({t for place in (*outline, *feather) for t in (*place[0], *place[1]) if t is not None})
    keys = {}
    for time in times or [default]:
        points = np.array([[_value(x, time), _value(y, time)] for x, y in outline]).reshape(-1, 3, 2)
        middle = points[:, 1:2]
        points = np.concatenate([points[:, :1] + middle, middle, points[:, 2:] + middle], axis=1)
        curve = Curve(points * (1, -1) + (0, height))
        if feather:
            offset = np.array([[_value(x, time), -_value(y, time)] for x, y in feather[1::3]])
            along = (offset * curve.normals()).sum(axis=1)
            if (along < -1e-3).any() or (np.hypot(*offset.T) > along + 1.0).any():
                notes.append(f"a feather of '{name}' does not point straight outward; its outward part was taken")
            curve = Curve(curve.points, np.maximum(along, 0))
        keys[round(time)] = curve
    return keys


def _places(name: str, curve: list[_Item]) -> tuple[list[tuple[_Keyed, _Keyed]], float]:
    """The x and y of every place of a `cc` over time, three places a point; the time of those without keys."""
    points = next((p for tag in ("px", "p") for p in _tagged(curve, tag)), ["p"])
    default = _scalar(points[1]) if len(points) > 1 and isinstance(points[1], str) else 0.0
    pairs = [p for p in points[1:] if isinstance(p, list)]
    if not pairs or len(pairs) % 3 or any(len(p) < 2 for p in pairs):
        raise SplineError(f"'{name}' has {len(pairs)} places, not three x y for each point")
    return [(_keyed(p[0]), _keyed(p[1])) for p in pairs], default


def _keyed(item: _Item) -> _Keyed:
    if isinstance(item, str):
        return {None: _scalar(item)}
    keys = [k for k in item if isinstance(k, list) and len(k) >= 2]
    if not keys or len(keys) != len(item):
        raise SplineError("a curve of numbers is not of the form {{time value} ...}")
    return {_scalar(k[0]): _scalar(k[1]) for k in keys}


def _value(keyed: _Keyed, time: float) -> float:
    if None in keyed:
        return keyed[None]
    times = sorted(t for t in keyed if t is not None)
    return float(np.interp(time, times, [keyed[t] for t in times]))


def _scalar(item: _Item) -> float:
    """A number, or the first value of a curve."""
    if isinstance(item, list):
        return next(iter(_keyed(item).values()))
    try:
        bits = int(item[1:], 16) if item.startswith("x") else None
        value = float(item) if bits is None else struct.unpack(">f", struct.pack(">I", bits))[0]
    except (ValueError, struct.error) as e:
        raise SplineError(f"'{item[:24]}' is no number") from e
    if not np.isfinite(value):
        raise SplineError(f"'{item[:24]}' is not finite")
    return float(value)


def _attributes(element: list[_Item]) -> dict[str, float]:
    found = next(iter(_own(element, "a")), ["a"])[1:]
    return {str(k): _scalar(v) for k, v in zip(found[::2], found[1::2], strict=False) if isinstance(k, str)}


def _check_at_rest(name: str, element: list[_Item]) -> None:
    """Raise SplineError where a layer or shape is moved, scaled, turned or planar-tracked."""
    # Pivot, translation, rotation, scale, skew; `tx` has the pivot alone, after its time.
    transform = next(iter(_own(element, "t")), ["t"])[4:]
    rest = (0, 0, 0, 0, 0, 0, 1, 1, 1)
    moved = any(
        any(abs(v - r) > 1e-6 for v in _keyed(item).values()) for item, r in zip(transform, rest, strict=False)
    )
    tracked = any(k.startswith("pt") and k not in _PLANAR and abs(v) > 1e-9 for k, v in _attributes(element).items())
    if moved or tracked:
        raise SplineError(
            f"'{name}' has a transform of its own",
            remedy="bake it into the points, or render the shapes as a mask",
        )


def _own(element: list[_Item], tag: str) -> Iterator[list[_Item]]:
    return (item for item in element if isinstance(item, list) and _tag(item) == tag)


def _tag(item: list[_Item]) -> str:
    return item[0] if item and isinstance(item[0], str) else ""


def _tagged(items: list[_Item], tag: str) -> Iterator[list[_Item]]:
    """Lists that begin with a tag, the outermost of them, in order."""
    for item in items:
        if isinstance(item, list):
            if _tag(item) == tag:
                yield item
            else:
                yield from _tagged(item, tag)


def _nodes(items: list[_Item]) -> Iterator[list[_Item]]:
    """Bodies of Roto nodes. A group's nodes stand after its braces, so they are never inside of another's."""
    for name, body in pairwise(items):
        if name in ("Roto", "RotoPaint") and isinstance(body, list):
            yield body


def _parse(text: str) -> list[_Item]:
    """A script as nested lists of words. Raises SplineError where braces or quotes do not match."""
    stack: list[list[_Item]] = [[]]
    at = 0
    while at < len(text):
        sign = text[at]
        if sign == "{":
            stack.append([])
            if len(stack) > _DEEPEST:
                raise SplineError(f"its braces stand more than {_DEEPEST} deep")
        elif sign == "}":
            done = stack.pop()
            if not stack:
                raise SplineError("a brace closes that none opened")
            stack[-1].append(done)
        elif sign == '"':
            end = at + 1
            while end < len(text) and text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            if end >= len(text):
                raise SplineError("a quotation mark is never closed")
            stack[-1].append(re.sub(r"\\(.)", r"\1", text[at + 1 : end], flags=re.DOTALL))
            at = end
        elif not sign.isspace():
            word = _BARE.match(text, at)
            assert word is not None
            stack[-1].append(word[0])
            at = word.end() - 1
        at += 1
    if len(stack) > 1:
        raise SplineError(f"{len(stack) - 1} braces are never closed")
    return stack[0]
