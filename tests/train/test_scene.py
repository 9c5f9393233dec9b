from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import PyOpenColorIO as ocio
import pytest
import torch

from rotomem.io.colour import BUILTIN_CONFIG, shoulder
from rotomem.train.compose import ComposeConfig, Placement, sample
from rotomem.train.data import PicturePool
from rotomem.train.scene import figures, shapes
from rotomem.train.scene.draw import Draw, Shutter
from rotomem.train.scene.layers import Layers, Look, Scene
from rotomem.train.scene.light import blur, compress, encode, linearise
from rotomem.train.scene.placement import Hinge, smooth_field

CPU = torch.device("cpu")
BARE = ComposeConfig(
    still=0, relight=0, shadow=0, defocus=(0, 0), hinge=(0, 0), with_camera=0, spin=0.2, growth=0.1
)  # fmt: skip


def draws(seed: int) -> Draw:
    return Draw(torch.Generator().manual_seed(seed), CPU)


def disc(size: int, x: float, y: float, radius: float, samples: int = 8) -> torch.Tensor:
    """Coverage of a disc, by brute force: every pixel split into samples x samples."""
    line = (torch.arange(size * samples) + 0.5) / samples
    inside = torch.hypot(line[None] - x, line[:, None] - y) < radius
    return inside.float().view(size, samples, size, samples).mean((1, 3))


def still_placement(scale: float, x: float, y: float) -> Placement:
    """A texture of half side `scale` with its middle at x, y, one frame."""
    matrix = torch.eye(2).view(1, 1, 2, 2) / scale
    offset = torch.tensor([[[-x / scale, -y / scale]]])
    return Placement(matrix, offset, torch.zeros(1, 1, 2), None)


def empty(b: int, t: int, objects: int, size: int, samples: int = 1) -> Scene:
    shutter = Shutter(samples, 0.8)
    steps = t * samples
    return Scene(
        torch.zeros(b, steps, 3, size, size), torch.zeros(b, steps, objects, size, size), torch.zeros(b, steps, 2), t,
        shutter,
    )  # fmt: skip


def white(size: int) -> torch.Tensor:
    return disc(size, size / 2, size / 2, size * 0.42).expand(1, 4, size, size)


# -- where things lie ---------------------------------------------------------------------------------------------


def test_sample_when_texture_is_a_disc_then_area_and_place_are_those_of_the_disc() -> None:
    texture = disc(144, 72, 72, 60)[None, None]
    for scale, x, y in ((0.5, 0.1, -0.2), (0.8, -0.05, 0.0), (0.9, 0.03, 0.07)):
        placed = sample(texture, still_placement(scale, x, y).grid(128), "zeros")[0, 0, 0]
        radius = 60 / 72 * scale * 64
        truth = disc(128, (x + 1) * 64, (y + 1) * 64, radius)
        assert abs(float(placed.sum()) / (math.pi * radius * radius) - 1) < 0.003
        assert float((placed - truth).abs().mean()) < 0.0025


def test_grid_when_window_is_asked_for_then_it_is_that_part_of_the_whole() -> None:
    draw = draws(1)
    placement = Placement(
        draw.normal((1, 2, 2, 2)) + 3 * torch.eye(2), draw.normal((1, 2, 2)) * 0.2, draw.normal((1, 2, 2)) * 0.05,
        draw.normal((1, 2, 2, 5, 5)) * 0.1, Hinge(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2)),
    )  # fmt: skip
    window = placement.window(64)
    assert window is not None
    whole = placement.grid(64)
    assert torch.allclose(whole[:, :, window.rows, window.columns], placement.grid(64, window), atol=1e-5)
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[window.rows, window.columns] = False
    assert (whole.abs().amax(-1)[:, :, outside] > 1).all()


def test_window_when_texture_lies_beside_the_screen_then_there_is_none() -> None:
    assert still_placement(0.3, 2.0, 0.0).window(64) is None


def test_hinge_when_it_bends_then_one_side_keeps_its_place_and_lengths_are_kept() -> None:
    hinge = Hinge(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([[math.pi / 2]]))
    at = torch.tensor([[[[[-0.5, 0.2], [0.5, 0.0]]]]])
    assert torch.allclose(hinge(at), torch.tensor([[[[[-0.5, 0.2], [0.0, 0.5]]]]]), atol=1e-6)


def test_smooth_field_when_controls_are_equal_then_field_is_flat() -> None:
    assert torch.allclose(smooth_field(torch.full((2, 5, 5), 3.0), 40), torch.full((2, 40, 40), 3.0), atol=1e-5)


# -- shapes and figures -------------------------------------------------------------------------------------------


def test_segments_when_one_is_drawn_then_coverage_is_that_of_a_capsule() -> None:
    px, radius, half = 128, 0.2, 0.4
    a, z = torch.tensor([[[-half, 0.0]]]), torch.tensor([[[half, 0.0]]])
    thick = torch.full((1, 1), radius)
    distance = shapes.segments_distance(shapes.screen(px, CPU), a, z, thick, thick)
    area = (math.pi * radius**2 + 4 * half * radius) * (px / 2) ** 2
    assert abs(float(shapes.covered(distance).sum()) / area - 1) < 0.001


def test_solid_when_limbs_are_thin_then_little_of_the_square_is_covered() -> None:
    areas = [float(shapes.solid(draws(1), 16, 64, limb=1, hole=0, radius=(r, r)).mean()) for r in (0.02, 0.2)]
    assert 0.005 < areas[0] < areas[1] / 3


def test_edge_when_level_is_a_slope_then_half_covered_pixels_lie_on_its_zero() -> None:
    x = torch.arange(32, dtype=torch.float32) - 10.25
    coverage = shapes.edge((x * 0.01).expand(1, 1, 32, 32))
    assert abs(float(coverage[0, 0, 5].sum()) - 21.25) < 1e-3


def test_superpixel_when_picture_has_two_halves_then_region_keeps_to_one() -> None:
    picture = torch.zeros(1, 3, 96, 96)
    picture[..., 48:] = 0.9
    for seed in range(4):
        mask = shapes.superpixel(draws(seed), picture, 96)[0, 0]
        left, right = float(mask[:, :46].sum()), float(mask[:, 50:].sum())
        assert min(left, right) < 0.05 * max(left, right) and 100 < left + right < 0.5 * 96 * 96


def test_figure_when_it_turns_then_it_is_whole_fills_its_square_and_sides_change() -> None:
    yaw = torch.linspace(0, math.pi, 4)[None]
    tiles = torch.rand(1, 3, 64 * figures.TILES, 64)
    for seed in range(6):
        shown = figures.figure(draws(seed), tiles, yaw, 96, 1.0, Shutter())
        assert shown.shape == (1, 4, 4, 96, 96) and torch.isfinite(shown).all()
        alpha = shown[0, :, 3]
        assert (shown[0, :, :3] <= alpha[:, None] * 3).all()  # nothing shines where nothing is
        assert float(alpha[:, 0].max()) == 0 and float(alpha[:, :, 0].max()) == 0
        assert (alpha.flatten(1).max(1)[0] == 1).all()
        soft = ((alpha > 0.02) & (alpha < 0.98)).float().mean()
        assert 0.005 < soft < 0.2
        assert (alpha[0] - alpha[2]).abs().mean() > 0.005


def test_figure_when_shutter_is_open_then_sub_frames_lie_between_the_frames() -> None:
    tiles, yaw = torch.rand(1, 3, 64 * figures.TILES, 64), torch.tensor([[0.2, 0.5, 0.8]])
    for kind in ("figure", "vehicle"):
        sharp, open_ = (
            figures.figure(draws(3), tiles, yaw, 64, 1.0, shutter)[0]
            if kind == "figure"
            else figures.vehicle(draws(3), tiles, yaw, 64, shutter)[0]
            for shutter in (Shutter(), Shutter(4, 0.8))
        )
        assert len(sharp) == 3 and len(open_) == 12
        apart = [(open_[i, 3] - sharp[0, 3]).abs().mean() for i in range(4)]
        whole = (sharp[1, 3] - sharp[0, 3]).abs().mean()
        assert apart[1] < apart[2] < apart[3] < whole


def test_figure_when_part_is_alone_then_coverage_is_that_of_a_capsule() -> None:
    canvas = figures._Canvas(1, 128, CPU)
    radius = torch.tensor([0.2])
    ends = torch.tensor([[-0.3, -0.3, 0.0]]), torch.tensor([[0.4, 0.3, 0.5]])
    canvas.part(*ends, radius, radius, torch.zeros(1), 0, torch.zeros(1, 2))
    alpha = (0.5 - canvas.distance * 64).clamp(0, 1)
    area = (math.pi * 0.2**2 + 2 * 0.2 * math.hypot(0.7, 0.6)) * 64**2
    assert abs(float(alpha.sum()) / area - 1) < 0.001


def test_figure_when_parts_cross_then_the_nearer_one_is_seen() -> None:
    radius, still = torch.tensor([0.2]), torch.zeros(1)
    for near, tile in ((0.5, 1), (-0.5, 0)):
        canvas = figures._Canvas(1, 64, CPU)
        for i, depth in enumerate((0.0, near)):
            ends = (torch.tensor([[s * (1 - i) * 0.6, s * i * 0.6, depth]]) for s in (-1, 1))
            canvas.part(*ends, radius, radius, still, i, torch.zeros(1, 2))
        assert int(canvas.v[0, 32, 32] * figures.TILES) == tile


def test_turned_in_depth_when_it_faces_us_then_it_is_the_cut_out() -> None:
    texture = torch.cat([torch.rand(1, 3, 96, 96), torch.ones(1, 1, 96, 96)], 1) * disc(96, 48, 48, 30)
    other = torch.zeros(1, 3, 96, 96)
    yaw = torch.tensor([[0.0, math.pi / 2, math.pi]])
    front, side, back = figures.turned_in_depth(texture, other, yaw, torch.tensor([0.5]))[0]
    assert float((front - texture[0]).abs().mean()) < 0.003
    # Half as deep as wide, where deep is 0.6 of the row's own and 0.4 of the widest row's.
    assert abs(float(side[3].sum() / front[3].sum()) - 0.5 * (0.6 + 0.4 * 4 / math.pi)) < 0.04
    assert (side[3, 30:66, 48] > 0.99).all()
    assert abs(float(back[3].sum() / front[3].sum()) - 1) < 0.02
    assert float(back[:3].max()) < 0.2 and float(front[:3].mean()) > 0.05


# -- light --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bent", [False, True])
def test_encode_when_light_is_linear_then_it_is_what_inference_shows_the_network(bent: bool) -> None:
    rng = np.random.default_rng(1)
    light = np.concatenate([rng.random(3000) * 0.01, rng.random(3000), rng.random(3000) * 8, [0, 0.0031308]])
    light = np.repeat(light.astype(np.float32)[:, None], 3, 1)
    want = light.copy()
    config = ocio.Config.CreateFromFile(BUILTIN_CONFIG)
    config.getProcessor("lin_rec709_srgb", "srgb_rec709_scene").getDefaultCPUProcessor().applyRGB(want)
    want = np.clip(shoulder(want) if bent else want, 0, 1)
    got = encode(torch.from_numpy(light.copy()), shoulder=bent).numpy()
    assert np.abs(got - want).max() < 2e-5


def test_linearise_when_bytes_are_encoded_again_then_they_are_the_same() -> None:
    pixels = torch.arange(256).byte()
    assert torch.equal((encode(linearise(pixels), shoulder=False) * 255).round().byte(), pixels)


def test_blur_when_point_is_spread_then_it_keeps_its_sum_and_has_the_width() -> None:
    point = torch.zeros(1, 1, 33, 33)
    point[..., 16, 16] = 1
    for sigma in (0.7, 2.0):
        spread = blur(point, sigma)[0, 0]
        x = torch.arange(33) - 16.0
        assert abs(float(spread.sum()) - 1) < 1e-5
        assert abs(float((spread.sum(0) * x**2).sum()) / sigma**2 - 1) < 0.12
        assert torch.allclose(spread, spread.t(), atol=1e-7)


@pytest.mark.parametrize("quality", [25.0, 80.0])
def test_compress_when_quality_is_given_then_the_loss_is_that_of_a_jpeg_file(quality: float, tmp_path: Path) -> None:
    y, x = np.mgrid[0:64, 0:64]
    picture = np.stack([0.5 + 0.3 * np.sin(x / (3 + i) + y / 5) for i in range(3)], -1) + (x > 30)[..., None] * 0.15
    picture = np.clip(picture, 0, 1).astype(np.float32)
    got = compress(torch.from_numpy(picture).permute(2, 0, 1)[None], quality)[0].permute(1, 2, 0).numpy()
    assert np.abs(got - picture).mean() > 0.001
    real = _through_jpeg(picture, int(quality), tmp_path / "picture.jpg")
    ours, theirs = (np.abs(p - picture).mean() for p in (got, real))
    assert 0.6 < ours / theirs < 1.6
    assert np.abs(got - real).mean() < 0.6 * theirs + 0.003


def _through_jpeg(picture: np.ndarray, quality: int, path: Path) -> np.ndarray:
    buffer = oiio.ImageBuf(np.ascontiguousarray(picture))
    buffer.specmod().attribute("compression", f"jpeg:{quality}")
    buffer.specmod().attribute("jpeg:subsampling", "4:2:0")
    assert buffer.write(str(path), "uint8")
    return np.asarray(oiio.ImageBuf(str(path)).get_pixels("float"))


# -- layers -------------------------------------------------------------------------------------------------------


def test_lay_when_layers_are_white_on_black_then_light_is_their_coverage(pool: PicturePool) -> None:
    layers, scene, draw = Layers(pool, BARE), empty(1, 3, 2, 64), draws(4)
    look = Look(white(64), torch.tensor([0.6]))
    layers.lay(draw, scene, look, torch.zeros(1, 3, 2), 1)
    assert torch.allclose(scene.light[:, :, :1], scene.coverage[:, :, :1], atol=1e-5)
    before = scene.coverage[:, :, 0].clone()
    layers.lay(draw, scene, look, torch.full((1, 3, 2), 0.2), 2)
    assert torch.allclose(scene.light[:, :, 0], scene.coverage.sum(2), atol=1e-5)
    assert torch.allclose(scene.coverage[:, :, 0], before * (1 - scene.coverage[:, :, 1]), atol=1e-5)
    assert before.max() == 1


@pytest.mark.parametrize("knobs", [{"defocus": (1.0, 0.08)}, {}])
def test_lay_when_edges_are_blurred_then_light_and_coverage_have_the_same_blur(
    pool: PicturePool, knobs: dict[str, tuple[float, float]]
) -> None:
    """Defocus, moving focus, and motion under an open shutter: a white layer on black is still its own coverage."""
    layers = Layers(pool, replace(BARE, **knobs))  # type: ignore[arg-type]
    for seed in range(4):
        scene = empty(1, 3, 1, 64, samples=4)
        path = torch.linspace(0, 0.6, 3).view(1, 3, 1).expand(1, 3, 2) - 0.3
        layers.lay(draws(seed), scene, Look(white(64), torch.tensor([0.5])), path, 1)
        light, coverage = scene.shutter.close(scene.light), scene.shutter.close(scene.coverage)
        assert torch.allclose(light, coverage.expand_as(light), atol=1e-5)
        assert ((coverage > 0.1) & (coverage < 0.9)).float().mean() > 0.04


def test_lay_when_layer_throws_a_shadow_then_it_ends_softly_beside_it(pool: PicturePool) -> None:
    layers = Layers(pool, replace(BARE, shadow=1))
    for seed in range(6):
        scene = empty(1, 1, 1, 128)
        scene.light.fill_(1)
        layers.lay(draws(seed), scene, Look(white(64), torch.tensor([0.4])), torch.zeros(1, 1, 2), 1)
        light, alpha = scene.light[0, 0, 0], scene.coverage[0, 0, 0]
        bare = alpha == 0
        assert float(light[bare].min()) < 0.97 and float(light[0, 0]) == 1
        for axis in (0, 1):
            both = bare.narrow(axis, 0, 127) & bare.narrow(axis, 1, 127)
            assert float(light.diff(dim=axis).abs()[both].max()) < 0.06


def test_shutter_when_disc_moves_then_coverage_is_its_time_average(pool: PicturePool) -> None:
    """Sixteen sub-frames of a disc that moves 12 pixels against the mean of 200 discs."""
    still = replace(BARE, spin=0, growth=0, bend=0, perspective=0)
    layers, scene = Layers(pool, still), empty(1, 2, 1, 96, samples=16)
    path = torch.tensor([[[-0.3, 0.0], [0.0125, 0.0]]])  # 15 pixels a frame, of which 0.8 are open
    draw = draws(1)
    look = Look(disc(96, 48, 48, 40).expand(1, 4, 96, 96), torch.tensor([0.5]))
    state = draw.rng.get_state()
    layers.lay(draw, scene, look, path, 1)
    got = scene.shutter.close(scene.coverage)[0, 0, 0]
    # The layer is stretched and turned a little where it lies; a sharp scene of the same draws says how.
    draw.rng.set_state(state)
    sharp = empty(1, 2, 1, 96)
    layers.lay(draw, sharp, look, path, 1)
    assert abs(float(got.sum() / sharp.coverage[0, 0, 0].sum()) - 1) < 0.005
    columns = torch.arange(96) + 0.5
    middle = [float((c.sum(0) * columns).sum() / c.sum()) for c in (got, sharp.coverage[0, 0, 0])]
    assert abs(middle[0] - middle[1] - 15 * 0.8 * 15 / 32) < 0.1


def test_composite_when_edge_is_half_covered_then_light_is_mixed_before_it_is_encoded() -> None:
    """Half white over black is 0.735 on a display, not 0.5."""
    assert abs(float(encode(torch.tensor([0.5]), shoulder=False)) - 0.7354) < 1e-3
