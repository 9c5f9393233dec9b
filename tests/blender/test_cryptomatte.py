"""Blender's Cryptomatte node picks our mattes out of our files, without error, and we take its renders for keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rotomem.io.cryptomatte import TYPE_NAME, crypto_layers, name_id
from rotomem.io.exr import read_header, read_still
from rotomem.io.masks import load_keys, parse_mask
from rotomem.io.mattes import MatteSettings, MatteWriter
from rotomem.io.plate import PlateInfo
from rotomem.types import PlateFrame, Window

NAMES = ("hero arm", "set/car door", "Rémi é", 'say "hi" b\\ack')
WIDTH, HEIGHT = 96, 54
WINDOW = Window(0, 0, WIDTH, HEIGHT)


def balls() -> np.ndarray:
    """Soft balls, one behind the other, [4, H, W], in steps that add without rounding; all four meet somewhere."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    room = np.full((HEIGHT, WIDTH), 4096.0)
    planes = []
    for cx, cy, radius in ((36, 27, 18), (50, 22, 17), (60, 32, 18), (45, 33, 22)):
        ball = np.clip((radius - np.hypot(x - cx, y - cy)) / 14 + 0.5, 0, 1)
        planes.append(np.floor(room * ball))
        room -= planes[-1]
    return (np.stack(planes) / 4096).astype(np.float32)


def info() -> PlateInfo:
    return PlateInfo(
        path="/nowhere/sh.%04d.exr",
        kind="exr",
        frames=(1001,),
        missing=(),
        padding=4,
        stem="sh",
        display_window=WINDOW,
        canvas=WINDOW,
    )


def test_cryptomatte_when_picked_by_name_in_blender_then_every_matte_is_exact(
    tmp_path: Path, every_blender: Any
) -> None:
    about, window = info(), WINDOW
    frame = PlateFrame(1001, np.zeros((HEIGHT, WIDTH, 3), np.float16), None, window, window, 1.0, None, 1001)
    truth = balls()
    assert ((truth > 0).sum(0) == 4).any() and ((truth > 0) & (truth < 1)).any(axis=(1, 2)).all()
    objects = dict(enumerate(NAMES, 1))
    with MatteWriter(tmp_path / "ö", info=about, objects=objects, settings=MatteSettings(also=("crypto",))) as writer:
        writer.write(frame, dict(enumerate(truth, 1)))
    picked = every_blender(
        "pick_cryptomatte.py",
        crypto=str(writer.paths_by_kind(1001)["crypto"][0]),
        layer=TYPE_NAME,
        names=NAMES,
        size=[WIDTH, HEIGHT],
        folder=str(tmp_path),
    )
    errors = {
        name: float(np.abs(read_still(picked[name], channels=["R"]).arrays["R"] - plane).max())
        for name, plane in zip(NAMES, truth, strict=True)
    }
    assert errors == dict.fromkeys(NAMES, 0.0)


def test_load_keys_when_blender_rendered_the_cryptomatte_then_objects_and_materials_by_name(
    tmp_path: Path, blender: Any
) -> None:
    path = tmp_path / "render.exr"
    names = ("set/car, é", "ball")
    blender("render_cryptomatte.py", out=str(path), names=names, size=[WIDTH, HEIGHT])
    objects, materials = crypto_layers(read_header(path))
    for layer in (objects, materials):
        assert len(layer.manifest) > 2 and all(name_id(name) == bits for name, bits in layer.manifest.items())
    masks = [f"{names[0]}@1001={path}", f"ball@1001={path}", f"cube@1001={path}:Material"]
    key = load_keys([parse_mask(mask) for mask in masks], info()).by_frame[1001]
    cube, ball, grey = key.alpha
    assert np.array_equal(cube, grey)  # all of its material
    assert ((cube > 0) & (cube < 1)).any() and (cube == 1).sum() > 200 and (ball == 1).sum() > 200
    assert (cube + ball).max() <= 1
