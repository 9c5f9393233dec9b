"""`rotomem track` as a user or a farm calls it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from engine.shots import HEIGHT, WIDTH, checkpoint, digests, disc, label_key, matte, picture, plate, soft_key, write
from rotomem.cli import _parser, main
from rotomem.cli.track import options_of
from rotomem.engine.options import TrackOptions

FAST = ["--size", "32", "--mem-every", "2"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def shot(tmp_path, weights) -> list[str]:
    """Arguments of a run of eight frames into OUT, without --out."""
    return ["track", plate(tmp_path / "plate"), "--mask", label_key(tmp_path, 1001), "--model", weights, *FAST]


def test_track_when_not_a_terminal_then_lines_a_farm_can_read(shot, tmp_path, capsys):
    assert main([*shot, "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^Frame (\d+) \((\d+)/8\)", said, re.M) == [(str(1001 + i), str(i + 1)) for i in range(8)]
    assert re.findall(r"^Progress: (\d+)%$", said, re.M)[-1] == "100"
    assert "OCIO" in said and "labels 1" in said
    assert len(digests(tmp_path / "out")) == 8


def test_track_when_openjd_then_its_words(shot, tmp_path, capsys):
    assert main([*shot, "-o", str(tmp_path / "out"), "--progress", "openjd"]) == 0
    said = capsys.readouterr().out
    assert "openjd_progress: 100.0" in said and "openjd_status: Frame 1008 (8/8)" in said


def test_track_when_bar_then_it_ends_with_all_frames(shot, tmp_path, capsys):
    assert main([*shot, "-o", str(tmp_path / "out"), "--progress", "bar"]) == 0
    said = capsys.readouterr().out
    assert "8/8" in said and "fps" in said and "iB" in said


def test_track_when_quiet_then_silent(shot, tmp_path, capsys):
    assert main([*shot, "-o", str(tmp_path / "out"), "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.out == "" and said.err == ""


def test_track_when_dry_run_then_told_and_nothing_written(shot, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main([*shot, "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    said = capsys.readouterr().out
    for text in ("1001-1008 (8)", "obj1, obj2", "ACES2065-1", "48x32", "sh010_matte.1001.exr", "nothing was written"):
        assert text in said, text


def test_track_when_dry_run_resumes_then_told_how_many_are_kept(shot, tmp_path, capsys):
    argv = [*shot, "-o", str(tmp_path / "out")]
    assert main([*argv, "--quiet"]) == 0
    (tmp_path / "out" / "sh010_matte.1004.exr").unlink()
    assert main([*argv, "--resume", "--dry-run"]) == 0
    assert "nothing was written; 1 frame would be, 7 kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "text"),
    [("--size", "of 1 or more or full"), ("--top-k", "of 1 or more or all"), ("--threads", "of 1 or more")],
)
def test_track_when_a_number_is_none_then_told_what_would_be(shot, tmp_path, capsys, option, text):
    assert main([*shot, "-o", str(tmp_path), option, "abc"]) == 2
    assert f"'abc' is not a whole number {text}" in capsys.readouterr().err


def test_track_when_nothing_is_said_then_the_defaults_are_those_of_track_options():
    args = _parser().parse_args(["track", "x", "-m", "1=y", "-o", "z"])
    assert options_of(args) == TrackOptions()
    args = _parser().parse_args(["info", "x"])
    assert options_of(args, missing="error") == TrackOptions()


def test_track_when_json_goes_to_stdout_then_nothing_else_does(shot, tmp_path, capsys):
    assert main([*shot, "-o", str(tmp_path / "out"), "--json"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["status"] == "done" and report["frames"]["written"] == "1001-1008"
    assert report["exit_code"] == 0 and report["weights"] and report["seconds_per_frame"]["network"] > 0
    assert "Frame 1008 (8/8)" in said.err


def test_track_when_it_fails_then_the_report_says_so(shot, tmp_path, capsys):
    bad = tmp_path / "plate" / "sh010.1004.exr"
    bad.write_bytes(bad.read_bytes()[:-100])
    told = tmp_path / "report.json"
    assert main([*shot, "-o", str(tmp_path / "out"), "--json", str(told)]) == 4
    said = capsys.readouterr()
    assert said.err.startswith("rotomem: ") and said.err.count("\n") == 1 and "1004" in said.err
    assert "--resume" in said.out
    report = json.loads(told.read_text())
    assert report["exit_code"] == 4 and report["frames"]["left"] == "1004-1008"
    assert report["error"]["type"] == "PlateError" and "1004" in report["error"]["path"]
    assert len(digests(tmp_path / "out")) == 3


def test_track_when_it_fails_before_the_first_frame_then_the_report_is_there_too(shot, tmp_path):
    told = tmp_path / "report.json"
    assert main([*shot, "-o", str(tmp_path / "out"), "--frames", "5", "--json", str(told)]) == 3
    assert json.loads(told.read_text())["exit_code"] == 3
    assert main([*shot, "-o", str(tmp_path / "out"), "--compression", "b44", "--json", str(told)]) == 2
    assert json.loads(told.read_text())["exit_code"] == 2


@pytest.mark.parametrize(
    ("extra", "code", "text"),
    [
        (["--frames", "1001-1020"], 3, "--missing"),
        (["--mask", "1003=nowhere.png"], None, "nowhere.png"),
        (["--mask", "2000={key}"], 2, "2000"),
        (["--mask", "nonsense"], 2, "nonsense"),
        (["--model", "no-such-model"], 2, "no-such-model"),
        (["--input-space", "no such space"], 2, "no such space"),
        (["--compression", "dwaa"], 2, "dwaa"),
        (["--json", "no/such/folder/r.json"], 2, "report"),
        (["--size", "4"], 2, "16"),
        (["--device", "quantum"], 2, "quantum"),
        (["--format", "png", "--depth", "half"], 2, "depth"),
        (["--depth", "2"], 2, "depth is 2"),
    ],
)
def test_track_when_the_command_is_wrong_then_one_line_naming_it(shot, tmp_path, capsys, extra, code, text):
    key = str(tmp_path / "labels.1001.png")
    got = main([*shot, "-o", str(tmp_path / "out"), *(e.replace("{key}", key) for e in extra)])
    said = capsys.readouterr().err
    assert got == code if code is not None else got in (2, 3)
    assert said.startswith("rotomem: ") and said.count("\n") == 1 and text in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ([], (None, None, "model")),
        (["--depth", "half", "--depth", "2", "--mem-every", "keys"], ("half", 2, None)),
        (["--depth", "8", "--mem-every", "3"], ("8", None, 3)),
    ],
)
def test_track_when_depth_is_given_then_a_small_number_is_the_models(extra, found):
    args = _parser().parse_args(["track", "plate", "--mask", "1=key.png", "-o", "out", *extra])
    options = options_of(args)
    assert (options.depth, options.model_depth, options.mem_every) == found


@pytest.mark.parametrize("wrong", (["--depth", "9"], ["--depth", "0"], ["--mem-every", "often"]))
def test_track_when_a_value_is_nothing_it_takes_then_the_option_is_named(wrong, capsys):
    with pytest.raises(SystemExit):
        _parser().parse_args(["track", "plate", "--mask", "1=key.png", "-o", "out", *wrong])
    assert f"argument {wrong[0]}: '{wrong[1]}'" in capsys.readouterr().err


def test_track_when_mattes_exist_then_2_and_resume_and_overwrite_are_named(shot, tmp_path, capsys):
    argv = [*shot, "-o", str(tmp_path / "out")]
    assert main(argv) == 0
    before = digests(tmp_path / "out")
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert "--resume" in said and "--overwrite" in said
    assert main([*argv, "--resume"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*argv, "--overwrite"]) == 0
    assert digests(tmp_path / "out") == before


def test_track_when_output_pattern_and_several_objects_and_per_object_then_names(tmp_path, weights):
    argv = ["track", plate(tmp_path / "plate", range(1001, 1004)), "--model", weights, *FAST]
    keys = ["-m", soft_key(tmp_path, 1001), "-m", soft_key(tmp_path, 1001, "ball", x=50, y=14, r=6, dx=-0.5)]
    assert main([*argv, *keys, "-o", str(tmp_path / "all" / "m.####.exr"), "--depth", "float"]) == 0
    path = tmp_path / "all" / "m.1001.exr"
    np.testing.assert_array_equal(matte(path, "hero.A"), disc(0).astype(np.float16).astype(np.float32))
    assert main([*argv, *keys, "-o", str(tmp_path / "each"), "--per-object"]) == 0
    assert len(digests(tmp_path / "each")) == 6


def test_track_when_plate_is_a_movie_then_mattes_for_its_frames(tmp_path, weights):
    import av

    path = tmp_path / "clip.mov"
    with av.open(str(path), "w") as movie:
        stream = movie.add_stream("prores_ks", rate=24)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv422p10le"
        for t in range(5):
            pixels = (np.clip(picture(t).astype(np.float32), 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)
            movie.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        movie.mux(stream.encode())
    key = soft_key(tmp_path, 1003).replace("1003=", "3=")
    assert main(["track", str(path), "-m", key, "-o", str(tmp_path / "out"), "--model", weights, *FAST]) == 0
    assert len(digests(tmp_path / "out")) == 5
    np.testing.assert_array_equal(matte(next((tmp_path / "out").glob("*0003.exr"))), disc(2).astype(np.float16))


def test_track_when_names_are_not_ascii_then_they_work(tmp_path, weights):
    folder = tmp_path / "plán é ф"
    argv = ["track", plate(folder, range(1001, 1003), stem="шот 1"), "-m", label_key(folder, 1001)]
    assert main([*argv, "-o", str(folder / "мат te"), "--model", weights, *FAST]) == 0
    assert len(digests(folder / "мат te")) == 2


def test_track_when_frames_are_negative_then_they_need_no_quoting(tmp_path, weights):
    for frame in (-3, -2, -1, 0, 1):
        write(tmp_path / "plate" / f"a.{frame:04d}.exr", picture(frame + 3))
    key = tmp_path / "labels.1001.png"
    label_key(tmp_path, 1001)
    argv = ["track", str(tmp_path / "plate"), "--frames", "-3-0", "-m", f"-3={key}", "-o", str(tmp_path / "out")]
    assert main([*argv, "--model", weights, *FAST]) == 0
    assert sorted(digests(tmp_path / "out")) == [f"a_matte.{n}.exr" for n in ("-001", "-002", "-003", "0000")]


def test_track_when_the_output_folder_is_a_file_then_1_and_remedy(shot, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert main([*shot, "-o", str(tmp_path / "out" / "below")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("rotomem: ") and said.count("\n") == 1
    assert (tmp_path / "out").read_text() == "mine"


def test_track_when_every_second_frame_is_asked_for_then_only_those(shot, tmp_path):
    assert main([*shot, "-o", str(tmp_path / "out"), "--frames", "1001-1008x3", "--rim", "4", "--threads", "1"]) == 0
    assert sorted(digests(tmp_path / "out")) == [f"sh010_matte.{n}.exr" for n in (1001, 1004, 1007)]


def _start(argv: list[str], **options) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "rotomem", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def _wait_for(process: subprocess.Popen[str], text: str) -> None:
    end = time.monotonic() + 60
    for line in process.stdout:
        if text in line:
            return
        assert time.monotonic() < end
    pytest.fail(f"{text!r} was never said: {process.stderr.read()}")


@pytest.fixture
def long_shot(tmp_path, weights) -> list[str]:
    """Enough frames and pixels that a signal meets it at work."""
    pattern = plate(tmp_path / "plate", range(1001, 1101))
    argv = ["track", pattern, "--mask", label_key(tmp_path, 1001), "--model", weights, "--size", "full"]
    return [*argv, "-o", str(tmp_path / "out"), "--progress", "lines"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_track_when_signalled_then_130_whole_frames_and_resume_gives_the_same(long_shot, tmp_path, number):
    process = _start([*long_shot, "--json", str(tmp_path / "report.json")])
    _wait_for(process, "Frame 1004")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "--resume" in err and "Traceback" not in err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["status"] == "interrupted" and 4 <= report["frames_written"] < 100
    done = digests(tmp_path / "out")
    assert len(done) == report["frames_written"]
    assert all(name.endswith(".exr") for name in done)
    assert main([*long_shot, "--resume", "--quiet"]) == 0
    after = digests(tmp_path / "out")
    assert len(after) == 100 and done.items() <= after.items()
    if number == signal.SIGINT:
        assert main([*long_shot, "--overwrite", "--quiet"]) == 0
        assert digests(tmp_path / "out") == after


def test_track_when_killed_then_every_file_there_is_whole(long_shot, tmp_path):
    process = _start(long_shot)
    _wait_for(process, "Frame 1003")
    process.kill()
    process.communicate(timeout=60)
    names = [p for p in (tmp_path / "out").iterdir() if p.suffix == ".exr"]
    assert names
    for path in names:
        assert matte(path, "obj1.A").shape == (HEIGHT, WIDTH)


def test_track_when_key_is_label_png_and_rgb_is_kept_then_plate_is_bit_for_bit(shot, tmp_path):
    assert main([*shot, "-o", str(tmp_path / "out"), "--rgb", "keep"]) == 0
    path = tmp_path / "out" / "sh010_matte.1003.exr"
    got = np.stack([matte(path, c) for c in "RGB"], -1)
    np.testing.assert_array_equal(got, picture(2))


def test_track_when_a_foreign_picture_is_in_the_way_then_only_overwrite_replaces_it(shot, tmp_path, capsys):
    path = write(tmp_path / "out" / "sh010_matte.1002.exr", picture(9))
    before = Path(path).read_bytes()
    assert main([*shot, "-o", str(tmp_path / "out"), "--resume"]) == 1
    assert len(digests(tmp_path / "out")) == 1, "told before anything was written"
    assert Path(path).read_bytes() == before
    assert "did not write" in capsys.readouterr().err
    assert main([*shot, "-o", str(tmp_path / "out"), "--overwrite"]) == 0
    assert Path(path).read_bytes() != before


def test_track_when_out_is_the_key_mask_itself_then_overwrite_spares_it(shot, tmp_path, capsys):
    key = Path(next(a for a in shot if a.startswith("1001=")).removeprefix("1001="))
    before = key.read_bytes()
    named = [f"hero@{a}" if a.startswith("1001=") else a for a in shot]
    assert main([*named, "-o", str(key).replace("1001", "%04d"), "--overwrite"]) != 0
    assert key.read_bytes() == before
