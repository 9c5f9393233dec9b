"""Texts of users inside other languages: whatever a path or a name holds, it stays one value and runs nothing."""

from __future__ import annotations

import json

from rotomem.errors import UsageError

_TCL_EVALUATED = '[]$\\"{}'


def tcl(text: str) -> str:
    """A Tcl word that stands for `text`, as the values in Nuke scripts are.

    Raises UsageError for a NUL or another control character, which no script keeps.
    """
    _refuse_control(text)
    if text and not set(text) & set(' \t"{}[]$\\;#'):
        return text
    if not set(text) & set("{}\\"):
        return "{" + text + "}"
    return '"' + "".join("\\" + c if c in '\\"$[]{}' else c for c in text) + '"'


def nuke_text(text: str) -> str:
    """The value of a Nuke text knob that shows `text`: what Nuke would evaluate in it is evaluated to itself.

    Nuke substitutes a knob's value as Tcl when it holds a bracket. A backslash before it would stay in the values
    that are not substituted; a command that answers with the character is right in both.
    """
    _refuse_control(text)
    if not set(text) & set("[]$\\"):
        return text
    return "".join(f"[format %c {ord(c)}]" if c in _TCL_EVALUATED else c for c in text)


def nuke_path(path: str) -> str:
    """The value of a Nuke file knob for a path, its frame number a `%04d` at the end.

    Raises UsageError where the folder or name has signs that Nuke takes for a frame number or a view.
    """
    head, _, name = path.replace("\\", "/").rpartition("/")
    stem = name
    for token in ("%d", *(f"%0{n}d" for n in range(1, 10))):
        stem = stem.replace(token, "", 1) if stem.count("%") == 1 else stem
    if "%" in head + stem or "#" in head + stem:
        raise UsageError(
            "Nuke reads % and # in a path as a frame number or a view",
            remedy="move the files to another folder",
            path=path,
        )
    return nuke_text(f"{head}/{name}" if head else name)


def lua(text: str) -> str:
    """A Lua string, as in Fusion's settings."""
    parts = []
    for byte in text.encode("utf-8", "surrogateescape"):
        c = chr(byte)
        parts.append("\\" + c if c in '"\\' else f"\\{byte:03d}" if byte < 32 or byte == 127 else c)
    # Bytes of UTF-8 stay as they are: latin-1 made one character of each, which is undone here.
    return '"' + "".join(parts).encode("latin-1").decode("utf-8", "surrogateescape") + '"'


def python(value: object) -> str:
    """A Python literal in ASCII: texts, numbers, lists and dictionaries of them."""
    return ascii(value)


def json_text(value: object) -> str:
    """JSON in ASCII."""
    return json.dumps(value)


def _refuse_control(text: str) -> None:
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise UsageError(f"{text!r} holds a control character", remedy="rename it")
