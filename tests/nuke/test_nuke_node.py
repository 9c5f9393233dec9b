"""The node's description, its text, the Objects knob; what the plug-in's files may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from interop.nukescript import evaluate
from rotomem.cli import main
from rotomem.host.install import adapters_folder, install_nuke
from rotomem.interop.quoting import nuke_text

SOURCE = adapters_folder() / "nuke"
FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_plugin_when_read_then_it_is_python_3_9_and_imports_nothing_else(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level}
    allowed = {"nuke", "rotomem_nuke", "__future__", *sys.stdlib_module_names}
    assert {name.partition(".")[0] for name in imported} <= allowed


def test_script_when_evaluated_then_it_is_the_description(start) -> None:
    nuke = start()
    node = nuke.plugin.node
    assert Path(node.SCRIPT).read_text() == node.script() == (SOURCE / "rotomem_nuke" / "Rotomem.nk").read_text()
    [group] = evaluate(node.script())
    assert group.kind == "Group" and len(group.inputs) == 2
    told = {words[1]: (int(words[0]), words) for words in group.user}
    assert list(told) == [knob.name for knob in node.KNOBS]
    for knob in node.KNOBS:
        kind, words = told[knob.name]
        assert kind == knob.kind
        if knob.kind not in (node.TAB, node.TEXT):
            assert words[words.index("t") + 1] == knob.tooltip != ""
        if knob.choices:
            assert words[words.index("M") + 1].split() == list(knob.choices) and knob.value in knob.choices
        if knob.code:
            tree = ast.parse(words[words.index("T") + 1])
            called = [n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call)]
            assert called[0] in nuke.plugin.__all__
        elif knob.value and knob.kind != node.TEXT:
            assert group.knobs[knob.name] == knob.value
    assert [(n.kind, n.name, n.knobs.get("number")) for n in group.inside] == [
        ("Input", "mask", "1"),
        ("Input", "plate", "0"),
        ("Output", "Output1", None),
    ]
    assert group.inside[-1].inputs[0].name == "plate"


@pytest.mark.parametrize(
    ("line", "name", "source", "frames"),
    [
        ("hero", "hero", "", None),
        ("hero @ 1001, 1050 1060-1070x5", "hero", "", [1001, 1050, 1060, 1065, 1070]),
        ("car 2 = mask.red @ -5", "car 2", "mask.red", [-5]),
        ("van = /show/@x/van 1.1001.exr", "van", "/show/@x/van 1.1001.exr", None),
        ("bus = Roto2 @", "bus", "Roto2", None),
        ("große Tür=C:\\a\\t.%04d.exr@1001", "große Tür", "C:\\a\\t.%04d.exr", [1001]),
    ],
)
def test_objects_when_written_then_they_are_read(start, line, name, source, frames) -> None:
    objects = start().plugin.host
    assert objects.read_objects(f"\n {line} \n") == [(name, source, frames)]


@pytest.mark.parametrize(
    ("text", "said"), [("", "no object"), ("a\nb\na", "'a'"), ("= x", "NAME"), ("a @ 5-x3", "5-x3")]
)
def test_objects_when_wrong_then_the_line_is_named(start, text, said) -> None:
    host = start().plugin.host
    with pytest.raises(host.HostProblem, match=said):
        host.read_objects(text)


def test_paths_when_they_hold_tcl_then_both_quote_them_alike(start) -> None:
    host = start().plugin.host
    for text in ("/a b/c.exr", "/a[b]/$c.exr", 'C:\\x"{y}', "/é/[exit]"):
        assert host.tcl_text(text) == nuke_text(text)


def test_install_when_repeated_then_what_is_there_stays(tmp_path: Path) -> None:
    init = tmp_path / "init.py"
    init.write_text("x = 1")
    install_nuke(tmp_path)
    once = init.read_text()
    install_nuke(tmp_path)
    assert init.read_text() == once == 'x = 1\nimport nuke\nnuke.pluginAddPath("./rotomem")\n'
    assert (tmp_path / "rotomem" / "rotomem_nuke" / "client.py").is_file()
    assert (tmp_path / "rotomem" / "rotomem_nuke" / "engine.txt").read_text().strip() == sys.executable


def test_install_when_it_cannot_be_then_nothing_is_touched_and_it_says_what_to_do(tmp_path: Path, capsys) -> None:
    (tmp_path / "rotomem").mkdir()
    (tmp_path / "rotomem" / "precious").touch()
    for user in (tmp_path, Path("/proc/nope")):
        assert main(["hosts", "install", "nuke", "--user", str(user)]) == 1
        assert "--user" in capsys.readouterr().err
    assert (tmp_path / "rotomem" / "precious").exists() and not (tmp_path / "init.py").exists()


def test_types_when_checked_against_the_stubs_then_they_hold(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    install_nuke(tmp_path)
    package = tmp_path / "rotomem"
    (package / "bad.py").write_text(
        "import nuke\nnuke.nodeFromText('x')\nnuke.ProgressTask('x').setPercent(3)\nnuke.message(text='x')\n"
    )
    # One run for both: what is wrong on purpose shows that the stubs are looked at.
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--python-version", "3.11"]
    done = subprocess.run(
        [*command, "--cache-dir", str(tmp_path / "cache"), "-p", "rotomem_nuke", "-m", "bad"],
        cwd=package,
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len([line for line in lines if line.startswith("bad.py")]) >= 3, done.stdout + done.stderr
    assert not [line for line in lines if not line.startswith("bad.py")], done.stdout
