"""`rotomem splines`: from mattes on disk to a file that artists edit, and back as key masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from rotomem.cli import main
from rotomem.splines.files import read_splines

H, W = 60, 100


def save_mattes(folder: Path) -> Path:
    """Two objects on 1001..1004, the first reaching into an overscan of 10 pixels at the left; and one not there."""
    folder.mkdir()
    y, x = np.mgrid[:H, -10:W] + 0.5
    for frame in range(1001, 1005):
        at = 4 * (frame - 1001)
        disc = np.clip(15.5 - np.hypot(x - at, y - 20), 0, 1)
        block = ((abs(x - 60) < 12) & (abs(y - 40 + at) < 10)).astype(np.float64)
        spec = oiio.ImageSpec(W + 10, H, 3, "half")
        spec.channelnames = ("hero.A", "car_door.A", "ghost.A")
        spec.x, spec.full_x, spec.full_width, spec.full_height = -10, 0, W, H
        spec.attribute("rotomem/objects", json.dumps({"car_door": "car door"}))
        out = oiio.ImageOutput.create(str(folder / f"m.{frame}.exr"))
        assert out.open(str(folder / f"m.{frame}.exr"), spec)
        assert out.write_image(np.stack([disc, block, 0 * disc], axis=-1).astype(np.float16))
        out.close()
    return folder


def test_splines_when_run_then_the_file_and_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mattes, out = save_mattes(tmp_path / "mattes"), tmp_path / "roto" / "all.json"
    assert main(["splines", str(mattes), "-o", str(out), "--json"]) == 0
    said = capsys.readouterr()
    assert "note: 'ghost' shows nothing to trace" in said.err
    figures = {f["name"]: f for f in json.loads(said.out)}
    assert list(figures) == ["car door", "hero"]
    assert all(f["overlap"] > 0.97 and f["points"] < 16 and f["shapes"] == 1 for f in figures.values())
    splines = read_splines(out, (W, H))
    disc = splines.objects["hero"][0].keys[1001].points[:, 1]
    assert disc[:, 0].min() < -9, "counted from the display window, also what lies outside of it"
    np.testing.assert_allclose(disc[:, 0].max(), 15, atol=0.7)


def test_splines_when_written_for_silhouette_then_a_key_mask_again(tmp_path: Path) -> None:
    from rotomem.io.masks import load_masks
    from rotomem.io.plate import open_plate

    mattes = save_mattes(tmp_path / "mattes")
    out = tmp_path / "car.fxs"
    assert main(["splines", str(mattes), "-o", str(out), "--only", "car door", "--frames", "1002-1003"]) == 0
    plate = tmp_path / "plate"
    plate.mkdir()
    for frame in range(1001, 1005):
        picture = oiio.ImageBuf(oiio.ImageSpec(W, H, 3, "half"))
        picture.write(str(plate / f"p.{frame}.exr"))
    with open_plate(plate) as opened:
        keys = load_masks(f"car={out}", opened)
    assert list(keys.by_frame) == [1002, 1003] and keys.objects.names == {1: "car"}
    assert keys.by_frame[1002].alpha.sum() == pytest.approx(24 * 20, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-o", "out.svg"], 2, "not written as '.svg'"),
        (["-o", "out.nk", "--only", "bus"], 2, "no object 'bus'"),
        (["-o", "out.nk", "--frames", "7"], 2, "none of the frames 7"),
        (["-o", "out.nk", "--only", "ghost"], 2, "no pixel of the mattes is covered by a half"),
        (["-o", "out.nk", "--tolerance", "0"], 2, "tolerance is 0.05..100"),
    ],
)
def test_splines_when_asked_for_what_is_not_there_then_one_line(
    tmp_path: Path,
    arguments: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    mattes = save_mattes(tmp_path / "mattes")
    assert main(["splines", str(mattes), *arguments]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(tmp_path.glob("out*"))


def test_splines_when_there_are_no_mattes_then_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["splines", str(tmp_path), "-o", "x.json"]) == 3
    assert "no mattes there" in capsys.readouterr().err
