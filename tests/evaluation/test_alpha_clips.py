"""True mattes in their folder layouts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from rotomem.errors import InputError, MissingFrameError, PlateError, UsageError
from rotomem.evaluation.alpha_clips import AlphaClip, find_alpha_clips

from .test_davis import H, W, davis_sequence, labels_of, picture


def soft_box(x0: int, edge: float = 0.25) -> np.ndarray:
    """Rows 8 to 23, columns x0 to x0 + 15, with a column of `edge` on its right."""
    alpha = np.zeros((H, W), np.float32)
    alpha[8:24, x0 : x0 + 16] = 1
    alpha[8:24, x0 + 16] = edge
    return alpha


def write_matte(path: Path, channels: dict[str, np.ndarray], kind: oiio.TypeDesc = oiio.HALF) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first = next(iter(channels.values()))
    spec = oiio.ImageSpec(first.shape[1], first.shape[0], len(channels), kind)
    spec.channelnames = tuple(channels)
    image = oiio.ImageBuf(spec)
    image.set_pixels(image.roi, np.ascontiguousarray(np.stack(list(channels.values()), -1), np.float32))
    assert image.write(str(path))


def alpha_set(root: Path, name: str, mattes: list[dict[str, np.ndarray] | None]) -> None:
    """A sequence of EXR mattes, one file a frame."""
    for index, channels in enumerate(mattes):
        picture(root / "JPEGImages" / name / f"{index:05d}.png")
        if channels is not None:
            write_matte(root / "Alphas" / name / f"{index:05d}.exr", channels)


def truths(clip: AlphaClip) -> list[np.ndarray | None]:
    out = []
    for image, truth in clip.frames():
        assert image.shape == (H, W, 3) and image.dtype == np.float32
        out.append(truth)
    assert len(out) == clip.length
    return out


def test_find_alpha_clips_when_one_object_then_its_coverage_on_the_frames_that_have_it(tmp_path: Path) -> None:
    alpha_set(tmp_path / "set", "hair", [{"A": soft_box(4)}, None, {"A": soft_box(6, 0.5)}])
    (clip,) = find_alpha_clips(tmp_path)
    assert (clip.dataset, clip.name, clip.objects, clip.length) == ("set", "hair", ("object",), 3)
    first, none, last = truths(clip)
    assert none is None and first is not None and last is not None
    assert first.dtype == np.float32 and np.array_equal(first, soft_box(4)[None])
    assert np.array_equal(last, soft_box(6, 0.5)[None])


def test_find_alpha_clips_when_layers_then_an_object_each_and_the_plate_beside_is_ignored(tmp_path: Path) -> None:
    channels = {"R": soft_box(9), "hero.A": soft_box(4), "car.A": soft_box(30, 0.75)}
    alpha_set(tmp_path, "two", [channels] * 2)
    (clip,) = find_alpha_clips(tmp_path)
    truth = truths(clip)[1]
    assert truth is not None and set(clip.objects) == {"hero", "car"}
    assert np.array_equal(truth[clip.objects.index("car")], soft_box(30, 0.75))


def test_find_alpha_clips_when_png_of_16_bits_in_folders_then_an_object_each(tmp_path: Path) -> None:
    for index in range(2):
        picture(tmp_path / "JPEGImages" / "s" / f"{index:05d}.jpg")
        for name, x0 in (("left", 4), ("right", 30)):
            path = tmp_path / "Alphas" / "s" / name / f"{index:05d}.png"
            write_matte(path, {"Y": soft_box(x0, 1 / 3)}, oiio.UINT16)
    (tmp_path / "Alphas" / "s" / "right" / "00001.png").unlink()
    (clip,) = find_alpha_clips(tmp_path)
    first, second = truths(clip)
    assert clip.objects == ("left", "right") and first is not None
    assert np.abs(first[1] - soft_box(30, 1 / 3)).max() < 1e-5, "finer than 8 bits"
    assert second is None, "a frame that lacks one object's matte does not count"


def test_find_alpha_clips_when_the_data_window_is_small_then_coverage_lies_in_its_place(tmp_path: Path) -> None:
    alpha_set(tmp_path, "s", [{"A": soft_box(4)}])
    spec = oiio.ImageSpec(10, 5, 1, oiio.FLOAT)
    spec.channelnames = ("A",)
    spec.x, spec.y, spec.full_width, spec.full_height = 20, 7, W, H
    image = oiio.ImageBuf(spec)
    oiio.ImageBufAlgo.fill(image, (0.5,))
    assert image.write(str(tmp_path / "Alphas" / "s" / "00000.exr"))
    (truth,) = truths(find_alpha_clips(tmp_path)[0])
    expected = np.zeros((1, H, W), np.float32)
    expected[0, 7:12, 20:30] = 0.5
    assert truth is not None and np.array_equal(truth, expected)


def test_find_alpha_clips_when_names_are_given_then_those_and_unknown_ones_are_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        alpha_set(tmp_path, name, [{"A": soft_box(4)}])
    (tmp_path / "list.txt").write_text("b\n")
    for names in (["b"], [str(tmp_path / "list.txt")]):
        assert [clip.name for clip in find_alpha_clips(tmp_path, names)] == ["b"]
    with pytest.raises(MissingFrameError, match=r"no sequence c.*a, b"):
        find_alpha_clips(tmp_path, ["c"])
    assert find_alpha_clips(tmp_path / "JPEGImages") == []


def test_find_alpha_clips_when_pictures_lost_their_mattes_then_that_is_told_unless_others_are_named(
    tmp_path: Path,
) -> None:
    for name in ("hair", "fur"):
        alpha_set(tmp_path, name, [{"A": soft_box(4)}] * 2)
    shutil.rmtree(tmp_path / "Alphas/fur")
    with pytest.raises(MissingFrameError, match="fur has no mattes"):
        find_alpha_clips(tmp_path)
    assert [clip.name for clip in find_alpha_clips(tmp_path, ["hair"])] == ["hair"]


def test_find_alpha_clips_when_label_maps_lie_beside_then_they_are_not_passed_over(tmp_path: Path) -> None:
    alpha_set(tmp_path / "soft", "hair", [{"A": soft_box(4)}] * 2)
    (tmp_path / "soft/Annotations").mkdir()  # keys of the same pictures are no other data set
    assert len(find_alpha_clips(tmp_path)) == 1
    davis_sequence(tmp_path / "hard", "box", [labels_of((1, 8, 8, 24, 24))])
    with pytest.raises(UsageError, match="soft has mattes, hard label maps"):
        find_alpha_clips(tmp_path)


def test_find_alpha_clips_when_mattes_cannot_be_used_then_the_file_is_named(tmp_path: Path) -> None:
    stray, colour, bright, several = (tmp_path / n for n in ("stray", "colour", "bright", "several"))
    alpha_set(stray, "s", [{"A": soft_box(4)}] * 2)
    (stray / "JPEGImages" / "s" / "00001.png").unlink()
    with pytest.raises(InputError, match="00001 has no picture"):
        find_alpha_clips(stray)
    alpha_set(colour, "s", [{"R": soft_box(4), "G": soft_box(4), "B": soft_box(4)}])
    with pytest.raises(PlateError, match=r"no alpha.*00000\.exr"):
        find_alpha_clips(colour)
    alpha_set(bright, "s", [{"A": soft_box(4, 1.5)}])
    with pytest.raises(PlateError, match=r"0\.\.1.*00000\.exr"):
        find_alpha_clips(bright)
    alpha_set(several, "s", [{"hero.A": soft_box(4)}, {"car.A": soft_box(4)}])
    with pytest.raises(PlateError, match=r"no layer hero.*00001\.exr"):
        truths(find_alpha_clips(several)[0])
