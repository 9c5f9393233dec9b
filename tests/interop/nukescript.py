"""A Nuke script evaluated as Nuke does it: Tcl, and a stack of nodes that the next ones take their inputs from."""

from __future__ import annotations

import tkinter
from dataclasses import dataclass, field


@dataclass
class Node:
    kind: str
    knobs: dict[str, str]
    inputs: list[Node | None] = field(default_factory=list)
    user: list[list[str]] = field(default_factory=list)  # the words of its addUserKnob
    inside: list[Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.knobs.get("name", self.kind)


def evaluate(text: str) -> list[Node]:
    """The nodes of a script, in order, those of a Group in it. Raises tkinter.TclError where it is no Tcl."""
    tcl = tkinter.Tcl()
    tcl.eval("interp create -safe nuke")
    nodes: list[Node] = []
    stack: list[Node | None] = []
    outer: list[tuple[list[Node], list[Node | None]]] = []
    saved: list[Node | None] = []

    def words(value: str) -> list[str]:
        return [str(w) for w in tcl.splitlist(value)]

    def node(kind: str, body: str = "") -> str:
        nonlocal nodes, stack
        if kind == "end_group":
            nodes, stack = outer.pop()
            return ""
        listed = words(body)
        pairs = list(zip(listed[::2], listed[1::2], strict=True))
        knobs = {name: value for name, value in pairs if name != "addUserKnob"}
        user = [words(value) for name, value in pairs if name == "addUserKnob"]
        count = int(knobs.pop("inputs", "1"))
        made = Node(kind, knobs, [stack.pop() if stack else None for _ in range(count)], user)
        nodes.append(made)
        stack.append(made)
        if kind == "Group":
            outer.append((nodes, stack))
            nodes, stack = made.inside, []
        return ""

    def push(value: str) -> str:
        stack.append(None if value == "0" else saved[int(value.removeprefix("N"))])
        return ""

    def on_stack(index: str) -> str:
        if int(index) >= len(stack):
            return "0"  # pasted where nothing is selected
        saved.append(stack[-1 - int(index)])
        return f"N{len(saved) - 1}"

    tcl.createcommand("host_node", node)
    tcl.createcommand("host_push", push)
    tcl.createcommand("host_stack", on_stack)
    for name in ("node", "push", "stack"):
        tcl.eval(f"interp alias nuke host_{name} {{}} host_{name}")
    tcl.eval("interp alias nuke push {} host_push; interp alias nuke stack {} host_stack")
    tcl.eval("interp eval nuke {proc version args {}; proc add_layer args {}; proc Root args {}}")
    # Any other word that begins a command is a node's class.
    tcl.eval("interp eval nuke {proc unknown {kind args} {host_node $kind [lindex $args 0]}}")
    tcl.call("interp", "eval", "nuke", text)
    if outer:
        raise tkinter.TclError("a Group without its end_group")
    return nodes


def shown(knob: str) -> str:
    """What Nuke makes of a text knob's value: substituted as Tcl where it holds a bracket."""
    if "[" not in knob:
        return knob
    tcl = tkinter.Tcl()
    return str(tcl.call("subst", knob))
