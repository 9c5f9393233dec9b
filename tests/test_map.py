"""The README's map is true: every place it names exists, every place that exists is on it, layers hold."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rotomem

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def mapped() -> dict[str, str]:
    """Path -> what the README's map says of it. Indented lines continue the folder above them."""
    block = re.search(r"## The map\n.*?```\n(.*?)```", README, re.S)
    assert block, "README.md has no map"
    places: dict[str, str] = {}
    base = ""
    for line in block[1].splitlines():
        match = re.match(r"(\s*)(\S+(?: \S+)*?)\s{2,}(\S.*)$", line)
        if not match:
            continue
        indent, names, text = match.groups()
        folder = ""
        for name in names.split():
            if not indent:
                path = name if "/" in name or not folder else folder + name
                folder = path[: path.rfind("/") + 1]
                base = folder if name.endswith("/") else base
            else:
                path = base + name if "/" in name or not folder else base + folder + name
                folder = path[len(base) : path.rfind("/") + 1]
            places[path] = text
    return places


def test_map_when_a_place_is_named_then_it_exists() -> None:
    places = mapped()
    assert len(places) > 30
    missing = [p for p in places if "<" not in p and "{" not in p and not (ROOT / p).exists()]
    assert not missing


def test_map_when_a_module_exists_then_it_is_named() -> None:
    places = set(mapped())
    folders = {p for p in places if p.endswith("/")}
    unnamed = []
    for file in sorted((ROOT / "python/rotomem").rglob("*.py")):
        path = file.relative_to(ROOT).as_posix()
        if file.name == "__init__.py" or path in places:
            continue
        # A folder may speak for its files, but only the folder right above them.
        if f"{Path(path).parent.as_posix()}/" not in folders:
            unnamed.append(path)
    assert not unnamed


def test_top_level_when_listed_then_it_holds_what_is_agreed() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in tracked.stdout.splitlines()}
    agreed = {"pyproject.toml", "README.md", "LICENSE", "Makefile", ".ci", ".gitignore"}
    assert top <= agreed | {"ext", "kernels", "host_integrations", "python", "tests"}


@pytest.mark.parametrize("name", sorted(rotomem.__all__))
def test_public_name_when_exported_then_it_has_a_docstring_and_the_readme_names_it(name: str) -> None:
    value = getattr(rotomem, name)
    assert value.__doc__ and len(value.__doc__.strip()) > 40
    assert f"`{name}`" in README or f"rotomem.{name}" in README


@pytest.mark.parametrize(
    "kernel",
    sorted(p.name for p in (ROOT / "kernels").iterdir() if p.is_dir() and p.name not in ("common", "__pycache__")),
)
def test_kernel_when_it_has_a_folder_then_it_is_complete(kernel: str) -> None:
    folder = ROOT / "kernels" / kernel
    for file in (f"{kernel}.h", f"{kernel}_cpu.cpp", "reference.py"):
        assert (folder / file).exists(), f"{kernel} lacks {file}"
    assert (ROOT / "ext" / f"bind_{kernel}.cpp").exists()
    tests = [*(ROOT / "tests/kernels").glob("test_*.py"), *(ROOT / "tests/ops").glob("test_*.py")]
    assert any(kernel in test.read_text() for test in tests), f"no test names {kernel}"
    reference = (folder / "reference.py").read_text()
    assert "rotomem" not in re.sub(r'""".*?"""|#.*', "", reference, flags=re.S), "a reference imports nothing of ours"


def test_layers_when_checked_then_no_arrow_leads_back() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout


def test_extension_when_built_then_it_links_no_torch() -> None:
    from rotomem.ops import backend

    if backend.available() == ("torch",):
        pytest.skip("the native kernels are not built")
    from rotomem import _kernels

    if sys.platform != "linux":
        pytest.skip("reads ELF")
    linked = subprocess.run(["ldd", _kernels.__file__], capture_output=True, text=True).stdout
    assert "libc.so" in linked and "torch" not in linked


def test_settings_when_read_then_torch_is_pinned_for_development_and_ranged_for_users() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    torch = [d for d in project["dependencies"] if d.startswith("torch")]
    assert torch and "==" not in torch[0]
    assert "torch==2.13.0" in project["optional-dependencies"]["dev"]
