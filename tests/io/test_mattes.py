"""Mattes out: geometry, values, metadata, whole files, resuming. Read back with OpenImageIO, not with our reader."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import fileseq
import make
import numpy as np
import OpenImageIO as oiio
import pytest

from rotomem.errors import OutputError, ShapeError, UsageError
from rotomem.io.atomic import PART_SUFFIX, part_path, remove_leftovers, whole_file
from rotomem.io.exr import TypedValue, read_header
from rotomem.io.mattes import MatteSettings, MatteWriter
from rotomem.io.plate import PlateInfo, open_plate
from rotomem.types import PlateFrame, Window

DISPLAY = Window(0, 0, 40, 24)
RNG = np.random.default_rng(7)


def info(display: Window = DISPLAY, canvas: Window | None = None, **more: Any) -> PlateInfo:
    values: dict[str, Any] = {
        "path": "/nowhere/plates/sh010.%04d.exr",
        "kind": "exr",
        "frames": (1001, 1002, 1003),
        "missing": (),
        "padding": 4,
        "stem": "sh010",
        "display_window": display,
        "canvas": canvas or display,
        **more,
    }
    return PlateInfo(**values)


def plate_frame(about: PlateInfo, frame: int = 1001, data: Window | None = None, **more: Any) -> PlateFrame:
    data = data or about.display_window
    rgb = more.pop("rgb", None)
    if rgb is None:
        rgb = RNG.random((data.height, data.width, 3)).astype(np.float16)
    values: dict[str, Any] = {
        "frame": frame,
        "rgb": rgb,
        "alpha": None,
        "data_window": data,
        "display_window": about.display_window,
        "pixel_aspect": about.pixel_aspect,
        "path": Path(f"/nowhere/plates/sh010.{frame}.exr"),
        "source_frame": frame,
        **more,
    }
    return PlateFrame(**values)


def soft(about: PlateInfo) -> np.ndarray:
    return RNG.random((about.canvas.height, about.canvas.width)).astype(np.float32)


def read(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    inp = oiio.ImageInput.open(os.fspath(path))
    assert inp is not None, oiio.geterror()
    spec = inp.spec()
    pixels = {}
    for i, name in enumerate(spec.channelnames):
        kind = spec.channelformats[i] if spec.channelformats else spec.format
        pixels[name] = inp.read_image(0, 0, i, i + 1, kind)[..., 0]
    inp.close()
    return spec, pixels


# Values and channels ----------------------------------------------------------------------------------------


def test_write_when_one_object_then_channel_a_holds_its_exact_half_values(tmp_path: Path) -> None:
    about = info()
    halves = np.linspace(0, 1, 40 * 24, dtype=np.float16).reshape(24, 40)
    with MatteWriter(tmp_path / "out", info=about, objects={1: "hero"}) as writer:
        writer.write(plate_frame(about), {1: halves.astype(np.float32)})
    spec, pixels = read(tmp_path / "out" / "sh010_matte.1001.exr")
    assert spec.channelnames == ("A",) and str(spec.format) == "half"
    assert spec.getattribute("compression") == "zip"
    assert spec.alpha_channel == 0
    assert pixels["A"].dtype == np.float16 and np.array_equal(pixels["A"].view(np.uint16), halves.view(np.uint16))


def test_write_when_depth_float_then_float_values_are_exact(tmp_path: Path) -> None:
    about = info()
    matte = soft(about)
    with MatteWriter(
        tmp_path / "m.%04d.exr", info=about, objects={1: "a"}, settings=MatteSettings(depth="float")
    ) as w:
        w.write(plate_frame(about), {1: matte})
    spec, pixels = read(tmp_path / "m.1001.exr")
    assert str(spec.format) == "float" and np.array_equal(pixels["A"], matte)


def test_write_when_several_objects_then_one_layer_each_and_absent_ones_are_zero(tmp_path: Path) -> None:
    about = info()
    hero = soft(about)
    with MatteWriter(tmp_path, info=about, objects={1: "hero", 2: "car door", 5: "R"}) as writer:
        writer.write(plate_frame(about), {1: hero})
        writer.write(plate_frame(about, 1002), {})
        assert writer.notes and "car_door" in writer.notes[0]
    for frame, expected in ((1001, hero.astype(np.float16)), (1002, np.zeros_like(hero))):
        spec, pixels = read(tmp_path / f"sh010_matte.{frame}.exr")
        assert set(spec.channelnames) == {"hero.A", "car_door.A", "R_matte.A"}
        assert np.array_equal(pixels["hero.A"], expected)
        assert not pixels["car_door.A"].any() and not pixels["R_matte.A"].any()
        assert json.loads(spec.getattribute("rotomem/objects"))["car_door"] == "car door"


def test_write_when_values_leave_the_range_then_clamped_and_nan_is_zero(tmp_path: Path) -> None:
    about = info()
    matte = np.zeros((24, 40), np.float32)
    matte[0, :4] = [np.nan, -0.5, 1.5, np.inf]
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}) as writer:
        writer.write(plate_frame(about), {1: matte})
    assert read(tmp_path / "sh010_matte.1001.exr")[1]["A"][0, :4].tolist() == [0, 0, 1, 1]


def test_write_when_rgb_keep_then_plate_rgb_is_bit_exact(tmp_path: Path) -> None:
    about = info()
    bits = RNG.integers(0, 1 << 16, (24, 40, 3)).astype(np.uint16)
    rgb = bits.view(np.float16)
    matte = soft(about)
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}, settings=MatteSettings(rgb="keep")) as writer:
        writer.write(
            plate_frame(about, rgb=rgb, metadata={"chromaticities": TypedValue("float[8]", (0.5,) * 8)}), {1: matte}
        )
    spec, pixels = read(tmp_path / "sh010_matte.1001.exr")
    assert spec.channelnames == ("R", "G", "B", "A")
    for i, name in enumerate("RGB"):
        assert np.array_equal(pixels[name].view(np.uint16), bits[..., i]), name
    assert np.array_equal(pixels["A"], matte.astype(np.float16))
    assert spec.getattribute("chromaticities") == (0.5,) * 8


def test_write_when_float_plate_is_kept_then_rgb_float_and_matte_half(tmp_path: Path) -> None:
    about = info()
    rgb = (RNG.random((24, 40, 3)) * 100 - 1).astype(np.float32)
    with MatteWriter(tmp_path, info=about, objects={1: "a", 2: "bb"}, settings=MatteSettings(rgb="keep")) as writer:
        writer.write(plate_frame(about, rgb=rgb), {1: soft(about)})
    _, pixels = read(tmp_path / "sh010_matte.1001.exr")
    assert [pixels[n].dtype for n in ("R", "a_matte.A", "bb.A")] == [np.float32, np.float16, np.float16]
    assert np.array_equal(np.stack([pixels[n] for n in "RGB"], -1), rgb)


def test_write_when_integer_plate_is_kept_then_values_invert_exactly(tmp_path: Path) -> None:
    about = info(pixel_type="uint16")
    rgb = RNG.integers(0, 1 << 16, (24, 40, 3)).astype(np.uint16)
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}, settings=MatteSettings(rgb="keep")) as writer:
        writer.write(plate_frame(about, rgb=rgb), {1: soft(about)})
    _, pixels = read(tmp_path / "sh010_matte.1001.exr")
    assert np.array_equal(np.rint(pixels["G"] * 65535.0).astype(int), rgb[..., 1])


def test_write_when_premult_of_several_then_rgb_and_a_follow_their_union(tmp_path: Path) -> None:
    about = info()
    rgb = np.full((24, 40, 3), 2.0, np.float16)
    rgb[0, 0] = np.inf
    one, two = np.zeros((2, 24, 40), np.float32)
    one[:, :20] = 0.75
    two[:, 10:] = 0.5
    one[0, 0] = two[0, 0] = 0
    with MatteWriter(tmp_path, info=about, objects={1: "one", 2: "two"}, settings=MatteSettings(rgb="premult")) as w:
        w.write(plate_frame(about, rgb=rgb), {1: one, 2: two})
    spec, pixels = read(tmp_path / "sh010_matte.1001.exr")
    assert set(spec.channelnames) == {"R", "G", "B", "A", "one.A", "two.A"}
    assert pixels["A"][5, [0, 15, 30]].tolist() == [0.75, 1.0, 0.5]
    assert pixels["G"][5, [0, 15, 30]].tolist() == [1.5, 2.0, 1.0]
    assert pixels["R"][0, 0] == 0  # inf outside of the objects does not become NaN
    assert spec.getattribute("rotomem/rgb") == "premultiplied"


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_write_when_premult_of_wild_pixels_then_finite_but_under_full_alpha(tmp_path: Path, dtype: type) -> None:
    about = info()
    rgb = np.full((24, 40, 3), 0.5, dtype)
    rgb[:3, :3] = np.array([np.nan, np.inf, -np.inf], dtype)[:, None, None]
    matte = np.zeros((24, 40), np.float32)
    matte[:, 1:] = (1e-6, 1.0, *[0.25] * 37)
    with MatteWriter(tmp_path, info=about, objects={1: "a"}, settings=MatteSettings(rgb="premult")) as writer:
        writer.write(plate_frame(about, rgb=rgb), {1: matte})
    _, pixels = read(tmp_path / "sh010_matte.1001.exr")
    assert not pixels["R"][:3, :2].any()
    assert np.array_equal(pixels["R"][:3, 2], rgb[:3, 0, 0], equal_nan=True)
    assert (pixels["G"][5, [0, 2, 3]] == [0, 0.5, 0.125]).all()


@pytest.mark.parametrize("rgb", ["keep", "premult"])
def test_write_when_a_png_plate_goes_along_then_its_colour_tag_does_too(tmp_path: Path, rgb: str) -> None:
    make.write_picture(
        tmp_path / "p.0001.png", make.ramp(24, 40, 3, np.uint8), attributes={"oiio:ColorSpace": "sRGB"}
    )
    with (
        open_plate(tmp_path / "p.0001.png") as plate,
        MatteWriter(tmp_path / "out", info=plate.info, objects={1: "a"}, settings=MatteSettings(rgb=rgb)) as writer,
    ):
        writer.write(plate.read(1), {1: np.ones((24, 40), np.float32)})
    (written,) = (tmp_path / "out").iterdir()
    assert read_header(written).colour_hints["colorInteropID"] == "srgb_rec709_scene"


def test_settings_when_compression_is_spelled_otherwise_then_zip_all_the_same(tmp_path: Path) -> None:
    assert MatteSettings(compression="ZIP") == MatteSettings(compression="zip")
    with pytest.raises(UsageError, match="lossless, but few programs"):
        MatteSettings(compression="htj2k256")


def test_write_when_per_object_then_one_sequence_each_with_channel_a(tmp_path: Path) -> None:
    about = info()
    mattes = {1: soft(about), 2: soft(about)}
    objects = {1: "hero", 2: "car door"}
    with MatteWriter(tmp_path / "o", info=about, objects=objects, settings=MatteSettings(per_object=True)) as writer:
        writer.write(plate_frame(about), mattes)
        assert writer.paths(1001)[1] == tmp_path / "o" / "car_door" / "sh010_matte_car_door.1001.exr"
    with MatteWriter(
        tmp_path / "p.####.exr", info=about, objects=objects, settings=MatteSettings(per_object=True)
    ) as w:
        w.write(plate_frame(about), mattes)
    for k, path in ((1, tmp_path / "o/hero/sh010_matte_hero.1001.exr"), (2, tmp_path / "p_car_door.1001.exr")):
        spec, pixels = read(path)
        assert spec.channelnames == ("A",) and np.array_equal(pixels["A"], mattes[k].astype(np.float16))


# Geometry and metadata --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("display", "data"),
    [
        (Window(0, 0, 40, 24), Window(5, 3, 30, 20)),
        (Window(0, 0, 40, 24), Window(-6, -4, 50, 30)),
        (Window(-10, 7, 30, 31), Window(-3, 2, 12, 15)),
        (Window(100, 50, 140, 74), Window(0, 0, 20, 10)),
    ],
    ids=["crop", "overscan", "negative", "apart"],
)
def test_write_when_windows_differ_then_they_are_the_plates_and_pixels_stay_in_place(
    tmp_path: Path, display: Window, data: Window
) -> None:
    about = info(display, display.union(data).union(Window(-8, -8, 60, 40)), pixel_aspect=2.0)
    matte = soft(about)
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}) as writer:
        writer.write(plate_frame(about, data=data), {1: matte})
    spec, pixels = read(tmp_path / "sh010_matte.1001.exr")
    assert (spec.x, spec.y, spec.width, spec.height) == (data.x0, data.y0, data.width, data.height)
    assert (spec.full_x, spec.full_y) == (display.x0, display.y0)
    assert (spec.full_width, spec.full_height) == (display.width, display.height)
    assert spec.getattribute("PixelAspectRatio") == 2.0
    assert np.array_equal(pixels["A"], matte[data.slices_in(about.canvas)].astype(np.float16))


def test_write_when_data_window_leaves_the_canvas_then_the_rest_is_zero(tmp_path: Path) -> None:
    about = info()
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}) as writer:
        writer.write(plate_frame(about, data=Window(-5, 0, 45, 24)), {1: np.ones((24, 40), np.float32)})
    _, pixels = read(tmp_path / "sh010_matte.1001.exr")
    assert pixels["A"].shape == (24, 50) and pixels["A"].sum() == 24 * 40 and not pixels["A"][:, :5].any()


def test_write_when_plate_has_metadata_then_it_is_carried_and_ours_is_added(tmp_path: Path) -> None:
    about = info(fps=Fraction(24000, 1001))
    carried = {
        "Copyright": "studio",
        "DateTime": "2024:05:06 07:08:09",
        "smpte:TimeCode": TypedValue("timecode", (0x01020304, 7)),
        "smpte:KeyCode": TypedValue("keycode", (1, 2, 3, 4, 5, 4, 64)),
        "camera/iso": 800,
        "lens": 0.25,
        "acesImageContainerFlag": 1,
        "chromaticities": TypedValue("float[8]", (0.5,) * 8),
        "rotomem/model": "an older run's",
    }
    told = {
        "version": "0.1.0",
        "model": "xmem-s",
        "weights": "sha256:abc",
        "colour": "ACEScg -> sRGB",
        "rotomem/note": "x",
    }
    with MatteWriter(tmp_path, info=about, objects={1: "héro"}, provenance=told) as writer:
        writer.write(plate_frame(about, metadata=carried), {1: soft(about)}, keys="1001")
    spec, _ = read(tmp_path / "sh010_matte.1001.exr")
    found = {a.name: a.value for a in spec.extra_attribs}
    assert found["Copyright"] == "studio" and found["DateTime"] == "2024:05:06 07:08:09"
    assert found["smpte:TimeCode"] == (0x01020304, 7) and found["smpte:KeyCode"] == (1, 2, 3, 4, 5, 4, 64)
    assert found["camera/iso"] == 800 and found["lens"] == 0.25
    assert tuple(found["framesPerSecond"]) == (24000, 1001)
    assert found["rotomem/version"] == "0.1.0" and found["rotomem/model"] == "xmem-s"
    assert found["rotomem/weights"] == "sha256:abc" and found["rotomem/keys"] == "1001"
    assert found["rotomem/colour"] == "ACEScg -> sRGB" and found["rotomem/note"] == "x"
    assert json.loads(found["rotomem/objects"]) == {"A": "héro"}
    assert len(found["rotomem/settings"]) == 32
    assert found["colorInteropID"] == "data" and "chromaticities" not in found
    assert "acesImageContainerFlag" not in found


def test_write_when_plate_has_every_type_of_attribute_then_each_comes_back(tmp_path: Path, shared: Path) -> None:
    plate = shared / "data/exr/good/openexr-tests/v1.7.test.interleaved.exr"
    about = info()
    carried = read_header(plate).metadata
    kept = [k for k, v in carried.items() if isinstance(v, TypedValue) and k != "chromaticities"]
    assert {carried[k].type for k in kept} >= {"double", "vector2i", "matrixd"}
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}) as writer:
        writer.write(plate_frame(about, metadata=carried), {1: soft(about)})
    again = read_header(tmp_path / "sh010_matte.1001.exr").metadata
    assert [again.get(k) for k in kept] == [carried[k] for k in kept]


def test_write_when_frame_was_held_then_time_code_moves_on(tmp_path: Path) -> None:
    about = info(fps=Fraction(24))
    held = plate_frame(
        about, 1003, source_frame=1001, metadata={"smpte:TimeCode": TypedValue("timecode", (0x01020323, 9))}
    )
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}) as writer:
        writer.write(held, {1: soft(about)})
    spec, _ = read(tmp_path / "sh010_matte.1003.exr")
    assert {a.name: a.value for a in spec.extra_attribs}["smpte:TimeCode"] == (0x01020401, 9)


def test_write_when_movie_plate_then_every_frame_gets_its_time_code(tmp_path: Path) -> None:
    about = info(fps=Fraction(24), timecode="01:00:00:23", kind="movie", path="/nowhere/a.mov")
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}) as writer:
        writer.write(plate_frame(about, 1002), {1: soft(about)})
    spec, _ = read(tmp_path / "sh010_matte.1002.exr")
    assert {a.name: a.value for a in spec.extra_attribs}["smpte:TimeCode"][0] == 0x01000100


def test_write_when_run_twice_then_bytes_are_equal(tmp_path: Path) -> None:
    about = info()
    matte = soft(about)
    frame = plate_frame(about)
    for kind, name in (("exr", "sh010_matte.1001.exr"), ("png", "sh010_matte.1001.png"), ("mov", "sh010_matte.mov")):
        made = []
        for run in range(2):
            out = tmp_path / f"{kind}{run}"
            with MatteWriter(out, info=about, objects={1: "hero"}, settings=MatteSettings(format=kind)) as writer:
                writer.write(frame, {1: matte})
            made.append((out / name).read_bytes())
            time.sleep(1.1 if run == 0 and kind == "exr" else 0)  # a date in the header would show
        assert made[0] == made[1], kind


# Names and settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "frame", "name"),
    [
        ("{t}/new", 7, "new/sh010_matte.0007.exr"),
        ("{t}/new/", 1001, "new/sh010_matte.1001.exr"),
        ("{t}/hero.%04d.exr", 7, "hero.0007.exr"),
        ("{t}/hero.%06d.exr", -3, "hero.-00003.exr"),
        ("{t}/hero.####.exr", 12345, "hero.12345.exr"),
        ("{t}/hero_#.exr", 7, "hero_0007.exr"),
        ("{t}/hero_@@@@@.exr", 7, "hero_00007.exr"),
        ("{t}/hero.$F4.exr", 7, "hero.0007.exr"),
        ("{t}/hero.%d.png", 7, "hero.7.png"),
        ("{t}/x/hero.MOV", 7, "x/hero.MOV"),
        ("{t}/v1.2", 7, "v1.2/sh010_matte.0007.exr"),
    ],
)
def test_path_when_out_is_spelled_in_any_way_then_the_frame_has_its_place(
    tmp_path: Path, out: str, frame: int, name: str
) -> None:
    writer = MatteWriter(out.format(t=tmp_path), info=info(), objects={1: "hero"})
    assert writer.paths(frame)[0] == tmp_path / name


def test_path_when_plate_is_padded_wider_or_has_views_then_the_folder_name_follows(tmp_path: Path) -> None:
    about = info(padding=6, views=("left", "right"), view="right")
    assert MatteWriter(tmp_path, info=about, objects={1: "a"}).paths(12)[0].name == "sh010_right_matte.000012.exr"
    writer = MatteWriter(tmp_path / "%V" / "m_%v.%04d.exr", info=about, objects={1: "a"})
    assert writer.paths(12)[0] == tmp_path / "right" / "m_r.0012.exr"


@pytest.mark.parametrize(
    "out",
    ["m.%04d.jpg", "m.mp4", "m.%04d.tif", "m.exr", "m.%04d.%04d.exr", "%04d/m.%04d.exr", "m.%04d", "m.%04d.mov", ""],
)
def test_writer_when_out_cannot_be_meant_then_usage_error_with_a_remedy(tmp_path: Path, out: str) -> None:
    with pytest.raises(UsageError) as e:
        MatteWriter(str(tmp_path / out) if out else "", info=info(), objects={1: "hero"})
    assert e.value.remedy


@pytest.mark.parametrize("name", ["dwaa", "dwab", "b44", "b44a", "pxr24", "DWAA", "dwaa:45", "nonsense", "htj2k"])
def test_settings_when_compression_is_lossy_or_unknown_then_refused(name: str) -> None:
    with pytest.raises(UsageError, match="compression"):
        MatteSettings(compression=name)


@pytest.mark.parametrize("name", ["none", "rle", "zips", "zip", "piz", "zstd"])
def test_write_when_compression_is_lossless_then_the_file_has_it_and_values_stay(tmp_path: Path, name: str) -> None:
    about = info()
    matte = soft(about)
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}, settings=MatteSettings(compression=name)) as writer:
        writer.write(plate_frame(about), {1: matte})
    spec, pixels = read(tmp_path / "sh010_matte.1001.exr")
    assert spec.getattribute("compression") == name and np.array_equal(pixels["A"], matte.astype(np.float16))


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "tiff"},
        {"depth": "12"},
        {"format": "png", "depth": "half"},
        {"rgb": "yes"},
        {"format": "exr", "depth": "8"},
    ],
)
def test_settings_when_values_contradict_then_usage_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        MatteSettings(**wrong)


def test_writer_when_format_contradicts_the_name_then_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="format"):
        MatteWriter(tmp_path / "a.%04d.exr", info=info(), objects={1: "a"}, settings=MatteSettings(format="png"))
    with pytest.raises(UsageError, match="RGB"):
        MatteWriter(tmp_path, info=info(), objects={1: "a"}, settings=MatteSettings(format="png", rgb="keep"))
    with pytest.raises(UsageError, match="no object"):
        MatteWriter(tmp_path, info=info(), objects={})


def test_write_when_the_caller_errs_then_it_is_told(tmp_path: Path) -> None:
    writer = MatteWriter(tmp_path, info=info(), objects={1: "hero"})
    with pytest.raises(ShapeError, match="canvas"):
        writer.write(plate_frame(info()), {1: np.zeros((5, 5), np.float32)})
    with pytest.raises(UsageError, match="object 4"):
        writer.write(plate_frame(info()), {4: np.zeros((24, 40), np.float32)})


# PNG and movies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "top"), [("8", 255), ("16", 65535)])
def test_write_when_png_then_grey_on_the_display_window(tmp_path: Path, depth: str, top: int) -> None:
    about = info(canvas=Window(-4, -4, 44, 28))
    matte = soft(about)
    with MatteWriter(
        tmp_path,
        info=about,
        objects={1: "hero"},
        settings=MatteSettings(format="png", depth=depth),
        provenance={"model": "m"},
    ) as writer:
        writer.write(plate_frame(about, data=Window(3, 3, 20, 20)), {1: matte})
        assert writer.is_current(1001)
    spec, pixels = read(tmp_path / "sh010_matte.1001.png")
    assert spec.nchannels == 1 and (spec.width, spec.height) == (40, 24)
    assert np.array_equal(pixels["Y"], np.rint(matte[4:-4, 4:-4].astype(float) * top).astype(int))
    assert spec.getattribute("rotomem/model") == "m"


def test_write_when_png_of_several_objects_then_own_files_and_a_note(tmp_path: Path) -> None:
    about = info()
    with MatteWriter(
        tmp_path, info=about, objects={1: "hero", 2: "car"}, settings=MatteSettings(format="png")
    ) as writer:
        writer.write(plate_frame(about), {2: np.ones((24, 40), np.float32)})
        assert any("own files" in note for note in writer.notes)
    assert not read(tmp_path / "hero" / "sh010_matte_hero.1001.png")[1]["Y"].any()
    assert (read(tmp_path / "car" / "sh010_matte_car.1001.png")[1]["Y"] == 65535).all()


@pytest.mark.parametrize("depth", ["8", "16"])
def test_write_when_png_keeps_rgb_then_plate_values_are_exact_under_zero_alpha(tmp_path: Path, depth: str) -> None:
    about = info(pixel_type="uint8", kind="png")
    rgb = RNG.integers(0, 256, (24, 40, 3)).astype(np.uint8)
    settings = MatteSettings(format="png", depth=depth, rgb="keep")
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}, settings=settings) as writer:
        writer.write(plate_frame(about, rgb=rgb), {1: np.zeros((24, 40), np.float32)})
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    inp = oiio.ImageInput.open(str(tmp_path / "sh010_matte.1001.png"), config)
    pixels = inp.read_image(inp.spec().format)
    assert np.array_equal(pixels[..., :3], rgb.astype(np.uint16) * (257 if depth == "16" else 1))
    assert not pixels[..., 3].any()


def movie_frames(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        about = {
            "rate": stream.average_rate,
            "format": stream.codec_context.pix_fmt,
            "codec": stream.codec_context.name,
            "timecode": stream.metadata.get("timecode"),
            "tags": dict(container.metadata),
        }
        frames = []
        for picture in container.decode(video=0):
            plane = picture.planes[3]
            rows = np.frombuffer(plane, np.uint16).reshape(plane.height, plane.line_size // 2)
            frames.append(rows[:, : picture.width] / 4095)
    return about, frames


def test_write_when_movie_then_prores_4444_with_alpha_rate_and_time_code(tmp_path: Path) -> None:
    about = info(Window(0, 0, 51, 37), fps=Fraction(24000, 1001), timecode="01:00:00:00")
    mattes = [soft(about) for _ in range(3)]
    out = tmp_path / "hero.mov"
    with MatteWriter(out, info=about, objects={1: "hero"}, provenance={"model": "m"}) as writer:
        for i, matte in enumerate(mattes):
            writer.write(plate_frame(about, 1001 + i), {1: matte})
            assert not out.exists()  # it appears when it is whole
        assert not writer.is_current(1001)
    told, frames = movie_frames(out)
    assert told["rate"] == Fraction(24000, 1001) and told["codec"] == "prores" and "yuva444" in told["format"]
    assert told["timecode"] == "01:00:00:00" and told["tags"]["rotomem/model"] == "m"
    assert len(frames) == 3
    for matte, frame in zip(mattes, frames, strict=True):
        assert np.abs(matte - frame).max() <= 0.5 / 1023 + 1 / 4095
    again = MatteWriter(out, info=about, objects={1: "hero"}, provenance={"model": "m"})
    assert [again.is_current(f) for f in (1000, 1001, 1003)] == [False, True, True]
    assert not MatteWriter(out, info=about, objects={1: "hero"}, provenance={"model": "n"}).is_current(1001)
    gap = replace(about, frames=(1001, 1002, 1004), missing=(1003,))  # skipped: three pictures are all there is
    assert MatteWriter(out, info=gap, objects={1: "hero"}, provenance={"model": "m"}).is_current(1004)
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    assert not MatteWriter(out, info=about, objects={1: "hero"}, provenance={"model": "m"}).is_current(1001)


def test_write_when_movie_comes_out_of_order_or_fails_then_nothing_is_left(tmp_path: Path) -> None:
    about = info()
    with (
        pytest.raises(OutputError, match="in order"),
        MatteWriter(tmp_path / "m.mov", info=about, objects={1: "a"}) as w,
    ):
        w.write(plate_frame(about, 1002), {1: soft(about)})
        w.write(plate_frame(about, 1001), {1: soft(about)})
    assert os.listdir(tmp_path) == []


def test_write_when_movie_carries_the_plate_then_its_colours_come_back(tmp_path: Path) -> None:
    about = info(pixel_type="uint8", kind="png")
    rgb = np.zeros((24, 40, 3), np.uint8)
    rgb[:] = (200, 40, 90)
    with MatteWriter(tmp_path / "m.mov", info=about, objects={1: "a"}, settings=MatteSettings(rgb="keep")) as writer:
        writer.write(plate_frame(about, rgb=rgb), {1: np.full((24, 40), 0.5, np.float32)})
    with av.open(str(tmp_path / "m.mov")) as container:
        picture = next(container.decode(video=0))
        seen = picture.reformat(format="rgb24").to_ndarray()
    assert np.abs(seen.astype(int) - rgb).max() <= 3


# Whole or not at all ----------------------------------------------------------------------------------------


def test_is_current_when_file_is_missing_cut_changed_or_foreign_then_false(tmp_path: Path) -> None:
    about = info()
    objects = {1: "hero"}
    writer = MatteWriter(tmp_path, info=about, objects=objects, provenance={"model": "m", "keys": "1001 abc"})
    path = writer.paths(1001)[0]
    assert not writer.is_current(1001)
    writer.write(plate_frame(about), {1: soft(about)})
    whole = path.read_bytes()
    assert writer.is_current(1001)
    assert not MatteWriter(
        tmp_path, info=about, objects=objects, provenance={"model": "m", "keys": "1001 abd"}
    ).is_current(1001)
    assert not MatteWriter(tmp_path, info=about, objects={1: "villain"}, provenance={"model": "m"}).is_current(1001)
    other = MatteSettings(compression="zips")
    told = {"model": "m", "keys": "1001 abc"}
    assert not MatteWriter(tmp_path, info=about, objects=objects, settings=other, provenance=told).is_current(1001)
    for damaged in (whole[: len(whole) * 2 // 3], b"", whole[:40], b"<html>"):
        path.write_bytes(damaged)
        assert not writer.is_current(1001)
        writer.write(plate_frame(about), {1: soft(about)})  # and a damaged one is replaced
        assert writer.is_current(1001)


def test_is_current_when_one_object_of_several_is_missing_then_false(tmp_path: Path) -> None:
    about = info()
    writer = MatteWriter(tmp_path, info=about, objects={1: "a1", 2: "b1"}, settings=MatteSettings(per_object=True))
    writer.write(plate_frame(about), {})
    assert writer.is_current(1001)
    writer.paths(1001)[1].unlink()
    assert not writer.is_current(1001)


def test_write_when_a_picture_of_the_artist_is_in_the_way_then_it_stays(tmp_path: Path) -> None:
    about = info()
    path = tmp_path / "hero.1001.exr"
    spec = oiio.ImageSpec(4, 4, 1, "half")
    out = oiio.ImageOutput.create(str(path))
    assert out.open(str(path), spec) and out.write_image(np.ones((4, 4, 1), np.float16)) and out.close()
    before = path.read_bytes()
    writer = MatteWriter(tmp_path / "hero.%04d.exr", info=about, objects={1: "hero"})
    with pytest.raises(OutputError, match="did not write") as e:
        writer.write(plate_frame(about), {1: soft(about)})
    assert e.value.remedy and e.value.context["path"] == path
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]
    guarded = MatteWriter(
        tmp_path / "hero.%04d.exr", info=about, objects={1: "hero"}, protect=[path], replace_foreign=True
    )
    with pytest.raises(OutputError, match="key mask"):
        guarded.write(plate_frame(about), {1: soft(about)})
    assert path.read_bytes() == before
    asked = MatteWriter(tmp_path / "hero.%04d.exr", info=about, objects={1: "hero"}, replace_foreign=True)
    asked.write(plate_frame(about), {1: soft(about)})
    assert asked.is_current(1001)


def test_writer_when_names_are_no_text_then_output_error_and_attributes_are_spelled(tmp_path: Path) -> None:
    bad = os.fsdecode(b"nu\xff")
    with pytest.raises(OutputError, match=r"not UTF-8.*nu\\udcff"):
        MatteWriter(tmp_path / bad, info=info(), objects={1: "hero"})
    about = info()
    writer = MatteWriter(tmp_path, info=about, objects={1: bad}, provenance={"plate": bad})
    writer.write(plate_frame(about), {1: soft(about)})
    assert read_header(tmp_path / "sh010_matte.1001.exr").metadata["rotomem/plate"] == "nu\\udcff"


def test_writer_when_mattes_would_land_on_the_plate_then_refused(tmp_path: Path) -> None:
    (tmp_path / "sh010.1001.exr").write_bytes(b"plate")
    about = info(path=str(tmp_path / "sh010.%04d.exr"))
    with pytest.raises(OutputError, match="over the plate"):
        MatteWriter(tmp_path / "sh010.%04d.exr", info=about, objects={1: "hero"})
    with pytest.raises(OutputError, match="over the plate"):
        MatteWriter(
            tmp_path / "sh010.mov", info=info(kind="movie", path=str(tmp_path / "sh010.mov")), objects={1: "hero"}
        )
    linked = tmp_path / "elsewhere"
    linked.symlink_to(tmp_path)
    writer = MatteWriter(linked / "m.%04d.exr", info=about, objects={1: "hero"})
    with pytest.raises(OutputError, match="over the plate"):
        writer.write(plate_frame(about, path=tmp_path / "m.1001.exr"), {1: soft(about)})
    assert MatteWriter(tmp_path, info=about, objects={1: "hero"}).paths(1001)[0].name == "sh010_matte.1001.exr"


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """What a full disk looks like to a writer: the bytes beyond do not go in."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard_limit))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft_limit, hard_limit))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("kind", ["exr", "png", "mov"])
def test_write_when_disk_is_full_then_output_error_and_the_old_file_stays(tmp_path: Path, kind: str) -> None:
    about = info(Window(0, 0, 300, 200))
    frame, matte = plate_frame(about), soft(about)
    out = tmp_path / ("m.mov" if kind == "mov" else f"m.%04d.{kind}")
    with MatteWriter(out, info=about, objects={1: "hero"}) as writer:
        writer.write(frame, {1: matte})
    path = writer.paths(1001)[0]
    before = path.read_bytes()
    for missing in (1, 8, 300, 4096, len(before) // 2, len(before) - 10):
        with (
            files_no_larger_than(len(before) - missing),
            pytest.raises(OutputError) as e,
            MatteWriter(out, info=about, objects={1: "hero"}) as writer,
        ):
            writer.write(frame, {1: matte})
        assert e.value.context["path"] == path and e.value.remedy
        assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_whole_file_when_the_rename_or_the_block_fails_then_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a.exr") as part:
        part.write_bytes(b"half of it")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    with pytest.raises(OutputError, match="cannot write"), whole_file(tmp_path / "a.exr"):
        pass  # nothing was written, so there is nothing to rename
    (tmp_path / "a.exr").mkdir()
    with pytest.raises(OutputError, match="folder"), whole_file(tmp_path / "a.exr"):
        pass
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError) as e, whole_file(tmp_path / "file" / "a.exr", frame=7):
        pass
    assert "choose another folder" in str(e.value) and "frame=7" in str(e.value)


def test_write_when_folder_is_read_only_then_output_error_says_so(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        # Root may write anywhere, so another user tries it in a process of its own.
        drop = "os.setgid(65534); os.setuid(65534)"
        tmp_path.chmod(0o755)
        for parent in tmp_path.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o055)
    else:
        drop = "pass"
        tmp_path.chmod(0o555)
    code = f"""
        import os, sys
        from rotomem.errors import OutputError
        from rotomem.io.atomic import whole_file
        from pathlib import Path
        {drop}
        try:
            with whole_file(Path(sys.argv[1]) / "m.1001.exr", frame=1001) as part:
                part.write_bytes(b"x")
        except OutputError as e:
            print(e)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True
    )
    tmp_path.chmod(0o755)
    assert "Permission denied" in done.stdout and "writable" in done.stdout, done.stdout + done.stderr
    assert os.listdir(tmp_path) == []


def test_write_when_killed_in_the_middle_then_no_file_that_a_globber_finds(tmp_path: Path) -> None:
    code = """
        import os, sys, signal
        sys.path.insert(0, os.path.dirname(sys.argv[2]))
        import rotomem.io.kinds as kinds
        from rotomem.io.mattes import MatteWriter
        from test_mattes import info, plate_frame, soft
        from rotomem.types import Window
        about = info(Window(0, 0, 200, 100))
        write_exr = kinds.write_exr
        def die(picture, frame, *rest):
            write_exr(picture, frame, *rest)
            if frame.frame == 1002:
                os.kill(os.getpid(), signal.SIGKILL)
        kinds.write_exr = die
        with MatteWriter(sys.argv[1], info=about, objects={1: "hero"}) as writer:
            for f in (1001, 1002, 1003):
                writer.write(plate_frame(about, f), {1: soft(about)})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path), __file__], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert [p.name for p in tmp_path.glob("*.exr")] == ["sh010_matte.1001.exr"]
    assert [s.frameRange() for s in fileseq.findSequencesOnDisk(str(tmp_path))] == ["1001"]
    left = [n for n in os.listdir(tmp_path) if n != "sh010_matte.1001.exr"]
    assert len(left) == 1 and left[0].startswith(".") and left[0].endswith(PART_SUFFIX)
    assert remove_leftovers(tmp_path, older_than_s=3600) == 0  # it may be another machine's, still at work
    old = time.time() - 7200
    os.utime(tmp_path / left[0], (old, old))
    about = info(Window(0, 0, 200, 100))
    again = MatteWriter(tmp_path, info=about, objects={1: "hero"})
    assert again.is_current(1001) and not again.is_current(1002)
    assert len(os.listdir(tmp_path)) == 2, "looking deletes nothing"
    again.write(plate_frame(about, 1002), {1: soft(about)})
    assert sorted(os.listdir(tmp_path)) == ["sh010_matte.1001.exr", "sh010_matte.1002.exr"]


@pytest.mark.parametrize("out", ["mattes", "matte.mov"])
def test_is_current_when_the_source_is_another_then_not(tmp_path, out) -> None:
    about = replace(info(Window(0, 0, 64, 48)), frames=(1001,))
    with MatteWriter(tmp_path / out, info=about, objects={1: "hero"}) as writer:
        writer.write(plate_frame(about, 1001), {1: soft(about)}, source="abc")
    again = MatteWriter(tmp_path / out, info=about, objects={1: "hero"})
    assert again.is_current(1001, "abc")
    again = MatteWriter(tmp_path / out, info=about, objects={1: "hero"})
    assert not again.is_current(1001, "abd")


def test_refuse_when_a_key_mask_stands_there_then_output_error_before_writing(tmp_path) -> None:
    about = info(Window(0, 0, 64, 48))
    key = tmp_path / "sh010_matte.1001.exr"
    key.write_bytes(b"drawn by hand")
    writer = MatteWriter(tmp_path, info=about, objects={1: "hero"}, protect=[key])
    with pytest.raises(OutputError, match="key mask"):
        writer.refuse(1001)
    writer.refuse(1002)


def test_part_path_when_name_is_very_long_then_it_still_fits_a_file_system() -> None:
    part = part_path(Path("/x") / ("ü" * 120 + ".1001.exr"))
    assert len(os.fsencode(part.name)) <= 255 and part.name.startswith(".") and part.suffix == PART_SUFFIX


def test_write_when_threads_write_at_once_then_every_frame_is_whole(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    about = replace(info(), frames=tuple(range(1, 25)))
    with MatteWriter(tmp_path, info=about, objects={1: "hero", 2: "car"}) as writer, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda f: writer.write(plate_frame(about, f), {1: soft(about)}), about.frames))
        assert all(writer.is_current(f) for f in about.frames)
    assert len(os.listdir(tmp_path)) == 24


# A choice of objects, and what goes beside ------------------------------------------------------------------


def test_write_when_only_some_are_delivered_then_the_others_are_nowhere(tmp_path: Path) -> None:
    about = info()
    objects = {1: "hero", 2: "car, door", 3: "sky é"}
    settings = MatteSettings(only=("car, door", "sky é"), also=("crypto", "packed", "trimap"))
    planes = {k: soft(about) for k in objects}
    with MatteWriter(tmp_path, info=about, objects=objects, settings=settings) as writer:
        writer.write(plate_frame(about), planes)
    assert set(read(tmp_path / "sh010_matte.1001.exr")[1]) == {"car_door.A", "sky_e.A"}
    for path in writer.paths(1001):
        assert b"hero" not in path.read_bytes()
    listed = MatteWriter(tmp_path, info=about, objects=objects, settings=MatteSettings(only=("sky é,hero",)))
    assert list(listed.objects.values()) == ["hero", "sky é"]
    with pytest.raises(UsageError, match="no object 'car'") as e:
        MatteWriter(tmp_path, info=about, objects=objects, settings=MatteSettings(only=("hero,car",)))
    assert "'car, door'" in str(e.value.remedy)


def test_write_when_a_movie_goes_beside_rgb_then_it_shows_the_matte(tmp_path: Path) -> None:
    about = info()
    settings = MatteSettings(rgb="keep", also=("movie",))
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}, settings=settings) as writer:
        writer.write(plate_frame(about), {1: np.ones((24, 40), np.float32)}, told={"confidence": "0.5"})
    told, _ = movie_frames(tmp_path / "sh010_matte.mov")
    assert "rotomem/rgb" not in told["tags"] and "rotomem/confidence" not in told["tags"]  # it would be one frame's
    assert read_header(tmp_path / "sh010_matte.1001.exr").metadata["rotomem/confidence"] == "0.5"
    with av.open(str(tmp_path / "sh010_matte.mov")) as container:
        assert next(container.decode(video=0)).reformat(format="rgb24").to_ndarray().min() >= 253


@pytest.mark.parametrize(
    ("out", "more", "expected"),
    [
        ("o", {}, "o/sh010_matte.1001.exr o/sh010_crypto.1001.exr o/sh010_trimap.1001.exr o/sh010_matte_a1.mov"),
        ("h_@@.exr", {}, "h_1001.exr h_crypto_1001.exr h_trimap_1001.exr h_matte_a1.mov"),
        (
            "my_matte_v2.#.exr",
            {},
            "my_matte_v2.1001.exr my_crypto_v2.1001.exr my_trimap_v2.1001.exr my_matte_v2_a1.mov",
        ),
        ("%04d.exr", {}, "1001.exr crypto.1001.exr trimap.1001.exr matte_a1.mov"),
        (
            "{object}/x_{object}.#.png",
            {"per_object": True},
            "a1/x_a1.1001.png x_crypto.1001.exr a1/x_a1_trimap.1001.png x_matte_a1.mov",
        ),
    ],
)
def test_paths_when_more_goes_beside_then_each_kind_has_its_name(
    tmp_path: Path, out: str, more: dict[str, Any], expected: str
) -> None:
    settings = MatteSettings(also=("movie,trimap", "crypto"), **more)
    writer = MatteWriter(tmp_path / out, info=info(), objects={1: "a1", 2: "b1"}, settings=settings)
    first = [paths[0].relative_to(tmp_path).as_posix() for paths in writer.paths_by_kind(1001).values()]
    assert first == expected.split()
    assert writer.in_order and set(writer.paths(1001)) >= {tmp_path / name for name in first}


def test_paths_when_one_frame_or_a_movie_is_the_output_then_stills_are_named_so(tmp_path: Path) -> None:
    one = info(frames=(1001,))
    also = MatteSettings(also=("crypto",))
    writer = MatteWriter(tmp_path / "key.exr", info=one, objects={1: "a"}, settings=also)
    assert [p.name for p in writer.paths(1001)] == ["key.exr", "key_crypto.exr"]
    writer = MatteWriter(tmp_path / "key.mov", info=info(), objects={1: "a"}, settings=also)
    assert [p.name for p in writer.paths(1001)] == ["key.mov", "key_crypto.1001.exr"]
    with pytest.raises(UsageError, match="movie already"):
        MatteWriter(tmp_path / "m.mov", info=info(), objects={1: "a"}, settings=MatteSettings(also=("movie",)))
    with pytest.raises(UsageError, match="also is 'cryptomatte'"):
        MatteSettings(also=("cryptomatte",))
    with pytest.raises(OutputError, match="two outputs would be called"):
        MatteWriter(
            tmp_path / "{object}.#.exr",
            info=info(),
            objects={1: "crypto", 2: "b"},
            settings=MatteSettings(also=("crypto",), per_object=True),
        )


def test_write_when_one_kind_is_missing_then_only_that_one_is_written_again(tmp_path: Path) -> None:
    about = info()
    plane = soft(about)
    settings = MatteSettings(also=("crypto", "trimap"))
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}, settings=settings) as writer:
        writer.write(plate_frame(about), {1: plane}, source="s")
    matte, crypto, trimap = writer.paths(1001)
    crypto.unlink()
    before = [(p.read_bytes(), p.stat().st_mtime_ns) for p in (matte, trimap)]
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}, settings=settings) as again:
        assert not again.is_current(1001, "s")
        again.write(plate_frame(about), {1: plane}, source="s")
        assert again.is_current(1001, "s")
    assert crypto.exists() and before == [(p.read_bytes(), p.stat().st_mtime_ns) for p in (matte, trimap)]
    wider = replace(settings, trimap_band=3)
    with MatteWriter(tmp_path, info=about, objects={1: "hero"}, settings=wider) as changed:
        assert not changed.is_current(1001, "s")
        changed.write(plate_frame(about), {1: plane}, source="s")
    assert before[0] == (matte.read_bytes(), matte.stat().st_mtime_ns) and before[1][0] != trimap.read_bytes()


def test_write_when_a_key_mask_stands_where_a_companion_should_go_then_it_stays(tmp_path: Path) -> None:
    about = info()
    key = tmp_path / "sh010_crypto.1001.exr"
    key.write_bytes(b"drawn by hand")
    settings = MatteSettings(also=("crypto",))
    writer = MatteWriter(
        tmp_path, info=about, objects={1: "a"}, settings=settings, protect=[key], replace_foreign=True
    )
    with pytest.raises(OutputError, match="key mask"):
        writer.refuse(1001)
    with pytest.raises(OutputError, match="key mask"):
        writer.write(plate_frame(about), {1: soft(about)})
    assert key.read_bytes() == b"drawn by hand"


def test_write_when_objects_have_own_files_then_another_object_leaves_them_as_they_are(tmp_path: Path) -> None:
    about = info()
    apart = MatteSettings(per_object=True)
    one, two = {1: "hero"}, {1: "hero", 2: "car"}
    with MatteWriter(tmp_path, info=about, objects=one, settings=apart, provenance={"model": "m"}) as writer:
        writer.write(plate_frame(about), {1: soft(about)})
    path = writer.paths(1001)[0]
    assert path == tmp_path / "hero" / "sh010_matte_hero.1001.exr"
    told = read_header(path).metadata["rotomem/settings"]
    with MatteWriter(tmp_path, info=about, objects=two, settings=apart, provenance={"model": "m"}) as more:
        assert not more.is_current(1001)  # car has none yet
        more.write(plate_frame(about), {1: soft(about)})
    assert read_header(path).metadata["rotomem/settings"] == told
    with MatteWriter(tmp_path, info=about, objects=one, settings=apart, provenance={"model": "m"}) as writer:
        assert writer.is_current(1001)


@pytest.mark.parametrize("files", range(5))
def test_write_when_killed_between_files_of_a_frame_then_the_frame_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    """Car is new and takes something from hero, whose file is acceptable as long as nothing does."""
    about, objects = info(), {1: "hero", 2: "car"}
    apart = MatteSettings(per_object=True, also=("trimap",))
    planes = dict.fromkeys(objects, soft(about))

    def both(held: tuple[int, ...]) -> dict[str, str]:
        return {"source": "both"}

    def accepted(held: tuple[int, ...]) -> set[str]:
        return {f"{held} alone", "both"}

    with MatteWriter(tmp_path, info=about, objects={1: "hero"}, settings=apart) as writer:
        writer.write(plate_frame(about), {1: planes[1]}, of=lambda held: {"source": f"{held} alone"})
    killed = MatteWriter(tmp_path, info=about, objects=objects, settings=apart)
    assert not killed.is_current(1001, accepted)
    begun: list[Path] = []

    def counted(path: Path, **more: Any) -> Any:
        if len(begun) == files:
            raise KeyboardInterrupt
        begun.append(path)
        return whole_file(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr("rotomem.io.kinds.whole_file", counted)
        with pytest.raises(KeyboardInterrupt) if files < 4 else nullcontext():
            killed.write(plate_frame(about), planes, of=both)
    again = MatteWriter(tmp_path, info=about, objects=objects, settings=apart)
    assert again.is_current(1001, accepted) == (files == 4)
    again.write(plate_frame(about), planes, of=both)
    assert {read_header(path).metadata["rotomem/source"] for path in again.paths(1001)} == {"both"}


@pytest.mark.parametrize("format", ["exr", "png", "mov"])
def test_write_when_rgb_straight_then_the_estimate_goes_along_not_multiplied(tmp_path: Path, format: str) -> None:
    about = info(pixel_type="uint16" if format != "exr" else "half")
    rgb = np.full((24, 40, 3), 0.5, np.float16)
    if format != "exr":
        rgb = (rgb.astype(np.float32) * 65535).astype(np.uint16)
    asked: list[float] = []

    def foreground(plate: np.ndarray, matte: np.ndarray) -> np.ndarray:
        asked.append(float(matte[0, 0]))
        return np.where(matte[..., None] > 0, plate / 2, 0).astype(np.float32)

    given: dict[str, Any] = {
        "info": about,
        "objects": {1: "a1", 2: "b1"},
        "settings": MatteSettings(rgb="straight", format=format),
    }
    with pytest.raises(UsageError, match="estimates"):
        MatteWriter(tmp_path, **given)
    quarter = np.full((24, 40), 0.25, np.float32)
    with MatteWriter(tmp_path, **given, foreground=foreground) as writer:
        writer.write(plate_frame(about, rgb=rgb), {1: quarter, 2: 2 * quarter})
    assert asked == ([0.75] if format == "exr" else [0.25, 0.5])  # of one file the union
    if format == "mov":
        return
    spec, pixels = read(writer.paths(1001)[0])
    assert spec.getattribute("rotomem/rgb") == "estimated foreground, not multiplied"
    if format == "exr":
        assert (pixels["R"] == 0.25).all() and (pixels["A"] == 0.75).all() and pixels["R"].dtype == np.float16
