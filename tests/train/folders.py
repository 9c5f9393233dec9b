"""Miniature data sets in the folder layouts of the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import OpenImageIO as oiio

from rotomem.evaluation.davis import write_labels


def write_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert oiio.ImageBuf(np.ascontiguousarray(pixels)).write(str(path))


def picture(index: int, frame: int = 0, *, height: int = 48, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Two bright discs that move over a dark wave, and their labels 1 and 2."""
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.uint8)
    labels[np.hypot(x - 18 - 2 * frame, y - 20 - index) < 11] = 1
    labels[np.hypot(x - 46, y - 28 + frame) < 9] = 2
    pixels = np.full((height, width, 3), 60.0) + 25 * np.sin(x / (4 + index) + y / 7)[..., None]
    pixels[labels == 1] = (230, 90, 60 + 20 * index)
    pixels[labels == 2] = (70, 120, 240)
    return pixels.astype(np.uint8), labels


def write_video(
    root: Path, images: str, labels: str, name: str, *, index: int, frames: int, void: bool = False
) -> None:
    for frame in range(frames):
        pixels, drawn = picture(index, frame)
        if void:
            drawn[:6] = 255
        write_picture(root / images / name / f"{frame:05d}.jpg", pixels)
        write_labels(root / labels / name / f"{frame:05d}.png", drawn)


def make_stills(root: Path) -> Path:
    """Three pairs side by side in folders of their own, two in separate trees."""
    for i in range(3):
        pixels, labels = picture(i)
        write_picture(root / f"duts/{i % 2}/{i}.jpg", pixels)
        write_picture(root / f"duts/{i % 2}/{i}.png", (labels == 1).astype(np.uint8) * 255)
    for i in range(2):
        pixels, labels = picture(i)
        write_picture(root / f"trees/images/part/{i}.png", pixels)
        write_labels(root / f"trees/masks/part/{i}.png", labels)
    return root


def make_davis(root: Path, *, void: bool = False) -> Path:
    for i, name in enumerate(("bear", "camel", "unlisted")):
        write_video(root, "JPEGImages/480p", "Annotations/480p", name, index=i, frames=5, void=void)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/train.txt").write_text("bear\ncamel\n")
    return root


def make_youtube(root: Path) -> Path:
    """Four annotated frames, and one picture more."""
    write_video(root, "train/JPEGImages", "train/Annotations", "003234408d", index=1, frames=4)
    write_picture(root / "train/JPEGImages/003234408d/00099.jpg", picture(1)[0])
    objects = {"1": {"category": "ball", "frames": ["00000"]}, "2": {"category": "ball", "frames": ["00000"]}}
    (root / "train/meta.json").write_text(json.dumps({"videos": {"003234408d": {"objects": objects}}}))
    return root


def make_bl30k(root: Path) -> Path:
    for part in "ab":
        write_video(root / part, "JPEGImages", "Annotations", f"{part}0001", index=0, frames=4)
    return root
