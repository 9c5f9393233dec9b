"""Packed mattes: four objects to the R, G, B and A of one picture, for hosts and hands that know no layers.

Objects go into the channels in their order; further four go into files of their own, `_packed2`, `_packed3`. Which
object is where stands in `rotomem/objects`, channel -> name. R, G and B are always there; A only where a fourth
object needs it, since programs take an alpha for what RGB was multiplied with.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rotomem.io.kinds import File, Output, Stills
from rotomem.io.outputs import OBJECT_TOKEN
from rotomem.io.planes import Alpha, on_window, to_integer
from rotomem.io.stills import Picture
from rotomem.types import ObjectId, PlateFrame

CHANNELS = ("R", "G", "B", "A")


class PackedStills(Stills):
    """Packed mattes beside others, EXR unless those are PNG, in their depth."""

    @classmethod
    def beside(cls, mattes: Output) -> PackedStills:
        """For the objects of `mattes`."""
        numbers = list(mattes.order.objects)
        packs = [tuple(numbers[i : i + 4]) for i in range(0, len(numbers), 4)]
        labels = ["packed", *(f"packed{n}" for n in range(2, len(packs) + 1))]
        files = tuple(File(p, CHANNELS[: len(p)], label) for p, label in zip(packs, labels, strict=True))
        suffix = ".png" if mattes.order.settings.format == "png" else ".exr"
        pattern = mattes.pattern.beside(OBJECT_TOKEN, suffix, padding=mattes.stills_padding)
        output = cls(mattes.order, pattern, files, "packed")
        output.notes = tuple(f"{file.label}: {output.told(file)}" for file in files)
        return output

    def told(self, file: File) -> str:
        """What is where in a file: `R hero, G car`."""
        held = zip(file.places, file.objects, strict=True)
        return ", ".join(f"{channel} {self.order.objects[number]}" for channel, number in held)

    def recipe(self) -> Mapping[str, object]:
        settings = self.order.settings
        return {name: getattr(settings, name) for name in ("format", "depth", "compression")}

    def picture(self, file: File, frame: PlateFrame, alpha: Mapping[ObjectId, Alpha]) -> Picture:
        settings = self.order.settings
        window = frame.display_window if self.png else frame.data_window
        planes = [on_window(alpha.get(k), self.order.info.canvas, window) for k in file.objects]
        names = CHANNELS[: max(len(planes), 3)]
        kind = f"uint{settings.depth}" if self.png else "float" if settings.depth == "float" else "half"
        dtype = np.dtype({"half": "float16", "float": "float32"}.get(kind, kind))
        pixels = np.zeros((window.height, window.width, len(names)), dtype)
        for k, plane in enumerate(planes):
            pixels[..., k] = to_integer(plane, dtype.type) if self.png else plane
        return Picture(names, (kind,) * len(names), pixels, window, compression=settings.compression)
