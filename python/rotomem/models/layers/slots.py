"""Which frame a memory of fixed size lets go ("Space Time Recurrent Memory Network", Nguyen, Kim and Li 2022).

Section and equation numbers are the paper's. A template is what one frame left in one slot.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.models.interface import HeldFrame, MemoryElements

Policy = Literal["learned", "oldest", "newest", "random_drop", "random_select", "first_and_last", "most_similar"]
"""How the slot is chosen: learned (section 3.2), or rules A to F of the ablation (section 4.1.2) in their order."""

POLICIES: tuple[Policy, ...] = get_args(Policy)

_MILLION = 10**6
_SCRATCH = 2**22  # similarities held at once: 16 MiB, whatever the size of the picture


class SlotSettings(nn.Module):
    """A network whose weights, wherever they are kept, also tell how its memory behaves.

    The state_dict has them as `_extra_state` [4] int64: slots, the policy's place in POLICIES, the seed of rules that
    draw lots, and the reach in millionths of the shorter side, 0 where there is none. Loading weights changes nothing
    of a network that is there: its configuration was read from them, or told otherwise.
    """

    config: Any

    def get_extra_state(self) -> Tensor:
        """What the configuration says."""
        reach = getattr(self.config, "reach", None)
        return torch.tensor(
            [
                self.config.slots,
                POLICIES.index(self.config.policy),
                self.config.seed,
                0 if reach is None else max(1, round(reach * _MILLION)),
            ]
        )

    def set_extra_state(self, state: Tensor) -> None:
        """Takes nothing in."""


def slot_settings(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `SlotSettings` wrote: slots, policy, seed, reach. Raises KeyError where nothing did, ValueError where
    there is no such policy."""
    slots, policy, seed, reach = state_dict["_extra_state"].tolist()
    if not 0 <= policy < len(POLICIES):
        raise ValueError("_extra_state")
    return {"slots": slots, "policy": POLICIES[policy], "seed": seed, "reach": reach / _MILLION or None}


def template_similarity(asking: Tensor, held: Tensor) -> Tensor:
    """How much of one template is found anywhere in another (eq. 1):

        s[n] = 1 / P * sum_p max_q asking[n, :, p] . held[n, :, q]

    for vectors of length 1, so that a product is a cosine.

    asking    [N, C, P] float32
    held      [N, C, Q] float32
    returns   [N] in -1..1; differentiable
    Cost: N*C*P*Q multiply-adds; without gradients, scratch is a few positions' similarities.
    """
    n, _, positions = asking.shape
    block = max(1, _SCRATCH // (n * held.shape[2]))
    total = asking.new_zeros(n)
    with torch.autocast(asking.device.type, enabled=False):
        for start in range(0, positions, block):
            cosine = torch.bmm(asking[:, :, start : start + block].transpose(1, 2), held)
            total = total + cosine.amax(2).sum(1)
    return total / positions


def update_keys(asking: Tensor, found: Tensor, place: Tensor) -> Tensor:
    """What a template's slot is chosen by, as `MemoryElements.extra`.

    asking, found   [B, O, CU, y, x]; brought to length 1: what it asks the others with, what others find it by
    place           [B, O, 1, y, x] where its object is
    returns         [B, O, 2*CU + 1, y, x] float32
    """
    units = [F.normalize(u.float(), dim=2) for u in (asking, found)]
    return torch.cat([*units, place.float()], 2)


def slot_scores(arriving: Tensor, held: Tensor) -> Tensor:
    """Eq. 1 of the arriving template and a held one, both as `update_keys` made them; returns [B, O]."""
    dim = arriving.shape[2] // 2
    asking, found = arriving[:, :, :dim].flatten(0, 1), held[:, :, dim : 2 * dim].flatten(0, 1)
    return template_similarity(asking.flatten(2), found.flatten(2)).view(arriving.shape[:2])


def choose_slot(policy: Policy, seed: int, arriving: MemoryElements, step: int, held: Sequence[HeldFrame]) -> int:
    """`VOSModel.choose_slot` of a model with update keys.

    Learned and rule F: the largest score (section 3.2), the oldest of equals. The last held frame was the latest
    until now; these two let it go only where there is no other.
    """
    if policy not in ("learned", "most_similar"):
        return slot_by_rule(policy, step, [h.step for h in held], seed)
    if len(held) == 1:
        return 0
    assert arriving.extra is not None
    scores = []
    for frame in held[:-1]:
        assert frame.extra is not None
        scores.append(float(slot_scores(arriving.extra, frame.extra)[:, frame.seen].mean()))
    return scores.index(max(scores))


def gumbel_one_hot(
    scores: Tensor, candidates: Tensor, rng: torch.Generator | None = None, *, temperature: float = 1.0
) -> Tensor:
    """Draw a slot by straight-through Gumbel-softmax (eqs. 2, 3): one-hot forward, the softmax's gradient backward.

    scores       [B, K]
    candidates   [B, K] bool, slots that may be drawn; at least one a row
    rng          of the CPU, whatever the device, so that a run repeats on any; None is torch's own
    returns      [B, K], exactly 0 or 1
    """
    uniform = torch.rand(scores.shape, generator=rng).clamp_(torch.finfo(torch.float32).tiny, 1 - 2**-24)
    noisy = (scores + (-(-uniform.log()).log()).to(scores)) / temperature
    soft = noisy.masked_fill(~candidates, -torch.inf).softmax(1)
    hard = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1)
    return hard + (soft - soft.detach())


def slot_by_rule(policy: Policy, arriving: int, held: Sequence[int], seed: int = 0) -> int:
    """The slot that a rule empties for the frame of step `arriving`; nothing but the steps matters.

    held   steps of the frames that may go, oldest first, at least one; the last is the frame before the arriving
           one, which only "random_select" and "first_and_last" may take (and every rule that has no other)

    "random_select" draws a number for every step and keeps the frames with the smallest: at any time a sample of
    all frames so far, each as likely as the other, without counting them.
    """
    if policy == "first_and_last":
        return len(held) - 1
    if policy == "random_select":
        return max(range(len(held)), key=lambda i: random.Random(f"{seed} {held[i]}").random())
    older = len(held) - 1
    if older == 0 or policy == "oldest":
        return 0
    if policy == "newest":
        return older - 1
    assert policy == "random_drop", f"{policy} is no rule of steps"
    return random.Random(f"{seed} {arriving}").randrange(older)
