"""What the engine promises holds for every model, whatever its keys, its feedback and its bounds are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rotomem.engine.memory import Store
from rotomem.engine.session import Session
from rotomem.errors import UsageError
from rotomem.models.interface import MemoryElements, Query
from rotomem.ops import backend

from .sixth import Sixth
from .toy import MODELS, labels, picture, tiny_model, tiny_stcn, tiny_stm

BOUNDED: dict[str, Any] = dict(
    mem_every=1, min_working_frames=2, max_working_frames=4, prototypes=6, max_long_term=12, long_term=True
)


def run(session: Session, steps: int) -> list[np.ndarray]:
    """One object from the start, a second on step 3."""
    masks = {0: labels((1, 4, 4, 12)), 3: labels((2, 20, 30, 16))}
    return [session.step(picture(t), masks.get(t)) for t in range(steps)]


@pytest.mark.parametrize("name", MODELS)
def test_session_when_objects_come_and_go_then_every_model_follows(name: str) -> None:
    session = Session(MODELS[name](), size=None, **BOUNDED)
    results = run(session, 8)
    assert [r.shape[0] for r in results] == [2, 2, 2, 3, 3, 3, 3, 3]
    assert all(np.isfinite(r).all() and np.allclose(r.sum(0), 1, atol=1e-5) for r in results)
    assert results[3][2, 25, 35] > 0.99
    session.remove(1)
    for t in range(8, 12):
        assert session.step(picture(t)).shape == (2, 48, 64)
    assert session.step(picture(12), labels((5, 4, 4, 12))).shape == (3, 48, 64)


@pytest.mark.parametrize("name", MODELS)
def test_memory_when_bounded_then_its_bytes_are_constant_and_drawn_frames_stay(name: str) -> None:
    session = Session(MODELS[name](), size=None, **BOUNDED)
    run(session, 20)
    held = session.memory.nbytes, session.memory.size
    for t in range(20, 60):
        session.step(picture(t))
    assert session.memory.nbytes == held[0] and session.memory.size <= held[1] + 5 * 12
    pool = session.memory.layers[0]
    assert set(pool["frame"][pool.of(Store.PERMANENT)].tolist()) == {0, 3}
    assert pool["frame"][pool.of(Store.WORKING)].unique().numel() <= 3


@pytest.mark.parametrize("name, frames", (("stcn", 12), ("stm", 12)))
def test_memory_when_sizes_are_left_to_the_model_then_it_grows_as_published(name: str, frames: int) -> None:
    session = Session(MODELS[name](), size=None, mem_every=1)
    run(session, frames)
    assert session.memory.layers[0]["frame"].unique().tolist() == list(range(frames))


@pytest.mark.parametrize("name", ("stcn", "stm", "aost", "sixth"))
def test_memory_when_it_would_outgrow_its_limit_then_frames_are_kept_less_often(name: str) -> None:
    free = Session(MODELS[name](), size=None, mem_every=1, long_term=False, memory_gib=None)
    run(free, 6)
    limit = free.memory.filled_bytes / 2**30  # of the two drawn frames and four others
    session = Session(MODELS[name](), size=None, mem_every=1, long_term=False, memory_gib=limit)
    run(session, 40)
    pool = session.memory.layers[0]
    kept = pool["frame"][pool.of(Store.WORKING)].unique()
    assert 0 < session.memory.filled_bytes <= limit * 2**30
    assert set(pool["frame"][pool.of(Store.PERMANENT)].tolist()) == {0, 3}
    assert len(kept) >= 2 and session.memory.spacing >= 8
    assert (kept.diff() >= session.memory.spacing).all() and kept[-1] >= 39 - session.memory.spacing
    again = Session(MODELS[name](), size=None, mem_every=1, long_term=False, memory_gib=limit)
    run(again, 40)
    assert np.array_equal(again.step(picture(40)), session.step(picture(40)))


def test_memory_when_drawn_frames_alone_are_beyond_the_limit_then_all_of_them_stay() -> None:
    session = Session(tiny_stm(), size=None, memory_gib=1e-6)
    for t in range(9):
        session.step(picture(t), labels((1, 4, 4, 12)) if t % 2 == 0 else None)
    pool = session.memory.layers[0]
    assert set(pool["frame"][pool.of(Store.PERMANENT)].tolist()) == {0, 2, 4, 6, 8}


@pytest.mark.parametrize("name", MODELS)
def test_two_sessions_when_stepped_alike_then_bytes_are_equal(name: str) -> None:
    runs = [run(Session(MODELS[name](), size=None, **BOUNDED), 9) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("which", backend.available())
def test_late_object_when_keys_are_per_object_then_it_reads_what_it_has_seen(which: str) -> None:
    """Against a softmax over the object's own elements, in float64."""
    session = Session(tiny_stm(), size=None, mem_every=1)
    run(session, 6)
    pool = session.memory.layers[0]
    query = torch.randn(1, 16, 3, 4, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), backend.use(which):
        readout = session.memory.read(Query(query))[0].flatten(2)
    for row, start in enumerate((0, 3)):
        seen = pool["frame"] >= start
        key, value = (x[0, : pool.size][seen].double() for x in (pool.buckets[row].key, pool.buckets[row].value))
        weights = (key @ query[0].flatten(1).double() / 16**0.5).softmax(0)
        assert torch.allclose(readout[row].double(), value.T @ weights, atol=1e-5)


def test_memory_when_rows_go_and_frames_are_dropped_then_own_keys_stay_with_their_values() -> None:
    model = tiny_stm()
    session = Session(model, size=None, **BOUNDED)
    left: dict[int, MemoryElements] = {}
    encode_mask = model.encode_mask

    def spy(*args: Any, **options: Any) -> Any:
        memorised = encode_mask(*args, **options)
        left[session._step] = memorised.elements[0]
        return memorised

    model.encode_mask = spy  # type: ignore[method-assign]
    run(session, 9)
    session.remove(1)
    session.step(picture(9))
    pool = session.memory.layers[0]
    (bucket,) = pool.buckets
    for frame in pool["frame"].unique().tolist():
        at = pool["frame"] == frame
        row = 0 if frame == 9 else 1
        assert torch.equal(bucket.key[0, : pool.size][at], left[frame].key[0, row].flatten(1).T)
        assert torch.equal(bucket.value[0, : pool.size][at], left[frame].value[0, row].flatten(1).T)
    assert pool["frame"].unique().tolist() == [3, 7, 8, 9]


@pytest.mark.parametrize("name", MODELS)
def test_include_last_when_on_then_the_previous_frame_gives_way_to_the_next(name: str) -> None:
    session = Session(MODELS[name](), size=None, mem_every=3, include_last=True)
    held = []
    for t in range(6):
        session.step(picture(t), labels((1, 4, 4, 12)) if t == 0 else None)
        held.append(session.memory.layers[0]["frame"].unique().tolist())
    assert held == [[0], [0, 1], [0, 2], [0, 3], [0, 3, 4], [0, 3, 5]]


def test_session_when_nothing_is_said_then_the_models_own_settings_hold() -> None:
    for model, top_k, last, bounded in (
        (tiny_model(), 30, False, True),
        (tiny_stcn(), 20, False, False),
        (tiny_stm(), None, True, False),
    ):
        settings = Session(model).settings
        assert (settings.top_k, settings.include_last, settings.long_term) == (top_k, last, bounded)
    assert Session(tiny_model(), top_k=30).settings == Session(tiny_model()).settings
    assert Session(tiny_stm(), top_k=7, include_last=False).settings.top_k == 7


@pytest.mark.parametrize("name", MODELS)
def test_remember_when_a_frame_was_drawn_elsewhere_then_it_stays_and_what_follows_learns_from_it(name: str) -> None:
    def told(*beforehand: int, steps: int = 2) -> tuple[list[np.ndarray], Session]:
        session = Session(MODELS[name](), size=None, **BOUNDED)
        for t in beforehand:
            session.remember(picture(t), labels((1, 10, 30, 12)), objects=[1, 2])
        first = session.step(picture(0), labels((1, 4, 4, 12), (2, 30, 40, 14)))
        return [first, *(session.step(picture(t)) for t in range(1, steps))], session

    with_key, session = told(40, 50, steps=9)
    without, _ = told()
    assert np.array_equal(with_key[0].argmax(0), without[0].argmax(0)), "a drawn frame is as drawn"
    assert not np.array_equal(with_key[1], without[1])
    assert np.array_equal(with_key[1], told(40, 50)[0][1])
    assert not np.array_equal(with_key[1], told(50)[0][1]), "each frame remembered has its say"
    pool = session.memory.layers[0]
    kept = pool["frame"][pool.of(Store.PERMANENT)].unique().tolist()
    assert kept == [-3, -2, 0], "neither consolidated nor forgotten"


@pytest.mark.parametrize("name", MODELS)
def test_step_when_an_object_is_absent_then_nowhere_and_others_do_not_grow(name: str) -> None:
    session, other = (Session(MODELS[name](), size=None, **BOUNDED) for _ in range(2))
    for s in (session, other):
        s.step(picture(0), labels((1, 4, 4, 12), (2, 30, 40, 14)))
    gone, there = session.step(picture(1), absent=[2, 9]), other.step(picture(1))
    assert not gone[2].any() and there[2].any()
    assert np.array_equal(gone[1], there[1]) and np.allclose(gone[0], there[0] + there[2], atol=1e-6)
    assert session.step(picture(2)).shape == (3, 48, 64) and session.objects == (1, 2)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "sixth"])
def test_shift_when_the_window_moves_then_what_has_a_place_moves_along(name: str) -> None:
    session = Session(MODELS[name](), size=None, **BOUNDED)
    run(session, 5)

    def placed() -> list[torch.Tensor]:
        maps = [] if session._sensory is None else [session._sensory]
        return maps + [m for e in session.memory._latest if e is not None for m in (e.key, e.value)]

    before, size = placed(), session.memory.size
    assert bool(before) == (name in ("xmem", "aost", "stremn"))
    session.shift(1, -2)
    for old, new in zip(before, placed(), strict=True):
        assert torch.equal(new[..., :-1, 2:], old[..., 1:, :-2])
        assert not new[..., -1, :].any() and not new[..., :2].any()
    assert session.memory.size == size
    assert np.isfinite(session.step(picture(5))).all()


def test_shift_when_the_window_leaves_everything_behind_then_nothing_is_known_by_place() -> None:
    session = Session(tiny_model(), size=None, **BOUNDED)
    run(session, 5)
    session.shift(0, 40)
    assert session._sensory is not None and not session._sensory.any()


def test_shift_when_the_keys_themselves_hold_places_then_refused() -> None:
    session = Session(Sixth(), size=None, **BOUNDED)
    run(session, 2)
    with pytest.raises(UsageError, match="cannot follow"):
        session.shift(0, 1)
