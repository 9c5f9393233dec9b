"""What one format writes it reads back, and what the others say is understood."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from drawn_curves import circle, two_objects

from rotomem.errors import UsageError
from rotomem.splines import document, fxs, nuke
from rotomem.splines.files import is_spline_file, read_splines, write_splines
from rotomem.splines.raster import coverage, rasterise
from rotomem.splines.types import Shape, SplineError, Splines
from rotomem.types import Window

CANVAS = Window(0, 0, 160, 90)
FRAMES = (1000, 1001, 1003, 1005, 1008, 1009)


def there_and_back(splines: Splines, path: Path) -> Splines:
    path.write_text(write_splines(splines, path), encoding="utf-8")
    return read_splines(path, splines.size)


@pytest.mark.parametrize(("suffix", "feather"), [(".json", 0), (".json", 5), (".fxs", 0), (".nk", 0), (".nk", 5)])
def test_file_when_written_and_read_then_the_same_pixels(tmp_path: Path, suffix: str, feather: float) -> None:
    splines = two_objects(feather)
    back = there_and_back(splines, tmp_path / f"roto{suffix}")
    assert len(back.objects) == 2 and back.size == splines.size
    for mine, read in zip(splines.objects.values(), back.objects.values(), strict=True):
        assert [(s.subtract, s.span, list(s.keys)) for s in read] == [
            (s.subtract, s.span, list(s.keys)) for s in mine
        ]
        for frame in FRAMES:
            gap = abs(rasterise(mine, frame, CANVAS) - rasterise(read, frame, CANVAS)).max()
            assert gap < 1e-3, (suffix, frame)
    assert write_splines(splines, "a" + suffix) == write_splines(splines, "b" + suffix)


@pytest.mark.parametrize("suffix", [".json", ".fxs"])
def test_names_when_odd_then_kept_or_made_harmless(tmp_path: Path, suffix: str) -> None:
    assert list(there_and_back(two_objects(), tmp_path / f"r{suffix}").objects) == list(two_objects().objects)


def test_nuke_names_when_odd_then_nothing_is_evaluated(tmp_path: Path) -> None:
    assert list(there_and_back(two_objects(), tmp_path / "r.nk").objects) == ["hero", "car door é__exec__x_"]


def test_nuke_text_when_tcl_reads_it_then_one_node_and_balanced_lists(tmp_path: Path) -> None:
    tcl = shutil.which("tclsh")
    if tcl is None:
        pytest.skip("there is no tclsh to read the script with")
    script = tmp_path / "roto.nk"
    script.write_text(nuke.write(two_objects(3)), encoding="utf-8")
    program = """
        encoding system utf-8
        proc version args {}
        proc push args {}
        proc stack n { return node }
        proc Roto body {
            array set knobs $body
            set root [lindex $knobs(curves) 0 2 1]
            puts [lindex $root 1]
            foreach layer [lrange $root 5 end] {
                puts "[llength $layer] [lindex $layer 1]"
                foreach shape [lrange $layer 5 end] { puts "shape [lindex $shape 1] [llength [lindex $shape 4]]" }
            }
        }
        source -encoding utf-8 [lindex $argv 0]
    """
    (tmp_path / "run.tcl").write_text(program, encoding="utf-8")
    said = subprocess.run([tcl, str(tmp_path / "run.tcl"), str(script)], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines() == [
        "Root",
        "6 car door é__exec__x_",
        "shape x y 2",
        "7 hero",
        "shape hole _x_ 2",
        "shape body 2",
    ]


NUKE_SHAPE = """
Read { inputs 0 file "a {b.exr" name Read1 }
Roto {
 output alpha
 curves {{{v x3f99999a} {f 0} {n {layer Root {f 2097152} {t x42a00000 x42340000} {a pt1x 0 ptmot x40800000}
  {curvegroup Bezier1 512 bezier {{cc {f 8192} {px x447a4000
     {0 -10} {80 60} {0 10} {-10 0} {100 80} {10 0} {x41200000 0} {60 80} {-10 0}}} idem}
   {tx x447a4000 80 70} {a osw 10 str 1 %s}}}}}}
 name Roto1
}
"""


def test_nuke_when_as_its_nodes_are_written_then_y_is_turned_over() -> None:
    splines = nuke.read(NUKE_SHAPE % "", (160, 90))
    (shape,) = splines.objects["Bezier1"]
    points = shape.keys[1001].points
    np.testing.assert_allclose(points[0], [[80, 40], [80, 30], [80, 20]])
    np.testing.assert_allclose(points[2], [[70, 10], [60, 10], [50, 10]])
    assert shape.span is None and not shape.subtract


@pytest.mark.parametrize(
    ("attributes", "what"),
    [("inv 1", "inverted"), ("bm 13", "blending mode number 13"), ("vis x", "'x' is no number")],
)
def test_nuke_when_it_cannot_be_drawn_then_said_why(attributes: str, what: str) -> None:
    with pytest.raises(SplineError, match=what):
        nuke.read(NUKE_SHAPE % attributes, (160, 90))


def test_nuke_when_hidden_or_of_some_frames_then_so_read() -> None:
    hidden = nuke.read(NUKE_SHAPE % "vis 0", (160, 90))
    assert not hidden.objects and "hidden" in hidden.notes[0]
    ranged = nuke.read(NUKE_SHAPE % "ltn 1001 ltm 1009 ltt 4", (160, 90)).objects["Bezier1"][0]
    assert ranged.span == (1001, 1009)


def test_nuke_when_moved_by_its_transform_then_refused() -> None:
    moved = (NUKE_SHAPE % "").replace("{tx x447a4000 80 70}", "{t 80 70 0 {{1001 0} {1005 12}} 0}")
    with pytest.raises(SplineError, match="transform of its own"):
        nuke.read(moved, (160, 90))


@pytest.mark.parametrize(
    "text", ["", "{" * 100_000 + "}" * 100_000, "Blur { size 3 }", "Roto {", "Roto { } }", 'Roto { name "x }']
)
def test_nuke_when_no_script_then_said_so(text: str) -> None:
    with pytest.raises(SplineError):
        nuke.read(text, (160, 90))


FXS = """<Silhouette width="200" height="100" pixelAspect="2" sessionStartFrame="1001">
 <Layer type="Layer" label="hero"><Properties>
  <Property id="transform.position" constant="True"><Value>(0.0,%s)</Value></Property>
  <Property id="transform.pin_ur" constant="True"><Value>(1.0,0.0)</Value></Property>
  <Property id="objects" constant="True"><Object type="Shape" label="b" shape_type="Bspline"><Properties>
   <Property id="mode" constant="True"><Value>%s</Value></Property>
   <Property id="path"><Key frame="2" interp="linear"><Path closed="True" type="Bspline">
    <Point>(-0.2,-0.1)</Point><Point>(0.2,-0.1)</Point><Point>(0.2,0.1)</Point><Point>(-0.2,0.1)</Point>
   </Path></Key></Property>
  </Properties></Object></Property></Properties></Layer></Silhouette>"""


def test_fxs_when_a_b_spline_on_a_squeezed_picture_then_beziers_in_pixels() -> None:
    splines = fxs.read(FXS % ("0.0", "Add"))
    (shape,) = splines.objects["hero"]
    assert list(shape.keys) == [1003] and splines.pixel_aspect == 2
    points = shape.keys[1003].points
    # The knot of a uniform B-spline: (before + 4 * point + after) / 6, of corners 90..110 by 40..60.
    np.testing.assert_allclose(points[0, 1], [(90 + 4 * 90 + 110) / 6, (60 + 4 * 40 + 40) / 6])
    np.testing.assert_allclose((points[:, 0] + points[:, 2]) / 2, points[:, 1])
    assert 200 < coverage(shape.keys[1003], Window(0, 0, 200, 100)).sum() < 400


@pytest.mark.parametrize(("y", "mode", "what"), [("0.1", "Add", "transformed"), ("0", "Difference", "difference")])
def test_fxs_when_it_cannot_be_drawn_then_said_why(y: str, mode: str, what: str) -> None:
    with pytest.raises(SplineError, match=what):
        fxs.read(FXS % (y, mode))


def test_fxs_when_feathered_then_refused_and_not_dropped() -> None:
    with pytest.raises(SplineError, match="feather"):
        fxs.write(two_objects(3))


def test_fxs_when_no_xml_or_another_then_said_so() -> None:
    for text in ("", "<svg/>", "<Silhouette"):
        with pytest.raises(SplineError):
            fxs.read(text)


GOOD = {"frame": 1, "points": [[0, 0], [9, 0], [9, 9]]}


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ({"keys": []}, "no key"),
        ({"keys": [GOOD, GOOD]}, "two keys on frame 1"),
        ({"keys": [GOOD], "operation": "xor"}, "xor"),
        ({"keys": [GOOD], "frames": [9, 3]}, "from 9 to 3"),
        ({"keys": [{**GOOD, "points": [[0, 0, 1]]}]}, "no list of"),
        ({"keys": [{**GOOD, "feather": [1, 2]}]}, "expected 3 numbers"),
        ({"keys": [{**GOOD, "feather": -1}]}, "negative feather"),
        ({"keys": [{**GOOD, "frame": "1"}]}, "frame is"),
        ({"keys": [{**GOOD, "frame": 1.5}]}, "whole numbers"),
        ({"keys": [{**GOOD, "frame": 10**400}]}, "not finite"),
        ({"keys": 3}, '"keys"'),
    ],
)
def test_document_when_a_shape_is_wrong_then_named(shape: dict[str, object], what: str) -> None:
    text = json.dumps({"rotomem_splines": 1, "size": [9, 9], "objects": [{"name": "hero", "shapes": [shape]}]})
    with pytest.raises(SplineError, match=what) as caught:
        document.read(text)
    assert "hero" in str(caught.value) or what == '"keys"'


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        "[" * 100_000,
        '{"rotomem_splines": 2}',
        '{"rotomem_splines": 1, "size": [0, 1], "objects": []}',
    ],
)
def test_document_when_it_is_none_then_said_so(text: str) -> None:
    with pytest.raises(SplineError):
        document.read(text)


def test_document_when_written_by_hand_then_corners_need_no_handles() -> None:
    shape = {"keys": [{**GOOD, "feather": 2}]}
    text = json.dumps({"rotomem_splines": 1, "size": [9, 9], "objects": [{"name": "hero", "shapes": [shape]}]})
    curve = document.read(text).objects["hero"][0].keys[1]
    assert coverage(curve, Window(0, 0, 9, 9))[1, 7] == 1 and (curve.feather == 2).all()


def test_read_splines_when_of_another_size_or_missing_then_path_and_sizes(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text(document.write(two_objects()))
    with pytest.raises(SplineError, match=r"160x90, the plate is 320x180 \[path=.*r.json\]"):
        read_splines(file, (320, 180))
    with pytest.raises(SplineError, match="No such file"):
        read_splines(tmp_path / "gone.fxs", (160, 90))
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SplineError, match="cannot be read"):
        read_splines(file, (160, 90))


def test_write_splines_when_unknown_format_then_the_known_are_named() -> None:
    splines = Splines((8, 8), {"a": (Shape("s", {1: circle(4, 4, 2)}),)})
    with pytest.raises(UsageError, match=r"\.nk \(Nuke\)"):
        write_splines(splines, "a.svg")
    assert is_spline_file("A.FXS") and not is_spline_file("a.py") and not is_spline_file("a.exr")
