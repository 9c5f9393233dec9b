"""Still pictures through OpenImageIO: windows, named channels, metadata. EXR first, and PNG, TIFF, JPEG, DPX.

Everything here trusts nothing of the file: it must be a regular file (a FIFO would block for ever), its windows are
checked before anything is allocated, every None of the library becomes a PlateError that names the file, and pixels
are asked for by channel name and in the channel's own type (OpenImageIO would turn mixed half and uint into float and
destroy ids). `read_header` looks, `read_still` reads; both work on any picture, also by several threads at once.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from rotomem.errors import InputError, MissingFrameError, PlateError
from rotomem.io.timecode import unpack
from rotomem.types import Window

MAX_PIXELS = 1 << 28
"""Pixels a window may have, 16k x 16k: beyond any camera, and below what a broken header asks for."""

MAX_SIDE = 1 << 17
MAX_CHANNELS = 4096
MAX_READ_BYTES = 8 << 30

STILL_SUFFIXES = frozenset(
    ".exr .sxr .png .tif .tiff .jpg .jpeg .dpx .cin .tga .bmp .webp .jp2 .j2k .jxl .hdr .psd .sgi .rgb .iff "  # noqa: SIM905
    ".pnm .ppm .pgm".split()
)

COLOUR_ATTRIBUTES = frozenset(
    {"chromaticities", "whiteLuminance", "adoptedNeutral", "colorInteropID", "renderingTransform", "lookModTransform"}
)
"""Metadata that speaks about R, G and B: a matte file without RGB leaves it out."""

BEAUTY_NAMES = frozenset({"", "rgb", "rgba", "beauty", "main", "color", "colour", "combined", "default", "primary"})
"""Layer and part names that mean the picture itself; all of them are spelled '' in `Channel.layer`."""

_COLOUR_COMPONENTS = {"R": 0, "RED": 0, "G": 1, "GREEN": 1, "B": 2, "BLUE": 2}
_ALPHA_COMPONENTS = frozenset({"A", "ALPHA"})
_GREY_COMPONENTS = frozenset({"Y", "L", "LUMA", "I"})
_BYTES = {"uint8": 1, "uint16": 2, "half": 2, "float": 4, "uint": 4}
_NUMPY: dict[str, type[np.generic]] = {
    "uint8": np.uint8,
    "uint16": np.uint16,
    "half": np.float16,
    "float": np.float32,
    "uint": np.uint32,
}
_OIIO_TYPES = {
    "uint8": oiio.UINT8,
    "uint16": oiio.UINT16,
    "half": oiio.HALF,
    "float": oiio.FLOAT,
    "uint": oiio.UINT32,
}
_TYPE_NAMES = {
    "uint8": "uint8",
    "uint16": "uint16",
    "half": "half",
    "float": "float",
    "uint": "uint",
    "uint32": "uint",
}

# Attributes that describe how the file was stored, or that OpenImageIO made up: not carried to another file.
_NOT_CARRIED = frozenset(
    """compression datawindow displaywindow type name tiles chunkcount acesimagecontainerflag version channels
    lineorder pixelaspectratio multiview xdensity resolutionunit xresolution yresolution orientation iccprofile
    imagedescription software previewimage preview maxsamplesperpixel dwacompressionlevel compressionlevel
    deepimagestate wrapmodes envmap textureformat fovcot planarconfig bitspersample detectedjpeg idmanifest
    worldtondc nclip thumbnail_width thumbnail_height thumbnail_nchannels thumbnail_image""".split()  # noqa: SIM905
)
_NOT_CARRIED_PREFIXES = (
    "oiio:",
    "openexr:",
    "tiff:",
    "png:",
    "jpeg:",
    "dpx:",
    "cineon:",
    "targa:",
    "exif:",
    "iptc:",
    "xmp:",
    "iccprofile:",
    "gps:",
    "photoshop:",
    "cryptomatte/",
    "bmp:",
    "webp:",
    "hdr:",
    "ptex:",
)

_legacy_core = threading.Lock()
_SUBSAMPLED = "Subsampled channels"


@dataclass(frozen=True)
class TypedValue:
    """A metadata value that Python alone would not write back as it was: `type` is OpenImageIO's name for it.

    raw   the library's own copy, since its Python side can read doubles and integer vectors but not make them
    """

    type: str
    value: object
    raw: oiio.ParamValueList | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Channel:
    """One channel of a file.

    name       as the file spells it ("diffuse.R", "right.R", "A")
    layer      '' for the picture itself, else the layer or part name without view ("diffuse")
    component  what follows the last dot ("R", "A", "Z")
    view       the view it belongs to, or None
    type       "half", "float", "uint", "uint8" or "uint16"
    """

    name: str
    layer: str
    component: str
    view: str | None
    type: str
    part: int
    index: int

    @property
    def label(self) -> str:
        """Layer and component, the way `read_still` is asked for it: "diffuse.R", "A"."""
        return f"{self.layer}.{self.component}" if self.layer else self.component


@dataclass(frozen=True)
class Part:
    """One part (EXR), page (TIFF) or the only picture of a file."""

    index: int
    name: str
    view: str | None
    data_window: Window
    display_window: Window
    deep: bool
    tiled: bool
    compression: str | None


@dataclass(frozen=True)
class StillHeader:
    """What the header of a picture says; nothing has been decoded.

    metadata      what a file made from this one carries on
    cryptomatte   the attributes `cryptomatte/...` of all parts, which are never carried on
    """

    path: Path
    format: str
    parts: tuple[Part, ...]
    channels: tuple[Channel, ...]
    views: tuple[str, ...]
    display_window: Window
    pixel_aspect: float
    fps: Fraction | None
    timecode: str | None
    metadata: Mapping[str, object]
    colour_hints: Mapping[str, object]
    subsampled: bool = False
    orientation: int = 1
    cryptomatte: Mapping[str, str] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layer names in file order, 'rgba' for the picture itself."""
        return tuple(dict.fromkeys(c.layer or "rgba" for c in self.channels))

    def pick_view(self, view: str | None) -> str | None:
        """The view to read: `view` if the file has it, the first one where None was asked for."""
        if view is None:
            return self.views[0] if self.views else None
        for known in self.views:
            if known.lower() == view.lower():
                return known
        if not self.views:
            raise PlateError(
                f"the picture has no views, so not '{view}'", path=self.path, remedy="leave the view out"
            )
        raise PlateError(
            f"the picture has no view '{view}', its views are {_shorten(self.views)}",
            path=self.path,
            remedy="name one of them",
        )

    def of_view(self, view: str | None) -> tuple[Channel, ...]:
        """Channels of one view, and those that belong to no view."""
        own = tuple(c for c in self.channels if c.view == view)
        taken = {(c.layer, c.component) for c in own}
        return own + tuple(c for c in self.channels if c.view is None and (c.layer, c.component) not in taken)

    def find(self, name: str, view: str | None = None) -> Channel | None:
        """The channel called `name`: as the file spells it, or as layer.component; None where there is none."""
        view = self.pick_view(view)
        candidates = self.of_view(view)
        for same in (str, str.lower):
            for c in candidates:
                if same(c.label) == same(name) or (c.component and same(c.name) == same(name)):
                    return c
        for c in self.channels:  # another view's channel, asked for by its full name
            if c.name == name:
                return c
        layer, _, component = name.rpartition(".")
        if layer.lower() in BEAUTY_NAMES:
            for c in candidates:
                if c.layer == "" and c.component.lower() == component.lower():
                    return c
        return None


@dataclass(frozen=True)
class Still:
    """Pixels of some channels of a picture, on its data window.

    arrays     channel name as asked for -> [h, w] in the channel's own type; rows of one interleaved buffer where
               the file had them side by side
    metadata   what another file made from this one should carry on (see `write_attributes`)
    """

    header: StillHeader
    data_window: Window
    display_window: Window
    pixel_aspect: float
    channels: tuple[Channel, ...]
    arrays: Mapping[str, NDArray[np.generic]]
    metadata: Mapping[str, object] = field(default_factory=dict)
    interleaved: NDArray[np.generic] | None = None

    def stack(self, names: Sequence[str]) -> NDArray[np.generic]:
        """Channels as one [h, w, C] array; a view where the file's own order allows it, else a copy."""
        asked = list(self.arrays)
        if self.interleaved is not None and all(n in asked for n in names):
            places = [asked.index(n) for n in names]
            if places == list(range(places[0], places[0] + len(places))):
                return self.interleaved[:, :, places[0] : places[0] + len(places)]
        return np.stack([self.arrays[n] for n in names], axis=-1)


def read_header(path: str | Path) -> StillHeader:
    """Look at a picture without decoding it.

    Raises MissingFrameError where there is no such file, PlateError naming the file where it is not a picture that
    can be read, or claims windows beyond `MAX_PIXELS`.
    """
    path = Path(path)
    with _open(path) as (inp, legacy):
        return _header(path, inp, legacy)


def read_still(
    path: str | Path,
    *,
    channels: Sequence[str] | None = None,
    layer: str | None = None,
    view: str | None = None,
    header: StillHeader | None = None,
    select: Callable[[StillHeader], Sequence[Channel]] | None = None,
) -> Still:
    """Read named channels of any picture in their own type, never converted, never premultiplied.

    channels   names as the file spells them or as layer.component ("A", "hero.A"); None: all of `layer`
    layer      '' or 'rgba' for the picture itself, else a layer or part name; only used where `channels` is None
    view       a view of a multi-view file; None: its first
    header     this file's header where the caller has just read it; spares parsing attributes again
    select     picks channels from the header, instead of names

    All channels asked for must lie in parts with one data window. Tiled files give their full resolution level.
    Raises MissingFrameError, PlateError naming the file (deep, damaged, no such channel).
    """
    path = Path(path)
    with _open(path) as (inp, legacy):
        if header is None or header.path != path:
            header = _header(path, inp, legacy)
        if select is not None:
            chosen = list(select(header))
            names = [c.name for c in chosen]
        else:
            chosen = _choose(header, channels, layer, view)
            names = list(channels) if channels is not None else [c.label for c in chosen]
        parts = [header.parts[i] for i in dict.fromkeys(c.part for c in chosen)]
        refuse_deep(header, chosen)
        window = parts[0].data_window
        if any(p.data_window != window for p in parts):
            raise PlateError(
                "the channels asked for lie in parts with different data windows",
                path=path,
                remedy="ask for one part",
            )
        wanted = sum(_BYTES[c.type] for c in chosen) * window.width * window.height
        if wanted > MAX_READ_BYTES:
            raise PlateError(
                f"{len(chosen)} channels of {window} need {wanted / 2**30:.1f} GiB, more than one frame may have",
                path=path,
                remedy="the header may be damaged",
            )
        if wanted > (512 << 20) + 65536 * path.stat().st_size:
            raise PlateError(
                f"a file of {path.stat().st_size} bytes cannot hold {len(chosen)} channels of {window}",
                path=path,
                remedy="the header is damaged, or the file is incomplete",
            )
        every = sum(c.part == parts[0].index for c in header.channels) if legacy else None
        pixels, interleaved = _read_channels(path, inp, chosen, window, every)
        return Still(
            header=header,
            data_window=window,
            display_window=header.display_window,
            pixel_aspect=header.pixel_aspect,
            channels=tuple(chosen),
            arrays={n: pixels[c] for n, c in zip(names, chosen, strict=True)},
            metadata=header.metadata,
            interleaved=interleaved if len(set(names)) == len(chosen) else None,
        )


def read_last_row(path: str | Path) -> tuple[StillHeader, NDArray[np.float32] | None]:
    """The header of a picture of one part, and its last row [w, C] in the file's channel order: is it all there?

    None where the row cannot be read. Raises MissingFrameError, PlateError as `read_header` does.
    """
    path = Path(path)
    with _open(path) as (inp, legacy):
        header = _header(path, inp, legacy)
        window = header.parts[0].data_window
        row = inp.read_scanlines(0, 0, window.y1 - 1, window.y1, 0, 0, len(header.channels), oiio.FLOAT)
    return header, None if row is None else np.asarray(row).reshape(window.width, len(header.channels))


def refuse_deep(header: StillHeader, channels: Sequence[Channel]) -> None:
    """Raise PlateError where one of the channels lies in a deep part; none of the channels means all parts do."""
    if any(header.parts[c.part].deep for c in channels) or all(p.deep for p in header.parts):
        raise PlateError(
            "the picture is deep (samples in depth per pixel), which has no single colour per pixel",
            path=header.path,
            remedy="flatten it first, for example with oiiotool --flatten or Nuke's DeepToImage",
        )


def colour_channels(header: StillHeader, layer: str, view: str | None) -> tuple[list[Channel], Channel | None]:
    """The channels that make up a layer's picture: three (R, G, B) or one (grey, Z, a mask), and its alpha or None.

    `layer` may also name a single channel ("Z", "hero.A"). Raises PlateError that lists the layers, or says deep.
    """
    refuse_deep(header, ())
    view = header.pick_view(view)
    mine = header.of_view(view)
    key = _layer_key(layer)
    of_layer = [c for c in mine if c.layer.lower() == key]
    if not of_layer and key == "":
        of_layer = [c for c in mine if c.layer.lower() in BEAUTY_NAMES]
    alpha = next((c for c in of_layer if c.component.upper() in _ALPHA_COMPONENTS), None)
    rgb: dict[int, Channel] = {}
    for c in of_layer:
        place = _COLOUR_COMPONENTS.get(c.component.upper())
        if place is not None:
            rgb.setdefault(place, c)
    if len(rgb) == 3:
        return [rgb[0], rgb[1], rgb[2]], alpha
    grey = [c for c in of_layer if c.component.upper() in _GREY_COMPONENTS]
    if grey:
        return [grey[0]], alpha
    if len(rgb) == 1:
        return list(rgb.values()), alpha
    if len(rgb) == 2:
        pair = sorted(rgb)
        raise PlateError(
            f"layer '{layer or 'rgba'}' has only {' and '.join(shown(rgb[i].component) for i in pair)} of R, G, B",
            path=header.path,
            remedy=f"name one channel as the layer, for example {shown(rgb[pair[0]].label)}",
        )
    if key != "" and len(of_layer) == 1:
        return [of_layer[0]], None
    if layer not in ("", "rgba"):
        single = header.find(layer, view)
        if single is not None:
            return [single], None
    if key != "" and of_layer:
        others = [c for c in of_layer if c is not alpha]
        if len(others) in (1, 3):  # X, Y, Z of a normal or motion pass; a lone Z beside an alpha
            return others, alpha
    refuse_deep(header, of_layer or mine)  # "A and Z only" would be the lesser half of the truth
    listing = _shorten(dict.fromkeys(_listed(header, view))) or "none"
    if key == "":
        what = f"the picture has no colour: its channels are {_shorten([c.name for c in header.channels])}"
    else:
        what = f"the picture has no layer '{layer}'"
    raise PlateError(what, path=header.path, remedy=f"layers that can be shown: {listing}")


def _listed(header: StillHeader, view: str | None) -> list[str]:
    names = []
    for c in header.of_view(view):
        if c.layer:
            names.append(c.layer)
        elif c.component.upper() in _COLOUR_COMPONENTS or c.component.upper() in _GREY_COMPONENTS:
            names.append("rgba")
        else:
            names.append(c.component)
    return names


def _choose(
    header: StillHeader, channels: Sequence[str] | None, layer: str | None, view: str | None
) -> list[Channel]:
    if channels is None:
        view = header.pick_view(view)
        if layer is None:
            part = next((c.part for c in header.of_view(view)), 0)
            chosen = [c for c in header.of_view(view) if c.part == part]
        else:
            key = _layer_key(layer)
            chosen = [c for c in header.of_view(view) if c.layer.lower() == key]
        if not chosen:
            raise PlateError(
                f"the picture has no layer '{layer}', its layers are {_shorten(header.layers)}", path=header.path
            )
        return chosen
    found = []
    for name in channels:
        c = header.find(name, view)
        if c is None:
            raise PlateError(
                f"the picture has no channel '{name}', its channels are "
                f"{_shorten([x.label for x in header.channels])}",
                path=header.path,
            )
        found.append(c)
    return found


def _layer_key(layer: str) -> str:
    return "" if layer.lower() in BEAUTY_NAMES else layer.lower()


def shown(name: str) -> str:
    """A name out of a file, safe to print: a damaged header may hold any bytes."""
    name = "".join(c if c.isprintable() else "?" for c in name)
    return name if len(name) <= 60 else name[:57] + "..."


def _shorten(names: Iterable[str], most: int = 12) -> str:
    names = [shown(n) for n in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# Opening ----------------------------------------------------------------------------------------------------


def check_regular(path: Path) -> int:
    """Size in bytes of a file that may be opened. Raises MissingFrameError or PlateError, never blocks."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        raise MissingFrameError("no such file", path=path) from None
    except (OSError, ValueError) as e:
        raise PlateError(f"the file cannot be looked at: {getattr(e, 'strerror', None) or e}", path=path) from None
    if not stat.S_ISREG(info.st_mode):
        kind = "a folder" if stat.S_ISDIR(info.st_mode) else "a pipe, socket or device"
        raise PlateError(f"expected a picture file, got {kind}", path=path)
    if info.st_size == 0:
        raise PlateError("the file is empty", path=path, remedy="render or copy it again")
    if not os.access(path, os.R_OK):
        raise PlateError("the file may not be read", path=path, remedy="check its permissions")
    return info.st_size


def no_text(path: str | Path) -> str:
    """A path whose bytes are no UTF-8, spelled so that it can be shown; '' for all others. OpenImageIO takes text."""
    text = os.fspath(path)
    spelled = text.encode("utf-8", "backslashreplace").decode()
    return spelled if spelled != text else ""


@contextmanager
def _open(path: Path) -> Iterator[tuple[oiio.ImageInput, bool]]:
    """An open file and whether the legacy EXR core reads it (subsampled channels, which the new core refuses)."""
    size = check_regular(path)
    wrong = no_text(path)
    if wrong:
        raise PlateError(f"the path is not UTF-8 text: {wrong}", remedy="rename the file or folder")
    inp = _try_open(path)
    legacy = False
    message = "" if inp is not None else _library_error(None)
    try:
        if inp is None and _SUBSAMPLED in message:
            # The switch is global, so only one thread at a time turns it. A file that another thread opens meanwhile
            # is read by the old core too: slower, the same pixels.
            with _legacy_core:
                before = oiio.get_int_attribute("openexr:core", 1)
                oiio.attribute("openexr:core", 0)
                try:
                    inp = _try_open(path)
                finally:
                    oiio.attribute("openexr:core", before)
            legacy = True
            message = "" if inp is not None else _library_error(None)
        if inp is None:
            raise PlateError(
                f"the file is not a picture that can be read: {message}",
                path=path,
                bytes=size,
                remedy="it may be damaged or still being written; render or copy it again",
            )
        yield inp, legacy
    except InputError:
        raise
    except (MemoryError, UnicodeDecodeError, RuntimeError, ValueError) as e:
        raise PlateError(
            f"the file cannot be read: {type(e).__name__}: {e}", path=path, remedy="it may be damaged"
        ) from e
    finally:
        if inp is not None:
            inp.close()


def _try_open(path: Path) -> oiio.ImageInput | None:
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)  # PNG, TIFF: pixels as stored, not multiplied by alpha
    config.attribute("oiio:reorientation", 0)
    try:
        return oiio.ImageInput.open(os.fspath(path), config)
    except UnicodeDecodeError:
        return None


def _library_error(inp: oiio.ImageInput | None) -> str:
    """The library's message as one short line; it may quote bytes of a damaged file that are no text."""
    try:
        text = inp.geterror() if inp is not None else oiio.geterror()
    except UnicodeDecodeError as e:
        text = e.object.decode("latin-1")
    text = re.sub(r"EXR Error \([^)]*\): (EXR_ERR_\w+ )?", "", text)
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    text = "; ".join(dict.fromkeys(lines)) or "no reason given"
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 200 else text[:197] + "..."


# Headers ----------------------------------------------------------------------------------------------------


def _header(path: Path, inp: oiio.ImageInput, legacy: bool) -> StillHeader:
    format_name = str(inp.format_name())
    specs = []
    k = 0
    while inp.seek_subimage(k, 0):
        specs.append(inp.spec().copy() if hasattr(inp.spec(), "copy") else oiio.ImageSpec(inp.spec()))
        k += 1
        if k >= 1024:
            raise PlateError("the file claims more than 1024 parts", path=path, remedy="it may be damaged")
        if format_name not in ("openexr", "tiff", "psd"):
            break
    if not specs:
        raise PlateError(f"the file holds no picture: {_library_error(inp)}", path=path)
    if sum(s.nchannels for s in specs) > MAX_CHANNELS:
        raise PlateError(f"the file claims more than {MAX_CHANNELS} channels", path=path, remedy="it may be damaged")
    parts = []
    attributes = [_attributes(s) for s in specs]
    for k, spec in enumerate(specs):
        data = Window(spec.x, spec.y, spec.x + spec.width, spec.y + spec.height)
        display = Window(spec.full_x, spec.full_y, spec.full_x + spec.full_width, spec.full_y + spec.full_height)
        if attributes[k].get("textureformat") == "CubeFace Environment":
            display = data  # the library reports one face; the file's display window is the whole map
        for what, w in (("data", data), ("display", display)):
            check_window(what, w, path)
        parts.append(
            Part(
                index=k,
                name=str(attributes[k].get("oiio:subimagename") or attributes[k].get("name") or ""),
                view=_text_or_none(attributes[k].get("view")),
                data_window=data,
                display_window=display,
                deep=bool(spec.deep),
                tiled=spec.tile_width > 0,
                compression=_text_or_none(attributes[k].get("compression")),
            )
        )
    if format_name == "openexr" and any(p.display_window != parts[0].display_window for p in parts):
        raise PlateError(
            "the parts of the file have different display windows", path=path, remedy="the file may be damaged"
        )
    first = attributes[0]
    aspect = _number(first.get("PixelAspectRatio"), 1.0)
    if not (np.isfinite(aspect) and 0.05 <= aspect <= 20):
        aspect = 1.0
    return StillHeader(
        path=path,
        format=format_name,
        parts=tuple(parts),
        channels=_name_channels(path, specs, parts, attributes),
        views=_views(parts, first),
        display_window=parts[0].display_window,
        pixel_aspect=aspect,
        fps=_rate(first),
        timecode=_timecode(first),
        metadata={n: v for n, v in first.items() if _carried(n)},
        colour_hints=_hints(first),
        subsampled=legacy,
        orientation=int(_number(first.get("Orientation"), 1)),
        cryptomatte=_cryptomatte(attributes),
    )


def _cryptomatte(attributes: Sequence[Mapping[str, object]]) -> dict[str, str]:
    told = (item for part in attributes for item in part.items())
    return {name: value for name, value in told if name.startswith("cryptomatte/") and isinstance(value, str)}


def check_window(what: str, w: Window, path: Path | str | None = None) -> None:
    """Raise PlateError where a window is empty or too large to be meant."""
    if w.empty:
        raise PlateError(f"the {what} window {w} is empty", path=path, remedy="the file may be damaged")
    far = max(abs(w.x0), abs(w.x1), abs(w.y0), abs(w.y1)) > 1 << 24
    if far or w.width > MAX_SIDE or w.height > MAX_SIDE or w.width * w.height > MAX_PIXELS:
        raise PlateError(
            f"the {what} window {w} is larger than any picture (at most {MAX_PIXELS} pixels)",
            path=path,
            remedy="the file may be damaged",
        )


def _attributes(spec: oiio.ImageSpec) -> dict[str, object]:
    """All attributes of a spec by name; those that cannot be read (bytes that are no text) are left out."""
    found: dict[str, object] = {}
    for a in spec.extra_attribs:
        try:
            name, kind, value = str(a.name), str(a.type), a.value
        except (UnicodeDecodeError, RuntimeError, ValueError):
            continue
        if kind in ("string", "int", "float"):
            found[name] = value
        elif value is not None:
            raw = oiio.ParamValueList()
            raw.add_or_replace(a)
            found[name] = TypedValue(kind, value, raw)
    return found


def _value(x: object) -> object:
    return x.value if isinstance(x, TypedValue) else x


def _number(x: object, default: float) -> float:
    x = _value(x)
    return float(x) if isinstance(x, (int, float)) else default


def _text_or_none(x: object) -> str | None:
    return x if isinstance(x, str) and x else None


def _carried(name: str) -> bool:
    low = name.lower()
    return low not in _NOT_CARRIED and not low.startswith(_NOT_CARRIED_PREFIXES)


def _views(parts: Sequence[Part], first: Mapping[str, object]) -> tuple[str, ...]:
    by_part = tuple(dict.fromkeys(p.view for p in parts if p.view))
    multi = _value(first.get("multiView"))
    if isinstance(multi, str):
        multi = (multi,)
    if isinstance(multi, (tuple, list)) and len(multi) > 1:
        return tuple(dict.fromkeys(str(v) for v in multi))
    return by_part


def _name_channels(
    path: Path, specs: Sequence[oiio.ImageSpec], parts: Sequence[Part], attributes: Sequence[Mapping[str, object]]
) -> tuple[Channel, ...]:
    """Layer, component and view of every channel, for single-part, multi-part and both kinds of multi-view files."""
    views = _views(parts, attributes[0])
    multi_part = len(parts) > 1
    single_part_views = set(views) if not any(p.view for p in parts) else set()
    found: list[Channel] = []
    for part, spec in zip(parts, specs, strict=True):
        names = [str(n) for n in spec.channelnames]
        formats = [str(f) for f in spec.channelformats] or [str(spec.format)] * len(names)
        if len(formats) != len(names):
            raise PlateError("the file's channel list does not fit its types", path=path, remedy="it may be damaged")
        part_layer = _strip_view(part.name, part.view) if multi_part else ""
        for i, (name, kind) in enumerate(zip(names, formats, strict=True)):
            *prefix, component = name.split(".")
            view = part.view
            if single_part_views:
                # EXR's single-part rule: the view is the last word before the component, none means the default view.
                if prefix and prefix[-1] in single_part_views:
                    view = prefix.pop()
                else:
                    view = views[0]
            elif prefix and view and prefix[-1] == view:
                prefix.pop()
            layer = ".".join(prefix) if prefix else part_layer
            if layer.lower() in BEAUTY_NAMES:
                layer = ""
            found.append(Channel(name, layer, component, view, _TYPE_NAMES.get(kind, "float"), part.index, i))
    if multi_part:
        found = _promote_first_part(found, parts)
    return tuple(found)


def _strip_view(name: str, view: str | None) -> str:
    if not view:
        return name
    low, v = name.lower(), view.lower()
    if low == v:
        return ""
    for sep in (".", "_", "-", " "):
        if low.endswith(sep + v):
            return name[: -len(v) - 1]
        if low.startswith(v + sep):
            return name[len(v) + 1 :]
    return name


def _promote_first_part(channels: list[Channel], parts: Sequence[Part]) -> list[Channel]:
    """Where no part is named as the picture, the first part of each view with bare R, G, B is the picture."""
    for view in dict.fromkeys(c.view for c in channels):
        mine = [c for c in channels if c.view == view]
        if any(c.layer == "" and c.component.upper() in _COLOUR_COMPONENTS for c in mine):
            continue
        for part in parts:
            bare = [c for c in mine if c.part == part.index and "." not in c.name]
            if {c.component.upper() for c in bare} >= {"R", "G", "B"}:
                channels = [
                    Channel(c.name, "", c.component, c.view, c.type, c.part, c.index) if c in bare else c
                    for c in channels
                ]
                break
    return channels


def _rate(attributes: Mapping[str, object]) -> Fraction | None:
    for name, raw in attributes.items():
        if name.lower() not in ("framespersecond", "dpx:framerate", "dpx:tvframerate"):
            continue
        value = _value(raw)
        if isinstance(value, (tuple, list)) and len(value) == 2 and value[1]:
            rate = Fraction(int(value[0]), int(value[1]))
        elif isinstance(value, (int, float)) and np.isfinite(value):
            rate = Fraction(value).limit_denominator(1001)
        else:
            continue
        if 0 < rate < 100_000:
            return rate
    return None


def _timecode(attributes: Mapping[str, object]) -> str | None:
    """SMPTE time code as text, a semicolon before the frames where it drops frames."""
    raw = next((v for n, v in attributes.items() if n.lower() in ("smpte:timecode", "timecode")), None)
    value = _value(raw)
    if isinstance(value, str):
        return value or None
    return unpack(value)


def _hints(attributes: Mapping[str, object]) -> dict[str, object]:
    hints: dict[str, object] = {}
    for name in (
        "oiio:ColorSpace",
        "colorInteropID",
        "chromaticities",
        "whiteLuminance",
        "acesImageContainerFlag",
        "ICCProfile:profile_description",
        "Exif:ColorSpace",
        "CICP",
        "dpx:Transfer",
        "dpx:Colorimetric",
        "oiio:Gamma",
    ):
        value = _value(attributes.get(name))
        if value is not None:
            hints[name] = value
    return hints


# Pixels -----------------------------------------------------------------------------------------------------


def _read_channels(
    path: Path, inp: oiio.ImageInput, chosen: Sequence[Channel], window: Window, every: int | None = None
) -> tuple[dict[Channel, NDArray[np.generic]], NDArray[np.generic] | None]:
    """Pixels by channel, read in runs of neighbours of one type; and the buffer where one run was all, in order.

    every   the channels of the part, where all must be read at once: of a luminance-chroma file the old core writes
            R, G and B whatever was asked for, beyond the end of a smaller buffer
    """
    pixels: dict[Channel, NDArray[np.generic]] = {}
    whole: NDArray[np.generic] | None = None
    ordered = sorted(set(chosen), key=lambda c: (c.part, c.index))
    start = 0
    while start < len(ordered):
        end = start + 1
        while (
            end < len(ordered)
            and ordered[end].part == ordered[start].part
            and ordered[end].type == ordered[start].type
            and ordered[end].index == ordered[end - 1].index + 1
        ):
            end += 1
        run = ordered[start:end]
        first = run[0]
        # All channels of a part in one call where they are of one type, never OIIO.UNKNOWN: mixed types would all
        # become float and uint ids would be divided by 2**32.
        begin, stop = (0, every) if every else (first.index, run[-1].index + 1)
        block = inp.read_image(first.part, 0, begin, stop, _OIIO_TYPES[first.type])
        expected = (window.height, window.width, len(run))
        if block is None:
            raise PlateError(
                f"the picture cannot be decoded: {_library_error(inp)}",
                path=path,
                remedy="it is damaged or incomplete; render or copy it again",
            )
        block = np.asarray(block)[:, :, first.index - begin : run[-1].index + 1 - begin]
        if block.shape != expected or block.dtype != _NUMPY[first.type]:
            raise PlateError(
                f"the picture decodes to {block.shape} {block.dtype}, its header says {expected} {first.type}",
                path=path,
                remedy="the file may be damaged",
            )
        for i, c in enumerate(run):
            pixels[c] = block[:, :, i]
        if start == 0 and end == len(ordered) and run == list(chosen):
            whole = block
        start = end
    return pixels, whole


# Metadata on the way out ------------------------------------------------------------------------------------


def write_attributes(spec: oiio.ImageSpec, metadata: Mapping[str, object], *, colour: bool = False) -> None:
    """Put carried-on metadata into a spec about to be written, each value in the type it was read with.

    colour   also what speaks about R, G and B (`COLOUR_ATTRIBUTES`)
    """
    colour_names = {n.lower() for n in COLOUR_ATTRIBUTES}
    for name, value in metadata.items():
        if not colour and name.lower() in colour_names:
            continue
        if isinstance(value, TypedValue):
            if value.raw is not None:
                for copy in value.raw:
                    spec.extra_attribs.add_or_replace(copy)
            else:
                spec.attribute(name, value.type, value.value)
        elif isinstance(value, (str, int, float)):
            spec.attribute(name, value)
