"""The memory of a training clip where it has a fixed number of slots (STReMN, section 3.2), with gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from rotomem.models.interface import MemoryElements, MemoryPlan
from rotomem.models.layers.slots import Policy, gumbel_one_hot, slot_by_rule, slot_scores
from rotomem.train.memory import ClipMemory


class SlotMemory(ClipMemory):
    """What a STReMN reads while it is trained: the clip's first frame, the latest, and those that were not let go.

    Which frame gives way is drawn by straight-through Gumbel-softmax for every clip of the batch (eqs. 2 and 3),
    argmax with noise forward; the gradient of later frames reaches the update keys through eq. 4. A model whose
    policy is a rule follows it here too.

    plan      with slots; what the model decides by travels in `MemoryElements.extra`
    policy    how a slot is chosen, and the seed of rules that draw lots
    rng       of the Gumbel noise
    pinned    frames from the first on that are never let go: 1 where the first one's mask is given
    """

    def __init__(
        self,
        plan: MemoryPlan,
        policy: Policy,
        rng: Generator,
        *,
        seed: int = 0,
        pinned: int = 1,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(plan)
        self.policy: Policy = policy
        self.rng, self.seed, self.pinned, self.temperature = rng, seed, pinned, temperature
        self._steps: list[Tensor] = []  # per slot [B], which frame of the clip each clip holds there
        self._count = 0

    @property
    def steps(self) -> Tensor:
        """Frames in memory [B, K]."""
        return torch.stack(self._steps, 1)

    def add(self, elements: Sequence[MemoryElements]) -> None:
        """Take the next frame's template into a free slot, else into one that the model empties."""
        (new,) = elements
        step = torch.full((new.value.shape[0],), self._count)
        self._count += 1
        if len(self._steps) < (self.plan.slots or 0):
            super().add(elements)
            self._steps.append(step)
            return
        chosen = self._choose(new)
        for i, share in enumerate(chosen.unbind(1)):
            self._kept[0][i] = _mixed(self._kept[0][i], new, share.view(-1, 1, 1, 1, 1))
        taken = chosen.detach().cpu() > 0.5
        self._steps = [torch.where(taken[:, i], step, held) for i, held in enumerate(self._steps)]

    def _choose(self, new: MemoryElements) -> Tensor:
        """The slot to empty, [B, K] one-hot: no pinned one, nor the latest where there is another."""
        steps, like = self.steps, new.value
        order = steps.argsort(1)[:, self.pinned :]  # those that may go, oldest first
        if self.policy not in ("learned", "most_similar"):
            held = steps.gather(1, order).tolist()
            places = [slot_by_rule(self.policy, self._count - 1, row, self.seed) for row in held]
            return F.one_hot(order.gather(1, torch.tensor(places)[:, None])[:, 0], steps.shape[1]).to(like)
        order = order[:, :-1] if order.shape[1] > 1 else order
        candidates = torch.zeros_like(steps, dtype=torch.bool).scatter_(1, order, True).to(like.device)
        assert new.extra is not None
        scores = [slot_scores(new.extra, e.extra).mean(1) for e in self._kept[0] if e.extra is not None]
        if self.policy == "learned":
            return gumbel_one_hot(torch.stack(scores, 1), candidates, self.rng, temperature=self.temperature)
        best = torch.stack(scores, 1).masked_fill(~candidates, -torch.inf).argmax(1)
        return F.one_hot(best, steps.shape[1]).to(like)


def _mixed(held: MemoryElements, new: MemoryElements, share: Tensor) -> MemoryElements:
    """Eq. 4: `share`, 0 or 1 a clip, of the new template in the place of the held one."""
    assert held.extra is not None and new.extra is not None
    pairs = ((held.key, new.key), (held.value, new.value), (held.extra, new.extra))
    key, value, extra = ((1 - share) * a + share * b for a, b in pairs)
    return MemoryElements(key, value, extra=extra)
