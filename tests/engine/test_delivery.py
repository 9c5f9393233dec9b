"""What reaches the disk: several kinds of files of one run, some of the objects, mattes that add up."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from rotomem.engine.blend import beside, within_one
from rotomem.engine.shot import track
from rotomem.errors import UsageError
from rotomem.io.cryptomatte import crypto_layers
from rotomem.io.exr import read_header, read_still
from rotomem.io.mattes import MatteSettings, MatteWriter
from rotomem.io.plate import PlateInfo
from rotomem.types import PlateFrame, Window

from .shots import digests, matte, plate, soft_key
from .toy import tiny_model

FAST = dict(size=32, mem_every=2, min_working_frames=2, max_working_frames=4, prototypes=4, top_k=8)
BALL = dict(x=50, dx=-0.5, y=14, r=6)
FRAMES = range(1001, 1007)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def shot(folder: Path) -> tuple[str, list[str]]:
    """A plate and two keys, not on its first frame."""
    return plate(folder / "plate", FRAMES), [soft_key(folder, 1003), soft_key(folder, 1003, "ball", **BALL)]


def test_track_when_more_goes_beside_then_all_kinds_agree_and_resume_makes_only_what_is_missing(tmp_path, model):
    pattern, keys = shot(tmp_path)
    out = tmp_path / "out"
    given_ = dict(model=model, also="crypto,packed,trimap,movie", **FAST)
    report = track(pattern, keys, out, **given_)
    assert report.status == "done" and set(report.also) == {"crypto", "packed", "trimap", "movie"}
    assert all(Path(p).exists() for paths in [report.outputs, *report.also.values()] for p in paths)
    with av.open(str(out / "sh010_matte_hero.mov")) as movie:  # in order, though half of it ran backward
        clip = [np.frombuffer(f.planes[3], np.uint16).reshape(48, -1)[:, :72] / 4095 for f in movie.decode(video=0)]
    for frame, picture in zip(FRAMES, clip, strict=True):
        hero = matte(out / f"sh010_matte.{frame}.exr", "hero.A").astype(np.float32)
        (crypto,) = crypto_layers(read_header(out / f"sh010_crypto.{frame}.exr"))
        assert np.abs(crypto.mattes(["hero"])["hero"] - hero).max() <= 2**-11
        assert np.array_equal(matte(out / f"sh010_packed.{frame}.exr", "R"), hero)
        trimap = matte(out / f"sh010_trimap.{frame}.exr", "hero.A")
        assert set(np.unique(trimap)) <= {0, 0.5, 1} and (trimap[(hero > 0.06) & (hero < 0.94)] == 0.5).all()
        assert np.abs(picture - hero).max() < 0.002
    first = digests(out)
    assert track(pattern, keys, out, resume=True, **given_).status == "nothing to do"
    (out / "sh010_crypto.1002.exr").unlink()
    assert track(pattern, keys, out, resume=True, **given_).status == "done"
    assert digests(out) == first


def test_track_when_only_one_is_delivered_then_it_is_what_it_was_beside_the_other(tmp_path, model):
    pattern, keys = shot(tmp_path)
    track(pattern, keys, tmp_path / "both", model=model, **FAST)
    report = track(pattern, keys, tmp_path / "one", model=model, only=["ball"], **FAST)
    assert report.objects == {"ball": "ball"}
    for frame in FRAMES:
        name = f"sh010_matte.{frame}.exr"
        assert np.array_equal(matte(tmp_path / "one" / name), matte(tmp_path / "both" / name, "ball.A"))
    with pytest.raises(UsageError, match="no object 'kite'"):
        track(pattern, keys, tmp_path / "none", model=model, only="kite", **FAST)
    assert not (tmp_path / "none").exists()


def test_track_when_a_key_changes_then_a_movie_is_made_anew_and_stills_elsewhere_stay(tmp_path, model):
    pattern, keys = shot(tmp_path)
    keys = [keys[0], soft_key(tmp_path, 1001), soft_key(tmp_path, 1005)]
    given_ = dict(model=model, also="movie", neighbours=0, **FAST)
    track(pattern, keys, tmp_path / "out", **given_)
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "out").iterdir()}
    soft_key(tmp_path, 1001, r=12)
    assert track(pattern, keys, tmp_path / "out", resume=True, **given_).status == "done"
    after = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "out").iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"sh010_matte.1001.exr", "sh010_matte.1002.exr", "sh010_matte.mov", "sh010_quality.json"}
    assert track(pattern, keys, tmp_path / "out", resume=True, **given_).status == "nothing to do"


def test_write_when_groups_and_keys_overlap_in_any_way_then_no_file_adds_up_to_more_than_one(tmp_path):
    """Composed as the engine does, and read back; what the artist drew stays bit for bit."""
    size, rng = 64, np.random.default_rng(8)
    window = Window(0, 0, size, size)
    told = np.round(rng.random((2, size, size)) * 1.6 - 0.3, 4).clip(0, 1).astype(np.float32)  # with many 0 and 1
    first = rng.integers(-300, 1324, (size, size)).clip(0, 1024)
    second = np.minimum(rng.integers(-300, 1324, (size, size)).clip(0, 1024), 1024 - first)
    drawn = (np.stack([first, second]) / 1024).astype(np.float32)
    mattes = beside({1: drawn[0], 2: drawn[1]}, within_one({3: told[0], 4: told[1]}))
    assert (told.sum(0) > 1).mean() > 0.3 and (drawn.sum(0) + told.sum(0) > 1).mean() > 0.5
    objects = {1: "a1", 2: "b1", 3: "c1", 4: "d1"}
    about = PlateInfo(
        path="/nowhere/sh.%04d.exr",
        kind="exr",
        frames=(1001,),
        missing=(),
        padding=4,
        stem="sh",
        display_window=window,
        canvas=window,
    )
    frame = PlateFrame(1001, np.zeros((size, size, 3), np.float16), None, window, window, 1.0, None, 1001)
    also = MatteSettings(also=("crypto", "packed"))
    with MatteWriter(tmp_path, info=about, objects=objects, settings=also) as writer:
        writer.write(frame, mattes)
    layers, crypto, packed = (paths[0] for paths in writer.paths_by_kind(1001).values())
    for name, plane in zip(("a1.A", "b1.A"), drawn, strict=True):
        assert np.array_equal(matte(layers, name), plane)
    for path in (layers, packed):  # a half is off by 2^-12 at most
        total = sum(plane.astype(np.float64) for plane in read_still(path).arrays.values())
        assert total.max() <= 1 + 2 * 2.0**-12
    shares = crypto_layers(read_header(crypto))[0].mattes()
    assert sum(share.astype(np.float64) for share in shares.values()).max() <= 1
    for number, name in objects.items():
        assert np.abs(shares[name] - mattes[number]).max() <= 1e-6
