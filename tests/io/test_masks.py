"""Key masks in: what is written on the command line, what is in the file, what becomes of soft edges."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import make
import numpy as np
import OpenImageIO as oiio
import pytest

from rotomem.errors import MaskError, UsageError
from rotomem.io.cryptomatte import name_id
from rotomem.io.exr import read_header, read_still
from rotomem.io.labels import find_levels, flat_pixels, fold_edges
from rotomem.io.masks import Keys, MaskSpec, load_keys, objects_of, parse_mask, parse_masks
from rotomem.io.mattes import MatteSettings, MatteWriter
from rotomem.io.plate import PlateInfo, open_plate
from rotomem.splines import document
from rotomem.splines.types import Curve, Shape, SplineError, Splines
from rotomem.types import PlateFrame, Window

H, W = 60, 80
DISPLAY = Window(0, 0, W, H)


def info(display: Window = DISPLAY, canvas: Window | None = None, **more: Any) -> PlateInfo:
    values: dict[str, Any] = {
        "path": "/nowhere/sh010.%04d.exr",
        "kind": "exr",
        "frames": tuple(range(1001, 1011)),
        "missing": (),
        "padding": 4,
        "stem": "sh010",
        "display_window": display,
        "canvas": canvas or display,
        "fps": Fraction(24),
        **more,
    }
    return PlateInfo(**values)


def save(path: Path, pixels: np.ndarray, names: tuple[str, ...] | None = None, **attributes: Any) -> Path:
    """A picture written by OpenImageIO; `data` and `display` are windows."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    kinds = {"uint8": "uint8", "uint16": "uint16", "float16": "half", "float32": "float", "uint32": "uint"}
    data = attributes.pop("data", Window(0, 0, pixels.shape[1], pixels.shape[0]))
    display = attributes.pop("display", data)
    spec = oiio.ImageSpec(data.width, data.height, pixels.shape[2], oiio.TypeDesc(kinds[pixels.dtype.name]))
    spec.x, spec.y = data.x0, data.y0
    spec.full_x, spec.full_y, spec.full_width, spec.full_height = (
        display.x0,
        display.y0,
        display.width,
        display.height,
    )
    if names:
        spec.channelnames = names
        spec.alpha_channel = names.index("A") if "A" in names else -1
    spec.attribute("oiio:UnassociatedAlpha", 1)
    for key, value in attributes.items():
        spec.attribute(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    out = oiio.ImageOutput.create(os.fspath(path))
    assert out.open(os.fspath(path), spec), out.geterror()
    assert out.write_image(np.ascontiguousarray(pixels)) and out.close()
    return path


def save_palette(path: Path, index: np.ndarray, palette: np.ndarray, bits: int = 8, clear: bytes = b"") -> Path:
    """A palette PNG, byte by byte, since OpenImageIO writes none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b""
    for row in index.astype(np.uint8):
        digits = np.unpackbits(row[:, None], axis=1)[:, 8 - bits :].reshape(-1)
        rows += b"\0" + np.packbits(digits).tobytes()
    height, width = index.shape
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 3, 0, 0, 0))
        + chunk(b"PLTE", palette.astype(np.uint8).tobytes())
        + (chunk(b"tRNS", clear) if clear else b"")
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def voc(n: int) -> np.ndarray:
    colours = np.zeros((n, 3), np.uint8)
    for i in range(n):
        for bit in range(8):
            for c in range(3):
                colours[i, c] |= ((i >> (3 * bit + c)) & 1) << (7 - bit)
    return colours


def label_map(dtype: type = np.uint8) -> np.ndarray:
    """Three objects: a block, a thin line, and one of two pixels."""
    labels = np.zeros((H, W), dtype)
    labels[10:40, 10:40] = 1
    labels[5:55, 50] = 2
    labels[30, 70:72] = 3
    return labels


def disc(x: float, y: float, radius: float, samples: int = 8) -> np.ndarray:
    """Area coverage of a disc, [H, W] 0..1."""
    grid = (np.arange(W * samples) + 0.5) / samples, (np.arange(H * samples) + 0.5) / samples
    inside = (grid[0][None] - x) ** 2 + (grid[1][:, None] - y) ** 2 <= radius**2
    return inside.reshape(H, samples, W, samples).mean((1, 3))


def load(*texts: str, about: PlateInfo | None = None, **more: Any) -> Keys:
    return load_keys([parse_mask(t) for t in texts], about or info(), **more)


# What is written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1001=a.png", MaskSpec(1001, "a.png")),
        ("-5=a.png", MaskSpec(-5, "a.png")),
        ("hero@1001=a.exr:hero.A", MaskSpec(1001, "a.exr", "hero", "hero.A")),
        ("car door@-3=dir/a.png", MaskSpec(-3, "dir/a.png", "car door")),
        ("a@b@7=x.png", MaskSpec(7, "x.png", "a@b")),
        ("k=v@7=x.png", MaskSpec(7, "x.png", "k=v")),
        ("7=dir@8=b/x.png", MaskSpec(7, "dir@8=b/x.png")),
        ("7=a=b.png", MaskSpec(7, "a=b.png")),
        (r"7=C:\roto\a.exr", MaskSpec(7, r"C:\roto\a.exr")),
        ("7=C:/roto/a.exr:A", MaskSpec(7, "C:/roto/a.exr", None, "A")),
        ("7=C:a.exr", MaskSpec(7, "C:a.exr")),
        ("7=/a:b/c.exr", MaskSpec(7, "/a:b/c.exr")),
        ("Ünï@7=masks/ä ö.png", MaskSpec(7, "masks/ä ö.png", "Ünï")),
    ],
)
def test_parse_mask_when_spelled_legally_then_every_part_is_found(text: str, spec: MaskSpec) -> None:
    assert parse_mask(text) == spec
    assert parse_mask(str(spec)) == spec


@pytest.mark.parametrize(
    "text", ["", "a.png", "1001", "1001=", "x=a.png", "@7=a.png", " @7=a.png", "hero@x=a.png", "1.5=a.png"]
)
def test_parse_mask_when_nonsense_then_usage_error_shows_the_form(text: str) -> None:
    with pytest.raises(UsageError, match="FRAME=PATH"):
        parse_mask(text)


def test_parse_mask_when_the_file_has_a_colon_then_what_is_on_disk_decides(tmp_path: Path) -> None:
    (tmp_path / "a:b.exr").write_bytes(b"x")
    (tmp_path / "c.exr").write_bytes(b"x")
    assert parse_mask(f"7={tmp_path}/a:b.exr") == MaskSpec(7, f"{tmp_path}/a:b.exr")
    assert parse_mask(f"7={tmp_path}/a:b.exr:A") == MaskSpec(7, f"{tmp_path}/a:b.exr", None, "A")
    assert parse_mask(f"7={tmp_path}/c.exr:x:y") == MaskSpec(7, f"{tmp_path}/c.exr", None, "x:y")


# Label pictures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_load_keys_when_palette_png_then_indices_are_the_labels(tmp_path: Path, bits: int) -> None:
    labels = label_map()
    palette = voc(4)
    palette[2] = palette[1]  # the same colour, yet another object
    save_palette(tmp_path / "m.png", labels, palette, bits)
    keys = load(f"1001={tmp_path}/m.png")
    assert keys.objects.names == {1: "obj1", 2: "obj2", 3: "obj3"}
    for row, k in zip(keys.by_frame[1001].alpha, keys.by_frame[1001].objects, strict=True):
        assert np.array_equal(row, labels == k)
    assert "labels 1 (18.8 %), 2 (1.0 %), 3 (0.042 %)" in keys.notes[0]


def test_load_keys_when_palette_is_transparent_or_the_name_a_pattern_then_indices_all_the_same(
    tmp_path: Path,
) -> None:
    save_palette(tmp_path / "m%04d:x.png", label_map(), voc(4), clear=b"\0\xff\x80\xff")
    assert list(load(f"1001={tmp_path}/m%04d:x.png").objects.names) == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("m.png", np.uint8),
        ("m.png", np.uint16),
        ("m.tif", np.uint16),
        ("m.exr", np.uint32),
        ("m.exr", np.float16),
        ("m.tif", np.float32),
    ],
)
def test_load_keys_when_integer_labels_then_values_are_the_ids(tmp_path: Path, name: str, dtype: type) -> None:
    labels = label_map(dtype)
    labels[labels == 3] = 7
    save(tmp_path / name, labels)
    keys = load(f"1001={tmp_path}/{name}")
    assert list(keys.objects.names) == [1, 2, 7] and keys.objects.names[7] == "obj7"
    assert np.array_equal(keys.by_frame[1001].alpha[2], labels == 7)
    assert keys.by_frame[1001].alpha.dtype == np.float32


def test_load_keys_when_exr_ids_are_large_then_exact(tmp_path: Path) -> None:
    labels = np.zeros((H, W), np.uint32)
    labels[:20], labels[20:40] = 16_777_217, 16_777_216  # one float32 for both
    save(tmp_path / "m.exr", labels, ("id",))
    assert set(list(load(f"1001={tmp_path}/m.exr:id").objects.names)) == {16_777_216, 16_777_217}


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.uint8, 1)])
def test_load_keys_when_binary_then_one_object(tmp_path: Path, dtype: type, top: int) -> None:
    shape = label_map(dtype) > 0
    save(tmp_path / "m.png", (shape * top).astype(dtype))
    keys = load(f"1001={tmp_path}/m.png")
    assert keys.objects.names == {1: "obj1"}
    assert np.array_equal(keys.by_frame[1001].alpha[0], shape)


def test_load_keys_when_rgb_colours_then_one_object_each_and_the_same_on_every_frame(tmp_path: Path) -> None:
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 40], [90, 90, 90]], np.uint8)
    save(tmp_path / "a.png", colours[label_map()])
    save(tmp_path / "b.png", colours[[0, 0, 2, 3]][label_map()])
    keys = load(f"1001={tmp_path}/a.png", f"1005={tmp_path}/b.png")
    assert len(keys.objects.names) == 3
    green = next(
        k for k, row in zip(keys.by_frame[1001].objects, keys.by_frame[1001].alpha, strict=True) if row[6, 50]
    )
    place = keys.by_frame[1005].objects.index(green)
    assert np.array_equal(keys.by_frame[1005].alpha[place], label_map() == 2)
    assert any("#ff0000 is obj" in note for note in keys.notes)


def test_load_keys_when_palette_was_saved_as_rgb_then_davis_colours_give_the_indices(tmp_path: Path) -> None:
    save(tmp_path / "m.png", voc(8)[label_map() * 2])
    assert list(load(f"1001={tmp_path}/m.png").objects.names) == [2, 4, 6]


def test_load_keys_when_rgba_then_alpha_is_the_matte_unless_it_is_flat_colours(tmp_path: Path) -> None:
    coverage = np.rint(disc(40, 30, 20) * 255).astype(np.uint8)
    photo = np.random.default_rng(1).integers(0, 255, (H, W, 3)).astype(np.uint8)
    save(tmp_path / "cut.png", np.dstack([photo, coverage]), ("R", "G", "B", "A"))
    keys = load(f"1001={tmp_path}/cut.png")
    assert np.array_equal(keys.by_frame[1001].alpha[0], coverage / np.float32(255))
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 40], [90, 90, 90]], np.uint8)
    flat = np.dstack([colours[label_map()], (label_map() > 0) * np.uint8(255)])
    save(tmp_path / "flat.png", flat, ("R", "G", "B", "A"))
    assert len(load(f"1001={tmp_path}/flat.png").objects.names) == 3
    opaque = np.dstack([colours[label_map()], np.full((H, W), 255, np.uint8)])
    save(tmp_path / "opaque.png", opaque, ("R", "G", "B", "A"))
    assert len(load(f"1001={tmp_path}/opaque.png").objects.names) == 3


def test_load_keys_when_real_annotations_then_labels_are_those_in_the_file(shared: Path) -> None:
    files = sorted((shared / "data" / "val").glob("*/Annotations/*/*.png"))[::40]
    assert files
    for path in files:
        inp = oiio.ImageInput.open(str(path))
        truth = inp.read_image(oiio.UINT8)[..., 0]
        about = info(Window(0, 0, truth.shape[1], truth.shape[0]))
        ids = [int(v) for v in np.unique(truth) if v]
        if not ids:
            continue
        key = load(f"1001={path}", about=about).by_frame[1001]
        if ids == [255]:
            ids, truth = [1], truth // 255
        assert list(key.objects) == ids, path
        for k, row in zip(key.objects, key.alpha, strict=True):
            assert np.array_equal(row, truth == k), path


# Soft edges ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [2, 4, 16])
@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_load_keys_when_one_object_has_soft_edges_then_its_coverage_is_kept(
    tmp_path: Path, samples: int, dtype: type, top: int
) -> None:
    grey = np.rint(disc(40.3, 29.6, 20.2, samples) * top).astype(dtype)
    save(tmp_path / "m.png", grey)
    keys = load(f"1001={tmp_path}/m.png")
    assert keys.objects.names == {1: "obj1"}
    assert np.array_equal(keys.by_frame[1001].alpha[0], grey.astype(np.float32) / np.float32(top))
    save(tmp_path / "rgb.png", np.dstack([grey] * 3))
    assert np.array_equal(load(f"1001={tmp_path}/rgb.png").by_frame[1001].alpha, keys.by_frame[1001].alpha)


def test_load_keys_when_palette_is_a_grey_ramp_then_one_soft_matte(tmp_path: Path) -> None:
    grey = np.rint(disc(40.3, 29.6, 20.2, 4) * 255).astype(np.uint8)
    ramp = np.arange(256)[::-1].repeat(3).reshape(256, 3)  # reversed, so that an index is not its grey
    save_palette(tmp_path / "m.png", 255 - grey, ramp)
    assert np.array_equal(load(f"1001={tmp_path}/m.png").by_frame[1001].alpha[0], grey / np.float32(255))


def test_load_keys_when_matte_is_blurred_wide_then_still_one_soft_matte(tmp_path: Path) -> None:
    x, y = np.meshgrid(np.arange(W), np.arange(H))
    soft = np.clip((26 - np.hypot(x - 40, y - 30)) / 18, 0, 1)
    grey = np.rint((3 * soft**2 - 2 * soft**3) * 255).astype(np.uint8)
    save(tmp_path / "m.png", grey)
    assert np.array_equal(load(f"1001={tmp_path}/m.png").by_frame[1001].alpha[0], grey / np.float32(255))


@pytest.mark.parametrize("values", [(100, 200), (85, 170), (3, 9), (127, 255), (1, 2)])
def test_load_keys_when_several_labels_have_soft_edges_then_no_new_object(
    tmp_path: Path, values: tuple[int, int]
) -> None:
    # Two overlapping discs over black: the edges hold values between all three.
    picture = np.zeros((H, W))
    for value, cover in zip(values, (disc(30.2, 30.1, 17.3), disc(52.4, 27.7, 15.6)), strict=True):
        picture = picture * (1 - cover) + value * cover
    save(tmp_path / "m.png", np.rint(picture).astype(np.uint8))
    keys = load(f"1001={tmp_path}/m.png")
    assert list(keys.objects.names) == list(values)
    one, two = keys.by_frame[1001].alpha
    assert not (one * two).any()
    back, front = disc(30.2, 30.1, 17.3), disc(52.4, 27.7, 15.6)
    wrong = (np.abs(two - front) > 0.75) | (np.abs(one - back * (1 - front)) > 0.75)
    # Of about 200 edge pixels. With values this near, half of a 2 cannot be told from a 1.
    assert wrong.sum() <= (4 if values[0] > 9 else 30)


def test_load_keys_when_colours_have_soft_edges_then_no_new_object(tmp_path: Path) -> None:
    picture = np.zeros((H, W, 3))
    for colour, cover in zip(
        ((255, 0, 0), (0, 255, 60)), (disc(30.2, 30.1, 17.3), disc(52.4, 27.7, 15.6)), strict=True
    ):
        picture = picture * (1 - cover[..., None]) + np.array(colour) * cover[..., None]
    save(tmp_path / "m.png", np.rint(picture).astype(np.uint8))
    keys = load(f"1001={tmp_path}/m.png")
    assert len(keys.objects.names) == 2
    assert any("found only on edges" in note for note in keys.notes)
    areas = sorted(row.sum() for row in keys.by_frame[1001].alpha)
    assert areas[1] == pytest.approx(disc(52.4, 27.7, 15.6).sum(), rel=0.02) or areas[0] == pytest.approx(
        disc(52.4, 27.7, 15.6).sum(), rel=0.02
    )


def test_load_keys_when_a_single_label_has_soft_edges_then_coverage_is_its_share(tmp_path: Path) -> None:
    save(tmp_path / "m.png", np.rint(disc(40, 30, 20) * 40).astype(np.uint8))
    keys = load(f"1001={tmp_path}/m.png")
    assert list(keys.objects.names) == [40]
    assert np.abs(keys.by_frame[1001].alpha[0] - disc(40, 30, 20)).max() <= 0.5 / 40 + 1e-6


def test_load_keys_when_labels_were_resized_with_a_filter_then_no_new_object(tmp_path: Path) -> None:
    small = np.zeros((H // 2, W // 2), np.float32)
    small[4:26, 4:20], small[9:28, 24:38] = 100, 200
    buf = oiio.ImageBuf(np.ascontiguousarray(small[..., None]))
    for name, factor in (("triangle", 2), ("lanczos3", 2), ("triangle", 4)):
        big = oiio.ImageBufAlgo.resize(buf, name, roi=oiio.ROI(0, W // 2 * factor, 0, H // 2 * factor, 0, 1, 0, 1))
        save(tmp_path / "m.png", np.clip(np.rint(big.get_pixels(oiio.FLOAT)), 0, 255).astype(np.uint8))
        about = info(Window(0, 0, W // 2 * factor, H // 2 * factor))
        key = load(f"1001={tmp_path}/m.png", about=about).by_frame[1001]
        assert key.objects == (100, 200), (name, factor)
        meant = np.stack([small == 100, small == 200]).repeat(factor, 1).repeat(factor, 2)
        assert np.abs(key.alpha - meant).sum() < 0.06 * meant.sum(), (name, factor)


def test_load_keys_when_thin_labels_lie_between_others_in_value_then_they_stay(tmp_path: Path) -> None:
    labels = np.zeros((H, W), np.uint8)
    labels[20:50, 30:60] = 5
    labels[10:21, 45] = 3  # a line that starts on the object and leaves it
    labels[5, 5] = 2  # one pixel
    save(tmp_path / "m.png", labels)
    keys = load(f"1001={tmp_path}/m.png")
    assert list(keys.objects.names) == [2, 3, 5]
    assert np.array_equal(keys.by_frame[1001].alpha[1], labels == 3)


@pytest.mark.parametrize("quality", [50, 75, 90, 98])
def test_load_keys_when_a_label_map_is_a_jpeg_then_ringing_makes_no_object(tmp_path: Path, quality: int) -> None:
    colours = np.zeros((200, 300, 3), np.uint8)
    colours[30:120, 40:130] = (200, 30, 30)
    colours[100:180, 160:260] = (20, 180, 60)
    colours[110:170, 125:200] = (60, 60, 220)
    greys = np.select([colours[..., k] >= 180 for k in range(3)], [60, 120, 180]).astype(np.uint8)
    about = info(Window(0, 0, 300, 200))
    for name, pixels in (("c", colours), ("g", greys)):
        save(tmp_path / f"{name}.jpg", pixels, compression=f"jpeg:{quality}")
        key = load(f"1001={tmp_path}/{name}.jpg", about=about).by_frame[1001]
        assert len(key.objects) == 3, name
        for k in range(3):
            drawn = colours[..., k] >= 180
            assert max((drawn & (a > 0)).sum() / (drawn | (a > 0)).sum() for a in key.alpha) > 0.98, (name, k)
        with pytest.raises(MaskError, match="not the matte of one object"):
            load(f"hero@1001={tmp_path}/{name}.jpg", about=about)


def test_load_keys_when_jpeg_labels_are_too_near_each_other_then_it_says_so(tmp_path: Path) -> None:
    labels = np.kron(np.array([[0, 60, 0, 62], [0, 0, 0, 0]], np.uint8), np.ones((30, 20), np.uint8))
    noise = (np.arange(H * W).reshape(H, W) % 97 == 0) * (np.arange(H * W).reshape(H, W) % 9 + 4)
    save(tmp_path / "m.jpg", np.where(labels, labels, noise).astype(np.uint8), compression="jpeg:95")
    keys = load(f"1001={tmp_path}/m.jpg")
    assert any("too near another" in n and "PNG" in n for n in keys.notes), keys.notes


def test_load_keys_when_a_photograph_or_noise_then_error_says_what_to_do(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (H, W)).astype(np.uint8)
    x, y = np.meshgrid(np.arange(W), np.arange(H))
    smooth = np.rint(127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7)).astype(np.uint8)
    for picture in (noise, smooth, np.dstack([noise, noise.T[:H, :H].repeat(2, 1)[:, :W], smooth])):
        save(tmp_path / "m.png", picture)
        with pytest.raises(MaskError, match="different values") as e:
            load(f"1001={tmp_path}/m.png")
        assert "NAME@FRAME=PATH" in str(e.value) and "anti-aliasing" in str(e.value)
        assert e.value.context["frame"] == 1001


def test_load_keys_when_many_labels_are_meant_then_the_limit_can_be_raised(tmp_path: Path) -> None:
    labels = (np.arange(H)[:, None] // 6 * 10 + np.arange(W)[None] // 8).astype(np.uint8)
    save(tmp_path / "m.png", labels)
    with pytest.raises(MaskError, match="99 different values"):
        load(f"1001={tmp_path}/m.png")
    assert len(load(f"1001={tmp_path}/m.png", max_objects=200).objects.names) == 99


def test_flat_pixels_when_compared_with_every_block_then_equal() -> None:
    index = np.random.default_rng(3).integers(0, 2, (14, 17)).astype(np.int32)
    index[2:9, 3:12] = 1
    padded = np.pad(index, 1, mode="edge")
    middle = np.array([[len(np.unique(padded[y : y + 3, x : x + 3])) == 1 for x in range(17)] for y in range(14)])
    expected = np.array(
        [[middle[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any() for x in range(17)] for y in range(14)]
    )
    assert np.array_equal(flat_pixels(index), expected)


def test_fold_edges_when_nothing_is_soft_then_nothing_changes() -> None:
    levels = find_levels(label_map())
    assert np.array_equal(fold_edges(levels).index, levels.index)


# Soft mattes --------------------------------------------------------------------------------------------------


def test_load_keys_when_half_exr_then_every_value_is_exact(tmp_path: Path) -> None:
    matte = np.linspace(0, 1, H * W, dtype=np.float16).reshape(H, W)
    save(tmp_path / "m.exr", matte, ("A",))
    for text in (f"1001={tmp_path}/m.exr", f"hero@1001={tmp_path}/m.exr", f"hero@1001={tmp_path}/m.exr:A"):
        alpha = load(text).by_frame[1001].alpha[0]
        assert np.array_equal(alpha.astype(np.float16).view(np.uint16), matte.view(np.uint16))
        assert np.array_equal(alpha, matte.astype(np.float32))


def test_load_keys_when_named_then_alpha_if_it_says_anything_else_grey(tmp_path: Path) -> None:
    grey, alpha = (np.random.default_rng(5).random((2, H, W))).astype(np.float32)
    one, nothing = np.ones_like(alpha), np.zeros_like(alpha)
    cases = [
        (np.dstack([grey, grey, grey, alpha]), ("R", "G", "B", "A"), alpha),
        (np.dstack([grey, grey, grey, one]), ("R", "G", "B", "A"), grey),
        (np.dstack([grey, grey, grey, nothing]), ("R", "G", "B", "A"), grey),
        (np.dstack([grey, grey, grey]), ("R", "G", "B"), grey),
        (grey, ("Y",), grey),
        (np.dstack([alpha, grey]), ("other.A", "hero.A"), grey),
        (grey, ("mask.whatever",), grey),
    ]
    for i, (pixels, names, expected) in enumerate(cases):
        save(tmp_path / f"{i}.exr", pixels, names)
        assert np.array_equal(load(f"hero@1001={tmp_path}/{i}.exr").by_frame[1001].alpha[0], expected), names


def test_load_keys_when_named_label_pictures_then_one_label_is_the_object_and_several_an_error(
    tmp_path: Path,
) -> None:
    binary = (label_map() > 0).astype(np.uint8)
    save(tmp_path / "one.png", binary)
    save(tmp_path / "many.png", label_map())
    save_palette(tmp_path / "davis.png", binary, voc(2))
    save_palette(tmp_path / "grey.png", binary, np.array([[0, 0, 0], [255, 255, 255]]))
    for name in ("one", "davis", "grey"):
        assert np.array_equal(load(f"hero@1001={tmp_path}/{name}.png").by_frame[1001].alpha[0], binary), name
    with pytest.raises(MaskError, match="labels 1, 2, 3"):
        load(f"hero@1001={tmp_path}/many.png")


def blocks(values: list[int], size: int = 8) -> np.ndarray:
    """Squares of the values, apart from each other."""
    labels = np.zeros((H, W), np.int64)
    for i, value in enumerate(values):
        y, x = divmod(i, W // size)
        labels[y * size : y * size + size - 1, x * size : x * size + size - 1] = value
    return labels


@pytest.mark.parametrize(
    "values",
    [[60, 120, 180, 240], list(range(1, 71)), [85, 170, 255], [64, 128], [1, 2]],
    ids=["greys", "seventy", "to white", "two greys", "small"],
)
def test_load_keys_when_a_name_over_a_label_map_then_error_and_no_faint_matte(
    tmp_path: Path, values: list[int]
) -> None:
    labels = blocks(values)
    save(tmp_path / "m.png", labels.astype(np.uint8))
    save(tmp_path / "m.exr", labels.astype(np.float32), ("id.X",))
    for spelled in ("m.png", "m.png:Y", "m.exr"):
        with pytest.raises(MaskError, match=r"holds the labels .* not the matte of one object") as e:
            load(f"hero@1001={tmp_path}/{spelled}")
        assert "leave the name out" in str(e.value)
    assert len(load(f"1001={tmp_path}/m.png", max_objects=70).objects.names) == len(values)


def test_load_keys_when_a_name_over_a_colour_map_then_error_and_one_colour_is_full_coverage(tmp_path: Path) -> None:
    colours = np.zeros((H, W, 3), np.uint8)
    colours[10:30, 10:30] = (255, 0, 0)
    save(tmp_path / "one.png", colours)
    colours[35:50, 40:70] = (0, 0, 255)
    save(tmp_path / "two.png", colours)
    with pytest.raises(MaskError, match="#0000ff, #ff0000"):
        load(f"hero@1001={tmp_path}/two.png")
    keys = load(f"hero@1001={tmp_path}/one.png")
    assert np.array_equal(keys.by_frame[1001].alpha[0], colours[..., 0] > 0)
    assert any("#ff0000, is full coverage" in n for n in keys.notes)


def test_load_keys_when_one_flat_level_then_alike_with_and_without_a_name(tmp_path: Path) -> None:
    drawn = blocks([1, 1]) > 0
    soft = np.rint(disc(40, 30, 20) * 40).astype(np.uint8)
    save(tmp_path / "soft.png", soft)
    for value, dtype, where in ((128, np.uint8, "m.png"), (3, np.uint8, "m.png"), (700, np.uint16, "m.tif")):
        save(tmp_path / where, (drawn * value).astype(dtype))
        named, unnamed = load(f"hero@1001={tmp_path}/{where}"), load(f"1001={tmp_path}/{where}")
        assert np.array_equal(named.by_frame[1001].alpha[0], drawn), value
        assert np.array_equal(unnamed.by_frame[1001].alpha[0], drawn)
        assert any(f"{value}, is taken as full coverage" in n for n in named.notes)
    named, unnamed = load(f"hero@1001={tmp_path}/soft.png"), load(f"1001={tmp_path}/soft.png")
    assert np.array_equal(named.by_frame[1001].alpha, unnamed.by_frame[1001].alpha)


def test_load_keys_when_a_named_matte_is_soft_or_translucent_then_every_value_is_kept(tmp_path: Path) -> None:
    wide = np.tile(np.linspace(0, 255, W)[None], (H, 1))
    glass = np.zeros((H, W))
    glass[10:40, 10:40], glass[20:30, 15:30] = 255, 128
    big = np.clip((np.hypot(*np.mgrid[-300:300, -400:400]) - 60) / 1.1, 0, 255)  # each level several pixels wide
    faint = np.rint(disc(40, 30, 25, 4) * np.tile(np.linspace(20, 200, W)[None], (H, 1)))
    for i, matte in enumerate((wide, glass, big, faint)):
        pixels = np.rint(matte).astype(np.uint8)
        save(tmp_path / f"{i}.png", pixels)
        about = info(Window(0, 0, pixels.shape[1], pixels.shape[0]))
        keys = load(f"hero@1001={tmp_path}/{i}.png", about=about)
        assert np.array_equal(keys.by_frame[1001].alpha[0], pixels.astype(np.float32) / np.float32(255)), i
    notes = load(f"hero@1001={tmp_path}/1.png").notes
    assert any("128 as 50 %, 255 as 100 %" in n for n in notes)


def test_load_keys_when_channel_is_named_then_that_one_or_the_list(tmp_path: Path) -> None:
    planes = np.random.default_rng(5).random((H, W, 4)).astype(np.float16)
    names = ("R", "roto.hero.A", "roto.car.A", "depth.Z")
    save(tmp_path / "m.exr", planes, names)
    for channel, place in (("roto.car.A", 2), ("roto.car", 2), ("Red", 0), ("depth.z", 3)):
        alpha = load(f"x@1001={tmp_path}/m.exr:{channel}").by_frame[1001].alpha[0]
        assert np.array_equal(alpha, planes[..., place].astype(np.float32)), channel
    with pytest.raises(MaskError, match="no channel 'villain'") as e:
        load(f"x@1001={tmp_path}/m.exr:villain")
    assert "roto.hero.A" in str(e.value)
    with pytest.raises(MaskError, match="4 channels"):
        load(f"1001={tmp_path}/m.exr")


def test_load_keys_when_channels_of_layers_come_without_a_name_then_the_layer_is_it(tmp_path: Path) -> None:
    hero, bg = disc(30, 30, 12).astype(np.float32), disc(55, 30, 9).astype(np.float32)
    save(tmp_path / "f.exr", np.dstack([hero, bg]), ("hero.A", "bg.A"))
    keys = load(f"1001={tmp_path}/f.exr:hero.A", f"1001={tmp_path}/f.exr:bg.A")
    assert keys.objects.names == {1: "hero", 2: "bg"}
    assert np.array_equal(keys.by_frame[1001].alpha, [hero, bg])


def test_load_keys_when_values_are_wild_then_tamed_and_told(tmp_path: Path) -> None:
    matte = np.zeros((H, W), np.float32)
    matte[0, :5] = [np.nan, np.inf, -np.inf, -0.25, 1.7]
    matte[1, 0] = 0.5
    save(tmp_path / "m.exr", matte, ("A",))
    keys = load(f"1001={tmp_path}/m.exr")
    assert keys.by_frame[1001].alpha[0, 0, :5].tolist() == [0, 1, 0, 0, 1]
    assert any("not finite" in n for n in keys.notes) and any("clamped" in n for n in keys.notes)


def test_load_keys_when_matte_was_written_by_rotomem_then_objects_keep_their_names(tmp_path: Path) -> None:
    about = info()
    mattes = {1: disc(30, 30, 12).astype(np.float32), 2: disc(50, 30, 9).astype(np.float32)}
    frame = PlateFrame(1003, np.zeros((H, W, 3), np.float16), None, DISPLAY, DISPLAY, 1.0, None, 1003)
    with MatteWriter(tmp_path, info=about, objects={1: "car door", 2: "hero"}) as writer:
        writer.write(frame, mattes)
    keys = load(f"1003={writer.paths(1003)[0]}")
    assert keys.objects.names == {1: "car door", 2: "hero"}
    for k in (1, 2):
        assert np.array_equal(keys.by_frame[1003].alpha[k - 1], mattes[k].astype(np.float16).astype(np.float32))
    assert np.array_equal(
        load(f"hero@1003={writer.paths(1003)[0]}").by_frame[1003].alpha[0], mattes[2].astype(np.float16)
    )


# Ids, several keys --------------------------------------------------------------------------------------------


def test_load_keys_when_labels_and_names_meet_then_names_get_the_next_free_ids(tmp_path: Path) -> None:
    save(tmp_path / "labels.png", label_map())
    save(tmp_path / "hero.exr", disc(40, 30, 20).astype(np.float32), ("A",))
    keys = load(
        f"1005={tmp_path}/labels.png",
        f"hero@1001={tmp_path}/hero.exr",
        f"hero@1005={tmp_path}/hero.exr",
        f"obj2@1007={tmp_path}/hero.exr",
    )
    assert keys.objects.names == {4: "hero", 1: "obj1", 2: "obj2", 3: "obj3"}
    assert next(iter(keys.objects.names)) == 4  # first to appear
    assert list(keys.by_frame) == [1001, 1005, 1007]
    assert keys.by_frame[1005].objects == (1, 2, 3, 4) and keys.by_frame[1007].objects == (2,)


def test_load_keys_when_soft_mattes_overlap_then_both_are_kept(tmp_path: Path) -> None:
    save(tmp_path / "a.exr", disc(30, 30, 20).astype(np.float32), ("A",))
    save(tmp_path / "b.exr", disc(45, 30, 20).astype(np.float32), ("A",))
    key = load(f"a@1001={tmp_path}/a.exr", f"b@1001={tmp_path}/b.exr").by_frame[1001]
    assert key.alpha.shape == (2, H, W) and (key.alpha.sum(0) > 1).any()
    assert len(key.paths) == 2


def test_load_keys_when_one_object_twice_on_a_frame_then_error(tmp_path: Path) -> None:
    save(tmp_path / "a.png", (label_map() > 0) * np.uint8(255))
    save(tmp_path / "labels.png", label_map())
    for texts in (
        (f"hero@1001={tmp_path}/a.png", f"hero@1001={tmp_path}/a.png"),
        (f"1001={tmp_path}/a.png", f"1001={tmp_path}/a.png"),
        (f"1001={tmp_path}/labels.png", f"obj2@1001={tmp_path}/a.png"),
    ):
        with pytest.raises(MaskError, match="two masks show"):
            load(*texts)


def test_load_keys_when_mask_is_empty_then_only_a_name_seen_elsewhere_may_be_absent(tmp_path: Path) -> None:
    save(tmp_path / "black.png", np.zeros((H, W), np.uint8))
    save(tmp_path / "hero.png", (label_map() > 0) * np.uint8(255))
    keys = load(f"hero@1001={tmp_path}/hero.png", f"hero@1006={tmp_path}/black.png")
    assert keys.by_frame[1006].objects == (1,) and not keys.by_frame[1006].alpha.any()
    assert any("hero is absent" in n for n in keys.notes)
    with pytest.raises(MaskError, match="empty"):
        load(f"hero@1001={tmp_path}/black.png")
    with pytest.raises(MaskError, match="empty"):
        load(f"1001={tmp_path}/black.png", f"1002={tmp_path}/hero.png")


def test_load_keys_when_path_has_a_frame_pattern_then_it_is_filled_in(tmp_path: Path) -> None:
    for frame in (1001, 1004):
        save(tmp_path / f"hero.{frame}.png", (label_map() > 0) * np.uint8(255))
    keys = load(f"hero@1001={tmp_path}/hero.%04d.png", f"hero@1004={tmp_path}/hero.####.png")
    assert list(keys.by_frame) == [1001, 1004]
    assert keys.by_frame[1004].paths == (f"{tmp_path}/hero.1004.png",)
    with pytest.raises(MaskError, match="no mask file"):
        load(f"hero@1002={tmp_path}/hero.####.png")


# What cannot be used ------------------------------------------------------------------------------------------


def test_load_keys_when_frame_is_outside_of_the_range_then_error_names_the_range(tmp_path: Path) -> None:
    save(tmp_path / "m.png", label_map())
    with pytest.raises(MaskError, match="1001-1010") as e:
        load(f"1={tmp_path}/m.png")
    assert e.value.exit_code == 2 and e.value.context["frame"] == 1
    with pytest.raises(UsageError, match="no key mask"):
        load_keys([], info())


def test_load_keys_when_file_cannot_be_read_then_mask_error(tmp_path: Path) -> None:
    whole = save(tmp_path / "m.png", np.random.default_rng(0).integers(0, 2, (H, W)).astype(np.uint8)).read_bytes()
    palette = save_palette(tmp_path / "p.png", label_map(), voc(4)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cutp.png").write_bytes(palette[: len(palette) - 60])
    (tmp_path / "text.png").write_bytes(b"<html>not here</html>")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("cut", "cutp", "text", "empty", "folder", "pipe", "gone"):
        with pytest.raises(MaskError) as e:
            load(f"1001={tmp_path}/{name}.png")
        assert str(tmp_path / f"{name}.png") in str(e.value), name
        assert e.value.remedy, name


def test_load_keys_when_one_channel_of_a_luminance_chroma_file_then_no_buffer_is_overrun(shared: Path) -> None:
    path = shared / "data/exr/good/openexr-images/Chromaticities/XYZ_YC.exr"
    about = info(read_header(path).display_window)
    whole = read_still(path, channels=["R", "G", "B"]).arrays
    for name in "RGB":
        alpha = load(f"x@1001={path}:{name}", about=about).by_frame[1001].alpha[0]
        assert np.array_equal(alpha, np.clip(whole[name].astype(np.float32), 0, 1))


def test_load_keys_when_every_damaged_file_then_mask_error_or_a_mask(shared: Path) -> None:
    files = [p for p in sorted((shared / "data" / "exr" / "damaged").rglob("*")) if p.is_file()][::4]
    assert files
    for path in files:
        for text in (f"1001={path}", f"x@1001={path}"):
            with pytest.raises(MaskError):
                load(text)


@pytest.mark.parametrize("size", [(H, W + 1), (H * 2, W * 2), (W, H)])
def test_load_keys_when_size_differs_then_error_names_both(tmp_path: Path, size: tuple[int, int]) -> None:
    labels = np.zeros(size, np.uint8)
    labels[5:20, 5:20] = 1
    save(tmp_path / "m.png", labels)
    with pytest.raises(MaskError, match=f"{size[1]}x{size[0]}.*{W}x{H}") as e:
        load(f"1001={tmp_path}/m.png")
    assert "never resized" in str(e.value)
    save(tmp_path / "m.exr", labels.astype(np.float16), ("A",))
    with pytest.raises(MaskError, match=f"{size[1]}x{size[0]}.*{W}x{H}"):
        load(f"1001={tmp_path}/m.exr")


def test_load_keys_when_plate_has_overscan_then_masks_of_either_size_find_their_place(tmp_path: Path) -> None:
    canvas = Window(-8, -4, W + 8, H + 4)
    about = info(canvas=canvas, pixel_aspect=2.0)
    save(tmp_path / "display.png", label_map())
    big = np.zeros((canvas.height, canvas.width), np.uint8)
    big[0:10, 0:10] = 1
    save(tmp_path / "canvas.png", big)
    placed = load(f"1001={tmp_path}/display.png", about=about).by_frame[1001].alpha
    assert placed.shape == (3, canvas.height, canvas.width)
    assert np.array_equal(placed[0, 4:-4, 8:-8], label_map() == 1) and placed[0].sum() == (label_map() == 1).sum()
    assert np.array_equal(load(f"1001={tmp_path}/canvas.png", about=about).by_frame[1001].alpha[0], big)


def test_load_keys_when_exr_has_windows_then_they_place_the_mask(tmp_path: Path) -> None:
    about = info(canvas=Window(-8, -4, W + 8, H + 4))
    data = Window(-5, 10, 15, 40)
    matte = np.random.default_rng(2).random((30, 20)).astype(np.float32)
    save(tmp_path / "m.exr", matte, ("A",), data=data, display=DISPLAY)
    alpha = load(f"1001={tmp_path}/m.exr", about=about).by_frame[1001].alpha[0]
    assert np.array_equal(alpha[14:44, 3:23], matte) and alpha.sum(dtype=np.float64) == matte.sum(dtype=np.float64)
    far = save(tmp_path / "far.exr", matte, ("A",), data=Window(500, 500, 520, 530), display=DISPLAY)
    with pytest.raises(MaskError, match="outside"):
        load(f"1001={far}", about=about)
    over = save(tmp_path / "over.exr", matte, ("A",), data=Window(-20, 0, 0, 30), display=DISPLAY)
    keys = load(f"1001={over}", about=about)
    assert np.array_equal(keys.by_frame[1001].alpha[0][4:34, :8], matte[:, 12:])
    assert any("cropped" in n for n in keys.notes)


def test_load_keys_when_the_frame_has_no_pixels_under_the_key_then_a_warning_names_frame_and_share(
    tmp_path: Path,
) -> None:
    for frame, data in ((1001, (0, 0)), (1002, (40, 0)), (1003, (70, 50)), (1004, (0, 0))):
        width = W if frame == 1004 else W - data[0] if data[0] else W // 2
        pixels = np.full((H - data[1], width, 3), 0.5, np.float16)
        make.write_picture(tmp_path / f"plate.{frame}.exr", pixels, data=data, display=(0, 0, W, H))
    mask = np.zeros((H, W), np.uint8)
    mask[20:40, 30:50] = 255
    save(tmp_path / "m.png", mask)
    with open_plate(tmp_path / "plate.####.exr") as plate:
        about = plate.info
    for frame, share in ((1001, "50.0 %"), (1002, "50.0 %"), (1003, "all")):
        keys = load(f"hero@{frame}={tmp_path}/m.png", about=about)
        (warning,) = [n for n in keys.notes if "WARNING" in n]
        assert f"frame {frame}: {share} of the mask of hero" in warning and str(about.data_windows[frame]) in warning
        assert np.array_equal(keys.by_frame[frame].alpha[0], mask > 0)  # the network still sees all of it
    assert not any("WARNING" in n for n in load(f"hero@1004={tmp_path}/m.png", about=about).notes)


# Splines ------------------------------------------------------------------------------------------------------


def save_splines(path: Path, frames: tuple[int, ...] = (1001, 1003)) -> Path:
    """A square `hero` that moves by 10 pixels a frame, and `car`, a triangle on the first of its frames alone."""

    def square(x: float) -> Curve:
        return Curve(np.repeat(np.array([(x, 10), (x + 20, 10), (x + 20, 30), (x, 30)])[:, None], 3, axis=1))

    start = frames[0]
    hero = Shape("body", {f: square(10 + 10 * (f - start)) for f in frames})
    triangle = Curve(np.repeat(np.array([(60.0, 30.0), (70, 30), (70, 40)])[:, None], 3, axis=1))
    car = Shape("car", {start: triangle}, span=(start, start))
    path.write_text(document.write(Splines((W, H), {"hero": (hero,), "car": (car,)})))
    return path


def test_load_keys_when_splines_and_a_frame_then_drawn_between_their_keys(tmp_path: Path) -> None:
    keys = load(f"hero@1002={save_splines(tmp_path / 'roto.json')}")
    key = keys.by_frame[1002]
    assert keys.objects.names == {1: "hero"} and key.alpha[0, 10:30, 20:40].all() and key.alpha.sum() == 400


def test_load_keys_when_splines_have_no_name_then_each_object_that_is_there(tmp_path: Path) -> None:
    keys = load(f"1001={save_splines(tmp_path / 'roto.json')}")
    assert keys.objects.names == {1: "hero", 2: "car"}
    assert [float(a.sum()) for a in keys.by_frame[1001].alpha] == [400, 50]
    assert "splines, hero (" in keys.notes[0]
    about = MaskSpec(1001, str(tmp_path / "roto.json"))
    assert objects_of(about, info()) == {"hero": "hero", "car": "car"}
    assert objects_of(dataclasses.replace(about, name="prop"), info()) == {"prop": None}


def test_parse_masks_when_splines_without_a_frame_then_their_keys_on_the_plate(tmp_path: Path) -> None:
    file = str(save_splines(tmp_path / "roto.json", frames=(999, 1001, 1003)))
    assert parse_masks(f"hero={file}", info()) == [MaskSpec(1001, file, "hero"), MaskSpec(1003, file, "hero")]
    early = str(save_splines(tmp_path / "early.json", frames=(1001, 1002)))
    assert parse_masks(early, info()) == [
        MaskSpec(1001, early, "hero", "hero"),
        MaskSpec(1002, early, "hero", "hero"),
        MaskSpec(1001, early, "car", "car"),
    ]
    assert parse_masks(f"1002={file}", info()) == [MaskSpec(1002, file)]
    assert parse_masks("hero@1002=key.png", info()) == [parse_mask("hero@1002=key.png")]
    with pytest.raises(MaskError, match=r"keys on 901-902, none of them on the plate's"):
        parse_masks(f"hero={save_splines(tmp_path / 'late.json', frames=(901, 902))}", info())
    with pytest.raises(UsageError):
        parse_masks("key.png", info())


def test_load_keys_when_an_object_of_the_splines_is_chosen_then_that_one(tmp_path: Path) -> None:
    file = save_splines(tmp_path / "roto.json")
    assert load(f"prop@1001={file}:car").by_frame[1001].alpha.sum() == 50
    assert load(f"prop@1001={file}").by_frame[1001].alpha.sum() == 450, "a name that the file lacks means all of it"
    with pytest.raises(MaskError, match=r"no object 'bus'.*they hold hero, car"):
        load(f"prop@1001={file}:bus")


def test_load_keys_when_the_canvas_has_overscan_then_splines_count_from_the_display_window(tmp_path: Path) -> None:
    about = info(display=Window(100, 50, 100 + W, 50 + H), canvas=Window(90, 40, 110 + W, 60 + H))
    alpha = load(f"hero@1001={save_splines(tmp_path / 'roto.json')}", about=about).by_frame[1001].alpha[0]
    assert alpha.shape == (H + 20, W + 20) and alpha[20:40, 20:40].all() and alpha.sum() == 400


def test_load_keys_when_splines_are_of_another_format_then_both_sizes(tmp_path: Path) -> None:
    file = save_splines(tmp_path / "roto.json")
    with pytest.raises(SplineError, match=f"drawn on {W}x{H}, the plate is 640x480"):
        load(f"hero@1001={file}", about=info(display=Window(0, 0, 640, 480)))


# Mattes that rotomem or a renderer put together -------------------------------------------------------------


def delivered(folder: Path, kind: str, names: tuple[str, ...], planes: np.ndarray) -> Path:
    """A file of mattes as rotomem delivers it beside them."""
    about = info()
    with MatteWriter(
        folder, info=about, objects=dict(enumerate(names, 1)), settings=MatteSettings(also=(kind,))
    ) as writer:
        empty = np.broadcast_to(np.float16(0), (H, W, 3))
        writer.write(PlateFrame(1001, empty, None, DISPLAY, DISPLAY, 1.0, None, 1001), dict(enumerate(planes, 1)))
    return writer.paths_by_kind(1001)[kind][0]


def apart(count: int) -> np.ndarray:
    """Soft mattes [count, H, W] in eighths that sum to at most 1."""
    shares = np.random.default_rng(5).multinomial(8, [1 / (count + 1)] * (count + 1), (H, W))
    return np.moveaxis(shares, -1, 0)[:count].astype(np.float32) / 8


NAMES = ("hero arm", "set/car, door", "Rémi")


@pytest.mark.parametrize("kind", ["crypto", "packed"])
def test_load_keys_when_mattes_were_delivered_together_then_each_comes_back_by_name(
    tmp_path: Path, kind: str
) -> None:
    planes = apart(3)
    path = delivered(tmp_path, kind, NAMES, planes)
    keys = load_keys([MaskSpec(1001, str(path))], info())
    assert tuple(keys.objects.names.values()) == NAMES
    assert np.array_equal(keys.by_frame[1001].alpha, planes)
    one = load_keys([MaskSpec(1001, str(path), "Rémi")], info())
    assert tuple(one.objects.names.values()) == ("Rémi",) and np.array_equal(one.by_frame[1001].alpha[0], planes[2])
    for name, channel in objects_of(MaskSpec(1001, str(path)), info()).items():
        again = load_keys([MaskSpec(1001, str(path), "x", channel)], info())
        assert np.array_equal(again.by_frame[1001].alpha[0], planes[NAMES.index(name)])


def test_load_keys_when_cryptomatte_then_names_choose_join_and_declare_absence(tmp_path: Path) -> None:
    planes = apart(3)
    planes[1] = 0
    path = delivered(tmp_path, "crypto", NAMES, planes)
    assert tuple(load(f"1001={path}").objects.names.values()) == ("hero arm", "Rémi")  # those seen
    joined = load(f"all@1001={path}:Rémi, hero arm")
    assert np.array_equal(joined.by_frame[1001].alpha[0], planes[0] + planes[2])
    gone = load(f"set/car, door@1002={path}", f"Rémi@1001={path}", f"set/car, door@1001={path}:hero arm")
    assert not gone.by_frame[1002].alpha.any() and any("1002: set/car, door is absent" in n for n in gone.notes)
    plain = load(f"x@1001={path}:RotoObject00.G")  # a channel is what it is
    assert np.array_equal(plain.by_frame[1001].alpha[0], planes.max(0))
    with pytest.raises(MaskError, match="no object 'hero'") as e:
        load(f"hero@1001={path}")
    assert "hero arm, set/car, door, Rémi" in str(e.value) and "NAME@FRAME=PATH:OBJECT" in str(e.value)
    with pytest.raises(MaskError, match="empty"):
        load(f"1001={delivered(tmp_path / 'none', 'crypto', NAMES, 0 * planes)}")


def test_load_keys_when_a_renderer_put_several_cryptomattes_in_then_the_one_with_the_name(tmp_path: Path) -> None:
    names = tuple(f"{layer}00.{c}" for layer in ("CryptoAsset", "CryptoMaterial") for c in "rgba")
    pixels = np.zeros((H, W, 8), np.float32)
    told = {}
    for at, (layer, name) in enumerate((("CryptoAsset", "prop"), ("CryptoMaterial", "steel"))):
        pixels[:, at::2, 4 * at] = np.uint32(name_id(name)).view(np.float32)
        pixels[:, at::2, 4 * at + 1] = 0.5
        told[f"cryptomatte/{at}/name"] = layer
        told[f"cryptomatte/{at}/manifest"] = json.dumps({name: f"{name_id(name):08x}"})
    path = save(tmp_path / "render.exr", pixels, names, **told)
    alpha = load(f"steel@1001={path}").by_frame[1001].alpha[0]
    assert not alpha[:, 0].any() and (alpha[:, 1] == 0.5).all()
    with pytest.raises(MaskError, match="2 Cryptomattes: CryptoAsset, CryptoMaterial"):
        load(f"1001={path}")
    with pytest.raises(MaskError, match="shows 70 objects"):
        many = tuple(f"part {n}" for n in range(70))
        load(f"1001={delivered(tmp_path, 'crypto', many, np.eye(70, H * W, dtype=np.float32).reshape(70, H, W))}")
