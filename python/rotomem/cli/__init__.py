"""The command line: `rotomem VERB ...`, one module a verb.

Exit codes: 0 ok, 1 failed, 2 usage, 3 input missing, 4 partly done, 130 interrupted. An error is one line on
stderr; --debug (or ROTOMEM_DEBUG=1) shows the traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, TextIO

from rotomem.cli.heap import keep_freed_memory
from rotomem.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, RotomemError

_VERBS = (
    *("track", "info", "demo", "prompt", "preview", "review"),
    *("new", "key", "object", "absent", "freeze", "run", "status", "prune"),
    *("eval", "predict", "train", "models", "bench", "export", "shots", "splines", "hosts", "worker"),
)
"""Modules of this package with `add_parser(subparsers)` and `run(args) -> int`. They import the engine inside
`run`: --help must not wait for torch."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code and never raises for what a user can do wrong.

    argv    arguments without the program's name; None: the process's
    """
    with _remembering_ctrl_c() as pressed:
        return _main(argv, pressed)


def _main(argv: Sequence[str] | None, pressed: threading.Event) -> int:
    for stream in (sys.stdout, sys.stderr):
        _survive_odd_names(stream)
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Taken out here so that it works before and after the verb.
    debug = "--debug" in arguments or os.environ.get("ROTOMEM_DEBUG", "") not in ("", "0")
    arguments = _with_negative_frames([a for a in arguments if a != "--debug"])
    try:
        args = _parser().parse_args(arguments)
        keep_freed_memory()
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else (EXIT_OK if exit.code is None else EXIT_FAILED)
    except KeyboardInterrupt:
        print("rotomem: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        if pressed.is_set():
            # An import that Ctrl-C stops may say that the module is broken.
            print("rotomem: interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        if isinstance(error, OSError) and _stdout_is_gone(error):
            return EXIT_FAILED
        if debug:
            raise
        print(f"rotomem: {describe(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, RotomemError) else EXIT_FAILED


@contextlib.contextmanager
def _remembering_ctrl_c() -> Iterator[threading.Event]:
    """An event that says whether Ctrl-C was pressed; it interrupts as usual."""
    pressed = threading.Event()
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def handle(number: int, frame: Any) -> None:
        pressed.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, usual)


def _stdout_is_gone(error: OSError) -> bool:
    """Whether what was said cannot be: the reader went away (`rotomem info | head`), or the disk is full."""
    if error.filename is not None:
        return False
    if not isinstance(error, BrokenPipeError):
        try:
            print(flush=True)  # not flush() alone: an unbuffered stream forgets what it could not write
        except OSError:
            pass
        else:
            return False
    # The flush at exit must not complain again.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


_MAY_BE_NEGATIVE = ("-m", "--mask", "--frames", "--frame", "--click", "--click-out", "--box")


def _with_negative_frames(arguments: Sequence[str]) -> list[str]:
    """`--mask -5=key.png` as `--mask=-5=key.png`: argparse takes what begins with a dash for an option."""
    joined: list[str] = []
    for argument in arguments:
        if re.match(r"-\d", argument) and joined and joined[-1] in _MAY_BE_NEGATIVE:
            joined[-1] = ("--mask" if joined[-1] == "-m" else joined[-1]) + "=" + argument
        else:
            joined.append(argument)
    return joined


def describe(error: BaseException) -> str:
    """An error as one line for the one who gave the command."""
    if isinstance(error, RotomemError):
        text = str(error)
    elif isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        text = "out of memory; use a smaller --size, fewer objects, or --device cpu"
    else:
        text = f"unexpected {type(error).__name__}: {error}; run again with --debug and report what it shows"
    return " ".join(text.split())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rotomem",
        description="Rotoscoping with memory: one key mask in, a matte for every frame of a plate out.",
        epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 input missing, 4 partly done, 130 interrupted. "
        "--debug or ROTOMEM_DEBUG=1 shows tracebacks.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in _VERBS:
        module = import_module(f"rotomem.cli.{verb}")
        module.add_parser(subparsers)
        subparsers.choices[verb].set_defaults(run=module.run)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from rotomem import __version__

        print(f"rotomem {__version__}")
        parser.exit()


def _survive_odd_names(stream: TextIO) -> None:
    """A path that the terminal's encoding lacks is shown escaped instead of ending the run."""
    with contextlib.suppress(AttributeError, ValueError):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
