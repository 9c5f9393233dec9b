"""Every error rotomem raises on purpose.

    RotomemError
    |-- InputError              what the user gave cannot be used            exit code 2
    |   |-- UsageError          options that contradict each other
    |   |-- PlateError          a plate that cannot be read or understood
    |   |   `-- MissingFrameError   a file or frame that is not there        exit code 3
    |   |-- MaskError           a key mask that is empty, unreadable, of the wrong size
    |   |-- ColourError         no such colour space, view or config
    |   |-- ProjectError        a project file that says what it cannot, or a project in use
    |   |-- ShapeError          an array of the wrong shape or type
    |   `-- CheckpointError     weights that do not fit the model
    |-- OutputError             a matte that could not be written            exit code 1
    |-- MemoryStateError        the engine was asked for what it cannot know yet
    |   `-- EmptyMemoryError    a read before the first mask
    |-- BackendError            a kernel backend that is absent or failed
    `-- HostError               a host or its worker misbehaved

A message says what was wrong, what was expected, what to do; facts that a farm log is searched for stand in
brackets at its end: ``ShapeError: ... [shot=sh010 frame=1043]; remedy``.
"""

from __future__ import annotations

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_MISSING, EXIT_PARTLY, EXIT_INTERRUPTED = 0, 1, 2, 3, 4, 130
"""What a command ends with: ok, failed, usage, input missing, partly done, interrupted."""


class RotomemError(Exception):
    """Root of all errors.

    what      one sentence: what was wrong, what was expected
    remedy    what the reader can do about it
    context   facts for the bracket (path, frame, ...), None values left out
    """

    exit_code = EXIT_FAILED

    def __init__(self, what: str, *, remedy: str | None = None, **context: object) -> None:
        self.what = what
        self.remedy = remedy
        self.context = {k: v for k, v in context.items() if v is not None}
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.what
        if self.context:
            text += " [" + " ".join(f"{k}={v}" for k, v in self.context.items()) + "]"
        if self.remedy:
            text += "; " + self.remedy
        return text


class InputError(RotomemError):
    """What the user gave cannot be used."""

    exit_code = EXIT_USAGE


class UsageError(InputError):
    """Options that contradict each other or ask for something that does not exist."""


class PlateError(InputError):
    """A plate that cannot be read or understood."""

    exit_code = EXIT_MISSING


class MissingFrameError(PlateError):
    """A file or frame that is not there."""


class MaskError(InputError):
    """A key mask that is empty, unreadable, of the wrong size or full of accidental labels."""


class ColourError(InputError):
    """No such colour space, view, display or config."""


class ProjectError(InputError):
    """A project file that says what it cannot, or a project that another run works on."""


class ShapeError(InputError, ValueError):
    """An array of the wrong shape or type."""


class CheckpointError(InputError):
    """Weights that do not fit the model."""


class OutputError(RotomemError):
    """A matte that could not be written."""


class MemoryStateError(RotomemError):
    """The engine was asked for what it cannot know yet."""


class EmptyMemoryError(MemoryStateError):
    """A read before the first mask."""


class BackendError(RotomemError):
    """A kernel backend that is absent or failed."""


class HostError(RotomemError):
    """A host or its worker misbehaved."""
