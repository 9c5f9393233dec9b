"""Shapes and types of what the ops are given: every ShapeError of this package is made here."""

from __future__ import annotations

import torch
from torch import Tensor

from rotomem.errors import EmptyMemoryError, ShapeError, UsageError

FORMS = ("dot", "l2", "anisotropic_l2")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def shape(name: str, tensor: Tensor, expected: tuple[int | None, ...], letters: str) -> None:
    """Refuse a tensor whose shape is not `expected` (None fits any size); `letters` spells it, "[B, CK, N]"."""
    got = tuple(tensor.shape)
    if len(got) != len(expected) or any(e is not None and e != g for g, e in zip(got, expected, strict=True)):
        wanted = "x".join("any" if e is None else str(e) for e in expected)
        raise ShapeError(
            f"{name} is {'x'.join(map(str, got)) or 'a scalar'}, expected {letters} = {wanted}",
            remedy="batch comes first; see the shapes in the function's docstring",
        )


def floating(name: str, tensor: Tensor) -> None:
    """Refuse integers where a similarity or a value is meant."""
    if tensor.dtype not in _FLOATS:
        raise ShapeError(f"{name} is {tensor.dtype}, expected a floating type", remedy="convert it to float32")


def form(similarity: str, shrinkage: Tensor | None, selection: Tensor | None) -> None:
    """Refuse an unknown similarity, and weights that it has no place for."""
    if similarity not in FORMS:
        raise UsageError(f"no similarity called {similarity!r}", remedy=f"use one of {', '.join(FORMS)}")
    if similarity != "anisotropic_l2" and (shrinkage is not None or selection is not None):
        raise UsageError(
            f"similarity {similarity!r} takes neither shrinkage nor selection",
            remedy="leave them out, or ask for anisotropic_l2",
        )


def keys(key: Tensor, query_key: Tensor, shrinkage: Tensor | None, selection: Tensor | None, similarity: str) -> None:
    """Refuse keys that do not fit each other; EmptyMemoryError where there is nothing to compare with."""
    form(similarity, shrinkage, selection)
    shape("key", key, (None, None, None), "[B, CK, N]")
    batch, channels, elements = key.shape
    shape("query_key", query_key, (batch, channels, None), "[B, CK, P]")
    floating("key", key)
    floating("query_key", query_key)
    if shrinkage is not None:
        shape("shrinkage", shrinkage, (batch, elements), "[B, N]")
        floating("shrinkage", shrinkage)
    if selection is not None:
        shape("selection", selection, (batch, channels, query_key.shape[2]), "[B, CK, P]")
        floating("selection", selection)
    if channels == 0:
        raise ShapeError("keys have no channels", remedy="CK must be at least 1")
    if elements == 0:
        raise EmptyMemoryError("the memory holds no elements", remedy="give a key mask before reading")


def mask(valid: Tensor | None, batch: int, elements: int) -> None:
    """Refuse a mask of the wrong shape or type, and one on the CPU that leaves nothing.

    Looking into one on a device would wait for all that is queued there.
    """
    if valid is None:
        return
    shape("valid", valid, (batch, elements), "[B, N]")
    if valid.dtype not in (torch.bool, torch.uint8):
        raise ShapeError(f"valid is {valid.dtype}, expected bool", remedy="compare it with 0 first")
    if batch and valid.device.type == "cpu" and not bool((valid != 0).any(dim=1).all()):
        raise EmptyMemoryError(
            "every memory element is masked out by `valid`",
            remedy="read only objects that have been given at least one mask",
        )
