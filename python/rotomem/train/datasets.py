"""Annotated data sets in their own folder layouts, and training clips from them.

    stills      DIR/**/a.jpg + a.png                        side by side, as STCN has its static pictures
                DIR/**/images/**/a.jpg + masks/**/a.png     or in two trees (also JPEGImages + Annotations)
    davis       DIR/JPEGImages/480p/bear/00000.jpg + Annotations/480p/bear/00000.png + ImageSets/2017/train.txt
    youtube     DIR/[train/]JPEGImages/003234408d/00000.jpg + Annotations/... + meta.json
    bl30k       DIR/[a..f/]JPEGImages/... + Annotations/...

A label map holds palette indices, or grey values where it has no palette: 0 is background, other values are objects.
A grey map of a photograph that uses 255 is one object with soft edges, and becomes that object where it is above one
half. Anywhere else 255 is void, pixels that nobody decided: they are part of no given mask and no loss looks at them.

What a clip shows depends on its ticket alone, so a run that goes on sees what it would have seen.
"""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import OpenImageIO as oiio
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from rotomem.errors import InputError, MissingFrameError, ShapeError, UsageError
from rotomem.io.masks import palette_indices
from rotomem.train.augment import VIDEO, Augment, augment
from rotomem.train.compose import Clips
from rotomem.train.data import read_bytes

VOID = 255
Kind = Literal["stills", "davis", "youtube", "bl30k"]

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
_TREES = (("images", "masks"), ("JPEGImages", "Annotations"))
_TRIES = 12  # draws before a data set is said to show no object
_GRACE_S = 60  # that a worker stays after it was asked to go
_SHORT_SIDE = 480  # larger pictures are brought down to it (STCN, F.3.2; AOT, "Training Details")


class Frame(NamedTuple):
    """A picture and its label map."""

    picture: Path
    labels: Path


@dataclass(frozen=True)
class Shot:
    """One video of a data set, or one photograph.

    frames   in the order of time; None where the folders are listed when the shot is drawn (30,000 videos of BL30K)
    """

    pictures: Path
    labels: Path
    frames: tuple[Frame, ...] | None = None

    def listed(self) -> tuple[Frame, ...]:
        """Every frame that has a label map. Raises MissingFrameError for a label map without picture."""
        return self.frames if self.frames is not None else _frames(self.pictures, self.labels)


@dataclass(frozen=True)
class Collection:
    """A data set as it is drawn from.

    repeat     times that a shot occurs in a round through all collections
    stride     frames of the film from one listed to the next; the largest gap is divided by it (YouTube-VOS: 5)
    least_px   an object smaller than this in a clip's first frame is not followed
    """

    kind: Kind
    shots: tuple[Shot, ...]
    repeat: int = 1
    stride: int = 1
    least_px: int = 1


@dataclass(frozen=True)
class Draw:
    """How clips are taken at one moment of a training.

    frames    T
    objects   most objects followed, O
    gap       most frames of the film between neighbours of a clip
    spread    "chain": every gap is 1..gap, uniform; "gather": frames join one by one, each within `gap` of one that
              is there, which makes long clips dense in places (XMem)
    merge     chance that a second clip's objects are laid over the first's (AOT, "dynamic merge augmentation")
    """

    frames: int = 3
    objects: int = 2
    gap: int = 5
    spread: Literal["chain", "gather"] = "chain"
    merge: float = 0.0
    augment: Augment = field(default=VIDEO)


# -- finding --------------------------------------------------------------------------------------------------------


def find_stills(root: Path) -> Collection:
    """Photographs with one label map each, below a folder. Raises MissingFrameError where there are none."""
    shots = [
        shot
        for pictures, labels in _trees(root)
        for shot in (_paired(pictures, labels) if labels else _side_by_side(pictures))
    ]
    if not shots:
        raise MissingFrameError(
            "no photographs with masks here",
            remedy="expected a.jpg beside a.png, or folders images and masks, or JPEGImages and Annotations",
            path=root,
        )
    return Collection("stills", tuple(shots))


def find_davis(root: Path, split: str = "train") -> Collection:
    """The sequences of DAVIS 2017 that ImageSets/2017/`split`.txt lists, drawn five times as often as others."""
    listed = root / "ImageSets" / "2017" / f"{split}.txt"
    try:
        names = listed.read_text().split()
    except OSError:
        raise MissingFrameError(
            "DAVIS 2017 has no list of sequences", remedy="download trainval", path=listed
        ) from None
    return Collection("davis", _videos(root / "JPEGImages/480p", root / "Annotations/480p", names), repeat=5)


def find_youtube(root: Path) -> Collection:
    """The videos that YouTube-VOS' meta.json lists, their annotated frames."""
    if not (root / "meta.json").is_file():
        root = root / "train"
    meta = root / "meta.json"
    try:
        names = list(json.loads(meta.read_text())["videos"])
    except OSError:
        raise MissingFrameError("YouTube-VOS has no meta.json", remedy="give the training part", path=meta) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read YouTube-VOS' meta.json: {error!r}", path=meta) from None
    return Collection("youtube", _videos(root / "JPEGImages", root / "Annotations", names), stride=5)


def find_bl30k(root: Path) -> Collection:
    """The rendered videos of BL30K, in one folder or in several (a to f)."""
    parts = [r for r in (root, *_folders(root)) if (r / "JPEGImages").is_dir() and (r / "Annotations").is_dir()]
    shots = [
        Shot(folder, part / "Annotations" / folder.name) for part in parts for folder in _folders(part / "JPEGImages")
    ]
    for shot in shots:
        if not shot.labels.is_dir():
            raise MissingFrameError("a video of BL30K has no annotations", path=shot.labels)
    if not shots:
        raise MissingFrameError(
            "no BL30K here", remedy="expected JPEGImages and Annotations, or folders a to f that hold them", path=root
        )
    return Collection("bl30k", tuple(shots), least_px=100)


_FINDERS: dict[Kind, Callable[[Path], Collection]] = {
    "stills": find_stills,
    "davis": find_davis,
    "youtube": find_youtube,
    "bl30k": find_bl30k,
}


def open_folders(folders: Iterable[str | Path], kinds: Sequence[Kind]) -> tuple[Collection, ...]:
    """Folders as the collections a training stage draws from.

    kinds   what the stage learns from; where there are several, DAVIS is known by its ImageSets and YouTube-VOS by
            its meta.json

    Raises MissingFrameError for a folder that is absent or none of those, and for files that are missing in it.
    """
    found = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise MissingFrameError("no such data folder", remedy="give the folder that was unpacked", path=folder)
        kind = kinds[0] if len(kinds) == 1 else _recognise(folder)
        if kind is None or kind not in kinds:
            raise MissingFrameError(
                "the folder is of no data set this stage learns from",
                remedy="it takes " + " and ".join(kinds) + "; see rotomem.train.datasets for their layouts",
                path=folder,
            )
        found.append(_FINDERS[kind](folder))
    if not found:
        raise UsageError("no data folder was given", remedy="this stage learns from " + " and ".join(kinds))
    return tuple(found)


def _recognise(folder: Path) -> Kind | None:
    if (folder / "ImageSets").is_dir():
        return "davis"
    if (folder / "meta.json").is_file() or (folder / "train" / "meta.json").is_file():
        return "youtube"
    return None


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    """Picture files of a folder in the order of their names."""
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith("."))
    return [folder / name for name in names if os.path.splitext(name)[1].lower() in _PICTURES]


def _videos(pictures: Path, labels: Path, names: Iterable[str]) -> tuple[Shot, ...]:
    shots = []
    for name in names:
        here, drawn = pictures / name, labels / name
        for folder in (here, drawn):
            if not folder.is_dir():
                raise MissingFrameError(f"the data set lists {name}, which is not there", path=folder)
        shots.append(Shot(here, drawn, _frames(here, drawn)))
    if not shots:
        raise MissingFrameError("the data set lists no sequence", path=pictures.parent)
    return tuple(shots)


def _frames(pictures: Path, labels: Path) -> tuple[Frame, ...]:
    known = {p.stem: p for p in _pictures(pictures)}
    drawn = _pictures(labels)
    for file in drawn:
        if file.stem not in known:
            raise MissingFrameError("a label map has no picture", remedy=f"expected it in {pictures}", path=file)
    if not drawn:
        raise MissingFrameError("a sequence has no label maps", path=labels)
    return tuple(Frame(known[file.stem], file) for file in drawn)


def _trees(root: Path) -> Iterator[tuple[Path, Path | None]]:
    """Folders below `root` that hold photographs, with the folder of their label maps where it is another one."""
    for pictures, labels in _TREES:
        if (root / pictures).is_dir() and (root / labels).is_dir():
            yield root / pictures, root / labels
            return
    yield root, None
    for child in _folders(root):
        yield from _trees(child)


def _paired(pictures: Path, labels: Path) -> Iterator[Shot]:
    for folder in (pictures, *(p for p in sorted(pictures.rglob("*")) if p.is_dir())):
        drawn = labels / folder.relative_to(pictures)
        if not drawn.is_dir():
            continue
        known = {p.stem: p for p in _pictures(folder)}
        for file in _pictures(drawn):
            if file.stem not in known:
                raise MissingFrameError("a mask has no photograph", remedy=f"expected it in {folder}", path=file)
            yield Shot(folder, drawn, (Frame(known[file.stem], file),))


def _side_by_side(folder: Path) -> Iterator[Shot]:
    files = _pictures(folder)
    masks = {p.stem: p for p in files if p.suffix.lower() == ".png"}
    for file in files:
        if file.suffix.lower() == ".png":
            continue
        if file.stem not in masks:
            raise MissingFrameError(
                "a photograph has no mask", remedy=f"expected {file.stem}.png beside it", path=file
            )
        yield Shot(folder, folder, (Frame(file, masks[file.stem]),))


# -- reading --------------------------------------------------------------------------------------------------------


def read_label_map(path: Path, *, soft: bool = False) -> Tensor:
    """Labels of an annotation, uint8 [H, W]: palette indices, or grey values where it has no palette.

    soft   a grey map that uses 255 is the coverage of one object, 1 where it is above one half

    Raises InputError for a colour picture, or one of more than 8 bits.
    """
    palette = palette_indices(path) if path.suffix.lower() == ".png" else None
    if palette is not None:
        return torch.from_numpy(palette[0])
    levels = read_bytes(path, 3, exact=True)
    if not (torch.equal(levels[0], levels[1]) and torch.equal(levels[0], levels[2])):
        raise InputError("the annotation is a colour picture, not a label map", remedy="save palette PNG", path=path)
    grey = levels[0]
    return (grey > 127).byte() if soft and bool((grey == 255).any()) else grey


def _read_frame(frame: Frame, soft: bool) -> tuple[Tensor, Tensor]:
    """Picture uint8 [3, H, W] and labels uint8 [H, W], the shorter side at most 480."""
    picture, labels = read_bytes(frame.picture, 3), read_label_map(frame.labels, soft=soft)
    if picture.shape[1:] != labels.shape:
        raise ShapeError(
            "the label map is {1}x{0}, its picture {3}x{2}".format(*labels.shape, *picture.shape[1:]),
            remedy="use pictures and label maps of one resolution",
            path=frame.labels,
            picture=frame.picture,
        )
    scale = _SHORT_SIDE / min(labels.shape)
    if scale >= 1:
        return picture, labels
    size = tuple(round(side * scale) for side in labels.shape)
    small = F.interpolate(picture[None].float(), size, mode="bilinear", antialias=True)[0]
    nearest = F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0]
    return small.round().clamp(0, 255).byte(), nearest.byte()


def pick_frames(count: int, draw: Draw, stride: int, rng: Generator) -> list[int]:
    """Which `draw.frames` of `count` frames make a clip, neighbours at most `draw.gap` apart; half run backwards.

    A shot too short for the gaps drawn gets smaller ones, one shorter than the clip repeats its last frames.
    """
    most = max(math.ceil(draw.gap / stride), 1)
    wanted = min(draw.frames, count)
    if draw.spread == "chain":
        steps = torch.randint(1, most + 1, (wanted - 1,), generator=rng).tolist()
        while sum(steps) > count - 1:
            steps[steps.index(max(steps))] -= 1
        start = int(torch.randint(count - sum(steps), (), generator=rng))
        chosen = [start + sum(steps[:i]) for i in range(wanted)]
    else:
        gathered = {int(torch.randint(count, (), generator=rng))}
        while len(gathered) < wanted:
            near = {j for i in gathered for j in range(max(i - most, 0), min(i + most + 1, count))}
            free = sorted(near - gathered)
            gathered.add(free[int(torch.randint(len(free), (), generator=rng))])
        chosen = sorted(gathered)
    chosen += chosen[-1:] * (draw.frames - wanted)
    return chosen[::-1] if torch.rand((), generator=rng) < 0.5 else chosen


# -- clips ----------------------------------------------------------------------------------------------------------


class Ticket(NamedTuple):
    """What a clip is made by: a shot's place among all, the random numbers' seed, the manner."""

    place: int
    seed: int
    draw: Draw


class Sample(NamedTuple):
    """One clip as bytes, small enough to pass between processes.

    images    uint8 [T, 3, size, size]
    labels    uint8 [T, size, size], 0 background, 1..O objects, 255 void
    """

    images: Tensor
    labels: Tensor


class ClipSet(Dataset[Sample]):
    """Clips by ticket, from several collections."""

    def __init__(self, collections: Sequence[Collection]) -> None:
        self.collections = tuple(collections)
        self._places = [
            (c, s) for c, one in enumerate(self.collections) for s in range(len(one.shots)) for _ in range(one.repeat)
        ]

    def __len__(self) -> int:
        """Shots in one round, repeats counted."""
        return len(self._places)

    def __getitem__(self, ticket: Ticket) -> Sample:
        draw, rng = ticket.draw, Generator().manual_seed(ticket.seed)
        sample = self._clip(ticket.place, draw, rng)
        if draw.merge and torch.rand((), generator=rng) < draw.merge:
            other = self._clip(self._elsewhere(rng), draw, rng)
            sample = merge_clips(sample, other, draw.objects)
        return sample

    def _elsewhere(self, rng: Generator) -> int:
        return int(torch.randint(len(self), (), generator=rng))

    def _clip(self, place: int, draw: Draw, rng: Generator) -> Sample:
        """A clip of this shot whose first frame shows an object; of another shot, should this one show none."""
        for attempt in range(_TRIES):
            which, number = self._places[place]
            collection = self.collections[which]
            frames = collection.shots[number].listed()
            still = collection.kind == "stills"
            chosen = [0] if still else pick_frames(len(frames), draw, collection.stride, rng)
            read = [_read_frame(frames[i], still) for i in chosen]
            pictures, labels = (torch.stack(part) for part in zip(*read, strict=True))
            images, labels = augment(pictures, labels, draw.frames, draw.augment, rng)
            followed = _followed(labels[0], draw.objects, collection.least_px, rng)
            if followed:
                return Sample(images, _renumbered(labels, followed))
            if attempt % 4 == 3:
                place = self._elsewhere(rng)
        raise InputError(
            f"no object to follow in {_TRIES} draws", remedy="check the label maps", path=frames[chosen[0]].labels
        )


def _followed(first: Tensor, most: int, least_px: int, rng: Generator) -> list[int]:
    """Labels of the objects that a clip follows, of those that its first frame shows."""
    areas = torch.bincount(first.flatten(), minlength=256)
    areas[0] = areas[VOID] = 0
    seen = (areas >= least_px).nonzero()[:, 0]
    return [int(i) for i in seen[torch.randperm(len(seen), generator=rng)[:most]]]


def _renumbered(labels: Tensor, followed: Sequence[int]) -> Tensor:
    """Objects as 1, 2, ... in the order given, void as it is, all else background."""
    table = torch.zeros(256, dtype=torch.uint8)
    table[VOID] = VOID
    for row, label in enumerate(followed, 1):
        table[label] = row
    return table[labels.long()]


def merge_clips(below: Sample, above: Sample, objects: int) -> Sample:
    """The second clip's objects laid over the first clip, numbered after its own, as many as there is room for."""
    kept = int(torch.where(below.labels == VOID, 0, below.labels).max())
    on_top = (above.labels > 0) & (above.labels <= objects - kept)
    images = torch.where(on_top[:, None], above.images, below.images)
    return Sample(images, torch.where(on_top, above.labels + kept, below.labels))


def as_clips(images: Tensor, labels: Tensor, objects: int) -> Clips:
    """Bytes [B, T, 3, h, w] and [B, T, h, w] as a batch, on the device they are on; coverage is 0 or 1."""
    rows = torch.arange(1, objects + 1, dtype=torch.uint8, device=labels.device).view(-1, 1, 1)
    mine = labels[:, :, None] == rows
    present = mine[:, 0].flatten(2).any(2)
    return Clips(images.float() / 255, mine.float(), present, labels == VOID)


@dataclass(frozen=True)
class _Asked:
    """What a step is asked for: clips of this manner, these slots of a whole batch of `clips`."""

    step: int
    draw: Draw
    slots: range
    clips: int


class _Rounds:
    """Tickets for one step after the other, without end, in rounds through all shots."""

    def __init__(self, shots: int, seed: int) -> None:
        self.asked: _Asked | None = None
        self._shots, self._seed = shots, seed
        self._round, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __iter__(self) -> Iterator[list[Ticket]]:
        asked = self.asked
        while asked is not None:
            yield self.tickets(asked)
            asked = replace(asked, step=asked.step + 1)

    def tickets(self, asked: _Asked) -> list[Ticket]:
        """The tickets of one step; no other step has a say in them."""
        tickets = []
        for slot in asked.slots:
            turn, place = divmod(asked.step * asked.clips + slot, self._shots)
            if turn != self._round:
                self._round, self._order = turn, torch.randperm(self._shots, generator=_generator(self._seed, turn))
            seed = _generator(self._seed, asked.step, slot).initial_seed()
            tickets.append(Ticket(int(self._order[place]), seed, asked.draw))
        return tickets


class ClipSource:
    """Batches of clips, read ahead by worker processes.

    Every step asks for its own batch. While steps follow one another and the manner stays the same, batches are read
    ahead; at any other step, or when the curriculum moves on, reading starts anew from there. Shots come in rounds:
    each once (`repeat` times) before any comes again.

    seed      of rounds and clips
    workers   processes that read; 0 reads when asked
    """

    def __init__(self, collections: Sequence[Collection], *, seed: int, workers: int = 0) -> None:
        clips = ClipSet(collections)
        self._rounds = _Rounds(len(clips), seed)
        self._ahead: Iterator[tuple[Tensor, Tensor]] = iter(())
        self._loader: DataLoader[Sample] = DataLoader(
            clips,
            batch_sampler=self._rounds,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_collate,
            worker_init_fn=_begin_worker,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=Generator().manual_seed(seed),  # else each start would draw from torch's own
        )

    def batch(
        self, step: int, draw: Draw, clips: int, *, rank: int = 0, world: int = 1, device: torch.device | str = "cpu"
    ) -> Clips:
        """This process's part of the batch of one step; a batch that cannot be shared evenly grows until it can."""
        each = -(-clips // world)
        asked = _Asked(step, draw, range(rank * each, (rank + 1) * each), each * world)
        if self._rounds.asked != asked:
            self._rounds.asked = asked
            self._ahead = iter(self._loader)
        images, labels = next(self._ahead)
        self._rounds.asked = replace(asked, step=step + 1)
        images, labels = (t.to(device, non_blocking=True) for t in (images, labels))
        return as_clips(images, labels, draw.objects)


def _generator(*numbers: int) -> Generator:
    return Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


def _collate(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.stack(labels)


def _begin_worker(worker: int) -> None:
    """Workers share the processor; and threads of a library do not survive a fork.

    Whoever stops a run may well tell all its processes (timeout, Slurm, systemd). One that trains still finishes its
    step and writes a checkpoint, and would fail if a worker went first.
    """
    torch.set_num_threads(1)
    oiio.attribute("threads", 1)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_S))
