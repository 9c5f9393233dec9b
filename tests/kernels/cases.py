"""One list of shapes and nasty inputs for reading a memory. Timed ones: rotomem.bench.cases."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

KERNELS = Path(__file__).resolve().parents[2] / "kernels"


def reference(kernel: str) -> ModuleType:
    """kernels/<kernel>/reference.py as a module."""
    spec = importlib.util.spec_from_file_location(f"reference_{kernel}", KERNELS / kernel / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Inputs:
    """One memory and the queries that read it: batch left out, float32."""

    key: NDArray[np.float32]  # [CK, N]
    query_key: NDArray[np.float32]  # [CK, P]
    value: NDArray[np.float32]  # [O, CV, N]
    shrinkage: NDArray[np.float32]  # [N]
    selection: NDArray[np.float32]  # [CK, P]


@dataclass(frozen=True)
class Case:
    """A shape, and what is nasty about its numbers."""

    name: str
    elements: int
    positions: int
    key_channels: int = 64
    value_channels: int = 32
    objects: int = 1
    top_k: int | None = 30
    twist: Callable[[Inputs, np.random.Generator], None] = lambda inputs, rng: None

    def make(self, seed: int = 0) -> Inputs:
        """Neighbouring queries and elements resemble each other a little, as pictures do."""
        rng = np.random.default_rng([seed, *self.name.encode()])
        ck, n, p = self.key_channels, self.elements, self.positions

        def walk(count: int) -> NDArray[np.float32]:
            steps = rng.normal(0, 0.3, (ck, count)).cumsum(1)
            return (0.5 * np.sin(steps) + 0.3 * rng.normal(size=(ck, count))).astype(np.float32)

        inputs = Inputs(
            key=walk(n),
            query_key=walk(p),
            value=rng.normal(size=(self.objects, self.value_channels, n)).astype(np.float32),
            shrinkage=(1 + rng.random(n) ** 2 * 20).astype(np.float32),
            selection=rng.random((ck, p)).astype(np.float32),
        )
        self.twist(inputs, rng)
        return inputs


def _far(offset: float) -> Callable[[Inputs, np.random.Generator], None]:
    def twist(inputs: Inputs, rng: np.random.Generator) -> None:
        inputs.key[...] += offset
        inputs.query_key[...] += offset

    return twist


def _outliers(inputs: Inputs, rng: np.random.Generator) -> None:
    inputs.key[:, ::7] *= 1e3


def _copies(inputs: Inputs, rng: np.random.Generator) -> None:
    # Multiples of 1/2, so that sums are exact in float32 and a tie is a tie for everyone.
    inputs.key[...] = np.round(2 * inputs.key[:, rng.integers(0, 5, inputs.key.shape[1])]) / 2
    inputs.query_key[...] = np.round(2 * inputs.query_key) / 2
    inputs.selection[...] = np.round(inputs.selection)
    inputs.shrinkage[...] = 2.0


def _hopeless(inputs: Inputs, rng: np.random.Generator) -> None:
    inputs.query_key[...] += 60.0  # every similarity far below the least exponent of float32


def _sharp(inputs: Inputs, rng: np.random.Generator) -> None:
    inputs.shrinkage[...] *= 50.0


CASES = (
    Case("plain", 700, 90),
    Case("one query", 333, 1),
    Case("one element", 1, 17),
    Case("one of everything", 1, 1, key_channels=1, value_channels=1, top_k=1),
    Case("fewer elements than top_k", 12, 21),
    Case("exactly top_k", 30, 21),
    Case("one more than top_k", 31, 21),
    Case("odd sizes", 501, 43, key_channels=37, value_channels=29, objects=3, top_k=7),
    Case("panel borders", 64, 64, value_channels=128, objects=2),
    Case("wide values", 257, 33, value_channels=515, objects=2),
    Case("top 1", 400, 70, top_k=1),
    Case("large top_k", 900, 40, top_k=400),
    Case("full softmax", 600, 50, objects=2, top_k=None),
    Case("no objects", 50, 9, objects=0),
    Case("far keys", 500, 40, twist=_far(100.0)),
    Case("very far keys", 500, 40, top_k=None, twist=_far(-3000.0)),
    Case("outliers", 500, 40, twist=_outliers),
    Case("copies", 500, 40, twist=_copies),
    Case("hopeless queries", 300, 40, twist=_hopeless),
    Case("sharp", 300, 40, top_k=None, twist=_sharp),
)
