"""Models that tell the objects of a pass apart by identities: passes, labels fed back, short-term memory, heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rotomem.engine.memory import MemoryBank, Store
from rotomem.engine.objects import ObjectRows
from rotomem.engine.options import MemorySettings
from rotomem.engine.session import Session
from rotomem.engine.shot import track
from rotomem.errors import MemoryStateError
from rotomem.models.aot import AOT
from rotomem.models.interface import Memorised, MemoryElements, MemoryPlan, Query
from rotomem.models.layers.aggregate import join_passes

from . import shots
from .toy import labels, picture, tiny_aot, tiny_model

FOUR = ((1, 2, 2, 18), (2, 2, 40, 18), (3, 28, 4, 16), (4, 28, 40, 16))
HEADS = MemoryPlan(
    key_dim=8,
    value_dim=12,
    similarity="dot",
    top_k=None,
    heads=4,
    keys_per_object=True,
    objects_per_pass=2,
    short_term=True,
)


def hear_masks(model: AOT) -> list[Tensor]:
    """Masks given to encode_mask from now on."""
    heard: list[Tensor] = []
    encode_mask = model.encode_mask

    def hear(image: Tensor, features: Any, masks: Tensor, *rest: Any, **options: Any) -> Memorised:
        heard.append(masks)
        return encode_mask(image, features, masks, *rest, **options)

    model.encode_mask = hear  # type: ignore[method-assign]
    return heard


def test_object_rows_when_objects_share_passes_then_identities_are_given_once() -> None:
    rows = ObjectRows(2)
    assert rows.add([7, 3, 9]) == (7, 3, 9) and rows.passes == 2
    assert rows.members(0) == ((0, 0), (1, 1)) and rows.members(1) == ((2, 0),)
    assert rows.remove(7) is None
    # the drawn frames of the first pass still show 7 under its identity, so 4 goes beside 9
    rows.add([4])
    assert rows.members(0) == ((0, 1),) and rows.members(1) == ((1, 0), (2, 1))
    assert rows.remove(3) == 0 and rows.passes == 1
    rows.add([5])
    assert rows.members(1) == ((2, 0),) and rows.ids == (9, 4, 5)


def test_passes_when_there_are_more_objects_than_one_holds_then_each_sees_its_own() -> None:
    """Of the frame after the key, where no pass has yet learned from the other's labels."""
    model = tiny_aot()
    with torch.no_grad():
        model.decoder.conv_out.weight.div_(10)  # odds of 1e5 to 1 would hang on the last bits of a float
    alone = []
    for pair in (FOUR[:2], FOUR[2:]):
        session = Session(model, size=None)
        session.step(picture(0), labels(*pair))
        alone.append(torch.from_numpy(session.step(picture(1)))[None])
    session = Session(model, size=None)
    session.step(picture(0), labels(*FOUR))
    got = session.step(picture(1))
    # a softmax gives back its probabilities when it is shown their logarithms
    want = join_passes([p.clamp(min=1e-30).log() for p in alone])[0].numpy()
    assert got.shape == (5, 48, 64) and np.allclose(got, want, atol=1e-4)
    assert session.memory.layers[0].buckets[0].objects == 2


def test_passes_when_objects_were_named_out_of_order_then_rows_follow_the_session() -> None:
    session = Session(tiny_aot(), size=None)
    session.step(picture(0), np.stack([labels(b) > 0 for b in FOUR[:3]]).astype(np.float32), objects=[8, 2, 5])
    session.remove(2)
    coverage = (labels(FOUR[3]) > 0).astype(np.float32)[None]
    drawn = session.step(picture(1), coverage, objects=[1])
    assert session.objects == (8, 5, 1)
    assert [session._rows.members(n) for n in range(2)] == [((0, 0),), ((1, 0), (2, 1))]
    assert (drawn[3][coverage[0] == 1] == 1).all()
    after = session.step(picture(2))
    assert after.shape == (4, 48, 64) and np.allclose(after.sum(0), 1, atol=1e-5)


def test_identity_when_its_object_was_removed_then_a_new_one_is_not_taken_for_it() -> None:
    session = Session(tiny_aot(), size=None)
    session.step(picture(0), labels(*FOUR[:2]))
    session.step(picture(1))
    session.remove(1)
    session.step(picture(2), labels((3, *FOUR[2][1:])))
    fresh = session.memory.layers[0].buckets
    assert [b.objects for b in fresh] == [1, 1]
    assert fresh[1].valid[: session.memory.size].sum() == 20  # of three frames' elements, those it was drawn on


def test_remove_when_a_pass_has_no_object_left_then_its_memory_goes() -> None:
    session = Session(tiny_aot(), size=None)
    session.step(picture(0), labels(*FOUR[:3]))
    session.step(picture(1))
    second = session.memory.latest(0).value[1:].clone()
    session.remove(1)
    session.remove(2)
    assert session.objects == (3,)
    assert torch.equal(session.memory.latest(0).value, second)
    assert [pool.buckets[0].objects for pool in session.memory.layers] == [1, 1]
    assert session.step(picture(2)).shape == (2, 48, 64)


def test_late_object_when_there_is_room_then_it_joins_the_pass_and_the_frame_is_a_reference() -> None:
    model = tiny_aot()
    heard = hear_masks(model)
    session = Session(model, size=None)
    session.step(picture(0), labels(FOUR[0]))
    found = session.step(picture(1))
    merged = torch.from_numpy(session.step(picture(2), labels(FOUR[1]))).argmax(0)
    assert (merged[torch.from_numpy(labels(FOUR[1]) > 0)] == 2).all() and (merged == 1).any()
    assert torch.equal(heard[2], model.framing.mask(torch.stack([merged == 1, merged == 2])[None].float()))
    assert [m.shape for m in heard] == [(1, 2, 49, 65)] * 3
    assert heard[1][0, 0].any() == (found.argmax(0) == 1).any() and not heard[1][0, 1].any()
    pool = session.memory.layers[0]
    assert set(pool["frame"][pool.of(Store.PERMANENT)].tolist()) == {0, 2}
    last = session.memory.latest(0)
    n = session.memory.size
    key, value = (x[0, n - 20 : n] for x in (pool.buckets[0].key, pool.buckets[0].value))
    assert torch.equal(key, last.key[0].flatten(1).T) and torch.equal(value, last.value[0, 0].flatten(1).T)


def test_labels_when_fed_back_then_they_are_the_argmax_of_what_was_delivered() -> None:
    model = tiny_aot()
    heard = hear_masks(model)
    session = Session(model, size=None)
    session.step(picture(0), labels(*FOUR[:2]))
    delivered = torch.from_numpy(session.step(picture(1))).argmax(0)
    want = model.framing.mask(torch.stack([delivered == 1, delivered == 2])[None].float())
    assert torch.equal(heard[1], want) and want.sum(1).max() == 1


def test_drawn_mask_when_soft_then_it_is_delivered_soft_and_remembered_hard() -> None:
    model = tiny_aot()
    heard = hear_masks(model)
    coverage = np.linspace(0, 1, 48 * 64, dtype=np.float32).reshape(1, 48, 64)
    delivered = Session(model, size=None).step(picture(0), coverage, objects=[1])
    assert np.allclose(delivered[1], coverage[0], atol=1e-6)
    assert set(heard[0].unique().tolist()) == {0, 1} and 0.45 < heard[0][:, 0].mean() < 0.55


def test_short_term_when_a_frame_is_no_memory_frame_then_it_is_latest_and_not_read() -> None:
    session = Session(tiny_aot(), size=None, mem_every=3)
    sizes, values = [], []
    for t in range(5):
        session.step(picture(t), labels(FOUR[0]) if t == 0 else None, last=t == 4)
        sizes.append(session.memory.size // 20)
        values.append(session.memory.latest(1).value)
    assert sizes == [1, 1, 1, 2, 2]
    assert len({id(value) for value in values}) == 4 and values[3] is values[4]


def test_latest_when_the_plan_does_not_say_short_term_then_asking_for_it_is_refused() -> None:
    session = Session(tiny_model(), size=None)
    session.step(picture(0), labels(FOUR[0]))
    with pytest.raises(MemoryStateError, match="short_term"):
        session.memory.latest(0)


def test_mem_every_when_none_then_only_drawn_frames_are_remembered() -> None:
    for session in (Session(tiny_aot(memory_every=None), size=None), Session(tiny_aot(), mem_every=None, size=None)):
        for t in range(9):
            session.step(picture(t), labels(FOUR[0]) if t in (0, 6) else None)
        assert session.memory.layers[0]["frame"].unique().tolist() == [0, 6]


@pytest.mark.parametrize("top_k", (None, 3))
def test_read_when_keys_have_heads_then_each_head_attends_for_itself(top_k: int | None) -> None:
    """Two passes, the second of which came a frame later, against float64."""
    g = torch.Generator().manual_seed(2)
    bank = MemoryBank(HEADS, MemorySettings(top_k=top_k), torch.device("cpu"))
    for step in range(3):
        if step < 2:
            bank.add_objects(1)
        passes = min(step + 1, 2)
        key, value = torch.randn(passes, 8, 2, 3, generator=g), torch.randn(passes, 1, 12, 2, 3, generator=g)
        bank.memorise((MemoryElements(key, value),), store=Store.WORKING, step=step)
    pool = bank.layers[0]
    for query in (torch.randn(2, 8, 2, 3, generator=g), torch.randn(1, 8, 2, 3, generator=g)):
        got = bank.read(Query(query))
        assert got.shape == (2, 1, 12, 2, 3)
        for row, start in enumerate((0, 1)):
            seen = pool["frame"] >= start
            keys, values = (
                x[0, : pool.size][seen].double() for x in (pool.buckets[row].key, pool.buckets[row].value)
            )
            asked = query[row if len(query) > 1 else 0].flatten(1).T.double()
            for head in range(4):
                own, its = slice(2 * head, 2 * head + 2), slice(3 * head, 3 * head + 3)
                scores = asked[:, own] @ keys[:, own].T / 2**0.5
                if top_k is not None:
                    least = scores.topk(top_k, 1).values[:, -1:]
                    scores = scores.masked_fill(scores < least, -torch.inf)
                want = (scores.softmax(1) @ values[:, its]).T
                assert torch.allclose(got[row, 0, its].flatten(1).double(), want, atol=1e-5)


def test_join_passes_when_two_disagree_then_background_is_their_product() -> None:
    g = torch.Generator().manual_seed(1)
    first, second = torch.randn(1, 4, 3, 3, generator=g), torch.randn(1, 3, 3, 3, generator=g)
    p, q = first.double().softmax(1), second.double().softmax(1)
    both = torch.cat([p[:, :1] * q[:, :1], p[:, 1:], q[:, 1:]], 1)
    odds = both / (1 - both)
    want = odds / odds.sum(1, keepdim=True)
    assert torch.allclose(join_passes([first, second]).double(), want, atol=1e-6)
    assert torch.equal(join_passes([first]), first.softmax(1))


def test_track_when_the_depth_changes_then_resume_redoes_what_another_depth_made(tmp_path: Path) -> None:
    pattern, keys = shots.plate(tmp_path / "plate", range(1001, 1005)), [shots.label_key(tmp_path, 1002)]
    options: dict[str, Any] = dict(model=tiny_aot(), size=32, mem_every=2)
    made = {}
    for depth in (None, 1):
        out = tmp_path / str(depth)
        assert track(pattern, keys, out, model_depth=depth, **options).frames_written == 4
        made[depth] = shots.digests(out)
    assert made[None] != made[1]
    out = tmp_path / "None"
    assert track(pattern, keys, out, model_depth=2, resume=True, **options).frames_kept == 4, "2 is all"
    assert track(pattern, keys, out, model_depth=1, resume=True, **options).frames_written == 4
    assert shots.digests(out) == made[1]
