"""The fake claims nothing that Nuke does not have: it is held to the stubs of the package types-nuke."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType

import fakenuke
import pytest

FILES = ("_nuke", "executeInMain", "overrides", "utils", "_curveknob", "_curvelib")


def stubs() -> Path:
    spec = importlib.util.find_spec("nuke-stubs")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("no types-nuke here: pip install 'rotomem[dev]'")
    return Path(spec.submodule_search_locations[0])


class Stub:
    """Classes, functions and constants that the stubs tell of."""

    def __init__(self, folder: Path) -> None:
        self.classes: dict[str, ast.ClassDef] = {}
        self.functions: dict[str, list[ast.FunctionDef]] = {}
        self.values: set[str] = set()
        for file in FILES:
            for node in ast.parse((folder / f"{file}.pyi").read_text()).body:
                if isinstance(node, ast.ClassDef):
                    # Layer is Nuke's, and another one RotoPaint's.
                    self.classes[f"rotopaint.{node.name}" if file.startswith("_curve") else node.name] = node
                elif isinstance(node, ast.FunctionDef):
                    self.functions.setdefault(node.name, []).append(node)
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    self.values.add(node.target.id)

    def methods(self, name: str) -> dict[str, list[ast.FunctionDef]]:
        found: dict[str, list[ast.FunctionDef]] = {}
        prefix = "rotopaint." if name.startswith("rotopaint.") else ""
        for base in self.classes[name].bases:
            if isinstance(base, ast.Name) and prefix + base.id in self.classes:
                found.update(self.methods(prefix + base.id))
        for node in self.classes[name].body:
            if isinstance(node, ast.FunctionDef):
                found[node.name] = [*found.get(node.name, []), node] if node.decorator_list else [node]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = []
        return found


def differences(name: str, fake: Callable[..., object], stub: list[ast.FunctionDef]) -> Iterator[str]:
    """How the parameters of the fake differ from every overload of the stub."""
    said = [why for one in stub if (why := _difference(fake, one))]
    if stub and len(said) == len(stub):
        yield f"{name}: {said[0]}"


def _difference(fake: Callable[..., object], stub: ast.FunctionDef) -> str:
    if stub.args.vararg is not None:
        return ""
    theirs = [a.arg for a in stub.args.args if a.arg != "self"]
    needed = len(theirs) - len(stub.args.defaults)
    mine = [p for p in inspect.signature(fake).parameters.values() if p.name not in ("self", "cls")]
    if len(mine) > len(theirs) or any(
        p.name != t for p, t in zip(mine, theirs, strict=False) if p.kind is not p.POSITIONAL_ONLY
    ):
        return f"takes {[p.name for p in mine]}, Nuke takes {theirs}"
    if len(mine) < needed:
        return f"takes {len(mine)} arguments, Nuke needs {needed}"
    for i, p in enumerate(mine):
        if i < needed and p.default is not p.empty:
            return f"{p.name} may be left out, in Nuke not"
    return ""


def test_fake_when_held_to_the_stubs_then_it_claims_nothing_more() -> None:
    stub = Stub(stubs())
    wrong: list[str] = []
    classes = {n: getattr(fakenuke, n) for n in fakenuke.PUBLIC if inspect.isclass(getattr(fakenuke, n))}
    classes |= {
        f"rotopaint.{n}": getattr(fakenuke, n)
        for n in ("Element", "Shape", "Stroke", "ShapeControlPoint", "AnimControlPoint", "AnimCTransform")
    }
    classes["rotopaint.Layer"] = fakenuke.RotoLayer
    for name, cls in classes.items():
        assert name in stub.classes, name
        theirs = stub.methods(name)
        for method, value in ((m, v) for base in cls.__mro__[:-1] for m, v in vars(base).items()):
            plain = value.__func__ if isinstance(value, classmethod) else value
            private = method.startswith("_") and method not in ("__getitem__", "__enter__")
            if private or not isinstance(plain, FunctionType):
                continue
            if method not in theirs:
                wrong.append(f"{name}.{method} is not in Nuke")
            else:
                wrong += differences(f"{name}.{method}", plain, theirs[method])
    for name in fakenuke.PUBLIC:
        if name in classes:
            continue
        if name not in stub.functions:
            wrong.append(f"{name} is not in Nuke")
        else:
            wrong += differences(name, getattr(fakenuke, name), stub.functions[name])
    assert {"GUI", "NUKE_VERSION_STRING", "env", "nodes"} <= stub.values
    assert not wrong


def test_contract_when_a_fake_lies_then_it_is_told() -> None:
    stub = Stub(stubs())

    def delete(node: object) -> None: ...
    def frame(f: int = 0, g: int = 0) -> int: ...
    def setXYpos(self: object, x: int) -> None: ...

    assert list(differences("delete", delete, stub.functions["delete"]))
    assert list(differences("frame", frame, stub.functions["frame"]))
    assert list(differences("setXYpos", setXYpos, stub.methods("Node")["setXYpos"]))
    assert "nodeFromText" not in stub.functions and "setPercent" not in stub.methods("ProgressTask")
