"""`rotomem preview`."""

from __future__ import annotations

import json
from pathlib import Path

import OpenImageIO as oiio
import pytest

from engine.shots import HEIGHT, WIDTH, checkpoint, plate, soft_key
from rotomem.cli import main


@pytest.fixture(scope="module")
def shot(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Plate, mask, model."""
    folder = tmp_path_factory.mktemp("preview")
    return plate(folder, range(1001, 1008)), soft_key(folder, 1002), checkpoint(folder)


def test_preview_when_asked_for_json_then_a_line_for_every_picture_as_it_is_written(
    tmp_path: Path, shot: tuple[str, str, str], capsys
):
    pattern, mask, model = shot
    command = ["preview", pattern, "--mask", mask, "--model", model, "--every", "3", "-o", str(tmp_path), "--json"]
    assert main(command) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(x["frame"], x["level"]) for x in lines[:4]] == [
        *((1002, "key"), (1001, "coarse")),
        *((1005, "coarse"), (1007, "coarse")),
    ]
    assert [x["done"] for x in lines] == list(range(1, 8)) and {x["total"] for x in lines} == {7}
    for line in lines:
        assert oiio.ImageBuf(line["path"]).get_pixels(oiio.UINT8).shape == (HEIGHT, WIDTH, 3)
    assert main(command) == 0  # its own pictures are replaced
    assert len(list(tmp_path.iterdir())) == 7


def test_preview_when_mattes_are_wanted_then_white_is_the_object(tmp_path: Path, shot: tuple[str, str, str], capsys):
    pattern, mask, model = shot
    options = ["--show", "matte", "--format", "png", "-o", str(tmp_path)]
    assert main(["preview", pattern, "--mask", mask, "--model", model, *options]) == 0
    assert "Frame 1002 (1/7)  key" in capsys.readouterr().out
    key = oiio.ImageBuf(str(tmp_path / "sh010_preview.1002.png")).get_pixels(oiio.UINT8)
    assert key[24, 21].tolist() == [255, 255, 255] and key[2, 2].tolist() == [0, 0, 0]


def test_preview_when_given_a_project_then_its_keys_are_followed(tmp_path: Path, shot: tuple[str, str, str]):
    pattern, mask, model = shot
    project = tmp_path / "shot"
    assert (
        main(["new", pattern, str(project), "-m", mask, "--set", f"model={model}", "-o", str(tmp_path / "out")]) == 0
    )
    assert main(["preview", str(project), "-o", str(tmp_path / "look"), "--quiet"]) == 0
    assert len(list((tmp_path / "look").iterdir())) == 7
    assert main(["preview", str(project), "--mask", mask, "-o", str(tmp_path / "look")]) == 2


def test_preview_when_there_is_no_key_then_it_says_so(tmp_path: Path, shot: tuple[str, str, str], capsys):
    assert main(["preview", shot[0], "-o", str(tmp_path)]) == 2
    assert "there is no key mask" in capsys.readouterr().err
