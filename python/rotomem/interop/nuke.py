"""A Nuke script (14 or later) that reads a plate and its mattes: open it, import it, or paste its text."""

from __future__ import annotations

from collections.abc import Sequence

from rotomem.interop.footage import Footage
from rotomem.interop.quoting import nuke_path, nuke_text, tcl

_COLUMN, _ROW = 160, 110


def nuke_script(plate: Footage, mattes: Sequence[Footage]) -> str:
    """Read nodes for the plate and the mattes (raw: a matte is data), and for every object its own way out:

        Read plate ----.
        Read mattes -- Copy hero.alpha -> rgba.alpha -- Premult      (a column an object)

    The plate's Read keeps Nuke's own choice of colour space where the files name none.
    """
    lines = ["version 14.0 v1"]
    lines += _read(plate, "Plate", x=0, y=0, space=plate.space)
    lines.append("set plate [stack 0]")
    column = 0
    for i, footage in enumerate(mattes):
        layers = [m for m in footage.mattes if m.layer]
        lines += [f"add_layer {{{m.layer} {m.layer}.alpha}}" for m in layers]
        lines += _read(
            footage, f"Mattes{i + 1}" if len(mattes) > 1 else "Mattes", x=_COLUMN * (column + 1), y=0, raw=True
        )
        lines.append(f"set mattes{i} [stack 0]")
        for matte in footage.mattes:
            column += 1
            source = f"{matte.layer}.alpha" if matte.layer else "rgba.alpha" if matte.channel == "A" else "rgba.red"
            # The last node pushed is the first input: B, the plate.
            lines += [
                f"push $mattes{i}",
                "push $plate",
                *_node("Copy", 2, column, 1, from0=source, to0="rgba.alpha", label=nuke_text(matte.name)),
                *_node("Premult", 1, column, 2, label=nuke_text(matte.name)),
            ]
    return "\n".join(lines) + "\n"


def _read(footage: Footage, label: str, *, x: int, y: int, raw: bool = False, space: str = "") -> list[str]:
    knobs: dict[str, object] = {
        "file": nuke_path(footage.path),
        "first": footage.first,
        "last": footage.last,
        "origfirst": footage.first,
        "origlast": footage.last,
        "origset": "true",
        "on_error": "black",
    }
    if raw:
        knobs["raw"] = "true"
    elif space:
        knobs["colorspace"] = space
    return _block("Read", {"inputs": 0, **knobs, "name": f"Rotomem{label}", "xpos": x, "ypos": y})


def _node(kind: str, inputs: int, column: int, row: int, **knobs: object) -> list[str]:
    name = f"Rotomem{kind}{column}"
    place = {"xpos": _COLUMN * column, "ypos": _ROW * row}
    return _block(kind, {**({"inputs": inputs} if inputs != 1 else {}), **knobs, "name": name, **place})


def _block(kind: str, knobs: dict[str, object]) -> list[str]:
    return [f"{kind} {{", *(f" {name} {tcl(str(value))}" for name, value in knobs.items() if value != ""), "}"]
