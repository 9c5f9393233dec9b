"""A memory of fixed size in a session: what it holds, what is let go, what the model is told to decide by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rotomem.engine.memory import MemoryBank, Store
from rotomem.engine.options import MemorySettings
from rotomem.engine.session import Session
from rotomem.errors import UsageError
from rotomem.models.interface import HeldFrame, MemoryElements, Query
from rotomem.models.layers.slots import POLICIES
from rotomem.models.stremn import STReMN

from .toy import labels, picture, tiny_stm, tiny_stremn

BOX = labels((1, 4, 4, 12))


def held(session: Session) -> list[int]:
    steps: list[int] = session.memory.layers[0]["frame"].unique().tolist()
    return steps


def follow(session: Session, steps: int, masks: dict[int, Any] | None = None) -> list[np.ndarray]:
    masks = {0: BOX, **(masks or {})}
    return [session.step(picture(t), masks.get(t)) for t in range(steps)]


@pytest.mark.parametrize("policy", POLICIES)
def test_slots_when_a_shot_goes_on_then_their_number_is_constant_and_some_are_always_held(policy: str) -> None:
    session = Session(tiny_stremn(policy=policy), size=None)
    sizes = []
    for t in range(24):
        session.step(picture(t), BOX if t == 0 else None)
        now = held(session)
        assert {0, t} <= set(now)
        assert len(now) == (min(t + 1, 2) if policy == "first_and_last" else min(t + 1, 6))
        if policy == "learned" and t:
            assert t - 1 in now
        sizes.append(session.memory.nbytes)
    assert len(set(sizes[8:])) == 1


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("oldest", [0, 7, 8, 9, 10, 11]), ("newest", [0, 1, 2, 3, 10, 11]), ("first_and_last", [0, 11])],
)
def test_slots_when_a_rule_is_followed_then_it_is_the_ablations(policy: str, expected: list[int]) -> None:
    session = Session(tiny_stremn(policy=policy), size=None)
    follow(session, 12)
    assert held(session) == expected


def test_session_when_every_frame_finds_a_free_slot_then_it_is_one_with_unbounded_memory() -> None:
    few, many = (follow(Session(tiny_stremn(slots=n), size=None), 10) for n in (6, 50))
    assert all(np.array_equal(a, b) for a, b in zip(few[:7], many[:7], strict=True))
    assert not np.array_equal(few[9], many[9])


def test_session_when_slots_are_free_then_it_reads_what_stm_would_have_read() -> None:
    """The engine's memory with slots against STM's that grows, of the same templates."""
    model, stm = tiny_stremn(), tiny_stm()
    a = MemoryBank(model.plan, MemorySettings(top_k=None, long_term=False), torch.device("cpu"), model.choose_slot)
    b = MemoryBank(stm.plan, MemorySettings(top_k=None, long_term=False), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for bank in (a, b):
        bank.add_objects(2)
    for step in range(6):
        key, value = torch.randn(2, 1, 2, 16, 3, 4, generator=generator)
        elements = (MemoryElements(key, value, extra=torch.randn(1, 2, 17, 3, 4, generator=generator)),)
        for bank in (a, b):
            bank.memorise(elements, store=Store.WORKING if step else Store.PERMANENT, step=step)
    query = Query(torch.randn(1, 16, 3, 4, generator=generator))
    assert torch.equal(a.read(query), b.read(query))


def test_slots_when_frames_are_drawn_anywhere_then_each_stays_in_a_slot_of_its_own() -> None:
    session = Session(tiny_stremn(), size=None)
    follow(session, 30, {7: labels((1, 20, 20, 12)), 12: labels((2, 30, 40, 10))})
    assert {0, 7, 12, 29} <= set(held(session)) and len(held(session)) == 8
    bytes_then = session.memory.nbytes
    for t in range(30, 45):
        session.step(picture(t))
    assert session.memory.nbytes == bytes_then and {0, 7, 12} <= set(held(session))


def test_drawn_frame_when_read_back_then_it_is_as_drawn() -> None:
    session = Session(tiny_stremn(), size=None)
    mask = labels((1, 20, 20, 12))
    result = follow(session, 9, {8: mask})[8]
    assert result[1][mask == 1].min() > 0.99 and result[1][mask == 0].max() < 0.01


class Spy:
    """A model's choice with what it was told."""

    def __init__(self, model: STReMN) -> None:
        self.model, self.told = model, list[tuple[MemoryElements, int, list[HeldFrame], int]]()
        self.choose, self.encode, self.left = model.choose_slot, model.encode_mask, dict[int, Tensor]()
        model.choose_slot = self  # type: ignore[assignment]

    def __call__(self, arriving: MemoryElements, step: int, frames: Sequence[HeldFrame]) -> int:
        place = self.choose(arriving, step, frames)
        self.told.append((arriving, step, list(frames), place))
        return place


def test_model_when_asked_then_it_is_told_of_the_frames_that_may_go_and_its_choice_goes() -> None:
    model = tiny_stremn()
    spy = Spy(model)
    session = Session(model, size=None)
    before: list[int] = []
    for t in range(12):
        session.step(picture(t), BOX if t in (0, 4) else None)
        if spy.told and spy.told[-1][1] == t:
            _, _, frames, place = spy.told[-1]
            assert [f.step for f in frames] == [s for s in before if s not in (0, 4)]
            assert set(before) - set(held(session)) == {frames[place].step}
            assert place < len(frames) - 1
        before = held(session)
    assert len(spy.told) == 12 - 7


def test_model_when_objects_come_and_go_then_rows_of_held_frames_are_theirs() -> None:
    model = tiny_stremn(slots=3)
    left: dict[int, Tensor] = {}
    encode_mask = model.encode_mask

    def listen(*args: Any, **options: Any) -> Any:
        memorised = encode_mask(*args, **options)
        extra = memorised.elements[0].extra
        assert extra is not None
        left[session._step] = extra
        return memorised

    model.encode_mask = listen  # type: ignore[method-assign]
    spy = Spy(model)
    session = Session(model, size=None)
    follow(session, 5, {3: labels((2, 30, 40, 10), (3, 8, 40, 10))})
    _, _, frames, _ = spy.told[-1]  # step 4, before which 1 and 2 saw one object
    assert [(f.step, f.seen.tolist()) for f in frames] == [(1, [1, 0, 0]), (2, [1, 0, 0])]
    session.step(picture(5))
    session.remove(2)
    session.step(picture(6))
    _, _, frames, _ = spy.told[-1]
    for f in frames:
        assert f.extra is not None and f.seen.shape == (2,)
        if f.step < 3:
            assert f.seen.tolist() == [True, False] and torch.equal(f.extra[:, :1], left[f.step])
        else:
            assert f.seen.all() and torch.equal(f.extra, left[f.step][:, [0, 2]])
    session.remove(1)
    for t in range(7, 12):
        assert session.step(picture(t)).shape[0] == 2
    assert held(session)[0] == 3 and len(held(session)) == 3


def test_slots_when_only_some_frames_are_memorised_then_the_latest_gives_way_to_the_next() -> None:
    session = Session(tiny_stremn(policy="oldest"), size=None, mem_every=3)
    follow(session, 24)
    assert held(session) == [0, 12, 15, 18, 21, 23]


def test_session_when_stepped_twice_then_chance_is_the_same() -> None:
    runs = [follow(Session(tiny_stremn(policy="random_drop"), size=None), 14) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))
    others = [Session(tiny_stremn(policy="random_drop", seed=s), size=None) for s in (0, 1)]
    for session in others:
        follow(session, 14)
    assert held(others[0]) != held(others[1])


def test_far_regions_when_the_model_shall_drop_them_then_a_session_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_stremn(reach=0.1)
    stripes = torch.full((1, 1, 2, 48, 48), -6.0)
    stripes[:, :, 0] = 6.0
    for top in (2, 40):
        stripes[..., top : top + 6, 4:12] = torch.tensor([-6.0, 6.0]).view(2, 1, 1)
    monkeypatch.setattr(model.decoder, "forward", lambda features, readout: stripes)
    session = Session(model, size=None)
    session.step(picture(0, 192, 192), labels((1, 8, 16, 24), height=192, width=192))
    result = session.step(picture(1, 192, 192))
    assert result[1, 20, 30] > 0.99 and result[1, 172, 30] < 1e-3
    model.config.__dict__["reach"] = None
    assert session.step(picture(2, 192, 192))[1, 172, 30] > 0.99


def test_bank_when_nobody_chooses_then_slots_are_refused() -> None:
    with pytest.raises(UsageError, match="slots"):
        MemoryBank(tiny_stremn().plan, MemorySettings(), torch.device("cpu"))
