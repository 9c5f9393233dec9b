"""When prototypes are made and what is forgotten (XMem, section 3.3 "Long-term memory").

Candidates are the working elements that are neither pinned nor among the newest frames. The most used of them
become prototypes; each takes in the values of all candidates that resemble it (potentiation). When long-term
memory is full its least used elements go first (LFU).

Objects that appeared late have seen only some of the candidates. Their prototype values come from those alone,
and a prototype whose own element they have not seen stays invisible to them.
"""

from __future__ import annotations

import torch

from rotomem.engine.memory import MemoryBank, Pool, Store
from rotomem.engine.options import MemorySettings
from rotomem.ops.consolidate import Prototypes, consolidate, keep_most_used


def consolidate_if_full(bank: MemoryBank) -> bool:
    """Move the older part of working memory into long-term memory where it has reached its limit.

    Keys of STM and STCN carry neither shrinkage nor selection, which prototypes are made with: there a bounded
    memory lets its oldest frames go instead. A memory that is not bounded becomes sparser where it fills its limit.
    Pinned frames stay in any case.

    Returns whether anything moved. Call it after a frame was memorised.
    """
    settings = bank.settings
    if not settings.long_term:
        return bank.plan.slots is None and _thin_out(bank)
    if not bank.plan.consolidates:
        return any([_drop_oldest(pool, settings.max_working_frames - 1) for pool in bank.layers])
    moved = False
    for pool in bank.layers:
        # The permanent first frame counts as one of max_working_frames, whatever else is pinned.
        frames = pool["frame"][pool.of(Store.WORKING)].unique()
        if frames.numel() < settings.max_working_frames - 1:
            continue
        staying = settings.min_working_frames - 1
        newest = frames[frames.numel() - staying :] if staying else frames[:0]
        _forget(pool, settings)
        candidate = pool.of(Store.WORKING) & ~torch.isin(pool["frame"], newest)
        _compress(pool, candidate, settings.prototypes)
        moved = True
    return moved


def _thin_out(bank: MemoryBank) -> bool:
    """Let every second frame go, and keep new ones half as often, while memory is beyond its limit; whether any went.

    "For some videos with many objects, we reduced the memory saving frequency" (STM, supplement, section 3).
    """
    limit, thinned = bank.settings.memory_gib, False
    while limit is not None and bank.filled_bytes > limit * 2**30:
        went = []
        for pool in bank.layers:
            working = pool.of(Store.WORKING)
            frames = pool["frame"][working].unique()
            gone = frames.flip(0)[1::2]  # the newest stays
            went.append(gone.numel() > 0)
            pool.keep(~(working & torch.isin(pool["frame"], gone)))
        if not any(went):
            break
        bank.spacing, thinned = 2 * bank.spacing, True
    return thinned


def _drop_oldest(pool: Pool, frames: int) -> bool:
    """Keep the newest `frames` working frames; whether any went."""
    working = pool.of(Store.WORKING)
    held = pool["frame"][working].unique()
    if held.numel() <= frames:
        return False
    pool.keep(~(working & torch.isin(pool["frame"], held[: held.numel() - frames])))
    return True


def _forget(pool: Pool, settings: MemorySettings) -> None:
    """Make room for one more consolidation, the least used elements leaving first (section 3.3)."""
    long_term = pool.of(Store.LONG_TERM)
    room = settings.max_long_term - settings.prototypes
    if int(long_term.sum()) <= room:
        return
    kept = ~long_term
    if room:
        index = long_term.nonzero()[:, 0]
        kept[index[keep_most_used(pool.usage()[index], room)]] = True
    pool.keep(kept)


def _compress(pool: Pool, candidate: torch.Tensor, count: int) -> None:
    """Replace the candidates by their prototypes."""
    index = candidate.nonzero()[:, 0]
    key, shrinkage = pool["key"][index].T[None], pool["shrinkage"][index][None]
    selection, usage = pool["selection"][index].T[None], pool.usage()[index][None]
    values, seen = [], []
    made: Prototypes | None = None  # those of the oldest objects, which have seen every candidate
    for bucket in pool.buckets:
        valid = bucket.valid[: pool.size][index]
        if made is not None and not bool(valid.any()):
            value = bucket.value.new_zeros(bucket.objects, made.index.shape[1], bucket.value.shape[2])
        else:
            prototypes = consolidate(
                key,
                shrinkage,
                bucket.value[:, : pool.size][:, index].transpose(1, 2)[None],
                selection,
                usage,
                count,
                valid=None if bool(valid.all()) else valid[None],
                index=None if made is None else made.index,
            )
            made = made or prototypes
            value = prototypes.value[0].transpose(1, 2)
        values.append(value)
        seen.append(valid[made.index[0]])
    assert made is not None
    pool.keep(~candidate)
    pool.append(made.key[0].T, made.shrinkage[0], None, values, list(seen), Store.LONG_TERM, -1)
