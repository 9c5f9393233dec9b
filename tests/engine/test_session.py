"""The session: objects that come and go, sizes of every kind, exactness, bounds, errors."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotomem.engine.memory import Store
from rotomem.engine.session import Session
from rotomem.errors import EmptyMemoryError, MemoryStateError, ShapeError, UsageError

from .toy import labels, picture, tiny_model

SMALL = dict(mem_every=1, top_k=4, min_working_frames=2, max_working_frames=4, prototypes=6, max_long_term=20)


def test_step_when_no_mask_was_seen_then_empty_memory_error() -> None:
    session = Session(tiny_model(), size=None)
    with pytest.raises(EmptyMemoryError, match="no mask"):
        session.step(picture(0))
    with pytest.raises(EmptyMemoryError, match="shows no object"):
        session.step(picture(0), labels())


def test_step_when_two_objects_then_rows_follow_first_appearance() -> None:
    session = Session(tiny_model(), size=None, **SMALL)
    first = session.step(picture(0), labels((7, 4, 4, 12)))
    assert session.objects == (7,)
    assert first.shape == (2, 48, 64) and first.dtype == np.float32
    second = session.step(picture(1), labels((3, 20, 30, 12)))
    assert session.objects == (7, 3)
    assert second.shape == (3, 48, 64)
    assert second[2, 25, 35] > 0.99
    third = session.step(picture(2))
    assert np.allclose(third.sum(0), 1, atol=1e-5)


def test_step_when_a_mask_speaks_for_all_then_it_comes_back_exactly() -> None:
    session = Session(tiny_model(), size=None, **SMALL)
    mask = labels((1, 4, 4, 12), (2, 20, 20, 12))
    session.step(picture(0), mask)
    session.step(picture(1))
    again = labels((1, 8, 8, 12), (2, 24, 24, 12))
    result = session.step(picture(2), again)
    assert np.array_equal(result.argmax(0), again)


def test_step_when_an_object_is_spoken_for_without_a_pixel_then_it_is_absent() -> None:
    session = Session(tiny_model(), size=None, **SMALL)
    session.step(picture(0), labels((1, 4, 4, 12), (2, 20, 20, 12)))
    result = session.step(picture(1), labels((1, 4, 4, 12)), objects=[1, 2])
    assert result[2].max() < 1e-3
    result = session.step(picture(2), labels((1, 4, 4, 12)))
    assert result[2].max() > 1e-3, "an object that is not spoken for is segmented"


def test_step_when_coverage_is_soft_then_it_is_kept() -> None:
    session = Session(tiny_model(), size=None)
    soft = np.full((1, 48, 64), 0.25, np.float32)
    result = session.step(picture(0), soft, objects=[5])
    odds = 0.25 / 0.75
    assert np.allclose(result[1], odds / (odds + 0.75 / 0.25), atol=1e-5), "aggregation of STM's supplement"


@pytest.mark.parametrize("late", (1, 3, 5, 8))
def test_memory_when_an_object_comes_late_then_its_values_stay_with_their_keys(late: int) -> None:
    """Whatever was consolidated or forgotten: what an element holds for an object is what was memorised there."""
    model = tiny_model()
    session = Session(model, size=None, **SMALL)
    seen: dict[int, dict[str, torch.Tensor]] = {}
    encode_mask = model.encode_mask

    def spy(image, features, masks, *rest, **options):  # type: ignore[no-untyped-def]
        memorised = encode_mask(image, features, masks, *rest, **options)
        element = memorised.elements[0]
        seen[session._step] = {
            "key": element.key[0].flatten(1).T,
            "value": element.value[0].flatten(2).transpose(1, 2),
        }
        return memorised

    model.encode_mask = spy  # type: ignore[method-assign]
    for t in range(14):
        mask = labels((1, 4, 4, 12)) if t == 0 else labels((2, 20, 30, 16)) if t == late else None
        session.step(picture(t), mask)
        pool = session.memory.layers[0]
        for row in range(len(session.objects)):
            bucket = pool.buckets[row]
            valid = bucket.valid[: pool.size]
            frames = pool["frame"]
            start = 0 if row == 0 else late
            assert not bool(valid[(frames >= 0) & (frames < start)].any()), "it has not seen those frames"
            assert bool(valid[frames >= start].all())
            for f in frames[frames >= start].unique().tolist():
                at = frames == f
                assert torch.equal(pool["key"][at], seen[f]["key"])
                assert torch.equal(bucket.value[0, : pool.size][at], seen[f]["value"][row])
        if t > late:
            assert {0, late} <= set(pool["frame"][pool.of(Store.PERMANENT)].tolist()), "drawn frames stay for good"


def test_late_object_when_it_reads_then_only_what_it_has_seen_counts() -> None:
    """A late object's readout equals that of a bank which never held the earlier frames."""
    model = tiny_model()
    session = Session(model, size=None, mem_every=1, top_k=None, long_term=False)
    for t in range(6):
        mask = labels((1, 4, 4, 12)) if t == 0 else labels((2, 20, 30, 16)) if t == 3 else None
        session.step(picture(t), mask)
    pool = session.memory.layers[0]
    features = model.encode_frame(torch.from_numpy(picture(6)).permute(2, 0, 1)[None])
    from rotomem.models.interface import Query

    with torch.inference_mode():
        readout = session.memory.read(Query(features.key, features.selection))[0, 1].flatten(1)
        since = pool["frame"] >= 3
        k, s = pool["key"][since].double(), pool["shrinkage"][since].double()
        q, e = features.key[0].flatten(1).double(), features.selection[0].flatten(1).double()
        score = -((k[:, :, None] - q[None]) ** 2 * e[None]).sum(1) * s[:, None] / 16**0.5
        expected = torch.einsum("nc,np->cp", pool.buckets[1].value[0][: pool.size][since].double(), score.softmax(0))
    assert torch.allclose(readout.double(), expected, atol=1e-4)


def test_remove_when_the_first_object_goes_then_rows_close_up() -> None:
    session = Session(tiny_model(), size=None, **SMALL)
    session.step(picture(0), labels((1, 4, 4, 12)))
    session.step(picture(1))
    session.step(picture(2), labels((2, 20, 30, 16)))
    for t in range(3, 9):
        session.step(picture(t))
    session.remove(1)
    assert session.objects == (2,)
    pool = session.memory.layers[0]
    assert len(pool.buckets) == 1 and bool(pool.buckets[0].valid[: pool.size].all())
    for t in range(9, 16):
        result = session.step(picture(t))
        assert result.shape == (2, 48, 64) and np.isfinite(result).all()
    with pytest.raises(MemoryStateError, match="removed"):
        session.step(picture(16), labels((1, 4, 4, 12)))
    assert session.objects == (2,), "a refused mask changes nothing"
    with pytest.raises(MemoryStateError, match="no object 9"):
        session.remove(9)


def test_remove_when_no_object_is_left_then_a_new_one_can_start() -> None:
    session = Session(tiny_model(), size=None, **SMALL)
    session.step(picture(0), labels((1, 4, 4, 12)))
    session.remove(1)
    nothing = session.step(picture(1))
    assert nothing.shape == (1, 48, 64) and (nothing == 1).all(), "all is background"
    assert session.step(picture(2), labels((2, 4, 4, 12))).shape == (2, 48, 64)
    assert session.step(picture(3)).shape == (2, 48, 64)


@settings(max_examples=25, deadline=None)
@given(
    mem_every=st.integers(1, 3),
    low=st.integers(1, 4),
    more=st.integers(1, 3),
    prototypes=st.sampled_from([1, 5, 12, 40]),
    times=st.integers(1, 4),
    top_k=st.sampled_from([1, 7, 500, None]),
    deep=st.sampled_from([-1, 1, 4]),
)
def test_session_when_sizes_are_legal_then_it_runs_and_stays_bounded(
    mem_every: int, low: int, more: int, prototypes: int, times: int, top_k: int | None, deep: int
) -> None:
    """Includes long-term sizes that are multiples of the prototypes, one working frame, top_k above the bank."""
    session = Session(
        tiny_model(),
        size=None,
        mem_every=mem_every,
        top_k=top_k,
        min_working_frames=low,
        max_working_frames=low + more,
        prototypes=prototypes,
        max_long_term=prototypes * times,
        deep_update_every=deep,
    )
    for t in range(18):
        result = session.step(picture(t), labels((1, 4, 4, 12)) if t == 0 else None)
        assert np.isfinite(result).all()
        pool = session.memory.layers[0]
        assert int(pool.of(Store.LONG_TERM).sum()) <= prototypes * times
        assert int((~pool.of(Store.LONG_TERM)).sum()) <= (low + more) * 12


@pytest.mark.parametrize(
    "wrong",
    (
        dict(min_working_frames=0),
        dict(min_working_frames=5, max_working_frames=5),
        dict(prototypes=10, max_long_term=9),
        dict(mem_every=0),
        dict(top_k=0),
        dict(size=8),
    ),
)
def test_session_when_sizes_are_illegal_then_usage_error_names_them(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Session(tiny_model(), **wrong)  # type: ignore[arg-type]


def test_memory_when_the_shot_is_long_then_its_bytes_are_constant() -> None:
    session = Session(tiny_model(), size=None, **SMALL)
    sizes = []
    for t in range(120):
        session.step(picture(t), labels((1, 4, 4, 12)) if t == 0 else None)
        sizes.append(session.memory.nbytes)
    assert sizes[40] == sizes[-1]


def test_two_sessions_when_stepped_alike_then_bytes_are_equal() -> None:
    runs = []
    for _ in range(2):
        session = Session(tiny_model(), size=None, **SMALL)
        runs.append([session.step(picture(t), labels((1, 4, 4, 12)) if t == 0 else None) for t in range(12)])
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))


def test_step_when_keys_are_far_then_no_nan() -> None:
    """Similarities below -104 underflow without max subtraction (defect of the published code)."""
    model = tiny_model()
    with torch.no_grad():
        model.key_proj.key_proj.weight.mul_(100)
    session = Session(model, size=None, **SMALL)
    for t in range(8):
        result = session.step(picture(t * 7), labels((1, 4, 4, 12)) if t == 0 else None)
        assert np.isfinite(result).all()


@pytest.mark.parametrize("height, width, size", ((50, 70, None), (96, 160, 48), (131, 77, 64), (17, 300, None)))
def test_step_when_the_picture_has_any_size_then_the_answer_has_it_too(
    height: int, width: int, size: int | None
) -> None:
    session = Session(tiny_model(), size=size, **SMALL)
    mask = np.zeros((height, width), np.uint8)
    mask[3 : height // 2, 5 : width // 2] = 1
    for t in range(3):
        result = session.step(picture(t, height, width), mask if t == 0 else None)
        assert result.shape == (2, height, width)
        assert np.allclose(result.sum(0), 1, atol=1e-5)


def test_step_when_last_then_nothing_is_memorised() -> None:
    session = Session(tiny_model(), size=None, **SMALL)
    session.step(picture(0), labels((1, 4, 4, 12)))
    before = session.memory.size
    sensory = session._sensory
    session.step(picture(1), last=True)
    assert session.memory.size == before
    assert session._sensory is sensory
    with pytest.raises(MemoryStateError, match="last frame"):
        session.step(picture(2))


def test_step_when_arguments_are_wrong_then_the_error_names_them() -> None:
    session = Session(tiny_model(), size=None, **SMALL)
    good = labels((1, 4, 4, 12))
    for image, mask, objects, text in (
        (picture(0)[:, :, :2], good, None, "image is"),
        ((picture(0) * 255).astype(np.uint8), good, None, "expected float32"),
        (picture(0), good[:40], None, "mask is"),
        (picture(0), good.astype(np.float32), None, "uint8 label map"),
        (picture(0), np.zeros((2, 48, 64), np.float32), [1], "one object id per row"),
        (picture(0), np.full((1, 48, 64), 2, np.float32), [1], "0..1"),
        (picture(0), np.full((1, 48, 64), np.nan, np.float32), [1], "0..1"),
        (np.where(np.arange(64)[None, :, None] == 9, np.nan, picture(0)), good, None, "NaN"),
        (np.where(np.arange(64)[None, :, None] == 9, np.inf, picture(0)), good, None, "infinity"),
        (None, good, None, "expected numbers"),
    ):
        with pytest.raises(ShapeError, match=text):
            session.step(image, mask, objects=objects)
    for objects in ([2], [1, 1], [0, 1]):
        with pytest.raises(UsageError):
            session.step(picture(0), good, objects=objects)
    with pytest.raises(UsageError, match="1 or more"):
        session.step(picture(0), -good.astype(np.int16))
    session.step(picture(0), good)
    with pytest.raises(ShapeError, match=r"64x40.*64x48"):
        session.step(picture(1)[:40])
    assert session.step(picture(1)).shape == (2, 48, 64), "refused calls leave the session as it was"


@pytest.mark.parametrize("dtype", (np.uint8, np.uint16, np.uint32, np.int64, ">u2", bool))
def test_step_when_arrays_are_flipped_or_of_other_types_then_the_same_comes_out(dtype: object) -> None:
    mask = labels((1, 4, 4, 12))
    expected = Session(tiny_model(), size=None).step(picture(0), mask)
    image, given = picture(0)[::-1].astype(">f4"), mask[::-1].astype(dtype)
    image.flags.writeable = False
    result = Session(tiny_model(), size=None).step(image[::-1], given[::-1], objects=1)
    assert np.array_equal(result, expected)


def test_prototypes_when_an_object_came_late_then_they_mix_what_it_has_seen_and_nothing_else() -> None:
    """Every prototype of every object, recomputed in float64 from what was memorised on each frame."""
    model = tiny_model()
    session = Session(model, size=None, **{**SMALL, "max_long_term": 1000})
    memorised: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = {}
    encode_mask = model.encode_mask

    def spy(image, features, masks, *rest, **options):  # type: ignore[no-untyped-def]
        result = encode_mask(image, features, masks, *rest, **options)
        e = result.elements[0]
        memorised[session._step] = (
            e.key[0].flatten(1).T.double(),
            e.shrinkage[0].flatten(1)[0].double(),
            e.selection[0].flatten(1).T.double(),
            e.value[0].flatten(2).transpose(1, 2).double(),
        )
        return result

    model.encode_mask = spy  # type: ignore[method-assign]
    late, checked = 2, 0
    for t in range(12):
        pool = session.memory.layers[0]
        working = set(pool["frame"][pool.of(Store.WORKING)].tolist()) | {t}
        known = int(pool.of(Store.LONG_TERM).sum())
        mask = labels((1, 4, 4, 12)) if t == 0 else labels((2, 20, 30, 16), (3, 4, 44, 12)) if t == late else None
        session.step(picture(t), mask)
        if int(pool.of(Store.LONG_TERM).sum()) == known:
            continue
        left = set(pool["frame"][pool.of(Store.WORKING)].tolist())
        frames = sorted(working - left - {0, late})
        key, shrinkage, selection = (torch.cat([memorised[f][i] for f in frames]) for i in range(3))
        owner = torch.cat([torch.full((len(memorised[f][0]),), f) for f in frames])
        made = pool.of(Store.LONG_TERM).nonzero()[known:, 0]
        for n in made.tolist():
            prototype = pool["key"][n].double()
            source = int((key - prototype).abs().sum(1).argmin())
            assert torch.equal(key[source].float(), pool["key"][n])
            score = -shrinkage * ((key - prototype) ** 2 * selection[source]).sum(1) / 16**0.5
            for row, start in enumerate((0, late, late)):
                bucket = pool.buckets[min(row, 1)]
                inside = max(row - 1, 0)
                seen = owner >= start
                assert bool(bucket.valid[n]) == bool(seen[source])
                if not bool(seen[source]):
                    continue
                weight = score[seen].softmax(0)
                held = torch.cat([memorised[f][3][row] for f in frames if f >= start])
                assert torch.allclose(bucket.value[inside, n].double(), weight @ held, atol=1e-4)
                checked += 1
    assert checked > 30
    assert any(not bool(pool.buckets[1].valid[n]) for n in range(pool.size)), "some prototypes are older than it"


def test_remove_when_three_objects_came_together_then_the_others_keep_their_own() -> None:
    session = Session(tiny_model(), size=None, **SMALL)
    session.step(picture(0), labels((1, 2, 2, 12), (2, 20, 20, 12), (3, 30, 44, 12)))
    for t in range(1, 7):
        session.step(picture(t))
    pool = session.memory.layers[0]
    value, sensory = pool.buckets[0].value[:, : pool.size].clone(), session._sensory
    assert sensory is not None
    session.remove(2)
    assert session.objects == (1, 3)
    assert torch.equal(pool.buckets[0].value[:, : pool.size], value[[0, 2]])
    assert session._sensory is not None and torch.equal(session._sensory, sensory[:, [0, 2]])


def test_usage_when_a_late_object_reads_then_only_the_oldest_objects_count() -> None:
    session = Session(tiny_model(), size=None, mem_every=100, top_k=None)
    session.step(picture(0), labels((1, 4, 4, 12)))
    session.step(picture(1), labels((2, 20, 30, 16)))
    pool = session.memory.layers[0]
    before = pool["use"].clone()
    session.step(picture(2))
    spent = pool["use"] - before
    assert float(spent.sum()) == pytest.approx(12, abs=1e-3), "every position spends its attention once"
    assert float(spent[pool["frame"] == 0].sum()) > 1e-3, "the old frame, which the late object cannot see"
    assert torch.allclose(pool["life"], torch.where(pool["frame"] == 0, 2.0, 1.0), atol=1e-5)


def test_memory_when_full_then_the_least_used_prototypes_go() -> None:
    session = Session(tiny_model(), size=None, **SMALL)
    pool = session.memory.layers[0]
    for t in range(30):
        at = pool.of(Store.LONG_TERM)
        usage, keys = pool.usage()[at].clone(), pool["key"][at].clone()
        session.step(picture(t), labels((1, 4, 4, 12)) if t == 0 else None)
        kept = pool["key"][pool.of(Store.LONG_TERM)]
        gone = torch.tensor([not bool((kept == k).all(1).any()) for k in keys], dtype=torch.bool)
        if gone.any() and (~gone).any():
            # The frame's own read comes before forgetting and may lift some; none that left was used more than all.
            assert usage[gone].min() <= usage[~gone].min()
            return
    pytest.fail("nothing was ever forgotten")


def test_mem_every_when_three_then_every_third_frame_is_memorised() -> None:
    session = Session(tiny_model(), size=None, mem_every=3, long_term=False)
    for t in range(8):
        session.step(picture(t), labels((1, 4, 4, 12)) if t == 0 else None)
    assert session.memory.layers[0]["frame"].unique().tolist() == [0, 3, 6]


def test_deep_update_when_every_fourth_frame_then_the_decoder_updates_in_between() -> None:
    """Asynchronous mode: the decoder updates on every frame, the deep update comes on memory frames that are due."""
    model = tiny_model()
    deep: list[int] = []
    session = Session(model, size=None, mem_every=2, deep_update_every=4)
    reinforce = model.value_encoder.hidden_reinforce
    assert reinforce is not None
    reinforce.register_forward_hook(lambda *_: deep.append(session._step))
    states = []
    for t in range(10):
        session.step(picture(t), labels((1, 4, 4, 12)) if t == 0 else None)
        states.append(session._sensory)
    assert deep == [4, 8]
    assert all(not torch.equal(a, b) for a, b in pairwise(states[1:]))


def test_merge_when_a_drawn_object_covers_another_then_it_hides_it() -> None:
    session = Session(tiny_model(), size=None, **SMALL)
    session.step(picture(0), labels((1, 4, 4, 40)))
    result = session.step(picture(1), labels((2, 8, 8, 24)))
    assert result[1, 10:30, 10:30].max() < 1e-3 < result[1].max()


@pytest.mark.parametrize("declared", (dict(slots=6, layers=2), dict(heads=8)))
def test_session_when_a_plan_declares_what_no_bank_keeps_then_it_is_refused(declared: dict[str, object]) -> None:
    model = tiny_model()
    model.plan = replace(model.plan, **declared)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=next(iter(declared))):
        Session(model)


def test_timings_when_stepped_then_every_stage_is_counted() -> None:
    session = Session(tiny_model(), size=None, **SMALL)
    for t in range(3):
        session.step(picture(t), labels((1, 4, 4, 12)) if t == 0 else None)
    assert set(session.timings) == {"encode_frame", "memory_read", "decode", "encode_mask", "memorise"}
    assert all(seconds > 0 for seconds in session.timings.values())


def test_remember_when_it_cannot_be_then_state_errors() -> None:
    session = Session(tiny_model(), size=None, **SMALL)
    session.remember(picture(5), labels((1, 4, 4, 12), (2, 20, 20, 12)))
    with pytest.raises(MemoryStateError, match="says nothing of object 2"):
        session.remember(picture(6), labels((1, 4, 4, 12)))
    with pytest.raises(EmptyMemoryError, match="shows no object"):
        session.remember(picture(6), labels())
    with pytest.raises(UsageError, match="object 1 is absent and has a mask"):
        session.step(picture(0), labels((1, 4, 4, 12)), absent=[1])
    session.step(picture(0), labels((1, 4, 4, 12)))
    with pytest.raises(MemoryStateError, match="has begun"):
        session.remember(picture(6), labels((1, 4, 4, 12), (2, 20, 20, 12)))
