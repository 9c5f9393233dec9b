"""`rotomem demo` end to end, with an untrained network on a small picture."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

import rotomem
from rotomem.cli import demo, main


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("demo")
    model = rotomem.build_model("xmem-s")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotomem, "load_model", lambda *_, **__: model)
        arguments = [
            "demo",
            "--out",
            str(root / "d"),
            "--frames",
            "4",
            "--height",
            "90",
            "--json",
            str(root / "j.json"),
        ]
        assert main(arguments) == 0
    return root, json.loads((root / "j.json").read_text())


def test_demo_when_run_then_everything_is_there_and_measured(ran: tuple[Path, dict]) -> None:
    root, figures = ran
    for folder, name in (("plate", "balloon_kite"), ("mattes", "balloon_kite"), ("truth", "kite")):
        assert len(list((root / "d" / folder).glob(f"{name}.*.exr"))) == 4, folder
    assert (root / "d" / "contact_sheet.png").stat().st_size > 20_000
    assert set(figures["objects"]) == {"balloon", "kite"}
    for name, means in figures["objects"].items():
        assert set(means) == set(demo.MEASURES)
        assert len(figures["per_frame"][name]["j"]) == 3, "the key frame is no achievement"
        assert means["j"] == pytest.approx(np.mean(figures["per_frame"][name]["j"]))
    assert figures["seconds"]["all"] >= figures["seconds"]["render"] > 0


def test_demo_when_its_command_line_is_run_then_the_mattes_are_the_same_files(
    ran: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, figures = ran
    words = shlex.split(figures["command"])
    assert words[:2] == ["rotomem", "track"]
    before = {p.name for p in (root / "d" / "mattes").iterdir()}
    model = rotomem.build_model("xmem-s")
    monkeypatch.setattr("rotomem.engine.shot.load_model", lambda *_, **__: model, raising=False)
    monkeypatch.setattr("rotomem.models.registry.load_model", lambda *_, **__: model)
    assert main([*words[1:], "--quiet"]) == 0
    assert {p.name for p in (root / "d" / "mattes").iterdir()} == before


def test_demo_when_asked_for_too_little_then_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--frames", "1"]) == 2
    assert main(["demo", "--height", "10"]) == 2
    assert "90 to 2160" in capsys.readouterr().err


def test_measure_when_the_matte_is_the_truth_then_no_error() -> None:
    truth = np.zeros((40, 40), np.float32)
    truth[10:30, 10:30] = 1
    assert demo.measure({"a": truth}, {"a": truth}) == {
        "a": {"j": 1.0, "f": 1.0, "sad": 0.0, "mse": 0.0, "gradient": 0.0}
    }


def test_sheet_frames_when_any_length_then_key_first_and_last_frame_last() -> None:
    for count in (3, 4, 10, 24, 60):
        frames = tuple(range(1001, 1001 + count))
        chosen = demo.sheet_frames(frames, count)
        assert min(chosen) == 1001 and chosen[1001] == "key" and max(chosen) == frames[-1] and len(chosen) <= 5
