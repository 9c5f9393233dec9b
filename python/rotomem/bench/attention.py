"""`rotomem bench attention`: full softmax over memory and frame, as STM and AOT read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rotomem import ops
from rotomem.bench import peers
from rotomem.bench.cases import OBJECTS, SIZES, Memory, chosen, grid
from rotomem.bench.measure import Entrant, Line, Settings, compare
from rotomem.bench.own import own_backends, taking_part, under
from rotomem.bench.peaks import Machine

_SAMPLED = 96
_PARTS = 32
_SIDE = 15


@dataclass(frozen=True)
class Attention(Memory):
    """Full softmax of dot products; key_channels and value_channels are of one head.

    kind     "STM" (keys per object, one wide head), "AOT" (all objects share keys, 8 narrow heads), "AOT local" (each
             position its window of 15x15, with relative terms)
    """

    kind: str = "STM"
    heads: int = 1

    @property
    def name(self) -> str:
        """Such as `STM 480p 3 objects 5 frames`."""
        return f"{self.kind} {super().name.partition(' CV')[0]}"

    @property
    def elements(self) -> int:
        """N."""
        return _SIDE**2 if self.kind == "AOT local" else super().elements

    @property
    def batch(self) -> int:
        """Attentions of the case: one for each head, and for each object where these have keys of their own."""
        return self.heads * (self.objects if self.kind == "STM" else 1)


def _stm(size: str, objects: int, frames: int) -> Attention:
    return Attention(size, objects, frames, 0, 128, 512, "STM", 1)


def _aot(size: str, frames: int) -> Attention:
    return Attention(size, 1, frames, 0, 32, 32, "AOT", 8)


def _local(size: str) -> Attention:
    return Attention(size, 1, 1, 0, 32, 32, "AOT local", 8)


CASES = (
    *(_stm("480p", objects, 5) for objects in OBJECTS),
    *(_stm("480p", 1, frames) for frames in (1, 2, 10)),
    _stm("1080p", 1, 5),
    *(_aot("480p", frames) for frames in (1, 2, 5, 10)),
    *(_aot("1080p", frames) for frames in (1, 5)),
    _aot("4K", 1),
    *(_local(size) for size in SIZES),
)
"""STM's reading; AOT's long-term attention, of which 1 frame is self-attention too; its short-term attention."""

SMALL = (_stm("64x128", 2, 3), _aot("64x128", 2), _local("64x128"))
"""Cases to see whether a backend is right."""


def run(
    machine: Machine,
    settings: Settings,
    *,
    cases: Iterable[str] = (),
    objects: Iterable[int] = (),
    backends: Sequence[str] = (),
    among: Iterable[Attention] = CASES,
) -> Iterator[list[Line]]:
    """Lines, case by case: dense formula, torch's fused attention, our own. Arguments and errors as `read.run`."""
    for case in chosen(among, cases, objects):
        assert isinstance(case, Attention)
        ways = _local_ways if case.kind == "AOT local" else _ways
        entrants = taking_part(ways(case, machine.device), machine.device, backends)
        facts = {
            "objects": case.objects,
            "elements": case.elements,
            "positions": case.positions,
            "heads": case.heads,
            "key_channels": case.key_channels,
            "value_channels": case.value_channels,
        }
        yield compare("attention", case.name, entrants, work(case), machine, settings, facts)


def work(case: Attention) -> float:
    """Operations of an attention: two products, and as many with relative terms."""
    return (
        (2 if case.kind == "AOT local" else 1)
        * 2.0
        * case.batch
        * case.elements
        * case.positions
        * (case.key_channels + case.value_channels)
    )


def _ways(case: Attention, device: torch.device) -> Iterator[Entrant]:
    generator = torch.Generator().manual_seed(0)

    def rows(count: int, channels: int) -> Tensor:
        return torch.randn(1, case.batch, count, channels, generator=generator).to(device)

    key, value = rows(case.elements, case.key_channels), rows(case.elements, case.value_channels)
    query = rows(case.positions, case.key_channels)
    sample = torch.linspace(0, case.positions - 1, min(_SAMPLED, case.positions)).long().to(device)
    known: list[tuple[Tensor, float]] = []

    def errors(read: Tensor) -> tuple[float, float]:
        if not known:
            few = query[:, :, sample]
            exact = peers.attend(few.double(), key.double(), value.double())
            known.append((exact, float((peers.attend(few, key, value) - exact).abs().max())))
        return float((read[:, :, sample] - known[0][0]).abs().max()), known[0][1]

    result = 4 * case.batch * case.positions * case.value_channels
    matrix = 4 * case.batch * case.elements * case.positions
    part = query[:, :, ::_PARTS].contiguous()
    ways: list[tuple[str, Callable[[Tensor], Tensor], int]] = [
        ("dense", lambda asked: peers.attend(asked, key, value), 2 * matrix),
        ("torch fused", lambda asked: peers.fused_attention(asked, key, value), 0),
    ]
    for name in own_backends(device):
        if name != "torch":  # its own is torch's fused one
            ways.append((name, partial(_own, name, key, value), 0))
    for name, way, held in ways:
        yield Entrant(name, partial(way, query), held + result, error=errors, part=partial(way, part), parts=_PARTS)


def _local_ways(case: Attention, device: torch.device) -> Iterator[Entrant]:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    heads, depth, places = case.heads, case.key_channels, case.elements
    query, key, value = (drawn(1, heads * depth, *grid(case.size)) for _ in range(3))
    relative_key, relative_bias = 0.2 * drawn(heads, places, depth), drawn(heads, places)
    relative_value = 0.3 * drawn(heads, depth, places)
    relative = {"relative_key": relative_key, "relative_bias": relative_bias, "relative_value": relative_value}
    rows = min(4, query.shape[2])
    known: list[tuple[Tensor, float]] = []

    def errors(read: Tensor) -> tuple[float, float]:
        """Of the map's first rows, for which the rows within reach of them are enough."""
        if not known:
            near = [t[:, :, : rows + _SIDE // 2] for t in (query, key, value)]
            wide = peers.unfolded_attention(*(t.double() for t in (*near, *relative.values())))
            plain = peers.unfolded_attention(*near, *relative.values())
            known.append((wide[:, :, :rows], float((plain - wide)[:, :, :rows].abs().max())))
        return float((read[:, :, :rows] - known[0][0]).abs().max()), known[0][1]

    windows = 4 * query.numel() * places
    yield Entrant("dense", lambda: peers.unfolded_attention(query, key, value, **relative), 3 * windows, error=errors)
    for name in own_backends(device):
        call = partial(ops.local_attention, query, key, value, **relative)
        yield Entrant(name, under(name, call), error=errors)


def _own(name: str, key: Tensor, value: Tensor, query: Tensor) -> Tensor:
    read: Tensor = under(name, partial(ops.attend, query, key, value))()
    return read
