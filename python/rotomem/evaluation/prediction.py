"""How near predicted frames come to the true ones: MSE, MAE, PSNR, SSIM, and LPIPS where its library is installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def mse(a: Tensor, b: Tensor) -> float:
    """Mean squared error of two pictures, any shape, 0..1. Tables of Human3.6M give its sum over the pixels."""
    return float((a - b).square().mean())


def mae(a: Tensor, b: Tensor) -> float:
    """Mean absolute error."""
    return float((a - b).abs().mean())


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels for a peak of 1; infinite for equal pictures."""
    error = mse(a, b)
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(a: Tensor, b: Tensor, *, side: int = 11, sigma: float = 1.5) -> float:
    """Structural similarity (Wang et al. 2004, eq. 13): mean over channels and over windows inside the picture.

    a, b           [H, W, C] 0..1, H and W at least `side`
    side, sigma    of the Gaussian window, pixels
    """
    x = torch.arange(side, dtype=torch.float64) - side // 2
    line = torch.exp(-x.square() / (2 * sigma**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]

    def local(t: Tensor) -> Tensor:
        return F.conv2d(t, window)

    a, b = (t.double().permute(2, 0, 1)[:, None] for t in (a, b))
    mean_a, mean_b = local(a), local(b)
    var_a, var_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    both = local(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float((likeness / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def frame_measures(predicted: Sequence[Tensor], truth: Sequence[Tensor]) -> dict[str, float]:
    """Means over frames [H, W, 3] 0..1. `lpips` is there where the package lpips is (AlexNet, as in the paper)."""
    pairs = list(zip(predicted, truth, strict=True))
    measures: dict[str, Any] = {"mse": mse, "mae": mae, "psnr": psnr, "ssim": ssim}
    if find_spec("lpips") is not None:
        measures["lpips"] = _lpips()
    return {name: sum(f(a, b) for a, b in pairs) / len(pairs) for name, f in measures.items()}


def _lpips() -> Any:
    import lpips

    network = lpips.LPIPS(net="alex", verbose=False).eval()

    @torch.inference_mode()
    def measure(a: Tensor, b: Tensor) -> float:
        """Learned perceptual distance (Zhang et al. 2018); it wants -1..1."""
        x, y = (t.permute(2, 0, 1)[None] * 2 - 1 for t in (a, b))
        return float(network(x, y))

    return measure
