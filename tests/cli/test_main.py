"""The command line as a whole: verbs, exit codes, one-line errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

import rotomem.cli
from engine.shots import plate
from rotomem.cli import main


def test_main_when_help_then_verbs_and_exit_codes_are_told(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for word in ("track", "info", "130"):
        assert word in said


@pytest.mark.parametrize("verb", [*rotomem.cli._VERBS, "train finetune"])
def test_main_when_help_of_a_verb_then_its_example_can_be_pasted(verb, capsys):
    assert main([*verb.split(), "--help"]) == 0
    assert "%%" not in capsys.readouterr().out


def test_main_when_help_then_torch_is_not_imported():
    """What makes --help quick: the verbs import the engine when they run."""
    code = "import sys; from rotomem.cli import main; main(['track', '--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_main_when_version_then_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"rotomem {rotomem.__version__}"


@pytest.mark.parametrize("argv", [[], ["no-such-verb"], ["track"], ["track", "x"], ["track", "x", "--size", "0"]])
def test_main_when_arguments_are_wrong_then_2(argv, capsys):
    assert main(argv) == 2
    assert capsys.readouterr().err


def test_main_when_something_unexpected_happens_then_one_line_and_1(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("ROTOMEM_DEBUG", raising=False)

    def broken(*_, **__):
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr("rotomem.io.plate.open_plate", broken)
    assert main(["info", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "ZeroDivisionError: a b" in said and "--debug" in said


@pytest.mark.parametrize("how", ["flag before", "flag after", "environment"])
def test_main_when_debug_then_the_error_itself(tmp_path, monkeypatch, how):
    argv = ["info", str(tmp_path / "none.exr")]
    if how == "environment":
        monkeypatch.setenv("ROTOMEM_DEBUG", "1")
    else:
        argv = ["--debug", *argv] if how == "flag before" else [*argv, "--debug"]
    with pytest.raises(rotomem.cli.RotomemError):
        main(argv)


def test_main_when_interrupted_then_130(tmp_path, monkeypatch, capsys):
    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("rotomem.io.plate.open_plate", pressed)
    assert main(["info", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "rotomem: interrupted\n"


def test_main_when_ctrl_c_breaks_an_import_then_130(tmp_path, monkeypatch, capsys):
    """NumPy and torch turn an interrupted import into an ImportError."""

    def half_imported(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ImportError("cannot import name") from None

    monkeypatch.setattr("rotomem.io.plate.open_plate", half_imported)
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        assert main(["info", str(tmp_path)]) == 130
        assert capsys.readouterr().err == "rotomem: interrupted\n"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("verb", ["info {plate}", "info {plate} --json", "--version"])
def test_main_when_stdout_is_full_then_1_and_quiet(tmp_path, verb):
    argv = verb.replace("{plate}", plate(tmp_path, [1001])).split()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rotomem", *argv], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 1 and done.stderr == ""


def test_main_when_memory_is_exhausted_then_says_what_helps(tmp_path, monkeypatch, capsys):
    def hungry(*_, **__):
        raise MemoryError

    monkeypatch.setattr("rotomem.io.plate.open_plate", hungry)
    assert main(["info", str(tmp_path)]) == 1
    assert "--size" in capsys.readouterr().err


def test_module_when_the_reader_goes_away_then_no_traceback(tmp_path):
    command = f"{sys.executable} -m rotomem --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
