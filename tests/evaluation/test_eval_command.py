"""`rotomem eval` from arguments to table and JSON, with an untrained network on tiny sequences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
import pytest

import rotomem
from engine.toy import tiny_aot
from rotomem.cli import main
from rotomem.evaluation import davis

from .test_alpha_clips import alpha_set, soft_box
from .test_davis import all_frames, davis_sequence, labels_of
from .tiny import tiny_model


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    one, two = labels_of((1, 8, 8, 24, 24)), labels_of((1, 8, 8, 24, 24), (2, 28, 30, 44, 60))
    davis_sequence(tmp_path / "data" / "a", "box", [one] * 4)
    davis_sequence(tmp_path / "data" / "b", "pair", [two] * 4)
    model = tiny_model()
    monkeypatch.setattr(rotomem, "load_model", lambda *_, **__: model)
    return tmp_path / "data"


def test_eval_when_run_then_table_json_and_labels_agree(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    code = main(["eval", str(data), "--json", str(figures), "--out", str(out), "--overlays"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    report = json.loads(figures.read_text())
    assert report["all"]["objects"] == 3 and list(report["datasets"]) == ["a", "b"]
    pair = report["sequences"][1]
    assert pair["name"] == "pair" and [o["id"] for o in pair["per_object"]] == [1, 2]
    assert pair["j_mean"] == pytest.approx(np.mean([o["j_mean"] for o in pair["per_object"]]), abs=1e-4)
    assert report["peak_memory_bytes"] > 1e7 and report["size"] == 480 and report["failed"] == {}
    assert "pair" in printed.out and f"{pair['jf']:.3f}" in printed.out and "mean of 3" in printed.out
    key = davis.read_labels(out / "b" / "Annotations" / "pair" / "00000.png")
    assert np.array_equal(key, labels_of((1, 8, 8, 24, 24), (2, 28, 30, 44, 60))), (
        "the key comes back as it was given"
    )
    assert len(list((out / "b" / "Overlays" / "pair").glob("*.jpg"))) == 4


def test_eval_when_annotations_lack_then_how_many_is_said(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "a/Annotations/box/00002.png").unlink()
    assert main(["eval", str(data), "--json"]) == 0
    printed = capsys.readouterr()
    assert (
        "box: frames without annotation, which do not count: 1" in printed.err and "pair: frames" not in printed.err
    )
    assert json.loads(printed.out)["sequences"][0]["per_object"][0]["frames"] == 1


def test_eval_when_one_sequence_is_bad_then_the_others_are_measured_and_it_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "a/JPEGImages/box/00001.jpg").write_bytes(b"no picture")
    assert main(["eval", str(data), "--json", str(tmp_path / "figures.json")]) == 4
    printed = capsys.readouterr()
    report = json.loads((tmp_path / "figures.json").read_text())
    assert list(report["failed"]) == ["a/box"] and "00001.jpg" in report["failed"]["a/box"]
    assert [s["name"] for s in report["sequences"]] == ["pair"] and report["all"]["objects"] == 2
    assert "box failed: " in printed.err and "00001.jpg" in printed.err and "pair" in printed.out
    assert main(["eval", str(data), "--sequences", "box"]) == 3
    printed = capsys.readouterr()
    assert not printed.out and printed.err.startswith("rotomem: ") and printed.err.count("\n") == 1


def test_eval_when_json_goes_to_standard_output_then_nothing_else_does(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(data), "--sequences", "box", "--limit", "3", "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [s["name"] for s in report["sequences"]] == ["box"] and report["sequences"][0]["frames"] == 3


def test_eval_when_a_depth_is_given_then_the_model_runs_at_it(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["eval", str(data), "--sequences", "pair", "--json", "-"]
    assert main([*asked, "--depth", "1"]) == 2
    assert "depth is 1" in capsys.readouterr().err
    model = tiny_aot(memory_every=None)
    monkeypatch.setattr(rotomem, "load_model", lambda *_, **__: model)
    reports = []
    for more in ([], ["--depth", "1"]):
        assert main([*asked, *more]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert [(r["depth"], r["mem_every"]) for r in reports] == [(None, None), (1, None)]
    assert reports[0]["all"]["jf"] != reports[1]["all"]["jf"]


def test_eval_when_several_sizes_and_mirrored_then_another_figure_and_the_table_says_so(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = []
    for more in ([], ["--multi-scale", "32,64", "--flip"]):
        assert main(["eval", str(data), "--sequences", "pair", *more, "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    plain, averaged = reports
    assert (plain["multi_scale"], plain["flip"]) == (None, False)
    assert (averaged["multi_scale"], averaged["flip"]) == ([32, 64], True)
    assert plain["all"]["jf"] != averaged["all"]["jf"]
    assert main(["eval", str(data), "--sequences", "pair", "--multi-scale", "32,64", "--flip"]) == 0
    assert "at 32+64, mirrored too" in capsys.readouterr().out


def test_eval_when_davis_2016_then_a_sequence_has_one_object(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(data), "--sequences", "pair", "--protocol", "davis2016", "--json"]) == 0
    (pair,) = json.loads(capsys.readouterr().out)["sequences"]
    assert [o["id"] for o in pair["per_object"]] == [1]


def test_eval_when_youtube_then_seen_unseen_and_g_stand_below(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meta = {"videos": {"pair": {"objects": {"1": {"category": "dog", "seen": True}, "2": {"seen": False}}}}}
    (data / "b" / "meta.json").write_text(json.dumps(meta))
    assert main(["eval", str(data / "b"), "--json"]) == 0
    means = json.loads(capsys.readouterr().out)["all"]
    four = [means[k] for k in ("seen_j", "seen_f", "unseen_j", "unseen_f")]
    assert means["overall"] == pytest.approx(np.mean(four), abs=1e-4)
    assert main(["eval", str(data / "b")]) == 0
    lines = capsys.readouterr().out.splitlines()
    (unseen,) = (line.split() for line in lines if "unseen" in line)
    assert unseen == ["unseen", "(G,", "J,", "F)", *(f"{means[k]:.3f}" for k in ("overall", "unseen_j", "unseen_f"))]


def test_eval_when_all_frames_then_labels_of_the_plain_ones_are_written(data: Path, tmp_path: Path) -> None:
    box = labels_of((1, 8, 8, 24, 24))
    davis_sequence(tmp_path / "valid", "v", [box] * 3)
    all_frames(tmp_path / "valid" / "JPEGImages_all_frames", "v", 5)
    out = tmp_path / "out"
    assert main(["eval", str(tmp_path / "valid"), "--all-frames", "--out", str(out)]) == 0
    written = sorted(p.name for p in (out / "valid" / "Annotations" / "v").iterdir())
    assert written == ["00000.png", "00001.png", "00002.png"]


def test_eval_when_flicker_is_asked_then_a_column_for_tracker_and_truth(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(data), "--sequences", "box", "--flicker"]) == 0
    assert "flicker" in (flickering := capsys.readouterr().out) and "truth" in flickering
    assert main(["eval", str(data), "--sequences", "box"]) == 0
    assert "flicker" not in capsys.readouterr().out


def test_eval_when_mattes_are_the_truth_then_their_errors_and_the_bicubic_ones(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alpha_set(tmp_path / "soft", "hair", [{"A": soft_box(4 + t)} for t in range(3)])
    assert main(["eval", str(tmp_path / "soft"), "--json", str(tmp_path / "figures.json")]) == 0
    printed = capsys.readouterr()
    report = json.loads((tmp_path / "figures.json").read_text())
    (hair,) = report["sequences"]
    assert hair["per_object"][0]["frames"] == 2 and hair["fps"] > 0 and hair["memory_bytes"] > 1e7
    for errors in (hair["matte"], hair["bicubic"]):
        assert set(errors) == {"sad", "mse", "gradient", "connectivity", "dt_ssd", "messd_dt"}
        assert all(isinstance(v, float) for v in errors.values())
        assert f"{errors['sad']:.3f}" in printed.out and f"{errors['gradient']:.3f}" in printed.out
    for option in (["--out", str(tmp_path)], ["--flicker"], ["--protocol", "davis"]):
        assert main(["eval", str(tmp_path / "soft"), *option]) == 2
        assert f"{option[0]} is about label maps, not mattes" in capsys.readouterr().err
    assert main(["eval", str(tmp_path / "soft"), "--flip", "--json"]) == 0
    flipped = json.loads(capsys.readouterr().out)["all"]
    assert flipped["bicubic"] is None and flipped["matte"]["sad"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--generated", "thin"], 2, "twice"),
        (["--multi-scale", "480,480"], 2, "each once"),
        (["--multi-scale", "wide"], 2, "no number of pixels"),
        (["--all-frames"], 3, "JPEGImages_all_frames"),
        (["--limit", "2"], 2, "3 or more"),
        (["--overlays"], 2, "--out"),
        (["--sequences", "nobody"], 3, "box, pair"),
        (["--size", "-1"], 2, "0 or more"),
        (["--threads", "0"], 2, "1 or more"),
        (["--json", "no/such/folder.json"], 2, "a folder that exists"),
    ],
)
def test_eval_when_arguments_make_no_sense_then_code_and_remedy(
    data: Path, arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(data), *arguments]) == code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give DIR, or --generated"),
        (["--table", "xmem", "--data", "."], "--weights"),
        (["--generated", "thin"], "--data"),
        (["--generated", "thin", "--data", ".", "--sequences", "a"], "--sequences is not about composed clips"),
        (
            ["--generated", "thin", "--data", ".", "--flicker", "--protocol", "youtube"],
            "--flicker and --protocol are not about composed clips",
        ),
        (["--table", "stm", "--data", ".", "--weights", ".", "--sequences", "a"], "not about a paper's table"),
        (["--generated", "thin", "--data", ".", "--frames", "1"], "2 frames or more"),
        (["--generated", "thin", "--data", ".", "--size", "0"], "--size"),
    ],
)
def test_eval_when_there_is_no_data_set_then_what_is_missing_is_told(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training folder of two photographs with masks."""
    root = tmp_path_factory.mktemp("sources")
    y, x = np.mgrid[0:90, 0:120]
    entries = []
    for i in range(2):
        path = root / f"{i}.png"
        image = oiio.ImageBuf(oiio.ImageSpec(120, 90, 3, oiio.UINT8))
        waves = np.stack([0.5 + 0.4 * np.sin(x / (6 + i + c) + y / (9 - c)) for c in range(3)], -1)
        image.set_pixels(image.roi, np.ascontiguousarray(waves, np.float32))
        assert image.write(str(path))
        davis.write_labels(root / f"{i}_mask.png", (np.hypot(x - 60, y - 45) < 30).astype(np.uint8))
        entries.append({"file": f"{i}.png", "mask": f"{i}_mask.png"})
    (root / "manifest.json").write_text(json.dumps({"images": entries, "clips": []}))
    return root


def test_eval_when_clips_are_composed_then_the_same_seed_gives_the_same_figures(
    data: Path, sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(kind: str, seed: str) -> dict[str, Any]:
        arguments = ["--clips", "1", "--frames", "3", "--size", "48", "--seed", seed]
        assert main(["eval", "--generated", kind, "--data", str(sources), *arguments, "--json"]) == 0
        (one,) = json.loads(capsys.readouterr().out)["sequences"]
        assert (one["dataset"], one["name"], one["size"], one["frames"]) == (kind, f"seed {seed}", [48, 48], 3)
        assert one["matte"]["sad"] > 0 and one["matte"] != one["bicubic"]
        return one

    first, again, other = (measured("thin", seed) for seed in ("1", "1", "2"))
    assert first["matte"] == again["matte"] and first["bicubic"] == again["bicubic"]
    assert first["matte"] != other["matte"] and measured("motion_blur", "1")["matte"] != first["matte"]


def test_eval_when_clicks_are_asked_for_then_j_after_each(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert main(["eval", str(data), "--clicks", "2", "--size", "32", "--json", str(report)]) == 0
    told = json.loads(report.read_text())
    assert len(told["j"]) == 2 and all(0 < j <= 1 for j in told["j"])
    assert all(len(s["j"]) == 2 and s["objects"] >= 1 for s in told["sequences"])
    assert "after 1 to 2 clicks" in capsys.readouterr().out
    assert main(["eval", str(data), "--clicks", "2", "--keys", "1"]) == 2
    assert "--keys is not measured with --clicks" in capsys.readouterr().err


def test_eval_when_numbers_of_keys_are_asked_then_a_table_each_on_the_same_frames(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert main(["eval", str(data), "--keys", "1,3", "--size", "32", "--json", str(report)]) == 0
    one, three = json.loads(report.read_text())
    assert (one["keys"], three["keys"]) == (1, 3)
    for fewer, more in zip(one["sequences"], three["sequences"], strict=True):
        assert more["steps"] > fewer["steps"]
        assert {o["frames"] for o in fewer["per_object"] + more["per_object"]} == {1}
    assert "keys 3" in capsys.readouterr().out
    assert main(["eval", str(data), "--keys", "2", "--flip"]) == 2
    assert "--flip is not measured with --keys" in capsys.readouterr().err
