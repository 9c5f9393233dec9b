"""Clips composed on the fly, with the coverage of every object known for every pixel.

A clip is a background (a photograph under a moving camera, or real footage) and a few layers before it: cut-out
objects, or shapes of our own making filled with pieces of photographs. Some layers are the objects to be followed,
others distract, and a distractor may be a copy of an object. In "region" clips the object is a part of the
photograph itself, moving and bending with it. What is followed is never a hard label: layers are composited with
their fractional coverage, so what the network must say of an edge pixel is how much of it the object covers.

Screen and texture coordinates run over -1..1 between the outer edges of the outermost pixels, x right, y down. All
operations are batched and run on any device; random numbers come from one CPU generator, so a seed gives the same
clip composition on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from rotomem.train.data import PicturePool


@dataclass(frozen=True)
class ComposeConfig:
    """Every knob of the generator. Probabilities are per clip, pairs are least and most.

    layers            most layers before the background, objects included
    region            the first object is a part of the background picture
    region_shape      ... and there of a shape of our own rather than a mask's
    footage           the background is real footage
    cutout            a layer is a cut-out rather than a shape
    distractor        every further free layer is used with this probability
    copy              a distractor is a copy of an object
    patchwork         a shape is filled with two pictures instead of one
    limbs             a shape is made of limbs rather than one outline
    hole              a shape has a hole
    turning           a layer turns: another picture slides over it, as when a side comes into sight that the first
                      frame did not show
    size              half side of a layer's square, screen units, log-uniform
    speed             screen units per frame, log-uniform
    still             a layer does not move
    spin, growth      most turn (radians) and log scale per frame
    bend              most displacement of the low-frequency warp per frame, texture units
    perspective       most perspective term per frame
    with_camera       a layer is carried by the camera's move
    zoom              half width of the screen on the background's short side
    camera            camera speed, background units per frame, log-uniform
    region_bend       as bend, for region clips
    tint              strength of the colour changes of a layer against the rest
    relight           a layer changes brightness on its own while it moves
    lighting          a soft light field moves over the picture; its strength
    drift             exposure and white balance drift; their strength per frame
    defocus           a layer is out of focus
    soft              the whole clip is
    grain             noise is added; its standard deviation
    shutter           the clip has motion blur; share of the frame time, sub-frames
    shadow            layers throw soft shadows
    least_area        an object smaller than this share of the first frame is not followed in this clip
    most_area         nor one larger than this
    """

    layers: int = 4
    region: float = 0.35
    region_shape: float = 0.15
    footage: float = 0.15
    cutout: float = 0.55
    distractor: float = 0.6
    copy: float = 0.3
    patchwork: float = 0.45
    limbs: float = 0.5
    hole: float = 0.1
    turning: float = 0.35
    size: tuple[float, float] = (0.25, 1.05)
    speed: tuple[float, float] = (0.004, 0.22)
    still: float = 0.1
    spin: float = 0.25
    growth: float = 0.18
    bend: float = 0.12
    perspective: float = 0.12
    with_camera: float = 0.4
    zoom: tuple[float, float] = (0.35, 0.95)
    camera: tuple[float, float] = (0.002, 0.2)
    region_bend: float = 0.05
    tint: float = 0.35
    relight: float = 0.4
    lighting: tuple[float, float] = (0.4, 0.3)
    drift: tuple[float, float] = (0.6, 0.05)
    defocus: float = 0.12
    soft: float = 0.2
    grain: tuple[float, float] = (0.5, 0.04)
    shutter: tuple[float, float, int] = (0.06, 0.6, 4)
    shadow: float = 0.2
    least_area: float = 0.003
    most_area: float = 0.8


@dataclass(frozen=True)
class Clips:
    """A batch of clips, composed or of a data set.

    images      [B, T, 3, h, w] float32, display-referred 0..1
    coverage    [B, T, O, h, w] float32, 0..1; the sum over objects is at most 1
    present     [B, O] bool, which rows are objects that can be followed from the first frame
    void        [B, T, h, w] bool, pixels whose coverage nobody knows, which no loss may look at; None: there are none
    """

    images: Tensor
    coverage: Tensor
    present: Tensor
    void: Tensor | None = None


@lru_cache(maxsize=32)
def _basis(controls: int, size: int) -> Tensor:
    """[size, controls]: a smooth line through `controls` values, sampled at `size` pixels."""
    eye = torch.eye(controls).view(1, 1, controls, controls)
    line = F.interpolate(eye, (size, controls), mode="bicubic", align_corners=True)
    return line[0, 0].contiguous()


def smooth_field(control: Tensor, size: int) -> Tensor:
    """Values on a coarse grid [..., K, K] as a smooth field [..., size, size]."""
    basis = _basis(control.shape[-1], size).to(control.device)
    field: Tensor = basis @ control @ basis.t()
    return field


@lru_cache(maxsize=8)
def _screen(size: int, device: str) -> Tensor:
    """Pixel centres [size, size, 2] in screen coordinates."""
    line = (torch.arange(size, dtype=torch.float32) * 2 + 1) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1).to(device)


@dataclass(frozen=True)
class Placement:
    """Where a texture lies in every frame: texture = (matrix @ screen + offset) / (1 + tilt . screen) + bend.

    matrix [B, T, 2, 2], offset [B, T, 2], tilt [B, T, 2], bend [B, T, 2, K, K] on a coarse grid or None
    """

    matrix: Tensor
    offset: Tensor
    tilt: Tensor
    bend: Tensor | None

    def grid(self, size: int) -> Tensor:
        """Texture coordinates of every pixel, [B, T, size, size, 2]."""
        screen = _screen(size, str(self.matrix.device)).view(1, 1, -1, 2)
        at: Tensor = screen @ self.matrix.transpose(2, 3) + self.offset[:, :, None]
        at = at / (1 + (screen * self.tilt[:, :, None]).sum(-1, keepdim=True))
        at = at.unflatten(2, (size, size))
        if self.bend is not None:
            at = at + smooth_field(self.bend, size).movedim(2, -1)
        return at


def sample(texture: Tensor, grid: Tensor, padding: str) -> Tensor:
    """A texture [B, C, S, S] where `grid` [B, T, h, w, 2] asks, as [B, T, C, h, w]."""
    b, t, h, w = grid.shape[:4]
    out = F.grid_sample(texture, grid.reshape(b, t * h, w, 2), padding_mode=padding, align_corners=False)
    return out.view(b, -1, t, h, w).transpose(1, 2)


class Composer:
    """Makes batches of clips from a pool.

    Two composers with one configuration and one pool, given generators in the same state, give the same clips.
    """

    def __init__(self, pool: PicturePool, config: ComposeConfig | None = None) -> None:
        self.pool = pool
        self.config = config or ComposeConfig()
        self.device = pool.pictures.device
        self._grain = torch.randn(3, 640, 640, generator=Generator().manual_seed(7)).to(self.device)

    # -- random numbers: small tensors, drawn on the CPU --------------------------------------------------------

    def _uniform(self, rng: Generator, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
        return (torch.rand(shape, generator=rng) * (high - low) + low).to(self.device)

    def _log_uniform(self, rng: Generator, shape: tuple[int, ...], span: tuple[float, float]) -> Tensor:
        return self._uniform(rng, shape, math.log(span[0]), math.log(span[1])).exp()

    def _chance(self, rng: Generator, p: float) -> bool:
        return bool(torch.rand((), generator=rng) < p)

    def _choose(self, rng: Generator, n: int, shape: tuple[int, ...] = ()) -> Tensor:
        return torch.randint(n, shape, generator=rng)

    def _walk(self, rng: Generator, b: int, t: int, shape: tuple[int, ...], step: Tensor | float) -> Tensor:
        """A path [B, T, *shape] from 0: a steady velocity of about `step` a frame, and a third of that in jitter."""
        velocity = torch.randn((b, 1, *shape), generator=rng)
        jitter = torch.randn((b, t, *shape), generator=rng) * velocity.abs() * 0.35
        path = (velocity + jitter).cumsum(1)
        path = (path - path[:, :1]).to(self.device)
        if isinstance(step, Tensor):
            step = step.view(-1, *(1,) * (path.dim() - 1))
        return path * step

    # -- a batch ------------------------------------------------------------------------------------------------

    def compose(self, rng: Generator, *, clips: int, frames: int, size: int, objects: int, chunk: int = 1) -> Clips:
        """A batch of `clips` clips that each follow up to `objects` objects.

        chunk   clips made at a time; 1 keeps a clip in a CPU's cache, a GPU wants them all at once
        """
        parts = [
            self._chunk(rng, min(chunk, clips - start), frames, size, objects) for start in range(0, clips, chunk)
        ]
        images = torch.cat([p[0] for p in parts])
        coverage = torch.cat([p[1] for p in parts])
        area = coverage[:, 0].mean((2, 3))
        present = (area > self.config.least_area) & (area < self.config.most_area)
        return Clips(images, coverage, present)

    def _chunk(self, rng: Generator, b: int, t: int, size: int, objects: int) -> tuple[Tensor, Tensor]:
        """Images [B, T, 3, h, w] and coverage [B, T, O, h, w] of clips of one structure and different values."""
        c = self.config
        blur, open_share, sub = c.shutter
        moving = self._chance(rng, blur)
        samples = sub if moving else 1

        def shutter(path: Tensor) -> Tensor:
            """Sub-frames of a path: [B, T, ...] to [B, T * samples, ...], linear within the frame."""
            if samples == 1:
                return path
            ahead = torch.cat([path[:, 1:], 2 * path[:, -1:] - path[:, -2:-1]], 1) - path
            at = torch.arange(samples, device=path.device).view(1, 1, -1, *(1,) * (path.dim() - 2))
            return (path[:, :, None] + ahead[:, :, None] * at * (open_share / samples)).flatten(1, 2)

        region = self._chance(rng, c.region) and len(self.pool.labelled) > 0
        image, coverage, shift = self._background(rng, b, t, size, objects, region, samples, shutter)

        owners = self._owners(rng, objects, region)
        textures: list[Tensor] = []
        for slot, owner in enumerate(owners):
            source = None
            if owner == 0 and self._chance(rng, c.copy):
                source = next((textures[i] for i in range(slot) if owners[i] > 0), None)
            textures.append(self._texture(rng, b) if source is None else source)
        for texture, owner in zip(textures, owners, strict=True):
            self._lay(rng, image, coverage, texture, owner, t, size, shift, shutter)

        if samples > 1:
            image = image.unflatten(1, (t, samples)).mean(2)
            coverage = coverage.unflatten(1, (t, samples)).mean(2)
        return self._finish(rng, image), coverage.clamp_(0, 1)

    def _owners(self, rng: Generator, objects: int, region: bool) -> list[int]:
        """Which object each layer shows, 0 for none, back to front."""
        followed = list(range(2 if region else 1, objects + 1))
        free = max(self.config.layers - len(followed), 0)
        owners = followed + [0 for _ in range(free) if self._chance(rng, self.config.distractor * 0.8)]
        return [owners[i] for i in torch.randperm(len(owners), generator=rng).tolist()]

    # -- background -------------------------------------------------------------------------------------------------

    def _background(
        self,
        rng: Generator,
        b: int,
        t: int,
        size: int,
        objects: int,
        region: bool,
        samples: int,
        shutter: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images, coverage, and the camera's shift of the screen [B, T * samples, 2]."""
        c, pool = self.config, self.pool
        footage = not region and len(pool.runs) > 0 and self._chance(rng, c.footage)
        centre = self._uniform(rng, (b, 2), -0.5, 0.5)
        if region:
            row = self._choose(rng, len(pool.labelled), (b,))
            index = pool.labelled[row]
            mask = self._region(rng, b, row)
            weight = mask.mean((2, 3)).clamp_min(1e-6)
            line = _screen(mask.shape[-1], str(self.device))
            middle = torch.stack([(mask[:, 0] * line[..., i]).mean((1, 2)) for i in (0, 1)], 1) / weight
            centre = middle * 0.8 + centre * 0.4
            texture = torch.cat([pool.pictures[index].float() / 255, mask], 1)
        elif footage:
            run = self._choose(rng, len(pool.runs), (b,))
            first, count = pool.runs[run].unbind(1)
            stride = 1 + self._choose(rng, 3, (b,))
            at = (torch.rand(b, generator=rng) * (count - 1 - stride * (t - 1)).clamp_min(0)).long()
            index = first + at
            every = (index[:, None] + stride[:, None] * torch.arange(t)).clamp(max=len(pool.pictures) - 1)
            if self._chance(rng, 0.5):
                every = every.flip(1)
            texture = pool.pictures[every.repeat_interleave(samples, 1).flatten()].float() / 255
        else:
            index = self._choose(rng, pool.stills, (b,))
            texture = pool.pictures[index].float() / 255
        texture = self._jitter(rng, texture, c.tint * 0.7)

        aspect = pool.aspect[index].to(self.device)
        squeeze = torch.stack([1 / aspect, aspect], 1).clamp_max(1)  # undoes the squeeze into a square
        zoom = self._uniform(rng, (b, 1), max(c.zoom[0], 0.5) if region else c.zoom[0], c.zoom[1])
        speed = self._log_uniform(rng, (b,), c.camera)
        if self._chance(rng, c.still):
            speed = speed * 0
        path = shutter(self._walk(rng, b, t, (2,), speed))
        growth = shutter(self._walk(rng, b, t, (1,), self._uniform(rng, (b,), 0, c.growth * 0.5)))
        turn = shutter(self._walk(rng, b, t, (1,), self._uniform(rng, (b,), 0, c.spin * 0.4)))
        turn = turn + self._uniform(rng, (b, 1, 1), -0.1, 0.1)
        mirror = torch.where(torch.rand((b, 1), generator=rng) < 0.5, -1.0, 1.0).to(self.device)
        extent = (zoom[:, None] * growth.exp()) * squeeze[:, None]
        cos, sin = turn.cos()[..., 0], turn.sin()[..., 0]
        m = mirror
        matrix = torch.stack(
            [torch.stack([cos * m, -sin], -1), torch.stack([sin * m, cos], -1)], 2
        ) * extent.unsqueeze(-1)
        reach = (1 - zoom * squeeze).clamp_min(0)  # how far the screen may start from the picture's middle
        start = centre.clamp(-1, 1) if region else centre * 2
        start = torch.minimum(torch.maximum(start, -reach), reach)
        offset = start[:, None] + path
        strength = self._uniform(rng, (b,), 0, c.region_bend if region else c.bend * 0.25)
        bend = shutter(self._walk(rng, b, t, (2, 4, 4), strength))
        tilt = shutter(self._walk(rng, b, t, (2,), self._uniform(rng, (b,), 0, c.perspective * 0.5))).clamp(-0.3, 0.3)
        placement = Placement(matrix, offset, tilt, bend if region or self._chance(rng, 0.5) else None)
        grid = placement.grid(size)
        steps = grid.shape[1]
        if footage:
            pixels = sample(texture, grid.flatten(0, 1)[:, None], "reflection").view(b, steps, 3, size, size)
        else:
            pixels = sample(texture, grid, "reflection" if not region else "border")
        coverage = pixels.new_zeros(b, steps, objects, size, size)
        if region:
            coverage[:, :, 0] = pixels[:, :, 3]
        shift = -(path / extent) * torch.stack([m, torch.ones_like(m)], -1)
        return pixels[:, :, :3].contiguous(), coverage, shift

    def _region(self, rng: Generator, b: int, row: Tensor) -> Tensor:
        """Coverage [B, 1, S, S] of one labelled region of each picture, or of a shape of our own."""
        labels = self.pool.labels[row.to(self.pool.labels.device)]
        side = labels.shape[-1]
        if self._chance(rng, self.config.region_shape):
            return F.interpolate(self._shape(rng, b), (side, side), mode="bilinear", align_corners=False)
        chosen = []
        for one in labels:
            counts = torch.bincount(one.flatten().long(), minlength=2)
            counts[0] = 0
            known = (counts > side * side * 0.004).nonzero()[:, 0]
            if not len(known):
                known = counts.argmax()[None]
            chosen.append(one == known[self._choose(rng, len(known)).to(known.device)])
        # The maps are nearest-sampled: a three-pixel mean gives their steps an edge of fractional coverage.
        return F.avg_pool2d(torch.stack(chosen)[:, None].float(), 3, 1, 1, count_include_pad=False)

    # -- layers -----------------------------------------------------------------------------------------------------

    def _texture(self, rng: Generator, b: int) -> Tensor:
        """Squares [B, 4, P, P], colours multiplied by coverage."""
        c, pool = self.config, self.pool
        if len(pool.cutouts) and self._chance(rng, c.cutout):
            cut = pool.cutouts[self._choose(rng, len(pool.cutouts), (b,))].float() / 255
            colour, alpha = cut[:, :3], cut[:, 3:]
            if self._chance(rng, 0.5):
                colour, alpha = colour.flip(3), alpha.flip(3)
        else:
            alpha = self._shape(rng, b)
            colour = self._piece(rng, b)
            if self._chance(rng, c.patchwork):
                field = smooth_field(torch.randn(b, 1, 4, 4, generator=rng).to(self.device), alpha.shape[-1])
                colour = torch.lerp(
                    colour, self._jitter(rng, self._piece(rng, b), c.tint), (field * 20 + 0.5).clamp(0, 1)
                )
        colour = self._jitter(rng, colour, c.tint)
        texture = torch.cat([colour * alpha, alpha], 1)
        if self._chance(rng, c.defocus):
            texture = F.avg_pool2d(texture, 7, 1, 3)
        return texture

    def _piece(self, rng: Generator, b: int) -> Tensor:
        """A piece of a photograph, [B, 3, P, P]."""
        pool, px = self.pool, self.pool.cutouts.shape[-1]
        picture = pool.pictures[self._choose(rng, pool.stills, (b,))].float() / 255
        half = self._uniform(rng, (b, 1, 1, 1), 0.12, 0.6)
        centre = self._uniform(rng, (b, 1, 1, 2), -1, 1) * (1 - half)
        turn = self._uniform(rng, (b,), -math.pi, math.pi)
        matrix = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(b, 1, 2, 2)
        grid = (_screen(px, str(self.device)) @ matrix) * half + centre
        return F.grid_sample(picture, grid, padding_mode="reflection", align_corners=False)

    def _shape(self, rng: Generator, b: int) -> Tensor:
        """Coverage [B, 1, P, P] of a shape: a wavy outline, or limbs grown from one another."""
        px = self.pool.cutouts.shape[-1]
        at = _screen(px, str(self.device))
        if self._chance(rng, self.config.limbs):
            count = 2 + int(self._choose(rng, 6))
            start = torch.zeros(b, 1, 2)
            points: list[tuple[Tensor, Tensor]] = []
            radii: list[Tensor] = []
            for i in range(count):
                from_ = start if i == 0 else points[int(self._choose(rng, i))][1]
                reach = torch.rand(b, 1, 1, generator=rng) * 0.7 + 0.25
                angle = torch.rand(b, 1, generator=rng) * (2 * math.pi)
                to = from_ + reach * torch.stack([angle.cos(), angle.sin()], -1)
                points.append((from_, to))
                radii.append(torch.rand(b, 1, generator=rng) ** 1.5 * 0.28 + 0.05)
            a = torch.cat([p[0] for p in points], 1)
            z = torch.cat([p[1] for p in points], 1)
            radius = torch.cat(radii, 1)
            low = torch.minimum(a, z).sub(radius[..., None]).amin(1, keepdim=True)
            high = torch.maximum(a, z).add(radius[..., None]).amax(1, keepdim=True)
            fit = 1.8 / (high - low).amax(2, keepdim=True)
            a, z = (a - (low + high) / 2) * fit, (z - (low + high) / 2) * fit
            distance = _limb_distance(
                at, a.to(self.device), z.to(self.device), (radius * fit[..., 0]).to(self.device)
            )
        else:
            waves = torch.arange(1.0, 8.0)
            weight = torch.randn(b, 7, generator=rng) / waves * (0.12 + 0.25 * torch.rand(b, 1, generator=rng))
            phase = torch.rand(b, 7, generator=rng) * (2 * math.pi)
            flat = torch.rand(b, 1, 1, generator=rng) * 0.6 + 0.4
            x, y = at[..., 0], at[..., 1] / flat.to(self.device)
            angle = torch.atan2(y, x)
            outline = angle[:, None] * waves.view(1, -1, 1, 1).to(self.device) + phase[..., None, None].to(
                self.device
            )
            radius_ = 0.62 + (outline.cos() * weight[..., None, None].to(self.device)).sum(1)
            distance = (torch.hypot(x, y) - radius_.clamp(0.1, 0.95)) * 0.8
        ripple = smooth_field(torch.randn(b, 7, 7, generator=rng).to(self.device), px)
        distance = distance + ripple * 0.035
        if self._chance(rng, self.config.hole):
            middle = self._uniform(rng, (b, 1, 1, 2), -0.35, 0.35)
            hole = self._uniform(rng, (b, 1, 1), 0.08, 0.25) - (at - middle).norm(dim=-1)
            distance = torch.maximum(distance, hole)
        return (0.5 - distance * (px / 2)).clamp(0, 1)[:, None]

    def _lay(
        self,
        rng: Generator,
        image: Tensor,
        coverage: Tensor,
        texture: Tensor,
        owner: int,
        t: int,
        size: int,
        shift: Tensor,
        shutter: Callable[[Tensor], Tensor],
    ) -> None:
        """Composite one layer over `image` and `coverage`, in place."""
        c = self.config
        b = image.shape[0]
        half = self._log_uniform(rng, (b, 1, 1), c.size)
        speed = self._log_uniform(rng, (b,), c.speed)
        bend_strength = self._uniform(rng, (b,), 0, 1).square() * c.bend
        if self._chance(rng, c.still):
            speed, bend_strength = speed * 0, bend_strength * 0
        middle = self._uniform(rng, (b, 1, 2), -0.65, 0.65) if owner else self._uniform(rng, (b, 1, 2), -1, 1)
        where = middle + shutter(self._walk(rng, b, t, (2,), speed))
        if self._chance(rng, c.with_camera):
            where = where + shift
        growth = shutter(self._walk(rng, b, t, (1,), self._uniform(rng, (b,), 0, c.growth)))
        turn = shutter(self._walk(rng, b, t, (1,), self._uniform(rng, (b,), 0, 1).square() * c.spin))
        turn = turn + self._uniform(rng, (b, 1, 1), -0.5, 0.5)
        stretch = self._uniform(rng, (b, 1, 1), -0.25, 0.25)
        stretch = stretch + shutter(self._walk(rng, b, t, (1,), self._uniform(rng, (b,), 0, c.growth * 0.5)))
        inverse_x = (-(growth + stretch)).exp() / half
        inverse_y = (-(growth - stretch)).exp() / half
        cos, sin = turn.cos(), turn.sin()
        matrix = torch.cat([cos * inverse_x, sin * inverse_x, -sin * inverse_y, cos * inverse_y], -1)
        matrix = matrix.unflatten(-1, (2, 2))
        offset = -(matrix @ where.unsqueeze(-1)).squeeze(-1)
        tilt = shutter(self._walk(rng, b, t, (2,), self._uniform(rng, (b,), 0, c.perspective))).clamp(-0.3, 0.3)
        bend = shutter(self._walk(rng, b, t, (2, 5, 5), bend_strength))
        ratio = texture.shape[-1] / (float(half.mean()) * size)
        if ratio > 2:  # low-pass what will be made smaller
            window = min(int(ratio) // 2 * 2 + 1, 7)
            texture = F.avg_pool2d(texture, window, 1, window // 2)
        turning = self._chance(rng, c.turning)
        if turning:
            texture = torch.cat([texture, self._other_side(rng, texture)], 1)
        placed = sample(texture, Placement(matrix, offset, tilt, bend).grid(size), "zeros")
        colour, alpha = placed[:, :, :3], placed[:, :, 3:4]
        if turning:
            start = self._uniform(rng, (b, 1, 1, 1, 1), -1.2, 0.2)
            slide = shutter(start + self._walk(rng, b, t, (1, 1, 1), 0.45).abs())
            colour = torch.lerp(colour, placed[:, :, 4:7], ((placed[:, :, 7:] + slide) * 8 + 0.5).clamp(0, 1))
        if self._chance(rng, c.relight):
            gain = shutter(self._walk(rng, b, t, (1,), 0.08)).clamp(-0.4, 0.4).exp()
            colour = colour * gain[..., None, None]
        if self._chance(rng, c.shadow):
            image.mul_(self._shade(rng, alpha))
        rest = 1 - alpha
        image.mul_(rest).add_(colour)
        coverage.mul_(rest)
        if owner:
            coverage[:, :, owner - 1 : owner].add_(alpha)

    def _other_side(self, rng: Generator, texture: Tensor) -> Tensor:
        """Another picture in the layer's outline, and the order in which it shows: [B, 4, P, P]."""
        b, _, _, px = texture.shape
        colour = self._jitter(rng, self._piece(rng, b), self.config.tint) * texture[:, 3:]
        angle = self._uniform(rng, (b, 1, 1, 1), -math.pi, math.pi)
        at = _screen(px, str(self.device))
        ramp = angle.cos() * at[..., 0] + angle.sin() * at[..., 1]
        wave = smooth_field(torch.randn(b, 1, 4, 4, generator=rng).to(self.device), px)
        return torch.cat([colour, ramp + wave * 0.4], 1)

    def _shade(self, rng: Generator, alpha: Tensor) -> Tensor:
        """What a layer's soft shadow leaves of the light, [B, T, 1, h, w]."""
        b, t, _, h, w = alpha.shape
        coarse = F.avg_pool2d(alpha.flatten(0, 1), 8)
        coarse = F.avg_pool2d(coarse, 5, 1, 2)
        dx, dy = (int(v) for v in self._choose(rng, 7, (2,)) - 3)
        coarse = coarse.roll((abs(dy), dx), (2, 3))
        soft = F.interpolate(coarse, (h, w), mode="bilinear", align_corners=False).view(b, t, 1, h, w)
        return 1 - soft * float(torch.rand((), generator=rng) * 0.6)

    # -- colour -------------------------------------------------------------------------------------------------

    def _jitter(self, rng: Generator, colour: Tensor, strength: float) -> Tensor:
        """Gamma, gain, white balance and saturation changes of [B, C, ...], first three channels."""
        b = colour.shape[0]
        shape = (b, 1, 1, 1)
        rgb = colour[:, :3]
        gamma = (self._uniform(rng, shape, -1, 1) * strength).exp()
        gain = (self._uniform(rng, (b, 3, 1, 1), -0.5, 0.5) * strength).exp()
        gain = gain * (self._uniform(rng, shape, -1, 1) * strength).exp()
        saturation = 1 + self._uniform(rng, shape, -1.5, 1) * strength
        rgb = rgb.clamp_min(1e-4).pow(gamma) * gain
        grey = rgb.mean(1, keepdim=True)
        rgb = (grey + (rgb - grey) * saturation).clamp(0, 1)
        return rgb if colour.shape[1] == 3 else torch.cat([rgb, colour[:, 3:]], 1)

    def _finish(self, rng: Generator, image: Tensor) -> Tensor:
        """Light, camera and grain over the composited picture."""
        c = self.config
        b, t, _, h, w = image.shape
        if self._chance(rng, c.soft):
            image = F.avg_pool2d(image.flatten(0, 1), 3, 1, 1, count_include_pad=False).view_as(image)
        if self._chance(rng, c.lighting[0]):
            start = torch.randn(b, 1, 1, 3, 3, generator=rng).to(self.device)
            light = (start + self._walk(rng, b, t, (1, 3, 3), 0.3)) * c.lighting[1] * 0.5
            image = image * smooth_field(light.clamp(-0.7, 0.7), h).exp()
        if self._chance(rng, c.drift[0]):
            gain = self._walk(rng, b, t, (1, 1, 1), c.drift[1]) + self._walk(rng, b, t, (3, 1, 1), c.drift[1] * 0.4)
            image = image * gain.clamp(-0.5, 0.5).exp()
        if self._chance(rng, c.grain[0]):
            sigma = float(torch.rand((), generator=rng)) * c.grain[1]
            room = self._grain.shape[-1] - h
            for one in image.flatten(0, 1):
                y, x = self._choose(rng, room, (2,)).tolist()
                one.add_(self._grain[:, y : y + h, x : x + w], alpha=sigma)
        return image.clamp_(0, 1)


def _limb_distance(at: Tensor, a: Tensor, z: Tensor, radius: Tensor) -> Tensor:
    """Signed distance [B, P, P] of points [P, P, 2] to the union of limbs: ends [B, N, 2], radius [B, N]."""
    axis = z - a
    length = axis.square().sum(-1).clamp_min(1e-6)
    x, y = at[..., 0], at[..., 1]
    dx = x - a[..., 0, None, None]
    dy = y - a[..., 1, None, None]
    ux, uy = axis[..., 0, None, None], axis[..., 1, None, None]
    along = ((dx * ux + dy * uy) / length[..., None, None]).clamp(0, 1)
    distance = torch.hypot(dx - along * ux, dy - along * uy) - radius[..., None, None]
    return distance.amin(1)
