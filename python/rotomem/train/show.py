"""Tune a model to a shot or a show: read it as `track` does, train on its keys, see on one kept out whether it helps.

The one place where training leans on the engine: what was checked must be what will track.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from rotomem.engine.options import TrackOptions
from rotomem.engine.session import Session
from rotomem.engine.sight import Sight
from rotomem.errors import UsageError
from rotomem.io.atomic import cannot_write
from rotomem.io.masks import Masks, load_masks
from rotomem.io.plate import Plate
from rotomem.io.sequence import compact_frames
from rotomem.models.interface import VOSModel
from rotomem.models.registry import load_model
from rotomem.train.checkpoint import export_weights
from rotomem.train.loop import Run
from rotomem.train.losses import soft_overlap
from rotomem.train.recipes.finetune import FineTune, KeyedShot, KeyFrame, ShowSource
from rotomem.train.schedule import Budget

BETWEEN = 8
"""Frames that nobody drew on, read between two keys."""

TRIAL = 0.5
"""Progress at which a key that was kept out says whether tuning helps; from then on it is trained on as well."""


@dataclass(frozen=True)
class Tuned:
    """What came of it.

    written         the weights, or None where tuning did not help
    steps, seconds  of the training, everything counted
    before, after   overlap (soft intersection over union, 0..1) of prediction and drawing, untuned and tuned
    checked         what was predicted, for people
    """

    written: Path | None
    steps: int
    seconds: float
    before: float
    after: float
    checked: str

    @property
    def better(self) -> bool:
        """Whether tuning helped where that could be seen."""
        return self.after > self.before


def read_shot(plate: str | Path, masks: Masks, options: TrackOptions, *, between: int = BETWEEN) -> KeyedShot:
    """A shot's keys and some of the frames between them, as the network of `track` with these options sees them.

    between   frames read between two keys that follow each other

    Raises what `track` raises for plate, masks and colour.
    """
    with options.open_plate(plate) as opened, Sight(opened, options) as sight:
        keys = load_masks(masks, opened).by_frame
        drawn = tuple(
            KeyFrame(
                frame,
                _planes(sight, opened, frame),
                key.objects,
                sight.geometry.masks(torch.from_numpy(key.alpha)),
            )
            for frame, key in sorted(keys.items())
        )
        undrawn = [f for f in _between(opened.frames, sorted(keys), between) if opened.file(f) is not None]
        others = {f: _planes(sight, opened, f) for f in undrawn}
        return KeyedShot(opened.info.stem, drawn, others, sight.colour.sentence)


def _planes(sight: Sight, plate: Plate, frame: int) -> Tensor:
    picture, _ = sight.picture(plate.read(frame))
    return picture.permute(2, 0, 1).contiguous()


def _between(frames: Sequence[int], keys: Sequence[int], count: int) -> list[int]:
    """At most `count` of the frames between each two keys, evenly."""
    chosen: list[int] = []
    for low, high in pairwise(keys):
        inside = [f for f in frames if low < f < high]
        few = min(count, len(inside))
        chosen += [inside[(2 * i + 1) * len(inside) // (2 * few)] for i in range(few)]
    return chosen


@dataclass(frozen=True)
class Trial:
    """A key that is kept out, and the shot it belongs to, whose other keys have to tell it."""

    shot: KeyedShot
    key: KeyFrame

    @classmethod
    def of(cls, shots: Sequence[KeyedShot]) -> Trial | None:
        """The middle key of the shot with the most keys; None where no shot has three, or it shows nothing."""
        shot = max(shots, key=lambda s: len(s.keys))
        if len(shot.keys) < 3:
            return None
        trial = cls(shot, shot.keys[len(shot.keys) // 2])
        return trial if trial._starts() else None

    def _starts(self) -> list[KeyFrame]:
        """The nearest keys, before and after, that show an object of the one kept out."""
        wanted = set(self.key.shown())
        others = [k for k in self.shot.keys if k is not self.key and wanted & set(k.shown())]
        sides = [[k for k in others if k.frame < self.key.frame], [k for k in others if k.frame > self.key.frame]]
        return [min(side, key=lambda k: abs(k.frame - self.key.frame)) for side in sides if side]

    def overlap(self, model: VOSModel, options: TrackOptions) -> float:
        """Track from the nearest keys to the one kept out; mean overlap with what was drawn there."""
        found = []
        for start in self._starts():
            low, high = sorted((start.frame, self.key.frame))
            way = sorted((f for f in self.shot.others if low < f < high), reverse=start.frame > self.key.frame)
            session = Session(model, size=None, **options.session())
            session.step(start.picture.permute(1, 2, 0), start.coverage, objects=start.objects)
            for frame in way:
                session.step(self.shot.others[frame].permute(1, 2, 0))
            said = torch.from_numpy(session.step(self.key.picture.permute(1, 2, 0), last=True))
            for i in set(self.key.shown()) & set(start.shown()):
                truth = self.key.coverage[self.key.objects.index(i)]
                found.append(float(soft_overlap(said[1 + session.objects.index(i)], truth)))
        return sum(found) / len(found)


def finetune(
    shots: Sequence[tuple[str | Path, Masks]],
    out: str | Path,
    budget: Budget,
    *,
    options: TrackOptions | None = None,
    recipe: FineTune | None = None,
    data: Path | None = None,
    force: bool = False,
    report: Callable[[dict[str, float]], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Tune a model to the keys of some shots and write its weights, unless they turn out no better.

    shots     plate and key masks of each, as `track` takes them
    out       a file that does not exist yet, NAME.safetensors
    budget    everything is counted: reading, checking, training
    options   what the shots will be tracked with: colour, size, the model to begin from, device
    recipe    None: more and larger clips on a GPU than on a CPU
    data      a source folder of generated clips to mix in
    force     write the weights even where they are no better
    report    is given the numbers of every step
    say       is told what was read, a line a shot

    With three keys in a shot one is kept out for the first half: where the half-tuned model does not tell it better
    than the untuned one, tuning stops and nothing is written. With fewer keys the check is on warped copies of keys
    that were trained on, which only shows that nothing went wrong.

    Raises what `track` raises for plates, masks and colour; UsageError where `out` cannot be used or a key shows
    nothing.
    """
    begun = time.monotonic()
    out, options = Path(out), options or TrackOptions()
    _refuse(out)
    if isinstance(options.model, VOSModel):
        raise UsageError("fine-tuning begins from weights on disk", remedy="give a model's name or file")
    judge = load_model(str(options.model), device=options.device, dtype=options.dtype)
    device = next(judge.parameters()).device
    if recipe is None:
        recipe = FineTune(clips=8, size=384) if device.type == "cuda" else FineTune()
    recipe = replace(recipe, start=str(options.model), half=judge.compute_dtype != torch.float32)
    read = tuple(read_shot(plate, masks, options) for plate, masks in shots)
    for shot in read:
        keys, seen = _keys(shot), shot.keys[0].picture.shape
        say(f"{shot.name}: keys {keys}, and {len(shot.others)} frames between, {seen[2]}x{seen[1]}; {shot.colour}")
    if not any(key.shown() for shot in read for key in shot.keys):
        raise UsageError("no key shows an object", remedy="give a key frame that does")
    shortest = min(min(shot.keys[0].picture.shape[1:]) for shot in read)
    recipe = replace(recipe, size=min(recipe.size, max(shortest // 16 * 16, 16)))
    composer = None if data is None else recipe.open(data, device)

    trial = Trial.of(read)
    first = read if trial is None else tuple(s.without(trial.key.frame) if s is trial.shot else s for s in read)
    run = Run(recipe, ShowSource(first, composer), device)
    if trial is None:
        checked = "warped copies of its own keys; give three or more keys for a check that counts"
        before = after = run.validate()["validation_overlap"]
    else:
        checked = f"key {trial.key.frame} of {trial.shot.name}, kept out"
        before, after = trial.overlap(judge, options), -1.0

    while (progress := budget.progress(run.step, time.monotonic() - begun)) < 1:
        if trial is not None and after < 0 and progress >= TRIAL:
            after = _trial(trial, judge, run, options)
            if after <= before and not force:
                break
            run.source = ShowSource(read, composer)
        step = run.advance(progress)
        if report is not None:
            elapsed_s = time.monotonic() - begun
            done = budget.progress(run.step, elapsed_s)
            report({**run.entries([step])[0], "progress": done, "elapsed_s": elapsed_s})
    if trial is None:
        after = run.validate()["validation_overlap"]
    elif after < 0:  # so short a budget that its half was never seen
        after = _trial(trial, judge, run, options)

    run.elapsed_s = time.monotonic() - begun
    result = Tuned(out, run.step, run.elapsed_s, before, after, checked)
    if not (result.better or force):
        return replace(result, written=None)
    facts = {
        "base": judge.name,
        "base_hash": judge.weights_hash,
        "keys": "; ".join(f"{s.name} {_keys(s)}" for s in read),
        "frames": "; ".join(f"{s.name} {compact_frames(list(s.others))}" for s in read),
        "checked": f"{checked}: overlap {before:.4f} untuned, {after:.4f} tuned",
    }
    export_weights(run.state(), out, facts=facts)
    return result


def _trial(trial: Trial, judge: VOSModel, run: Run, options: TrackOptions) -> float:
    judge.load_state_dict(run.average.tensors)
    return trial.overlap(judge, options)


def _keys(shot: KeyedShot) -> str:
    return compact_frames([key.frame for key in shot.keys])


def _refuse(out: Path) -> None:
    """Say before minutes are spent that the weights could not be written."""
    if out.suffix != ".safetensors":
        raise UsageError(f"the weights' file is {out.name}", remedy="give a name that ends in .safetensors")
    if out.exists():
        raise UsageError("the file exists", remedy="give another name", path=out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from None
