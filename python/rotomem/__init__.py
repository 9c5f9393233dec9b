"""rotomem: one key mask in, a matte for every frame of a plate out.

    import rotomem
    rotomem.track("plates/sh010.%04d.exr", ["1001=roto/sh010_key.png"], "mattes/")

or frame by frame:

    session = rotomem.Session(rotomem.load_model())
    probabilities = session.step(first_frame, mask)     # [O+1, H, W], background first
    probabilities = session.step(next_frame)
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rotomem.engine.report import Report
    from rotomem.engine.session import Session
    from rotomem.engine.shot import track
    from rotomem.errors import RotomemError
    from rotomem.models.interface import VOSModel as Model
    from rotomem.models.registry import build_model, load_model
    from rotomem.project.project import Project
    from rotomem.prompts.prompter import Prompter

try:
    __version__ = version("rotomem")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["Model", "Project", "Prompter", "Report", "RotomemError", "Session", "build_model", "load_model", "track"]

_HOMES = {
    "Model": ("rotomem.models.interface", "VOSModel"),
    "Project": ("rotomem.project.project", "Project"),
    "Prompter": ("rotomem.prompts.prompter", "Prompter"),
    "Report": ("rotomem.engine.report", "Report"),
    "RotomemError": ("rotomem.errors", "RotomemError"),
    "Session": ("rotomem.engine.session", "Session"),
    "build_model": ("rotomem.models.registry", "build_model"),
    "load_model": ("rotomem.models.registry", "load_model"),
    "track": ("rotomem.engine.shot", "track"),
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: torch takes seconds, `rotomem --help` should not."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rotomem' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
