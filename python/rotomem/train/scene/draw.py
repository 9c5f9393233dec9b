"""Random numbers of the generator: small tensors, drawn on the CPU, so that a seed means the same on every device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Draw:
    """Draws from one CPU generator; what it returns as values lies on `device`, indices stay on the CPU."""

    rng: Generator
    device: torch.device

    def chance(self, p: float) -> bool:
        return bool(torch.rand((), generator=self.rng) < p)

    def index(self, n: int, shape: tuple[int, ...] = ()) -> Tensor:
        """Whole numbers below n, on the CPU."""
        return torch.randint(n, shape, generator=self.rng)

    def pick(self, weights: tuple[float, ...]) -> int:
        """An index with probability proportional to its weight."""
        return int(torch.multinomial(torch.tensor(weights, dtype=torch.float32), 1, generator=self.rng))

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
        return (torch.rand(shape, generator=self.rng) * (high - low) + low).to(self.device)

    def log_uniform(self, shape: tuple[int, ...], span: tuple[float, float]) -> Tensor:
        return self.uniform(shape, math.log(span[0]), math.log(span[1])).exp()

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.rng).to(self.device)

    def sign(self, shape: tuple[int, ...]) -> Tensor:
        """-1 or 1."""
        return (torch.randint(2, shape, generator=self.rng) * 2.0 - 1).to(self.device)

    def walk(self, b: int, t: int, shape: tuple[int, ...], step: Tensor | float) -> Tensor:
        """A path [B, T, *shape] from 0: a steady velocity of about `step` a frame, and a third of that in jitter."""
        velocity = torch.randn((b, 1, *shape), generator=self.rng)
        jitter = torch.randn((b, t, *shape), generator=self.rng) * velocity.abs() * 0.35
        path = (velocity + jitter).cumsum(1)
        path = (path - path[:, :1]).to(self.device)
        if isinstance(step, Tensor):
            step = step.view(-1, *(1,) * (path.dim() - 1))
        return path * step


@dataclass(frozen=True)
class Shutter:
    """How a frame's time is divided: one instant, or `samples` sub-frames over an open share of the frame time."""

    samples: int = 1
    open_share: float = 0.5

    def __call__(self, path: Tensor) -> Tensor:
        """Sub-frames of a path: [B, T, ...] to [B, T * samples, ...], linear within the frame."""
        if self.samples == 1:
            return path
        if path.shape[1] == 1:
            return path.expand(-1, self.samples, *path.shape[2:])
        ahead = torch.cat([path[:, 1:], 2 * path[:, -1:] - path[:, -2:-1]], 1) - path
        at = torch.arange(self.samples, device=path.device).view(1, 1, -1, *(1,) * (path.dim() - 2))
        return (path[:, :, None] + ahead[:, :, None] * at * (self.open_share / self.samples)).flatten(1, 2)

    def close(self, light: Tensor) -> Tensor:
        """What a frame gathers: the mean over its sub-frames, [B, T * samples, ...] to [B, T, ...]."""
        return light if self.samples == 1 else light.unflatten(1, (-1, self.samples)).mean(2)
