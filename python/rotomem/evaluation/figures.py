"""Scores as plain values, complete, for JSON and for tables: data sets with their means, sequences, objects.

A figure that could not be measured is None. Shares (J, F, recall, decay) lie in 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from rotomem.evaluation.alpha import AlphaClipScore, AlphaErrors, AlphaScore, AlphaSummary, summarise_alpha
from rotomem.evaluation.davis import ObjectScore, SequenceScore, summarise
from rotomem.evaluation.gauge import Cost
from rotomem.evaluation.measures import Statistics

Figures = dict[str, Any]


class _Scored(Protocol):
    @property
    def dataset(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def frames(self) -> int: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def cost(self) -> Cost: ...


_S = TypeVar("_S", bound=_Scored)


def as_dict(scores: Sequence[SequenceScore]) -> Figures:
    """What label maps were measured by."""
    return _tree(scores, _summary, lambda s: [_object(o) for o in s.objects])


def alpha_as_dict(scores: Sequence[AlphaClipScore]) -> Figures:
    """What soft mattes were measured by."""
    return _tree(scores, lambda s: _alpha(summarise_alpha(s)), lambda s: [_alpha_object(o) for o in s.objects])


def _tree(
    scores: Sequence[_S], means: Callable[[Iterable[_S]], Figures], objects: Callable[[_S], list[Figures]]
) -> Figures:
    def whole(chosen: Sequence[_S]) -> Figures:
        steps, seconds = sum(s.cost.steps for s in chosen), sum(s.cost.step_s for s in chosen)
        return {**means(chosen), "fps": _figure(Cost(steps, seconds).fps)}

    datasets = dict.fromkeys(s.dataset for s in scores)
    return {
        "all": whole(scores),
        "datasets": {name: whole([s for s in scores if s.dataset == name]) for name in datasets},
        "sequences": [
            {
                "dataset": s.dataset,
                "name": s.name,
                "frames": s.frames,
                "size": list(s.size),
                **_cost(s.cost),
                **means([s]),
                "per_object": objects(s),
            }
            for s in scores
        ],
    }


def _cost(cost: Cost) -> Figures:
    return {
        "fps": _figure(cost.fps),
        "steps": cost.steps,
        "step_s": _figure(cost.step_s),
        "memory_bytes": cost.memory_bytes,
        "gpu_memory_bytes": cost.gpu_memory_bytes,
    }


def _summary(scores: Iterable[SequenceScore]) -> Figures:
    s = summarise(scores)
    out = {"objects": s.objects, **_both(s.j, s.f), **_flicker(*s.flicker)}
    for name, pair in (("seen", s.seen), ("unseen", s.unseen)):
        if pair:
            out[f"{name}_j"], out[f"{name}_f"] = map(_figure, pair)
    if s.overall is not None:
        out["overall"] = _figure(s.overall)
    return out


def _object(o: ObjectScore) -> Figures:
    return {
        "id": o.object_id,
        "category": o.category,
        "seen": o.seen,
        "key_frame": o.key_frame,
        "frames": o.frames,
        **_both(o.j, o.f),
        **_flicker(o.flicker, o.truth_flicker),
    }


def _both(j: Statistics, f: Statistics) -> Figures:
    return {
        "jf": _figure((j.mean + f.mean) / 2),
        **{f"j_{k}": _figure(v) for k, v in j.as_dict().items()},
        **{f"f_{k}": _figure(v) for k, v in f.as_dict().items()},
    }


def _alpha(s: AlphaSummary | AlphaScore) -> Figures:
    def errors(of: AlphaErrors | None) -> Figures | None:
        return None if of is None else {k: _figure(v) for k, v in of.as_dict().items()}

    out = {"matte": errors(s.matte), "bicubic": errors(s.bicubic), "j": _figure(s.j)}
    out.update(_flicker(s.flicker, s.truth_flicker))
    return {"objects": s.objects, **out} if isinstance(s, AlphaSummary) else out


def _alpha_object(o: AlphaScore) -> Figures:
    return {"name": o.name, "key_frame": o.key_frame, "frames": o.frames, **_alpha(o)}


def _flicker(own: float, truth: float) -> Figures:
    return {"flicker": _figure(own), "truth_flicker": _figure(truth)}


def _figure(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None
