"""Knobs of a recipe from the command line: `peak=4e-4`, `clip.boundary=0.5`, `network.value_dim=96`."""

from __future__ import annotations

import ast
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from rotomem.errors import UsageError

Knobs = TypeVar("Knobs")


def turned(knobs: Knobs, settings: list[str]) -> Knobs:
    """`knobs`, a frozen dataclass of dataclasses and values, with each `path=value` of `settings` in place.

    A value is written as in Python; a sequence of dataclasses as tuples of their fields, `stages=((1, 192, 6, 3),)`.
    Raises UsageError for a knob that is not there or a value that is not of its type.
    """
    for setting in settings:
        path, found, text = setting.partition("=")
        if not found:
            raise UsageError(f"{setting!r} sets nothing", remedy="write KNOB=VALUE")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        knobs = _turned(knobs, path.strip().split("."), value, setting)
    return knobs


def _turned(knobs: Any, path: list[str], value: Any, setting: str) -> Any:
    kinds = {f.name: f.type for f in fields(knobs)}
    if path[0] not in kinds:
        raise UsageError(f"{setting!r}: there is no knob {path[0]!r}", remedy="knobs: " + ", ".join(kinds))
    now = getattr(knobs, path[0])
    if len(path) > 1:
        if not is_dataclass(now):
            raise UsageError(f"{setting!r}: {path[0]} has no knobs of its own")
        return replace(knobs, **{path[0]: _turned(now, path[1:], value, setting)})
    return replace(knobs, **{path[0]: _like(now, value, setting, kinds[path[0]])})


def _like(now: Any, value: Any, setting: str, kind: Any) -> Any:
    """`value` as something of the type of `now`, or of `kind`, which is how the field is annotated."""
    if isinstance(now, tuple) and isinstance(value, list | tuple) and value:
        if now and is_dataclass(now[0]):
            make: Any = type(now[0])
            try:
                return tuple(make(*one) for one in value)
            except TypeError as error:
                raise UsageError(f"{setting!r}: {error}") from None
        return tuple(value)
    if kind in ("float", float) and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if now is None or type(value) is type(now):
        return value
    raise UsageError(f"{setting!r}: a {type(now).__name__} is wanted, as {now!r}")
