"""The scripts as an artist starts them: a Resolve held to its published methods, real shells, the real engine."""

from __future__ import annotations

import ast
import json
import os
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from fakeresolve import NASTY, Fake, FakeComp, run_script, table

from engine.shots import disc, matte, picture, plate, soft_key
from rotomem.cli import main
from rotomem.host.install import install_resolve, resolve_folder

MATTE, COMP, CANCEL = (f"Utility/Rotomem {name}.lua" for name in ("Clip Matte", "Fusion Comp", "Cancel"))
ADAPTER = Path(__file__).parents[2] / "host_integrations" / "resolve"


def key(session, clip: str, frame: int, project: str = "show", t: int = 0) -> Path:
    """A key of the disc in the clip's folder of keys, named as artists name them."""
    keys = session.clips / project / clip / "keys"
    soft_key(keys, frame, dx=0, x=20 + 1.5 * t)
    return keys


def test_clip_matte_when_clip_is_exr_then_real_mattes_hang_on_the_clip(start, tmp_path):
    session = start()
    plate(tmp_path / NASTY / "plates", range(1001, 1009))
    folder = str(tmp_path / NASTY / "plates")
    old = f"{session.clips}/show/sh010/mattes/sh010_packed.[0900-0901].exr"
    fake = Fake(
        f"{folder}/sh010.[1001-1008].exr", offset=2, length=4, lua=session.lua, mattes=[old, "/other/matte.mov"]
    )
    key(session, "sh010", 1003, t=2)
    key(session, "sh010", 1001)  # not on the timeline
    soft_key(session.clips / "show" / "sh010" / "keys", 1005, "Car", x=50)
    run_script(session, MATTE, resolve=fake.resolve)
    assert "the mattes are clip mattes now (red hero, green Car)" in session.printed[-1], session.printed
    out = session.clips / "show" / "sh010" / "mattes"
    assert fake.mattes == ["/other/matte.mov", f"{out}/sh010_packed.[1003-1006].exr"]
    assert sorted(p.name for p in out.glob("sh010_packed.*")) == [f"sh010_packed.{f}.exr" for f in range(1003, 1007)]
    # Keys are what the artist drew, in the channels that were told.
    np.testing.assert_allclose(matte(out / "sh010_packed.1003.exr", "R"), disc(2).astype(np.float16), atol=1e-3)
    np.testing.assert_allclose(matte(out / "sh010_packed.1005.exr", "G"), disc(4, x=50).astype(np.float16), atol=1e-3)
    assert any("100 %" in line for line in session.printed)


def test_fusion_comp_when_clip_is_a_movie_and_key_a_still_then_a_comp_with_media_out(start, tmp_path):
    session = start()
    movie = tmp_path / "clip é.mov"
    with av.open(str(movie), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 72, 48, "yuv420p"
        for t in range(6):
            frame = av.VideoFrame.from_ndarray((np.clip(picture(t), 0, 1) * 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    fake = Fake(
        str(movie), offset=1, length=4, frames=6, name="clip é.mov", lua=session.lua, stills={"hero@2": 1, "grade": 0}
    )
    run_script(session, COMP, resolve=fake.resolve)
    assert "a Fusion composition" in session.printed[-1], session.printed
    keys = session.clips / "show" / "clip é.mov" / "keys"
    assert [p.name for p in keys.iterdir()] == ["hero.2.tif"]
    (path,) = fake.comps
    tools = parsed(session.lua, path)["Tools"]
    wired = {n: {k: v["SourceOp"] for k, v in t["Inputs"].items() if "SourceOp" in v} for n, t in tools.items()}
    assert wired["MediaOut1"] == {"Input": "RotomemAlpha1"}
    assert wired["RotomemAlpha1"] == {"Background": "RotomemPlate", "Foreground": "RotomemMatte1"}
    assert {n: t["Clips"][0]["GlobalStart"] for n, t in tools.items() if "Clips" in t} == {
        "RotomemPlate": -1,  # its second frame is the clip's first
        "RotomemMatte1": 0,
    }


def parsed(lua, path: str) -> dict:
    """A composition as Python's values; Fusion's constructors give their table."""
    lua.execute("for _, n in ipairs{'Composition','Loader','MatteControl','MediaOut','Clip','Input','FuID',"
                "'OperatorInfo'} do _G[n] = function(x) x.__kind = n return x end end "
                "ordered = function() return function(x) return x end end")  # fmt: skip
    return plain(lua.eval(Path(path).read_text(encoding="utf-8")))


def plain(value):
    if not hasattr(value, "items"):
        return value
    pairs = {k: plain(v) for k, v in value.items()}
    numbers = [k for k in pairs if isinstance(k, int)]
    return [pairs[i] for i in sorted(numbers)] if numbers and len(numbers) == len(pairs) else pairs


def test_clip_matte_when_the_engine_cannot_read_the_clip_then_resolve_renders_it(start, stand_in, tmp_path):
    session = start(stand_in())
    fake = Fake("/cam/A001.braw", offset=10, length=3, frames=100, name="A001.braw", lua=session.lua, project="short")
    key(session, "A001.braw", 12, project="short")
    packed = session.clips / "short" / "A001.braw" / "mattes" / "plate_packed.00086401.exr"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(b"")
    run_script(session, MATTE, resolve=fake.resolve)
    (job,) = (session.clips / "short" / "A001.braw" / "jobs").glob("job-*/request.json")
    asked = json.loads(job.read_text())
    assert asked["plate"].endswith("/plate/plate.%08d.exr") and Path(asked["plate"] % 86400).exists()
    # Frame 12 of the clip is the second that the timeline shows.
    assert asked["masks"][0].startswith("hero@86401=") and asked["options"]["frames"] == "86400-86402"
    assert "lie in the media pool" in session.printed[-1], session.printed
    assert fake.imported[0]["StartIndex"] == 86401 and fake.mattes == []
    assert (fake.settings["MarkIn"], fake.settings["MarkOut"]) == (86400, 86402)
    assert fake.format == {"format": "mov", "codec": "ProRes422"} and fake.jobs == {}  # as they were
    assert any("renders the clip to EXR: 50 %" in line for line in session.printed)


def test_clip_matte_when_cancelled_while_resolve_renders_then_nothing_is_tracked(start, stand_in):
    session = start(stand_in())
    fake = Fake("/cam/A001.braw", length=3, frames=100, name="A001.braw", lua=session.lua)
    key(session, "A001.braw", 2)
    track = session.lua.eval("function(r, show) return require('rotomem_resolve').track(r, 'matte', show) end")
    out, said = track(fake.resolve, lambda text, share, new: text.startswith("renders"))
    assert (out, said) == (None, "cancelled; no plate was rendered")
    assert "Project:StopRendering" in fake.called and fake.jobs == {}
    assert not (session.clips / "show" / "A001.braw" / "jobs").exists()


def test_cancel_when_there_is_nothing_to_stop_then_it_says_so(start):
    session = start()
    run_script(session, CANCEL, resolve=Fake("/p/a.mov", lua=session.lua).resolve)
    run_script(session, CANCEL, resolve=Fake(None, lua=session.lua).resolve)
    run_script(session, CANCEL, resolve=None)
    told = ("this clip was never tracked", "has no file", "Resolve does not answer")
    assert all(text in line for text, line in zip(told, session.printed, strict=True)), session.printed


def test_cancel_when_the_script_is_chosen_then_the_run_ends(start, stand_in, tmp_path):
    session = start(stand_in())
    plate(tmp_path, range(1001, 1005))
    fake = Fake(f"{tmp_path}/sh010.[1001-1004].exr", lua=session.lua)
    key(session, "sh010", 1001)
    printed: list[str] = []

    def say(*texts: object) -> None:
        printed.append(str(texts[0]))
        if "frame" in printed[-1] and not any("asked to stop" in line for line in printed):
            run_script(session, CANCEL)

    session.lua.globals()["print"] = say
    run_script(session, MATTE, resolve=fake.resolve)
    assert any("asked to stop" in line for line in printed)
    assert "cancelled; the mattes written so far are whole" in printed[-1]
    assert fake.mattes == []


def test_clip_matte_when_there_is_a_window_then_it_tells_and_its_button_cancels(start, stand_in, tmp_path):
    session = start(stand_in())
    plate(tmp_path, range(1001, 1005))
    fake = Fake(f"{tmp_path}/sh010.[1001-1004].exr", lua=session.lua)
    key(session, "sh010", 1001)
    session.lua.execute("""
        local window, said = { On = { Stop = {}, Rotomem = {} } }, {}
        items = { Said = setmetatable({}, { __newindex = function(_, k, v) said[#said + 1] = v end }), Stop = {} }
        texts = said
        function window:Show() end
        function window:GetItems() return items end
        local made = function(_, what) return what end
        fu = { UIManager = { VGroup = made, Label = made, Button = made } }
        bmd = { wait = function(s) os.execute("sleep 0.05") end, UIDispatcher = function() return {
            AddWindow = function() return window end,
            StepLoop = function()
                local last = said[#said] or ""
                if last:find("^frame") or items.Stop.Text == "Close" then window.On.Stop.Clicked() end end } end }
    """)
    run_script(session, MATTE, resolve=fake.resolve)
    texts = plain(session.lua.globals()["texts"])
    assert any(t.startswith("frame") for t in texts) and texts[-1].startswith("cancelled; "), texts


@pytest.mark.parametrize(
    ("clip", "more", "said"),
    [
        (None, {}, "no file"),
        ("/p/sh010.[1001-1004].exr", {}, "there is no key mask for frames 1001-1004. Put one into"),
        ("/p/sh010.[1001-1004].exr", {"offset": 3}, "is the clip retimed?"),
        ("/p/a.mov", {"stills": {"hero@1": 0}, "refuses": ("stills",)}, "open the Gallery on the Color page"),
    ],
)
def test_clip_matte_when_something_is_missing_then_the_artist_is_told_what(start, stand_in, clip, more, said):
    session = start(stand_in())
    run_script(session, MATTE, resolve=Fake(clip, lua=session.lua, **more).resolve)
    assert said in session.printed[-1], session.printed


def test_clip_matte_when_the_engine_is_missing_then_it_is_said_before_all_else(start, tmp_path):
    session = start(str(tmp_path / "none" / "python"))
    run_script(session, MATTE, resolve=Fake(None, lua=session.lua).resolve)
    assert "python is not there: choose the Python" in session.printed[-1]


def test_attach_when_resolve_takes_no_range_then_the_first_file_or_what_to_do(start, stand_in):
    session = start(stand_in())
    attach = session.lua.eval(
        "function(resolve, clip, project) local r = require('rotomem_resolve') return pcall(r.attach, resolve, "
        "{ clip = clip, project = project }, {{ pattern = '/m/p.%04d.exr', first = 1001, last = 1002 }}) end"
    )
    fake = Fake("/x.mov", lua=session.lua, refuses=("[",))
    project = fake.resolve.GetProjectManager().GetCurrentProject()
    assert attach(fake.resolve, fake.clip, project) is True and fake.mattes == ["/m/p.1001.exr"]
    fake = Fake("/x.mov", lua=session.lua, refuses=("/",))
    project = fake.resolve.GetProjectManager().GetCurrentProject()
    fine, said = attach(fake.resolve, fake.clip, project)
    assert not fine and "add /m/p.[1001-1002].exr by hand" in said


@pytest.mark.parametrize(
    ("told", "offset", "duration", "range_"),
    [
        ((1001, 1100), 0, 100, (1001, 1100)),
        ((1001, 1100), 10, 20, (1011, 1030)),
        ((1001, 1100), 1011, 20, (1011, 1030)),
        ((0, 99), 5, 5, (5, 9)),
        ((1, 100), 90, 20, None),
    ],
)
def test_range_when_offsets_count_from_the_clip_or_its_files_then_as_on_disk(start, told, offset, duration, range_):
    found = start().lua.eval("require('rotomem_resolve').range")(*told, offset, duration)
    assert found == range_ if range_ else found[0] is None


def test_fake_when_a_method_is_unknown_or_called_wrongly_then_an_error():
    fake = Fake("/x.mov")
    with pytest.raises(AttributeError, match="Resolve:ImportMattes does not exist"):
        fake.resolve.ImportMattes()
    with pytest.raises(TypeError, match="takes 0 to 1 arguments, not 2"):
        fake.clip.GetClipProperty("FPS", 24)
    assert len(table()["TimelineItem"]) > 50


# Fusion's page ------------------------------------------------------------------------------------------------


def test_fusion_script_when_loader_and_mask_are_selected_then_nodes_arrive_on_the_loader(start, tmp_path):
    session = start()
    plate(tmp_path / NASTY, range(1001, 1007))
    flow = FakeComp(session.lua, time=12)
    loader = flow.add(
        "Loader",
        "Loader1",
        selected=True,
        TOOLST_Clip_Name=[f"{tmp_path / NASTY}/sh010.1001.exr"],
        TOOLIT_Clip_StartFrame=[1001],
        TOOLIT_Clip_TrimIn=[1],
        TOOLNT_Clip_Start=[10],
        TOOLNT_Clip_End=[13],
    )
    attrs = loader._does["GetAttrs"]()
    loader._does["GetAttrs"] = lambda *_: {k: flow.world.out(v) for k, v in attrs.items()}
    flow.add("BSplineMask", "hero", selected=True)
    flow.add("Blur", "Blur1")
    read = lambda path: session.lua.table_from(parsed(session.lua, path), recursive=True)  # noqa: E731
    session.lua.globals()["bmd"] = session.lua.table_from({"readfile": read})
    run_script(session, "Comp/Rotomem.lua", comp=flow.comp)
    assert "a Loader and a MatteControl for every object" in session.printed[-1], session.printed
    assert flow.saved == [12]
    folder = session.clips / "Fusion" / "sh010"
    # Time 10 shows file 1002: the loader starts at 1001 and is trimmed by one.
    assert [p.name for p in (folder / "keys").iterdir()] == ["hero.1004.exr"]
    assert sorted(p.name[-8:-4] for p in (folder / "mattes").glob("sh010_matte.*.exr")) == [
        "1002",
        "1003",
        "1004",
        "1005",
    ]
    names = {t.Name: t for t in flow.tools}
    assert "RotomemPlate" not in names and "Saver3" not in names
    control = names["RotomemAlpha1"].inputs
    assert control["Background"] is loader and control["Foreground"] == "RotomemMatte1"
    assert names["RotomemMatte1"].inputs["start"] == 10


def test_fusion_script_when_no_loader_is_selected_then_it_says_what_to_select(start, stand_in):
    session = start(stand_in())
    flow = FakeComp(session.lua, time=0)
    flow.add("BSplineMask", "hero", selected=True)
    run_script(session, "Comp/Rotomem.lua", comp=flow.comp)
    assert "select the plate's Loader" in session.printed[-1]


# Studio's Python ----------------------------------------------------------------------------------------------


@pytest.fixture
def studio(tmp_path, monkeypatch):
    install_resolve(tmp_path / "Fusion")
    monkeypatch.syspath_prepend(str(tmp_path / "Fusion" / "Modules" / "Python"))
    command = tmp_path / "bin" / "rotomem"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m rotomem "$@"\n')
    os.chmod(command, 0o755)
    for name in [n for n in sys.modules if n.partition(".")[0] == "rotomem_studio"]:
        monkeypatch.delitem(sys.modules, name)
    import rotomem_studio

    yield rotomem_studio, str(command)
    for name in [n for n in sys.modules if n.partition(".")[0] == "rotomem_studio"]:
        del sys.modules[name]


def test_studio_when_python_tracks_then_mattes_and_comp_arrive(studio, weights, tmp_path):
    module, command = studio
    plate(tmp_path, range(1001, 1005))
    fake = Fake(f"{tmp_path}/sh010.[1001-1004].exr", offset=1, length=3)
    said: list[str] = []
    wanted = {"resolve": fake.resolve, "engine": command, "model": weights, "size": 32, "say": said.append}
    report = module.track(soft_key(tmp_path / "k", 1002), how="matte", **wanted)
    assert report["frames_written"] == 3
    assert fake.mattes == [f"{tmp_path}/rotomem/sh010_packed.[1002-1004].exr"] and any("3/3" in s for s in said)


def test_studio_when_it_cannot_be_done_then_a_problem(studio, monkeypatch, tmp_path):
    module, _ = studio
    with pytest.raises(module.ResolveProblem, match="cannot read"):
        module.source(Fake("/cam/A001.braw").resolve)
    with pytest.raises(module.ResolveProblem, match="retimed"):
        module.source(Fake("/p/sh010.[1001-1004].exr", offset=3).resolve)
    monkeypatch.setenv("RESOLVE_SCRIPT_API", str(tmp_path))
    with pytest.raises(module.ResolveProblem, match="set RESOLVE_SCRIPT_API"):
        module.connect()


def test_studio_when_resolve_has_an_old_python_then_it_reads_the_source():
    for path in ADAPTER.rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))


# Installation -------------------------------------------------------------------------------------------------


def test_install_when_done_twice_then_scripts_lie_where_resolve_looks_and_settings_stay(tmp_path, capsys):
    fusion = tmp_path / "F é"
    settings = fusion / "Modules" / "Lua" / "rotomem_settings.lua"
    for _ in range(2):
        assert main(["hosts", "install", "resolve", "--user", str(fusion)]) == 0
        settings.write_text("return {}")
    assert "Workspace > Scripts" in capsys.readouterr().out
    assert {p.name for p in (fusion / "Scripts").rglob("*.lua")} == {Path(n).name for n in (MATTE, COMP, CANCEL)} | {
        "Rotomem.lua"
    }
    assert sys.executable in (fusion / "Modules" / "Lua" / "rotomem_engine.lua").read_text()
    assert settings.read_text() == "return {}"


def test_resolve_folder_when_platforms_differ_then_each_has_its_own(monkeypatch):
    monkeypatch.setenv("APPDATA", "/Users/x/AppData/Roaming")
    assert resolve_folder("win32").parts[-4:] == ("Blackmagic Design", "DaVinci Resolve", "Support", "Fusion")
    assert "Application Support" in str(resolve_folder("darwin"))
    assert str(resolve_folder("linux")).endswith(".local/share/DaVinciResolve/Fusion")
