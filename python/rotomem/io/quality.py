"""The quality file: what is known of every frame's mattes, as JSON beside them. The same run gives the same bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rotomem.errors import InputError, MissingFrameError
from rotomem.io.atomic import whole_file

_LAYOUT = 1
_DIGITS = 4


@dataclass(frozen=True)
class QualityFile:
    """Signals of a shot's mattes.

    plate      name of the plate
    objects    their names, in their order
    keys       frame -> objects the artist drew there
    signals    frame -> object -> name -> value; "confidence" is one of the names, 0..1
    """

    plate: str
    objects: tuple[str, ...]
    keys: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    signals: Mapping[int, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it whole. What is not finite is left out. Raises OutputError."""
        told = {
            "rotomem_quality": _LAYOUT,
            "plate": self.plate,
            "objects": list(self.objects),
            "keys": {str(f): list(names) for f, names in sorted(self.keys.items())},
            "frames": {
                str(frame): {
                    name: {k: round(float(v), _DIGITS) for k, v in sorted(values.items()) if math.isfinite(v)}
                    for name, values in of.items()
                }
                for frame, of in sorted(self.signals.items())
            },
        }
        with whole_file(path, what="quality file") as part:
            part.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> QualityFile:
        """Raises MissingFrameError where there is no such file, InputError where it is none of ours."""
        try:
            told = json.loads(path.read_text("utf-8"))
            if told["rotomem_quality"] != _LAYOUT:
                raise InputError(
                    f"the quality file has layout {told['rotomem_quality']}, this rotomem reads {_LAYOUT}",
                    remedy="track the shot again, or use the rotomem that wrote it",
                    path=path,
                )
            return cls(
                str(told["plate"]),
                tuple(map(str, told["objects"])),
                {int(f): tuple(map(str, names)) for f, names in told["keys"].items()},
                {
                    int(f): {name: {k: float(v) for k, v in values.items()} for name, values in of.items()}
                    for f, of in told["frames"].items()
                },
            )
        except FileNotFoundError:
            raise MissingFrameError("there is no quality file", path=path) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"cannot read the quality file: {type(error).__name__}: {error}",
                remedy="remove it and track again",
                path=path,
            ) from None
