"""Edges finished at plate resolution, in whole runs."""

from __future__ import annotations

import numpy as np
import pytest

from rotomem.engine.shot import track
from rotomem.errors import UsageError

from .shots import HEIGHT, WIDTH, digests, disc, label_key, matte, picture, plate, soft_key, write
from .toy import tiny_model

FAST = dict(size=32, mem_every=2, top_k=8)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def run(tmp_path, model, out, **options):
    report = track(str(tmp_path / "plate" / "sh010.%04d.exr"), [soft_key(tmp_path, 1003)], tmp_path / out,
                   model=model, **{**FAST, **options})  # fmt: skip
    return report, [matte(path).astype(np.float32) for path in sorted((tmp_path / out).glob("*.exr"))]


def test_track_when_edges_are_choked_and_softened_then_all_but_keys_change(tmp_path, model):
    plate(tmp_path / "plate", range(1001, 1006))
    _, plain = run(tmp_path, model, "plain")
    _, choked = run(tmp_path, model, "choked", choke=1.5)
    _, spread = run(tmp_path, model, "spread", choke=-1.5, feather=2.0)
    for i in (0, 1, 3, 4):
        assert choked[i].sum() < plain[i].sum() < spread[i].sum()
        assert (choked[i] <= plain[i]).all()
    for made in (plain, choked, spread):
        np.testing.assert_array_equal(made[2], disc(2).astype(np.float16))


def test_track_when_edge_is_guided_then_it_differs_from_learned_at_edges_alone(tmp_path, model):
    plate(tmp_path / "plate", range(1001, 1006))
    _, guided = run(tmp_path, model, "guided", edge="guided")
    _, learned = run(tmp_path, model, "learned", edge="learned")
    assert np.abs(guided[0] - learned[0]).max() > 0.01


@pytest.mark.parametrize("change", [{"choke": 0.5}, {"edge": "learned"}, {"stabilise": 1.0}])
def test_track_when_finishing_changes_then_resume_redoes_and_else_keeps(tmp_path, model, change):
    plate(tmp_path / "plate", range(1001, 1006))
    run(tmp_path, model, "out")
    assert run(tmp_path, model, "out", resume=True)[0].frames_kept == 5
    report, _ = run(tmp_path, model, "out", resume=True, **change)
    assert report.frames_written == 5
    fresh, _ = run(tmp_path, model, "fresh", **change)
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh") and fresh.frames_written == 5


def test_track_when_stabilised_and_the_shot_grows_then_resume_redoes_what_leans_on_it(tmp_path, model):
    pattern = plate(tmp_path / "plate", range(1001, 1007))
    options = dict(model=model, stabilise=1.0, **FAST)
    track(pattern, [soft_key(tmp_path, 1001)], tmp_path / "out", **options)
    plate(tmp_path / "more", range(1001, 1010))
    for frame in (1007, 1008, 1009):
        (tmp_path / "more" / f"sh010.{frame}.exr").rename(tmp_path / "plate" / f"sh010.{frame}.exr")
    report = track(pattern, [soft_key(tmp_path, 1001)], tmp_path / "out", resume=True, **options)
    assert report.frames["kept"] == "1001-1004" and report.frames["written"] == "1005-1009"
    track(pattern, [soft_key(tmp_path, 1001)], tmp_path / "fresh", **options)
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


def test_track_when_stabilised_then_nothing_leans_over_a_key(tmp_path, model):
    """What is new after a key changes nothing before it."""
    keys = [label_key(tmp_path, f) for f in (1001, 1005, 1009)]
    made = []
    for out, last in (("a", 0.0), ("b", 0.5)):
        folder = tmp_path / f"plate-{out}"
        for frame in range(1001, 1010):
            rgb = picture(frame - 1001) * (1 - last if frame > 1005 else 1)
            write(folder / f"sh010.{frame}.exr", rgb.astype(np.float16), framesPerSecond=24.0)
        track(str(folder / "sh010.%04d.exr"), keys, tmp_path / out, model=model, stabilise=1.0, neighbours=0, **FAST)
        files = sorted((tmp_path / out).glob("*.exr"))
        made.append([matte(path, "obj1.A") for path in files])
    for i in range(5):
        np.testing.assert_array_equal(made[0][i], made[1][i])
    assert any((made[0][i] != made[1][i]).any() for i in range(5, 8))


def test_track_when_the_plate_is_cropped_and_anamorphic_then_mattes_are_finished_on_its_canvas(tmp_path, model):
    for frame in range(1001, 1004):
        rgb = picture(frame - 1001)[6:40, 3:60]
        write(tmp_path / "plate" / f"sh010.{frame}.exr", rgb, origin=(3, 6), display=(WIDTH, HEIGHT),
              framesPerSecond=24.0, PixelAspectRatio=2.0)  # fmt: skip
    key = soft_key(tmp_path, 1001)
    track(str(tmp_path / "plate" / "sh010.%04d.exr"), [key], tmp_path / "out", model=model, feather=1.0, **FAST)
    written = matte(tmp_path / "out" / "sh010_matte.1002.exr")
    assert written.shape == (34, 57) and 0 < written.max() <= 1


@pytest.mark.parametrize("wrong", [{"edge": "sharp"}, {"feather": -1.0}, {"stabilise": 2.0}])
def test_track_when_edges_are_out_of_range_then_usage_error_before_anything_is_read(tmp_path, model, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        track(tmp_path / "nothing.%04d.exr", [], tmp_path / "out", model=model, **wrong)


def test_track_when_rgb_is_straight_then_soft_pixels_lose_the_background(tmp_path, model):
    pattern = plate(tmp_path / "plate", range(1001, 1003))
    track(pattern, [soft_key(tmp_path, 1001)], tmp_path / "out", model=model, rgb="straight", **FAST)
    path = tmp_path / "out" / "sh010_matte.1001.exr"
    alpha, red = matte(path).astype(np.float32), matte(path, "R").astype(np.float32)
    soft = (alpha > 0.2) & (alpha < 0.8)
    inside = red[alpha == 1].mean()
    assert np.abs(red[soft] - inside).mean() < 0.5 * np.abs(picture(0)[..., 0][soft] - inside).mean()
    np.testing.assert_array_equal(red[alpha == 1], picture(0)[..., 0][alpha == 1].astype(np.float32))
