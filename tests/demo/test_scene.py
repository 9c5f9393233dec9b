"""The demo shot: light, mattes and files, on a picture small enough to render in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from rotomem.demo import scene as s
from rotomem.demo.landscape import shift_into
from rotomem.demo.noise import disc_blur, fractal
from rotomem.errors import OutputError, UsageError

SMALL = s.SceneSettings(width=320, height=180, samples=4)


@pytest.fixture(scope="module")
def world() -> s.Scene:
    return s.Scene(SMALL)


def test_render_when_first_frame_then_plausible_scene_linear_light(world: s.Scene) -> None:
    rgb = world.render(1001).rgb
    assert rgb.shape == (180, 320, 3) and rgb.dtype == np.float32 and np.isfinite(rgb).all()
    assert 0.08 < np.median(rgb) < 0.4, "mid grey is 0.18"
    assert rgb.max() > 4, "the sun is a highlight"
    assert (rgb > 1).mean() < 0.1


def test_render_when_twice_then_equal_bytes_and_other_seed_differs(world: s.Scene) -> None:
    again = s.Scene(SMALL).render(1004)
    first = world.render(1004)
    assert first.rgb.tobytes() == again.rgb.tobytes()
    assert first.mattes["kite"].tobytes() == again.mattes["kite"].tobytes()
    other = s.Scene(s.SceneSettings(width=320, height=180, samples=4, seed=8)).render(1004)
    assert not np.array_equal(other.rgb, first.rgb)


def test_mattes_when_the_birch_passes_then_only_what_is_seen_counts(world: s.Scene) -> None:
    hidden = {name: [] for name in world.names}
    for frame in range(1001, 1025):
        picture = world.render(frame)
        for name in world.names:
            seen, whole = picture.mattes[name], picture.whole[name]
            assert (seen <= whole + 1e-5).all() and seen.min() >= 0 and seen.max() <= 1
            hidden[name].append(1 - seen.sum() / whole.sum())
    for name in world.names:
        assert hidden[name][0] < 0.05, "the key frame shows the whole subject"
        assert max(hidden[name]) > 0.25, f"{name} is never occluded"
        assert hidden[name][-1] < 0.35, f"{name} does not come back"


def test_mattes_when_subjects_move_then_edges_are_fractional_and_more_so_with_a_longer_shutter() -> None:
    soft = []
    for shutter in (0.0, 1.0):
        still = s.Scene(s.SceneSettings(width=320, height=180, samples=8, shutter=shutter))
        matte = still.render(1006).whole["kite"]
        soft.append(((matte > 0.02) & (matte < 0.98)).sum() / (matte > 0.02).sum())
    assert soft[1] > 1.3 * soft[0] > 0


def test_write_shot_when_done_then_files_carry_colour_time_and_truth(tmp_path: Path) -> None:
    settings = s.SceneSettings(width=128, height=72, samples=1, frames=2)
    seen: list[tuple[int, int]] = []
    files = s.write_shot(tmp_path / "demo", settings, threads=1, progress=lambda a, b: seen.append((a, b)))
    assert seen == [(1, 2), (2, 2)] and files.frames == (1001, 1002)
    plate = oiio.ImageBuf(files.plate % 1002)
    spec = plate.spec()
    assert (spec.width, spec.height, spec.channelnames) == (128, 72, ("R", "G", "B"))
    assert spec.format == oiio.TypeDesc("half") and spec.getattribute("compression") == "zip"
    assert spec.getattribute("oiio:ColorSpace") == "lin_ap1_scene"
    assert spec.getattribute("smpte:TimeCode", oiio.TypeDesc("timecode")) is not None
    assert plate.spec().get_string_attribute("smpte:TimeCode") == "01:00:00:01"
    assert spec.getattribute("FramesPerSecond", oiio.TypeDesc("rational")) == (24, 1)
    for name in ("balloon", "kite"):
        key = oiio.ImageBuf(str(files.keys[name])).get_pixels(oiio.FLOAT)
        truth = oiio.ImageBuf(files.truth[name] % 1001).get_pixels(oiio.FLOAT)
        assert np.array_equal(key, truth) and 0.9 < truth.max() <= 1
    assert files.masks[0] == f"balloon@1001={files.keys['balloon']}"


def test_write_shot_when_the_folder_is_a_file_then_error_names_it(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("in the way")
    with pytest.raises(OutputError, match="demo"):
        s.write_shot(tmp_path / "demo", s.SceneSettings(width=64, height=36, samples=1, frames=1))


def test_scene_settings_when_too_small_then_usage_error() -> None:
    with pytest.raises(UsageError, match="64x36"):
        s.SceneSettings(width=10, height=10)


def test_colour_matrix_when_white_then_stays_neutral_in_ap1() -> None:
    assert s.REC709_TO_ACESCG.sum(1) == pytest.approx([1, 1, 1], abs=1e-4)


def test_shift_into_when_half_a_pixel_then_mean_of_neighbours() -> None:
    sheet = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    out = shift_into(sheet, -0.5, 0.0, 3, 3)
    assert out[1, :, 0] == pytest.approx([4.5, 5.5, 6.5])
    assert not shift_into(sheet, 50, 0, 3, 3).any()


def test_disc_blur_when_constant_then_unchanged_and_when_a_dot_then_a_disc() -> None:
    assert disc_blur(np.full((20, 20, 1), 0.7, np.float32), 3.3) == pytest.approx(0.7, abs=1e-5)
    dot = np.zeros((21, 21, 1), np.float32)
    dot[10, 10] = 1
    blurred = disc_blur(dot, 3)
    assert blurred.sum() == pytest.approx(1, abs=1e-4)
    assert blurred[10, 13, 0] > 0.01 and blurred[10, 15, 0] == pytest.approx(0, abs=1e-6)


def test_fractal_when_made_then_normalised() -> None:
    image = fractal((64, 64), 1.5, np.random.default_rng(0))
    assert abs(image.mean()) < 1e-4 and image.std() == pytest.approx(1, abs=1e-3)
