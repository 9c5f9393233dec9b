"""Take J and F of a tracker on data sets in the folder layouts of DAVIS and YouTube-VOS.

    DIR/JPEGImages/<sequence>/00000.jpg  Annotations/<sequence>/00000.png          DAVIS 2016, 2017, YouTube-VOS
    DIR/JPEGImages/480p/<sequence>/...   Annotations/480p/<sequence>/...           resolutions side by side (DAVIS)
    DIR/JPEGImages_all_frames/<sequence>/...                                       every frame (YouTube-VOS), or so:
    DIR_all_frames/JPEGImages/...        all_frames/DIR_all_frames/JPEGImages/...  beside DIR
    DIR/**/ (the above)                                                            several data sets below one folder

An object's key is the first annotation that shows it; a key that comes later is given at its frame, for the new
objects alone. Which frames count:

    davis     all but the sequence's first and last, as in the DAVIS 2017 semi-supervised evaluation
    davis2016 the same frames, with all objects of a sequence merged into one, which is how DAVIS 2016 sees the
              sequences it shares with DAVIS 2017 (published figures for it keep or drop the last frame)
    youtube   every annotated frame after an object's key, the last one too

With all frames read, the tracker sees every one of them; only those of the plain layout are annotated, counted and
written. A score is the mean over frames per object, then over objects (not over sequences), as both evaluations have
it; with the protocol youtube objects of seen and of unseen categories are also told apart.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from rotomem.errors import CheckpointError, InputError, MissingFrameError, PlateError, ShapeError, UsageError
from rotomem.evaluation.gauge import Cost, Gauge
from rotomem.evaluation.measures import (
    Statistics,
    boundary,
    boundary_accuracy,
    mean_known,
    region_similarity,
    statistics,
)
from rotomem.evaluation.temporal import flicker as measure_flicker
from rotomem.io.masks import palette_indices
from rotomem.matting.motion import estimate_motion
from rotomem.types import ObjectId

Labels = NDArray[np.uint8]

VOID = 255
PROTOCOLS = ("auto", "davis", "davis2016", "youtube")
_RESOLUTIONS = ("480p", "Full-Resolution", "1080p")
_IMAGES = (".jpg", ".jpeg", ".png")
_ALL_FRAMES = "_all_frames"


class Stepper(Protocol):
    """What is evaluated: `rotomem.Session`, or anything that steps like it."""

    @property
    def objects(self) -> tuple[ObjectId, ...]: ...

    def step(
        self, image: Any, mask: Any = None, *, objects: Sequence[ObjectId] | None = None, last: bool = False
    ) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class VideoSequence:
    """One sequence of a data set.

    dataset       name of the data set's folder
    images        a picture per frame
    annotations   frame index -> label map; with the protocol "youtube" often every fifth
    wanted        frame indices whose labels answer the data set: all; of all frames read, those of the plain layout
    categories    object -> what it is, where a meta.json says so
    seen          object -> whether training data shows its category, where that is known
    """

    dataset: str
    name: str
    images: tuple[Path, ...]
    annotations: Mapping[int, Path]
    protocol: str
    wanted: frozenset[int]
    categories: Mapping[ObjectId, str] = field(default_factory=dict)
    seen: Mapping[ObjectId, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class ObjectScore:
    """Measures of one object over the frames that count; NaN where no frame does.

    flicker, truth_flicker   mean over pairs of neighbouring frames after the key, in pixels of edge
                             (`temporal.flicker`), of the probability and of the annotation; NaN unless asked for
    """

    object_id: ObjectId
    key_frame: int
    frames: int
    j: Statistics
    f: Statistics
    category: str | None = None
    seen: bool | None = None
    flicker: float = math.nan
    truth_flicker: float = math.nan

    @property
    def jf(self) -> float:
        return (self.j.mean + self.f.mean) / 2


@dataclass(frozen=True)
class SequenceScore:
    """What one sequence gave.

    size     (width, height) of its pictures
    cost     time and memory of the tracker
    """

    dataset: str
    name: str
    frames: int
    size: tuple[int, int]
    cost: Cost
    objects: tuple[ObjectScore, ...]


@dataclass(frozen=True)
class Summary:
    """Means over objects.

    seen, unseen   YouTube-VOS' mean (J, F) over objects of categories that training data shows, and does not
    flicker        (of the tracker, of the truth), over the objects where it was measured; NaN where it was not
    """

    objects: int
    j: Statistics
    f: Statistics
    seen: tuple[float, float] | None
    unseen: tuple[float, float] | None
    flicker: tuple[float, float]

    @property
    def jf(self) -> float:
        return (self.j.mean + self.f.mean) / 2

    @property
    def overall(self) -> float | None:
        """YouTube-VOS' one number, G: the mean of those four."""
        if self.seen is None or self.unseen is None:
            return None
        return sum((*self.seen, *self.unseen)) / 4


def find_sequences(
    root: str | Path, names: Iterable[str] | None = None, *, protocol: str = "auto", all_frames: bool = False
) -> list[VideoSequence]:
    """Every sequence below a folder, in alphabetical order of data set and name.

    names        only these sequences; a text file of names (ImageSets/2017/val.txt) stands for its lines
    protocol     "davis", "davis2016", "youtube", or "auto": youtube where the data set has a meta.json, else davis
    all_frames   read every frame of a video whose plain layout holds some of them

    Raises MissingFrameError where no data set or sequence is found, a name is unknown, a sequence is not whole (no
    pictures, no annotations, an annotation without picture), or a data set lacks the frames that `all_frames` asks
    for; UsageError for an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"no protocol {protocol!r}", remedy="use " + ", ".join(PROTOCOLS))
    root = Path(root)
    if not root.is_dir():
        raise MissingFrameError("no such folder", remedy="give the folder that holds JPEGImages", path=root)
    datasets = sorted(d for d in label_sets(root) if not (all_frames and d.name.endswith(_ALL_FRAMES)))
    if not datasets:
        raise MissingFrameError(
            "no data set found: expected folders JPEGImages and Annotations",
            remedy="give a folder in the layout of DAVIS or YouTube-VOS, or one that holds several",
            path=root,
        )
    there = [name for dataset in datasets for name in _names(dataset)]
    wanted = set(there if names is None else names_in(names))
    if unknown := sorted(wanted - set(there)):
        raise MissingFrameError(
            f"no sequence {', '.join(unknown)}",
            remedy="sequences here: " + ", ".join(there[:12]) + (", ..." if len(there) > 12 else ""),
            path=root,
        )
    if not wanted:
        raise MissingFrameError("no sequence to measure", remedy="check the folder and the list of names", path=root)
    return [sequence for dataset in datasets for sequence in _sequences(dataset, protocol, all_frames, wanted)]


class _Tally:
    """What is known of one object while its sequence runs."""

    def __init__(self, key_frame: int) -> None:
        self.key_frame = key_frame
        self.j: list[float] = []
        self.f: list[float] = []
        self.flicker: list[float] = []
        self.truth_flicker: list[float] = []


def run_sequence(
    sequence: VideoSequence,
    stepper: Stepper,
    *,
    limit: int | None = None,
    flicker: bool = False,
    on_frame: Callable[[int, NDArray[np.float32], Labels], None] | None = None,
) -> SequenceScore:
    """Track one sequence from its keys and measure every frame that counts.

    stepper    fresh: it has seen nothing
    limit      only the first so many frames
    flicker    also estimate the motion between frames and measure how steady the probabilities are; takes longer
    on_frame   called with (frame index, picture, labels [H, W]) for every frame

    Raises ShapeError where an annotation is not of its picture's size; PlateError for a file that cannot be read.
    """
    images = sequence.images[:limit]
    truth = Truth(sequence)
    gauge = Gauge()
    objects: dict[ObjectId, _Tally] = {}
    steadiness = _Steadiness(objects) if flicker else None
    size = (0, 0)
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read_picture, images[0])
        for index, path in enumerate(images):
            picture = ahead.result()
            if index + 1 < len(images):
                ahead = reader.submit(read_picture, images[index + 1])
            height, width = picture.shape[:2]
            size = (width, height)
            annotation = truth.labels(index)
            if annotation is not None and annotation.shape != (height, width):
                raise ShapeError(
                    f"the annotation is {annotation.shape[1]}x{annotation.shape[0]}, its picture {width}x{height}",
                    remedy="use pictures and annotations of one resolution",
                    path=sequence.annotations[index],
                    picture=path,
                )
            new = [] if annotation is None else [i for i in ids_of(annotation) if i not in objects]
            labels = np.zeros((height, width), np.uint8)
            probabilities = None
            if objects or new:
                last = index == len(images) - 1
                mask = None
                if new:
                    assert annotation is not None
                    mask = np.where(np.isin(annotation, new), annotation, 0).astype(np.uint8)
                with gauge.step():
                    probabilities = stepper.step(picture, mask, objects=new or None, last=last)
                check_finite(probabilities, sequence.name, index)
                rows = np.array([0, *stepper.objects], np.uint8)
                labels = rows[np.argmax(probabilities, axis=0)]
            if annotation is not None and counts(sequence.protocol, index, len(images)):
                void = annotation == VOID if truth.has_void else None
                for i, tally in objects.items():
                    tally.j.append(region_similarity(labels == i, annotation == i, void))
                    tally.f.append(boundary_accuracy(labels == i, annotation == i, void=void))
            objects.update({i: _Tally(index) for i in new})
            if steadiness is not None and probabilities is not None:
                steadiness.see(picture, dict(zip(stepper.objects, probabilities[1:], strict=True)), annotation)
            if on_frame:
                on_frame(index, picture, labels)
    if not objects:
        raise InputError(
            "no annotation shows an object", remedy="check the label maps", path=sequence.images[0].parent
        )
    scores = tuple(
        ObjectScore(
            i,
            tally.key_frame,
            len(tally.j),
            statistics(tally.j),
            statistics(tally.f),
            sequence.categories.get(i),
            sequence.seen.get(i),
            mean_known(tally.flicker),
            mean_known(tally.truth_flicker),
        )
        for i, tally in sorted(objects.items())
    )
    return SequenceScore(sequence.dataset, sequence.name, len(images), size, gauge.cost, scores)


class _Steadiness:
    """Flicker of every object, and of its annotation, from one frame to the next."""

    def __init__(self, objects: Mapping[ObjectId, _Tally]) -> None:
        self._objects = objects
        self._before: tuple[NDArray[np.float32], dict[ObjectId, NDArray[np.float32]], Labels | None] | None = None

    def see(
        self, picture: NDArray[np.float32], alphas: dict[ObjectId, NDArray[np.float32]], annotation: Labels | None
    ) -> None:
        """Take the next frame; objects that were keyed on it are compared from the next one on."""
        before, self._before = self._before, (picture, alphas, annotation)
        if before is None:
            return
        motion, known = estimate_motion(before[0], picture)
        for i, alpha in before[1].items():
            tally = self._objects[i]
            tally.flicker.append(measure_flicker(alpha, alphas[i], motion, known))
            if annotation is not None and before[2] is not None:
                tally.truth_flicker.append(measure_flicker(before[2] == i, annotation == i, motion, known))


def check_finite(probabilities: NDArray[np.float32], sequence: str, frame: int) -> None:
    """Raise CheckpointError for an answer that is no number: a mean would leave it out."""
    if not np.isfinite(probabilities).all():
        raise CheckpointError(
            "the model's answer is not finite", remedy="check its weights", sequence=sequence, frame=frame
        )


def summarise(scores: Iterable[SequenceScore]) -> Summary:
    """Means over all objects that have a frame that counts."""
    everyone = [o for s in scores for o in s.objects]
    objects = [o for o in everyone if o.frames]

    def part(seen: bool) -> tuple[float, float] | None:
        chosen = [o for o in objects if o.seen is seen]
        return (mean_known(o.j.mean for o in chosen), mean_known(o.f.mean for o in chosen)) if chosen else None

    def whole(of: Callable[[ObjectScore], Statistics]) -> Statistics:
        return Statistics(
            mean_known(of(o).mean for o in objects),
            mean_known(of(o).recall for o in objects),
            mean_known(of(o).decay for o in objects),
        )

    flicker = (mean_known(o.flicker for o in everyone), mean_known(o.truth_flicker for o in everyone))
    return Summary(len(objects), whole(lambda o: o.j), whole(lambda o: o.f), part(True), part(False), flicker)


def ids_of(labels: Labels) -> list[ObjectId]:
    """Object ids in a label map, ascending; background and void are none."""
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    return [int(i) for i in present if i not in (0, VOID)]


def read_picture(path: Path) -> NDArray[np.float32]:
    """A picture as the engine wants it: [H, W, 3] float32 display-referred 0..1."""
    pixels = _pixels(path, oiio.FLOAT)
    if pixels.shape[2] < 3:
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])


def read_labels(path: Path) -> Labels:
    """A label map [H, W]: palette indices of a palette PNG, else the values of a grey one (or of equal R, G, B)."""
    # OpenImageIO turns palettes into colours; the indices are what was drawn
    if path.suffix.lower() == ".png" and (found := palette_indices(path)) is not None:
        return found[0]
    pixels = _pixels(path, oiio.UINT8)
    grey: Labels = pixels[..., 0]
    if pixels.shape[2] >= 3 and not (np.array_equal(grey, pixels[..., 1]) and np.array_equal(grey, pixels[..., 2])):
        raise PlateError(
            "the annotation is a colour picture, not a label map", remedy="save it as palette PNG", path=path
        )
    return np.ascontiguousarray(grey)


def palette() -> NDArray[np.uint8]:
    """The colours [256, 3] of DAVIS and PASCAL label maps: the index's bits dealt to R, G, B, top bit first."""
    index = np.arange(256)
    colours = np.zeros((256, 3), int)
    for level in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * level + channel)) & 1) << (7 - level)
    return colours.astype(np.uint8)


def write_labels(path: Path, labels: Labels) -> None:
    """Write a label map as palette PNG, the form the data sets' own servers take."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = labels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter, 0: none
    rows[:, 1:] = labels
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", palette().tobytes())
        + chunk(b"IDAT", zlib.compress(rows.tobytes(), 6))
        + chunk(b"IEND", b"")
    )


def write_overlay(path: Path, picture: NDArray[np.float32], labels: Labels) -> None:
    """The picture with every object tinted and outlined, as JPEG or PNG by the path's suffix."""
    colours = palette().astype(np.float32) / 255
    tinted = np.where(labels[..., None] > 0, 0.55 * picture + 0.45 * colours[labels], picture)
    tinted[boundary(labels)] = 1.0
    path.parent.mkdir(parents=True, exist_ok=True)
    image = oiio.ImageBuf(oiio.ImageSpec(picture.shape[1], picture.shape[0], 3, oiio.UINT8))
    image.set_pixels(image.roi, np.ascontiguousarray(tinted, np.float32))
    if not image.write(str(path)):
        raise PlateError(f"cannot write the overlay: {image.geterror()}", path=path)


class Truth:
    """Annotations of a sequence: masks of 0 and 255 are one object, and so are all objects where DAVIS 2016 asks."""

    def __init__(self, sequence: VideoSequence) -> None:
        self._paths = sequence.annotations
        self._merged = sequence.protocol == "davis2016"
        self._binary: bool | None = None
        self.has_void = False

    def labels(self, index: int) -> Labels | None:
        if index not in self._paths:
            return None
        labels = read_labels(self._paths[index])
        has_255 = bool((labels == VOID).any())
        if self._binary is None and labels.any():
            self._binary = has_255 and not ids_of(labels)
        if self._binary:
            return (labels >= 128).astype(np.uint8)
        self.has_void |= has_255
        if self._merged:
            return np.where(labels == VOID, labels, np.minimum(labels, 1))
        return labels


def counts(protocol: str, index: int, frames: int) -> bool:
    """Whether a frame of so many counts, if it is annotated."""
    return protocol == "youtube" or 0 < index < frames - 1


def label_sets(root: Path, depth: int = 3) -> Iterator[Path]:
    """Data sets with label maps at or below a folder."""
    if (root / "JPEGImages").is_dir() and (root / "Annotations").is_dir():
        yield root
    elif depth:
        for child in folders_in(root):
            yield from label_sets(child, depth - 1)


def _sequences(dataset: Path, protocol: str, all_frames: bool, names: Container[str]) -> Iterator[VideoSequence]:
    """Those of the data set's sequences that are named. Raises MissingFrameError for one that is not whole."""
    meta = {} if protocol == "davis2016" else _meta(dataset)  # categories of objects that are merged say nothing
    if protocol == "auto":
        protocol = "youtube" if meta else "davis"
    images, annotations = _resolution(dataset)
    dense = _all_frames(dataset) if all_frames else None
    train = _meta(dataset.parent / "train") if dataset.name != "train" else {}
    known = {o.get("category") for video in train.values() for o in video.get("objects", {}).values()}
    for folder in (images / name for name in _names(dataset) if name in names):
        pictures = pictures_in(folder)
        plain = [p.stem for p in pictures]
        if dense:
            pictures = pictures_in(dense / folder.name)
        index = {p.stem: i for i, p in enumerate(pictures)}
        if lacking := [stem for stem in plain if stem not in index]:
            raise MissingFrameError(
                f"frame {lacking[0]} is not among all frames of {folder.name}",
                remedy="complete that folder, or leave out --all-frames",
                path=(dense or images) / folder.name,
            )
        drawn = _files(annotations / folder.name, (".png",))
        if not pictures or not drawn:
            raise MissingFrameError(
                f"{folder.name} has no {'annotations' if pictures else 'pictures'}",
                remedy="complete the data set, or name the --sequences that are whole",
                path=annotations / folder.name if pictures else folder,
            )
        if stray := [p for p in drawn if p.stem not in index]:
            raise MissingFrameError("an annotation has no picture", remedy=f"expected it in {folder}", path=stray[0])
        masks = {index[p.stem]: p for p in drawn}
        categories: dict[ObjectId, str] = {}
        seen: dict[ObjectId, bool] = {}
        for key, entry in meta.get(folder.name, {}).get("objects", {}).items():
            if not str(key).isdigit():
                continue
            category = entry.get("category")
            if category is not None:
                categories[int(key)] = str(category)
            if isinstance(entry.get("seen"), bool):
                seen[int(key)] = entry["seen"]
            elif known and category is not None:
                seen[int(key)] = category in known
        wanted = frozenset(index[stem] for stem in plain)
        yield VideoSequence(dataset.name, folder.name, tuple(pictures), masks, protocol, wanted, categories, seen)


def folders_in(root: Path) -> list[Path]:
    """The folders in a folder, in order, without hidden ones."""
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _names(dataset: Path) -> list[str]:
    """Of all sequences that have a folder of pictures or of annotations."""
    return sorted({folder.name for tree in _resolution(dataset) for folder in folders_in(tree)})


def _files(folder: Path, kinds: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in kinds and not p.name.startswith("."))


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a sequence in order; none where there is no such folder."""
    return _files(folder, _IMAGES)


def _all_frames(dataset: Path) -> Path:
    """The folder that holds every frame of the data set's videos."""
    beside = dataset.name + _ALL_FRAMES
    places = (
        dataset / f"JPEGImages{_ALL_FRAMES}",
        dataset.parent / beside / "JPEGImages",
        dataset.parent / "all_frames" / beside / "JPEGImages",
    )
    for place in places:
        if place.is_dir():
            return place
    raise MissingFrameError(
        "the data set has no folder of all frames",
        remedy=f"expected {places[0].name} in it or {beside}/JPEGImages beside it; or leave out --all-frames",
        path=dataset,
    )


def _resolution(dataset: Path) -> tuple[Path, Path]:
    """The folders that hold the sequences; 480p where resolutions stand side by side."""
    images, annotations = dataset / "JPEGImages", dataset / "Annotations"
    for name in _RESOLUTIONS:
        if (images / name).is_dir() and (annotations / name).is_dir():
            return images / name, annotations / name
    return images, annotations


def _meta(dataset: Path) -> dict[str, Any]:
    path = dataset / "meta.json"
    if not path.is_file():
        return {}
    try:
        videos = dict(json.loads(path.read_text())["videos"])
        for video in videos.values():
            for entry in video.get("objects", {}).values():
                entry.get("category")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"cannot read the data set's description: {error}", remedy="expected YouTube-VOS' meta.json", path=path
        ) from None
    return videos


def names_in(names: Iterable[str]) -> Iterator[str]:
    """Names of sequences, those of a text file in its place: one a line, as ImageSets/2017/val.txt has them."""
    for name in names:
        if name.endswith(".txt") and os.path.isfile(name):
            # a name a line, or the DAVIS 2016 form "/JPEGImages/480p/bear/00000.jpg /Annotations/..."
            parts = (line.split()[0].rstrip("/") for line in Path(name).read_text().splitlines() if line.strip())
            yield from dict.fromkeys(Path(p).parent.name if Path(p).suffix else Path(p).name for p in parts)
        else:
            yield name


def _pixels(path: Path, kind: Any) -> NDArray[Any]:
    image = oiio.ImageInput.open(str(path))
    if image is None:
        raise PlateError(f"cannot read the picture: {oiio.geterror()}", path=path)
    try:
        if kind == oiio.UINT8 and image.spec().format.size() > 1:  # 1 of 65535 would become 0
            raise PlateError("the annotation has more than 8 bits", remedy="save it as palette PNG", path=path)
        pixels = image.read_image(0, 0, 0, image.spec().nchannels, kind)
        if pixels is None:
            raise PlateError(f"cannot read the picture: {image.geterror()}", path=path)
    finally:
        image.close()
    array: NDArray[Any] = np.asarray(pixels)
    return array[..., None] if array.ndim == 2 else array
