"""Several processes that train one model, as `torchrun` starts them; and one process, for which nothing changes.

Every process holds the model, takes its share of every batch and sees the gradients' mean. Random numbers come from
generators in the same state everywhere, so one process and two see the same clips.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Generator, Tensor


class Share(NamedTuple):
    """Which of how many processes this is, each taking its part of every batch; and which step's batch it is."""

    rank: int = 0
    world: int = 1
    step: int = 0


@contextmanager
def joined(device: str | torch.device) -> Iterator[torch.device]:
    """Join the processes `torchrun` started, if it did; yields this process's device."""
    device = torch.device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield device
        return
    cuda = device.type == "cuda"
    if cuda:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        leave()


def leave() -> None:
    """Leave the other processes.

    What still holds the group, as a wrapped model in a reference cycle does, is let go first: threads of a group that
    outlives this call abort the process when it ends.
    """
    gc.collect()
    dist.destroy_process_group()


def share() -> Share:
    """This process's."""
    return Share(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Share()


def mean_over_ranks(x: Tensor) -> Tensor:
    """`x` averaged over the processes, on its device and without waiting for it; not differentiable."""
    if share().world == 1:
        return x.detach()
    mean = x.detach().clone()
    dist.all_reduce(mean)
    return mean / share().world


def mean_count(there: Tensor) -> Tensor:
    """How many of `there` are true, averaged over the processes: at least one among them all.

    A sum over this process's objects divided by it averages, over the processes, to the mean over all objects.
    """
    return mean_over_ranks(there.sum().float()).clamp_min(1 / share().world)


def most(*values: float) -> tuple[float, ...]:
    """The largest of each value over the processes: what all of them act by."""
    if share().world == 1:
        return values
    largest = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return tuple(largest.tolist())


def wait() -> None:
    """Until every process is here."""
    most(0.0)


def gathered(item: Any) -> list[Any]:
    """Everyone's `item`, by rank, on rank 0; elsewhere a list of None. For small things."""
    mine = share()
    items: list[Any] = [None] * mine.world
    if mine.world == 1:
        return [item]
    dist.gather_object(item, items if mine.rank == 0 else None)
    return items


def deal(rng: Generator, clips: int, mine: Share, *, group: int = 1) -> list[Generator]:
    """A generator for each group of clips that is this process's, all groups drawn from `rng` alike everywhere.

    clips   of the whole batch; rounded up to what can be dealt evenly
    group   clips that are made at a time
    """
    each = -(-clips // (group * mine.world))
    seeds: list[int] = torch.randint(2**31, (each * mine.world,), generator=rng).tolist()
    return [Generator().manual_seed(seed) for seed in seeds[mine.rank * each : (mine.rank + 1) * each]]
