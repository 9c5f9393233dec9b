"""The native kernels for NVIDIA devices as torch sees them: addresses, its stream, scratch. Arguments are checked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rotomem.ops import backend
from rotomem.ops._torch import Read


def read_trouble(key: Tensor, top_k: int | None) -> str:
    """Why a device's kernel cannot read this memory, "" where it can."""
    most, most_channels = backend.kernels.topk_readout_cuda_most, backend.kernels.topk_readout_cuda_most_channels
    if top_k is None:
        return "it has no full softmax"
    if min(top_k, key.shape[2]) > most:
        return f"top_k is {top_k}, more than {most}"
    if key.shape[1] > most_channels:
        return f"keys have {key.shape[1]} channels, more than {most_channels}"
    return ""


def read_memory(
    key: Tensor,
    query_key: Tensor,
    value: Tensor,
    shrinkage: Tensor | None,
    selection: Tensor | None,
    top_k: int,
    form: str,
    valid: Tensor | None,
    need_usage: bool,
    need_chosen: bool = False,
) -> Read:
    """A read (see ops.readout.read_memory) on the tensors' device and torch's current stream; never waits for it."""
    batch, elements, positions = key.shape[0], key.shape[2], query_key.shape[2]
    top_k = min(top_k, elements)
    new: dict[str, Any] = {"device": key.device, "dtype": torch.float32}
    readout = torch.empty(batch, *value.shape[1:3], positions, **new)
    usage = torch.empty(batch, elements, **new) if need_usage else None
    index = torch.empty(batch, positions, top_k, device=key.device, dtype=torch.int32) if need_chosen else None
    weight = torch.empty(batch, positions, top_k, **new) if need_chosen else None
    for b in range(batch):
        # What is converted here must live until the kernels are queued; its memory is then given only to what the
        # same stream runs later.
        given = {"key": key, "query_key": query_key, "shrinkage": shrinkage, "selection": selection}
        held = {name: None if t is None else t[b].detach().float() for name, t in given.items()}
        held |= {"value": _rows(value[b]), "valid": None if valid is None else valid[b].to(torch.uint8)}
        written = {"readout": readout, "usage": usage, "index": index, "weight": weight}
        held |= {name: None if t is None else t[b] for name, t in written.items()}
        _with_scratch("topk_readout_cuda", held, key.device, top_k=top_k, similarity=form)
    return Read(readout.to(query_key.dtype), usage, index, weight)


def consolidate(
    candidate_key: Tensor,
    candidate_shrinkage: Tensor,
    candidate_value: Tensor,
    candidate_selection: Tensor,
    index: Tensor,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Key [B, CK, P], shrinkage [B, P] and value [B, O, CV, P] of the prototypes at `index` (see ops.consolidate)."""
    made = index.shape[1]
    new: dict[str, Any] = {"device": index.device, "dtype": torch.float32}
    key = torch.empty(*candidate_key.shape[:2], made, **new)
    shrinkage = torch.empty(index.shape, **new)
    value = torch.empty(*candidate_value.shape[:3], made, **new)
    for b in range(index.shape[0]):
        given = {"key": candidate_key, "shrinkage": candidate_shrinkage, "selection": candidate_selection}
        held: dict[str, Tensor | None] = {name: t[b].detach().float() for name, t in given.items()}
        held |= {
            "value": _rows(candidate_value[b]),
            "index": index[b],
            "valid": None if valid is None else valid[b].to(torch.uint8),
            "prototype_key": key[b],
            "prototype_shrinkage": shrinkage[b],
            "prototype_value": value[b],
        }
        _with_scratch("consolidate_cuda", held, index.device)
    return (
        key.to(candidate_key.dtype),
        shrinkage.to(candidate_shrinkage.dtype),
        value.to(candidate_value.dtype),
    )


def local_attention_trouble(relative_key: Tensor) -> str:
    """Why a device's kernel cannot attend to this window, "" where it can."""
    most, most_channels = (
        backend.kernels.local_attention_cuda_most_reach,
        backend.kernels.local_attention_cuda_most_channels,
    )
    if relative_key.shape[1] > (2 * most + 1) ** 2:
        return f"the window has {relative_key.shape[1]} places, more than {(2 * most + 1) ** 2}"
    if relative_key.shape[2] > most_channels:
        return f"heads have {relative_key.shape[2]} channels, more than {most_channels}"
    return ""


def local_attention(**given: Tensor) -> Tensor:
    """Readout [B, C, Y, X] (see ops.attention.local_attention), channels side by side."""
    b, c, y, x = given["query"].shape
    device = given["query"].device
    readout = torch.empty(b, y, x, c, device=device, dtype=torch.float32).permute(0, 3, 1, 2)
    held = {name: tensor.detach().float() for name, tensor in given.items()}
    arrays = {name: array(tensor) for name, tensor in held.items()}
    backend.kernels.local_attention_cuda(**arrays, readout=array(readout), **queue(device))
    return readout.to(given["query"].dtype)


def aggregate(logits: Tensor) -> Tensor:
    """Logits [B, O+1, h, w] (see ops.aggregate.aggregate)."""
    b, objects, h, w = logits.shape
    held = logits.detach().float().contiguous().flatten(2)
    aggregated = torch.empty(b, objects + 1, h * w, device=logits.device, dtype=torch.float32)
    backend.kernels.aggregate_cuda(logits=array(held), aggregated=array(aggregated), **queue(logits.device))
    return aggregated.unflatten(2, (h, w))


def _with_scratch(name: str, tensors: dict[str, Tensor | None], device: torch.device, **options: Any) -> None:
    """Call a kernel twice: it says how much scratch it needs, and gets it."""
    kernel = getattr(backend.kernels, name)
    call = {**{argument: array(tensor) for argument, tensor in tensors.items()}, **options, **queue(device)}
    scratch = torch.empty(kernel(**call), dtype=torch.uint8, device=device)
    kernel(**call, scratch=array(scratch))


def array(tensor: Tensor | None) -> tuple[int, tuple[int, ...], tuple[int, ...], str] | None:
    """The tensor's memory as the kernels are told of it: address, shape, strides in numbers, type."""
    if tensor is None:
        return None
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), str(tensor.dtype).removeprefix("torch.")


def queue(device: torch.device) -> dict[str, int]:
    """Where kernels are queued: the device's number, and its stream that torch is on."""
    stream = torch.cuda.current_stream(device)
    return {"device": stream.device.index, "stream": stream.cuda_stream}


def _rows(value: Tensor) -> Tensor:
    """value [O, CV, N] as [O, N, CV] with contiguous channels; a copy only where they are not."""
    rows = value.detach().transpose(1, 2)
    return rows if rows.stride(2) == 1 or rows.shape[2] <= 1 else rows.contiguous()
