"""`rotomem bench read`: one frame reads the memory, top 30, anisotropic L2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from rotomem import ops
from rotomem.bench import peers
from rotomem.bench.cases import READS, Inputs, Memory, chosen, inputs
from rotomem.bench.measure import Entrant, Line, Settings, compare
from rotomem.bench.own import own_backends, peak_of, taking_part, under
from rotomem.bench.peaks import Machine

TOP_K = 30

_SAMPLED = 96
"""Positions whose readout is held against float64."""

_PARTS = 32
"""Of large cases one position in so many is tried first."""


def run(
    machine: Machine,
    settings: Settings,
    *,
    cases: Iterable[str] = (),
    objects: Iterable[int] = (),
    backends: Sequence[str] = (),
    among: Iterable[Memory] = READS,
) -> Iterator[list[Line]]:
    """Lines, case by case: the dense formula first, then FAISS (its top-k alone), then our own backends.

    cases      parts of names; objects: numbers of them; nothing means all
    backends   parts of names, or "all"; nothing: peers, plain torch and the backend that `auto` chooses

    Raises UsageError where no case or backend is called so.
    """
    for case in chosen(among, cases, objects):
        given = inputs(case, machine.device)
        entrants = taking_part(_entrants(case, given), machine.device, backends)
        yield compare("read", case.name, entrants, work(case), machine, settings, facts(case))


def work(case: Memory) -> float:
    """Operations of a reading: two products for the similarity, and the chosen values."""
    pairs = float(case.elements) * case.positions
    return 4 * case.key_channels * pairs + 2.0 * TOP_K * case.objects * case.value_channels * case.positions


def facts(case: Memory) -> dict[str, int]:
    """Sizes of a case."""
    return {
        "objects": case.objects,
        "elements": case.elements,
        "positions": case.positions,
        "key_channels": case.key_channels,
        "value_channels": case.value_channels,
    }


def _entrants(case: Memory, given: Inputs) -> Iterator[Entrant]:
    device = given.key.device
    result = 4 * case.objects * case.value_channels * case.positions
    truth = Truth(given)
    part = at(given, torch.arange(0, case.positions, _PARTS, device=device))
    for name, lean in (("dense", False), ("dense, lean", True)):
        yield Entrant(
            name,
            partial(_dense, given, lean),
            peers.similarity_bytes(case.elements, case.positions, lean=lean) + result,
            error=truth.errors,
            part=partial(_dense, part, lean),
            parts=_PARTS,
        )
    yield faiss_entrant(case, given, part)
    for name in own_backends(device):
        packed = ops.PackedKeys()
        yield Entrant(
            name,
            under(name, partial(_read, given, packed)),
            result,
            peak_of(name),
            error=truth.errors,
            part=under(name, partial(_read, part, packed)),
            parts=_PARTS,
            kept=partial(getattr, packed, "nbytes"),
        )


def faiss_entrant(case: Memory, given: Inputs, part: Inputs) -> Entrant:
    """FAISS' exact search for the top-k alone."""
    name = "faiss, top-k alone"
    absent = peers.faiss_absent()
    if not absent and given.key.device.type != "cpu":
        absent = "faiss-cpu searches on the CPU"
    if absent:
        return Entrant(name, lambda: None, absent=absent)
    stored = 4 * (2 * case.key_channels + 1) * case.elements
    return Entrant(
        name,
        _Lazy(lambda: peers.faiss_search(given, TOP_K)),
        2 * stored,
        part=_Lazy(lambda: peers.faiss_search(part, TOP_K)),
        parts=_PARTS,
        kept=lambda: stored,
    )


class _Lazy:
    """A call that is made ready the first time, which nobody times."""

    def __init__(self, make: Callable[[], Callable[[], object]]) -> None:
        self._make = make
        self._call: Callable[[], object] | None = None

    def __call__(self) -> None:
        if self._call is None:
            self._call = self._make()
        self._call()


def _dense(given: Inputs, lean: bool) -> Tensor:
    return peers.read(given, TOP_K, lean=lean)[0]


def _read(given: Inputs, packed: ops.PackedKeys) -> Tensor:
    """As a memory bank reads: what it makes of its keys is kept between reads."""
    read = ops.read_memory(
        given.key,
        given.query_key,
        given.value,
        shrinkage=given.shrinkage,
        selection=given.selection,
        top_k=TOP_K,
        need_usage=True,
        packed=packed,
    )
    return read.readout


def at(given: Inputs, positions: Tensor) -> Inputs:
    """The same memory, asked by some of the positions."""
    return replace(
        given,
        query_key=given.query_key[:, :, positions].contiguous(),
        selection=given.selection[:, :, positions].contiguous(),
    )


class Truth:
    """What a sample of positions reads in float64, and what plain torch makes of them in float32."""

    def __init__(self, given: Inputs) -> None:
        self._given = given
        self._known: tuple[Tensor, Tensor, float] | None = None

    def errors(self, readout: Tensor) -> tuple[float, float]:
        """Greatest absolute difference from float64 of a readout [1, O, CV, P], and of plain torch in float32."""
        if self._known is None:
            count = self._given.query_key.shape[2]
            sample = torch.linspace(0, count - 1, min(_SAMPLED, count)).long().to(readout.device)
            asked = at(self._given, sample)
            exact = _exact(asked)
            plain = float((peers.read(asked, TOP_K)[0] - exact).abs().max())
            self._known = sample, exact, plain
        sample, exact, plain = self._known
        return float((readout[..., sample] - exact).abs().max()), plain


def widened(given: Inputs) -> Inputs:
    """All but the values, which are many, in float64."""
    return replace(
        given,
        key=given.key.double(),
        query_key=given.query_key.double(),
        shrinkage=given.shrinkage.double(),
        selection=given.selection.double(),
    )


def _exact(asked: Inputs) -> Tensor:
    """The readout in float64; of the values only the chosen ones are widened."""
    scores = peers.similarity(widened(asked))
    top, index = scores.topk(min(TOP_K, scores.shape[1]), dim=1)
    weights = torch.softmax(top, 1)[0]  # [k, P]
    rows = asked.value[0].transpose(1, 2)  # [O, N, CV]
    chosen_rows = rows[:, index[0].flatten()].unflatten(1, tuple(index[0].shape)).double()  # [O, k, P, CV]
    return (chosen_rows * weights[None, :, :, None]).sum(1).transpose(1, 2)[None]
