"""Time reading the memory: every backend against the dense formula in plain torch, one JSON line each.

    python tests/bench/bench_topk_readout.py [--threads 2] [--repeats 5] [--case 480p]

case, backend, threads, median and least seconds, ratio (dense median / median; it travels between machines where
seconds do not), device, commit.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kernels.cases import TIMED, Case
from rotomem import ops
from rotomem.ops import backend


def dense(key: Tensor, query: Tensor, value: Tensor, shrinkage: Tensor, selection: Tensor, top_k: int) -> Tensor:
    """The published way: all of S as [N, P], top-k, a dense affinity, one product."""
    rows = key.transpose(1, 2)
    cross = 2 * (rows @ (query * selection))
    constant = (selection * query.square()).sum(1, keepdim=True)
    scores = (cross - rows.square() @ selection - constant) * shrinkage.unsqueeze(2) / key.shape[1] ** 0.5
    top, index = scores.topk(top_k, dim=1)
    weights = (top - top[:, :1]).exp_()
    weights /= weights.sum(1, keepdim=True)
    scores.zero_().scatter_(1, index, weights)
    scores.sum(2)
    return value.flatten(1, 2) @ scores


def seconds(call: Callable[[], object], repeats: int) -> list[float]:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def tensors(case: Case) -> tuple[Tensor, ...]:
    """key, query, value, shrinkage, selection; key and value as a bank stores them, [N, CK] and [O, N, CV]."""
    generator = torch.Generator().manual_seed(0)

    def walk(count: int) -> Tensor:  # a picture's positions resemble their neighbours
        steps = torch.randn(case.key_channels, count, generator=generator).cumsum(1).mul_(0.3)
        return steps.sin_().mul_(0.5) + 0.3 * torch.randn(case.key_channels, count, generator=generator)

    value = torch.randn(1, case.objects, case.elements, case.value_channels, generator=generator)
    return (
        walk(case.elements).T.contiguous().T[None],
        walk(case.positions)[None],
        value.transpose(2, 3),
        1 + 20 * torch.rand(1, case.elements, generator=generator) ** 2,
        torch.rand(1, case.key_channels, case.positions, generator=generator),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", action="append", help="only cases of this name")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    for case in TIMED:
        if options.case and case.name not in options.case:
            continue
        assert case.top_k is not None
        key, query, value, shrinkage, selection = tensors(case)
        plain_value = value.contiguous()
        baseline = 0.0
        for name in ("dense", *backend.available()):
            if name == "dense":
                call: Callable[..., object] = partial(
                    dense, key, query, plain_value, shrinkage, selection, case.top_k
                )
                times = seconds(call, options.repeats)
                baseline = statistics.median(times)
            else:
                read = partial(ops.read_memory, key, query, value, top_k=case.top_k, need_usage=True)
                with backend.use(name):
                    times = seconds(partial(read, shrinkage=shrinkage, selection=selection), options.repeats)
            line = {
                "case": case.name,
                "backend": name,
                "threads": options.threads,
                "median_s": round(statistics.median(times), 5),
                "least_s": round(min(times), 5),
                "ratio": round(baseline / statistics.median(times), 2),
                "device": platform.processor() or platform.machine(),
                "commit": described.stdout.strip(),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
