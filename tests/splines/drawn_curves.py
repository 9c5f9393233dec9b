"""Curves that the tests of this folder draw."""

from __future__ import annotations

import numpy as np

from rotomem.splines.types import Curve, Shape, Splines

KAPPA = 0.5522847498  # of the radius: handles with which four cubics are a circle to 0.03 %


def circle(x: float, y: float, radius: float, feather: float = 0.0) -> Curve:
    """Four points, clockwise on the screen."""
    angle = np.arange(4) * np.pi / 2
    out = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    along = np.stack([-out[:, 1], out[:, 0]], axis=1)
    points = np.stack([out - KAPPA * along, out, out + KAPPA * along], axis=1)
    return Curve(radius * points + (x, y), np.full(4, feather))


def corners(*places: tuple[float, float]) -> Curve:
    """A polygon."""
    return Curve(np.repeat(np.array(places, np.float64)[:, None], 3, axis=1))


def two_objects(feather: float = 0.0) -> Splines:
    """A moving ring that is there on 1001..1008, and a disc with a name that no language likes."""
    body = Shape(
        "body", {1001: circle(60.3, 40, 25, feather), 1005: circle(70.3, 45, 20, feather / 2)}, span=(1001, 1008)
    )
    hole = Shape("hole {x}", {1001: circle(60.3, 40, 10)}, subtract=True)
    disc = Shape("x y", {1002: circle(120, 40, 10)})
    return Splines((160, 90), {"hero": (body, hole), 'car door é"[exec]$x\\': (disc,)})
