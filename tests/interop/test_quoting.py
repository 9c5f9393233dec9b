"""Texts of users inside other languages, read back by those languages."""

from __future__ import annotations

import ast
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotomem.errors import UsageError
from rotomem.interop import quoting

NASTY = [
    "plain", "with space", 'quo"te', "it's", "[exec rm -rf x]", "$HOME", "a{b", "}a{", "back\\slash", "trail\\",
    "semi;colon", "#hash", "naïve 日本", "-dash", "", "\\[", "a]b[c", '"; os.system("x") #', "]]--",
]  # fmt: skip
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters="\x7f"), max_size=30)


@pytest.fixture(scope="module")
def tcl():
    tkinter = pytest.importorskip("tkinter", reason="this Python has no Tcl")
    return tkinter.Tcl()


@pytest.mark.parametrize("text", NASTY)
def test_tcl_when_a_text_is_nasty_then_it_stays_one_word(text, tcl):
    assert tcl.eval(f"set x {quoting.tcl(text) or '{}'}; set x") == text
    assert [str(w) for w in tcl.splitlist(f"knob {quoting.tcl(text)}")] == ["knob", text]


@given(TEXT)
def test_nuke_text_when_nuke_evaluates_it_then_it_is_itself(text):
    tkinter = pytest.importorskip("tkinter", reason="this Python has no Tcl")
    interpreter = tkinter.Tcl()
    knob = quoting.nuke_text(text)
    word = interpreter.eval(f"set x {quoting.tcl(knob)}; set x")
    assert word == knob
    assert ("[" in knob and interpreter.call("subst", knob) == text) or knob == text


@given(TEXT)
def test_lua_when_lua_reads_it_then_it_is_itself(text):
    lupa = pytest.importorskip("lupa.luajit21", reason="no LuaJIT here: pip install lupa")
    assert lupa.LuaRuntime(encoding="utf-8").eval(quoting.lua(text)) == text


@given(TEXT)
def test_python_and_json_when_read_then_the_text_is_itself(text):
    assert ast.literal_eval(quoting.python(text)) == text and quoting.python(text).isascii()
    assert json.loads(quoting.json_text(text)) == text


@pytest.mark.parametrize("quote", [quoting.tcl, quoting.nuke_text])
def test_tcl_when_a_name_holds_a_line_break_then_an_error(quote):
    with pytest.raises(UsageError, match="control character"):
        quote("a\nexec rm")


@pytest.mark.parametrize("path", ["/a/50%/x.%04d.exr", "/a#1/x.%04d.exr", "/a/x%V.%04d.exr"])
def test_nuke_path_when_nuke_would_take_it_for_a_frame_then_an_error_names_it(path):
    with pytest.raises(UsageError, match="another folder"):
        quoting.nuke_path(path)


def test_nuke_path_when_it_is_windows_then_slashes():
    assert quoting.nuke_path("C:\\shots\\sh 010\\x.%04d.exr") == "C:/shots/sh 010/x.%04d.exr"
