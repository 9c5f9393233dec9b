"""Small shots on disk: a textured EXR plate with moving discs, key masks, and a checkpoint that runs in no time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray
from safetensors.torch import save_file

from rotomem.io.exr import read_still

from .toy import tiny_model

HEIGHT, WIDTH = 48, 72


def write(
    path: Path,
    pixels: NDArray[np.generic],
    *,
    origin: tuple[int, int] = (0, 0),
    display: tuple[int, int] | None = None,
    channels: tuple[str, ...] | None = None,
    **attributes: object,
) -> Path:
    """A picture [H, W, C] with its data window at `origin` (x, y) in a display window of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.ascontiguousarray(pixels)
    height, width, count = pixels.shape
    name = {"float16": "half"}.get(str(pixels.dtype), str(pixels.dtype))
    spec = oiio.ImageSpec(width, height, count, oiio.TypeDesc(name))
    if channels:
        spec.channelnames = channels
    spec.x, spec.y = origin
    spec.full_x = spec.full_y = 0
    spec.full_width, spec.full_height = display or (width, height)
    for key, value in attributes.items():
        spec.attribute(key, value)
    out = oiio.ImageOutput.create(str(path))
    assert out.open(str(path), spec), out.geterror()
    assert out.write_image(pixels), out.geterror()
    assert out.close()
    return path


def disc(t: int, *, dx: float = 1.5, x: float = 20, y: float = 24, r: float = 9) -> NDArray[np.float32]:
    """Coverage [H, W] of a soft-edged disc that moves to the right."""
    yy, xx = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    distance = np.hypot(yy - y, xx - x - dx * t)
    return np.clip(r - distance + 0.5, 0, 1).astype(np.float32)


def picture(t: int) -> NDArray[np.float16]:
    """Scene-linear [H, W, 3]: a warm disc and a cold one over a texture."""
    yy, xx = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    ground = 0.18 + 0.1 * np.sin(xx / 5 + yy / 9) * np.cos(yy / 6)
    rgb = np.repeat(ground[..., None], 3, 2)
    for alpha, colour in ((disc(t), (0.9, 0.4, 0.1)), (disc(t, x=50, dx=-0.5, y=14, r=6), (0.1, 0.3, 1.4))):
        rgb = rgb * (1 - alpha[..., None]) + alpha[..., None] * np.array(colour, np.float32)
    return rgb.astype(np.float16)


def plate(folder: Path, frames: Iterable[int] = range(1001, 1009), stem: str = "sh010") -> str:
    """Write a plate; its pattern."""
    for frame in frames:
        write(folder / f"{stem}.{frame:04d}.exr", picture(frame - 1001), framesPerSecond=24.0)
    return str(folder / f"{stem}.%04d.exr")


def soft_key(folder: Path, frame: int, name: str = "hero", **where: float) -> str:
    """One object's soft matte as an EXR; the `--mask` text for it."""
    path = folder / f"{name}.{frame}.exr"
    alpha = disc(frame - 1001, **where).astype(np.float16)
    write(path, alpha[..., None], channels=("A",))
    return f"{name}@{frame}={path}"


def label_key(folder: Path, frame: int) -> str:
    """Both discs as a label map PNG (1 and 2); the `--mask` text for it."""
    t = frame - 1001
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[disc(t) > 0.5] = 1
    labels[disc(t, x=50, dx=-0.5, y=14, r=6) > 0.5] = 2
    path = write(folder / f"labels.{frame}.png", labels[..., None])
    return f"{frame}={path}"


def checkpoint(folder: Path) -> str:
    """A tiny XMem with seeded weights, as a file."""
    path = folder / "tiny.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tiny_model().state_dict().items()}, path)
    return str(path)


def matte(path: Path, channel: str = "A") -> NDArray[np.generic]:
    """One channel of a written matte."""
    return read_still(path, channels=[channel]).arrays[channel]


def digests(folder: Path) -> dict[str, str]:
    """File name -> hash of its bytes."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if _is_matte(p)}


def _is_matte(path: Path) -> bool:
    return path.is_file() and not path.name.endswith("quality.json")
