"""Which implementation of the ops runs, why, and how to force one.

`ROTOMEM_BACKEND` or `use(...)` names one of

    auto             native kernels for float32 tensors on the CPU and float32 or half ones on an NVIDIA device, where
                     they have the gradients that are needed; torch for the rest
    native           the native kernels with the widest instructions of this machine, on an NVIDIA device its own
    native-portable  the native kernels without vector extensions; -avx2, -avx512, -avx512_bf16 and -amx likewise
    native-cuda      the native kernels for NVIDIA devices (torch sorts there and attends to all:
                     nothing of ours would do better)
    torch            plain torch: any device and type, differentiable

A forced backend never gives way to another: what it cannot do is a BackendError.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from rotomem.errors import BackendError

kernels: Any
"""The native module, for functions for which `choose` named instructions; None where there is no build."""

try:
    kernels = importlib.import_module("rotomem._kernels")
except ImportError as error:  # a checkout without a build, or a build for another Python
    kernels = None
    _why_absent = str(error)
else:
    _why_absent = ""

NAMES = (
    "auto",
    "native",
    "native-portable",
    "native-avx2",
    "native-avx512",
    "native-avx512_bf16",
    "native-amx",
    "native-cuda",
    "torch",
)

_forced: ContextVar[str | None] = ContextVar("rotomem_backend", default=None)


def _asked() -> tuple[str, str]:
    """The name asked for, and who asked."""
    forced = _forced.get()
    if forced is not None:
        return forced, "backend.use"
    named = os.environ.get("ROTOMEM_BACKEND", "").strip().lower()
    return (named, "ROTOMEM_BACKEND") if named else ("auto", "default")


def _resolve(name: str) -> str:
    """What `name` means for the CPU of this machine: "torch" or "native-<instructions>", or native-cuda.

    Raises BackendError where it is absent.
    """
    if name not in NAMES:
        raise BackendError(f"no backend called {name!r}", remedy=f"use one of {', '.join(NAMES)}")
    if name == "torch" or (name == "auto" and kernels is None):
        return "torch"
    if kernels is None:
        raise BackendError(
            f"backend {name} is forced, but the native kernels are not there: {_why_absent}",
            remedy="build them with `pip install -e .`, or set ROTOMEM_BACKEND=torch",
        )
    present = kernels.instruction_sets()
    if name in ("auto", "native"):
        return f"native-{present[-1]}"
    if name == "native-cuda":
        if trouble := cuda_trouble():
            raise BackendError(
                f"backend {name} is forced, but {trouble}",
                remedy="`rotomem info` says what there is; set ROTOMEM_BACKEND=auto or torch",
            )
        return name
    wanted = name.removeprefix("native-")
    if wanted not in present:
        raise BackendError(
            f"backend {name} is forced, but this processor or build has only {', '.join(present)}",
            remedy="set ROTOMEM_BACKEND=native or auto",
        )
    return name


@functools.cache
def _cuda_status() -> tuple[list[str], str]:
    devices, trouble = kernels.cuda_status()
    return devices, trouble


def cuda_devices() -> tuple[str, ...]:
    """The NVIDIA devices that the native kernels see, "name (compute capability)"; torch may see others."""
    return () if kernels is None else tuple(_cuda_status()[0])


def cuda_trouble() -> str:
    """Why the native kernels run on no NVIDIA device of this machine; "" where they do."""
    return f"the native kernels are not built ({_why_absent})" if kernels is None else _cuda_status()[1]


def current(device: str = "cpu") -> str:
    """The backend for float32 tensors on a "cpu" or "cuda" device: "torch" or "native-<what>".

    Raises BackendError where a forced backend is absent or unknown.
    """
    name = _asked()[0]
    if device != "cpu" and name in ("auto", "native"):
        return "native-cuda" if device == "cuda" and not cuda_trouble() else "torch"
    return _resolve(name)


def forced() -> bool:
    """Whether somebody asked for one backend, so that no other may take its place."""
    return _asked()[0] != "auto"


def available(device: str = "cpu") -> tuple[str, ...]:
    """Every concrete backend for a "cpu" or "cuda" device of this machine, plain ones first: "torch", then ours."""
    if device != "cpu":
        return ("torch",) if device != "cuda" or cuda_trouble() else ("torch", "native-cuda")
    if kernels is None:
        return ("torch",)
    return ("torch", *(f"native-{name}" for name in kernels.instruction_sets()))


def explain() -> str:
    """One sentence for a log: which backend runs and why."""
    name, origin = _asked()
    chosen = _resolve(name)
    if name != "auto":
        return f"{chosen}: forced by {origin}={name}"
    if chosen == "torch":
        return f"torch: the native kernels are not built ({_why_absent})"
    return f"{chosen}: the widest instructions of this machine; torch for other devices and types"


def explain_cuda() -> str:
    """One sentence for a log: which backend runs on NVIDIA devices and why."""
    name, origin = _asked()
    if name not in ("auto", "native"):
        return f"{_resolve(name)}: forced by {origin}={name}"
    if trouble := cuda_trouble():
        return f"torch, where it has such a device: {trouble}"
    return f"native-cuda: {', '.join(cuda_devices())}; torch for float64 and gradients"


@contextmanager
def use(name: str) -> Iterator[str]:
    """Force a backend inside a `with` block of this thread; yields what it resolves to.

    Raises BackendError where it is absent or unknown.
    """
    resolved = _resolve(name)
    token = _forced.set(name)
    try:
        yield resolved
    finally:
        _forced.reset(token)


def gradient_needed(*tensors: Tensor | None) -> bool:
    """Whether what is computed from these tensors now is to be differentiated later."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def give_way(trouble: str) -> None:
    """Let torch do what the native kernels for NVIDIA devices cannot: a BackendError where these are forced."""
    name = _asked()[0]
    if name != "auto":
        raise BackendError(
            f"backend native-cuda is forced by {name}, but {trouble}", remedy="set ROTOMEM_BACKEND=auto"
        )


def choose(*tensors: Tensor | None, cuda: bool = False, differentiable: bool = False) -> str | None:
    """How the native kernels take these tensors, the name of instructions or "cuda"; None: torch takes them.

    cuda             whether there is a kernel for NVIDIA devices
    differentiable   whether those for processors have gradients for what is asked of them

    Raises BackendError where a native backend is forced and cannot take them.
    """
    name = _asked()[0]
    given = [t for t in tensors if t is not None]
    on_cuda = cuda and name in ("auto", "native", "native-cuda") and any(t.device.type == "cuda" for t in given)
    chosen = "native-cuda" if on_cuda else _resolve(name)
    if chosen == "torch":
        return None
    trouble = ""
    if len({t.device for t in given}) > 1:
        trouble = "the tensors are not on one device"
    elif on_cuda:
        trouble = cuda_trouble()
    elif chosen == "native-cuda":
        trouble = "no tensor is on an NVIDIA device" if cuda else "it has no kernel for this"
    elif any(t.device.type != "cpu" for t in given):
        trouble = "a tensor is not on the CPU"
    if not trouble and (on_cuda or not differentiable) and gradient_needed(*given):
        trouble = "a gradient is needed that they do not have"
    elif not trouble and any(t.dtype == torch.float64 for t in given):
        trouble = "a tensor is float64 and would lose precision"
    if not trouble:
        halves = any(t.is_floating_point() and t.dtype != torch.float32 for t in given)
        return None if name == "auto" and halves and not on_cuda else chosen.removeprefix("native-")
    if name == "auto":
        return None
    raise BackendError(
        f"backend {chosen} is forced, but {trouble}",
        remedy="set ROTOMEM_BACKEND=auto or torch, or call under torch.no_grad() with float32 tensors of one device",
    )
