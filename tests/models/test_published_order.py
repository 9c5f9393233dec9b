"""What the published code does frame after frame, written as plain loops, against a session.

The networks are tiny and shared by both sides (the parity tests speak for them); compared is what is around them:
padding, schedules, which elements are read, late objects, consolidation, eviction, passes, bounds. Memories are
lists, affinities whole matrices, and no function of rotomem's engine or operations is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.toy import labels, picture, tiny_aot, tiny_model, tiny_stcn, tiny_stm
from rotomem.engine.session import Session
from rotomem.models.aot import AOT
from rotomem.models.interface import MemoryElements, Query
from rotomem.ops import backend

ONE, TWO, THREE = (1, 6, 4, 14), (2, 24, 30, 12), (3, 4, 40, 12)
BACKENDS = ("torch", "native") if len(backend.available()) > 1 else ("torch",)


def compare(session: Session, published: list[Tensor], masks: Mapping[int, Any], limit: float = 2e-4) -> None:
    """Frame by frame, those with a mask excepted: the published code tells of these what it saw before."""
    height, width = published[0].shape[-2:]
    for t, theirs in enumerate(published):
        ours = session.step(picture(t, height, width), masks.get(t))
        if t not in masks:
            error = np.abs(ours - theirs.numpy()).max()
            assert error < limit, f"frame {t}: {error:.1e}"
    assert float(published[-1][1:].amax((1, 2)).min()) > 0.01, "an object was lost: nothing is compared"


def image(t: int, height: int, width: int) -> Tensor:
    return torch.from_numpy(picture(t, height, width)).permute(2, 0, 1)[None]


def margins(height: int, width: int) -> tuple[int, int, int, int]:
    """Left, right, top, bottom, to multiples of 16, the smaller half first."""
    return (-width % 16 // 2, -width % 16 - -width % 16 // 2, -height % 16 // 2, -height % 16 - -height % 16 // 2)


def aggregated(masks: Tensor) -> Tensor:
    """[O, h, w] each of its own as [O+1, h, w] of one distribution."""
    q = torch.cat([(1 - masks).prod(0, keepdim=True), masks]).clamp(1e-7, 1 - 1e-7)
    odds = q / (1 - q)
    return odds / odds.sum(0)


def annotated(seen: Tensor | None, label: np.ndarray, count: int) -> Tensor:
    """What holds where an annotation comes [O+1, h, w]: new objects as drawn, the others outside of these."""
    own = torch.stack([torch.from_numpy(label == i + 1).float() for i in range(count)])
    if seen is not None:
        known = seen.shape[0] - 1
        drawn = own.sum(0) > 0.5
        fresh = own.flatten(1).any(1)
        for i in range(known):
            if not fresh[i]:
                own[i] = torch.where(drawn, torch.zeros(()), seen[i + 1])
    return aggregated(own)


def top_softmax(score: Tensor, k: int | None) -> Tensor:
    """[N, P] over N, all but the k largest left out."""
    if k is not None and k < score.shape[0]:
        least = score.topk(k, 0).values[-1:]
        score = score.masked_fill(score < least, -torch.inf)
    return score.softmax(0)


@dataclass
class Bank:
    """What one object may read: keys and values of frames, in order."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    last: tuple[Tensor, Tensor] | None = None


def stcn(masks: Mapping[int, np.ndarray], frames: int, every: int, include_last: bool, size: tuple[int, int]) -> Any:
    """A bank an object, each with its own copy of the keys; every so many frames since the last one."""
    model, out = tiny_stcn(), list[Tensor]()
    pad, banks, last_memory = margins(*size), list[Bank](), 0
    left, _, top, _ = pad
    for t in range(frames):
        mean = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
        padded = F.pad(image(t, *size) - mean, pad) + mean
        features = model.encode_frame(padded)
        query, seen = features.key[0].flatten(1), None
        if banks:
            reads = []
            for bank in banks:
                key = torch.cat(bank.keys + ([bank.last[0]] if bank.last else []), 1)
                value = torch.cat(bank.values + ([bank.last[1]] if bank.last else []), 1)
                score = (2 * key.T @ query - key.square().sum(0)[:, None]) / key.shape[0] ** 0.5
                reads.append(value @ top_softmax(score, 20))
            readout = torch.stack(reads)[None].unflatten(3, features.key.shape[-2:])
            logits = F.interpolate(model.decoder(features, readout), scale_factor=4, mode="bilinear")
            seen = aggregated(logits[0].sigmoid())
        if t in masks:
            label = np.pad(masks[t], (pad[2:], pad[:2]))
            count = max(int(label.max()), len(banks))
            seen = annotated(seen, label, count)
            banks += [Bank() for _ in range(count - len(banks))]
        assert seen is not None
        is_memory = t in masks or t - last_memory >= every
        if is_memory or include_last:
            element = model.encode_mask(padded, features, seen[None, 1:], None).elements[0]
            for bank, value in zip(banks, element.value[0], strict=True):
                bank.last = None
                if is_memory:
                    bank.keys.append(element.key[0].flatten(1))
                    bank.values.append(value.flatten(1))
                else:
                    bank.last = element.key[0].flatten(1), value.flatten(1)
            last_memory = t if is_memory else last_memory
        out.append(seen[:, top : top + size[0], left : left + size[1]])
    return out


@pytest.mark.parametrize("which", BACKENDS)
@pytest.mark.parametrize("include_last, size", ((False, (48, 64)), (True, (48, 64)), (True, (45, 59))))
def test_stcn_when_an_object_comes_late_then_each_reads_a_bank_of_its_own(
    which: str, include_last: bool, size: tuple[int, int]
) -> None:
    masks = {0: labels(ONE, TWO, height=size[0], width=size[1]), 7: labels(THREE, height=size[0], width=size[1])}
    with torch.inference_mode(), backend.use(which):
        published = stcn(masks, 16, 5, include_last, size)
        compare(Session(tiny_stcn(), size=None, include_last=include_last), published, masks)


def stm(mask: np.ndarray, frames: int, every: int, size: tuple[int, int]) -> list[Tensor]:
    """First, previous and every so manyth frame, keys an object; masks fed back without the padding."""
    model, pad = tiny_stm(), margins(*size)
    left, _, top, _ = pad
    inside = F.pad(torch.ones(size), pad)
    held: tuple[Tensor, Tensor] | None = None
    estimate = annotated(None, np.pad(mask, (pad[2:], pad[:2])), int(mask.max()))
    out = [estimate]
    for t in range(1, frames):
        before = F.pad(image(t - 1, *size), pad)
        element = model.encode_mask(before, None, (estimate[1:] * inside)[None], None).elements[0]
        key, value = element.key[0].flatten(2), element.value[0].flatten(2)
        if held is not None:
            key, value = torch.cat([held[0], key], 2), torch.cat([held[1], value], 2)
        features = model.encode_frame(F.pad(image(t, *size), pad))
        query = features.key[0].flatten(1)
        weights = (key.transpose(1, 2) @ query / key.shape[1] ** 0.5).softmax(1)
        readout = (value @ weights)[None].unflatten(3, features.key.shape[-2:])
        logits = model.Decoder(features, readout)[0]
        logits = F.interpolate(logits, scale_factor=4, mode="bilinear")
        estimate = aggregated(logits.softmax(1)[:, 1])
        if (t - 1) % every == 0:
            held = key, value
        out.append(estimate)
    return [p[:, top : top + size[0], left : left + size[1]] for p in out]


@pytest.mark.parametrize("which", BACKENDS)
@pytest.mark.parametrize("every, size", ((2, (48, 64)), (2, (45, 59)), (5, (48, 64))))
def test_stm_when_every_so_manyth_frame_is_kept_then_it_reads_those_and_the_previous_one(
    which: str, every: int, size: tuple[int, int]
) -> None:
    mask = labels(ONE, TWO, height=size[0], width=size[1])
    with torch.inference_mode(), backend.use(which):
        published = stm(mask, 13, every, size)
        compare(Session(tiny_stm(), size=None, mem_every=every), published, {0: mask})


@dataclass
class Store:
    """Columns [C, N] of one of XMem's two memories; use and life [N]."""

    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    value: Tensor  # [O, CV, N]
    use: Tensor
    life: Tensor

    def cut(self, index: Tensor) -> Store:
        return Store(*(getattr(self, name)[..., index] for name in self.__dict__))

    def with_(self, other: Store) -> Store:
        return Store(*(torch.cat([getattr(self, name), getattr(other, name)], -1) for name in self.__dict__))


def anisotropic(key: Tensor, shrinkage: Tensor, query: Tensor, selection: Tensor) -> Tensor:
    """[N, P]."""
    distance = key.square().T @ selection - 2 * key.T @ (query * selection) + (selection * query.square()).sum(0)
    return -shrinkage[:, None] * distance / key.shape[0] ** 0.5


def xmem(mask: np.ndarray, frames: int, every: int, least: int, most: int, prototypes: int, limit: int) -> Any:
    """Working memory compressed at `most` frames to `least`; the least used of long-term memory let go."""
    model, out = tiny_model(), list[Tensor]()
    work: Store | None = None
    long: Store | None = None
    sensory: Tensor | None = None
    last_memory = evictions = 0
    for t in range(frames):
        picture_ = image(t, 48, 64)
        features = model.encode_frame(picture_)
        y, x = features.key.shape[-2:]
        area, is_memory = y * x, t == 0 or t - last_memory >= every
        if work is None:
            seen = annotated(None, mask, int(mask.max()))
            sensory = torch.zeros(1, seen.shape[0] - 1, 8, y, x)
        else:
            whole = work if long is None else long.with_(work)
            score = anisotropic(
                whole.key, whole.shrinkage, features.key[0].flatten(1), features.selection[0].flatten(1)
            )
            weights = top_softmax(score, 8)
            readout = (whole.value @ weights)[None].unflatten(3, (y, x))
            use, n = weights.sum(1), 0 if long is None else long.use.shape[0]
            if long is not None:
                long.use, long.life = long.use + use[:n], long.life + 1
            work.use, work.life = work.use + use[n:], work.life + 1
            logits, _, updated = model.decoder(features, readout, sensory, not is_memory)
            sensory = sensory if updated is None else updated
            seen = aggregated(F.interpolate(logits, scale_factor=4, mode="bilinear")[0].sigmoid())
        out.append(seen)
        if not is_memory:
            continue
        memorised = model.encode_mask(picture_, features, seen[None, 1:], sensory, deep_update=True)
        sensory, last_memory, e = memorised.sensory, t, memorised.elements[0]
        assert e.shrinkage is not None and e.selection is not None
        new = Store(
            e.key[0].flatten(1),
            e.shrinkage[0, 0].flatten(),
            e.selection[0].flatten(1),
            e.value[0].flatten(2),
            torch.zeros(area),
            torch.full((area,), 1e-7),
        )
        work = new if work is None else work.with_(new)
        if work.use.shape[0] < most * area:
            continue
        if long is not None and long.use.shape[0] >= limit - prototypes:
            usage = long.use / long.life
            threshold = usage.sort().values[long.use.shape[0] - (limit - prototypes) - 1]
            long, evictions = long.cut((usage > threshold).nonzero()[:, 0]), evictions + 1
        middle = work.cut(torch.arange(area, work.use.shape[0] - (least - 1) * area))
        chosen = (middle.use / middle.life).topk(prototypes).indices
        score = anisotropic(middle.key, middle.shrinkage, middle.key[:, chosen], middle.selection[:, chosen])
        mixed = score.softmax(0)
        made = Store(
            middle.key[:, chosen],
            middle.shrinkage @ mixed,
            middle.selection[:, chosen],
            middle.value @ mixed,
            torch.zeros(prototypes),
            torch.full((prototypes,), 1e-7),
        )
        long = made if long is None else long.with_(made)
        stay = [*range(area), *range(work.use.shape[0] - (least - 1) * area, work.use.shape[0])]
        work = work.cut(torch.tensor(stay))
    assert evictions > 3
    return out


@pytest.mark.parametrize("which, every", (*((which, 1) for which in BACKENDS), (BACKENDS[-1], 2)))
def test_xmem_when_a_shot_has_64_frames_then_what_is_compressed_and_let_go_is_the_same(
    which: str, every: int
) -> None:
    mask = labels(ONE, TWO)
    told = dict(min_working_frames=2, max_working_frames=4, prototypes=7, max_long_term=24)
    with torch.inference_mode(), backend.use(which):
        published = xmem(mask, 64, every, 2, 4, 7, 24)
        compare(Session(tiny_model(), size=None, mem_every=every, top_k=8, **told), published, {0: mask}, 1e-3)


@dataclass
class Engine:
    """One of AOT's engines, with objects of its own: frames in long-term memory and the previous one, by layer."""

    model: AOT
    raster: tuple[int, int]
    frames: list[tuple[int, bool]] = field(default_factory=list)  # and whether it is a reference
    long: list[tuple[Any, ...]] = field(default_factory=list)
    short: tuple[Any, ...] = ()

    def add(self, t: int, kept: tuple[Any, ...], *, reference: bool, most: int | None) -> None:
        """Keep a frame; of more than `most` the oldest that is no reference goes."""
        self.frames.append((t, reference))
        self.long.append(kept)
        while most is not None and len(self.frames) > most:
            gone = next(i for i, (_, is_reference) in enumerate(self.frames) if not is_reference)
            del self.frames[gone], self.long[gone]

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        heads = self.model.config.heads
        key = torch.cat([kept[layer].key[0] for kept in self.long]).unflatten(1, (heads, -1))
        value = torch.cat([kept[layer].value[0] for kept in self.long]).unflatten(1, (heads, -1))
        asked = query.key[0].flatten(1).T.unflatten(1, (heads, -1))
        weights = (torch.einsum("phc,nhc->hpn", asked, key) / key.shape[2] ** 0.5).softmax(2)
        read = torch.einsum("hpn,nhc->hcp", weights, value).flatten(0, 1)
        return read.unflatten(1, self.raster)[None, None]

    def latest(self, *, layer: int = 0) -> MemoryElements:
        key, value = (
            t.transpose(1, 2).unflatten(2, self.raster) for t in (self.short[layer].key, self.short[layer].value)
        )
        return MemoryElements(key, value[:, None])


def aot(
    model: AOT, masks: Mapping[int, np.ndarray], frames: int, every: int | None, most: int | None
) -> tuple[list[Tensor], list[Tensor], list[Engine]]:
    """Labels fed back; a frame with new labels is a reference for all; an engine for every so many objects."""
    per = model.plan.objects_per_pass or 0
    engines, out, fed, last, label = list[Engine](), list[Tensor](), list[Tensor](), 0, torch.zeros(48, 64)
    for t in range(frames):
        features = model.encode_frame(model.framing.image(image(t, 48, 64)))
        raster = (features.projected.shape[2], features.projected.shape[3])
        matched = [model.match(features, engine) for engine in engines]
        count = int(label.max())
        if engines:
            apart = []
            for i, seen in enumerate(matched):
                logits = model.framing.restore(model.decode_logits(features, seen), 48, 64)[0]
                apart.append(logits[: 1 + min(per, count - i * per)].softmax(0))
            said = apart[0]
            if len(apart) > 1:
                background = torch.stack([p[0] for p in apart]).prod(0)
                q = torch.cat([background[None], *(p[1:] for p in apart)]).clamp(1e-5, 1 - 1e-5)
                said = torch.logit(q).softmax(0)
            label = said.argmax(0)
        if t in masks:
            new = torch.from_numpy(masks[t]).long()
            label = torch.where(new > 0, new, label.long())
            count = int(label.max())
            engines += [Engine(model, raster) for _ in range(-(-count // per) - len(engines))]
        out.append(said if t not in masks else F.one_hot(label, count + 1).permute(2, 0, 1).float())
        fed.append(label)
        due = every is not None and t - last >= every
        for i, engine in enumerate(engines):
            own = torch.stack([(label == 1 + i * per + j).float() for j in range(per)])
            identity = model.embed_identities(model.framing.mask(own[None]))
            if t in masks:
                kept = model.match_reference(features, identity)[1]
            else:
                kept = tuple(model.LSTT.block(n).remember(e, identity) for n, e in enumerate(matched[i].own))
            engine.short = kept
            if t in masks or due:
                engine.add(t, kept, reference=t in masks, most=most)
        last = t if t in masks or due else last
    return out, fed, engines


AOTS: dict[str, tuple[dict[str, Any], dict[int, np.ndarray]]] = {
    "two engines, V1": (dict(gated=False, scalable=False), {0: labels(ONE, TWO, THREE)}),
    "an engine that comes late": ({}, {0: labels(ONE, TWO), 4: labels(THREE)}),
    "an object that comes late": ({}, {0: labels(ONE), 4: labels(TWO)}),
    "AOTv2, given frames only": (dict(scalable=False, intermediate=False, memory_every=None), {0: labels(ONE, TWO)}),
    "shared AOST": (dict(shared=True, intermediate=False), {0: labels(ONE, TWO)}),
    "shared AOST at depth 1": (dict(shared=True, intermediate=False), {0: labels(ONE, TWO)}),
    "AOST at depth 1": ({}, {0: labels(ONE, TWO)}),
    "at most three frames": (dict(memory_every=2), {0: labels(ONE, TWO)}),
}


@pytest.mark.parametrize("which", BACKENDS)
@pytest.mark.parametrize("kind", AOTS)
def test_aot_when_labels_are_fed_back_then_every_engine_sees_its_own(
    which: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's labels are fed back to the session: of two almost as likely a rounding would choose."""
    settings, masks = AOTS[kind]
    model = tiny_aot(**settings)
    with torch.no_grad():
        model.decoder.conv_out.weight.div_(10)  # odds of 1e5 to 1 would hang on the last bits of a float
    depth, most = 1 if "depth 1" in kind else None, 3 if "at most" in kind else None
    bound: dict[str, Any] = (
        {} if most is None else dict(long_term=True, min_working_frames=1, max_working_frames=most)
    )
    with torch.inference_mode(), backend.use(which):
        model.depth = depth or 2
        published, fed, engines = aot(model, masks, 11, model.config.memory_every, most)
        session = Session(model, size=None, depth=depth, **bound)
        feed = session._fed_back

        def recorded(probabilities: Tensor, *size: int) -> Tensor:
            one_hot = F.one_hot(fed[session._step].long(), probabilities.shape[1]).permute(2, 0, 1)[None]
            return feed(one_hot.float(), *size)

        monkeypatch.setattr(session, "_fed_back", recorded)
        compare(session, published, masks)
    assert session.memory.layers[0]["frame"].unique().tolist() == [t for t, _ in engines[0].frames]
