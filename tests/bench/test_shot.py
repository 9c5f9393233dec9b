from __future__ import annotations

import numpy as np
import pytest
import torch

import rotomem
from rotomem.bench import plain
from rotomem.bench.clip import Clip
from rotomem.bench.measure import Settings
from rotomem.bench.peaks import Machine
from rotomem.bench.shot import OURS, PLAIN, Shot, run, run_long
from rotomem.errors import UsageError

CPU = torch.device("cpu")
MACHINE = Machine("a machine", CPU, 1, {"float32": 100.0, "bfloat16": 400.0}, 1e10)


def test_plain_session_when_it_tracks_then_mattes_are_those_of_a_session_in_float32() -> None:
    weights = plain.state_dict("xmem-s")
    clip = Clip(64, 96, 2)
    sessions = (
        plain.plain_session("xmem-s", weights, CPU, None),
        rotomem.Session(rotomem.load_model("xmem-s", device="cpu", dtype="float32"), size=None),
    )
    for t in range(4):
        ours, theirs = (s.step(clip.frame(t), clip.mask(0) if t == 0 else None) for s in sessions)
        assert np.abs(ours - theirs).max() < 1e-3
    assert theirs[1:].max() > 0.9, "something was tracked"


def test_state_dict_when_a_model_has_no_weights_then_the_same_are_drawn_each_time() -> None:
    first, again = plain.state_dict("aot"), plain.state_dict("aot")
    assert all(torch.equal(first[k], again[k]) for k in first)
    with pytest.raises(UsageError, match="no model called 'x'"):
        plain.state_dict("x")


def test_plain_session_when_objects_have_keys_of_their_own_then_it_says_which_models_can() -> None:
    with pytest.raises(UsageError, match="no dense reading is written for aot"):
        plain.plain_session("aot", plain.state_dict("aot"), CPU, None)


def test_run_when_a_shot_is_tracked_then_both_ways_are_told() -> None:
    ((first, ours),) = run(MACHINE, Settings(seconds=60), among=[Shot("xmem-s", "32x48", 2, 9)])
    assert (first.backend, ours.backend) == (PLAIN, OURS)
    for line in (first, ours):
        assert line.fps is not None and line.fps > 0 and line.facts is not None and line.facts["counted"] == 3
        assert line.stages is not None and sum(line.stages.values()) == pytest.approx(1, abs=0.05)
        assert line.peak_bytes is not None and line.peak_bytes > 4 * 6_000_000  # the weights are 26 MB
    assert first.ratio == 1 and ours.ratio == pytest.approx(ours.fps / first.fps)
    assert ours.differing is not None and 0 <= ours.differing <= 1 and first.differing is None
    assert ours.gflops is not None and ours.gflops > 0


def test_run_when_nothing_is_called_so_then_error() -> None:
    with pytest.raises(UsageError, match="no case is called so"):
        next(run(MACHINE, Settings(), among=[Shot("xmem-s", "32x48", 2, 9)], objects=[7]))
    with pytest.raises(UsageError, match="no backend called 'fast'"):
        next(run(MACHINE, Settings(), among=[Shot("xmem-s", "32x48", 2, 9)], backends=["fast"]))


def test_run_long_when_it_ends_early_then_error_says_how_many_frames() -> None:
    with pytest.raises(UsageError, match="a long shot has 256 frames or more, not 100"):
        run_long(MACHINE, Shot("xmem-s", "32x48", 1, 100))
