"""Frame paths in every spelling, ranges, and what happens to frames that are not there."""

from __future__ import annotations

from pathlib import Path

import make
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotomem.errors import MissingFrameError, PlateError, UsageError
from rotomem.io.sequence import compact_frames, find_frames, parse_frames, plan_frames


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for n in names:
        (folder / n).write_bytes(b"x")
    return folder


@pytest.fixture
def shot(tmp_path: Path) -> Path:
    return touch(tmp_path / "sh010", *(f"shot.{f:04d}.exr" for f in range(1001, 1006)))


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        ("1001-1005x2,1120", (1001, 1003, 1005, 1120)),
        ("-5-5", tuple(range(-5, 6))),
        ("-5--3", (-5, -4, -3)),
        ("7", (7,)),
        ("3,1,2,2", (1, 2, 3)),
        ("5-1", (1, 2, 3, 4, 5)),
        (" 1 - 3 , 9 ", (1, 2, 3, 9)),
    ],
)
def test_parse_frames_when_range_is_legal_then_frames_ascend_once(text: str, frames: tuple[int, ...]) -> None:
    assert parse_frames(text) == frames


@pytest.mark.parametrize("text", ["", " ", "abc", "1-", "1-5x0", "1..5", "1-99999999", "999999999", "1 5", ",", "-"])
def test_parse_frames_when_text_is_no_range_then_usage_error_shows_a_right_one(text: str) -> None:
    with pytest.raises(UsageError, match="1001-1100"):
        parse_frames(text)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(-200, 3000), min_size=1, max_size=40))
def test_compact_frames_when_parsed_again_then_nothing_is_lost(frames: set[int]) -> None:
    assert parse_frames(compact_frames(frames)) == tuple(sorted(frames))


@pytest.mark.parametrize(
    "name",
    [
        "shot.%04d.exr",
        "shot.####.exr",
        "shot.@@@@.exr",
        "shot.$F4.exr",
        "shot.#.exr",
        "shot.@.exr",
        "shot.%d.exr",
        "shot.$F.exr",
        "shot.1001-1005#.exr",
        "shot.1001-1005@@@@.exr",
        "shot.####.exr 1001-1005",
        "",
    ],
)
def test_find_frames_when_spelled_in_any_usual_way_then_the_same_files(shot: Path, name: str) -> None:
    found = find_frames(f"{shot}/{name}" if name else shot)
    assert found.present == (1001, 1002, 1003, 1004, 1005)
    assert found.missing == ()
    assert found.files[1003] == shot / "shot.1003.exr"
    assert (found.padding, found.stem, found.single) == (4, "shot", False)


def test_find_frames_when_range_is_in_the_name_then_only_it_is_asked_for(shot: Path) -> None:
    assert find_frames(f"{shot}/shot.1002-1003#.exr").present == (1002, 1003)
    assert find_frames(f"{shot}/shot.1002-1003#.exr", "1004").asked == (1004,)
    assert find_frames(f"{shot}/shot.1002-1007x2####.exr").missing == (1006,)


def test_find_frames_when_digits_stand_before_the_pattern_then_they_are_a_name(tmp_path: Path) -> None:
    touch(tmp_path, "sh.20001.exr", "sh.20002.exr")
    assert find_frames(tmp_path / "sh.2####.exr").present == (1, 2)


def test_find_frames_when_padding_overflows_then_it_stays_one_sequence(tmp_path: Path) -> None:
    touch(tmp_path, "a.0999.exr", "a.1000.exr", "a.10000.exr", "a.00998.exr")
    found = find_frames(tmp_path / "a.####.exr", "999-1000,10000")
    assert found.present == (999, 1000, 10000)
    assert 998 not in found.files


def test_find_frames_when_negative_then_both_paddings_are_one_sequence(tmp_path: Path) -> None:
    touch(tmp_path, "p.-003.exr", "p.-0002.exr", "p.-001.exr", "p.0000.exr", "p.0001.exr")
    found = find_frames(tmp_path / "p.%04d.exr")
    assert found.present == (-3, -2, -1, 0, 1)
    assert found.files[-2].name == "p.-0002.exr"
    assert find_frames(tmp_path).present == (-3, -2, -1, 0, 1)


def test_find_frames_when_a_frame_is_there_twice_then_error_names_both(tmp_path: Path) -> None:
    touch(tmp_path, "a.1.exr", "a.0001.exr", "a.0002.exr")
    with pytest.raises(PlateError, match=r"frame 1 .*a\.0001\.exr and a\.1\.exr"):
        find_frames(tmp_path / "a.#.exr")
    assert find_frames(tmp_path / "a.####.exr").present == (1, 2)


def test_find_frames_when_one_numbered_file_is_given_then_it_is_that_frame_and_says_so(shot: Path) -> None:
    found = find_frames(shot / "shot.1003.exr")
    assert (found.asked, found.single, found.stem, found.padding) == ((1003,), True, "shot", 4)
    assert "####" in found.notes[0]
    with pytest.raises(PlateError, match="one file was given"):
        find_frames(shot / "shot.1003.exr", "1001-1005")


@pytest.mark.parametrize(
    ("name", "frame"), [("shot_v02.exr", 1), ("sh010.exr", 1), ("a_-07.exr", -7), ("a-07.exr", 7)]
)
def test_find_frames_when_digits_belong_to_the_name_then_they_are_no_frame(
    tmp_path: Path, name: str, frame: int
) -> None:
    touch(tmp_path, name)
    assert find_frames(tmp_path / name).asked == (frame,)


def test_find_frames_when_folder_is_named_like_the_shot_then_bare_numbers_take_its_name(tmp_path: Path) -> None:
    touch(tmp_path / "blackswan", "00000.jpg", "00001.jpg", ".00002.jpg", "notes.txt")
    found = find_frames(tmp_path / "blackswan")
    assert (found.present, found.stem, found.padding) == ((0, 1), "blackswan", 5)


def test_find_frames_when_folder_holds_several_then_error_lists_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.0001.exr", "a.0002.exr", "b.01.png", "b.02.png")
    with pytest.raises(PlateError, match=r"2 plates.*a\.####\.exr 1-2, b\.##\.png 1-2"):
        find_frames(tmp_path)


def test_find_frames_when_folder_holds_one_sequence_and_a_still_then_the_still_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.0001.exr", "a.0002.exr", "reference.jpg")
    found = find_frames(tmp_path)
    assert found.present == (1, 2)
    assert "reference.jpg" in found.notes[0]


def test_find_frames_when_nothing_matches_then_error_says_what_is_there(shot: Path) -> None:
    with pytest.raises(MissingFrameError, match=r"shot\.####\.exr 1001-1005"):
        find_frames(shot / "plate.####.exr")
    with pytest.raises(MissingFrameError, match=r"shot\.####\.exr 1001-1005"):
        find_frames(shot / "plate.exr")
    with pytest.raises(MissingFrameError):
        find_frames(shot / "nowhere" / "plate.####.exr")
    with pytest.raises(MissingFrameError, match="no picture"):
        find_frames(touch(shot / "empty"))


@pytest.mark.parametrize("name", ["wood.<UDIM>.exr", "wood.%(UDIM)d.exr", "a.####.b.%04d.exr", "", " "])
def test_find_frames_when_name_is_no_shot_then_plate_error(shot: Path, name: str) -> None:
    with pytest.raises(PlateError):
        find_frames(f"{shot}/{name}" if name.strip() else name)


def test_find_frames_when_temporary_files_lie_beside_then_they_are_not_frames(shot: Path) -> None:
    touch(shot, ".shot.1006.exr.tmp", "shot.1007.exr.tmp", ".shot.1008.exr")
    assert find_frames(shot / "shot.####.exr").present[-1] == 1005
    assert find_frames(shot).present[-1] == 1005


def test_plan_frames_when_frames_are_missing_then_the_policy_decides(tmp_path: Path) -> None:
    touch(tmp_path, "a.0002.exr", "a.0003.exr", "a.0006.exr")
    files = find_frames(tmp_path / "a.####.exr", "1-6")
    with pytest.raises(MissingFrameError, match=r"no file for frames 1,4-5 of 1-6.*--missing hold"):
        plan_frames(files, "error")
    assert plan_frames(files, "skip") == {2: 2, 3: 3, 6: 6}
    assert plan_frames(files, "hold") == {1: 2, 2: 2, 3: 3, 4: 3, 5: 3, 6: 6}
    assert plan_frames(files, "black") == {1: None, 2: 2, 3: 3, 4: None, 5: None, 6: 6}
    with pytest.raises(UsageError, match="error, skip, hold, black"):
        plan_frames(files, "guess")


def test_plan_frames_when_one_frame_is_missing_then_its_number_is_in_the_bracket(tmp_path: Path) -> None:
    touch(tmp_path, "a.0001.exr", "a.0003.exr")
    with pytest.raises(MissingFrameError) as caught:
        plan_frames(find_frames(tmp_path / "a.####.exr"), "error")
    assert caught.value.context["frame"] == 2


def test_plan_frames_when_nothing_asked_for_exists_then_error_says_what_does(shot: Path) -> None:
    with pytest.raises(MissingFrameError, match="frames 1001-1005"):
        plan_frames(find_frames(shot / "shot.####.exr", "1-10"), "hold")


def test_find_frames_when_negative_frames_lie_in_a_folder_then_the_sign_is_no_digit(tmp_path: Path) -> None:
    for name, numbers in (("nuke", ("-0003", "0000", "0002")), ("printf", ("-003", "0000", "0002"))):
        touch(tmp_path / name, *(f"p.{n}.exr" for n in numbers))
        found = find_frames(tmp_path / name)
        assert (found.padding, sorted(found.files)) == (4, [-3, 0, 2])
    assert find_frames(touch(tmp_path / "one", "p.-0003.exr") / "p.-0003.exr").padding == 4


def test_find_frames_when_mattes_lie_beside_the_plate_then_they_are_left_out(tmp_path: Path) -> None:
    import av

    for f in (1, 2, 3):
        make.write_picture(tmp_path / f"sh.{f:04d}.exr", make.ramp(4, 5))
        mark = {"rotomem/settings": "0123"}
        make.write_picture(tmp_path / f"sh_matte.{f:04d}.exr", make.ramp(4, 5, 1), channels=["A"], attributes=mark)
        make.write_picture(tmp_path / f"png_matte.{f:04d}.png", make.ramp(4, 5, 1, np.uint16), attributes=mark)
    with av.open(str(tmp_path / "sh_matte.mov"), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata["rotomem/settings"] = "0123"
        stream = container.add_stream("prores_ks", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv422p10le"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame(64, 64, "yuv422p10le")))
        container.mux(stream.encode(None))
    found = find_frames(tmp_path)
    assert [p.name for p in found.files.values()] == [f"sh.{f:04d}.exr" for f in (1, 2, 3)]
    (note,) = found.notes
    assert "mattes of rotomem" in note and "sh_matte.mov" in note and "png_matte.0001.png" in note
    for f in (2, 3):  # a plate of one frame beside its mattes
        (tmp_path / f"sh.{f:04d}.exr").unlink()
    assert list(find_frames(tmp_path).files.values()) == [tmp_path / "sh.0001.exr"]
    (tmp_path / "sh.0001.exr").unlink()  # only mattes: they are what is meant, and too many to choose
    with pytest.raises(PlateError, match="holds 3 plates"):
        find_frames(tmp_path)
