"""Cryptomatte: the published ids, coverages that sum to at most 1, files that OpenImageIO and our reader take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_mattes import info, plate_frame, read

from rotomem.errors import PlateError, UsageError
from rotomem.io import cryptomatte
from rotomem.io.cryptomatte import RANKS, crypto_layers, encode, name_id
from rotomem.io.exr import read_header
from rotomem.io.mattes import MatteSettings, MatteWriter
from rotomem.types import Window

NAMES = ("hero arm", "set/car door", "Rémi")


def decoded(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Coverage of an id, [h, w], as the specification's pseudo code has it."""
    ids = np.ascontiguousarray(pixels[..., 0::2]).view(np.uint32)
    return np.where(ids == np.uint32(bits), pixels[..., 1::2], 0).sum(-1)


def mattes(count: int, size: tuple[int, int] = (24, 40), seed: int = 3) -> np.ndarray:
    """Soft mattes [count, H, W] that overlap everywhere and sum to at most 1, in steps that add without rounding."""
    shares = np.random.default_rng(seed).dirichlet(np.ones(count + 1), size)
    return np.moveaxis(np.floor(shares * 4096) / 4096, -1, 0)[:count].astype(np.float32)


# Ids --------------------------------------------------------------------------------------------------------


def test_name_id_when_hashed_then_the_published_values() -> None:
    # The vectors of the specification's section on hashing, and entries of its sample images' manifests.
    for name, value in (("torus", -1.54943624832e30), ("равнина", -1.31926312124e-25)):
        assert np.uint32(name_id(name)).view(np.float32) == np.float32(value)


def test_name_id_when_any_name_then_a_normal_float() -> None:
    values = np.array([name_id(f"object {n}") for n in range(4000)], np.uint32).view(np.float32)
    assert np.isfinite(values).all() and (np.abs(values) >= np.finfo(np.float32).tiny).all()


# Ranks ------------------------------------------------------------------------------------------------------


@given(arrays(np.float32, (7, 2, 3), elements=st.floats(0, 1, width=32)))
def test_encode_when_mattes_overlap_in_any_way_then_ranks_fall_and_sum_to_at_most_one(planes: np.ndarray) -> None:
    pixels = encode(list(planes), [name_id(str(k)) for k in range(7)])
    cover = pixels[..., 1::2].astype(np.float64)
    assert (cover.sum(-1) <= 1).all() and (cover >= 0).all()
    assert (np.diff(cover, axis=-1) <= 0).all()
    assert ((pixels[..., 0::2].view(np.uint32) == 0) == (cover == 0)).all()


def test_encode_when_mattes_sum_to_at_most_one_then_every_value_comes_back() -> None:
    planes = mattes(RANKS, (150, 7))  # more rows than a strip
    ids = [name_id(str(k)) for k in range(RANKS)]
    pixels = encode(list(planes), ids)
    for plane, bits in zip(planes, ids, strict=True):
        assert np.array_equal(decoded(pixels, bits), plane)


def test_encode_when_mattes_sum_to_more_then_shares_stay_in_proportion() -> None:
    planes = [np.full((1, 1), v, np.float32) for v in (0.9, 0.6, 0.3)]
    cover = encode(planes, [1, 2, 3])[0, 0, 1::2]
    assert np.allclose(cover[:3], [1 / 2, 1 / 3, 1 / 6], rtol=1e-6) and not cover[3:].any()


def test_encode_when_coverages_are_equal_or_too_many_then_the_first_objects_stay() -> None:
    pixels = encode([np.full((1, 1), 1 / 8, np.float32)] * 8, list(range(1, 9)))
    assert pixels[0, 0, 0::2].view(np.uint32).tolist() == [1, 2, 3, 4, 5, 6]
    assert encode([np.ones((1, 1), np.float32)], [9], ranks=2).shape == (1, 1, 4)


# Files ------------------------------------------------------------------------------------------------------


def write(folder: Path, planes: np.ndarray, names: tuple[str, ...] = NAMES, **more: Any) -> Path:
    about = more.pop("about", info())
    settings = MatteSettings(also=("crypto",), **more)
    with MatteWriter(folder, info=about, objects=dict(enumerate(names, 1)), settings=settings) as writer:
        writer.write(plate_frame(about), dict(enumerate(planes, 1)))
    return writer.paths_by_kind(1001)["crypto"][0]


def test_write_when_crypto_then_float_zips_ranks_manifest_and_windows_of_the_plate(tmp_path: Path) -> None:
    planes = mattes(3)
    path = write(tmp_path, planes, compression="piz", depth="half")
    assert path == tmp_path / "sh010_crypto.1001.exr"
    spec, pixels = read(path)
    assert spec.channelnames == tuple(f"RotoObject{k:02d}.{c}" for k in range(3) for c in "RGBA")
    assert str(spec.format) == "float" and spec.getattribute("compression") == "zips"
    told = {a.name.rpartition("/")[2]: a.value for a in spec.extra_attribs if a.name.startswith("cryptomatte/")}
    assert told["name"] == "RotoObject" and told["hash"] == "MurmurHash3_32"
    assert told["conversion"] == "uint32_to_float32"
    manifest = json.loads(told["manifest"])
    assert manifest == {name: f"{name_id(name):08x}" for name in NAMES}
    assert spec.getattribute(f"cryptomatte/{name_id('RotoObject'):08x}"[:19] + "/name") == "RotoObject"
    stacked = np.stack([pixels[n] for n in spec.channelnames], -1)
    for plane, name in zip(planes, NAMES, strict=True):
        assert np.array_equal(decoded(stacked, int(manifest[name], 16)), plane)


def test_write_when_crypto_of_an_overscan_plate_then_pixels_stay_in_place(tmp_path: Path) -> None:
    about = info(canvas=Window(-4, -4, 44, 28))
    plane = mattes(1, (32, 48))[0]
    settings = MatteSettings(also=("crypto",), only=("b",))
    with MatteWriter(
        tmp_path / "{object}" / "m.%04d.exr", info=about, objects={1: "a", 2: "b"}, settings=settings
    ) as w:
        w.write(plate_frame(about, data=Window(3, 2, 20, 21)), {1: plane, 2: plane})
    spec, pixels = read(tmp_path / "m_crypto.1001.exr")
    assert (spec.x, spec.y, spec.width, spec.height) == (3, 2, 17, 19)
    assert np.array_equal(pixels["RotoObject00.G"], plane[6:25, 7:24])
    assert set(np.unique(pixels["RotoObject00.R"].view(np.uint32))) <= {0, name_id("b")}


def test_write_when_a_name_holds_a_comma_then_a_note_says_what_hosts_make_of_it(tmp_path: Path) -> None:
    for name, told in (("car, red", True), ("car/red", False)):
        writer = MatteWriter(tmp_path, info=info(), objects={1: name}, settings=MatteSettings(also=("crypto",)))
        assert any("comma" in note and name in note for note in writer.notes) is told


def test_write_when_two_names_have_one_id_then_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cryptomatte, "name_id", lambda name: 77)
    with pytest.raises(UsageError, match="'hero arm' and 'set/car door' have the same"):
        write(tmp_path, mattes(3))


# Reading ----------------------------------------------------------------------------------------------------


def test_crypto_layers_when_written_by_us_then_every_matte_comes_back(tmp_path: Path) -> None:
    planes = mattes(3)
    (layer,) = crypto_layers(read_header(write(tmp_path, planes)))
    assert layer.name == "RotoObject" and tuple(layer.manifest) == NAMES
    assert list(layer.mattes()) == list(NAMES)
    for name, plane in zip(NAMES, planes, strict=True):
        assert np.array_equal(layer.mattes([name, "nobody"])[name], plane)
    assert not layer.mattes(["nobody"])["nobody"].any()


def rewrite(source: Path, target: Path, *, drop: str = "", **attributes: str) -> Path:
    """A copy of a picture with other attributes; of names that end in `drop` without them."""
    inp = oiio.ImageInput.open(str(source))
    spec, pixels = oiio.ImageSpec(inp.spec()), inp.read_image(oiio.FLOAT)
    inp.close()
    head = next(a.name for a in spec.extra_attribs if a.name.endswith("/name")).removesuffix("name")
    for name, value in attributes.items():
        if name == "type":
            spec.set_format(value)
        else:
            spec.attribute(name if name == "compression" else head + name, value)
    if drop:
        spec.erase_attribute(head + drop)
    out = oiio.ImageOutput.create(str(target))
    assert out.open(str(target), spec) and out.write_image(pixels) and out.close()
    return target


def test_crypto_layers_when_saved_lossy_or_as_half_then_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, mattes(3))
    for how, changed in (("dwaa", {"compression": "dwaa"}), ("half", {"type": "half"})):
        (layer,) = crypto_layers(read_header(rewrite(path, tmp_path / f"{how}.exr", **changed)))
        with pytest.raises(PlateError, match=f"saved as {how}") as e:
            layer.mattes(["Rémi"])
        assert "ZIPS" in str(e.value.remedy)


def test_crypto_layers_when_the_manifest_is_a_file_missing_or_broken_then_read_hashed_or_told(tmp_path: Path) -> None:
    planes = mattes(3)
    path = write(tmp_path, planes)
    (tmp_path / "names.json").write_text(json.dumps({"other name": f"{name_id('Rémi'):08x}"}))
    beside = rewrite(path, tmp_path / "beside.exr", drop="manifest", manif_file="names.json")
    (layer,) = crypto_layers(read_header(beside))
    assert np.array_equal(layer.mattes()["other name"], planes[2])
    (layer,) = crypto_layers(read_header(rewrite(path, tmp_path / "none.exr", drop="manifest")))
    assert not layer.manifest and np.array_equal(layer.mattes(["Rémi"])["Rémi"], planes[2])
    with pytest.raises(PlateError, match="manifest"):
        crypto_layers(read_header(rewrite(path, tmp_path / "broken.exr", manifest="{")))
    with pytest.raises(PlateError, match="manifest"):
        crypto_layers(read_header(rewrite(path, tmp_path / "gone.exr", drop="manifest", manif_file="gone.json")))
