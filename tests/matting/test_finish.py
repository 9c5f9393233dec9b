import numpy as np
import pytest
import torch

from rotomem.errors import UsageError
from rotomem.matting import guided
from rotomem.matting.finish import finish
from rotomem.matting.raster import part_of, resample
from rotomem.matting.settings import EdgeSettings

SCALE, h, w = 4, 90, 130
SIZE = (h * SCALE, w * SCALE)


def shrink(planes):
    return resample(resample(torch.from_numpy(planes), 0, h), 1, w)


@pytest.fixture(scope="module")
def shot():
    """A striped object with ragged edges over another colour: plate [H, W, 3] and what is true [H, W]."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]].astype(np.float32)
    edge = 150 + 50 * np.sin(x / 40) + 9 * np.sin(x / 3)
    alpha = np.clip(y - edge, 0, 1).astype(np.float32)[..., None]
    front = np.stack([0.7 + 0.05 * np.sin(x / 9), 0.5 + 0 * x, 0.3 + 0.05 * np.cos(y / 7)], -1)
    back = np.stack([0.2 + 0 * x, 0.35 + 0.05 * np.sin(y / 11), 0.6 + 0 * x], -1)
    return (alpha * front + (1 - alpha) * back).astype(np.float32), alpha[..., 0]


def coarse(alpha):
    """As a decoder answers: averaged over 16 pixels, enlarged to the network's raster."""
    small = resample(resample(torch.from_numpy(alpha), 0, h // 4), 1, w // 4)
    return resample(resample(small, 0, h), 1, w).numpy()


def run(plate, alpha, **settings):
    pixels = lambda rows, columns: np.ascontiguousarray(plate[rows, columns])  # noqa: E731
    return finish(alpha, EdgeSettings(**settings), size=plate.shape[:2], picture=shrink(plate), pixels=pixels)


def test_finish_when_guided_then_edges_run_where_the_plates_do(shot):
    plate, truth = shot
    off, fitted = (np.abs(run(plate, coarse(truth), edge=e) - truth).sum() for e in ("off", "guided"))
    assert fitted < 0.45 * off


def test_finish_when_guided_then_what_is_far_from_soft_alpha_stays(shot):
    plate, truth = shot
    off, fitted = (run(plate, coarse(truth), edge=e) for e in ("off", "guided"))
    far = np.abs(off - fitted) > 0
    assert far.any() and not far[:35].any() and not far[-90:].any()


def test_finish_when_off_then_the_matte_is_enlarged_with_bilinear_weights(shot):
    plate, truth = shot
    small = coarse(truth)
    whole = part_of(torch.from_numpy(small)[None], *SIZE, slice(None), slice(None))[0].numpy()
    np.testing.assert_allclose(run(plate, small, edge="off"), whole, atol=1e-6)
    expected = torch.nn.functional.interpolate(torch.from_numpy(small)[None, None], SIZE, mode="bilinear")
    np.testing.assert_allclose(whole, expected[0, 0].numpy(), atol=1e-5)


def test_finish_when_guided_then_tiles_leave_no_trace(shot):
    plate, truth = shot
    small = torch.from_numpy(coarse(truth))
    everywhere = (*SIZE, slice(None), slice(None))
    large = part_of(small[None], *everywhere)[0]
    fit = guided.fit(small, shrink(plate), stride=4)
    refined = guided.apply(part_of(fit.coefficients, *everywhere), torch.from_numpy(plate))
    believed = part_of(fit.believed[None], *everywhere)[0]
    np.testing.assert_allclose(
        run(plate, small.numpy()), (large + believed * (refined - large)).clamp(0, 1).numpy(), atol=1e-5
    )


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_finish_when_matte_is_empty_or_full_then_it_stays_so_and_the_plate_is_not_asked_for(value):
    def never(rows, columns):
        raise AssertionError("there is no edge here")

    matte = finish(
        np.full((h, w), value, np.float32),
        EdgeSettings(),
        size=(301, 555),
        picture=torch.zeros(h, w, 3),
        pixels=never,
    )
    assert matte.shape == (301, 555) and (matte == value).all()


def test_finish_when_threads_change_then_bytes_do_not(shot):
    plate, truth = shot
    settings = dict(choke=0.7, feather=1.5, despeckle=9.0, fill_holes=9.0)
    threads = torch.get_num_threads()
    try:
        found = []
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(run(plate, coarse(truth), **settings))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(*found)


def test_finish_when_raster_is_stretched_then_specks_are_measured_in_plate_pixels():
    alpha = np.zeros((60, 80), np.float32)
    alpha[5:40, 5:40] = 1
    alpha[50:53, 60:63] = 1  # 9 samples of 2 x 1 plate pixels, each 2 wide: 36 of a pixel's height squared

    def kept(across):
        return finish(alpha, EdgeSettings("off", despeckle=across), size=(120, 80), pixel_aspect=2.0)[100:, 55:].max()

    assert kept(6.7) == 1 and kept(6.9) == 0  # pi / 4 * 6.77**2 = 36


def test_fit_when_alpha_is_linear_in_colour_then_it_is_found():
    rng = np.random.default_rng(3)
    guide = torch.from_numpy(rng.uniform(0, 1, (64, 96, 3)).astype(np.float32))
    alpha = (0.5 * guide[..., 0] - 0.2 * guide[..., 1] + 0.1 * guide[..., 2] + 0.3).clamp(0, 1)
    a = guided.fit(alpha, guide, stride=4).coefficients
    middle = a[:, 4:-4, 4:-4].reshape(4, -1)
    expected = torch.tensor([0.5, -0.2, 0.1, 0.3])[:, None]
    assert (middle - expected).abs().max() < 0.06  # epsilon pulls towards flat
    wanted = guided.apply(part_of(a, 64, 96, slice(None), slice(None)), guide)
    stretched = ((alpha - 0.05) / 0.9).clamp(0, 1)
    assert (wanted - stretched)[8:-8, 8:-8].abs().max() < 0.05


def test_finish_when_object_is_dappled_in_its_backgrounds_colours_then_no_holes_are_cut():
    rng = np.random.default_rng(5)
    spots = resample(resample(torch.from_numpy(rng.integers(0, 2, (60, 87, 1)).astype(np.float32)), 0, 360), 1, 520)
    plate = (0.2 + 0.6 * spots.numpy() * np.float32([1, 0.9, 0.7])).astype(np.float32)  # the same on both sides
    truth = np.zeros(SIZE, np.float32)
    truth[120:260, 150:400] = 1
    off, fitted = (np.abs(run(plate, coarse(truth), edge=e) - truth) for e in ("off", "guided"))
    assert fitted.sum() < 1.05 * off.sum()
    assert fitted[140:240, 170:380].max() < 0.1


@pytest.mark.parametrize("wrong", [{"edge": "soft"}, {"feather": -1.0}, {"choke": 65.0}, {"stabilise": 1.5}])
def test_edge_settings_when_out_of_range_then_usage_error(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        EdgeSettings(**wrong)
