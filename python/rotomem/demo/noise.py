"""Fractal textures and filters that the demo's painters share. Float32 throughout."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.floating[Any]]


def fractal(
    shape: tuple[int, int], roughness: float, rng: np.random.Generator, *, stretch: float = 1.0, low: float = 1.0
) -> Image:
    """Tileable fractal noise [H, W], mean 0 and standard deviation 1, by spectral synthesis.

    roughness   amplitude falls with frequency to this power: 1 is grit, 1.7 clouds, 2.2 smooth hills
    stretch     horizontal size of features against their vertical size
    low         cycles per picture below which the spectrum is flat, so that no feature fills the picture
    """
    h, w = shape
    fy = np.fft.fftfreq(h)[:, None] * h
    fx = np.fft.rfftfreq(w)[None] * w * stretch
    frequency = np.maximum(np.hypot(fx, fy), low)
    white = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    image = np.fft.irfft2(white * frequency**-roughness, s=shape)
    image -= image.mean()
    out: Image = (image / image.std()).astype(np.float32)
    return out


def sample(texture: Image, x: Image, y: Image) -> Image:
    """Bilinear look-up of a tileable texture [H, W] at pixel positions x, y of any one shape."""
    h, w = texture.shape
    x0, y0 = np.floor(x), np.floor(y)
    tx, ty = x - x0, y - y0
    xi, yi = x0.astype(np.int32) % w, y0.astype(np.int32) % h
    xj, yj = (xi + 1) % w, (yi + 1) % h
    top = texture[yi, xi] * (1 - tx) + texture[yi, xj] * tx
    out: Image = top * (1 - ty) + (texture[yj, xi] * (1 - tx) + texture[yj, xj] * tx) * ty
    return out


def smoothstep(low: float | Image, high: float | Image, x: Image) -> Image:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    out: Image = t * t * (3 - 2 * t)
    return out


def disc_blur(image: Image, radius: float) -> Image:
    """Defocus [H, W, C] by a soft-edged disc, as a lens does; edges are mirrored."""
    if radius < 0.5:
        return image
    pad = int(np.ceil(radius)) + 1
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    h, w = padded.shape[:2]
    y, x = np.minimum(np.arange(h), h - np.arange(h)), np.minimum(np.arange(w), w - np.arange(w))
    disc = np.clip(radius + 0.5 - np.hypot(y[:, None], x[None]), 0, 1).astype(np.float32)
    kernel = np.fft.rfft2(disc / disc.sum())
    out = np.fft.irfft2(np.fft.rfft2(padded, axes=(0, 1)) * kernel[..., None], s=(h, w), axes=(0, 1))
    return out[pad:-pad, pad:-pad].astype(np.float32)


def gaussian_blur(image: Image, sigma: float) -> Image:
    """Blur [H, W, C]; edges are repeated."""
    half = max(int(np.ceil(3 * sigma)), 1)
    t = np.arange(-half, half + 1)
    kernel = np.exp(-0.5 * (t / sigma) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    out = image
    for axis in (0, 1):
        pad = [(0, 0)] * image.ndim
        pad[axis] = (half, half)
        padded = np.pad(out, pad, mode="edge")
        n = image.shape[axis]
        parts = (padded[i : i + n] if axis == 0 else padded[:, i : i + n] for i in range(t.size))
        out = sum((k * p for k, p in zip(kernel, parts, strict=True)), np.zeros_like(image))
    return out
