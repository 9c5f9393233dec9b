"""Named channels of still pictures: types, layers, views, windows, damage."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import make
import numpy as np
import OpenImageIO as oiio
import pytest

from rotomem.errors import MissingFrameError, PlateError
from rotomem.io.exr import TypedValue, colour_channels, read_header, read_still, write_attributes
from rotomem.types import Window


def rgb_names(path: Path, layer: str = "", view: str | None = None) -> list[str]:
    channels, _ = colour_channels(read_header(path), layer, view)
    return [c.name for c in channels]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("compression", ["none", "zip", "zips", "piz", "rle"])
@pytest.mark.parametrize("tile", [0, 16])
def test_read_still_when_lossless_then_bits_are_the_same(
    tmp_path: Path, dtype: type, compression: str, tile: int
) -> None:
    pixels = make.ramp(37, 41, 4, dtype)
    path = make.write_picture(
        tmp_path / "a.exr", pixels, channels=("R", "G", "B", "A"), attributes={"compression": compression}, tile=tile
    )
    still = read_still(path)
    assert np.array_equal(still.stack(["R", "G", "B", "A"]), pixels)
    assert still.stack(["R", "G", "B"]).base is not None, "RGB of RGBA is a view, not a copy"
    assert [c.type for c in still.channels] == [{np.float16: "half", np.float32: "float"}[dtype]] * 4


def test_read_still_when_types_are_mixed_then_each_keeps_its_own(tmp_path: Path) -> None:
    # Written as float, for lack of another way in this library; 0.25 and 1234.5678 say whether types were mixed up.
    pixels = np.zeros((2, 3, 3), np.float32)
    pixels[...] = (0.25, 1234.5678, 1.0)
    path = make.write_picture(
        tmp_path / "m.exr", pixels, channels=("R", "Z", "id"), formats=("half", "float", "uint")
    )
    assert {c.name: c.type for c in read_header(path).channels} == {"R": "half", "Z": "float", "id": "uint"}
    arrays = read_still(path, channels=["id", "R", "Z"]).arrays
    assert {n: a.dtype.name for n, a in arrays.items()} == {"id": "uint32", "R": "float16", "Z": "float32"}
    assert (arrays["Z"] == np.float32(1234.5678)).all() and (arrays["R"] == 0.25).all()
    assert (arrays["id"] == 2**32 - 1).all()


def test_read_still_when_channel_is_uint_then_ids_are_exact(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 77], [65536, 2**31, 2**32 - 1]], np.uint32)
    path = make.write_picture(tmp_path / "id.exr", ids, channels=("id",))
    assert np.array_equal(read_still(path, channels=["id"]).arrays["id"], ids)


def test_read_still_when_float_bits_are_ids_then_every_pattern_survives(tmp_path: Path) -> None:
    bits = np.array([[1, 0x7FC12345, 0x00400000, 0x80000001, 0x3F800000, 0xFF800000]], np.uint32)
    path = make.write_picture(tmp_path / "c.exr", bits.view(np.float32), channels=("crypto00.R",))
    read = read_still(path, channels=["crypto00.R"]).arrays["crypto00.R"]
    assert np.array_equal(np.ascontiguousarray(read).view(np.uint32), bits)


@pytest.mark.parametrize(
    ("data", "display"),
    [((0, 0), (0, 0, 32, 24)), ((-5, -7), (0, 0, 20, 10)), ((10, 5), (0, 0, 100, 90)), ((200, 0), (0, 0, 50, 50))],
)
def test_read_header_when_windows_differ_then_both_are_half_open(
    tmp_path: Path, data: tuple[int, int], display: tuple[int, int, int, int]
) -> None:
    path = make.write_picture(tmp_path / "w.exr", make.ramp(24, 32), data=data, display=display)
    header = read_header(path)
    assert header.parts[0].data_window == Window(data[0], data[1], data[0] + 32, data[1] + 24)
    assert header.display_window == Window(*display)


def test_colour_channels_when_layers_are_named_then_each_is_found(tmp_path: Path) -> None:
    names = ("R", "G", "B", "A", "diffuse.red", "diffuse.green", "diffuse.blue", "diffuse.alpha", "depth.Z", "hero.A")
    pixels = make.ramp(4, 5, len(names))
    path = make.write_picture(tmp_path / "l.exr", pixels, channels=names)
    header = read_header(path)
    assert set(header.layers) == {"rgba", "diffuse", "depth", "hero"}
    for layer in ("", "rgba", "RGB", "beauty"):
        assert rgb_names(path, layer) == ["R", "G", "B"]
    channels, alpha = colour_channels(header, "diffuse", None)
    assert [c.name for c in channels] == ["diffuse.red", "diffuse.green", "diffuse.blue"]
    assert alpha is not None and alpha.name == "diffuse.alpha"
    for layer in ("depth", "depth.Z"):
        assert rgb_names(path, layer) == ["depth.Z"]
    assert rgb_names(path, "hero.A") == ["hero.A"]
    with pytest.raises(PlateError, match=r"no layer 'specular'.*rgba.*diffuse"):
        colour_channels(header, "specular", None)
    read = read_still(path, channels=["hero.A", "diffuse.green", "A"])
    assert np.array_equal(read.arrays["hero.A"], pixels[:, :, 9])
    assert np.array_equal(read.arrays["diffuse.green"], pixels[:, :, 5])
    assert np.array_equal(read.arrays["A"], pixels[:, :, 3])


def test_colour_channels_when_picture_is_grey_then_one_channel_stands_for_three(tmp_path: Path) -> None:
    for name in ("Y", "R"):
        path = make.write_picture(tmp_path / f"{name}.exr", make.ramp(4, 5, 1), channels=(name,))
        assert rgb_names(path) == [name]
    path = make.write_picture(tmp_path / "az.exr", make.ramp(4, 5, 2, np.float32), channels=("A", "Z"))
    with pytest.raises(PlateError, match=r"no colour.*layers that can be shown: A, Z"):
        colour_channels(read_header(path), "", None)
    assert rgb_names(path, "Z") == ["Z"]


def test_read_still_when_parts_are_layers_then_bare_names_take_the_part(tmp_path: Path) -> None:
    beauty, depth, matte = make.ramp(6, 7), make.ramp(6, 7, 1, np.float32) * 50, make.ramp(3, 2, 1)
    path = make.write_parts(
        tmp_path / "p.exr",
        [
            (depth, {"channels": ("Z",), "attributes": {"oiio:subimagename": "depth"}}),
            (beauty, {"channels": ("R", "G", "B"), "attributes": {"oiio:subimagename": "rgba"}}),
            (
                matte,
                {
                    "channels": ("hero.A",),
                    "data": (2, 1),
                    "display": (0, 0, 7, 6),
                    "attributes": {"oiio:subimagename": "mattes"},
                },
            ),
        ],
    )
    assert rgb_names(path) == ["R", "G", "B"]
    assert np.array_equal(read_still(path, layer="").stack(["R", "G", "B"]), beauty)
    assert np.array_equal(read_still(path, channels=["depth.Z"]).arrays["depth.Z"], depth[:, :, 0])
    still = read_still(path, channels=["hero.A"])
    assert still.data_window == Window(2, 1, 4, 4)
    with pytest.raises(PlateError, match="different data windows"):
        read_still(path, channels=["R", "hero.A"])


def test_read_still_when_views_are_parts_then_each_view_has_its_picture(tmp_path: Path) -> None:
    left, right = make.ramp(4, 5), make.ramp(4, 5) + np.float16(1)
    path = make.write_parts(
        tmp_path / "v.exr",
        [
            (pixels, {"channels": ("R", "G", "B"), "attributes": {"oiio:subimagename": f"rgba.{view}", "view": view}})
            for view, pixels in (("left", left), ("right", right))
        ],
    )
    header = read_header(path)
    assert header.views == ("left", "right")
    assert np.array_equal(read_still(path, channels=["R", "G", "B"], view="right").stack(["R", "G", "B"]), right)
    assert np.array_equal(read_still(path, channels=["R", "G", "B"]).stack(["R", "G", "B"]), left)
    with pytest.raises(PlateError, match="no view 'middle', its views are left, right"):
        header.pick_view("middle")


def test_read_still_when_views_are_channels_then_the_first_view_has_no_prefix(tmp_path: Path) -> None:
    names = ("R", "G", "B", "right.R", "right.G", "right.B", "diffuse.right.R", "diffuse.R")
    pixels = make.ramp(4, 5, len(names))
    path = make.write_picture(
        tmp_path / "mv.exr", pixels, channels=names, attributes={"multiView": ("string[2]", ("left", "right"))}
    )
    assert rgb_names(path) == ["R", "G", "B"]
    assert rgb_names(path, "", "left") == ["R", "G", "B"]
    assert rgb_names(path, "", "right") == ["right.R", "right.G", "right.B"]
    assert rgb_names(path, "diffuse", "right") == ["diffuse.right.R"]
    assert np.array_equal(read_still(path, channels=["G"], view="right").arrays["G"], pixels[:, :, 4])


def test_write_attributes_when_metadata_is_carried_on_then_types_and_values_stay(tmp_path: Path) -> None:
    given = {
        "framesPerSecond": ("rational", (24000, 1001)),
        "smpte:TimeCode": ("timecode", (0x01020304, 7)),
        "smpte:KeyCode": ("keycode", (1, 2, 3, 4, 5, 4, 64)),
        "worldToCamera": ("matrix", tuple(float(i) for i in range(16))),
        "owner": "someone",
        "lensModel": "50 mm",
        "input/filename": "A001.ari",
        "isoSpeed": 800.0,
        "chromaticities": ("float[8]", (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)),
    }
    first = make.write_picture(tmp_path / "a.exr", make.ramp(), attributes=given)
    header = read_header(first)
    assert header.timecode == "01:02:03:04"
    assert str(header.fps) == "24000/1001"
    assert header.metadata["worldToCamera"] == TypedValue("matrix", given["worldToCamera"][1])
    assert not {"compression", "name", "chunkCount", "openexr:lineOrder"} & set(header.metadata)

    spec = oiio.ImageSpec(4, 4, 1, oiio.HALF)
    write_attributes(spec, header.metadata)
    out = oiio.ImageOutput.create(str(tmp_path / "b.exr"))
    assert out.open(str(tmp_path / "b.exr"), spec)
    assert out.write_image(np.zeros((4, 4, 1), np.float16)) and out.close()
    again = read_header(tmp_path / "b.exr")
    kept = {k: v for k, v in header.metadata.items() if k != "chromaticities"}
    assert {k: v for k, v in again.metadata.items() if k in kept} == kept
    assert "chromaticities" not in again.metadata


def test_read_header_when_container_flag_would_break_a_copy_then_it_is_not_carried(tmp_path: Path) -> None:
    attributes = {
        "acesImageContainerFlag": 1,
        "compression": "none",
        "chromaticities": ("float[8]", (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767)),
    }
    path = make.write_picture(tmp_path / "a.exr", make.ramp(), attributes=attributes)
    header = read_header(path)
    assert header.colour_hints["acesImageContainerFlag"] == 1
    assert "acesImageContainerFlag" not in header.metadata


def test_read_still_when_png_has_straight_alpha_then_colour_is_as_stored(tmp_path: Path) -> None:
    pixels = np.zeros((3, 4, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 200, 50
    out = oiio.ImageOutput.create(str(tmp_path / "a.png"))
    spec = oiio.ImageSpec(4, 3, 4, oiio.UINT8)
    spec.attribute("oiio:UnassociatedAlpha", 1)
    assert out.open(str(tmp_path / "a.png"), spec) and out.write_image(pixels) and out.close()
    assert np.array_equal(read_still(tmp_path / "a.png").stack(["R", "G", "B", "A"]), pixels)


def test_read_header_when_path_is_no_picture_then_clear_error_and_no_hang(tmp_path: Path) -> None:
    with pytest.raises(MissingFrameError, match=r"no such file \[path=.*gone\.exr"):
        read_header(tmp_path / "gone.exr")
    os.mkfifo(tmp_path / "pipe.exr")
    with pytest.raises(PlateError, match="pipe"):
        read_header(tmp_path / "pipe.exr")
    with pytest.raises(PlateError, match="folder"):
        read_header(tmp_path)
    (tmp_path / "empty.exr").write_bytes(b"")
    with pytest.raises(PlateError, match="empty"):
        read_header(tmp_path / "empty.exr")
    (tmp_path / "text.exr").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(PlateError, match=r"text\.exr"):
        read_header(tmp_path / "text.exr")
    with pytest.raises(PlateError):
        read_header(tmp_path / ("n" * 300 + ".exr"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_read_header_when_file_may_not_be_read_then_error_says_permissions(tmp_path: Path) -> None:
    path = make.write_picture(tmp_path / "a.exr", make.ramp())
    path.chmod(stat.S_IWUSR)
    with pytest.raises(PlateError, match="permissions"):
        read_header(path)


def test_read_header_when_window_is_absurd_then_refused_before_allocating(tmp_path: Path) -> None:
    path = make.write_picture(tmp_path / "a.exr", make.ramp(8, 8))
    data = bytearray(path.read_bytes())
    at = data.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    data[at + 8 : at + 16] = np.array([199_999, 199_999], "<i4").tobytes()
    path.write_bytes(data)
    with pytest.raises(PlateError, match=r"a\.exr"):
        read_header(path)


def test_read_still_when_header_promises_more_than_the_file_can_hold_then_refused(tmp_path: Path) -> None:
    path = make.write_picture(tmp_path / "a.exr", make.ramp(8, 8, 3, np.float32), attributes={"compression": "zip"})
    data = bytearray(path.read_bytes())
    for name in (b"dataWindow\0box2i\0", b"displayWindow\0box2i\0"):
        at = data.index(name) + len(name) + 4
        data[at + 8 : at + 16] = np.array([12_999, 12_999], "<i4").tobytes()
    path.write_bytes(data)
    with pytest.raises(PlateError, match=r"a\.exr"):
        read_still(path)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_read_still_when_file_is_cut_short_then_error_names_it(tmp_path: Path, keep: float) -> None:
    rng = np.random.default_rng(0)
    path = make.write_picture(tmp_path / "a.exr", rng.random((64, 64, 3)).astype(np.float16))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(PlateError, match=r"a\.exr"):
        read_still(path)


def test_read_still_when_message_quotes_bytes_that_are_no_text_then_error_is_still_clear(tmp_path: Path) -> None:
    path = make.write_picture(tmp_path / "a.exr", make.ramp())
    data = bytearray(path.read_bytes())
    at = data.index(b"channels\0chlist\0")
    data[at : at + 8] = b"\xff\xfe\xe9annels"[:8]
    path.write_bytes(data)
    with pytest.raises(PlateError) as caught:
        read_still(path)
    assert str(caught.value).isprintable()


def test_read_still_when_chroma_is_subsampled_then_rgb_comes_out(shared: Path) -> None:
    path = shared / "data/exr/good/openexr-images/Chromaticities/XYZ_YC.exr"
    if not path.is_file():
        pytest.skip("no such sample")
    before = oiio.get_int_attribute("openexr:core", 1)
    still = read_still(path, channels=["R", "G", "B"])
    rgb = still.stack(["R", "G", "B"]).astype(np.float32)
    assert rgb.shape == (406, 610, 3)
    assert np.abs(rgb[..., 0] - rgb[..., 2]).max() > 0.1, "colour, not luminance alone"
    assert oiio.get_int_attribute("openexr:core", 1) == before, "the global switch is put back"


def test_colour_channels_when_deep_then_error_says_flatten(shared: Path) -> None:
    path = shared / "data/exr/good/openexr-tests/11.deep.exr"
    if not path.is_file():
        pytest.skip("no such sample")
    with pytest.raises(PlateError, match=r"deep.*flatten"):
        colour_channels(read_header(path), "", None)
    with pytest.raises(PlateError, match="deep"):
        read_still(path, channels=["Z"])


def test_read_header_when_the_path_is_no_text_then_plate_error_shows_its_bytes(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/nu\xff"))
    try:
        make.write_picture(tmp_path / "plain" / "a.exr", make.ramp(4, 4)).parent.rename(folder)
    except OSError:
        pytest.skip("this file system takes no such names")
    with pytest.raises(PlateError, match=r"not UTF-8.*nu\\udcff/a\.exr"):
        read_header(folder / "a.exr")


def test_colour_channels_when_the_deep_part_has_no_colour_then_still_told_deep(tmp_path: Path) -> None:
    ids, depth = make.ramp(3, 4, 1, np.float32), make.ramp(3, 4, 2, np.float32)
    parts = [
        (ids, {"channels": ["id"], "attributes": {"oiio:subimagename": "ids"}}),
        (depth, {"channels": ["A", "Z"], "attributes": {"oiio:subimagename": "rgba"}}),
    ]
    header = read_header(make.write_parts(tmp_path / "a.exr", parts))
    with pytest.raises(PlateError, match="no colour: its channels are"):
        colour_channels(header, "", None)
    # OpenImageIO writes no file of flat and deep parts.
    mixed = replace(header, parts=(header.parts[0], replace(header.parts[1], deep=True)))
    with pytest.raises(PlateError, match=r"deep .*flatten"):
        colour_channels(mixed, "", None)
