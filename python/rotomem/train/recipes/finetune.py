"""Fine-tuning: a trained model learns a shot, or a show, from a handful of its key frames.

What one mask can teach was shown by OSVOS (Caelles et al., CVPR 2017) and, with clips made of the annotated frame
alone, by LucidTracker (Khoreva et al., 2017). Here a clip is one of

    pair     two or three different keys of a shot, in either order of time: given the first, tell the others. Between
             them may lie a frame nobody drew on, which the network goes through and no loss looks at
    lucid    a key taken apart: its objects cut out, the ground behind them filled in, both moved on their own
    warp     a key, moved and bent as a whole

always seen through a moving, bending window and under changing light. Where a source folder is given, some batches
are generated clips, so that what the model knew is not forgotten.

Rates are small, norms keep the statistics they have, and what is exported is the average over the steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from rotomem.models.interface import VOSModel
from rotomem.models.registry import load_model
from rotomem.train.clip import ClipKnobs, clip_losses
from rotomem.train.compose import Clips, Composer
from rotomem.train.data import load_pool
from rotomem.train.loop import Recipe, Share
from rotomem.train.scene.placement import Placement, rotation, sample
from rotomem.train.schedule import cosine_rate, decayed_apart, freeze_norms


@dataclass(frozen=True)
class KeyFrame:
    """A frame that somebody drew on, as the network sees it.

    picture    [3, h, w] float32 0..1
    objects    ids, the same object under the same id on every key of a shot
    coverage   [O, h, w] float32 0..1, a row per object
    """

    frame: int
    picture: Tensor
    objects: tuple[int, ...]
    coverage: Tensor

    def of(self, objects: tuple[int, ...]) -> Tensor:
        """Picture and coverage of these objects, [3 + O, h, w]; nothing where one was not drawn."""
        rows = [
            self.coverage[self.objects.index(i)] if i in self.objects else torch.zeros_like(self.picture[0])
            for i in objects
        ]
        return torch.cat([self.picture, torch.stack(rows)])

    def shown(self) -> tuple[int, ...]:
        """Objects of which there is something to see."""
        return tuple(i for i, row in zip(self.objects, self.coverage, strict=True) if row.sum() >= _LEAST_PX)


@dataclass(frozen=True)
class KeyedShot:
    """Keys of one shot, ascending, and some frames of the plate that nobody drew on (frame -> [3, h, w]).

    colour   how the plate's colours were understood, for people
    """

    name: str
    keys: tuple[KeyFrame, ...]
    others: dict[int, Tensor]
    colour: str = ""

    def without(self, frame: int) -> KeyedShot:
        """The shot as if that key had not been drawn."""
        return replace(self, keys=tuple(k for k in self.keys if k.frame != frame))


@dataclass(frozen=True)
class ShowSource:
    """What batches are drawn from; `composer` makes generated clips where there is one."""

    shots: tuple[KeyedShot, ...]
    composer: Composer | None = None


_LEAST_PX = 16  # an object of less coverage than this is not followed
_FRAMES = 3


@dataclass(frozen=True)
class FineTune(Recipe):
    """Every knob of it.

    start          the model to begin from: a bundled model's name or a file
    size, clips    side of a clip in pixels, clips a batch; all have three frames
    peak           highest learning rate, after a short warm-up
    parts          only parameters whose names begin with one of these are trained; empty: all
    objects        most objects a clip follows
    pair, lucid    share of the clips that are such, the rest are warps; a shot of one key has no pairs
    between        share of the pairs with a frame between them that nobody drew on
    generated      share of the batches that are generated clips, where there is a source of them
    window         side of the window on the network picture over `size`, log-uniform; at most the picture's own
    follow         share of the clips whose window goes along with an object
    turn, grow, slide, bend    turn (radians), log scale, move and bend (shares of the window) of a frame
    wander         move of a lucid clip's objects from frame to frame, the frame being 2 wide
    light          strength of the changes of light and colour; a third of it from frame to frame
    grain          most noise, standard deviation
    hardest        share of the pixels that the cross-entropy looks at
    """

    average: float = 0.95
    start: str | None = "xmem-s"
    size: int = 256
    clips: int = 2
    peak: float = 1.5e-4
    weight_decay: float = 0.01
    parts: tuple[str, ...] = ()
    objects: int = 3
    pair: float = 0.6
    lucid: float = 0.25
    between: float = 0.4
    generated: float = 0.3
    window: tuple[float, float] = (0.9, 1.9)
    follow: float = 0.6
    turn: float = 0.15
    grow: float = 0.15
    slide: float = 0.1
    bend: float = 0.03
    wander: float = 0.25
    light: float = 0.08
    grain: float = 0.02
    hardest: float = 0.5
    clip: ClipKnobs = field(default_factory=lambda: ClipKnobs(memorise=0.8, deep_update=0.8))

    @property
    def name(self) -> str:
        """Whose weights are tuned."""
        return Path(str(self.start)).stem

    def build(self) -> VOSModel:
        """The model to begin from."""
        return load_model(str(self.start), device="cpu", dtype="float32")

    def optimiser(self, model: nn.Module) -> torch.optim.AdamW:
        """AdamW over the trained parts."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not self.parts or name.startswith(self.parts))
        groups = decayed_apart(model, self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.peak, betas=(0.9, 0.99), fused=True)

    def rate(self, progress: float) -> float:
        """Warm-up and half a cosine."""
        return cosine_rate(progress, peak=self.peak, warm_up=0.1, floor=0.05)

    def prepare(self, model: nn.Module, progress: float) -> None:
        """Norms keep the statistics they came with."""
        freeze_norms(model)

    def open(self, data: Path, device: torch.device) -> Composer:
        """Generated clips of a source folder."""
        return Composer(load_pool(data).to(device))

    def batch(self, source: ShowSource, rng: Generator, progress: float, share: Share, device: torch.device) -> Clips:
        """Clips of the shots, or generated ones."""
        if source.composer is not None and _chance(rng, self.generated):
            return source.composer.compose(
                rng,
                clips=self.clips,
                frames=_FRAMES,
                size=self.size,
                objects=1,
                chunk=1 if device.type == "cpu" else self.clips,
            )
        return _together([self._clip(source, rng, device) for _ in range(self.clips)])

    def losses(self, model: VOSModel, clips: Clips, rng: Generator, progress: float) -> dict[str, Tensor]:
        """Cross-entropy of the harder pixels and dice, over the frames that somebody drew."""
        return clip_losses(model, clips, rng, self.clip, share=self.hardest, rounded=_chance(rng, 0.5))

    # -- clips ------------------------------------------------------------------------------------------------------

    def _clip(self, source: ShowSource, rng: Generator, device: torch.device) -> Clips:
        """One clip [1, 3, ...] of a shot drawn by its number of keys that show something."""
        shown = [[k for k in s.keys if k.shown()] for s in source.shots]
        which = int(torch.multinomial(torch.tensor([float(len(keys)) for keys in shown]), 1, generator=rng))
        shot = source.shots[which]
        kind = float(torch.rand((), generator=rng))
        pairs = [(a, b) for a in shown[which] for b in shot.keys if a is not b and set(a.shown()) & set(b.objects)]
        if pairs and kind < self.pair:
            first, second = pairs[_integer(rng, len(pairs))]
            return self._pair(shot, first, second, rng, device)
        key = shown[which][_integer(rng, len(shown[which]))]
        if kind < self.pair + self.lucid:
            return self._lucid(key, rng, device)
        return self._still(key, rng, device)

    def _pair(self, shot: KeyedShot, first: KeyFrame, last: KeyFrame, rng: Generator, device: torch.device) -> Clips:
        """Given one key, tell another; between them a frame nobody drew on, a third key, or the last one twice."""
        objects = self._followed(tuple(i for i in first.shown() if i in last.objects), rng)
        low, high = sorted((first.frame, last.frame))
        undrawn = [f for f in shot.others if low < f < high]
        third = [k for k in shot.keys if low < k.frame < high and set(objects) <= set(k.objects)]
        ends = first.of(objects), last.of(objects)
        skipped = bool(undrawn) and _chance(rng, self.between)
        if skipped:
            picture = shot.others[undrawn[_integer(rng, len(undrawn))]]
            middle = torch.cat([picture, ends[1][3:] * 0])
        else:
            middle = third[_integer(rng, len(third))].of(objects) if third else ends[1]
        layers = torch.stack([ends[0], middle, ends[1]]).to(device)
        where = _middles(layers[:, 3:].sum(1))
        if skipped:
            where[1] = (where[0] + where[2]) / 2
        return self._seen(layers, where, rng, void=(1,) if skipped else ())

    def _still(self, key: KeyFrame, rng: Generator, device: torch.device) -> Clips:
        """A key moved and bent as a whole."""
        layers = key.of(self._followed(key.shown(), rng)).to(device).expand(_FRAMES, -1, -1, -1)
        return self._seen(layers, _middles(layers[:, 3:].sum(1)), rng)

    def _lucid(self, key: KeyFrame, rng: Generator, device: torch.device) -> Clips:
        """A key's objects, each moved on its own over the ground behind them."""
        objects = self._followed(key.shown(), rng)
        drawn = key.coverage.sum(0).clamp(0, 1).to(device)
        picture, coverage = key.of(objects).to(device).split((3, len(objects)))
        touched = F.max_pool2d(drawn[None], 5, 1, 2)[0] > 0.02
        image = fill(picture, (~touched).float()).expand(_FRAMES, -1, -1, -1)
        moved = torch.zeros(_FRAMES, *coverage.shape, device=device)
        rest = (drawn - coverage.sum(0)).clamp(0, 1)  # drawn, but not followed here
        for row, alpha in enumerate([*coverage, rest]):
            if alpha.sum() < _LEAST_PX:
                continue
            piece = torch.cat([picture * alpha, alpha[None]])
            colour, alpha = self._adrift(piece, rng).split((3, 1), 1)
            image = image * (1 - alpha) + colour
            moved = moved * (1 - alpha)
            if row < len(objects):
                moved[:, row] += alpha[:, 0]
        return self._seen(torch.cat([image, moved], 1), _middles(moved.sum(1)), rng)

    def _adrift(self, piece: Tensor, rng: Generator) -> Tensor:
        """A cut-out [4, h, w], colours multiplied by coverage, as it moves, turns, grows and bends: [T, 4, h, w]."""
        h, w = piece.shape[1:]
        device = piece.device
        middle = _middles(piece[3:])
        walk = _drift(rng, 2).to(device) * self.wander
        turn = _drift(rng, 1)[:, 0].to(device) * self.turn * 2
        grow = (_drift(rng, 1).to(device) * self.grow).exp()
        squeeze = torch.tensor([[1, h / w], [w / h, 1]], device=device)  # the frame is -1..1 along both sides
        matrix = rotation(turn) * squeeze * grow[..., None]
        # What stood at `middle` goes to `middle + walk`.
        offset = middle - (matrix @ (middle + walk)[..., None])[..., 0]
        bend = torch.randn(_FRAMES, 2, 5, 5, generator=rng).to(device) * self.bend
        bend[0] = 0
        # Smooth, so a coarse grid will do; it is square, the frame is not.
        grid = Placement(matrix[None], offset[None], offset[None] * 0, bend[None]).grid(max(h, w) // 4)[0]
        grid = F.interpolate(grid.movedim(-1, 1), (h, w), mode="bilinear", align_corners=False).movedim(1, -1)
        return sample(piece[None], grid[None], "zeros")[0]

    def _followed(self, objects: tuple[int, ...], rng: Generator) -> tuple[int, ...]:
        """At most so many of the objects as a clip follows."""
        order = torch.randperm(len(objects), generator=rng)[: self.objects]
        return tuple(objects[i] for i in order.tolist())

    def _seen(self, layers: Tensor, where: Tensor, rng: Generator, void: tuple[int, ...] = ()) -> Clips:
        """Frames [T, 3 + O, h, w] through a moving window, under changing light.

        where   [T, 2] the objects' middles, on the frame -1..1, that the window may go along with
        void    frames that nobody drew on
        """
        t, _, h, w = layers.shape
        device = layers.device
        low, high = math.log(self.window[0]), math.log(self.window[1])
        side = self.size * math.exp(float(torch.rand((), generator=rng)) * (high - low) + low)
        side = min(side, h, w)
        half = torch.tensor([side / w, side / h])  # of the window, on the frame -1..1
        follow = where if _chance(rng, self.follow) else where[:1].expand(t, -1)
        grow = ((torch.rand(t, 1, 1, generator=rng) * 2 - 1) * self.grow).exp()
        turn = (torch.rand(t, generator=rng) * 2 - 1) * self.turn
        mirror = torch.tensor([-1.0 if _chance(rng, 0.3) else 1.0, 1.0])
        matrix = half[:, None] * rotation(turn) * grow * mirror
        start = (torch.rand(1, 2, generator=rng) * 2 - 1) * 0.4
        slide = torch.randn(t, 2, generator=rng) * self.slide
        offset = follow.cpu() + (start + slide) * half
        room = 1 - half
        offset = torch.minimum(torch.maximum(offset, -room), room)
        bend = torch.randn(t, 2, 5, 5, generator=rng) * self.bend * half.view(1, 2, 1, 1)
        place = Placement(
            matrix[:, None].to(device), offset[:, None].to(device), torch.zeros(t, 1, 2, device=device),
            bend[:, None].to(device),
        )  # fmt: skip
        if side > 1.4 * self.size:  # low-pass what will be made smaller
            layers = F.avg_pool2d(layers, 2)
        seen = sample(layers, place.grid(self.size), "border")[:, 0]
        images = self._lit(seen[:, :3], rng)
        coverage = seen[:, 3:].clamp(0, 1)
        nobody = torch.zeros(t, self.size, self.size, dtype=torch.bool, device=device)
        nobody[list(void)] = True
        present = coverage[0].sum((1, 2)) >= _LEAST_PX
        return Clips(images[None], coverage[None], present[None], nobody[None])

    def _lit(self, images: Tensor, rng: Generator) -> Tensor:
        """[T, 3, h, w] under other light: gain, white balance and gamma of the clip, and some of each frame's own."""
        t = images.shape[0]

        def strength(*shape: int) -> Tensor:
            both = torch.randn(1, *shape, generator=rng) + torch.randn(t, *shape, generator=rng) / 3
            return (both * self.light).clamp(-0.6, 0.6).to(images.device)

        gamma, gain, balance = strength(1, 1, 1), strength(1, 1, 1), strength(3, 1, 1) * 0.3
        lit = images.clamp_min(1e-4).pow(gamma.exp()) * (gain + balance).exp()
        noise = torch.randn(images.shape, generator=rng).to(images.device)
        return (lit + noise * (self.grain * float(torch.rand((), generator=rng)))).clamp(0, 1)


def fill(picture: Tensor, known: Tensor) -> Tensor:
    """A picture [3, h, w] whose unknown pixels are, smoothly, what is known around them.

    Averages of the known pixels on ever coarser grids, enlarged into the gaps of the next finer one (push and pull;
    Gortler et al., SIGGRAPH 1996).

    known   [h, w], 1 where the picture is to be trusted, else 0
    """
    values, weights = [picture[None] * known], [known[None, None].to(picture)]
    while min(values[-1].shape[-2:]) > 1:
        values.append(F.avg_pool2d(values[-1], 2, ceil_mode=True, count_include_pad=False))
        weights.append(F.avg_pool2d(weights[-1], 2, ceil_mode=True, count_include_pad=False))
    filled = values[-1] / weights[-1].clamp_min(1e-6)
    for value, weight in zip(values[-2::-1], weights[-2::-1], strict=True):
        coarse = F.interpolate(filled, value.shape[-2:], mode="bilinear", align_corners=False)
        filled = value + (1 - weight) * coarse
    return filled[0]


def _together(clips: list[Clips]) -> Clips:
    """Clips as one batch; object rows that a clip lacks are not present."""
    most = max(c.coverage.shape[2] for c in clips)

    def padded(x: Tensor, axis: int) -> Tensor:
        missing = list(x.shape)
        missing[axis] = most - x.shape[axis]
        return torch.cat([x, x.new_zeros(missing)], axis)

    return Clips(
        torch.cat([c.images for c in clips]),
        torch.cat([padded(c.coverage, 2) for c in clips]),
        torch.cat([padded(c.present, 1) for c in clips]),
        torch.cat([c.void for c in clips if c.void is not None]),
    )


def _middles(masks: Tensor) -> Tensor:
    """Centres of mass [T, 2] (x, y on -1..1) of masks [T, h, w]; the frame's middle where one is empty."""
    h, w = masks.shape[1:]
    weight = masks.sum((1, 2))
    y = (torch.arange(h, device=masks.device) * 2 + 1) / h - 1
    x = (torch.arange(w, device=masks.device) * 2 + 1) / w - 1
    return torch.stack([(masks.sum(1) @ x), (masks.sum(2) @ y)], 1) / weight.clamp_min(1e-6)[:, None]


def _drift(rng: Generator, values: int) -> Tensor:
    """A path [T, values] from 0 at a steady speed, often a slow one, of at most about 1 a frame; and some jitter."""
    velocity = torch.randn(1, values, generator=rng) * torch.rand((), generator=rng)
    path = (velocity + torch.randn(_FRAMES, values, generator=rng) * velocity.abs() * 0.35).cumsum(0)
    return path - path[:1]


def _chance(rng: Generator, p: float) -> bool:
    return bool(torch.rand((), generator=rng) < p)


def _integer(rng: Generator, n: int) -> int:
    return int(torch.randint(n, (), generator=rng))
