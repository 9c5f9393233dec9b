"""Measures of predicted frames against values known on paper."""

from __future__ import annotations

import math

import pytest
import torch

from rotomem.evaluation.prediction import frame_measures, mae, mse, psnr, ssim


def test_errors_when_one_pixel_in_four_is_off_by_half_then_they_are_known() -> None:
    a = torch.zeros(2, 2, 1)
    b = a.clone()
    b[0, 0] = 0.5
    assert mse(a, b) == pytest.approx(0.0625) and mae(a, b) == pytest.approx(0.125)
    assert psnr(a, b) == pytest.approx(10 * math.log10(16)) and psnr(a, a) == math.inf


def test_ssim_when_flat_pictures_differ_then_it_is_the_luminance_term_alone() -> None:
    a, b = torch.full((16, 16, 3), 0.4), torch.full((16, 16, 3), 0.6)
    expected = (2 * 0.4 * 0.6 + 1e-4) / (0.4**2 + 0.6**2 + 1e-4)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-6) and ssim(a, a) == pytest.approx(1)


def test_ssim_when_written_as_a_loop_over_windows_then_it_agrees() -> None:
    a, b = torch.rand(2, 14, 13, 1, generator=torch.Generator().manual_seed(0)).double()
    x = torch.arange(-5, 6).double()
    g = torch.exp(-(x**2) / (2 * 1.5**2))
    w = g[:, None] * g[None] / (g.sum() ** 2)
    total = []
    for i in range(4):
        for j in range(3):
            p, q = a[i : i + 11, j : j + 11, 0], b[i : i + 11, j : j + 11, 0]
            mp, mq = (w * p).sum(), (w * q).sum()
            vp, vq, cov = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum(), (w * (p - mp) * (q - mq)).sum()
            total.append((2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    assert ssim(a, b) == pytest.approx(float(torch.stack(total).mean()), abs=1e-9)


def test_frame_measures_when_two_frames_then_means_are_taken() -> None:
    black = torch.zeros(16, 16, 3)
    measures = frame_measures([black, black], [black + 0.1, black + 0.3])
    assert measures["mae"] == pytest.approx(0.2) and measures["mse"] == pytest.approx(0.05)
    assert {"mse", "mae", "psnr", "ssim"} <= set(measures) <= {"mse", "mae", "psnr", "ssim", "lpips"}
