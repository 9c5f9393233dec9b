"""`rotomem prompt`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from engine.shots import HEIGHT, WIDTH, checkpoint, disc, matte, plate, write
from rotomem.cli import main
from rotomem.evaluation.measures import region_similarity


@pytest.fixture(scope="module")
def shot(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Plate and model."""
    folder = tmp_path_factory.mktemp("prompt")
    return [plate(folder, range(1001, 1004)), "--model", checkpoint(folder)]


def test_prompt_when_clicked_then_a_key_that_track_takes(tmp_path: Path, shot: list[str], capsys):
    key = tmp_path / "key.exr"
    options = ["--frame", "1002", "--object", "hero", "--click", "21,24", "--click-out", "60,40", "-o", str(key)]
    assert main(["prompt", *shot, *options]) == 0
    said = capsys.readouterr().out
    assert "hero: " in said and f"--mask hero@1002={key}" in said
    assert region_similarity(matte(key) > 0.5, disc(1) > 0.5) > 0.7
    told = oiio.ImageInput.open(str(key)).spec().getattribute("rotomem/prompts")
    assert json.loads(told) == {"hero": [{"in": [21.0, 24.0]}, {"out": [60.0, 40.0]}]}
    assert main(["track", *shot, "--mask", f"hero@1002={key}", "-o", str(tmp_path / "out"), "--quiet"]) == 0
    assert len(list((tmp_path / "out").glob("*.exr"))) == 3
    assert main(["prompt", *shot, *options]) == 0  # its own file may be made anew


def test_prompt_when_several_objects_in_a_file_then_a_layer_each(tmp_path: Path, shot: list[str], capsys):
    clicks = tmp_path / "clicks.json"
    clicks.write_text(json.dumps({"hero": [{"in": [20, 24]}], "cold": [{"in": [[48, 14], [52, 14]], "radius": 2}]}))
    key = tmp_path / "key.exr"
    assert main(["prompt", *shot, "--frame", "1001", "--prompts", str(clicks), "-o", str(key), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["masks"] == [f"hero@1001={key}:hero.A", f"cold@1001={key}:cold.A"]
    assert region_similarity(matte(key, "hero.A") > 0.5, disc(0) > 0.5) > 0.7
    assert (
        region_similarity(matte(key, "cold.A") > 0.5, disc(0, x=50, dx=-0.5, y=14, r=6) > 0.5) > 0.3
    )  # 3 places wide


def test_prompt_when_several_objects_as_png_then_a_file_each_that_track_takes(
    tmp_path: Path, shot: list[str], capsys
):
    clicks = tmp_path / "clicks.json"
    clicks.write_text(json.dumps({"hero": [{"in": [20, 24]}], "cold": [{"in": [50, 14]}]}))
    out = str(tmp_path / "{object}.png")
    assert main(["prompt", *shot, "--frame", "1001", "--prompts", str(clicks), "-o", out, "--json"]) == 0
    masks = json.loads(capsys.readouterr().out)["masks"]
    assert len(masks) == 2 and all(Path(mask.partition("=")[2]).is_file() for mask in masks)
    given = [word for mask in masks for word in ("--mask", mask)]
    assert main(["track", *shot, *given, "-o", str(tmp_path / "out"), "--dry-run"]) == 0


def test_prompt_when_scribbled_in_one_colour_then_the_object_is_named(tmp_path: Path, shot: list[str], capsys):
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[22:27, 15:26] = 255, 80, 0, 255
    pixels[40:44, 5:60] = 0, 0, 0, 255
    picture = write(tmp_path / "strokes.png", pixels)
    key = tmp_path / "key.exr"
    options = ["--frame", "1001", "--object", "hero", "--scribbles", str(picture), "-o", str(key)]
    assert main(["prompt", *shot, *options]) == 0
    assert f"hero@1001={key}" in capsys.readouterr().out
    assert region_similarity(matte(key) > 0.5, disc(0) > 0.5) > 0.7


def test_prompt_when_an_overlay_is_wanted_then_the_object_is_tinted(tmp_path: Path, shot: list[str]):
    picture = tmp_path / "look.png"
    options = ["--frame", "1001", "--click", "20,24", "-o", str(tmp_path / "key.exr"), "--overlay", str(picture)]
    assert main(["prompt", *shot, *options]) == 0
    pixels = oiio.ImageBuf(str(picture)).get_pixels(oiio.FLOAT)
    assert pixels.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--frame", "1001"], 2, "nothing was marked"),
        (["--frame", "1001", "--click", "-3,4"], 2, "a mark of object at -3,4 lies outside of the plate's 72x48+0+0"),
        (["--frame", "1001", "--click-out", "3,4"], 2, "object has no mark on it"),
        (["--frame", "1001", "--click", "3"], 2, "'3' is not X,Y"),
        (["--frame", "1001", "--click", "3,nan"], 2, "'3,nan' is not X,Y"),
        (["--frame", "1001", "--box", "3,4,3,9"], 2, "is an empty box"),
        (["--frame", "1009", "--click", "3,4"], 3, "1009"),
        (["--frame", "1001", "--prompts", "none.json"], 2, "cannot read the prompts"),
    ],
)
def test_prompt_when_it_cannot_then_it_says_why_and_writes_nothing(
    tmp_path: Path, shot: list[str], capsys, options: list[str], code: int, said: str
):
    assert main(["prompt", *shot, *options, "-o", str(tmp_path / "key.exr")]) == code
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
