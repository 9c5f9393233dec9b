"""The Rotomem node, described once: its knobs, and the text that Nuke makes it from.

python node.py    writes Rotomem.nk, a Group: farms render scripts that hold it without this plug-in
"""

from __future__ import annotations

import os
from dataclasses import dataclass

STRING, FILE, INT, CHOICE, BOOL, TAB, BUTTON, TEXT, LINES = 1, 2, 3, 4, 6, 20, 22, 26, 43
"""Kinds of knobs, by the numbers that scripts know them by."""

FOLDER = os.path.dirname(os.path.abspath(__file__))
SCRIPT = os.path.join(FOLDER, "Rotomem.nk")
PLATE, MASK = "plate", "mask"
"""The node's inputs, in this order."""


@dataclass(frozen=True)
class Knob:
    """A knob of the node: `value` is its default, `choices` those of a CHOICE, `code` what a BUTTON does."""

    name: str
    kind: int
    label: str
    tooltip: str = ""
    value: str = ""
    choices: tuple[str, ...] = ()
    code: str = ""
    new_line: bool = True


def _button(name: str, label: str, code: str, tooltip: str, new_line: bool = False) -> Knob:
    return Knob(name, BUTTON, label, tooltip, code=f"import rotomem_nuke; rotomem_nuke.{code}", new_line=new_line)


KNOBS = (
    Knob("rotomem", TAB, "Rotomem"),
    Knob(
        "objects",
        LINES,
        "Objects",
        "One object a line: NAME = SOURCE @ FRAMES. SOURCE is a channel of the mask input (rgba.alpha where none is "
        "given), the name of a node whose alpha is meant, or a file: a matte or splines. FRAMES are the key frames, "
        "such as 1001 1050; without them the keys of the Roto above, else the current frame. "
        "Examples: hero / car = mask.red @ 1001 1050 / bus = Roto2 / van = /show/van.1001.exr",
        value="hero",
    ),
    Knob(
        "source",
        CHOICE,
        "Plate",
        "file: the files of the Read at the plate input, full size, as the engine reads them. input: what arrives at "
        "the plate input, rendered once into the output folder; for movies, retimes, reformats and the like.",
        value="file",
        choices=("file", "input"),
    ),
    _button(
        "render",
        "Render input",
        "render_plate(nuke.thisNode())",
        "Render the plate input again, for Plate: input. Tracking renders it only where frames are missing.",
    ),
    Knob(
        "range",
        CHOICE,
        "Range",
        "Frames to track: all of the plate, the project's range, or the two numbers.",
        value="plate",
        choices=("plate", "project", "custom"),
    ),
    Knob("first", INT, "", "First frame, for Range: custom.", value="1001", new_line=False),
    Knob("last", INT, "", "Last frame, for Range: custom.", value="1100", new_line=False),
    Knob(
        "missing",
        CHOICE,
        "Missing",
        "Frames of the plate that are not on disk. error: say so. skip: no matte. hold: the frame before. black.",
        value="error",
        choices=("error", "skip", "hold", "black"),
    ),
    Knob(
        "views",
        STRING,
        "Views",
        "Views to track, each by itself, such as: left right. Empty: one result for all views, made from the first.",
    ),
    Knob("model", STRING, "Model", "A bundled model, or the path of a checkpoint.", value="xmem-s"),
    Knob(
        "size",
        INT,
        "Size",
        "Shorter side of the picture that the network sees, in pixels; more is finer and slower. 0: the plate's own.",
        value="480",
    ),
    Knob(
        "edge",
        CHOICE,
        "Edge",
        "guided: edges follow the plate's colours at full size. learned: the network's own refinement. off: neither.",
        value="guided",
        choices=("guided", "learned", "off"),
    ),
    Knob(
        "crypto",
        BOOL,
        "Cryptomatte",
        "Write a Cryptomatte too. It holds metadata that the node's output does not carry: press Make Reads and use "
        "the Read of the Cryptomatte.",
        value="false",
    ),
    Knob(
        "folder",
        FILE,
        "Output",
        "Folder for mattes and keys. Empty: rotomem/NAME OF THIS NODE beside the script.",
    ),
    Knob("line", TEXT, ""),
    _button(
        "track_backward",
        "Track backward",
        "track(nuke.thisNode(), 'backward')",
        "From each key towards earlier frames.",
        new_line=True,
    ),
    _button(
        "track_both",
        "Track both",
        "track(nuke.thisNode(), 'both')",
        "Every frame; between two keys both passes are blended. Frames that are done already are kept.",
    ),
    _button(
        "track_forward", "Track forward", "track(nuke.thisNode(), 'forward')", "From each key towards later frames."
    ),
    _button(
        "track_segment",
        "Track segment",
        "track(nuke.thisNode(), 'both', segment=True)",
        "Only the frames between the two keys around the current frame.",
    ),
    _button(
        "cancel",
        "Cancel",
        "cancel(nuke.thisNode())",
        "Stop when the frame begun is whole. Tracking again goes on.",
        new_line=True,
    ),
    _button("clear", "Clear", "clear(nuke.thisNode())", "Let the plate through again. Files stay on disk."),
    _button(
        "make_reads",
        "Make Reads",
        "make_reads(nuke.thisNode())",
        "A Read beside this node for every sequence that was written: mattes, Cryptomatte.",
    ),
    Knob("status", TEXT, "Status", value="Connect plate and mask, then Track."),
    Knob("engine_tab", TAB, "Engine"),
    Knob(
        "engine",
        FILE,
        "Engine",
        "The Python that rotomem is installed in, its environment's folder, or the rotomem command. Empty: "
        "ROTOMEM_PYTHON, the one that installed this plug-in, then the PATH. Never Nuke's own Python.",
    ),
    _button("check", "Check", "check(nuke.thisNode())", "Start the engine and say which one it is."),
    _button(
        "release",
        "Close",
        "release(nuke.thisNode())",
        "End the engine: its model stays in memory from the first track on, so that the next begins at once.",
    ),
)

HELP = "Mattes for every frame from the key masks at the mask input. The first object's matte is the alpha."


def script() -> str:
    """The node as a script to paste: a Group that lets the plate through until there are mattes."""
    lines = ["set cut_paste_input [stack 0]", "version 14.0 v1", "push 0", "push $cut_paste_input"]
    lines += ["Group {", " inputs 2", " name Rotomem1", f" help {_word(HELP)}", " tile_color 0x3f6f5fff"]
    for knob in KNOBS:
        lines += _user_knob(knob)
    lines += ["}"]
    # The last one made is what the Output takes: the plate.
    for number, name in ((1, MASK), (0, PLATE)):
        lines += [" Input {", "  inputs 0", f"  name {name}", f"  number {number}", f"  xpos {number * 200}", " }"]
    lines += [" Output {", "  name Output1", "  ypos 400", " }", "end_group", ""]
    return "\n".join(lines)


def _user_knob(knob: Knob) -> list[str]:
    words = [str(knob.kind), knob.name]
    if knob.label or knob.kind in (TEXT, INT):
        words += ["l", _word(knob.label)]
    if knob.tooltip:
        words += ["t", _word(knob.tooltip)]
    if knob.choices:
        words += ["M", "{" + " ".join(knob.choices) + "}"]
    if knob.code:
        words += ["T", _word(knob.code)]
    if knob.kind == TEXT and knob.value:
        words += ["T", _word(knob.value)]
    if not knob.new_line:
        words.append("-STARTLINE")
    elif knob.kind in (BUTTON, TEXT):
        words.append("+STARTLINE")
    lines = [f" addUserKnob {{{' '.join(words)}}}"]
    if knob.value and knob.kind != TEXT:
        lines.append(f" {knob.name} {_word(knob.value)}")
    return lines


def _word(text: str) -> str:
    """A word of the script. What is written here needs no escapes, and may not hold what would."""
    if set(text) & set('[]{}$\\"\n'):
        raise ValueError(f"{text!r} cannot stand in a script as it is")
    return f'"{text}"' if not text or set(text) & set(" ;#") else text


if __name__ == "__main__":
    with open(SCRIPT, "w", encoding="ascii", newline="\n") as file:
        file.write(script())
