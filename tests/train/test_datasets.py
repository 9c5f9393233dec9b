from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rotomem.errors import InputError, MissingFrameError, ShapeError, UsageError
from rotomem.evaluation.davis import write_labels
from rotomem.train.augment import VIDEO, Augment, Colour
from rotomem.train.datasets import (
    VOID,
    ClipSet,
    ClipSource,
    Draw,
    Kind,
    Sample,
    Ticket,
    as_clips,
    find_bl30k,
    find_davis,
    find_stills,
    find_youtube,
    merge_clips,
    open_folders,
    pick_frames,
    read_label_map,
)

from .folders import make_bl30k, make_davis, make_stills, make_youtube, picture, write_picture

STILL = Augment(size=48, share=(1, 1), ratio=(4 / 3, 4 / 3), flip=0, grey=0, turn=0, shear=0)
PLAIN = replace(STILL, clip_colour=Colour(), frame_colour=Colour())
"""The whole of a picture 64 x 48, squeezed to a square, nothing moved or tinted."""


def test_find_stills_when_masks_lie_beside_or_apart_then_all_pairs_are_found(tmp_path: Path) -> None:
    collection = find_stills(make_stills(tmp_path))
    pairs = [(f.picture.stem, f.labels.stem) for s in collection.shots for f in s.listed()]
    assert len(pairs) == 5 and all(a == b for a, b in pairs)


def test_find_davis_when_listed_then_only_the_list_counts(tmp_path: Path) -> None:
    collection = find_davis(make_davis(tmp_path))
    assert [s.pictures.name for s in collection.shots] == ["bear", "camel"]
    assert [len(s.listed()) for s in collection.shots] == [5, 5]
    assert len(ClipSet([collection])) == 10  # each five times


def test_find_youtube_when_a_picture_has_no_labels_then_it_is_left_out(tmp_path: Path) -> None:
    for root in (make_youtube(tmp_path), tmp_path / "train"):
        (shot,) = find_youtube(root).shots
        assert [f.picture.name for f in shot.listed()] == [f"{i:05d}.jpg" for i in range(4)]


def test_find_bl30k_when_split_in_parts_then_all_videos_are_found(tmp_path: Path) -> None:
    make_bl30k(tmp_path)
    assert [s.pictures.name for s in find_bl30k(tmp_path).shots] == ["a0001", "b0001"]
    assert [s.pictures.name for s in find_bl30k(tmp_path / "b").shots] == ["b0001"]


def test_open_folders_when_several_kinds_then_each_is_known_by_its_layout(tmp_path: Path) -> None:
    roots = [make_youtube(tmp_path / "y"), make_davis(tmp_path / "d")]
    found = open_folders(roots, ("davis", "youtube"))
    assert [(c.kind, c.repeat, c.stride) for c in found] == [("youtube", 1, 5), ("davis", 5, 1)]


@pytest.mark.parametrize(
    ("kinds", "missing", "says"),
    [
        (("davis",), "ImageSets/2017/train.txt", "train.txt"),
        (("davis",), "Annotations/480p/camel", "camel"),
        (("davis",), "JPEGImages/480p/bear/00003.jpg", "00003.png"),
        (("davis", "youtube"), "ImageSets", "no data set this stage"),
        (("bl30k",), "", "expected JPEGImages and Annotations"),
        (("stills",), "JPEGImages/480p/bear/00003.jpg", "00003.png"),
    ],
)
def test_open_folders_when_something_is_missing_then_the_error_names_it(
    tmp_path: Path, kinds: tuple[Kind, ...], missing: str, says: str
) -> None:
    root = make_davis(tmp_path / "data")
    if kinds == ("bl30k",):
        root = root / "ImageSets"
    (root / missing).rename(tmp_path / "elsewhere") if missing else None
    with pytest.raises(MissingFrameError, match=says):
        open_folders([root], kinds)


def test_open_folders_when_no_folder_is_there_then_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingFrameError, match="no such data folder"):
        open_folders([tmp_path / "none"], ("stills",))
    with pytest.raises(UsageError, match="stills"):
        open_folders([], ("stills",))
    (tmp_path / "meta.json").write_text("[]")
    with pytest.raises(InputError, match=r"meta\.json"):
        open_folders([tmp_path], ("youtube",))


def test_read_label_map_when_grey_uses_255_then_it_is_one_soft_object_or_void(tmp_path: Path) -> None:
    grey = np.array([[0, 40, 127, 128, 255]], np.uint8).repeat(3, 0)
    write_picture(tmp_path / "soft.png", grey)
    assert read_label_map(tmp_path / "soft.png", soft=True)[0].tolist() == [0, 0, 0, 1, 1]
    assert read_label_map(tmp_path / "soft.png")[0].tolist() == grey[0].tolist()
    write_labels(tmp_path / "palette.png", np.array([[0, 3, 255]], np.uint8))
    assert read_label_map(tmp_path / "palette.png", soft=True).tolist() == [[0, 3, 255]]
    write_picture(tmp_path / "colour.png", np.dstack([grey, grey, grey * 0]))
    with pytest.raises(InputError, match=r"colour\.png"):
        read_label_map(tmp_path / "colour.png")


def test_read_label_map_when_it_has_16_bits_then_it_is_refused_and_no_object_lost(tmp_path: Path) -> None:
    write_picture(tmp_path / "deep.png", np.array([[0, 1, 2]], np.uint16))
    with pytest.raises(InputError, match=r"the labels are of uint16, not of 8 bits.*deep\.png.*8-bit PNG"):
        read_label_map(tmp_path / "deep.png")


@pytest.mark.parametrize("spread", ["chain", "gather"])
@pytest.mark.parametrize(("frames", "gap", "stride"), [(3, 5, 1), (8, 2, 1), (3, 25, 5), (4, 3, 5), (3, 12, 5)])
def test_pick_frames_when_drawn_often_then_gaps_keep_to_the_curriculum(
    spread: str, frames: int, gap: int, stride: int
) -> None:
    rng, draw = torch.Generator().manual_seed(1), Draw(frames=frames, gap=gap, spread=spread)  # type: ignore[arg-type]
    seen, backwards, widest = set(), 0, 0
    for _ in range(300):
        chosen = pick_frames(30, draw, stride, rng)
        steps = np.diff(chosen)
        assert len(chosen) == frames and min(chosen) >= 0 and max(chosen) < 30
        assert (steps > 0).all() or (steps < 0).all()
        assert np.abs(steps).max() <= -(-gap // stride)
        seen |= set(chosen)
        backwards += steps[0] < 0
        widest = max(widest, int(np.abs(steps).max()))
    assert seen == set(range(30)) and 100 < backwards < 200 and widest == -(-gap // stride)


def test_pick_frames_when_the_shot_is_short_then_it_is_used_whole() -> None:
    rng = torch.Generator().manual_seed(1)
    for spread in ("chain", "gather"):
        draw = Draw(frames=4, gap=25, spread=spread)  # type: ignore[arg-type]
        assert sorted(pick_frames(4, draw, 1, rng)) == [0, 1, 2, 3]
        assert sorted(pick_frames(2, draw, 1, rng)) == [0, 1, 1, 1]


def test_clip_when_nothing_is_changed_then_pictures_and_labels_are_the_files(tmp_path: Path) -> None:
    davis = find_davis(make_davis(tmp_path, void=True))
    sample = ClipSet([davis])[Ticket(0, 5, Draw(frames=5, objects=2, gap=1, augment=PLAIN))]
    pixels, drawn = picture(0, 2)
    columns = ((np.arange(48) + 0.5) * 64 / 48 - 0.5).round().astype(int)
    labels = sample.labels[2].numpy()
    assert (labels[:6] == VOID).all()
    follows = labels[20, 16], labels[26, 34]  # numbered at random
    assert sorted(follows) == [1, 2]
    expected = np.array([0, *follows], np.uint8)[drawn[6:, columns]]
    assert (labels[6:] == expected).mean() > 0.98
    inside = sample.images[2].permute(1, 2, 0).numpy().astype(int) - pixels[:, columns]
    assert np.abs(inside).mean() < 8  # JPEG, and a picture squeezed


def test_clip_when_a_ticket_comes_again_then_the_clip_does_and_another_differs(tmp_path: Path) -> None:
    clips = ClipSet([find_davis(make_davis(tmp_path))])
    draw = Draw(augment=replace(VIDEO, size=32))
    one, again, other = (clips[Ticket(3, seed, draw)] for seed in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one.images, other.images)


def test_clip_when_objects_are_many_then_no_more_than_wanted_are_followed(tmp_path: Path) -> None:
    clips = ClipSet([find_davis(make_davis(tmp_path))])
    seen = set()
    for seed in range(8):
        sample = clips[Ticket(0, seed, Draw(frames=2, objects=1, augment=PLAIN))]
        assert sample.labels.unique().tolist() == [0, 1]
        seen.add(int(sample.labels[0, 20, 16]))
    assert seen == {0, 1}  # now the one disc, now the other


def test_clip_when_no_label_map_shows_an_object_then_the_error_names_one(tmp_path: Path) -> None:
    pixels, labels = picture(0)
    write_picture(tmp_path / "a.jpg", pixels)
    write_labels(tmp_path / "a.png", labels * 0)
    with pytest.raises(InputError, match=r"no object to follow.*a\.png"):
        ClipSet([find_stills(tmp_path)])[Ticket(0, 1, Draw(augment=PLAIN))]


def test_clip_when_sizes_differ_then_the_error_names_both_files(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg", picture(0)[0])
    write_labels(tmp_path / "a.png", picture(0, height=40)[1])
    with pytest.raises(ShapeError, match=r"64x40.*64x48.*a\.png.*a\.jpg"):
        ClipSet([find_stills(tmp_path)])[Ticket(0, 1, Draw(augment=PLAIN))]


def test_clip_when_the_picture_is_large_then_its_shorter_side_becomes_480(tmp_path: Path) -> None:
    pixels, labels = (np.kron(x, np.ones((20, 20) + (1,) * (x.ndim - 2), np.uint8)) for x in picture(0))
    write_picture(tmp_path / "a.jpg", pixels)
    write_labels(tmp_path / "a.png", labels)
    sample = ClipSet([find_stills(tmp_path)])[Ticket(0, 1, Draw(frames=1, augment=replace(PLAIN, size=480)))]
    assert sample.images.shape == (1, 3, 480, 480)
    assert (sample.labels == 1).float().mean() == pytest.approx((picture(0)[1] == 1).mean(), abs=0.1)


def test_merge_clips_when_there_is_room_then_the_second_covers_the_first() -> None:
    below = Sample(torch.zeros(1, 3, 1, 4, dtype=torch.uint8), torch.tensor([[[1, 1, 255, 0]]], dtype=torch.uint8))
    above = Sample(torch.full((1, 3, 1, 4), 9, dtype=torch.uint8), torch.tensor([[[0, 1, 2, 3]]], dtype=torch.uint8))
    merged = merge_clips(below, above, 3)
    assert merged.labels.tolist() == [[[1, 2, 3, 0]]]  # no room for a fourth
    assert merged.images[0, 0].tolist() == [[0, 9, 9, 0]]


def test_as_clips_when_a_pixel_is_void_then_it_covers_nothing_and_is_told() -> None:
    labels = torch.tensor([[[[1, 255, 0]], [[3, 2, 0]]]], dtype=torch.uint8)
    clips = as_clips(torch.full((1, 2, 3, 1, 3), 255, dtype=torch.uint8), labels, 3)
    assert clips.images.max() == 1 and clips.coverage.shape == (1, 2, 3, 1, 3)
    assert clips.coverage[0, :, :, 0].sum(-1).tolist() == [[1, 0, 0], [0, 1, 1]]
    assert clips.present.tolist() == [[True, False, False]]
    assert clips.void is not None and clips.void.nonzero().tolist() == [[0, 0, 0, 1]]


def test_clip_source_when_it_starts_in_the_middle_then_batches_are_those_of_a_whole_run(tmp_path: Path) -> None:
    found = [find_davis(make_davis(tmp_path))]
    draw = Draw(frames=2, augment=replace(VIDEO, size=32))
    wide = replace(draw, gap=2)

    def batches(source: ClipSource, steps: list[int]) -> list[torch.Tensor]:
        return [source.batch(s, draw if s < 3 else wide, 2).images for s in steps]

    whole = batches(ClipSource(found, seed=4), [0, 1, 2, 3])
    parts = batches(ClipSource(found, seed=4), [2, 3, 1])
    assert all(torch.equal(a, b) for a, b in zip([whole[2], whole[3], whole[1]], parts, strict=True))
    assert len({float(b.sum()) for b in whole}) == 4


def test_clip_source_when_all_processes_are_told_to_stop_then_the_one_that_trains_gets_its_batches(
    tmp_path: Path,
) -> None:
    source = ClipSource([find_davis(make_davis(tmp_path))], seed=4, workers=1)
    draw, others = Draw(frames=2, augment=STILL), set(multiprocessing.active_children())
    source.batch(0, draw, 1)
    (worker,) = set(multiprocessing.active_children()) - others
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(0.2)
    for step in range(1, 6):  # more than were read ahead
        assert source.batch(step, draw, 1).present.any()


def test_clip_source_when_workers_and_ranks_share_then_the_batch_is_the_same(tmp_path: Path) -> None:
    found = [find_stills(make_stills(tmp_path))]
    draw = Draw(frames=1, augment=replace(VIDEO, size=32))
    before = torch.get_rng_state()
    alone = ClipSource(found, seed=4).batch(5, draw, 4).images
    read_ahead = ClipSource(found, seed=4, workers=1)
    parts = [read_ahead.batch(5, draw, 4, rank=r, world=2).images for r in (0, 1)]
    assert torch.equal(torch.get_rng_state(), before)  # nobody's dropout changes because clips are read
    assert torch.equal(torch.cat(parts), alone)


def test_clip_source_when_a_round_is_over_then_every_shot_was_seen_once(tmp_path: Path) -> None:
    for i in range(5):
        pixels, labels = picture(0)
        write_picture(tmp_path / f"{i}.jpg", np.full_like(pixels, 40 * i))
        write_labels(tmp_path / f"{i}.png", labels)
    source = ClipSource([find_stills(tmp_path)], seed=4)
    draw = Draw(frames=1, augment=PLAIN)
    seen = [int(i.mean() * 255 / 40 + 0.5) for step in range(5) for i in source.batch(step, draw, 2).images]
    assert sorted(seen[:5]) == sorted(seen[5:]) == [0, 1, 2, 3, 4]
