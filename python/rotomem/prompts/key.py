"""Prompts on one frame of a plate become a key mask on disk, which the artist can look at and paint on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import rotomem
from rotomem.engine.blend import within_one
from rotomem.engine.options import TrackOptions
from rotomem.engine.sight import Sight
from rotomem.io.mattes import MatteWriter
from rotomem.matting.finish import finish
from rotomem.matting.settings import EdgeSettings
from rotomem.models.interface import VOSModel
from rotomem.models.registry import load_model
from rotomem.prompts.marks import Prompt, as_json, as_prompts, check_prompts
from rotomem.prompts.prompter import Prompter
from rotomem.types import PlateFrame, Window


@dataclass(frozen=True)
class DrawnKey:
    """A key mask that was written.

    paths     of the files: one, or one for each object
    frame     it belongs to
    coverage  object name -> share of the canvas, 0..1
    masks     what to give to `rotomem track`: "hero@1001=key.exr:hero.A", ...
    picture   [h, w, 3] float32 display-referred: what was looked at
    alphas    object name -> [h, w] float32: what was found in it
    """

    paths: tuple[Path, ...]
    frame: int
    coverage: Mapping[str, float]
    masks: tuple[str, ...]
    picture: NDArray[np.float32]
    alphas: Mapping[str, NDArray[np.float32]]


def draw_key(
    plate: str | Path,
    frame: int,
    prompts: Mapping[str, Prompt | Sequence[Any]],
    out: str | Path,
    options: TrackOptions | None = None,
) -> DrawnKey:
    """Write the soft mask of every object prompted for on one frame, as an EXR that any verb takes for a key.

    prompts   object name -> Prompt, or what a file of prompts holds for it; places in plate pixels
    out       the file to write (.exr or .png), a pattern or a folder
    options   plate, colour, model, size and edges; `overwrite` replaces a picture that rotomem did not write

    Raises any RotomemError; nothing is written then.
    """
    told = as_prompts(prompts)
    options = replace(options or TrackOptions(), frames=str(frame), rim=0)
    with options.open_plate(plate) as opened, Sight(opened, options) as sight:
        info = opened.info
        check_prompts(told, info.canvas)
        model = options.model
        if not isinstance(model, VOSModel):
            model = load_model(model, device=options.device, dtype=options.dtype)
        names = dict(enumerate(told, 1))
        writer = MatteWriter(
            out,
            info=info,
            objects=names,
            settings=options.mattes(),
            provenance={
                "version": rotomem.__version__,
                "model": model.name,
                "weights": model.weights_hash,
                "prompts": json.dumps(as_json(told), ensure_ascii=False),
                **{k.removeprefix("rotomem/"): v for k, v in sight.colour.as_metadata().items()},
            },
            replace_foreign=options.overwrite,
        )
        shown = opened.read(frame)
        picture, _ = sight.picture(shown)
        masks = Prompter(model, picture, size=None, canvas=info.canvas).masks(told)
        full = _at_plate_resolution(masks, options.edges(), sight, shown, picture, info.pixel_aspect)
        mattes = within_one(dict(zip(names, full, strict=True)))
        writer.write(shown, mattes, keys=str(frame))
        writer.close()
        paths = writer.paths(frame)
    if len(paths) == len(names):
        places = [str(path) for path in paths]
    else:
        places = [f"{paths[0]}:{layer}.A" for layer in writer.layers.values()]
    return DrawnKey(
        paths=paths,
        frame=frame,
        coverage={name: float(mattes[number].mean()) for number, name in names.items()},
        masks=tuple(f"{name}@{frame}={place}" for name, place in zip(told, places, strict=True)),
        picture=picture.numpy(),
        alphas=dict(zip(names.values(), masks, strict=True)),
    )


def _at_plate_resolution(
    masks: NDArray[np.float32],
    settings: EdgeSettings,
    sight: Sight,
    frame: PlateFrame,
    picture: Tensor,
    pixel_aspect: float,
) -> list[NDArray[np.float32]]:
    """Masks [O, h, w] as mattes [H, W] on the canvas, finished as the run's own are."""
    canvas = sight.canvas

    def pixels(rows: slice, columns: slice) -> NDArray[np.float32]:
        x, y = canvas.x0, canvas.y0
        return sight.pixels(frame, Window(x + columns.start, y + rows.start, x + columns.stop, y + rows.stop))

    size = canvas.height, canvas.width
    return [
        finish(mask, settings, size=size, pixel_aspect=pixel_aspect, picture=picture, pixels=pixels) for mask in masks
    ]
