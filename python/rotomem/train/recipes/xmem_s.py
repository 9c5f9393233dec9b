"""xmem-s: the narrow XMem that comes with rotomem, from nothing but composed clips.

One hour and a half on one CPU thread makes weights worth using; more time makes better ones. The network is trained
as it runs: the first frame's mask is given, later ones are predicted, and predictions (soft) are what is memorised.
Unlike the published recipe the norms are trained too, since there is no pretrained backbone whose statistics would
be worth freezing.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import torch
from torch import Tensor

from rotomem.models.xmem import XMEM_S, FrameFeatures, XMem, XMemConfig
from rotomem.train.checkpoint import Average, load_checkpoint, save_checkpoint
from rotomem.train.compose import Clips, ComposeConfig, Composer
from rotomem.train.data import PicturePool, SourceConfig, load_pool
from rotomem.train.losses import (
    bootstrap_share,
    bootstrapped_cross_entropy,
    dice_loss,
    soft_overlap,
    with_background,
)
from rotomem.train.memory import ClipMemory
from rotomem.train.schedule import Budget, Stage, cosine_rate, stage_at

NAME = "xmem-s"


@dataclass(frozen=True)
class Recipe:
    """Every knob of the training.

    stages           size of the batches as the run goes on
    two_objects      share of the batches that follow two objects
    rate             peak learning rate; weight decay spares biases and norms
    clip_norm        largest norm of the gradient
    freeze_norms     progress from which the norms use the statistics gathered so far, as they do when they are used
    average          decay of the averaged weights, which are those that are exported
    memorise         chance that a predicted frame is memorised; the first frame always is, the last never
    deep_update      chance that a memorised frame deeply updates the sensory memory, in place of the decoder's
                     update as when the model is used; the first frame always does
    soft_first       share of the batches whose given mask is soft; the others round it as an artist's label map is
    bootstrap        progress at which the cross-entropy begins to look at the hardest pixels only, at which it
                     has come down to the share, the share
    dice             weight of the dice loss
    checkpoint_s     seconds between checkpoints
    """

    stages: tuple[Stage, ...] = (Stage(0.52, 192, 6, 3), Stage(0.78, 192, 5, 4), Stage(1.0, 256, 4, 5))
    two_objects: float = 0.3
    rate: float = 8e-4
    warm_up: float = 0.015
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    freeze_norms: float = 0.78
    average: float = 0.997
    memorise: float = 0.6
    deep_update: float = 0.6
    soft_first: float = 0.5
    bootstrap: tuple[float, float, float] = (0.15, 0.55, 0.25)
    dice: float = 1.0
    checkpoint_s: float = 180
    seed: int = 1
    half: bool = True
    network: XMemConfig = field(default_factory=lambda: XMEM_S)
    compose: ComposeConfig = field(default_factory=ComposeConfig)
    sources: SourceConfig = field(default_factory=SourceConfig)


@dataclass(frozen=True)
class Losses:
    """Of one batch, scalars: what is minimised, its parts, and the overlap of prediction and truth."""

    total: Tensor
    cross_entropy: Tensor
    dice: Tensor
    overlap: Tensor


def clip_losses(
    model: XMem, clips: Clips, recipe: Recipe, rng: torch.Generator, *, share: float, rounded: bool
) -> Losses:
    """Run the model over a batch of clips and compare every predicted frame with its coverage.

    share     of the pixels that the cross-entropy looks at
    rounded   the mask given on the first frame is 0 or 1
    """
    images = clips.images
    coverage = clips.coverage * clips.present[:, None, :, None, None]
    b, t, _, h, w = images.shape
    flat = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.half):
        features = _frames(model.encode_frame(flat), b, t)
        memory = ClipMemory(model.plan)
        sensory = model.empty_sensory(b, coverage.shape[2], h // 16, w // 16, images)
        first = coverage[:, 0]
        masks = model.aggregate((first > 0.5).float() if rounded else first)[:, 1:]
        entropies, dices, overlaps = [], [], []
        for i in range(t):
            keep = i == 0 or bool(torch.rand((), generator=rng) < recipe.memorise)
            deep = i == 0 or bool(torch.rand((), generator=rng) < recipe.deep_update)
            keep = keep and i < t - 1
            if i > 0:
                decoded = model.decode(features[i], memory, sensory, update_sensory=not (keep and deep))
                sensory = decoded.sensory if decoded.sensory is not None else sensory
                masks = decoded.probabilities[:, 1:]
                truth = coverage[:, i]
                entropies.append(bootstrapped_cross_entropy(decoded.logits, with_background(truth), share))
                dices.append(dice_loss(masks, truth, clips.present))
                overlaps.append(soft_overlap(masks.detach(), truth)[clips.present])
            if keep:
                kept = model.encode_mask(images[:, i], features[i], masks, sensory, deep_update=deep)
                sensory = kept.sensory if kept.sensory is not None else sensory
                memory.add(kept.elements[0])
    entropy, dice = torch.stack(entropies).mean(), torch.stack(dices).mean()
    return Losses(entropy + recipe.dice * dice, entropy, dice, torch.cat(overlaps).mean())


def _frames(features: FrameFeatures, b: int, t: int) -> list[FrameFeatures]:
    """Features of B * T frames, encoded as one batch, as T batches of B."""

    def split(x: Tensor) -> tuple[Tensor, ...]:
        return x.view(b, t, *x.shape[1:]).unbind(1)

    parts = (features.key, features.shrinkage, features.selection, features.f16, features.f8, features.f4)
    return [FrameFeatures(*frame) for frame in zip(*(split(p) for p in parts), strict=True)]


def _untrained(recipe: Recipe) -> XMem:
    """A fresh network whose first answers are faint and lean to the background, as most pixels do."""
    model = XMem(recipe.network)
    with torch.no_grad():
        model.decoder.pred.weight.mul_(0.1)
        model.decoder.pred.bias.fill_(-1.5)  # type: ignore[union-attr]
    return model


def optimiser_for(model: XMem, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; biases and norms are not decayed."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.99), fused=True)


class Run:
    """A training in progress: model, optimiser, average, random state, counters."""

    def __init__(self, recipe: Recipe, pool: PicturePool, device: str = "cpu") -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.device = device
        self.model = _untrained(recipe).to(device).train()
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = optimiser_for(self.model, recipe)
        self.average = Average(self.model, recipe.average)
        self.rng = torch.Generator().manual_seed(recipe.seed)
        self.composer = Composer(pool if device == "cpu" else pool.to(device), recipe.compose)
        self.step = 0
        self.elapsed_s = 0.0

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs."""
        return {
            "recipe": "recipes/xmem_s.py",
            "model_name": NAME,
            "settings": json.dumps(asdict(self.recipe)),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.tensors,
            "rng": self.rng.get_state(),
            "torch_rng": torch.get_rng_state(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        for key, value in state["average"].items():
            self.average.tensors[key].copy_(value)
        self.rng.set_state(state["rng"])
        torch.set_rng_state(state["torch_rng"])
        self.step, self.elapsed_s = int(state["step"]), float(state["elapsed_s"])

    def advance(self, progress: float) -> dict[str, float]:
        """One batch; what there is to log about it."""
        recipe, start = self.recipe, time.perf_counter()
        stage = stage_at(recipe.stages, progress)
        for module in self.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.train(progress < recipe.freeze_norms)
        objects = 2 if torch.rand((), generator=self.rng) < recipe.two_objects else 1
        rounded = bool(torch.rand((), generator=self.rng) >= recipe.soft_first)
        clips = self.composer.compose(
            self.rng,
            clips=stage.clips,
            frames=stage.frames,
            size=stage.size,
            objects=objects,
            chunk=1 if self.device == "cpu" else stage.clips,
        )
        composed = time.perf_counter()
        begin, end, least = recipe.bootstrap
        share = bootstrap_share(progress, start=begin, end=end, least=least)
        losses = clip_losses(self.model, clips, recipe, self.rng, share=share, rounded=rounded)
        self.optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        rate = cosine_rate(progress, peak=recipe.rate, warm_up=recipe.warm_up)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if torch.isfinite(norm):  # one bad batch must not end a night's run
            self.optimiser.step()
            self.average.update(self.model, self.step)
        self.step += 1
        return {
            "step": self.step,
            "loss": float(losses.total.detach()),
            "cross_entropy": float(losses.cross_entropy.detach()),
            "dice": float(losses.dice.detach()),
            "overlap": float(losses.overlap),
            "present": float(clips.present.float().mean()),
            "norm": float(norm),
            "rate": rate,
            "size": stage.size,
            "objects": objects,
            "compose_s": composed - start,
            "step_s": time.perf_counter() - start,
        }


class _Stop:
    """Set by SIGTERM and SIGINT: the step under way is finished, a checkpoint written."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def train(
    data: str | Path | PicturePool,
    out: str | Path,
    budget: Budget,
    *,
    recipe: Recipe | None = None,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[dict[str, float]], None] | None = None,
) -> Path:
    """Train until the budget is spent or the process is asked to stop; returns the last checkpoint.

    out      gets checkpoint.pt (rewritten as the run goes on) and log.jsonl (a line a step)
    resume   go on from out/checkpoint.pt where there is one
    """
    recipe, out = recipe or Recipe(), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    pool = data if isinstance(data, PicturePool) else load_pool(data, recipe.sources)
    run = Run(recipe, pool, device)
    path = out / "checkpoint.pt"
    if resume and path.exists():
        run.restore(load_checkpoint(path))
    stop = _Stop()
    before = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        with (out / "log.jsonl").open("a", buffering=1) as log:
            _loop(run, budget, path, log, stop, report)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return path


def _loop(
    run: Run,
    budget: Budget,
    path: Path,
    log: TextIO,
    stop: _Stop,
    report: Callable[[dict[str, float]], None] | None,
) -> None:
    last, saved = time.monotonic(), time.monotonic()
    while not stop.asked:
        progress = budget.progress(run.step, run.elapsed_s)
        if progress >= 1:
            break
        entry = run.advance(progress)
        now = time.monotonic()
        run.elapsed_s += now - last
        last = now
        entry.update(elapsed_s=round(run.elapsed_s, 2), progress=round(progress, 5))
        log.write(json.dumps(entry) + "\n")
        if report is not None:
            report(entry)
        if now - saved > run.recipe.checkpoint_s:
            save_checkpoint(run.state(), path)
            saved = now
    save_checkpoint(run.state(), path)
