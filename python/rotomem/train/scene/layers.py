"""Layers before the background: what they look like and how they move."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rotomem.train.data import PicturePool
from rotomem.train.scene import figures, shapes
from rotomem.train.scene.config import ComposeConfig
from rotomem.train.scene.draw import Draw, Shutter
from rotomem.train.scene.light import blur, linearise
from rotomem.train.scene.placement import Hinge, Placement, Window, rotation, sample, screen, smooth_field


@dataclass(frozen=True)
class Scene:
    """What has been composited so far; layers write into it.

    light      [B, T', 3, h, w] linear; T' counts sub-frames
    coverage   [B, T', O, h, w]
    shift      [B, T', 2] how far the camera's move has carried what stands still, screen units
    frames     T, frames before they were divided by the shutter
    shutter    how
    """

    light: Tensor
    coverage: Tensor
    shift: Tensor
    frames: int
    shutter: Shutter


@dataclass(frozen=True)
class Look:
    """What a layer shows.

    texture   [B, 4, P, P] in every frame, or [B, T', 4, P, P]; linear colours multiplied by coverage
    half      [B] half side of its square on the screen
    stiff     it hardly bends but about its own joints
    """

    texture: Tensor
    half: Tensor
    stiff: bool = False


def jitter(draw: Draw, colour: Tensor, strength: float) -> Tensor:
    """Contrast, gain, white balance and saturation changes of linear light [B, C, ...], first three channels."""
    b = colour.shape[0]
    rgb = colour[:, :3]
    gamma = (draw.uniform((b, 1, 1, 1), -1, 1) * strength).exp()
    gain = (draw.uniform((b, 3, 1, 1), -1, 1) * strength).exp() * (draw.uniform((b, 1, 1, 1), -2, 2) * strength).exp()
    saturation = 1 + draw.uniform((b, 1, 1, 1), -1.5, 1) * strength
    rgb = (rgb.clamp_min(1e-4).log_() * gamma).exp_() * gain
    grey = rgb.mean(1, keepdim=True)
    rgb = torch.lerp(grey, rgb, saturation).clamp_(0, 4)
    return rgb if colour.shape[1] == 3 else torch.cat([rgb, colour[:, 3:]], 1)


class Layers:
    """Draws looks and lays them over a scene."""

    def __init__(self, pool: PicturePool, config: ComposeConfig) -> None:
        self.pool, self.config = pool, config

    # -- what a layer shows -----------------------------------------------------------------------------------------

    def look(self, draw: Draw, b: int, scene: Scene, size: int) -> Look:
        """An object of a kind drawn by the configuration's weights."""
        c, pool = self.config, self.pool
        cutout = c.cutout if len(pool.cutouts) else 0.0
        weights = {
            "cutout": cutout, "shape": c.shape + c.cutout - cutout, "patch": c.patch, "figure": c.figure,
            "vehicle": c.vehicle, "thin": c.thin,
        }  # fmt: skip
        kind = list(weights)[draw.pick(tuple(weights.values()))]
        half = draw.log_uniform((b,), c.size)
        # Rendered at about the size it is shown at: finer only costs, coarser blurs.
        shown_px = int(float(half.max()) * size / 16) * 16 + 16
        if kind in ("figure", "vehicle"):
            px = min(max(shown_px, 48), 224)
            tiles, yaw = self._tiles(draw, b), self._yaw(draw, b, scene)
            if kind == "vehicle":
                return Look(figures.vehicle(draw, tiles, yaw, px, scene.shutter), half, stiff=True)
            return Look(figures.figure(draw, tiles, yaw, px, c.wild, scene.shutter), half, stiff=True)
        px = pool.cutouts.shape[-1]
        if kind == "cutout":
            colour, alpha = self._cutout(draw, b)
        elif kind == "patch":
            colour, alpha = self._patch(draw, b, px)
        elif kind == "thin":
            half = half.clamp_min(0.4)  # smaller ones are thinner than pixels
            px = min(max(shown_px, px), 256)
            colour, alpha = self._fill(draw, b, px), shapes.thin(draw, b, px, c.line, c.hung)
        else:
            alpha = shapes.solid(draw, b, px, limb=c.limbs, hole=c.hole, radius=c.limb_radius)
            colour = self._fill(draw, b, px)
        colour = jitter(draw, colour, c.tint)
        texture = torch.cat([colour * alpha, alpha], 1)
        if kind != "thin" and draw.chance(c.turning):
            yaw, depth = scene.shutter(self._yaw(draw, b, scene)), draw.uniform((b,), 0.15, 0.9)
            texture = figures.turned_in_depth(texture, self._back(draw, texture), yaw, depth)
        return Look(texture, half)

    def _cutout(self, draw: Draw, b: int) -> tuple[Tensor, Tensor]:
        """An object cut out of a photograph: linear [B, 3, P, P], coverage."""
        cut = self.pool.cutouts[draw.index(len(self.pool.cutouts), (b,))]
        if draw.chance(0.5):
            cut = cut.flip(3)
        return linearise(cut[:, :3]), cut[:, 3:].float() / 255

    def _back(self, draw: Draw, texture: Tensor) -> Tensor:
        """What the other side of a cut-out shows, linear [B, 3, P, P]."""
        back = jitter(draw, self._fill(draw, texture.shape[0], texture.shape[-1]), self.config.tint)
        if draw.chance(0.6):  # most things have a back of their own colours
            sums = texture.sum((2, 3), keepdim=True)
            own = sums[:, :3] / sums[:, 3:].clamp_min(1)
            back = back * ((own + 0.02) / (back.mean((2, 3), keepdim=True) + 0.02)).clamp(0.1, 8)
        return back

    def _yaw(self, draw: Draw, b: int, scene: Scene) -> Tensor:
        """How far a body has turned in depth, [B, T] radians; it starts anywhere."""
        rate = draw.log_uniform((b, 1), self.config.yaw) * draw.sign((b, 1))
        path = rate * torch.arange(scene.frames, device=draw.device)
        path = path + draw.walk(b, scene.frames, (), 0.2) * rate.abs()
        return path + draw.uniform((b, 1), -math.pi, math.pi)

    def _piece(self, draw: Draw, b: int, px: int) -> Tensor:
        """A piece of a photograph, linear [B, 3, P, P]."""
        picture = self.pool.pictures[draw.index(self.pool.stills, (b,))].float()
        half = draw.uniform((b, 1, 1, 1), 0.12, 0.6)
        centre = draw.uniform((b, 1, 1, 2), -1, 1) * (1 - half)
        turn = rotation(draw.uniform((b, 1), -math.pi, math.pi))
        grid = (screen(px, draw.device) @ turn) * half + centre
        shown = F.grid_sample(picture, grid, padding_mode="reflection", align_corners=False)
        return linearise(shown.round_().byte())

    def _fill(self, draw: Draw, b: int, px: int) -> Tensor:
        """What covers a shape: a piece of a photograph, or two along a wavy seam."""
        colour = self._piece(draw, b, px)
        if draw.chance(self.config.patchwork):
            seam = smooth_field(draw.normal((b, 1, 4, 4)), px)
            other = jitter(draw, self._piece(draw, b, px), self.config.tint)
            colour = torch.lerp(colour, other, (seam * 20 + 0.5).clamp(0, 1))
        return colour

    def _tiles(self, draw: Draw, b: int) -> Tensor:
        """What a figure wears: [B, 3, S * TILES, S] linear; some of it plain."""
        side = 64
        pieces = []
        for _ in range(figures.TILES):
            piece = jitter(draw, self._piece(draw, b, side), self.config.tint)
            plain = piece.mean((2, 3), keepdim=True)
            pieces.append(torch.lerp(piece, plain, draw.uniform((b, 1, 1, 1)).sqrt() * 0.95))
        return torch.cat(pieces, 2)

    def _patch(self, draw: Draw, b: int, px: int) -> tuple[Tensor, Tensor]:
        """A superpixel of a photograph with its colours, filling the square: linear [B, 3, P, P], coverage."""
        picture = self.pool.pictures[draw.index(len(self.pool.pictures), (b,))]
        alpha = shapes.superpixel(draw, picture.float() / 255, px)
        line = screen(px, draw.device)[0, :, 0]
        boxes = []
        for extent in (alpha[:, 0].amax(1), alpha[:, 0].amax(2)):  # along x, along y
            there = extent > 0.5
            low = torch.where(there, line, 1.0).amin(1)
            high = torch.where(there, line, -1.0).amax(1)
            boxes.append((low, high))
        middle = torch.stack([(low + high) / 2 for low, high in boxes], -1)[:, None, None]
        reach = torch.stack([(high - low) / 2 for low, high in boxes], -1).amax(1).clamp_min(0.05) * 1.08
        grid = screen(px, draw.device) * reach[:, None, None, None] + middle
        colour = F.grid_sample(picture.float(), grid, padding_mode="border", align_corners=False)
        alpha = F.grid_sample(alpha, grid, align_corners=False)
        return linearise(colour.round_().byte()), alpha

    # -- how it moves -----------------------------------------------------------------------------------------------

    def path(self, draw: Draw, b: int, scene: Scene, followed: bool) -> Tensor:
        """Where the middle of a layer is, [B, T, 2] screen units."""
        c, t = self.config, scene.frames
        speed = draw.log_uniform((b,), c.speed)
        if draw.chance(c.still):
            speed = speed * 0
        reach = 0.65 if followed else 1.0
        return draw.uniform((b, 1, 2), -reach, reach) + draw.walk(b, t, (2,), speed)

    def leaving(self, draw: Draw, path: Tensor, half: Tensor) -> Tensor:
        """The path with an excursion out of the frame, by the nearer side, and back in its midst."""
        b, t, _ = path.shape
        middle = path.mean(1)
        away = torch.atan2(middle[:, 1], middle[:, 0]) + draw.uniform((b,), -0.6, 0.6)
        way = torch.stack([away.cos(), away.sin()], -1)
        way = way / way.abs().amax(1, keepdim=True)
        time = torch.arange(t, device=draw.device) / max(t - 1, 1)
        bump = (time * math.pi).sin().clamp_min(0).sqrt()
        return path + way[:, None] * (bump[:, None] * (1.15 + 1.35 * half.view(-1, 1, 1)))

    def crossing(self, draw: Draw, target: Tensor, reach: Tensor) -> Tensor:
        """A path [B, T, 2] that meets `target`'s in the midst of the clip, and begins beside it, `reach` [B] off."""
        b, t, _ = target.shape
        meet = 1 + int(draw.index(max(t - 2, 1)))
        angle = draw.uniform((b,), -math.pi, math.pi)
        way = torch.stack([angle.cos(), angle.sin()], -1)[:, None]
        time = torch.arange(t, device=draw.device).view(1, -1, 1) - meet
        return target[:, min(meet, t - 1), None] + way * time * (reach.view(-1, 1, 1) / meet)

    def lay(self, draw: Draw, scene: Scene, look: Look, path: Tensor, owner: int) -> None:
        """Composite one layer over the scene, in place.

        path    [B, T, 2] screen units
        owner   1..O for an object that is followed, 0 for none
        """
        c, shutter, t = self.config, scene.shutter, scene.frames
        texture, half = look.texture, look.half.view(-1, 1, 1)
        b, size = texture.shape[0], scene.light.shape[-1]
        where = shutter(path)
        if draw.chance(c.with_camera):
            where = where + scene.shift
        strength = draw.uniform((b,)).square() * c.bend * (0.2 if look.stiff else 1)
        if bool((path == path[:, :1]).all()) and draw.chance(0.5):  # what stands still seldom bends
            strength = strength * 0
        growth = shutter(draw.walk(b, t, (1,), draw.uniform((b,), 0, c.growth)))
        turn = shutter(draw.walk(b, t, (1,), draw.uniform((b,)).square() * c.spin))
        turn = turn + draw.uniform((b, 1, 1), -0.5, 0.5)
        stretch = shutter(draw.walk(b, t, (1,), draw.uniform((b,), 0, c.growth * 0.5)))
        stretch = stretch + draw.uniform((b, 1, 1), -0.25, 0.25)
        shrink = torch.cat([(-(growth + stretch)).exp(), (-(growth - stretch)).exp()], -1) / half
        matrix = rotation(-turn[..., 0]) * shrink[..., None]
        offset = -(matrix @ where.unsqueeze(-1)).squeeze(-1)
        tilt = shutter(draw.walk(b, t, (2,), draw.uniform((b,), 0, c.perspective))).clamp(-0.3, 0.3)
        bend = shutter(draw.walk(b, t, (2, 5, 5), strength))
        hinge = self._hinge(draw, b, t, shutter) if texture.dim() == 4 and draw.chance(c.hinge[0]) else None
        ratio = texture.shape[-1] / (float(half.mean()) * size)
        if ratio > 2 and texture.dim() == 4:  # low-pass what will be made smaller
            texture = blur(texture, min(ratio / 4, 2))
        placement = Placement(matrix, offset, tilt, bend, hinge)
        window = placement.window(size)
        if window is None:
            return
        placed = sample(texture, placement.grid(size, window), "zeros")
        if draw.chance(c.defocus[0]):
            placed = self._defocused(draw, placed, t, size, shutter)
        colour, alpha = placed[:, :, :3], placed[:, :, 3:4]
        if draw.chance(c.relight):
            colour = colour * shutter(draw.walk(b, t, (1,), 0.16)).clamp(-0.8, 0.8).exp()[..., None, None]
        if draw.chance(c.shadow):
            self._shade(draw, scene.light, alpha, window)
        rest = 1 - alpha
        window.of(scene.light).mul_(rest).add_(colour)
        window.of(scene.coverage).mul_(rest)
        if owner:
            window.of(scene.coverage)[:, :, owner - 1 : owner].add_(alpha)

    def _hinge(self, draw: Draw, b: int, t: int, shutter: Shutter) -> Hinge:
        angle = draw.uniform((b,), -math.pi, math.pi)
        normal = torch.stack([angle.cos(), angle.sin()], -1)
        pivot = normal * draw.uniform((b, 1), -0.1, 0.4) + draw.uniform((b, 2), -0.15, 0.15)
        bent = shutter(draw.walk(b, t, (), self.config.hinge[1] * draw.uniform((b,)))).clamp(-1.2, 1.2)
        return Hinge(pivot, normal, bent)

    def _defocused(self, draw: Draw, placed: Tensor, t: int, size: int, shutter: Shutter) -> Tensor:
        """Light and coverage through the same blur; sometimes the focus moves from one state to the other.

        A mix of the sharp and the blurred picture is a blur by a mix of the two kernels: still one and the same for
        light and coverage.
        """
        soft = blur(placed, float(draw.uniform((), 0.2, 1).cpu()) * self.config.defocus[1] * size / 2)
        if draw.chance(0.6):
            return soft
        focus = draw.uniform((placed.shape[0], 1, 1, 1, 1)) + draw.walk(placed.shape[0], t, (1, 1, 1), 0.3)
        return torch.lerp(placed, soft, shutter(focus).clamp(0, 1))

    def _shade(self, draw: Draw, light: Tensor, alpha: Tensor, window: Window) -> None:
        """Take the soft shadow of a layer that lies in the window from the light [B, T', 3, h, w], in place."""
        cell = 8
        around = window.grown(5 * cell, light.shape[-1])  # it falls beside what throws it
        (top, bottom), (left, right) = (
            (inner.start - outer.start, outer.stop - inner.stop)
            for inner, outer in ((window.rows, around.rows), (window.columns, around.columns))
        )
        whole = F.pad(alpha.flatten(0, 1), (left, right, top, bottom))
        coarse = F.avg_pool2d(whole, cell, ceil_mode=True, count_include_pad=False)
        coarse = F.avg_pool2d(coarse, 3, 1, 1)
        dx, dy = (int(v) for v in draw.index(7, (2,)) - 3)
        coarse = F.pad(coarse, (3 + dx, 3 - dx, 3 + dy, 3 - dy))[:, :, 3:-3, 3:-3]
        strength = float(draw.uniform((), 0.1, 0.8).cpu())
        rest = F.interpolate(1 - coarse * strength, whole.shape[-2:], mode="bilinear", align_corners=False)
        around.of(light).mul_(rest.unflatten(0, alpha.shape[:2]))
