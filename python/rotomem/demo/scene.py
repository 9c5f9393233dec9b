"""The demo shot: a balloon and a kite over a forest at sunrise, seen past a birch by a camera that trucks right.

Scene-linear ACEScg with an open shutter, grain, glare and a vignette; the true matte of each subject is the share of
samples (time and place in the pixel) that see it, so it is fractional along moving edges and counts what stands in
front. NumPy makes it all; the same settings give the same pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from rotomem.demo import landscape
from rotomem.demo.landscape import Layer
from rotomem.demo.noise import Image, gaussian_blur
from rotomem.demo.subjects import Balloon, Kite, Subject
from rotomem.errors import OutputError, UsageError

REC709_TO_ACESCG = np.array(
    ((0.613097, 0.339523, 0.047380), (0.070194, 0.916354, 0.013452), (0.020616, 0.109570, 0.869815)), np.float32
)
"""Linear Rec.709 (D65) to ACEScg (AP1, D60), Bradford adaptation."""

ACESCG_TO_REC709 = np.linalg.inv(REC709_TO_ACESCG.astype(np.float64)).astype(np.float32)

FRAMES = 24
FIRST_FRAME = 1001
FPS = 24
EXPOSURE = 0.64


@dataclass(frozen=True)
class SceneSettings:
    """What can be asked of the shot.

    width, height   of the picture; the composition is made for 16 : 9
    frames          how many; motion keeps its speed, so a longer shot goes further
    seed            changes clouds, trees and grain
    shutter         share of the frame interval it is open
    samples         instants averaged per frame
    """

    width: int = 960
    height: int = 540
    frames: int = FRAMES
    first_frame: int = FIRST_FRAME
    seed: int = 7
    shutter: float = 0.5
    samples: int = 8

    def __post_init__(self) -> None:
        if self.width < 64 or self.height < 36 or self.samples < 1 or self.frames < 1:
            raise UsageError(
                f"a demo shot of {self.frames} frames, {self.width}x{self.height}, {self.samples} samples",
                remedy="ask for at least one frame, 64x36 pixels and one sample",
            )


@dataclass(frozen=True)
class SceneFrame:
    """One rendered frame.

    rgb      [H, W, 3] float32, scene-linear ACEScg
    mattes   name -> [H, W] float32 coverage 0..1, what is seen of each subject
    whole    name -> [H, W] float32 coverage before anything stood in front of it
    """

    frame: int
    rgb: NDArray[np.float32]
    mattes: dict[str, NDArray[np.float32]]
    whole: dict[str, NDArray[np.float32]]


class Scene:
    """The painted world, ready to be looked at at any time. Rendering is thread safe."""

    def __init__(self, settings: SceneSettings | None = None) -> None:
        self.settings = s = settings or SceneSettings()
        self.scale = scale = s.height / 540
        width = s.width / scale
        rng = np.random.default_rng(s.seed)
        end = float(s.frames)

        def reach(pace: float) -> float:
            return width + 12 + pace * end

        self.subjects: tuple[Subject, ...] = (Balloon(rng), Kite(rng))
        ridge = landscape.paint_ridge
        self._far: tuple[Layer, ...] = (
            landscape.paint_sky(scale, rng, reach(0)),
            ridge(scale, rng, reach(0.4), top=322, relief=24, haze=0.86, jagged=0, bottom=480, pace=0.4),
            ridge(scale, rng, reach(0.8), top=356, relief=19, haze=0.68, jagged=2, bottom=500, pace=0.8),
            ridge(scale, rng, reach(1.6), top=392, relief=16, haze=0.42, jagged=5, bottom=552, pace=1.6),
            landscape.paint_forest(scale, rng, reach(4.0), top=432, pace=4.0),
        )
        self._near = landscape.paint_birch(scale, rng, x=945, pace=36, defocus=4.5)
        y, x = np.mgrid[: s.height, : s.width].astype(np.float32)
        r2 = ((x + 0.5) / s.width - 0.5) ** 2 + ((y + 0.5) / s.height - 0.5) ** 2 * (s.height / s.width) ** 2
        self._vignette = (1 / (1 + 0.55 * r2) ** 2)[..., None].astype(np.float32)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(subject.name for subject in self.subjects)

    def render(self, frame: int) -> SceneFrame:
        """Render one frame by its number."""
        s = self.settings
        h, w = s.height, s.width
        time = float(frame - s.first_frame)
        colour = np.zeros((h, w, 3), np.float32)
        covered = np.zeros((h, w), np.float32)
        mattes = {name: np.zeros((h, w), np.float32) for name in self.names}
        whole = {name: np.zeros((h, w), np.float32) for name in self.names}
        for k in range(s.samples):
            t, dx, dy = self._sample(time, k)
            birch, hidden = landscape.window(self._near, t, dy, (h, w), dx)
            assert hidden is not None
            free = 1 - hidden
            stack, alpha = np.zeros((h, w, 3), np.float32), np.zeros((h, w), np.float32)
            seen: dict[str, Image] = {}
            for subject in self.subjects:
                rows, columns = self._rows_columns(subject, t)
                part = (rows, columns)
                gy, gx = np.mgrid[rows, columns].astype(np.float32)
                if gx.size == 0:
                    continue
                rgb, cover = subject.paint(
                    (gx + np.float32(0.5 - dx)) / self.scale,
                    (gy + np.float32(0.5 - dy)) / self.scale,
                    t,
                    1 / self.scale,
                )
                back = (1 - cover)[..., None]
                stack[part] = stack[part] * back + rgb
                alpha[part] = alpha[part] * back[..., 0] + cover
                for other in seen.values():
                    other[part] *= back[..., 0]
                mine = np.zeros((h, w), np.float32)
                mine[part] = cover
                seen[subject.name] = mine
                whole[subject.name][part] += cover
            for name, visible in seen.items():
                mattes[name] += visible * free
            colour += birch + stack * free[..., None]
            covered += hidden + alpha * free
        n = s.samples
        rgb = colour / n + self._background(time) * (1 - covered / n)[..., None]
        return SceneFrame(
            frame,
            self._lens(rgb, frame),
            {name: np.clip(m / n, 0, 1) for name, m in mattes.items()},
            {name: np.clip(m / n, 0, 1) for name, m in whole.items()},
        )

    def _sample(self, time: float, k: int) -> tuple[float, float, float]:
        """The k-th instant of a frame, and where in the pixel it looks: a low-discrepancy walk, two tents wide."""
        s = self.settings
        t = time + s.shutter * ((k + 0.5) / s.samples - 0.5)
        u, v = (0.5 + 0.754877666 * (k + 1)) % 1, (0.5 + 0.569840291 * (k + 1)) % 1
        sway = 1.1 * np.sin(t / 4.3) + 0.5 * np.sin(t / 1.9 + 1)
        return t, float(0.9 * (u - 0.5)), float(0.9 * (v - 0.5) + sway * self.scale)

    def _background(self, time: float) -> Image:
        """Everything far away moves little while the shutter is open: two instants are enough."""
        h, w = self.settings.height, self.settings.width
        total = np.zeros((h, w, 3), np.float32)
        instants = sorted({0, self.settings.samples - 1})
        for k in instants:
            t, _, dy = self._sample(time, k)
            picture: Image = np.zeros((h, w, 3), np.float32)
            for layer in self._far:
                rgb, alpha = landscape.window(layer, t, dy, (h, w))
                if alpha is None:
                    picture = rgb
                else:
                    top = int(max(np.floor(layer.y0 + dy), 0))
                    picture[top:] = picture[top:] * (1 - alpha[top:, :, None]) + rgb[top:]
            total += picture
        return total / len(instants)

    def _rows_columns(self, subject: Subject, t: float) -> tuple[slice, slice]:
        b, k = subject.box(t), self.scale
        h, w = self.settings.height, self.settings.width
        x0, x1 = max(int(b.x0 * k) - 3, 0), min(int(b.x1 * k) + 4, w)
        y0, y1 = max(int(b.y0 * k) - 4, 0), min(int(b.y1 * k) + 5, h)
        return slice(y0, max(y1, y0)), slice(x0, max(x1, x0))

    def _lens(self, rgb: Image, frame: int) -> NDArray[np.float32]:
        """Glare of bright places, vignette, exposure, grain; then ACEScg."""
        h, w = rgb.shape[:2]
        small = rgb[: h // 4 * 4, : w // 4 * 4].reshape(h // 4, 4, w // 4, 4, 3).mean((1, 3))
        bright = np.clip(small - 1.2, 0, 24)
        glare = 0.055 * gaussian_blur(bright, 2.2 * self.scale) + 0.030 * gaussian_blur(bright, 11 * self.scale)
        yi = np.clip((np.arange(h, dtype=np.float32) - 1.5) / 4, 0, h // 4 - 1.001)
        xi = np.clip((np.arange(w, dtype=np.float32) - 1.5) / 4, 0, w // 4 - 1.001)
        y0, x0 = yi.astype(np.int32), xi.astype(np.int32)
        ty, tx = (yi % 1)[:, None, None], (xi % 1)[None, :, None]
        rows = glare[y0] * (1 - ty) + glare[y0 + 1] * ty
        out = rgb + rows[:, x0] * (1 - tx) + rows[:, x0 + 1] * tx
        out = np.maximum(out, 0) * self._vignette * np.float32(EXPOSURE)
        rng = np.random.default_rng((self.settings.seed, frame))
        grain = rng.standard_normal((h + 1, w + 1, 3), dtype=np.float32)
        grain = 0.6 * grain[1:, 1:] + 0.4 * grain[:-1, 1:] + 0.4 * grain[1:, :-1]
        grain = 0.75 * grain + 0.25 * grain[..., 1:2]
        out = out + grain * np.sqrt(0.00012 * out + 0.0000012)
        aces: NDArray[np.float32] = (out @ REC709_TO_ACESCG.T).astype(np.float32)
        return aces


@dataclass(frozen=True)
class ShotFiles:
    """Where `write_shot` put things; frame numbers are spelled %04d.

    plate    pattern of the plate
    keys     name -> soft matte of the first frame, as an artist would draw it
    truth    name -> pattern of the true mattes
    """

    root: Path
    frames: tuple[int, ...]
    size: tuple[int, int]
    plate: str
    keys: dict[str, Path]
    truth: dict[str, str]

    @property
    def masks(self) -> list[str]:
        """The keys in the spelling of `--mask`."""
        return [f"{name}@{self.frames[0]}={path}" for name, path in self.keys.items()]


def write_shot(
    out: str | Path,
    settings: SceneSettings | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ShotFiles:
    """Render the shot and write it as a studio would find it.

    out        folder; gets plate/balloon_kite.%04d.exr (half, ZIP), keys/<name>.1001.exr and truth/<name>.%04d.exr
    threads    frames rendered at a time; default: the cores, at most 8
    progress   called with (frames done, frames in all), from one thread at a time

    Raises OutputError naming the file that could not be written.
    """
    scene = Scene(settings)
    s = scene.settings
    root = Path(out)
    frames = tuple(range(s.first_frame, s.first_frame + s.frames))
    files = ShotFiles(
        root,
        frames,
        (s.width, s.height),
        str(root / "plate" / "balloon_kite.%04d.exr"),
        {name: root / "keys" / f"{name}.{frames[0]:04d}.exr" for name in scene.names},
        {name: str(root / "truth" / f"{name}.%04d.exr") for name in scene.names},
    )

    def work(frame: int) -> None:
        picture = scene.render(frame)
        count = frame - s.first_frame
        _write_exr(Path(files.plate % frame), picture.rgb, ("R", "G", "B"), count, colour=True)
        for name, matte in picture.mattes.items():
            _write_exr(Path(files.truth[name] % frame), matte[..., None], ("A",), count)
            if frame == frames[0]:
                _write_exr(files.keys[name], matte[..., None], ("A",), count)

    for folder in ("plate", "keys", "truth"):
        try:
            (root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make a folder for the demo: {error.strerror}", remedy="choose another --out", path=root
            ) from error
    with ThreadPoolExecutor(threads or min(os.cpu_count() or 1, 8)) as pool:
        for done, _ in enumerate(pool.map(work, frames), 1):
            if progress:
                progress(done, len(frames))
    return files


def _write_exr(path: Path, pixels: Image, channels: tuple[str, ...], count: int, *, colour: bool = False) -> None:
    h, w = pixels.shape[:2]
    spec = oiio.ImageSpec(w, h, len(channels), oiio.HALF)
    spec.channelnames = channels
    spec.attribute("compression", "zip")
    spec.attribute("FramesPerSecond", oiio.TypeDesc("rational"), (FPS, 1))
    seconds, frame = divmod(count, FPS)
    bcd = ((seconds // 10 << 4 | seconds % 10) << 8) | (frame // 10 << 4 | frame % 10) | (1 << 24)
    spec.attribute("smpte:TimeCode", oiio.TypeDesc("timecode"), (bcd, 0))
    spec.attribute("owner", "rotomem demo, CC0")
    if colour:
        spec.attribute("oiio:ColorSpace", "lin_ap1_scene")
        chromaticities = (0.713, 0.293, 0.165, 0.830, 0.128, 0.044, 0.32168, 0.33767)
        spec.attribute("chromaticities", oiio.TypeDesc("float[8]"), chromaticities)
        spec.attribute("comments", "Rendered from formulas; scene-linear ACEScg.")
    image = oiio.ImageBuf(spec)
    image.set_pixels(spec.roi, np.ascontiguousarray(pixels, np.float32))
    if not image.write(str(path)):
        reason = image.geterror()
        raise OutputError(f"cannot write a demo frame: {reason.strip()}", remedy="choose another --out", path=path)
