from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from engine.shots import HEIGHT, WIDTH, disc, picture, soft_key, write
from rotomem.cli import main
from rotomem.engine.options import TrackOptions
from rotomem.errors import InputError, MissingFrameError, OutputError
from rotomem.io.exr import read_header
from rotomem.io.matte_files import find_mattes, read_layers
from rotomem.io.quality import QualityFile
from rotomem.quality.overlay import OverlayMovie, colours_of, matte_picture, overlay
from rotomem.quality.page import write_page
from rotomem.quality.review import Review, review
from rotomem.quality.sheet import frames_to_show
from rotomem.quality.suggest import Curve
from rotomem.types import Window

COUNT = 6


def shot(folder: Path, *, objects: dict[str, float] | None = None) -> tuple[Path, Path]:
    """A plate and mattes of discs that move; object -> where it begins."""
    objects = objects or {"hero": 20}
    for t in range(COUNT):
        write(folder / f"plate/sh.{1001 + t}.exr", picture(t))
        alphas = np.stack([disc(t, x=x) for x in objects.values()], -1).astype(np.float16)
        channels = tuple(f"{name}.A" for name in objects) if len(objects) > 1 else ("A",)
        told = {channel.rpartition(".")[0] or "A": name for channel, name in zip(channels, objects, strict=True)}
        write(
            folder / f"mattes/sh_matte.{1001 + t}.exr",
            alphas,
            channels=channels,
            **{"rotomem/objects": json.dumps(told), "rotomem/keys": "1001"},
        )
    return folder / "plate/sh.%04d.exr", folder / "mattes"


class Links(HTMLParser):
    """Collects what a page refers to, and whether its elements close in order."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def data_of(page: str) -> dict[str, object]:
    found = re.search(r"const SHOT = (\{.*\});\n", page)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Review:
    folder = tmp_path_factory.mktemp("review")
    plate, mattes = shot(folder, objects={"hero": 20, "</script>": 44})
    signals = {
        1001 + t: {"hero": {"confidence": 0.9 - 0.6 * (t == 4)}, "</script>": {"confidence": 0.9}}
        for t in range(COUNT)
    }
    QualityFile("sh", ("hero", "</script>"), {1001: ("hero",)}, signals).write(mattes / "quality.json")
    return review(mattes, plate, folder / "out")


def test_review_when_done_then_every_file_of_the_page_is_there(reviewed: Review) -> None:
    out = reviewed.out
    page = Links()
    page.feed((out / "index.html").read_text("utf-8"))
    page.close()
    assert not page.open
    assert not [link for link in page.links if re.match(r"\w+:|/", link)], "nothing leads out of the folder"
    assert all((out / link).is_file() for link in page.links)
    names = data_of((out / "index.html").read_text())["files"]
    assert all((out / f"frames/{view}.{n}.jpg").is_file() for view in ("overlay", "matte", "plate") for n in names)
    for picture_file in ("sheet.png", "timeline.png", f"frames/overlay.{names[0]}.jpg"):
        assert read_header(out / picture_file).display_window.width > 60


def test_review_when_an_object_has_a_hostile_name_then_the_page_holds_it_as_data(reviewed: Review) -> None:
    page = (reviewed.out / "index.html").read_text("utf-8")
    assert page.count("</script>") == 1
    objects = data_of(page)["objects"]
    assert isinstance(objects, list) and [o["name"] for o in objects] == ["hero", "</script>"]
    assert objects[0]["keys"] == [1001] and objects[1]["keys"] == []


def test_review_when_a_frame_dips_then_it_is_flagged_and_the_key_suggested(reviewed: Review) -> None:
    (flag,) = reviewed.flags
    assert (flag.name, flag.worst) == ("hero", 1005)
    assert reviewed.suggestion is not None and reviewed.suggestion.frame == 1005
    assert "1 stretch to look at. A key at 1005 for hero" in reviewed.summary


def test_review_when_made_twice_then_the_bytes_are_the_same(tmp_path: Path) -> None:
    plate, mattes = shot(tmp_path)
    for name in ("a", "b"):
        review(mattes, plate, tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 5 + 3 * COUNT
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_review_when_the_mattes_say_nothing_then_they_are_judged_and_a_note_says_so(tmp_path: Path) -> None:
    plate, mattes = shot(tmp_path)
    result = review(mattes, plate, tmp_path / "out", options=TrackOptions(rim=8))  # which is the network's affair
    assert "by their looks alone" in result.notes[0]
    assert result.curves[0].name == "hero" and result.curves[0].keys == {1001}
    assert result.curves[0].mean > 0.8


def test_review_when_plate_and_mattes_share_no_frame_or_object_then_it_says_so(tmp_path: Path) -> None:
    plate, mattes = shot(tmp_path)
    write(tmp_path / "other/sh.2001.exr", picture(0))
    with pytest.raises(MissingFrameError, match=r"no frame of the plate \(2001-2001\) has a matte \(1001-1006\)"):
        review(mattes, tmp_path / "other/sh.%04d.exr", tmp_path / "out")
    with pytest.raises(InputError, match="would lie among the mattes"):
        review(mattes, plate, mattes)
    QualityFile("sh", ("villain",)).write(mattes / "quality.json")
    with pytest.raises(InputError, match="0 quality files know the objects hero"):
        review(mattes, plate, tmp_path / "out")


def test_review_command_when_run_then_it_prints_what_to_look_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate, mattes = shot(tmp_path)
    assert main(["review", str(mattes), "--plate", str(plate), "-o", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["frames"] == COUNT and Path(told["page"]).is_file()
    assert main(["review", str(tmp_path), "--plate", str(plate), "-o", str(tmp_path / "out")]) != 0


def test_overlay_movie_when_the_picture_is_odd_then_it_is_h264_for_browsers(tmp_path: Path) -> None:
    path = tmp_path / "movie.mp4"
    grey = np.full((45, 63, 3), 0.5, np.float32)
    with OverlayMovie(path, None) as movie:
        for _ in range(5):
            movie.add(grey)
    data = path.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat"), "the index comes first"
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 64, 46)
        tags = (context.color_range, context.colorspace, context.color_primaries, context.color_trc)
        assert tuple(map(int, tags)) == (1, 1, 1, 1)
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == 5 and abs(frames[2].mean() - 127.5) < 2


def test_overlay_movie_when_it_fails_then_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), OverlayMovie(tmp_path / "movie.mp4", None) as movie:
        movie.add(np.zeros((32, 32, 3), np.float32))
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_overlay_when_drawn_then_the_object_has_its_colour_and_the_rest_none() -> None:
    grey = np.full((HEIGHT, WIDTH, 3), 0.5, np.float32)
    tints = colours_of(["hero"])
    out = overlay(grey, {"hero": disc(0)}, tints)
    assert np.allclose(out[0, 0], 0.5, atol=1e-3)
    assert np.allclose(out[24, 20], 0.5 * 0.5 + 0.5 * np.array(tints["hero"]), atol=0.02)
    assert matte_picture({"hero": disc(0)}, tints).max() == 1


def test_frames_to_show_when_there_are_many_then_ends_and_wanted_ones_are_among_them() -> None:
    shown = frames_to_show(range(1001, 1501), [1042, 9999], 24)
    assert len(shown) == 24 and {1001, 1042} <= set(shown) and 9999 not in shown
    assert frames_to_show([5, 6], [], 24) == [5, 6]


def test_page_when_nothing_is_known_of_a_frame_then_its_curve_has_a_gap(tmp_path: Path) -> None:
    curve = Curve("a", (1, 2), np.array([0.5, np.nan]), frozenset())
    write_page(
        tmp_path / "p.html", plate="x", fps=None, summary="", curves=[curve], flags=[], suggestion=None,
        colours=colours_of(["a"]),
    )  # fmt: skip
    data = data_of((tmp_path / "p.html").read_text())
    assert data["objects"][0]["confidence"] == [0.5, None] and data["suggestion"] is None  # type: ignore[index]


def test_find_mattes_when_each_object_has_a_folder_then_all_are_found(tmp_path: Path) -> None:
    for name in ("hero", "car"):
        for t in range(2):
            write(tmp_path / name / f"sh_{name}.{1001 + t}.exr", disc(t)[..., None], channels=("A",))
    found = find_mattes(tmp_path)
    assert sorted(found.objects) == ["sh_car", "sh_hero"] and found.frames == (1001, 1002)
    write(tmp_path / "sh_crypto.1001.exr", disc(0)[..., None], channels=("A",), **{"rotomem/kind": "crypto"})
    assert sorted(find_mattes(tmp_path).objects) == ["sh_car", "sh_hero"]
    with pytest.raises(MissingFrameError, match="no mattes there"):
        (tmp_path / "empty").mkdir()
        find_mattes(tmp_path / "empty")


def test_find_mattes_when_other_outputs_lie_beside_then_only_mattes_are_taken(tmp_path: Path) -> None:
    told = {"rotomem/objects": '{"A": "hero"}', "rotomem/confidence": '{"hero": 0.5}', "rotomem/keys": "1001,1042"}
    write(tmp_path / "sh_matte.1001.exr", disc(0)[..., None], channels=("A",), **told)
    write(tmp_path / "sh_trimap.1001.exr", disc(0)[..., None], channels=("A",), **told, **{"rotomem/kind": "trimap"})
    found = find_mattes(tmp_path)
    assert {name: layer for name, (_, layer) in found.objects.items()} == {"hero": ""}
    assert found.told(1001) == ({"hero": 0.5}, "1001,1042")


def test_read_layers_when_the_data_window_is_smaller_then_the_rest_of_the_canvas_is_zero(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.1.exr", np.ones((4, 6, 1), np.float16), origin=(2, 3), display=(20, 10), channels=("A",)
    )
    (alpha,) = read_layers(path).values()
    assert alpha.shape == (10, 20) and alpha.sum() == 24 and alpha[3:7, 2:8].all()
    (alpha,) = read_layers(path, Window(3, 0, 5, 4)).values()
    assert alpha.shape == (4, 2) and alpha.sum() == 2


def test_review_command_when_given_a_project_then_it_knows_plate_mattes_and_colours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate, mattes = shot(tmp_path)
    key = soft_key(tmp_path / "roto", 1001).split("@")[1]
    made = ["new", str(plate), str(tmp_path), "-m", f"hero@{key}", "-o", str(mattes)]
    assert main(made) == 0
    project = tmp_path / "rotomem.toml"
    project.write_text(project.read_text().replace('name = "hero"', 'name = "hero"\ncolour = "#00ff80"'))
    out = tmp_path / "out"
    assert main(["review", str(tmp_path), "-o", str(out)]) == 0
    assert "#00ff80" in (out / "index.html").read_text()
    assert main(["review", str(tmp_path), "--plate", "x", "-o", str(out)]) == 2
    assert "a project has its own plate" in capsys.readouterr().err


def test_overlay_movie_when_there_is_no_encoder_then_one_line_says_so(tmp_path: Path) -> None:
    def none(name: str, *_: object, **__: object) -> None:
        raise av.codec.codec.UnknownCodecError(name)

    with pytest.raises(OutputError, match=r"no H.264 encoder"), OverlayMovie(tmp_path / "movie.mp4", None) as movie:
        movie._container = SimpleNamespace(add_stream=none, close=movie._container.close)
        movie.add(np.zeros((32, 32, 3), np.float32))
    assert not list(tmp_path.iterdir())
