"""Movies: the right frame in any order, the right colours, and damage told."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import make
import numpy as np
import pytest

from rotomem.errors import MissingFrameError, PlateError
from rotomem.io.exr import TypedValue
from rotomem.io.movie import Movie
from rotomem.io.plate import open_plate

COUNT = 30
CODECS = {
    "h264.mp4": {"options": {"crf": "12", "g": "10", "bf": "3"}},
    "h264.mkv": {"options": {"crf": "12", "g": "10", "bf": "3"}},
    "h264.avi": {"options": {"crf": "12", "g": "10", "bf": "3"}},
    "hevc_open_gop.mp4": {
        "codec": "libx265",
        "pix_fmt": "yuv420p10le",
        "options": {"x265-params": "log-level=none:open-gop=1:keyint=10:bframes=4:crf=10"},
    },
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "dnxhr.mxf": {"codec": "dnxhd", "pix_fmt": "yuv422p", "options": {"profile": "dnxhr_hq"}},
    "dnxhr10.mov": {"codec": "dnxhd", "pix_fmt": "yuv422p10le", "options": {"profile": "dnxhr_hqx"}},
    "ffv1.mkv": {"codec": "ffv1", "pix_fmt": "gbrp16le"},
}


@pytest.mark.parametrize("name", CODECS)
def test_read_when_asked_in_any_order_then_the_very_frame_comes(tmp_path: Path, name: str) -> None:
    path = make.write_movie(tmp_path / name, make.numbered(COUNT, 256, 256), **CODECS[name])
    movie = Movie(path)
    assert movie.info.frame_count == COUNT
    assert movie.info.fps == 24
    shuffled = random.Random(3).sample(range(1, COUNT + 1), 12)
    for order in (range(1, COUNT + 1), range(COUNT, 0, -1), shuffled):
        assert [make.place_in(movie.read(n).rgb) + 1 for n in order] == list(order)
    movie.close()


@pytest.mark.parametrize(("name", "dtype"), [("h264.mp4", np.uint8), ("prores.mov", np.uint16)])
def test_read_when_over_eight_bits_then_sixteen_come(tmp_path: Path, name: str, dtype: type) -> None:
    movie = Movie(make.write_movie(tmp_path / name, make.numbered(2), **CODECS[name]))
    assert movie.read(1).rgb.dtype == dtype
    assert movie.info.pixel_type == np.dtype(dtype).name


def test_read_when_ffv1_has_sixteen_bits_then_they_are_exact(tmp_path: Path) -> None:
    pixels = make.ramp(32, 48, 3, np.uint16)
    path = make.write_movie(
        tmp_path / "a.mkv", [pixels], codec="ffv1", pix_fmt="gbrp16le", src_format="rgb48le", full_range=True
    )
    assert np.array_equal(Movie(path).read(1).rgb, pixels)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 9])
def test_read_when_matrix_and_range_are_tagged_then_they_are_honoured(
    tmp_path: Path, matrix: int, full_range: bool
) -> None:
    red = np.zeros((64, 96, 3), np.uint8)
    red[:, :48] = (220, 30, 20)
    red[:, 48:] = (20, 190, 60)
    path = (
        make.write_movie(
            tmp_path / "a.mov",
            [red] * 2,
            codec="prores_ks",
            pix_fmt="yuv422p10le",
            colorspace=matrix,
        )
        if not full_range
        else make.write_movie(
            tmp_path / "a.mp4",
            [red] * 2,
            pix_fmt="yuv444p",
            colorspace=matrix,
            full_range=True,
            options={"crf": "4"},
        )
    )
    movie = Movie(path)
    read = movie.read(1).rgb
    scale = 1 if read.dtype == np.uint8 else 257
    assert np.abs(read[32, 20] / scale - (220, 30, 20)).max() < 3
    assert np.abs(read[32, 80] / scale - (20, 190, 60)).max() < 3
    assert movie.info.colour_hints["movie:range"] == ("full" if full_range else "video")


@pytest.mark.parametrize(("height", "matrix", "says"), [(720, 1, "Rec.709"), (480, 5, "Rec.601")])
def test_read_when_untagged_then_height_chooses_the_matrix_and_a_note_says_so(
    tmp_path: Path, height: int, matrix: int, says: str
) -> None:
    red = np.full((height, 64, 3), (220, 30, 20), np.uint8)
    tagged = make.write_movie(tmp_path / "a.mp4", [red], pix_fmt="yuv444p", colorspace=matrix, options={"crf": "4"})
    import av

    # The same stream, its tag taken out of the header by the bitstream filter's "unspecified".
    plain = tmp_path / "plain.mp4"
    with av.open(str(tagged)) as source, av.open(str(plain), "w") as target:
        stream = source.streams.video[0]
        out = target.add_stream_from_template(stream)
        strip = av.BitStreamFilterContext("h264_metadata=matrix_coefficients=2", stream, out)
        for packet in source.demux(stream):
            for p in strip.filter(packet if packet.dts is not None else None):
                p.stream = out
                target.mux(p)
    movie = Movie(plain)
    assert "movie:matrix" not in movie.info.colour_hints
    assert any(says in n for n in movie.info.notes)
    assert np.abs(movie.read(1).rgb[height // 2, 20].astype(int) - (220, 30, 20)).max() <= 3


def test_read_when_movie_has_alpha_then_it_comes_apart(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[..., 0], pixels[:32, :, 3] = 200, 255
    path = make.write_movie(
        tmp_path / "a.mov",
        [pixels],
        codec="prores_ks",
        pix_fmt="yuva444p10le",
        src_format="rgba",
        options={"profile": "4444", "alpha_bits": "16"},
    )
    picture = Movie(path).read(1)
    assert picture.alpha is not None and picture.alpha.dtype == np.uint16
    assert picture.alpha[:30].min() > 65000 and picture.alpha[34:].max() < 500


def test_movie_when_time_code_and_aspect_are_set_then_info_has_them(tmp_path: Path) -> None:
    path = make.write_movie(
        tmp_path / "a.mov",
        make.numbered(30),
        codec="prores_ks",
        pix_fmt="yuv422p10le",
        rate=Fraction(24000, 1001),
        timecode="01:00:00:20",
        aspect=Fraction(2, 1),
    )
    movie = Movie(path)
    assert (movie.info.timecode, movie.info.fps, movie.info.pixel_aspect) == ("01:00:00:20", Fraction(24000, 1001), 2)
    assert movie.metadata(1)["smpte:TimeCode"] == TypedValue("timecode", (0x01000020, 0))
    assert movie.metadata(5)["smpte:TimeCode"] == TypedValue("timecode", (0x01000100, 0))
    assert movie.metadata(5)["framesPerSecond"] == TypedValue("rational", (24000, 1001))


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_read_when_movie_asks_to_be_turned_then_it_is(tmp_path: Path, turn: int) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = 240  # top left
    movie = Movie(make.write_movie(tmp_path / "a.mov", [picture] * 2, codec="qtrle", pix_fmt="rgb24", rotation=turn))
    assert movie.info.rotation == turn % 360
    read = movie.read(1).rgb
    assert read.shape == ((96, 64, 3) if abs(turn) == 90 else (64, 96, 3))
    h, w = read.shape[:2]
    corner = {90: (3 * h // 4, w // 4), 180: (3 * h // 4, 3 * w // 4), -90: (h // 4, 3 * w // 4)}[turn]
    assert read[corner].max() > 200, "counter-clockwise, as the display matrix has it"
    assert (read > 200).mean() == pytest.approx(0.25, abs=0.02)


def test_movie_when_rate_changes_then_a_note_says_so_and_frames_are_counted(tmp_path: Path) -> None:
    times = [i * 40 + (i // 5) * 60 for i in range(20)]
    movie = Movie(make.write_movie(tmp_path / "v.mp4", make.numbered(20), pts=times, options={"g": "5"}))
    assert any("rate changes" in n for n in movie.info.notes)
    assert [make.place_in(movie.read(n).rgb) + 1 for n in (20, 7, 8, 1)] == [20, 7, 8, 1]


def test_movie_when_rate_is_steady_in_milliseconds_then_no_note(tmp_path: Path) -> None:
    movie = Movie(make.write_movie(tmp_path / "a.mkv", make.numbered(20), rate=Fraction(24000, 1001)))
    assert not any("rate changes" in n for n in movie.info.notes)


def test_movie_when_path_is_no_movie_then_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFrameError):
        Movie(tmp_path / "gone.mov")
    for name, content in (("empty.mov", b""), ("text.mp4", b"hello" * 100)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PlateError, match=name):
            Movie(tmp_path / name)


def test_movie_when_cut_short_then_error_or_fewer_frames_but_never_a_wrong_one(tmp_path: Path) -> None:
    whole = make.write_movie(tmp_path / "a.mov", make.numbered(20), codec="prores_ks", pix_fmt="yuv422p10le")
    data = whole.read_bytes()
    (tmp_path / "cut.mov").write_bytes(data[: len(data) // 2])
    with pytest.raises(PlateError, match=r"cut\.mov"):
        Movie(tmp_path / "cut.mov")
    mkv = make.write_movie(tmp_path / "a.mkv", make.numbered(20), codec="ffv1", pix_fmt="gbrp16le")
    data = mkv.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    movie = Movie(tmp_path / "cut.mkv")
    assert 5 < movie.info.frame_count < 20
    assert any("incomplete" in n for n in movie.info.notes)
    for n in range(1, movie.info.frame_count):
        assert make.place_in(movie.read(n).rgb) == n - 1


def test_read_when_frame_is_damaged_then_error_names_it_and_others_still_read(tmp_path: Path) -> None:
    path = make.write_movie(tmp_path / "a.mov", make.numbered(6), codec="prores_ks", pix_fmt="yuv422p10le")
    import av

    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    data = bytearray(path.read_bytes())
    pos, size = packets[3]
    data[pos + 200 : pos + size] = bytes(255 - b for b in data[pos + 200 : pos + size])
    path.write_bytes(data)
    movie = Movie(path)
    with pytest.raises(PlateError, match="frame=4"):
        movie.read(4)
    assert make.place_in(movie.read(3).rgb) == 2
    assert make.place_in(movie.read(6).rgb) == 5


def test_open_plate_when_path_is_a_movie_then_frames_count_from_one(tmp_path: Path) -> None:
    path = make.write_movie(tmp_path / "clip.mp4", make.numbered(12), options={"g": "4"})
    with open_plate(path, frames="3-5") as plate:
        assert (plate.info.kind, plate.frames, plate.info.stem) == ("movie", (3, 4, 5), "clip")
        assert [make.place_in(f.rgb) + 1 for f in map(plate.read, plate.frames)] == [3, 4, 5]
    with pytest.raises(MissingFrameError, match="13"):
        open_plate(path, frames="10-13")
    with open_plate(path, frames="11-14", missing="hold") as plate:
        assert [make.place_in(f.rgb) + 1 for f in map(plate.read, plate.frames)] == [11, 12, 12, 12]
    with pytest.raises(PlateError, match="layer"):
        open_plate(path, layer="diffuse")
    with pytest.raises(PlateError, match="views"):
        open_plate(path, view="left")


def test_read_when_descending_then_frames_are_right_and_threads_agree(tmp_path: Path) -> None:
    path = make.write_movie(tmp_path / "clip.mp4", make.numbered(24), options={"g": "12", "bf": "2"})
    with open_plate(path) as plate, ThreadPoolExecutor(3) as pool:
        order = list(range(24, 0, -1))
        assert [make.place_in(f.rgb) + 1 for f in pool.map(plate.read, order)] == order
