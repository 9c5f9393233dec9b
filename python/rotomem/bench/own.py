"""Our own backends as entrants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from rotomem.bench.measure import Entrant
from rotomem.errors import UsageError
from rotomem.ops import backend


def own_backends(device: torch.device) -> tuple[str, ...]:
    """Every backend of `ops.backend` for that device, plain ones first."""
    if device.type == "cuda":
        return ("torch", "native-cuda")
    return backend.available()


def usual(device: torch.device) -> tuple[str, ...]:
    """Plain torch and what `auto` chooses."""
    return tuple(dict.fromkeys((own_backends(device)[0], own_backends(device)[-1])))


def taking_part(entrants: Iterable[Entrant], device: torch.device, asked: Sequence[str]) -> list[Entrant]:
    """The entrants asked for, the first one always, since ratios are to it; nothing asked: peers and the usual ones.

    asked   names, "all"; parts of a name will do. Raises UsageError where a name is nobody's
    """
    entrants = list(entrants)
    names = [e.name for e in entrants]
    for name in asked:
        if name != "all" and not any(name in known for known in names):
            raise UsageError(f"no backend called {name!r}", remedy="use all, " + ", ".join(names))
    if "all" in asked:
        return entrants
    if asked:
        return [e for e in entrants if e is entrants[0] or any(name in e.name for name in asked)]
    seldom = set(own_backends(device)) - set(usual(device))
    return [e for e in entrants if e.name not in seldom]


def peak_of(name: str) -> str:
    """The peak a backend's arithmetic is held against."""
    return "bfloat16" if any(part in name for part in ("bf16", "amx", "cuda")) else "float32"


def under(name: str, call: Callable[[], Any]) -> Callable[[], Any]:
    """The call with a backend forced."""

    def forced() -> Any:
        with backend.use(name):
            return call()

    return forced
