"""The whole press of a button: keys written by the host, the real worker on real EXR files, mattes wired back in."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakenuke
import numpy as np
import pytest

from engine.shots import HEIGHT, WIDTH, checkpoint, disc, matte, plate, write

FRAMES = range(1001, 1007)


def alpha(frame: int) -> fakenuke.Picture:
    return {"rgba.alpha": disc(frame - 1001)}


def other(frame: int) -> fakenuke.Picture:
    return {"car.alpha": disc(frame - 1001, x=50, dx=-0.5, y=14, r=6)}


def roto(session: Any, *shapes: Any, draw: Any = alpha) -> fakenuke.Node:
    node = session.make("Roto", draw=draw)
    node["curves"].rootLayer = fakenuke.RotoLayer(shapes)
    return node


@pytest.fixture
def shot(start, tmp_path: Path):
    """`shot(gui=...)`: a Nuke with plate, Roto and a Rotomem node between them."""

    def shot(folder: str = "a shot é [1]", **how: Any) -> SimpleNamespace:
        made = start(**how)
        made.pattern = plate(tmp_path / folder / "plate", FRAMES)
        made.read = made.nuke.make("Read", file=made.plugin.host.tcl_text(made.pattern), first=1001, last=1006)
        made.roto = roto(made.nuke, fakenuke.shape(1001), fakenuke.RotoLayer([fakenuke.shape(moved=[1004.0])]))
        made.node = made.plugin.create()
        made.node.setInput(0, made.nuke.make("Dot", made.read))
        made.node.setInput(1, made.roto)
        made.out = tmp_path / folder / "out"
        made.node["folder"].setValue(made.plugin.host.tcl_text(str(made.out)))
        made.node["model"].setValue(checkpoint(tmp_path))
        made.node["size"].setValue(32)
        return made

    return shot


def shown(node: fakenuke.Node, frame: int, view: str = "") -> fakenuke.Picture:
    return fakenuke._picture(node, frame, view)


def mattes(made: SimpleNamespace) -> list[str]:
    return sorted(p.name for p in (made.out / "mattes").glob("*.exr"))


def test_track_when_pressed_in_a_terminal_then_the_node_shows_what_the_worker_wrote(shot) -> None:
    made = shot()
    made.node["track_both"].execute()
    assert mattes(made) == [f"sh010_matte.{f}.exr" for f in FRAMES]
    assert [Path(p).name for p in made.nuke.written] == ["1_hero.1001.exr", "1_hero.1004.exr"]
    read = next(n for n in made.node.nodes() if n.Class() == "Read")
    assert (read["first"].value(), read["last"].value(), read["raw"].value()) == (1001, 1006, True)
    for frame in FRAMES:
        picture = shown(made.node, frame)
        assert np.abs(picture["rgba.alpha"] - matte(made.out / "mattes" / f"sh010_matte.{frame}.exr")).max() == 0
        assert np.abs(picture["rgba.alpha"] - picture["hero.alpha"]).max() == 0
        assert np.abs(picture["rgba.red"] - shown(made.read, frame)["rgba.red"]).max() == 0
    assert np.abs(shown(made.node, 1004)["rgba.alpha"] - alpha(1004)["rgba.alpha"]).max() < 1e-3  # half
    assert "6 frames tracked" in made.node["status"].value() and made.nuke.undo_off == 0
    # What was made for a moment is gone; what is inside stays inside.
    assert {n.Class() for n in made.nuke.root.nodes()} == {"Read", "Roto", "Dot", "Group"}

    made.node["track_both"].execute()
    assert "6 kept" in made.node["status"].value()
    assert len([n for n in made.node.nodes() if n.Class() == "Read"]) == 1


def test_track_when_there_is_an_interface_then_it_goes_on_and_nodes_are_touched_in_the_main_thread(shot) -> None:
    made = shot(gui=True)
    began = time.monotonic()
    made.node["track_both"].execute()
    assert time.monotonic() - began < 1  # the button comes back at once
    made.node["track_both"].execute()
    assert "tracks already" in made.nuke.messages[-1]
    made.nuke.pump(lambda: "Done" in made.node["status"].value())
    [task] = made.nuke.tasks
    assert task.progress[-1] == 100 and any("frame 1006" in text for text in task.messages)
    made.nuke.menus["rotomem"].commands["Rotomem"]()
    assert made.nuke.panels == ["Rotomem1", "Rotomem2"] and "Self test" in made.nuke.menus["rotomem"].commands


def test_track_when_there_are_several_objects_then_each_has_its_layer_and_a_cryptomatte(shot) -> None:
    made = shot()
    made.nuke.layers["car"] = ["alpha"]
    made.nuke.make("Roto", draw=other).setName("Cars")
    made.roto._draw = lambda frame: {**alpha(frame), **other(frame)}
    drawn = write(made.out.parent / "van.1002.exr", disc(3, y=40, r=5)[..., None].astype(np.float16), channels=("A",))
    made.node["objects"].setValue(f"hero / 1 @ 1001\ncar = car.alpha @ 1001 1003\nvan = {drawn}")
    made.node["crypto"].setValue(True)
    made.node["track_both"].execute()
    files = made.out / "mattes"
    for frame in (1002, 1005):
        picture, file = shown(made.node, frame), files / f"sh010_matte.{frame}.exr"
        for layer in ("hero_1", "car", "van"):
            assert np.abs(picture[f"{layer}.alpha"] - matte(file, f"{layer}.A")).max() == 0
        assert np.abs(picture["rgba.alpha"] - picture["hero_1.alpha"]).max() == 0
    assert np.abs(shown(made.node, 1003)["car.alpha"] - other(1003)["car.alpha"]).max() < 1e-3
    made.node["make_reads"].execute()
    names = [n.name() for n in made.nuke.root.nodes() if n.Class() == "Read" and n is not made.read]
    assert names == ["Rotomem1_sh010_crypto", "Rotomem1_sh010_matte"]


def test_track_when_a_segment_then_only_its_frames(shot) -> None:
    made = shot()
    made.nuke.frame = 1005
    made.node["track_segment"].execute()
    assert mattes(made) == [f"sh010_matte.{f}.exr" for f in (1004, 1005, 1006)]
    made.node["track_both"].execute()
    assert "3 frames tracked, 3 kept" in made.node["status"].value()
    made.node["range"].setValue("custom")
    made.node["last"].setValue(1005)
    assert [w.fields["only"] for w in made.plugin.host.work_of(made.node, "both", segment=True)] == ["1004-1005"]
    made.nuke.frame = 1006
    with pytest.raises(RuntimeError, match="1006 is not one of 1001-1005"):
        made.node["track_segment"].execute()


def test_track_when_forward_then_nothing_before_the_first_key(shot) -> None:
    made = shot()
    made.node["objects"].setValue("hero @ 1003")
    made.node["track_forward"].execute()
    assert shown(made.node, 1002)["rgba.alpha"].max() == 0 < shown(made.node, 1006)["rgba.alpha"].max()


def test_track_when_views_then_each_has_its_folder(shot, tmp_path: Path) -> None:
    made = shot(gui=True)
    made.nuke.views = ["left", "right"]
    for view in ("left", "right"):
        pattern = plate(tmp_path / "stereo" / view, range(1001, 1003))
    made.read["file"].setValue(pattern.replace("right", "%V"))
    made.read["last"].setValue(1002)
    made.node["objects"].setValue("hero @ 1001")
    made.node["track_both"].execute()
    assert "List the views" in made.nuke.messages[-1]
    made.node["views"].setValue("left right")
    made.node["track_both"].execute()
    made.nuke.pump(lambda: "Done" in made.node["status"].value())
    [task] = made.nuke.tasks
    assert task.progress == sorted(task.progress) and task.progress[-1] == 100
    for view in ("left", "right"):
        file = made.out / "mattes" / view / "sh010_matte.1002.exr"
        assert np.abs(shown(made.node, 1002, view)["rgba.alpha"] - matte(file)).max() == 0


def test_track_when_the_input_is_no_read_then_it_is_rendered_once(shot) -> None:
    made = shot()
    made.node.setInput(0, made.nuke.make("Reformat", made.read))
    with pytest.raises(RuntimeError, match=r"Reformat1 .*Plate to input"):
        made.node["track_both"].execute()
    made.node["source"].setValue("input")
    made.node["objects"].setValue("hero @ 1001")
    made.node["track_both"].execute()
    rendered = [p for p in made.nuke.written if "/plate/" in p]
    assert len(rendered) == 6 and mattes(made)[0] == "plate_matte.1001.exr"
    made.node["track_both"].execute()
    assert "6 kept" in made.node["status"].value() and "Render input" in made.node["status"].value()
    made.node["render"].execute()
    assert len([p for p in made.nuke.written if "/plate/" in p]) == 12


def test_clear_when_pressed_then_the_plate_goes_through_and_files_stay(shot) -> None:
    made = shot()
    made.node["range"].setValue("custom")
    made.node["last"].setValue(1002)
    made.node["track_both"].execute()
    with made.node:
        mine = made.nuke.make("Dot")
    made.node["clear"].execute()
    assert "rgba.alpha" not in shown(made.node, 1001) and len(mattes(made)) == 2
    assert [n.Class() for n in made.node.nodes()] == ["Input", "Input", "Output", "Dot"] and mine in made.node.nodes()


def test_cancel_when_pressed_then_the_worker_stops_and_says_how_to_go_on(shot, stand_in: str) -> None:
    made = shot(gui=True)
    made.node["engine"].setValue(stand_in)
    made.node["track_both"].execute()
    made.nuke.pump(lambda: "frame 1" in made.node["status"].value())
    began = time.monotonic()
    made.node["cancel"].execute()
    made.nuke.pump(lambda: "Cancelled" in made.node["status"].value())
    assert time.monotonic() - began < 2
    made.node["cancel"].execute()
    assert made.node["status"].value() == "Nothing to cancel."


def test_cancel_when_in_the_progress_window_or_the_node_is_deleted_then_it_stops_too(shot, stand_in: str) -> None:
    made = shot(gui=True)
    made.node["engine"].setValue(stand_in)
    panel = made.plugin.panel
    made.node["track_both"].execute()
    made.nuke.pump(lambda: bool(made.nuke.tasks) and bool(made.nuke.tasks[0].progress))
    made.nuke.tasks[0].cancelled = True
    made.nuke.pump(lambda: "Cancelled" in made.node["status"].value())
    made.node["track_both"].execute()
    made.nuke.pump(lambda: "frame 1" in made.node["status"].value())
    another = made.plugin.create()
    fakenuke.delete(made.node)
    another["cancel"].execute()
    assert another["status"].value() == "Nothing to cancel."
    made.nuke.pump(lambda: not panel._runs)


def test_track_when_mattes_cannot_be_wired_in_then_it_says_so(shot) -> None:
    made = shot()
    fakenuke.delete(made.node.node("Output1"))
    with pytest.raises(RuntimeError, match=r"written, but not wired in.*no Output inside"):
        made.node["track_both"].execute()
    assert len(mattes(made)) == 6 and sum("not wired in" in line for line in made.nuke.printed) == 1


def test_track_when_the_worker_dies_then_its_last_words_are_shown(shot, stand_in: str) -> None:
    made = shot(gui=True)
    Path(stand_in).write_text("#!/bin/sh\necho 'no torch today' >&2; exit 3\n")
    made.node["engine"].setValue(stand_in)
    made.node["track_both"].execute()
    made.nuke.pump(lambda: bool(made.nuke.messages))
    assert "no torch today" in made.nuke.messages[0] and "no torch today" in made.node["status"].value()


def test_engine_when_it_works_for_one_node_then_another_waits_and_can_be_cancelled(shot, stand_in: str) -> None:
    made = shot(gui=True)
    second = made.plugin.create()
    for i in range(2):
        second.setInput(i, made.node.input(i))
    for node in (made.node, second):
        node["engine"].setValue(stand_in)
        node["folder"].setValue(str(made.user / node.name()))
        node["track_both"].execute()
    made.nuke.pump(lambda: "frame 1" in made.node["status"].value())
    assert "waits" in second["status"].value()
    made.node["check"].execute()  # which must not wait
    assert "at work" in made.nuke.messages[-1]
    second["cancel"].execute()
    made.nuke.pump(lambda: "Cancelled" in second["status"].value())
    made.nuke.pump(lambda: "frame 1" in made.node["status"].value())
    made.node["cancel"].execute()
    made.nuke.pump(lambda: "Cancelled" in made.node["status"].value())
    worker = made.plugin.run._engine
    assert worker.alive
    made.node["release"].execute()
    assert not worker.alive and "closed" in made.node["status"].value()


def test_engine_when_the_one_that_installed_is_gone_then_it_says_so(shot) -> None:
    made = shot()
    (made.user / "rotomem" / "rotomem_nuke" / "engine.txt").write_text("/gone/python\n")
    with pytest.raises(RuntimeError, match=r"/gone/python\. Run .* Engine on the node's second tab"):
        made.node["check"].execute()


def test_track_when_frames_are_missing_then_the_knob_says_what_to_do(shot) -> None:
    made = shot()
    made.read["last"].setValue(1007)
    with pytest.raises(RuntimeError, match="1007"):
        made.node["track_both"].execute()
    made.node["missing"].setValue("skip")
    made.node["track_both"].execute()
    assert mattes(made)[-1] == "sh010_matte.1006.exr"


def test_check_when_the_engine_is_missing_then_it_says_what_to_do(shot, tmp_path: Path) -> None:
    made = shot(gui=True)
    made.node["engine"].setValue(str(tmp_path / "none"))
    made.node["check"].execute()
    told = made.nuke.messages[-1]
    assert "Engine on the node's second tab names" in told and "Choose a Python that has rotomem" in told
    made.node["engine"].setValue("")
    made.node["check"].execute()
    assert "answers" in made.node["status"].value()


def _plate_gone(made: SimpleNamespace) -> None:
    made.read["file"].setValue("/nowhere/x.%04d.exr")


def _mask_small(made: SimpleNamespace) -> None:
    made.roto._draw = lambda frame: {"rgba.alpha": np.ones((4, 6), np.float32)}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda m: m.node.setInput(0, None), "Connect a Read"),
        (lambda m: m.node.setInput(1, None), "hero: no mask"),
        (_plate_gone, "not on disk: /nowhere/x.%04d.exr 1001-1006"),
        (lambda m: m.read["frame"].setValue("10"), "shifts its frames"),
        (lambda m: m.read["file"].setValue("/a/b.mov"), "no sequence"),
        (lambda m: m.read["colorspace"].setValue("AlexaV3LogC"), "AlexaV3LogC"),
        (_mask_small, "Roto1 is 6x4, the plate 72x48"),
        (lambda m: m.node["objects"].setValue(""), "no object"),
        (lambda m: m.node["objects"].setValue("hero @ 2000"), "its keys are on 2000"),
        (lambda m: m.node["objects"].setValue("hero = Rot9"), "no channel Rot9; it has rgba.alpha"),
        (lambda m: m.node["objects"].setValue("hero = /no/such.1001.exr"), "no file /no/such.1001.exr"),
        (lambda m: m.node["views"].setValue("left"), "has no left"),
        (lambda m: m.node["folder"].setValue("/tmp/a%b"), "Choose another folder"),
        (lambda m: m.node["folder"].setValue("/proc/x"), "Choose another output folder"),
        (lambda m: m.node["range"].setValue("project"), "1-100 has no frame"),
    ],
)
def test_track_when_something_is_wrong_then_it_says_what_to_do(shot, wrong, said) -> None:
    made = shot()
    wrong(made)
    with pytest.raises(RuntimeError, match=said.replace("(", r"\(")):
        made.node["track_both"].execute()
    assert "Copy" not in {n.Class() for n in made.nuke.root.nodes()} and made.nuke.undo_off == 0


def test_folder_when_none_is_chosen_then_it_lies_beside_the_script(shot, tmp_path: Path) -> None:
    made = shot()
    made.node["folder"].setValue("")
    assert made.plugin.host.output_folder(made.node) == str(tmp_path / "rotomem" / "Rotomem1")
    made.nuke.script = "Root"
    with pytest.raises(made.plugin.host.HostProblem, match="save the script"):
        made.plugin.host.output_folder(made.node)


def test_colour_when_the_project_is_ocio_then_config_and_space_are_passed(shot, tmp_path: Path) -> None:
    configs = tmp_path / "Nuke" / "plugins" / "OCIOConfigs" / "configs"
    (configs / "aces_1.2").mkdir(parents=True)
    (configs / "aces_1.2" / "config.ocio").touch()
    (configs / "fn-nuke_cg.ocio").touch()
    made = shot(executable=str(tmp_path / "Nuke" / "Nuke15.0"))
    root, host = made.nuke.root, made.plugin.host
    root["colorManagement"].setValue("OCIO")
    root["workingSpaceLUT"].setValue("scene_linear")
    root["OCIO_config"].setValue("aces_1.2")
    for text, name in (
        ("default (ACES - ACEScg)", "ACES - ACEScg"),
        ("scene_linear (ACES - ACEScg)", "ACES - ACEScg"),
        ("default (scene_linear (ACEScg))", "ACEScg"),
        ("Input - ARRI - V3 LogC (EI800) - Wide Gamut", "Input - ARRI - V3 LogC (EI800) - Wide Gamut"),
        ("ACES/ACEScg\tACEScg", "ACES/ACEScg"),
    ):
        made.read["colorspace"].setValue(text)
        assert host._colour(made.read)["input_space"] == name
    assert host._colour(made.read)["ocio_config"] == str(configs / "aces_1.2" / "config.ocio")
    made.read["raw"].setValue(True)
    assert host._colour(made.read)["input_space"] == "scene_linear"
    root["OCIO_config"].setValue("fn-nuke_cg")
    assert host.ocio_config() == str(configs / "fn-nuke_cg.ocio")
    root["OCIO_config"].setValue("lost")
    with pytest.raises(host.HostProblem, match="choose custom"):
        host.ocio_config()
    root["OCIO_config"].setValue("custom")
    root["customOCIOConfigPath"].setValue(str(configs / "fn-nuke_cg.ocio"))
    assert host.ocio_config().endswith("fn-nuke_cg.ocio")


def test_keys_when_shapes_strokes_and_layers_move_then_all_their_times_count(shot) -> None:
    made = shot()
    stroke = fakenuke.Stroke([fakenuke.AnimControlPoint([1002.0])])
    inner = fakenuke.RotoLayer([fakenuke.shape(1001, 1003), stroke], moved=[1005.0])
    node = roto(made.nuke, inner, fakenuke.shape(1003.0))
    below = made.nuke.make("Dot", made.nuke.make("NoOp", node))
    assert made.plugin.host.key_frames(below) == [1001, 1002, 1003, 1005]
    assert made.plugin.host.key_frames(made.read) == []


def test_proxies_when_they_are_on_then_keys_and_plate_are_of_full_size(shot) -> None:
    made = shot()
    made.nuke.root["proxy"].setValue(True)
    work = made.plugin.host.work_of(made.node, "both")  # the fake refuses to write in proxy mode
    assert work[0].fields["plate"] == made.pattern and made.nuke.root["proxy"].value() is True
    assert matte(Path(made.nuke.written[0])).shape == (HEIGHT, WIDTH)


def test_self_test_when_run_then_it_passes_and_tells_how_long(start, tmp_path: Path) -> None:
    made = start()
    report = Path(made.plugin.self_test(str(tmp_path))).read_text()
    assert report.splitlines()[-1] == "PASSED", report
    assert "Nuke 15.0v4" in report and "track (" in report and made.nuke.root.nodes() == []
    os.environ["ROTOMEM_PYTHON"] = "/no/python"
    try:
        report = Path(made.plugin.self_test(str(tmp_path))).read_text()
    finally:
        del os.environ["ROTOMEM_PYTHON"]
    assert report.splitlines()[-1] == "FAILED" and "ROTOMEM_PYTHON" in report
