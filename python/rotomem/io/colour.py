"""From a plate's own colours to what a network was trained on: sRGB-encoded Rec.709 in 0..1.

`decide_colour` settles once per shot which space the plate is in and says so in one sentence; `NetworkColour` applies
the same transform to every frame. Mattes are data and never pass through here.

The input space is, in this order: what the user says; what the files say (colorInteropID, oiio:ColorSpace,
chromaticities, movie tags); the OCIO config's file rules; its role scene_linear. The config is the one asked for,
else $OCIO, else OpenColorIO's built-in one. Only PyOpenColorIO is used: OpenImageIO carries another OCIO of its own,
with other configs.

A plate's alpha is left alone: RGB goes to the network as stored, premultiplied where the file is. A premultiplied
plate over black is a picture as a viewer shows it, and what networks were trained on; divided by alpha, faint edges
would become noise at full strength, and light without alpha (fire, flares) infinite.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import PyOpenColorIO as ocio
from numpy.typing import NDArray

from rotomem.errors import ColourError, ShapeError, UsageError
from rotomem.io.plate import PlateInfo

TRANSFORMS = ("encode", "view", "none")
BUILTIN_CONFIG = "ocio://default"
CAMERA_CONFIG = "ocio://studio-config-latest"
"""Looked into for a space that the user names and the small built-in config lacks: it knows the cameras."""

KNEE = 0.8
"""Encoded values up to here pass the shoulder unchanged; whatever is brighter is bent to stay below 1."""

_FAILED = (ocio.Exception, ocio.ExceptionMissingFile)
_LINEAR_709 = ("lin_rec709_scene", "lin_rec709", "lin_srgb", "Linear Rec.709 (sRGB)", "Utility - Linear - sRGB")
_SRGB = frozenset({"srgb_rec709_scene", "srgb_rec709_display"})
_SRGB_NAMES = (
    "srgb_rec709_scene",
    "srgb_texture",
    "srgb_tx",
    "sRGB - Texture",
    "Utility - sRGB - Texture",
    "sRGB",
    "texture_paint",
    "matte_paint",
)

# Linear spaces by their primaries: x, y of red, green, blue and white.
_PRIMARIES = {
    "lin_rec709_scene": (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290),
    "lin_ap0_scene": (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767),
    "lin_ap1_scene": (0.713, 0.293, 0.165, 0.83, 0.128, 0.044, 0.32168, 0.33767),
    "lin_p3d65_scene": (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290),
    "lin_rec2020_scene": (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290),
    "lin_adobergb_scene": (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, 0.3127, 0.3290),
}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D65 = (0.3127, 0.3290)

# Names that files use for a space, and what configs may call it.
_SYNONYMS = {
    "srgb": ("srgb_rec709_scene", "srgb_texture", "sRGB - Texture", "sRGB"),
    "linear": _LINEAR_709,
    "scene_linear": ("scene_linear",),
    "rec709": ("g24_rec709_display", "g24_rec709_scene", "rec709_display", "Rec.1886 Rec.709 - Display"),
    "acescg": ("lin_ap1_scene", "ACEScg"),
    "aces2065-1": ("lin_ap0_scene", "ACES2065-1"),
    "aces": ("lin_ap0_scene", "ACES2065-1"),
}
_CINEON = "Cineon log"
_LARGEST = 65504.0  # of a half: nothing in a picture is brighter, and the square of it is still finite


@dataclass(frozen=True)
class TamedPixels:
    """Pixels that could not go to a network as they were: how many had a NaN, an infinity, a negative channel."""

    nan: int = 0
    inf: int = 0
    negative: int = 0

    def __add__(self, other: TamedPixels) -> TamedPixels:
        return TamedPixels(self.nan + other.nan, self.inf + other.inf, self.negative + other.negative)

    def __bool__(self) -> bool:
        return bool(self.nan or self.inf or self.negative)

    def __str__(self) -> str:
        return f"{self.nan} NaN, {self.inf} infinite, {self.negative} negative pixels"


@dataclass(frozen=True)
class ColourDecision:
    """How a plate is shown to the network; settled once, the same for every frame.

    input_space   the space the plate is taken to be in, by the config's name for it
    source        who said so: "flag", "file metadata", "file rule", "role"
    why           the same in words
    config        file, URI or name of the OCIO config
    linear        the plate's values are proportional to light: it may be resized before `apply`
    shoulder      highlights are bent below 1 (not for pictures that are display-referred already)
    primaries     chromaticities of a linear space that the config does not know, else None
    """

    input_space: str
    source: str
    why: str
    config: str
    config_id: str
    transform: str
    exposure: float
    display: str | None = None
    view: str | None = None
    linear: bool = True
    shoulder: bool = True
    identity: bool = False
    primaries: tuple[float, ...] | None = None
    doubt: str = ""

    @property
    def sentence(self) -> str:
        """What the user is told, once a run."""
        if self.transform == "none":
            return "Colour: the plate's own values go to the network unchanged, cut to 0..1 (--transform none)."
        if self.transform == "view":
            how = f"shown through {self.display} / {self.view}"
        elif self.identity:
            how = "shown to the network as it is"
        else:
            how = "sRGB-encoded in Rec.709 for the network"
            if self.shoulder:
                how += " with a soft shoulder"
        if self.exposure:
            how += f" at {self.exposure:+g} stops"
        text = f"Colour: the plate is {self.input_space} ({self.why}), {how}; OCIO config {self.config}."
        return f"{text} {self.doubt}".rstrip()

    def as_metadata(self) -> dict[str, str]:
        """The decision as string attributes for the mattes made under it."""
        found = {
            "rotomem/inputSpace": self.input_space,
            "rotomem/inputSpaceFrom": self.source,
            "rotomem/transform": self.transform,
            "rotomem/exposure": f"{self.exposure:g}",
            "rotomem/ocioConfig": self.config,
            "rotomem/ocioConfigId": self.config_id,
        }
        if self.transform == "view":
            found["rotomem/display"] = self.display or ""
            found["rotomem/view"] = self.view or ""
        return found


def decide_colour(
    info: PlateInfo,
    *,
    input_space: str | None = None,
    transform: str = "encode",
    exposure: float = 0.0,
    display: str | None = None,
    view: str | None = None,
    config: str | os.PathLike[str] | None = None,
) -> ColourDecision:
    """Settle how a plate is shown to the network.

    input_space   a colour space, role or alias of the config; None: ask the files, then the config
    transform     "encode" (sRGB-encoded Rec.709 with a soft shoulder), "view" (a display and view of the config),
                  "none" (values as they are, cut to 0..1)
    exposure      stops, applied in scene-linear light
    display, view   for "view"; None: the config's defaults
    config        a config file or ocio:// URI; None: $OCIO, else the built-in one

    Raises ColourError for a config that cannot be read and for names it does not have, UsageError for options that
    contradict each other.
    """
    if transform not in TRANSFORMS:
        raise UsageError(f"there is no transform '{transform}'", remedy=f"use {', '.join(TRANSFORMS)}")
    if not np.isfinite(exposure) or abs(exposure) > 32:
        raise UsageError(f"an exposure of {exposure} stops is not meant", remedy="give a number between -32 and 32")
    if transform != "view" and (display is not None or view is not None):
        raise UsageError("a display or view is only used by the transform 'view'", remedy="add --transform view")
    if transform == "none" and exposure:
        raise UsageError("the transform 'none' has no exposure", remedy="use --transform encode")
    name, cfg, builtin = _load(config)
    space: str | None
    primaries: tuple[float, ...] | None = None
    doubt = ""
    if input_space is not None:
        space = _find(cfg, input_space)
        source, why = "flag", "as asked for"
        if space is None and input_space.lower().replace("_", " ") in ("cineon", "cineon log", "kodaklog"):
            space = _CINEON
        if space is None and builtin:
            _, cameras, _ = _load(CAMERA_CONFIG)
            space = _find(cameras, input_space)
            if space is not None:
                name, cfg = CAMERA_CONFIG, cameras
                why = f"as asked for; {BUILTIN_CONFIG} does not have it, so {CAMERA_CONFIG} is used"
        if space is None:
            known = _space_names(cfg) + (_space_names(cameras) if builtin else [])
            raise _unknown("colour space", input_space, list(dict.fromkeys(known)), name)
    else:
        space, source, why, primaries, doubt = _from_plate(info, cfg, builtin)
    shown_display, shown_view = (None, None)
    if transform == "view":
        shown_display, shown_view = _display_view(cfg, name, display, view)
    encoding = _encoding(cfg, space, primaries)
    interop = _interop(cfg, space)
    identity = transform == "encode" and exposure == 0 and interop in _SRGB
    decision = ColourDecision(
        input_space=space,
        source=source,
        why=why,
        config=name,
        config_id=str(cfg.getCacheID())[:16],
        transform=transform,
        exposure=float(exposure),
        display=shown_display,
        view=shown_view,
        linear=encoding in ("scene-linear", "display-linear"),
        shoulder=transform == "encode" and (encoding != "sdr-video" or exposure > 0),
        identity=identity,
        primaries=primaries,
        doubt=doubt,
    )
    NetworkColour(decision)  # a missing LUT shows here and not on the first frame
    return decision


class NetworkColour:
    """Applies a decision to pictures. Safe to use from several threads.

    `apply` takes a picture in the plate's own encoding. A picture that is resized first should be resized in linear
    light: where `linear_input` says so the plate is linear already; otherwise resize what `to_linear` gives and
    finish with `encode`, or accept that a display-referred picture resized as it is differs little.
    """

    def __init__(self, decision: ColourDecision) -> None:
        self.decision = decision
        self._threads = max(1, min(4, os.cpu_count() or 1))
        self._pool: ThreadPoolExecutor | None = None
        self._whole: Any = None
        self._first: Any = None
        self._second: Any = None
        if decision.transform == "none":
            return
        try:
            _, cfg, _ = _load(decision.config)
            first = _to_linear(cfg, decision)
            second = _from_linear(cfg, decision)
            self._first = _cpu(cfg, first)
            self._second = _cpu(cfg, second)
            if not decision.identity:
                self._whole = _cpu(cfg, [*first, *second])
        except _FAILED as e:
            raise ColourError(
                f"the colour transform cannot be made: {_reason(e)}",
                remedy="check the config, or name another space with --input-space",
                input=decision.input_space,
                config=decision.config,
            ) from None

    @property
    def linear_input(self) -> bool:
        """Whether the plate's own values are linear light, so that a plate may be resized before `apply`."""
        return self.decision.linear

    def apply(self, rgb: NDArray[np.generic]) -> tuple[NDArray[np.float32], TamedPixels]:
        """A picture for the network.

        rgb       [H, W, 3] in the plate's encoding, float (integers already scaled to 0..1); not changed
        returns   float32 [H, W, 3] in 0..1, finite; and what had to be tamed: NaN becomes 0, infinity the largest
                  half, negatives 0
        Raises ShapeError for another shape.
        """
        clean, tamed = self._clean(rgb)
        return self._run(self._whole, clean, finish=True), tamed

    def to_linear(self, rgb: NDArray[np.generic]) -> tuple[NDArray[np.float32], TamedPixels]:
        """Plate encoding to scene-linear light, where pictures may be resized: [H, W, 3] float32, and what was tamed.

        The primaries are Rec.709 for the transform "encode", those of the role scene_linear for "view".
        """
        clean, tamed = self._clean(rgb)
        return self._run(self._first, clean, finish=False), tamed

    def encode(self, linear: NDArray[np.generic]) -> NDArray[np.float32]:
        """What `to_linear` gave, for the network: float32 [H, W, 3] in 0..1."""
        return self._run(self._second, _own(linear), finish=True)

    def close(self) -> None:
        """Stop the threads. The object may be used again."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _clean(self, rgb: NDArray[np.generic]) -> tuple[NDArray[np.float32], TamedPixels]:
        if np.issubdtype(rgb.dtype, np.integer):
            raise ShapeError(f"expected a float picture, got {rgb.dtype}", remedy="scale integers to 0..1 first")
        own = _own(rgb)
        return own, _tame(own)

    def _run(self, processor: Any, pixels: NDArray[np.float32], finish: bool) -> NDArray[np.float32]:
        """Apply in place, rows shared among threads. OCIO works on RGB only: a NaN would spread to an alpha."""
        height, width = pixels.shape[:2]
        stripes = max(1, min(height * width // 32768, height))
        edges = [height * i // stripes for i in range(stripes + 1)]

        def stripe(i: int) -> None:
            rows = pixels[edges[i] : edges[i + 1]]
            if processor is not None:
                processor.apply(ocio.PackedImageDesc(rows, width, rows.shape[0], 3))
            if finish:
                self._finish(rows)

        if height == 0 or width == 0:
            return pixels
        try:
            if stripes == 1:
                stripe(0)
            else:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="rotomem-colour")
                list(self._pool.map(stripe, range(stripes)))
        except _FAILED as e:
            raise ColourError(f"the colour transform failed: {_reason(e)}", config=self.decision.config) from None
        return pixels

    def _finish(self, pixels: NDArray[np.float32]) -> None:
        if self.decision.shoulder:
            shoulder(pixels)
        # fmax, fmin: a NaN that a config makes out of odd values becomes 0, not a hole in the memory
        np.fmax(pixels, 0, out=pixels)
        np.fmin(pixels, 1, out=pixels)


def shoulder(encoded: NDArray[np.float32], knee: float = KNEE) -> NDArray[np.float32]:
    """Bend what is brighter than `knee` so that it stays below 1, in place; value and slope are continuous there.

    y = knee + (1 - knee) * t / (1 + t) with t = (x - knee) / (1 - knee). A hyperbola, and not a cut: a lamp in front
    of a bright sky still has an edge (encoded 1 becomes 0.9, 1.8 becomes 0.97, 3.3 becomes 0.985).
    """
    excess = np.maximum(encoded - np.float32(knee), 0)
    if encoded.size == 0 or not excess.max() > 0:
        return encoded
    room = np.float32(1 - knee)
    bent = excess + room
    np.divide(excess, bent, out=bent)
    bent *= room
    np.minimum(encoded, np.float32(knee), out=encoded)
    encoded += bent
    return encoded


def tame(rgb: NDArray[np.generic]) -> tuple[NDArray[np.generic], TamedPixels]:
    """Make a plate's pixels harmless before they are resized, when one NaN would spread to its neighbours.

    rgb       [H, W, C] of any type
    returns   the same array where nothing was wrong (the usual case costs one pass over the bits), else a copy in
              which NaN is 0, infinity the type's largest value (half: 65504) and negatives 0; and the count
    """
    if not np.issubdtype(rgb.dtype, np.floating) or _harmless(rgb):
        return rgb, TamedPixels()
    whole = _interleaved(rgb)
    own = np.array(rgb if whole is None else whole, order="C")
    tamed = _tame(own)
    return own[:, :, : rgb.shape[2]], tamed


def _own(rgb: NDArray[np.generic]) -> NDArray[np.float32]:
    """A float32 copy that OCIO may overwrite: it writes even into arrays marked read-only."""
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ShapeError(f"expected a picture [H, W, 3], got {list(rgb.shape)}")
    return np.array(rgb, dtype=np.float32, order="C")


def _harmless(rgb: NDArray[np.generic]) -> bool:
    """Whether all values are finite and not negative. Looks at the bits: half has no fast comparisons."""
    if (whole := _interleaved(rgb)) is not None and _harmless(whole):
        return True
    if rgb.dtype == np.float16:
        bits, limit = rgb.view(np.uint16), 0x7C00
    elif rgb.dtype == np.float32:
        bits, limit = rgb.view(np.uint32), 0x7F800000
    else:
        return bool(np.isfinite(rgb).all() and (rgb >= 0).all())  # type: ignore[call-overload,operator]
    return rgb.size == 0 or int(bits.max()) < limit


def _tame(own: NDArray[Any]) -> TamedPixels:
    """Tame a contiguous array in place and count pixels; three channels at most are looked at."""
    if _harmless(own):
        return TamedPixels()
    if own.dtype not in (np.float16, np.float32):
        counts = [_count(m) for m in (np.isnan(own), np.isinf(own), (own < 0) & np.isfinite(own))]
        own[np.isnan(own)] = 0
        np.clip(own, 0, _LARGEST, out=own)
        return TamedPixels(*counts)
    # As signed integers of the same bits, floats keep their order and negatives stay negative, and integers are
    # compared many times faster than halves: grain in the blacks makes this a usual case, not a rare one.
    bits: NDArray[Any] = own.view(np.int16 if own.dtype == np.float16 else np.int32)
    infinite = int(np.array(np.inf, own.dtype).view(bits.dtype))
    zero = int(np.array(-0.0, own.dtype).view(bits.dtype))
    nans = infs = 0
    if int(bits.max()) >= infinite or int(np.where(bits < 0, bits, zero).max()) >= zero + infinite:
        magnitude = bits & ~zero
        nan, inf = magnitude > infinite, magnitude == infinite
        nans, infs = _count(nan), _count(inf)
        bits[nan] = 0
        bits[inf & (bits > 0)] = int(np.array(_LARGEST, own.dtype).view(bits.dtype))
        bits[inf & (bits < 0)] = 0
    negatives = _count((bits < 0) & (bits != zero))
    np.maximum(bits, 0, out=bits)
    return TamedPixels(nans, infs, negatives)


def _count(marks: NDArray[np.bool_]) -> int:
    """Pixels with a mark in one of their first three channels."""
    found = marks[:, :, 0]
    for c in range(1, min(marks.shape[2], 3)):
        found = found | marks[:, :, c]
    return int(np.count_nonzero(found))


def _interleaved(rgb: NDArray[np.generic]) -> NDArray[np.generic] | None:
    """The RGBA buffer that `rgb` is the first three channels of, if it is one: whole buffers go far faster."""
    whole: Any = rgb.base
    if (
        isinstance(whole, np.ndarray)
        and whole.flags.c_contiguous
        and whole.dtype == rgb.dtype
        and whole.ndim == 3
        and rgb.shape == (*whole.shape[:2], 3)
        and whole.shape[2] == 4
        and rgb.ctypes.data == whole.ctypes.data
    ):
        return whole
    return None


# Configs --------------------------------------------------------------------------------------------------


def _load(config: str | os.PathLike[str] | None) -> tuple[str, Any, bool]:
    """Name, config, and whether it is the small built-in one that nobody chose."""
    chosen = os.fspath(config) if config is not None else ""
    if not chosen:
        chosen = os.environ.get("OCIO", "").strip()
    builtin = not chosen
    chosen = chosen or BUILTIN_CONFIG
    try:
        cfg = ocio.Config.CreateFromFile(chosen)
    except _FAILED as e:
        raise ColourError(
            f"the OCIO config cannot be read: {_reason(e)}",
            path=chosen,
            remedy="check $OCIO or --ocio-config" if not builtin else None,
        ) from None
    return chosen, cfg, builtin or chosen == BUILTIN_CONFIG


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _space_names(cfg: Any) -> list[str]:
    return [str(n) for n in cfg.getColorSpaceNames(ocio.SEARCH_REFERENCE_SPACE_ALL, ocio.COLORSPACE_ALL)]


def _find(cfg: Any, name: str) -> str | None:
    """A space by name, role, alias or interop id, as the config itself calls it; None where it has none."""
    try:
        space = cfg.getColorSpace(name)
    except _FAILED:
        space = None
    if space is None:
        for candidate in _space_names(cfg):
            found = cfg.getColorSpace(candidate)
            if found is not None and hasattr(found, "getInteropID") and found.getInteropID().lower() == name.lower():
                space = found
                break
    return str(space.getName()) if space is not None else None


def _find_any(cfg: Any, names: tuple[str, ...]) -> str | None:
    return next((s for s in (_find(cfg, n) for n in names) if s is not None), None)


def _unknown(what: str, name: str, known: list[str], config: str) -> ColourError:
    low = {n.lower(): n for n in known}
    near = [low[n] for n in difflib.get_close_matches(name.lower(), list(low), 3, 0.4)]
    near += [n for n in known if name.lower() in n.lower() and n not in near][: 3 - len(near)]
    listing = ", ".join(near or known[:6])
    return ColourError(
        f"the OCIO config has no {what} '{name}'",
        config=config,
        remedy=f"did you mean {listing}?" if listing else None,
    )


def _is_data(cfg: Any, space: str) -> bool:
    found = cfg.getColorSpace(space)
    return found is not None and bool(found.isData())


def _encoding(cfg: Any, space: str, primaries: object) -> str:
    """OCIO's encoding of a space ("scene-linear", "log", "sdr-video", ...); guessed where the config does not say."""
    if primaries is not None:
        return "scene-linear"
    if space == _CINEON:
        return "log"
    found = cfg.getColorSpace(space)
    encoding = str(found.getEncoding() or "") if found is not None else ""
    if encoding:
        return encoding
    try:
        if cfg.isColorSpaceLinear(space, ocio.REFERENCE_SPACE_SCENE):
            return "scene-linear"
    except (AttributeError, *_FAILED):
        pass
    low = space.lower()
    if "lin" in low or ("aces" in low and "cc" not in low):
        return "scene-linear"
    return "log" if "log" in low else "sdr-video" if "srgb" in low or "rec.709" in low or "rec709" in low else ""


def _interop(cfg: Any, space: str) -> str:
    found = cfg.getColorSpace(space)
    if found is None:
        return ""
    if hasattr(found, "getInteropID") and found.getInteropID():
        return str(found.getInteropID()).lower()
    names = {str(a).lower() for a in found.getAliases()}
    return next((i for i in sorted(_SRGB) if i in names), "")


def _display_view(cfg: Any, name: str, display: str | None, view: str | None) -> tuple[str, str]:
    displays = [str(d) for d in cfg.getDisplays()]
    if not displays:
        raise ColourError("the OCIO config has no displays", config=name, remedy="use --transform encode")
    chosen = display or str(cfg.getDefaultDisplay())
    matching = [d for d in displays if d.lower() == chosen.lower()]
    if not matching:
        raise _unknown("display", chosen, displays, name)
    views = [str(v) for v in cfg.getViews(matching[0])]
    wanted = view or str(cfg.getDefaultView(matching[0]))
    fitting = [v for v in views if v.lower() == wanted.lower()]
    if not fitting:
        raise _unknown(f"view for the display {matching[0]}", wanted, views, name)
    return matching[0], fitting[0]


# Which space a plate is in --------------------------------------------------------------------------------


def _from_plate(info: PlateInfo, cfg: Any, builtin: bool) -> tuple[str, str, str, tuple[float, ...] | None, str]:
    """Space, source, words, primaries and doubt, where the user named none."""
    hints = info.colour_hints
    unknown: list[str] = []
    data = ""
    for key in ("colorInteropID", "oiio:ColorSpace"):
        said = hints.get(key)
        if not isinstance(said, str) or said.lower() in ("", "unknown", "none"):
            continue
        if said.lower() in ("kodaklog", "cineon"):
            return (_find_any(cfg, ("Cineon", "cineon_log")) or _CINEON), "file metadata", f"its {key}", None, ""
        space = _find(cfg, said) or _find_any(cfg, _SYNONYMS.get(said.lower(), ()))
        if said.lower() in ("data", "raw") or (space is not None and _is_data(cfg, space)):
            data = f"The files are tagged '{said}' ({key}): no colours, so the tag says no space and was not used."
            data += " If they are to be shown as they are, use --transform none."
        elif space is not None:
            return space, "file metadata", f"its {key}", None, data
        elif said not in unknown:
            unknown.append(said)
    doubt = f"The files also say {' and '.join(unknown)}, which this config does not know." if unknown else ""
    doubt = f"{doubt} {data}".strip()
    if "log" in str(hints.get("dpx:Transfer", "")).lower():
        return _CINEON, "file metadata", "its transfer is logarithmic", None, doubt
    chromaticities = hints.get("chromaticities")
    floats = info.pixel_type in ("half", "float", "uint")
    if isinstance(chromaticities, (tuple, list)) and len(chromaticities) == 8 and floats:
        values = tuple(float(v) for v in chromaticities)
        for interop, known in _PRIMARIES.items():
            if all(abs(a - b) < 2e-3 for a, b in zip(values, known, strict=True)):
                space = _find(cfg, interop)
                if space is not None:
                    return space, "file metadata", "its chromaticities", None, doubt
                return interop, "file metadata", "its chromaticities", values, doubt
        if _matrix_to_709(values) is not None:
            return "linear", "file metadata", "primaries of its chromaticities", values, doubt
        doubt = f"{doubt} Its chromaticities make no sense and are not used.".strip()
    tagged = _from_tags(hints, cfg)
    if tagged is not None:
        return tagged, "file metadata", "its colour tags", None, doubt
    return _from_rules(info, cfg, builtin, floats, doubt)


def _from_tags(hints: Mapping[str, object], cfg: Any) -> str | None:
    """A movie's tags, where they say more than that it is ordinary video (which the file rules know better)."""
    transfer, primaries = hints.get("movie:transfer"), hints.get("movie:primaries")
    wide = primaries == "bt2020"
    p3 = primaries in ("dci-p3", "display-p3")
    if transfer == "pq":
        return _find_any(cfg, ("pq_p3d65_display",) if p3 else ("pq_rec2020_display",))
    if transfer == "hlg":
        return _find_any(cfg, ("hlg_rec2020_display",))
    if transfer == "linear":
        return _find_any(cfg, ("lin_rec2020_scene",) if wide else ("lin_p3d65_scene",) if p3 else _LINEAR_709)
    if transfer == "srgb":
        return _find_any(
            cfg, ("srgb_p3d65_display", "srgb_p3d65_scene") if p3 else ("srgb_rec709_display", *_SRGB_NAMES)
        )
    return None


def _from_rules(
    info: PlateInfo, cfg: Any, builtin: bool, floats: bool, doubt: str
) -> tuple[str, str, str, None, str]:
    path = info.first_file or info.path
    if not os.path.splitext(path)[1]:
        path = f"{path}.{info.kind}"
    role = _find(cfg, "scene_linear")
    only_default = True
    ruled: str | None = None
    try:
        name, _ = cfg.getColorSpaceFromFilepath(path)
        ruled = _find(cfg, str(name)) if name else None
        only_default = bool(cfg.filepathOnlyMatchesDefaultRule(path))
    except (AttributeError, *_FAILED):
        pass
    suffix = os.path.splitext(path)[1].lower()
    if info.kind == "movie" and only_default and builtin:
        # The built-in rule knows mp4, mov and mxf; other movie files hold the same kind of picture.
        movie = _find(cfg, "g24_rec709_display")
        if movie is not None:
            return movie, "file rule", "the config's rule for movies", None, doubt
    if ruled is not None and not _is_data(cfg, ruled) and not (only_default and floats and role is not None):
        rule = "default file rule" if only_default else f"file rule for {suffix}"
        if builtin and suffix == ".exr":
            doubt = f"If it is ACEScg or another space, say so with --input-space or set $OCIO. {doubt}".strip()
        return ruled, "file rule", f"the config's {rule}", None, doubt
    if not floats:
        srgb = _find_any(cfg, _SRGB_NAMES)
        if srgb is not None:
            return srgb, "role", "integer pixels, and no file rule says otherwise", None, doubt
    if role is not None:
        return role, "role", "the config's role scene_linear", None, doubt
    if ruled is not None and not _is_data(cfg, ruled):
        return ruled, "file rule", "the config's default file rule", None, doubt
    raise ColourError(
        "nothing says which colour space the plate is in: no metadata, no file rule, no role scene_linear",
        path=info.path,
        remedy="name it with --input-space",
    )


# Transforms -----------------------------------------------------------------------------------------------


def _cpu(cfg: Any, transforms: list[Any]) -> Any:
    if not transforms:
        return None
    group = ocio.GroupTransform()
    for t in transforms:
        group.appendTransform(t)
    processor = cfg.getProcessor(group)
    return None if processor.isNoOp() else processor.getDefaultCPUProcessor()


def _to_linear(cfg: Any, decision: ColourDecision) -> list[Any]:
    """Plate encoding to linear Rec.709, or for a view to the role scene_linear."""
    return [*_sane_log(cfg, decision), *_across(cfg, decision)]


def _sane_log(cfg: Any, decision: ColourDecision) -> list[Any]:
    """Keeps absurd code values of a log plate from overflowing to NaN, which would show as black."""
    if _encoding(cfg, decision.input_space, decision.primaries) != "log":
        return []
    bound = ocio.RangeTransform()
    bound.setMaxInValue(4.0)
    bound.setMaxOutValue(4.0)
    return [bound]


def _across(cfg: Any, decision: ColourDecision) -> list[Any]:
    own = _linear_name(cfg, decision)
    if decision.primaries is not None or decision.input_space == _CINEON:
        if decision.primaries is not None:
            matrix = _matrix_to_709(decision.primaries)
            assert matrix is not None
            first = _matrix_transform(matrix)
        else:
            # Kodak's printing density: code 685 of 1023 is white, 95 black, 300 codes a decade.
            black = 10 ** ((95 - 685) / 300)
            first = ocio.LogAffineTransform(
                logSideSlope=[300 / 1023 * np.log10(2)] * 3,  # the transform's logarithm has base 2
                logSideOffset=[685 / 1023] * 3,
                linSideSlope=[1 - black] * 3,
                linSideOffset=[black] * 3,
                direction=ocio.TRANSFORM_DIR_INVERSE,
            )
        if decision.transform == "encode":
            return [first]
        here = _find_any(cfg, _LINEAR_709)
        if here is None or own is None:
            raise ColourError(
                "the config has no linear Rec.709 space to bring this plate into",
                config=decision.config,
                remedy="use --transform encode, or name the plate's space with --input-space",
            )
        return [first, ocio.ColorSpaceTransform(src=here, dst=own)]
    if own is not None:
        return [ocio.ColorSpaceTransform(src=decision.input_space, dst=own)]
    if decision.transform == "view":
        return []  # no scene_linear: the view takes the plate's own space
    # The config has no linear Rec.709: go through the space that both it and the built-in config interchange.
    _, standard, _ = _load(BUILTIN_CONFIG)
    try:
        across = ocio.Config.GetProcessorFromConfigs(cfg, decision.input_space, standard, "lin_rec709_scene")
    except _FAILED as e:
        raise ColourError(
            f"the config has no linear Rec.709 space, and no way to one: {_reason(e)}",
            config=decision.config,
            remedy="give the config the role aces_interchange, or use --transform view",
        ) from None
    return [across.createGroupTransform()]


def _linear_name(cfg: Any, decision: ColourDecision) -> str | None:
    if decision.transform == "view":
        return _find(cfg, "scene_linear")
    return _find_any(cfg, _LINEAR_709)


def _from_linear(cfg: Any, decision: ColourDecision) -> list[Any]:
    gain = 2.0**decision.exposure
    exposed = [_matrix_transform(np.eye(3) * gain)] if decision.exposure else []
    if decision.transform == "view":
        linear = _linear_name(cfg, decision)
        if linear is None and decision.exposure:
            raise ColourError(
                "exposure needs the role scene_linear, which the config lacks",
                config=decision.config,
                remedy="leave --exposure out, or use --transform encode",
            )
        shown = ocio.DisplayViewTransform(
            src=linear or decision.input_space, display=decision.display, view=decision.view
        )
        return [*exposed, shown]
    bounds = ocio.RangeTransform(0.0, _LARGEST, 0.0, _LARGEST)
    curve = ocio.ExponentWithLinearTransform(
        gamma=[2.4, 2.4, 2.4, 1.0], offset=[0.055, 0.055, 0.055, 0.0], direction=ocio.TRANSFORM_DIR_INVERSE
    )
    return [*exposed, bounds, curve]


def _matrix_transform(matrix: NDArray[np.float64]) -> Any:
    full = np.eye(4)
    full[:3, :3] = matrix
    return ocio.MatrixTransform(matrix=full.reshape(-1).tolist())


def _matrix_to_709(primaries: tuple[float, ...]) -> NDArray[np.float64] | None:
    """RGB of these primaries to linear Rec.709, white to white (Bradford); None where they span no colour space."""
    source = _rgb_to_xyz(primaries)
    target = _rgb_to_xyz(_PRIMARIES["lin_rec709_scene"])
    if source is None or target is None:
        return None
    there = _BRADFORD @ _white(primaries[6:8])
    here = _BRADFORD @ _white(_D65)
    if np.any(np.abs(there) < 1e-6):
        return None
    adapt = np.linalg.inv(_BRADFORD) @ np.diag(here / there) @ _BRADFORD
    matrix: NDArray[np.float64] = np.linalg.inv(target) @ adapt @ source
    return matrix if np.isfinite(matrix).all() else None


def _rgb_to_xyz(primaries: tuple[float, ...]) -> NDArray[np.float64] | None:
    """RGB to XYZ with white at Y = 1 (SMPTE RP 177)."""
    xy = np.array(primaries, dtype=np.float64).reshape(4, 2)
    if not np.isfinite(xy).all() or abs(xy[3, 1]) < 1e-6:
        return None
    columns = np.stack([xy[:3, 0], xy[:3, 1], 1 - xy[:3, 0] - xy[:3, 1]])
    if abs(np.linalg.det(columns)) < 1e-6:
        return None
    scale = np.linalg.solve(columns, _white(tuple(xy[3])))
    if np.any(np.abs(scale) < 1e-9):
        return None
    result: NDArray[np.float64] = columns * scale
    return result


def _white(xy: tuple[float, ...]) -> NDArray[np.float64]:
    x, y = xy
    return np.array([x / y, 1.0, (1 - x - y) / y])
