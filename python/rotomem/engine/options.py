"""What a run may be told, with its defaults: the one place they stand. No torch here, so `--help` does not wait."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotomem.errors import UsageError
from rotomem.matting.settings import EdgeSettings
from rotomem.types import Window

if TYPE_CHECKING:
    from rotomem.io.colour import ColourDecision
    from rotomem.io.mattes import MatteSettings
    from rotomem.io.plate import Plate, PlateInfo
    from rotomem.models.interface import VOSModel

DEFAULT_SIZE = 480
"""Shorter side of the network picture; what the method was trained and published at."""

DIRECTIONS = ("both", "forward", "backward")

MODEL = "model"
"""In the place of a setting: what the model declares."""


def own_or(name: str, value: Any, declared: Any) -> Any:
    """The setting, or what the model declares where it is MODEL. Raises UsageError for any other text."""
    if not isinstance(value, str):
        return value
    if value != MODEL:
        raise UsageError(f"{name} is {value!r}", remedy=f"give {MODEL!r} to leave it to the model, or a value")
    return declared


_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "str": "a text",
    "Path": "a path",
    "tuple[str, ...]": "a text or several",
    "None": "None",
}


@dataclass(frozen=True)
class MemorySettings:
    """Sizes of the memories; the defaults are XMem's (section 4, "Implementation details").

    mem_every            frames between two memory frames, >= 1; None: only frames with a mask are memory frames
    top_k                elements a query attends to; None is a full softmax
    min_working_frames   frames that stay in working memory when it is consolidated, the first one counted
    max_working_frames   frames at which working memory is consolidated, the first one counted
    prototypes           elements made by one consolidation
    max_long_term        elements long-term memory may hold
    long_term            False keeps every memory frame in working memory, which then grows with the shot
    include_last         the previous frame is in memory even where it is no memory frame
    memory_gib           GiB that a memory which grows with the shot may fill; at that point every second of its
                         frames goes, and new ones are kept half as often (many objects: STM, supplement, section 3).
                         None: no limit
    """

    mem_every: int | None = 5
    top_k: int | None = 30
    min_working_frames: int = 5
    max_working_frames: int = 10
    prototypes: int = 128
    max_long_term: int = 10000
    long_term: bool = True
    include_last: bool = False
    memory_gib: float | None = 4.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, _fitting(field.name, value, str(field.type).split(" | ")))

        def at_least(name: str, least: int) -> None:
            value = getattr(self, name)
            if value < least:
                raise UsageError(f"{name} is {value}", remedy=f"give {least} or more")

        if self.mem_every is not None:
            at_least("mem_every", 1)
        at_least("min_working_frames", 1)
        at_least("max_working_frames", 2)
        at_least("prototypes", 1)
        if self.top_k is not None:
            at_least("top_k", 1)
        if self.memory_gib is not None and self.memory_gib <= 0:
            raise UsageError(f"memory_gib is {self.memory_gib:g}", remedy="give GiB above 0, or None for no limit")
        if self.max_working_frames <= self.min_working_frames:
            raise UsageError(
                f"max_working_frames is {self.max_working_frames}, min_working_frames {self.min_working_frames}",
                remedy="the maximum must be larger, or nothing could be consolidated",
            )
        if self.max_long_term < self.prototypes:
            raise UsageError(
                f"max_long_term is {self.max_long_term}, prototypes {self.prototypes}",
                remedy="long-term memory must hold at least one consolidation",
            )


@dataclass(frozen=True)
class TrackOptions:
    """Everything about a run but plate, masks and output.

    Plate
        frames         range such as `1001-1100x2,1120`; None: all
        missing        what to do about frames that are not on disk: "error", "skip", "hold", "black"
        layer, view    of the plate; None: its picture, its first view
    Colour before the network (mattes are data and never transformed)
        input_space    OCIO name of the plate's space; None: file metadata, file rules, then role scene_linear
        transform      "encode" (sRGB-encoded Rec.709 with a shoulder), "view" (display and display_view), "none"
        exposure       stops, before the transform
        display, display_view, ocio_config    None: the config's defaults, $OCIO
    Model
        model          name, checkpoint file, or a loaded model
        device, dtype  as `load_model` has them; not looked at where a model is given
        size           shorter side of the network picture in square pixels; None: the plate's own size
        roi            region of interest: "off", "auto" (a window that follows the objects, where that shows them
                       finer), or one in plate pixels, "1200x800+640+210"; outside of it objects are nowhere
        rim            pixels of replicated border around the network picture, for objects cut by the frame; None: 8
                       for every whole 240 of its shorter side
        model_depth    layers that run, of a model that has a choice (AOST); None: all
    Session            as `Session` has them
    Keys
        direction      "both": between two keys the passes away from either are blended, before the first and after
                       the last one there is one; "forward" or "backward": passes of one direction alone, and where
                       no key lies before (after) a frame there is no object
        neighbours     key frames beyond its own two that a stretch between keys also learns from, on either side
        absent         `("hero@1020-1030", ...)`: objects and frames on which they are nowhere
    Edges              as `matting.finish.EdgeSettings` has them
    Mattes             as `MatteSettings` has them
    Existing files     resume: keep what is whole and made with the same settings from the same plate files;
                       overwrite: replace everything; neither: refuse to run where a matte exists

    Raises UsageError naming the option where a value has another type than its field, or two contradict each other.
    """

    frames: str | None = None
    missing: str = "error"
    layer: str | None = None
    view: str | None = None
    input_space: str | None = None
    transform: str = "encode"
    exposure: float = 0.0
    display: str | None = None
    display_view: str | None = None
    ocio_config: str | None = None
    model: str | Path | VOSModel = "xmem-s"
    device: str = "auto"
    dtype: str = "auto"
    size: int | None = DEFAULT_SIZE
    roi: str = "off"
    rim: int | None = None
    model_depth: int | None = None
    mem_every: int | str | None = MODEL
    top_k: int | str | None = MODEL
    min_working_frames: int = MemorySettings.min_working_frames
    max_working_frames: int = MemorySettings.max_working_frames
    prototypes: int = MemorySettings.prototypes
    max_long_term: int = MemorySettings.max_long_term
    long_term: bool | str = MODEL
    include_last: bool | str = MODEL
    memory_gib: float | None = MemorySettings.memory_gib
    deep_update_every: int = -1
    direction: str = "both"
    neighbours: int = 1
    absent: tuple[str, ...] = ()
    edge: str = EdgeSettings.edge
    choke: float = EdgeSettings.choke
    feather: float = EdgeSettings.feather
    despeckle: float = EdgeSettings.despeckle
    fill_holes: float = EdgeSettings.fill_holes
    stabilise: float = EdgeSettings.stabilise
    format: str | None = None
    depth: str | None = None
    rgb: str = "none"
    per_object: bool = False
    compression: str = "zip"
    also: tuple[str, ...] = ()
    trimap_band: int = 10
    only: tuple[str, ...] = ()
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "model":
                _check_model(value)
            else:
                object.__setattr__(self, field.name, _fitting(field.name, value, str(field.type).split(" | ")))
        for name in ("mem_every", "top_k", "long_term", "include_last"):
            own_or(name, getattr(self, name), None)
        if self.direction not in DIRECTIONS:
            raise UsageError(f"direction is '{self.direction}'", remedy=f"use one of {', '.join(DIRECTIONS)}")
        if self.neighbours < 0:
            raise UsageError(f"neighbours is {self.neighbours}", remedy="give 0 or more")
        if self.roi not in ("off", "auto"):
            Window.parse(self.roi)
        self.edges()
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite contradict each other", remedy="choose one")

    def session(self) -> dict[str, Any]:
        """Keyword arguments of `Session`, size excepted."""
        names = (*(field.name for field in fields(MemorySettings)), "deep_update_every")
        others = {"depth": self.model_depth, "refine": self.edge != "off"}
        return {**{name: getattr(self, name) for name in names}, **others}

    def edges(self) -> EdgeSettings:
        """How mattes are finished. Raises UsageError for what is out of range."""
        return EdgeSettings(**{field.name: getattr(self, field.name) for field in fields(EdgeSettings)})

    def mattes(self) -> MatteSettings:
        """How mattes are written."""
        from rotomem.io.mattes import MatteSettings

        return MatteSettings(**{field.name: getattr(self, field.name) for field in fields(MatteSettings)})

    def open_plate(self, plate: str | Path) -> Plate:
        """The plate, as these options read it. Raises what `open_plate` raises."""
        from rotomem.io.plate import open_plate

        return open_plate(plate, frames=self.frames, missing=self.missing, layer=self.layer, view=self.view)

    def decide_colour(self, info: PlateInfo) -> ColourDecision:
        """What the network sees of that plate. Raises ColourError."""
        from rotomem.io.colour import decide_colour

        return decide_colour(
            info,
            input_space=self.input_space,
            transform=self.transform,
            exposure=self.exposure,
            display=self.display,
            view=self.display_view,
            config=self.ocio_config,
        )


def _fitting(name: str, value: Any, kinds: list[str]) -> Any:
    """The value as a plain one of its kind (NumPy's numbers too, so that a report is JSON)."""
    if value is None and "None" in kinds:
        return None
    if isinstance(value, bool):
        if "bool" in kinds:
            return value
    elif "int" in kinds and isinstance(value, Integral):
        return int(value)
    elif "float" in kinds and isinstance(value, Real) and math.isfinite(value):
        return float(value)
    elif "str" in kinds and isinstance(value, str):
        return value
    elif "tuple[str, ...]" in kinds:
        texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else (None,)
        if all(isinstance(text, str) for text in texts):
            return texts
    expected = " or ".join(_EXPECTED[kind] for kind in kinds)
    raise UsageError(f"{name} is {value!r} ({type(value).__name__})", remedy=f"give {expected}")


def _check_model(value: object) -> None:
    if isinstance(value, (str, os.PathLike)):
        return
    from rotomem.models.interface import VOSModel

    if not isinstance(value, VOSModel):
        raise UsageError(
            f"model is {value!r} ({type(value).__name__})", remedy="give a name, a checkpoint file or a loaded model"
        )
