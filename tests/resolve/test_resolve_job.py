"""rotomem.lua alone: JSON, shells, job folders, and an engine that misbehaves."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

LIBRARY = Path(__file__).parents[2] / "host_integrations" / "resolve" / "Modules" / "Lua" / "rotomem.lua"


@pytest.fixture(scope="module")
def raw():
    """rotomem.lua in a LuaJIT whose strings are bytes."""
    luajit = pytest.importorskip("lupa.luajit21", reason="no LuaJIT here: pip install lupa")
    return luajit.LuaRuntime(encoding=None, unpack_returned_tuples=True)


@pytest.fixture(scope="module")
def rotomem(raw):
    return raw.execute(LIBRARY.read_bytes())


def plain(value):
    """A table of Lua's as Python's values."""
    if isinstance(value, bytes):
        return value.decode()
    if not hasattr(value, "items"):
        return value
    pairs = {plain(k): plain(v) for k, v in value.items()}
    return [pairs[i] for i in sorted(pairs)] if pairs and all(isinstance(k, int) for k in pairs) else pairs


VALUES = st.recursive(
    st.text(max_size=20) | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.floats(-1e9, 1e9),
    lambda some: (
        st.lists(some, min_size=1, max_size=4)
        | st.dictionaries(st.text("ab é", min_size=1), some, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


@given(st.binary(max_size=20))
def test_encode_when_bytes_are_any_then_python_reads_the_same_path(rotomem, path):
    assert os.fsencode(json.loads(rotomem.encode(path))) == path
    assert rotomem.decode(rotomem.encode(path)) == path


@given(VALUES)
def test_decode_when_python_wrote_it_then_the_value_is_the_same(rotomem, value):
    assert plain(rotomem.decode(json.dumps(value).encode())) == value
    assert plain(rotomem.decode(rotomem.encode(rotomem.decode(json.dumps(value).encode())))) == value


@pytest.mark.parametrize("text", ["", "{", '{"a":1,}', "[1 2]", '"\\x"', '"\\ud8', "[" * 500, "{} {}", "nul", "-"])
def test_decode_when_it_is_no_json_then_nothing_and_why(rotomem, text):
    value, why = rotomem.decode(text.encode())
    assert value is None and why


@given(st.binary(min_size=1, max_size=30).filter(lambda b: not set(b) & {0, 10, 13}))
@settings(max_examples=60, deadline=None)
def test_quote_when_sh_reads_it_then_one_word_of_the_same_bytes(rotomem, path):
    line = b"printf '[%s]' " + rotomem.quote(path, False)
    assert subprocess.run([b"sh", b"-c", line], capture_output=True).stdout == b"[" + path + b"]"


@pytest.mark.parametrize("path", [b'a"&calc', b"%PATH%", b"a\nb", b"a\0b"])
def test_quote_when_cmd_would_read_more_than_a_word_then_an_error(rotomem, path):
    with pytest.raises(Exception, match=r"folder|line break"):
        rotomem.quote(path, True)


def test_command_when_windows_then_paths_are_quoted_and_the_first_word_is_not(rotomem):
    line = rotomem.command(b'"C:\\P Y\\python.exe" -I -m rotomem', b"C:/Jobs & Co (x)", True).decode()
    assert line.startswith('set "PYTHONPATH=" & ') and line.count('"') % 2 == 0
    assert 'cmd /s /c ""C:\\P Y\\python.exe" -I -m rotomem worker --job "C:/Jobs & Co (x)" > "C:/Jobs' in line


@pytest.mark.parametrize(
    ("protocol", "out", "said"),
    [
        (2, "x", "9.9\\) speaks protocol 2, these scripts speak 1: update the plug-in"),
        (1, "dies", r"the engine has ended \(exit code 9\): z+ the graphics card is gone; start again"),
    ],
)
def test_job_when_the_engine_is_another_or_dies_then_the_panel_says_so(
    start, stand_in, tmp_path, protocol, out, said
):
    session = start(stand_in(protocol))
    job = session.lua.eval(
        "function(folder, out) local r = require('rotomem') "
        "return r.wait(r.start(r.settings(), {['do']='track', out=out}, folder), function() end) end"
    )(str(tmp_path), out)
    assert job.state == "error"
    assert re.search(said, job.problem) and len(job.problem) < 800


def test_job_when_lines_are_garbage_or_half_then_only_events_count(start, stand_in, tmp_path):
    session = start(stand_in())
    texts: list[str] = []
    job = session.lua.eval(
        "function(folder, show) local r = require('rotomem') "
        "return r.wait(r.start(r.settings(), {['do']='track', out='garbage short'}, folder), show) end"
    )(str(tmp_path), lambda text, share, new: texts.append(text) or False)
    assert (job.state, job.last.done, job.problem) == ("done", 20, None)
    assert any(re.match(r"frame \d+ \(\d+/500\), 50.0 frames a second", t) for t in texts)


def test_job_when_the_engine_is_missing_then_the_remedy_is_said(start, tmp_path, monkeypatch):
    session = start(str(tmp_path / "gone" / "python"))
    ask = session.lua.eval("function() local r = require('rotomem') return pcall(r.engine, r.settings()) end")
    fine, said = ask()
    assert not fine and "gone/python is not there: choose the Python that rotomem is installed in" in said
    monkeypatch.setenv("ROTOMEM_PYTHON", str(tmp_path / "other"))
    assert "other is not there" in ask()[1]
