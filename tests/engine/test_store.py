"""Stored segments: equal bytes, whole or not there, damaged ones told."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from rotomem.engine.store import SegmentStore, StoredFrame, digest
from rotomem.errors import InputError, OutputError
from rotomem.types import Window

WINDOW = Window(-2, 0, 10, 8)
FRAMES = (-2, 1001, 1003)


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
        assert store.get(name, FRAMES) is None
        writer.finish()
        assert same(writer.read(1001), frame(1001, 1006)), "and after"
    found = store.get(name, FRAMES)
    assert found is not None and found.inputs == inputs and found.frames == FRAMES
    assert all(same(found.read(f), frame(f, f + 5)) for f in found.frames)
    assert [entry.path.stem for entry in store.entries()] == [name] and 0 < found.nbytes < 3000
    found.close()
    store.drop(name)
    assert store.get(name, FRAMES) is None and list(store.entries()) == []


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


def test_store_when_a_file_is_damaged_then_it_is_not_there_or_as_it_was(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path)
    inputs = {"model": "m"}
    with store.begin("one", inputs) as writer:
        for number in (1, 2):
            writer.put(frame(number, number))
        writer.finish()
    path = tmp_path / "one.segment"
    whole = path.read_bytes()
    gone = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        found = store.get("one", (1, 2))
        if found is None:
            gone += 1
            continue
        assert found.inputs == inputs and all(same(found.read(f), frame(f, f)) for f in (1, 2)), at
        found.close()
    assert gone > len(whole) / 2, "what does not count are dates, attributes and the like"
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert store.get("one", (1, 2)) is None, length
    path.write_bytes(whole)
    assert store.get("one", (1, 2, 3)) is None, "whole, and not all that is asked for"


def test_store_when_many_segments_are_held_then_few_files_are_open(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    with ExitStack() as stack:
        writers = [stack.enter_context(store.begin(f"{k}", {})) for k in range(2)]
        for k, writer in enumerate(writers):
            writer.put(frame(1, k))
            writer.finish()
        for k in range(2, 60):
            with store.begin(f"{k}", {}) as writer:
                writer.put(frame(1, k))
                writer.finish()
        found = [store.get(f"{k}", (1,)) for k in range(60)]
        assert len(os.listdir("/proc/self/fd")) <= before + 20
        assert all(one is not None and same(one.read(1), frame(1, k)) for k, one in enumerate(found))
        assert same(writers[0].read(1), frame(1, 0)) and same(writers[1].read(1), frame(1, 1))
        for one in found:
            assert one is not None
            one.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_store_when_a_file_is_damaged_after_it_was_looked_at_then_input_error(tmp_path: Path) -> None:
    with SegmentStore(tmp_path).begin("one", {}) as writer:
        writer.put(frame(1))
        writer.finish()
    found = SegmentStore(tmp_path).get("one", (1,))
    assert found is not None
    with pytest.raises(InputError, match=r"cannot be read.*run again"):
        found.read(2)
    found.close()


def test_store_when_the_disk_is_full_then_output_error_and_nothing_is_left(tmp_path: Path) -> None:
    script = f"""
import resource, signal
from engine.test_store import SegmentStore, StoredFrame, WINDOW, np
from rotomem.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES, BYTES))
noise = np.random.default_rng(0).random((64, 64), np.float32)
try:
    with SegmentStore({str(tmp_path)!r}, durable=DURABLE).begin("one", {{}}) as writer:
        for number in range(3):
            writer.put(StoredFrame.of(number, {{1: noise}}, WINDOW, (64, 64)))
        writer.finish()
except OutputError as error:
    print(error)
"""
    for limit, durable in ((10, True), (10_000, False)):
        told = subprocess.run(
            [sys.executable, "-c", script.replace("BYTES", str(limit)).replace("DURABLE", str(durable))],
            cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert told.stdout.startswith("cannot write the stored segment: File too large"), told
        assert ("TMPDIR" in told.stdout) != durable
        assert not told.stderr and list(tmp_path.iterdir()) == []


def test_store_when_its_folder_cannot_be_made_then_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write the stored segment"):
        SegmentStore(tmp_path / "file" / "below").begin("one", {})
