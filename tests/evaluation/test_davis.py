"""Data set layouts, protocols and scores, with trackers whose answers are known."""

from __future__ import annotations

import json
import math
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from rotomem.errors import (
    CheckpointError,
    InputError,
    MaskError,
    MissingFrameError,
    PlateError,
    ShapeError,
    UsageError,
)
from rotomem.evaluation import davis
from rotomem.evaluation.gauge import Cost

H, W = 48, 64


class Recorder:
    """A tracker that repeats, for each object, the first mask it was given; and notes how it was called."""

    def __init__(self) -> None:
        self.objects: tuple[int, ...] = ()
        self.masks: list[np.ndarray] = []
        self.calls: list[tuple[tuple[int, ...] | None, bool]] = []

    def step(self, image, mask=None, *, objects=None, last=False):  # type: ignore[no-untyped-def]
        assert image.dtype == np.float32 and image.shape[2] == 3 and 0 <= image.min() <= image.max() <= 1
        self.calls.append((None if objects is None else tuple(objects), last))
        if mask is not None:
            assert mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, *objects}
            for i in objects:
                self.objects += (i,)
                self.masks.append((mask == i).astype(np.float32))
        rows = np.stack(self.masks)
        return np.concatenate([np.clip(1 - rows.sum(0, keepdims=True), 0, 1) * 0.9, rows])


def picture(path: Path, h: int = H, w: int = W) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = oiio.ImageBuf(oiio.ImageSpec(w, h, 3, oiio.UINT8))
    oiio.ImageBufAlgo.fill(image, (0.2, 0.5, 0.8))
    assert image.write(str(path))


def grey(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = oiio.ImageBuf(oiio.ImageSpec(labels.shape[1], labels.shape[0], 1, oiio.UINT8))
    image.set_pixels(image.roi, labels.astype(np.uint8)[..., None])
    assert image.write(str(path))


def labels_of(*boxes: tuple[int, int, int, int, int]) -> np.ndarray:
    out = np.zeros((H, W), np.uint8)
    for i, y0, x0, y1, x1 in boxes:
        out[y0:y1, x0:x1] = i
    return out


def davis_sequence(root: Path, name: str, maps: list[np.ndarray | None], resolution: str = "") -> None:
    for index, labels in enumerate(maps):
        picture(root / "JPEGImages" / resolution / name / f"{index:05d}.jpg")
        if labels is not None:
            davis.write_labels(root / "Annotations" / resolution / name / f"{index:05d}.png", labels)


def test_run_sequence_when_davis_then_first_and_last_frame_do_not_count(tmp_path: Path) -> None:
    still, moved = labels_of((1, 8, 8, 24, 24)), labels_of((1, 8, 16, 24, 32))
    davis_sequence(tmp_path, "box", [still, still, moved, still, moved])
    (sequence,) = davis.find_sequences(tmp_path)
    tracker = Recorder()
    score = davis.run_sequence(sequence, tracker)
    (one,) = score.objects
    # frames 1 and 3 are perfect, frame 2 overlaps by 8 of 16 columns: J = 1/3
    assert one.frames == 3
    assert one.j.mean == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert one.j.recall == pytest.approx(2 / 3)
    assert tracker.calls == [((1,), False)] + [(None, False)] * 3 + [(None, True)]
    assert score.size == (W, H) and score.frames == 5


def test_run_sequence_when_an_object_comes_late_then_its_key_is_given_there_and_counts_after(tmp_path: Path) -> None:
    a, b = (1, 4, 4, 20, 20), (3, 26, 30, 40, 50)
    maps: list[np.ndarray | None] = [labels_of(a), None, labels_of(a, b), None, labels_of(a, b), labels_of(a)]
    davis_sequence(tmp_path, "late", maps)
    meta = {"videos": {"late": {"objects": {"1": {"category": "dog"}, "3": {"category": "yak"}}}}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    (sequence,) = davis.find_sequences(tmp_path)
    assert sequence.protocol == "youtube"
    tracker = Recorder()
    score = davis.run_sequence(sequence, tracker)
    assert [c[0] for c in tracker.calls] == [(1,), None, (3,), None, None, None]
    first, late = score.objects
    assert (first.object_id, first.key_frame, first.frames, first.category) == (1, 0, 3, "dog")
    assert (late.object_id, late.key_frame, late.frames) == (3, 2, 2)
    assert first.j.mean == 1.0
    assert late.j.mean == pytest.approx(0.5), "right on frame 4, on frame 5 it is gone but still segmented"


def test_run_sequence_when_the_first_frames_show_nothing_then_the_tracker_starts_at_the_key(tmp_path: Path) -> None:
    box = labels_of((2, 8, 8, 24, 24))
    davis_sequence(tmp_path, "wait", [labels_of(), labels_of(), box, box, box])
    (sequence,) = davis.find_sequences(tmp_path)
    tracker = Recorder()
    shown: list[int] = []
    score = davis.run_sequence(sequence, tracker, on_frame=lambda i, p, m: shown.append(int(m.max())))
    assert len(tracker.calls) == 3 and score.objects[0].frames == 1
    assert shown == [0, 0, 2, 2, 2]


def test_run_sequence_when_masks_are_0_and_255_then_one_object_and_when_mixed_then_void(tmp_path: Path) -> None:
    box = labels_of((255, 8, 8, 24, 24))
    davis_sequence(tmp_path / "binary", "s", [box, box, box])
    (sequence,) = davis.find_sequences(tmp_path / "binary")
    (one,) = davis.run_sequence(sequence, Recorder()).objects
    assert one.object_id == 1 and one.j.mean == 1.0

    key = labels_of((1, 8, 8, 24, 24))
    unsure = labels_of((1, 8, 8, 24, 16), (255, 8, 16, 24, 24))
    davis_sequence(tmp_path / "void", "s", [key, unsure, key])
    (sequence,) = davis.find_sequences(tmp_path / "void")
    scores = davis.run_sequence(sequence, Recorder()).objects
    assert [o.object_id for o in scores] == [1] and scores[0].j.mean == 1.0


def test_run_sequence_when_davis_2016_then_all_objects_are_one(tmp_path: Path) -> None:
    pair, one = labels_of((1, 8, 8, 24, 24), (2, 30, 30, 40, 50)), labels_of((2, 8, 8, 24, 24), (1, 30, 30, 40, 40))
    davis_sequence(tmp_path, "s", [pair, one, pair])
    meta = {"videos": {"s": {"objects": {"1": {"category": "dog"}}}}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    (sequence,) = davis.find_sequences(tmp_path, protocol="davis2016")
    tracker = Recorder()
    (score,) = davis.run_sequence(sequence, tracker).objects
    assert (score.object_id, score.frames, score.category) == (1, 1, None)
    # both boxes of the key: 256 + 200 pixels; the frame shows 256 + 100 of them, under other labels
    assert score.j.mean == pytest.approx(356 / 456)
    assert [c[0] for c in tracker.calls] == [(1,), None, None] and tracker.masks[0].sum() == 456
    noisy = labels_of((1, 8, 8, 24, 24), (255, 30, 30, 40, 40))
    davis_sequence(tmp_path / "void", "s", [pair, noisy, pair])
    (sequence,) = davis.find_sequences(tmp_path / "void", protocol="davis2016")
    (score,) = davis.run_sequence(sequence, Recorder()).objects
    assert score.j.mean == pytest.approx(256 / (256 + 100)), "pixels of the void count for nobody"


def all_frames(root: Path, name: str, frames: int) -> None:
    for index in range(frames):
        picture(root / name / f"{index:05d}.jpg")


@pytest.mark.parametrize(
    "place", ("valid/JPEGImages_all_frames", "valid_all_frames/JPEGImages", "all_frames/valid_all_frames/JPEGImages")
)
def test_run_sequence_when_all_frames_are_read_then_those_of_the_plain_layout_count(
    tmp_path: Path, place: str
) -> None:
    box, gone = labels_of((1, 8, 8, 24, 24)), labels_of()
    valid = tmp_path / "valid"
    for stem, labels in (("00000", box), ("00005", box), ("00010", gone)):
        picture(valid / "JPEGImages" / "v" / f"{stem}.jpg")
        davis.write_labels(valid / "Annotations" / "v" / f"{stem}.png", labels)
    all_frames(tmp_path / place, "v", 11)
    (sequence,) = davis.find_sequences(valid, protocol="youtube", all_frames=True)
    assert len(sequence.images) == 11 and sequence.wanted == {0, 5, 10} and set(sequence.annotations) == {0, 5, 10}
    tracker = Recorder()
    (score,) = davis.run_sequence(sequence, tracker).objects
    assert len(tracker.calls) == 11 and (score.frames, score.j.mean) == (2, 0.5)
    (plain,) = davis.find_sequences(valid, protocol="youtube")
    assert len(plain.images) == 3 and plain.wanted == {0, 1, 2}


def test_find_sequences_when_all_frames_lack_some_then_the_frame_or_the_folder_is_named(tmp_path: Path) -> None:
    davis_sequence(tmp_path, "v", [labels_of((1, 8, 8, 24, 24))] * 3)
    with pytest.raises(MissingFrameError, match="JPEGImages_all_frames"):
        davis.find_sequences(tmp_path, all_frames=True)
    all_frames(tmp_path / "JPEGImages_all_frames", "v", 2)
    with pytest.raises(MissingFrameError, match=r"frame 00002 .* of v"):
        davis.find_sequences(tmp_path, all_frames=True)


def test_run_sequence_when_flicker_is_asked_then_the_jump_of_the_truth_is_measured(tmp_path: Path) -> None:
    still, moved = labels_of((1, 8, 8, 40, 24)), labels_of((1, 8, 8, 40, 26))
    davis_sequence(tmp_path, "s", [still, moved, moved])
    (sequence,) = davis.find_sequences(tmp_path)
    (score,) = davis.run_sequence(sequence, Recorder(), flicker=True).objects
    assert score.flicker == 0, "the tracker repeats itself on pictures that do not move"
    # 2 x 32 pixels come; the contour is 32 + 32 + 1 high or low pixels a side and 16 or 18 + 1 wide ones
    contour = 2 * 18 + 2 * 32
    assert score.truth_flicker == pytest.approx(64 / contour / 2, rel=0.03)
    assert math.isnan(davis.run_sequence(sequence, Recorder()).objects[0].flicker)


def test_run_sequence_when_it_ran_then_steps_seconds_and_memory_are_known(tmp_path: Path) -> None:
    davis_sequence(tmp_path, "s", [labels_of(), *[labels_of((1, 8, 8, 24, 24))] * 4])
    cost = davis.run_sequence(davis.find_sequences(tmp_path)[0], Recorder()).cost
    assert cost.steps == 4, "nothing is tracked before the key"
    assert cost.step_s > 0 and cost.fps == cost.steps / cost.step_s
    assert cost.memory_bytes > 1e7 and cost.gpu_memory_bytes >= 0


def test_run_sequence_when_sizes_differ_then_error_names_both_files(tmp_path: Path) -> None:
    davis_sequence(tmp_path, "s", [labels_of((1, 8, 8, 24, 24))] * 3)
    picture(tmp_path / "JPEGImages" / "s" / "00001.jpg", 24, 32)
    (sequence,) = davis.find_sequences(tmp_path)
    with pytest.raises(ShapeError, match=r"64x48.*32x24.*00001.png"):
        davis.run_sequence(sequence, Recorder())


def test_run_sequence_when_nothing_is_annotated_then_input_error(tmp_path: Path) -> None:
    davis_sequence(tmp_path, "s", [labels_of()] * 3)
    with pytest.raises(InputError, match="no annotation shows an object"):
        davis.run_sequence(davis.find_sequences(tmp_path)[0], Recorder())


def test_run_sequence_when_limited_then_the_last_of_those_frames_is_last(tmp_path: Path) -> None:
    davis_sequence(tmp_path, "s", [labels_of((1, 8, 8, 24, 24))] * 9)
    tracker = Recorder()
    score = davis.run_sequence(davis.find_sequences(tmp_path)[0], tracker, limit=4)
    assert [last for _, last in tracker.calls] == [False, False, False, True]
    assert score.objects[0].frames == 2


def test_find_sequences_when_resolutions_and_several_data_sets_then_all_are_found(tmp_path: Path) -> None:
    box = [labels_of((1, 8, 8, 24, 24))] * 3
    davis_sequence(tmp_path / "DAVIS", "cat", box, "480p")
    davis_sequence(tmp_path / "DAVIS", "cat", box, "1080p")
    davis_sequence(tmp_path / "DAVIS", "ant", box, "480p")
    davis_sequence(tmp_path / "more" / "deep", "bee", box)
    found = davis.find_sequences(tmp_path)
    assert [(s.dataset, s.name) for s in found] == [("DAVIS", "ant"), ("DAVIS", "cat"), ("deep", "bee")]
    assert "480p" in str(found[0].images[0])
    listed = tmp_path / "val.txt"
    listed.write_text("cat\n\nbee\n")
    assert [s.name for s in davis.find_sequences(tmp_path, [str(listed)])] == ["cat", "bee"]
    listed.write_text("/JPEGImages/480p/ant/00000.jpg /Annotations/480p/ant/00000.png\n" * 2)
    assert [s.name for s in davis.find_sequences(tmp_path, [str(listed)])] == ["ant"]
    with pytest.raises(MissingFrameError, match=r"no sequence dog.*ant, cat, bee"):
        davis.find_sequences(tmp_path, ["dog"])


def test_find_sequences_when_nothing_is_there_then_the_error_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(MissingFrameError, match="JPEGImages and Annotations"):
        davis.find_sequences(tmp_path)
    with pytest.raises(MissingFrameError, match="no such folder"):
        davis.find_sequences(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="protocol"):
        davis.find_sequences(tmp_path, protocol="coco")
    davis_sequence(tmp_path, "s", [labels_of((1, 8, 8, 24, 24))] * 3)
    (tmp_path / "meta.json").write_text("{not json")
    with pytest.raises(InputError, match=r"meta\.json"):
        davis.find_sequences(tmp_path)


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        (["Annotations/box"], "box has no annotations"),
        (["JPEGImages/box"], "box has no pictures"),
        (["JPEGImages/box/00003.jpg"], "has no picture"),
    ],
)
def test_find_sequences_when_a_sequence_is_not_whole_then_it_is_told_unless_others_are_named(
    tmp_path: Path, lost: list[str], says: str
) -> None:
    for name in ("box", "whole"):
        davis_sequence(tmp_path, name, [labels_of((1, 8, 8, 24, 24))] * 4)
    for path in (tmp_path / one for one in lost):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MissingFrameError, match=says):
        davis.find_sequences(tmp_path)
    assert [s.name for s in davis.find_sequences(tmp_path, ["whole"])] == ["whole"]


def test_find_sequences_when_a_list_names_none_or_the_meta_is_odd_then_errors(tmp_path: Path) -> None:
    davis_sequence(tmp_path, "box", [labels_of((1, 8, 8, 24, 24))] * 3)
    (tmp_path / "JPEGImages/box/._00000.jpg").write_bytes(b"a Finder's note")
    assert len(davis.find_sequences(tmp_path)[0].images) == 3
    (tmp_path / "none.txt").write_text("")
    with pytest.raises(MissingFrameError, match="no sequence to measure"):
        davis.find_sequences(tmp_path, [str(tmp_path / "none.txt")])
    for odd in ({"box": []}, {"box": {"objects": []}}, {"box": {"objects": {"1": "dog"}}}, ["box"]):
        (tmp_path / "meta.json").write_text(json.dumps({"videos": odd}))
        with pytest.raises(InputError, match="description"):
            davis.find_sequences(tmp_path)


def test_run_sequence_when_the_model_answers_nan_then_error_and_no_mean_without_it(tmp_path: Path) -> None:
    davis_sequence(tmp_path, "box", [labels_of((1, 8, 8, 24, 24))] * 3)
    tracker = Recorder()
    step = tracker.step
    tracker.step = lambda *a, **k: step(*a, **k) * (np.nan if len(tracker.calls) > 1 else 1)  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match=r"not finite.*sequence=box frame=1"):
        davis.run_sequence(davis.find_sequences(tmp_path)[0], tracker)


def test_find_sequences_when_the_training_set_lies_beside_then_categories_are_seen_or_not(tmp_path: Path) -> None:
    valid, train = tmp_path / "valid", tmp_path / "train"
    davis_sequence(valid, "v", [labels_of((1, 8, 8, 24, 24), (2, 30, 30, 40, 40))] * 3)
    entry = {"objects": {"1": {"category": "dog"}, "2": {"category": "yak"}}}
    (valid / "meta.json").write_text(json.dumps({"videos": {"v": entry}}))
    train.mkdir()
    (train / "meta.json").write_text(json.dumps({"videos": {"t": {"objects": {"1": {"category": "dog"}}}}}))
    (sequence,) = davis.find_sequences(valid)
    assert sequence.seen == {1: True, 2: False}
    summary = davis.summarise([davis.run_sequence(sequence, Recorder())])
    assert summary.seen == (1.0, 1.0) and summary.unseen == (1.0, 1.0) and summary.overall == 1.0


def test_summarise_when_sequences_have_unlike_numbers_of_objects_then_every_object_weighs_the_same() -> None:
    def score(values: list[float]) -> davis.SequenceScore:
        stats = [davis.Statistics(v, v, 0.0) for v in values]
        return davis.SequenceScore(
            "d", "s", 5, (W, H), Cost(), tuple(davis.ObjectScore(i + 1, 0, 3, s, s) for i, s in enumerate(stats))
        )

    summary = davis.summarise([score([1.0]), score([0.0, 0.5])])
    assert summary.objects == 3 and summary.jf == pytest.approx(0.5)
    assert summary.seen is None and summary.overall is None
    unmeasured = davis.ObjectScore(1, 0, 0, davis.statistics([]), davis.statistics([]))
    empty = davis.SequenceScore("d", "s", 1, (W, H), Cost(), (unmeasured,))
    assert davis.summarise([score([1.0]), empty]).jf == 1.0
    assert math.isnan(davis.summarise([empty]).jf) and math.isnan(empty.cost.fps)


def test_read_labels_when_palette_grey_or_equal_rgb_then_the_same_ids(tmp_path: Path) -> None:
    labels = labels_of((1, 4, 4, 20, 20), (7, 30, 10, 40, 50))
    davis.write_labels(tmp_path / "p.png", labels)
    grey(tmp_path / "g.png", labels)
    rgb = oiio.ImageBuf(oiio.ImageSpec(W, H, 3, oiio.UINT8))
    rgb.set_pixels(rgb.roi, np.repeat(labels[..., None], 3, axis=2))
    rgb.write(str(tmp_path / "rgb.png"))
    for name in ("p", "g", "rgb"):
        assert np.array_equal(davis.read_labels(tmp_path / f"{name}.png"), labels), name
    assert davis.ids_of(labels) == [1, 7]


def test_read_labels_when_the_palette_has_four_bits_then_indices(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"\0\x01\x23\0\x30\x00"  # two rows of four pixels: 0 1 2 3 / 3 0 0 0
    (tmp_path / "four.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 4, 3, 0, 0, 0))
        + chunk(b"PLTE", bytes(range(48)))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    assert davis.read_labels(tmp_path / "four.png").tolist() == [[0, 1, 2, 3], [3, 0, 0, 0]]


def test_read_labels_when_colourful_or_broken_then_errors_name_the_file(tmp_path: Path) -> None:
    picture(tmp_path / "photo.png")
    with pytest.raises(PlateError, match=r"colour picture.*photo\.png"):
        davis.read_labels(tmp_path / "photo.png")
    davis.write_labels(tmp_path / "cut.png", np.random.default_rng(0).integers(0, 9, (H, W), np.uint8))
    whole = (tmp_path / "cut.png").read_bytes()
    for length in (60, len(whole) * 2 // 3):  # FFmpeg alone would fill up the second
        (tmp_path / "cut.png").write_bytes(whole[:length])
        with pytest.raises(MaskError, match=r"cut\.png"):
            davis.read_labels(tmp_path / "cut.png")
    deep = oiio.ImageBuf(oiio.ImageSpec(W, H, 1, oiio.UINT16))
    deep.set_pixels(deep.roi, np.full((H, W, 1), 2 / 65535, np.float32))
    assert deep.write(str(tmp_path / "deep.png"))
    with pytest.raises(PlateError, match="more than 8 bits"):
        davis.read_labels(tmp_path / "deep.png")
    with pytest.raises(PlateError, match=r"none\.png"):
        davis.read_labels(tmp_path / "none.png")


def test_palette_when_asked_then_the_published_colours() -> None:
    assert davis.palette()[:6].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]
    ]  # fmt: skip
    assert davis.palette()[255].tolist() == [224, 224, 192]


def test_real_sequences_when_truth_is_replayed_then_all_scores_are_one(shared: Path) -> None:
    class Oracle:
        def __init__(self, sequence: davis.VideoSequence) -> None:
            self.sequence, self.index, self.objects = sequence, -1, ()

        def step(self, image, mask=None, *, objects=None, last=False):  # type: ignore[no-untyped-def]
            self.index += 1
            self.objects += tuple(objects or ())
            truth = davis.read_labels(self.sequence.annotations[self.index])
            return np.stack([truth == i for i in (0, *self.objects)]).astype(np.float32)

    found = davis.find_sequences(shared / "data" / "val")
    assert {s.dataset for s in found} == {"davis2016_val", "davis2017_lowres", "segtrack_v2"} and len(found) == 7
    girls = next(s for s in found if s.name == "schoolgirls")
    score = davis.run_sequence(girls, Oracle(girls), limit=6)
    assert [o.object_id for o in score.objects] == [1, 2, 3, 4, 5, 6, 7]
    assert all(o.j.mean == o.f.mean == 1.0 and o.frames == 4 for o in score.objects)
