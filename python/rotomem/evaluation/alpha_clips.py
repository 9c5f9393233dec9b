"""Sequences with fractional truth, in folders.

    DIR/JPEGImages/<sequence>/00000.png   Alphas/<sequence>/00000.exr             one object, or several as layers
    DIR/JPEGImages/<sequence>/00000.png   Alphas/<sequence>/<object>/00000.png    a folder an object
    DIR/**/ (the above)                                                           several data sets below one folder

Pictures are display-referred (PNG, JPEG). A matte is an EXR of half or float, or a PNG of 16 or 8 bits: its channel
`A`, its layers' `hero.A` and `car.A` (as `rotomem track` writes them), or the only channel it has. Mattes may be
absent on any frame, which then does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rotomem.errors import InputError, MissingFrameError, PlateError, UsageError
from rotomem.evaluation.davis import folders_in, label_sets, names_in, pictures_in, read_picture
from rotomem.io.matte_files import read_layers

Picture = NDArray[np.float32]
Alphas = NDArray[np.float32]

_FORMATS = (".exr", ".png")


@dataclass(frozen=True)
class AlphaClip:
    """One sequence with true mattes.

    objects   names, a row of the mattes each
    length    number of frames
    frames    makes an iterator of (picture [H, W, 3] float32 0..1, mattes [O, H, W] float32 0..1 or None)
    """

    dataset: str
    name: str
    objects: tuple[str, ...]
    length: int
    frames: Callable[[], Iterator[tuple[Picture, Alphas | None]]]


def find_alpha_clips(root: str | Path, names: Iterable[str] | None = None) -> list[AlphaClip]:
    """Every sequence with true mattes below a folder, by data set and name; none where there is no such data set.

    names   only these sequences; a text file of names stands for its lines

    Raises MissingFrameError for an unknown name or pictures without mattes, InputError for mattes that belong to no
    picture, UsageError where data sets with label maps instead lie below the folder too.
    """
    datasets = sorted(_datasets(Path(root)))
    if not datasets:
        return []
    if others := sorted(set(label_sets(Path(root))) - set(datasets)):
        raise UsageError(
            f"{datasets[0].name} has mattes, {others[0].name} label maps",
            remedy="they are measured by different figures: give one folder, then the other",
            path=root,
        )
    there = [name for dataset in datasets for name in _names(dataset)]
    wanted = set(there if names is None else names_in(names))
    if unknown := sorted(wanted - set(there)):
        raise MissingFrameError(
            f"no sequence {', '.join(unknown)}", remedy="sequences here: " + ", ".join(there[:12]), path=root
        )
    return [clip for dataset in datasets for clip in _clips(dataset, wanted)]


def _datasets(root: Path, depth: int = 3) -> Iterator[Path]:
    if (root / "JPEGImages").is_dir() and (root / "Alphas").is_dir():
        yield root
    elif depth and root.is_dir():
        for child in folders_in(root):
            yield from _datasets(child, depth - 1)


def _names(dataset: Path) -> list[str]:
    """Of all sequences that have a folder of pictures or of mattes."""
    return sorted({f.name for tree in ("JPEGImages", "Alphas") for f in folders_in(dataset / tree)})


def _clips(dataset: Path, names: Container[str]) -> Iterator[AlphaClip]:
    for folder in (dataset / "Alphas" / name for name in _names(dataset) if name in names):
        if not folder.is_dir():
            raise MissingFrameError(
                f"{folder.name} has no mattes",
                remedy="complete the data set, or name the --sequences that are whole",
                path=folder,
            )
        pictures = pictures_in(dataset / "JPEGImages" / folder.name)
        folders = folders_in(folder)
        mattes = {place.name: _mattes(place) for place in folders} if folders else {"": _mattes(folder)}
        stems = {p.stem for p in pictures}
        for name, files in mattes.items():
            if stray := sorted(set(files) - stems):
                raise InputError(
                    f"the matte of frame {stray[0]} has no picture",
                    remedy=f"expected one in {dataset / 'JPEGImages' / folder.name}",
                    path=folder / name,
                )
            if not files:
                raise InputError("a folder without mattes", remedy="expected .exr or .png", path=folder / name)
        objects = tuple(_layers(next(iter(mattes[""].values())))) if "" in mattes else tuple(mattes)
        yield AlphaClip(
            dataset.name, folder.name, objects, len(pictures), partial(_frames, pictures, mattes, objects)
        )


def _mattes(folder: Path) -> dict[str, Path]:
    """Frame -> file."""
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in _FORMATS}


def _frames(
    pictures: Sequence[Path], mattes: Mapping[str, Mapping[str, Path]], objects: tuple[str, ...]
) -> Iterator[tuple[Picture, Alphas | None]]:
    """Pictures with their mattes [O, H, W]; None where a frame lacks the matte of any object."""
    for path in pictures:
        files = {name: of[path.stem] for name, of in mattes.items() if path.stem in of}
        truth = None
        if len(files) == len(mattes):
            layers = _layers(files[""]) if "" in files else {name: _only(file) for name, file in files.items()}
            if lacking := [name for name in objects if name not in layers]:
                raise PlateError(f"the matte has no layer {lacking[0]}", path=files[""])
            truth = np.stack([layers[name] for name in objects])
        yield read_picture(path), truth


def _only(path: Path) -> Alphas:
    layers = list(_layers(path).values())
    if len(layers) > 1:
        raise PlateError("the matte holds several objects, its folder is one object's", path=path)
    return layers[0]


def _layers(path: Path) -> dict[str, Alphas]:
    """Object -> alpha [H, W] float32 on the display window, of one matte file."""
    layers = read_layers(path)
    if any(not np.isfinite(a).all() or a.min(initial=0) < 0 or a.max(initial=0) > 1 for a in layers.values()):
        raise PlateError("the matte leaves 0..1", remedy="mattes hold coverage", path=path)
    return {layer or "object": alpha for layer, alpha in layers.items()}
