"""`rotomem bench consolidate`: old frames become 128 prototypes (potentiation, a full softmax over candidates)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from rotomem import ops
from rotomem.bench import peers
from rotomem.bench.cases import OBJECTS, Inputs, Memory, chosen, inputs
from rotomem.bench.measure import Entrant, Line, Settings, compare
from rotomem.bench.own import own_backends, taking_part, under
from rotomem.bench.peaks import Machine
from rotomem.bench.read import widened

PROTOTYPES = 128
CASES = tuple(Memory(size, objects, 5) for size in ("480p", "1080p", "4K") for objects in OBJECTS)
"""Five frames leave working memory at once, as sessions have it."""


def run(
    machine: Machine,
    settings: Settings,
    *,
    cases: Iterable[str] = (),
    objects: Iterable[int] = (),
    backends: Sequence[str] = (),
    among: Iterable[Memory] = CASES,
) -> Iterator[list[Line]]:
    """Lines, case by case: the dense formula first, then our own backends. Arguments and errors as `read.run`."""
    for case in chosen(among, cases, objects):
        entrants = taking_part(_entrants(case, machine.device), machine.device, backends)
        facts = {
            "objects": case.objects,
            "elements": case.elements,
            "prototypes": PROTOTYPES,
            "key_channels": case.key_channels,
            "value_channels": case.value_channels,
        }
        yield compare("consolidate", case.name, entrants, work(case), machine, settings, facts)


def work(case: Memory) -> float:
    """Operations of a potentiation."""
    depth = 2 * case.key_channels + case.objects * case.value_channels
    return 2.0 * case.elements * min(PROTOTYPES, case.elements) * depth


def _entrants(case: Memory, device: torch.device) -> Iterator[Entrant]:
    given = inputs(case, device)
    generator = torch.Generator().manual_seed(1)
    selection = torch.rand(1, case.elements, case.key_channels, generator=generator).to(device).transpose(1, 2)
    usage = torch.rand(1, case.elements, generator=generator).to(device)
    index = usage[0].topk(min(PROTOTYPES, case.elements)).indices
    asked = replace(given, query_key=given.key[:, :, index], selection=selection[:, :, index])
    exact: list[tuple[Tensor, float]] = []

    def errors(value: Tensor) -> tuple[float, float]:
        if not exact:
            exact.append(_exact(asked))
        return float((value - exact[0][0]).abs().max()), exact[0][1]

    for name, lean in (("dense", False), ("dense, lean", True)):
        held = peers.similarity_bytes(case.elements, PROTOTYPES, lean=lean)
        yield Entrant(name, partial(_potentiated, asked, lean), held, error=errors)
    for name in own_backends(device):
        call = partial(ops.consolidate, given.key, given.shrinkage, given.value, selection, usage, PROTOTYPES)
        yield Entrant(name, under(name, partial(_values, call)), peak="float32", error=errors)


def _potentiated(asked: Inputs, lean: bool) -> Tensor:
    return peers.potentiate(asked, lean=lean)[0]


def _values(call: partial[ops.Prototypes]) -> Tensor:
    return call().value


def _exact(asked: Inputs) -> tuple[Tensor, float]:
    """Values in float64, object by object, and the greatest error of plain torch in float32."""
    affinity = peers.similarity(widened(asked)).softmax(1)
    value = torch.cat(
        [peers.weigh(asked.value[:, o : o + 1].double(), affinity) for o in range(asked.value.shape[1])], 1
    )
    plain = peers.potentiate(asked)[0]
    return value, float((plain - value).abs().max())
