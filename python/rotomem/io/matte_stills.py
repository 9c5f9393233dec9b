"""The mattes themselves, as EXR layers or PNG, alone or with the plate's RGB beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rotomem.io.kinds import File, Stills
from rotomem.io.planes import Alpha, on_window, plate_on, premultiplied, to_integer, union, unit
from rotomem.io.stills import Picture
from rotomem.types import ObjectId, PlateFrame

RGB_TOLD = {
    "keep": "plate, not multiplied",
    "premult": "premultiplied",
    "straight": "estimated foreground, not multiplied",
}
"""MatteSettings.rgb -> what `rotomem/rgb` says of it."""


class MatteStills(Stills):
    """A sequence of mattes, or one for each object."""

    def recipe(self) -> Mapping[str, object]:
        settings = self.order.settings
        return {name: getattr(settings, name) for name in ("format", "depth", "rgb", "compression")}

    def picture(self, file: File, frame: PlateFrame, alpha: Mapping[ObjectId, Alpha]) -> Picture:
        return self._png(file, frame, alpha) if self.png else self._exr(file, frame, alpha)

    def _exr(self, file: File, frame: PlateFrame, alpha: Mapping[ObjectId, Alpha]) -> Picture:
        settings, window = self.order.settings, frame.data_window
        planes = [on_window(alpha.get(k), self.order.info.canvas, window) for k in file.objects]
        names = ("A",) if file.places == ("",) else tuple(f"{layer}.A" for layer in file.places)
        if settings.rgb in ("premult", "straight") and len(planes) > 1:
            names = ("A", *names)  # what RGB goes with
            planes.insert(0, union(planes))
        types = [str(settings.depth)] * len(names)
        colour: NDArray[Any] | None = None
        if settings.rgb != "none":
            colour = self.colour(frame, planes[0], plate_on(frame, window))
            names = ("R", "G", "B", *names)
            types = ["half" if colour.dtype == np.float16 else "float"] * 3 + types
        # Half to float and back is exact, so one float array serves a file of mixed types.
        kind = np.float16 if set(types) == {"half"} else np.float32
        pixels = np.empty((window.height, window.width, len(names)), kind)
        at = 0
        if colour is not None:
            pixels[..., :3] = colour
            at = 3
        for k, plane in enumerate(planes):
            pixels[..., at + k] = plane
        return Picture(
            names,
            tuple(types),
            pixels,
            window,
            attributes=self._told(),
            compression=settings.compression,
            plate_rgb=colour is not None,
        )

    def _png(self, file: File, frame: PlateFrame, alpha: Mapping[ObjectId, Alpha]) -> Picture:
        # A PNG has no data window: its pixels are the display window.
        settings, window = self.order.settings, frame.display_window
        type_name = f"uint{settings.depth}"
        kind: Any = np.dtype(type_name).type
        plane = on_window(alpha.get(file.objects[0]), self.order.info.canvas, window)
        matte = to_integer(plane, kind)
        if settings.rgb == "none":
            return Picture(("Y",), (type_name,), matte[..., None], window)
        rgb = self.colour(frame, plane, plate_on(frame, window))
        if rgb.dtype.kind == "f":
            rgb = to_integer(np.clip(rgb, 0, 1), kind)
        elif rgb.dtype != kind:
            rgb = rgb.astype(kind) * kind(257)  # 8 to 16 bit: 255 becomes 65535, exactly invertible
        pixels = np.concatenate([rgb, matte[..., None]], axis=-1)
        return Picture(("R", "G", "B", "A"), (type_name,) * 4, pixels, window, self._told(), plate_rgb=True)

    def colour(self, frame: PlateFrame, matte: Alpha, plate: NDArray[Any]) -> NDArray[Any]:
        """RGB as settings.rgb wants it, [h, w, 3]: the plate's own values for "keep", else made from `unit` ones.

        Of a plate of halves halves, else float32; integers only for "keep" in PNG.
        """
        settings, foreground = self.order.settings, self.order.foreground
        own = np.float16 if plate.dtype == np.float16 else np.float32
        if settings.rgb == "keep":
            return plate if self.png or plate.dtype.kind == "f" else unit(plate)
        if settings.rgb == "premult":
            rgb = premultiplied(plate, matte)
        else:
            assert foreground is not None  # MatteWriter has seen to it
            rgb = foreground(unit(plate), matte)
        with np.errstate(over="ignore"):
            return rgb.astype(own)

    def _told(self) -> dict[str, str]:
        rgb = self.order.settings.rgb
        return {} if rgb == "none" else {"rotomem/rgb": RGB_TOLD[rgb]}
