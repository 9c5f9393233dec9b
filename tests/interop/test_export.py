"""`rotomem export` on a real plate and real mattes in a folder with every sign that could break a script."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import av
import numpy as np
import pytest

from engine.shots import disc, plate, write
from rotomem.cli import main
from rotomem.interop.footage import footage, matte_footage

FOLDER = 'it\'s [a] $HOME {folder} "é" ;x'


@pytest.fixture(scope="module")
def shot(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("interop")
    given = plate(root / FOLDER / "plate", range(1001, 1005))
    for frame in range(1001, 1005):
        both = np.stack([disc(frame - 1001), disc(frame - 1001, x=50)], -1).astype(np.float16)
        path = root / FOLDER / "mattes" / f"sh010_matte.{frame}.exr"
        names = json.dumps({"hero": "hero / [left] $1", "car": "car"})
        write(path, both, channels=("hero.A", "car.A"), **{"rotomem/objects": names, "rotomem/settings": "x"})
    return {"plate": given, "mattes": str(root / FOLDER / "mattes")}


def export(shot: dict[str, str], kind: str, capsys) -> str:
    assert main(["export", shot["plate"], shot["mattes"], f"--{kind}"]) == 0
    return capsys.readouterr().out


def test_footage_when_mattes_are_looked_at_then_names_channels_and_range(shot):
    (seen,) = matte_footage(shot["mattes"])
    assert (seen.first, seen.last, seen.width, seen.height) == (1001, 1004, 72, 48)
    assert seen.file(1002).endswith("/mattes/sh010_matte.1002.exr") and Path(seen.file(1002)).exists()
    assert [(m.name, m.channel, m.layer) for m in seen.mattes] == [
        ("hero / [left] $1", "hero.A", "hero"),
        ("car", "car.A", "car"),
    ]
    assert footage(shot["plate"]).fps == 24 and footage(shot["plate"]).mattes == ()


def test_footage_when_it_is_a_movie_then_its_frames_count_from_one(tmp_path):
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(32, 16, "yuv420p")))
        container.mux(stream.encode(None))
    seen = footage(tmp_path / "a.mov")
    assert (seen.movie, seen.first, seen.last, seen.file(2)) == (True, 1, 3, str(tmp_path / "a.mov"))


def test_export_when_nuke_then_every_object_has_its_copy_of_plate_and_mattes(shot, capsys):
    pytest.importorskip("tkinter", reason="this Python has no Tcl")
    from interop.nukescript import evaluate, shown

    nodes = evaluate(export(shot, "nk", capsys))
    by_name = {n.name: n for n in nodes}
    read, mattes = by_name["RotomemPlate"], by_name["RotomemMattes"]
    assert shown(read.knobs["file"]) == footage(shot["plate"]).path
    assert Path(shown(mattes.knobs["file"]) % 1003).exists() and mattes.knobs["raw"] == "true"
    assert (read.knobs["first"], read.knobs["last"], mattes.knobs["last"]) == ("1001", "1004", "1004")
    copies = [n for n in nodes if n.kind == "Copy"]
    assert [c.knobs["from0"] for c in copies] == ["hero.alpha", "car.alpha"]
    assert all(c.inputs == [read, mattes] for c in copies)
    assert shown(copies[0].knobs["label"]) == "hero / [left] $1"
    premults = [n for n in nodes if n.kind == "Premult"]
    assert [p.inputs for p in premults] == [[c] for c in copies]


@pytest.mark.parametrize("kind", ["comp", "setting"])
def test_export_when_fusion_then_loaders_and_matte_controls_are_wired(shot, kind, capsys):
    lupa = pytest.importorskip("lupa.luajit21", reason="no LuaJIT here: pip install lupa")
    lua = lupa.LuaRuntime(encoding="utf-8")
    # Fusion's tables begin with the name of what they make.
    lua.execute("local t = function(x) return x end; for _, n in ipairs{'Composition','Loader','MatteControl','Clip',"
                "'Input','FuID','OperatorInfo'} do _G[n] = function(x) x.__kind = n; return x end end; ordered = "
                "function() return t end")  # fmt: skip
    document = lua.eval(export(shot, kind, capsys))
    tools = {k: v for k, v in document["Tools"].items() if k != "__kind"}
    kinds = {name: tool["__kind"] for name, tool in tools.items()}
    assert sorted(kinds.values()) == ["Loader", "Loader", "Loader", "MatteControl", "MatteControl"]
    clip = tools["RotomemMatte1"]["Clips"][1]
    assert Path(clip["Filename"]).exists() and (clip["GlobalStart"], clip["GlobalEnd"], clip["Length"]) == (
        1001,
        1004,
        4,
    )
    assert tools["RotomemMatte2"]["Inputs"]["Clip1.OpenEXRFormat.AlphaName"]["Value"][1] == "car.A"
    for name, tool in tools.items():
        for value in tool["Inputs"].values():
            if "SourceOp" in value:
                assert value["SourceOp"] in tools, f"{name} hangs in the air"


def test_export_when_blender_then_the_script_is_python_and_holds_the_paths(shot, capsys):
    script = ast.parse(export(shot, "blender", capsys))
    values = {
        n.targets[0].id: ast.literal_eval(n.value)
        for n in script.body
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
    }
    assert Path(values["PLATE"]["file"]).exists() and values["PLATE"]["fps"] == (24, 1.0)
    assert values["MATTES"][0]["mattes"][0] == {"name": "hero / [left] $1", "layer": "hero"}


def test_export_when_otio_then_both_tracks_find_their_files(shot, capsys):
    otio = pytest.importorskip("opentimelineio", reason="no opentimelineio here: pip install 'rotomem[otio]'")
    timeline = otio.adapters.read_from_string(export(shot, "otio", capsys), "otio_json")
    plates, mattes = (track[0].media_reference for track in timeline.tracks)
    assert plates.start_frame == mattes.start_frame == 1001 and plates.number_of_images_in_sequence() == 4
    assert Path(otio.url_utils.filepath_from_url(mattes.target_url_for_image_number(2))).exists()


def test_export_when_written_to_a_file_then_it_is_whole(shot, tmp_path, capsys):
    out = tmp_path / "sh 010.nk"
    assert main(["export", shot["plate"], shot["mattes"], "--nk", "-o", str(out)]) == 0
    assert out.read_text() == export(shot, "nk", capsys).removeprefix(f"wrote {out}\n")


def test_footage_when_mattes_lie_in_several_sequences_then_each_is_one_and_companions_are_none(tmp_path):
    for frame in (7, 8):
        for name, kind in (("hero", {}), ("car", {}), ("crypto", {"rotomem/kind": "crypto"})):
            path = tmp_path / name / f"{name}.{frame:03d}.exr"
            write(path, disc(0)[..., None].astype(np.float16), channels=("A",), **kind)
    seen = matte_footage(tmp_path)
    assert [[m.name for m in one.mattes] for one in seen] == [["car"], ["hero"]]
    assert seen[1].file(8) == str(tmp_path / "hero" / "hero.008.exr")


def test_export_when_there_is_no_matte_then_an_error(shot, tmp_path, capsys):
    assert main(["export", shot["plate"], str(tmp_path), "--nk"]) == 3
    assert "no mattes there" in capsys.readouterr().err
