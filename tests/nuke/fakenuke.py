"""As much of Nuke as the plug-in uses, strict: what Nuke refuses is refused; test_nuke_contract.py holds it to stubs.

Pictures are real: a Read reads EXR files, a Write writes them, a Copy copies, a Group shows what its Output gets.
Nodes may be touched in the main thread alone; what other threads ask for is done by `pump`.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from interop.nukescript import evaluate, shown
from rotomem.io.exr import read_still

Picture = dict[str, NDArray[np.float32]]
"""Channel, as Nuke calls it -> [H, W]."""


def _main() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise AssertionError("a node was touched outside of the main thread")


# Knobs ----------------------------------------------------------------------------------------------------------


class Knob:
    kinds: tuple[type, ...] = (str,)

    def __init__(self, name: str, value: Any = "", node: Any = None) -> None:
        self._name, self._value, self._node = name, value, node

    def value(self) -> Any:
        _main()
        self._node._alive()
        return self._value

    def setValue(self, val: Any, /) -> bool:  # Nuke names it after the knob's kind
        _main()
        self._node._alive()
        if type(val) not in self.kinds:
            raise TypeError(f"{self._node.name()}.{self._name} takes {self.kinds}, got {val!r}")
        self._value = self._taken(val)
        return True

    def _taken(self, val: Any) -> Any:
        return val

    def _from_script(self, text: str) -> None:
        self._value = text


class String_Knob(Knob):
    def getText(self) -> str:
        _main()
        self._node._alive()
        return self._value


class Multiline_Eval_String_Knob(String_Knob):
    def value(self) -> str:
        return shown(super().value())


class Text_Knob(Knob):
    pass


class Tab_Knob(Knob):
    pass


class Channel_Knob(Knob):
    """Takes channels that exist, as Nuke's does."""

    def _taken(self, val: str) -> str:
        known = {f"{layer}.{c}" for layer, channels in _session.layers.items() for c in channels}
        if val not in known and val not in ("alpha", "rgb", "rgba"):
            raise ValueError(f"there is no channel {val}")
        return val


class File_Knob(String_Knob):
    def getEvaluatedValue(self) -> str:
        return shown(self.value())


class Int_Knob(Knob):
    kinds = (int,)

    def _from_script(self, text: str) -> None:
        self._value = int(text)


class Boolean_Knob(Knob):
    kinds = (bool,)

    def _from_script(self, text: str) -> None:
        self._value = {"true": True, "false": False}[text]


class Array_Knob(Knob):
    kinds = (list,)


class Enumeration_Knob(Knob):
    def __init__(self, name: str, choices: Iterable[str], node: Any = None) -> None:
        self._choices = list(choices)
        super().__init__(name, self._choices[0], node)

    def values(self) -> list[str]:
        return list(self._choices)

    def _taken(self, val: str) -> str:
        if val not in self._choices:
            raise TypeError(f"{self._name} has no {val!r}, only {self._choices}")
        return val

    def _from_script(self, text: str) -> None:
        self._value = self._taken(text)


class PyScript_Knob(Knob):
    def execute(self) -> None:
        """What pressing it does."""
        _main()
        _session.this, before = self._node, _session.this
        try:
            exec(self._value, {"nuke": _session.module})
        finally:
            _session.this = before


class CurveKnob(Knob):
    rootLayer: Any = None


_USER = {
    1: String_Knob,
    2: File_Knob,
    3: Int_Knob,
    6: Boolean_Knob,
    20: Tab_Knob,
    22: PyScript_Knob,
    26: Text_Knob,
    43: Multiline_Eval_String_Knob,
}

_CHOICES = {
    "file_type": ["", "exr", "dpx"],
    "datatype": ["16 bit half", "32 bit float"],
    "compression": ["none", "Zip (1 scanline)", "Zip (16 scanlines)"],
    "frame_mode": ["expression", "start at", "offset"],
    "on_error": ["error", "black", "checkerboard", "nearest frame"],
    "localizationPolicy": ["on", "from auto-localize path", "on demand", "off"],
    "colorManagement": ["Nuke", "OCIO"],
}
_KNOBS: dict[str, dict[str, Any]] = {
    "Read": {
        "file": File_Knob,
        "first": 1,
        "last": 1,
        "origfirst": 1,
        "origlast": 1,
        "raw": False,
        "colorspace": "default (linear)",
        "frame_mode": Enumeration_Knob,
        "frame": "",
        "on_error": Enumeration_Knob,
        "localizationPolicy": Enumeration_Knob,
        "reload": PyScript_Knob,
    },
    "Write": {
        "file": File_Knob,
        "file_type": Enumeration_Knob,
        "datatype": Enumeration_Knob,
        "compression": Enumeration_Knob,
        "channels": Channel_Knob,
        "raw": False,
    },
    "Copy": {f"{end}{i}": Channel_Knob for end in ("from", "to") for i in range(4)},
    "Roto": {"curves": CurveKnob},
    "RotoPaint": {"curves": CurveKnob},
    "CheckerBoard2": {"format": ""},
    "Rectangle": {"area": Array_Knob},
    "Reformat": {},
    "Dot": {},
    "NoOp": {},
    "Group": {},
    "Input": {"number": 0},
    "Output": {},
    "Root": {
        "proxy": False,
        "first_frame": 1,
        "last_frame": 100,
        "colorManagement": Enumeration_Knob,
        "OCIO_config": "nuke-default",
        "customOCIOConfigPath": File_Knob,
        "workingSpaceLUT": "linear",
    },
}
_INPUTS = {"Copy": 2, "Read": 0, "CheckerBoard2": 0, "Input": 0}


# Nodes ----------------------------------------------------------------------------------------------------------


class Node:
    def __init__(self, kind: str, parent: Group | None) -> None:
        _main()
        if kind not in _KNOBS:
            raise RuntimeError(f"{kind}: Unknown command")
        self._kind, self._parent, self._gone = kind, parent, False
        self._inputs: list[Node | None] = [None] * _INPUTS.get(kind, 1)
        self._at = [0, 0]
        self._draw: Callable[[int], Picture] | None = None
        self._name = kind
        self._knobs: dict[str, Knob] = {}
        for name, default in _KNOBS[kind].items():
            if default is Enumeration_Knob:
                self._knobs[name] = Enumeration_Knob(name, _CHOICES[name], self)
            elif isinstance(default, type):
                self._knobs[name] = default(name, "", self)
            else:
                made = {bool: Boolean_Knob, int: Int_Knob, str: String_Knob}[type(default)]
                self._knobs[name] = made(name, default, self)
        if parent is not None:
            self._rename(f"{kind}1")
            parent._nodes.append(self)

    def _alive(self) -> None:
        _main()
        if self._gone:
            raise ValueError("A PythonObject is not attached to a node")

    def _rename(self, name: str) -> None:
        taken = {n._name for n in self._parent._nodes if n is not self} if self._parent else set()
        stem, number = re.match(r"(.*?)(\d*)$", name).groups()  # type: ignore[union-attr]
        self._name = name
        count = int(number or 0)
        while self._name in taken:
            count += 1
            self._name = f"{stem}{count}"

    def __eq__(self, other: object) -> bool:
        self._alive()
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def Class(self) -> str:
        self._alive()
        return self._kind

    def name(self) -> str:
        self._alive()
        return self._name

    def fullName(self) -> str:
        self._alive()
        above = self._parent.fullName() + "." if self._parent and self._parent._parent else ""
        return above + self._name

    def setName(self, name: str) -> None:
        self._alive()
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ValueError(f"{name!r} is no name for a node")
        self._rename(name)

    def parent(self) -> Group:
        self._alive()
        assert self._parent is not None
        return self._parent

    def knobs(self) -> dict[str, Knob]:
        self._alive()
        return dict(self._knobs)

    def __getitem__(self, name: str) -> Knob:
        self._alive()
        if name not in self._knobs:
            raise NameError(f"knob {name} does not exist")
        return self._knobs[name]

    def input(self, index: int) -> Node | None:
        self._alive()
        return self._inputs[index] if index < len(self._inputs) else None

    def setInput(self, i: int, node: Node | None) -> bool:
        self._alive()
        if i >= len(self._inputs):
            return False
        if node is not None and node._parent is not self._parent:
            raise RuntimeError("nodes of two groups cannot be connected")
        self._inputs[i] = node
        return True

    def setXYpos(self, x: int, y: int) -> None:
        self._alive()
        self._at = [int(x), int(y)]

    def xpos(self) -> int:
        self._alive()
        return self._at[0]

    def ypos(self) -> int:
        self._alive()
        return self._at[1]

    def showControlPanel(self, forceFloat: bool = False) -> None:
        self._alive()
        _session.panels.append(self._name)

    def channels(self) -> list[str]:
        self._alive()
        return sorted(_picture(self, self.firstFrame()))

    def _size(self) -> tuple[int, int]:
        picture = _picture(self, self.firstFrame())
        return next(iter(picture.values())).shape if picture else (1, 1)

    def width(self) -> int:
        self._alive()
        return self._size()[1]

    def height(self) -> int:
        self._alive()
        return self._size()[0]

    def firstFrame(self) -> int:
        self._alive()
        if self._kind == "Read":
            return int(self["first"].value())
        above = self.input(0)
        return above.firstFrame() if above is not None else _session.frame

    def lastFrame(self) -> int:
        self._alive()
        if self._kind == "Read":
            return int(self["last"].value())
        above = self.input(0)
        return above.lastFrame() if above is not None else _session.frame


class Group(Node):
    def __init__(self, kind: str, parent: Group | None) -> None:
        super().__init__(kind, parent)
        self._nodes: list[Node] = []
        self._inputs = [None, None]

    def __enter__(self) -> Group:
        self._alive()
        _session.context.append(self)
        return self

    def __exit__(self, type: Any, value: Any, traceback: Any) -> None:
        _session.context.pop()

    def nodes(self) -> list[Node]:
        self._alive()
        return list(self._nodes)

    def node(self, s: str) -> Node | None:
        self._alive()
        return next((n for n in self._nodes if n._name == s), None)


class Root(Group):
    def name(self) -> str:
        return _session.script


def _picture(node: Node | None, frame: int, view: str = "") -> Picture:
    """What a node shows; in the first view where none is asked for."""
    view = view or _session.views[0]
    if node is None:
        return {}
    kind = node.Class()
    if node._draw is not None:
        return {**_picture(node.input(0), frame, view), **node._draw(frame)}
    if kind == "Read":
        return _read(node, frame, view)
    if kind == "Copy":
        base, other = _picture(node.input(0), frame, view), _picture(node.input(1), frame, view)
        for i in range(4):
            source, target = node[f"from{i}"].value(), node[f"to{i}"].value()
            if source:
                base[target] = other.get(source, np.zeros_like(next(iter(other.values()))))
        return base
    if kind == "Group":
        assert isinstance(node, Group)
        return _picture(next(n for n in node.nodes() if n.Class() == "Output"), frame, view)
    if kind == "Input":
        return _picture(node.parent().input(node["number"].value()), frame, view)
    if kind == "CheckerBoard2":
        width, height = _session.formats[node["format"].value()]
        checks = (np.indices((height, width)) // 16).sum(0) % 2 * 0.5
        return {f"rgba.{c}": checks.astype(np.float32) for c in ("red", "green", "blue")}
    if kind == "Rectangle":
        base = _picture(node.input(0), frame, view)
        x, y, r, t = (int(v) for v in node["area"].value())
        alpha = np.zeros_like(next(iter(base.values())))
        alpha[alpha.shape[0] - t : alpha.shape[0] - y, x:r] = 1
        return {**base, "rgba.alpha": alpha}
    return _picture(node.input(0), frame, view)


_NAMES = {"R": "rgba.red", "G": "rgba.green", "B": "rgba.blue", "A": "rgba.alpha"}


def _read(node: Node, frame: int, view: str) -> Picture:
    path = _on_disk(shown(node["file"].value()), frame, view)
    if not node["first"].value() <= frame <= node["last"].value():
        raise RuntimeError(f"{node.name()}: {frame} is not one of its frames")
    picture = {}
    for name, values in read_still(path).arrays.items():
        layer, _, channel = name.rpartition(".")
        called = f"{layer}.{_NAMES[channel].rpartition('.')[2]}" if layer else _NAMES[channel]
        picture[called] = np.asarray(values, np.float32)
        _session.layers.setdefault(called.rpartition(".")[0], []).append(called.rpartition(".")[2])
    return picture


def _on_disk(pattern: str, frame: int, view: str) -> str:
    pattern = pattern.replace("%V", view).replace("%v", view[0])
    pattern = re.sub(r"%0?(\d*)d", lambda found: f"{frame:0{int(found[1] or 1)}d}", pattern)
    return re.sub(r"#+", lambda found: f"{frame:0{len(found[0])}d}", pattern)


# The module -----------------------------------------------------------------------------------------------------


class NodeConstructor:
    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, **knobs: Any) -> Node:
        above = knobs.pop("inputs", [])
        if knobs:
            raise NameError(f"knobs {list(knobs)} do not exist")
        node = (Group if self._kind == "Group" else Node)(self._kind, _session.context[-1])
        for i, one in enumerate(above):
            node.setInput(i, one)
        return node


class Nodes:
    def __getattr__(self, item: str) -> NodeConstructor:
        return NodeConstructor(item)


class Layer:
    def __init__(self, name: str, channels: list[str]) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ValueError(f"{name!r} is no name for a layer")
        _session.layers[name] = [c.removeprefix(f"{name}.") for c in channels]


class ProgressTask:
    def __init__(self, name: str) -> None:
        self._name = name
        _session.tasks.append(self)
        self.progress: list[int] = []
        self.messages: list[str] = []
        self.cancelled = False

    def isCancelled(self) -> bool:
        return self.cancelled

    def setMessage(self, message: str) -> None:
        self.messages.append(message)

    def setProgress(self, progress: int) -> None:
        assert type(progress) is int and 0 <= progress <= 100
        self.progress.append(progress)


class Undo:
    @classmethod
    def disable(cls) -> None:
        _session.undo_off += 1

    @classmethod
    def enable(cls) -> None:
        _session.undo_off -= 1

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, type: Any, value: Any, traceback: Any) -> None:
        return None


class Menu:
    def __init__(self) -> None:
        self.commands: dict[str, Any] = {}

    def addMenu(self, name: str) -> Menu:
        return _session.menus.setdefault(name, Menu())

    def addCommand(self, name: str, command: Any) -> None:
        self.commands[name] = command


def root() -> Root:
    return _session.root


def views() -> list[str]:
    return list(_session.views)


def frame(f: int | None = None) -> int:
    if f is not None:
        _session.frame = int(f)
    return _session.frame


def layers(node: Node | None = None) -> list[str]:
    return sorted(_session.layers)


def sample(node: Node, channel: str, x: int, y: int) -> float:
    node._alive()
    values = _picture(node, _session.frame)[channel]
    return float(values[values.shape[0] - 1 - y, x])


def filename(node: Node, i: int = 0) -> str | None:
    if _session.root["proxy"].value():
        return "/proxies/of/it.%04d.exr"
    return shown(node["file"].value()) or None


def delete(n: Node) -> None:
    n._alive()
    if n._parent is not None:
        n._parent._nodes = [other for other in n._parent._nodes if other is not n]
        for other in n._parent._nodes:
            other._inputs = [None if above is n else above for above in other._inputs]
    n._gone = True


def execute(nameOrNode: Node, start: int, end: int, incr: int = 1, views: list[str] | None = None) -> None:
    _main()
    node = nameOrNode
    if node.Class() != "Write":
        raise RuntimeError(f"{node.name()} cannot be executed")
    if _session.root["proxy"].value():
        raise AssertionError("written in proxy mode")
    for view in views or _session.views:
        for f in range(start, end + 1, incr):
            _write(node, f, view)


def _write(node: Node, f: int, view: str) -> None:
    if node["file_type"].value() != "exr" or node["raw"].value() is not True:
        raise AssertionError("the fake writes raw EXR")
    wanted = {"alpha": ["A"], "rgb": ["R", "G", "B"]}[node["channels"].value()]
    picture = _picture(node.input(0), f, view)
    if not picture:
        raise RuntimeError(f"{node.name()}: no input")
    empty = np.zeros_like(next(iter(picture.values())))
    pixels = np.stack([picture.get(_NAMES[name], empty) for name in wanted], 2).astype(np.float16)
    path = _on_disk(shown(node["file"].value()), f, view)
    spec = oiio.ImageSpec(pixels.shape[1], pixels.shape[0], len(wanted), "half")
    spec.channelnames = wanted
    spec.attribute("compression", "zips")
    out = oiio.ImageOutput.create(path)
    if not out or not out.open(path, spec):
        raise RuntimeError(f"{path}: {oiio.geterror()}")
    out.write_image(pixels)
    out.close()
    _session.written.append(path)


def nodePaste(s: str) -> Node:
    made: Node | None = None
    for described in evaluate(Path(s).read_text()):
        assert described.kind == "Group"
        made = Group("Group", _session.context[-1])
        for words in described.user:
            kind, name, rest = int(words[0]), words[1], words[2:]
            flags = dict(zip(*[iter([w for w in rest if not w.startswith(("+", "-"))])] * 2, strict=True))
            if kind == 4:
                made._knobs[name] = Enumeration_Knob(name, flags["M"].split(), made)
            else:
                made._knobs[name] = _USER[kind](name, flags.get("T", 0 if kind == 3 else ""), made)
        for name, value in described.knobs.items():
            if name in made._knobs:
                made._knobs[name]._from_script(value)
            elif name == "name":
                made.setName(value)
            elif name not in ("help", "tile_color"):
                raise NameError(f"knob {name} does not exist")
        inner = {}
        with made:
            for one in described.inside:
                node = inner[id(one)] = Node(one.kind, made)
                node.setName(one.knobs["name"])
                if "number" in one.knobs:
                    node["number"].setValue(int(one.knobs["number"]))
                for i, above in enumerate(one.inputs):
                    node.setInput(i, inner[id(above)] if above else None)
    assert made is not None
    return made


def addFormat(s: str) -> None:
    width, height, name = s.split()
    _session.formats[name] = int(width), int(height)


def menu(name: str) -> Menu:
    return _session.menus.setdefault(name, Menu())


def message(prompt: str) -> None:
    _main()
    _session.messages.append(prompt)


def tprint(*args: Any) -> None:
    _session.printed.append(" ".join(map(str, args)))


def thisNode() -> Node:
    return _session.this


def executeInMainThread(call: Callable[..., Any], args: Any = (), kwargs: Any = None) -> None:
    _session.asked.put((call, args if isinstance(args, tuple) else (args,), kwargs or {}))


class Session(SimpleNamespace):
    """What is open in this Nuke; `module` is what `import nuke` gives."""

    def pump(self, until: Callable[[], bool], timeout_s: float = 60) -> None:
        """Nuke's event loop: do what other threads asked for until something is so."""
        end = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < end, "it did not happen"
            self.turn(0.02)

    def turn(self, wait_s: float = 0) -> None:
        """One turn of it: one thing that another thread asked for, where there is one."""
        try:
            call, args, kwargs = self.asked.get(timeout=wait_s) if wait_s else self.asked.get_nowait()
        except queue.Empty:
            return
        call(*args, **kwargs)

    def make(self, kind: str, *inputs: Node, draw: Callable[[int], Picture] | None = None, **knobs: Any) -> Node:
        """A node as an artist makes it; `draw` is its picture, beside that of its input."""
        node = getattr(Nodes(), kind)(inputs=list(inputs))
        node._draw = draw
        for name, value in knobs.items():
            node[name].setValue(value)
        return node


_session: Session = Session()

PUBLIC = (
    *("Group", "Layer", "Node", "Nodes", "ProgressTask", "Undo", "Menu", "Knob", "String_Knob"),
    *("Multiline_Eval_String_Knob", "Text_Knob", "Tab_Knob", "Channel_Knob", "File_Knob", "Int_Knob"),
    *("Boolean_Knob", "Array_Knob", "Enumeration_Knob", "PyScript_Knob", "NodeConstructor", "Root", "root"),
    *("views", "frame", "layers", "sample", "filename", "delete", "execute", "nodePaste", "addFormat", "menu"),
    *("message", "tprint", "thisNode", "executeInMainThread"),
)


def start(*, gui: bool, script: str = "", version: str = "15.0v4", executable: str = "/opt/Nuke/Nuke15.0") -> Session:
    """A new Nuke with nothing in it."""
    global _session
    module = ModuleType("nuke")
    rotopaint = ModuleType("nuke.rotopaint")
    _session = Session(
        module=module,
        rotopaint=rotopaint,
        context=[],
        this=None,
        script=script,
        views=["main"],
        frame=1001,
        layers={"rgba": ["red", "green", "blue", "alpha"]},
        formats={},
        menus={},
        messages=[],
        printed=[],
        written=[],
        tasks=[],
        panels=[],
        undo_off=0,
        asked=queue.Queue(),
    )
    _session.root = Root("Root", None)
    _session.context.append(_session.root)
    for name in PUBLIC:
        setattr(module, name, globals()[name])
    for kind in (Element, RotoLayer, Shape, Stroke):
        setattr(rotopaint, kind.__name__.removeprefix("Roto"), kind)
    module.rotopaint = rotopaint  # type: ignore[attr-defined]
    module.nodes = Nodes()  # type: ignore[attr-defined]
    module.GUI = gui  # type: ignore[attr-defined]
    module.NUKE_VERSION_STRING = version  # type: ignore[attr-defined]
    module.env = {"ExecutablePath": executable}  # type: ignore[attr-defined]
    module.__path__ = []  # so that `import nuke.rotopaint` works
    return _session


# Shapes ---------------------------------------------------------------------------------------------------------


class Keyed:
    """A point, or a transform, with keys."""

    def __init__(self, times: Iterable[float] = ()) -> None:
        self._times = [float(t) for t in times]


class AnimControlPoint(Keyed):
    def getControlPointKeyTimes(self, view: str = "main") -> list[float]:
        return list(self._times)


class AnimCTransform(Keyed):
    def getTransformKeyTimes(self, view: str = "main") -> list[float]:
        return list(self._times)


class ShapeControlPoint:
    def __init__(self, times: Iterable[float]) -> None:
        self.center = AnimControlPoint(times)
        self.leftTangent = self.rightTangent = self.featherCenter = AnimControlPoint()


class Element:
    def __init__(self, parts: Iterable[Any] = (), moved: Iterable[float] = ()) -> None:
        self._parts, self._transform = list(parts), AnimCTransform(moved)

    def __iter__(self) -> Any:
        return iter(self._parts)


class _Moved(Element):
    def getTransform(self) -> AnimCTransform:
        return self._transform


class RotoLayer(_Moved):
    pass


class Shape(_Moved):
    pass


class Stroke(_Moved):
    pass


def shape(*times: float, moved: Iterable[float] = ()) -> Shape:
    """A shape whose points are keyed on these frames."""
    return Shape([ShapeControlPoint(times), ShapeControlPoint(times[:1])], moved)
