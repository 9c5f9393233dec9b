"""What may be asked of a matte's edge. No torch here, so `--help` does not wait."""

from __future__ import annotations

from dataclasses import dataclass

from rotomem.errors import UsageError

EDGES = ("off", "guided", "learned")

REACH = 2
"""Frames on either side that stabilising leans on."""


@dataclass(frozen=True)
class EdgeSettings:
    """How a matte is finished; lengths in plate pixels (see `matting.edges`).

    edge         "off": what the network says without its refinement head, enlarged; "learned": with it, where the
                 model has one; "guided": that, fitted to the plate's colours at plate resolution
    choke        moves edges inwards, outwards where it is negative
    feather      softens them by that much to either side
    despeckle    islands smaller across than this go
    fill_holes   holes smaller across than this close
    stabilise    0..1, how much the edge leans on neighbouring frames

    Raises UsageError for values outside these ranges.
    """

    edge: str = "guided"
    choke: float = 0.0
    feather: float = 0.0
    despeckle: float = 0.0
    fill_holes: float = 0.0
    stabilise: float = 0.0

    def __post_init__(self) -> None:
        if self.edge not in EDGES:
            raise UsageError(f"edge is '{self.edge}'", remedy=f"use one of {', '.join(EDGES)}")
        if not abs(self.choke) <= 64:
            raise UsageError(f"choke is {self.choke:g} pixels", remedy="give -64 to 64")
        for name, most in (("feather", 128), ("despeckle", 4096), ("fill_holes", 4096), ("stabilise", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"{name} is {getattr(self, name):g}", remedy=f"give 0 to {most}")

    @property
    def reach(self) -> int:
        """Frames on either side that are looked at."""
        return REACH if self.stabilise else 0

    @property
    def pixels(self) -> bool:
        """Whether the plate's pixels are looked at."""
        return self.edge == "guided" or self.stabilise > 0
