"""Stored segments: equal bytes, whole or not there, damaged ones told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rotomem.engine.store import SegmentStore, StoredFrame, digest
from rotomem.errors import InputError, OutputError
from rotomem.types import Window

WINDOW = Window(-2, 0, 10, 8)


def frame(number: int, seed: int = 0) -> StoredFrame:
    rng = np.random.default_rng(seed)
    blob = np.zeros((8, 12), np.float32)
    blob[2:5, 3:9] = rng.random((3, 6))
    mattes = {7: blob, 2: np.zeros((8, 12), np.float32), 5: np.full((8, 12), 0.9995, np.float32)}
    return StoredFrame.of(number, mattes, WINDOW, (8, 12), {7: {"entropy": 0.25}})


def same(a: StoredFrame, b: StoredFrame) -> bool:
    return (
        (a.frame, a.window, a.size, a.signals, set(a.mattes)) == (b.frame, b.window, b.size, b.signals, set(b.mattes))
    ) and all(np.array_equal(a.mattes[n], b.mattes[n]) for n in a.mattes)


def test_stored_frame_when_made_then_edges_of_the_scale_are_certain_and_nobody_is_an_empty_plane() -> None:
    made = frame(1)
    assert set(made.mattes) == {5, 7} and (made.mattes[5] == 1).all()
    low = StoredFrame.of(1, {1: np.array([[0.0005, 0.3, 1.0]], np.float32)}, WINDOW, (1, 3))
    assert low.mattes[1][0, 0] == 0 and abs(low.mattes[1][0, 1] - 0.3) < 1e-5 and low.mattes[1].dtype == np.float32


def test_store_when_a_segment_is_finished_then_it_reads_back_as_it_was_put(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path)
    inputs = {"model": "m", "key 1042 object 1": "abc"}
    name = digest(inputs)
    with store.begin(name, inputs) as writer:
        for number in (1003, 1001, -2):
            writer.put(frame(number, number + 5))
        assert same(writer.read(1003), frame(1003, 1008)), "before it is finished"
        assert store.get(name) is None
        writer.finish()
        assert same(writer.read(1001), frame(1001, 1006)), "and after"
    found = store.get(name)
    assert found is not None and found.inputs == inputs and found.frames == (-2, 1001, 1003)
    assert all(same(found.read(f), frame(f, f + 5)) for f in found.frames)
    assert [entry.path.stem for entry in store.entries()] == [name] and 0 < found.nbytes < 3000
    found.close()
    store.drop(name)
    assert store.get(name) is None and list(store.entries()) == []


def test_store_when_inputs_are_equal_then_bytes_are_equal(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        with SegmentStore(tmp_path / folder).begin("one", {"b": "2", "a": "1"}) as writer:
            writer.put(frame(1))
            writer.finish()
    a, b = ((tmp_path / folder / "one.segment").read_bytes() for folder in ("a", "b"))
    assert a == b
    assert digest({"a": "1", "b": "2"}) == digest({"b": "2", "a": "1"}) != digest({"a": "1", "b": "3"})


def test_store_when_a_run_ends_early_then_nothing_looks_finished(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.begin("one", {}) as writer:
        writer.put(frame(1))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_store_when_a_file_is_damaged_then_it_is_not_there_or_says_so(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path)
    with store.begin("one", {}) as writer:
        writer.put(frame(1))
        writer.finish()
    path = tmp_path / "one.segment"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert store.get("one") is None, "without its end it cannot be opened"
    middle = whole.index(b"boxes") if b"boxes" in whole else len(whole) // 2
    path.write_bytes(whole[:middle] + b"XX" + whole[middle + 2 :])
    found = store.get("one")
    assert found is not None
    with pytest.raises(InputError, match=r"damaged.*delete the file"):
        found.read(1)
    with pytest.raises(InputError, match="damaged"):
        found.read(2)


def test_store_when_its_folder_cannot_be_made_then_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write the stored segment"):
        SegmentStore(tmp_path / "file" / "below").begin("one", {})
