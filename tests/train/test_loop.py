from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rotomem.errors import CheckpointError, OutputError, UsageError
from rotomem.train import loop
from rotomem.train.checkpoint import Average, export_weights, load_checkpoint
from rotomem.train.compose import Composer
from rotomem.train.data import PicturePool
from rotomem.train.loop import Run, step_if_finite, step_rng, train
from rotomem.train.ranks import Share, deal
from rotomem.train.schedule import Budget
from train.tiny import RECIPE, TINY, entries
from train.two_ranks import gradients, work


def test_deal_when_one_process_or_two_then_the_clips_are_the_same() -> None:
    def drawn(share: Share, group: int = 1) -> list[float]:
        dealt = deal(step_rng(1, 2), 6, share, group=group)
        return [float(torch.rand((), generator=one)) for one in dealt]

    assert drawn(Share(0, 1)) == drawn(Share(0, 2)) + drawn(Share(1, 2))
    assert len(set(drawn(Share(0, 1)))) == 6
    assert len(drawn(Share(0, 4))) == 2  # 6 clips among 4 processes: rounded up
    assert len(drawn(Share(0, 1), group=4)) == 2


def test_step_rng_when_seed_or_step_differ_then_numbers_do() -> None:
    firsts = {float(torch.rand((), generator=step_rng(seed, step))) for seed in (1, 2) for step in (0, 1, 2)}
    assert len(firsts) == 6
    assert torch.equal(torch.rand(3, generator=step_rng(1, 7)), torch.rand(3, generator=step_rng(1, 7)))


def test_two_processes_when_one_is_told_to_stop_then_gradients_are_of_one_and_both_end(
    pool: PicturePool, source_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gradients(pool)
    saved: list[int] = []
    save = loop.save_checkpoint
    monkeypatch.setattr(loop, "save_checkpoint", lambda state, path: (saved.append(state["step"]), save(state, path)))
    tests = Path(__file__).parent.parent
    other = subprocess.Popen(
        [sys.executable, "-m", "train.two_ranks", str(source_folder), str(tmp_path)],
        cwd=tests,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    def stop_the_other(entry: dict[str, float]) -> None:
        if entry["step"] == 2 and "loss" in entry:
            other.send_signal(signal.SIGTERM)

    halves = work(0, pool, tmp_path, stop_the_other)
    assert other.wait(30) == 0
    assert halves.keys() == whole.keys()
    largest = max(float(g.abs().max()) for g in whole.values())
    assert all(torch.allclose(halves[k], whole[k], rtol=1e-4, atol=1e-5 * largest) for k in whole)
    assert len(saved) == 1 and 2 <= saved[0] < 60
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert state["step"] == saved[0] == len(entries(tmp_path / "run")) and len(state["rng"]) == 2


def test_train_when_started_from_weights_then_they_are_what_it_begins_with(pool: PicturePool, tmp_path: Path) -> None:
    source = Composer(pool)
    checkpoint = train(RECIPE, source, tmp_path / "first", Budget(steps=1))
    weights = export_weights(checkpoint, tmp_path / "tiny.safetensors")
    average = load_checkpoint(checkpoint)["average"]
    from_checkpoint = Run(replace(RECIPE, start=str(checkpoint)), source).model.state_dict()
    assert all(torch.equal(from_checkpoint[k], v) for k, v in average.items())
    started = Run(replace(RECIPE, start=str(weights)), source)
    assert all(torch.equal(v, average[k].half().float()) for k, v in started.model.named_parameters())
    assert all(torch.equal(started.average.tensors[k], v) for k, v in started.model.state_dict().items())
    with pytest.raises(CheckpointError, match=r"of another shape.*tiny\.safetensors.*same widths"):
        Run(replace(RECIPE, start=str(weights), network=replace(TINY, value_dim=48)), source)
    with pytest.raises(UsageError, match="neither a bundled model nor a file"):
        Run(replace(RECIPE, start="xmem-xl"), source)


def test_train_when_the_folder_holds_a_run_then_it_must_be_resumed_with_its_widths(
    pool: PicturePool, tmp_path: Path
) -> None:
    source = Composer(pool)
    path = train(RECIPE, source, tmp_path, Budget(steps=1))
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"holds a run already.*--resume"):
        train(RECIPE, source, tmp_path, Budget(steps=2))
    with pytest.raises(UsageError, match="other widths"):
        train(replace(RECIPE, network=replace(TINY, value_dim=48)), source, tmp_path, Budget(steps=2), resume=True)
    assert path.read_bytes() == before


def test_train_when_resumed_with_other_settings_then_they_are_named(pool: PicturePool, tmp_path: Path) -> None:
    source = Composer(pool)
    train(RECIPE, source, tmp_path, Budget(steps=1))
    with pytest.raises(UsageError, match=r"peak 0\.002, now 0\.1; clip\.dice 1\.0, now 0\.5"):
        other = replace(RECIPE, peak=0.1, clip=replace(RECIPE.clip, dice=0.5))
        train(other, source, tmp_path, Budget(steps=2), resume=True)
    same = replace(RECIPE, checkpoint_s=5, validation=1)
    assert load_checkpoint(train(same, source, tmp_path, Budget(steps=2), resume=True))["step"] == 2


@pytest.mark.parametrize("harm", ["cut", "empty", "text", "object", "folder"])
def test_load_checkpoint_when_it_is_none_then_one_line_without_advice_to_run_it(harm: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"a": Path("x")} if harm == "object" else {"a": torch.ones(9)}, path)
    if harm == "folder":
        path.unlink()
        path.mkdir()
    elif harm != "object":
        path.write_bytes({"cut": path.read_bytes()[:500], "empty": b"", "text": b"hello world"}[harm])
    with pytest.raises(CheckpointError, match=r"directory|damaged, or none") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


def test_train_when_killed_after_its_checkpoint_then_the_log_forgets_what_is_done_again(
    pool: PicturePool, tmp_path: Path
) -> None:
    source = Composer(pool)
    train(RECIPE, source, tmp_path, Budget(steps=2))
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 3, "loss": 99.0}) + '\n{"step": 4, "lo')
    train(RECIPE, source, tmp_path, Budget(steps=4), resume=True)
    found = entries(tmp_path)
    assert [e["step"] for e in found] == [1, 2, 3, 4] and found[2]["loss"] != 99.0


def test_train_when_no_loss_is_finite_then_it_ends_well_and_warns_once(
    pool: PicturePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Composer(pool)
    compose = source.compose

    def broken(*args: object, **kwargs: object) -> object:
        clips = compose(*args, **kwargs)
        clips.images.fill_(float("nan"))
        return clips

    monkeypatch.setattr(source, "compose", broken)
    path = train(replace(RECIPE, checkpoint_s=0), source, tmp_path, Budget(steps=2))
    assert load_checkpoint(path)["step"] == 2 and not (tmp_path / "plot.png").exists()
    lines = (tmp_path / "log.jsonl").read_text()
    assert "NaN" not in lines and [e["loss"] for e in entries(tmp_path)] == [None, None]
    said = capsys.readouterr().err
    assert said.count("no curves are drawn: no loss in the log is finite") == 1


def test_train_when_the_log_cannot_be_written_then_the_checkpoint_is_and_the_error_names_it(
    pool: PicturePool, tmp_path: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")

    def fill_the_disk(entry: dict[str, float]) -> None:
        (tmp_path / "log.jsonl").unlink()
        (tmp_path / "log.jsonl").symlink_to("/dev/full")

    with pytest.raises(OutputError, match=r"cannot write the log: No space left.*log\.jsonl.*--resume"):
        train(RECIPE, Composer(pool), tmp_path, Budget(steps=9), report=fill_the_disk)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["step"] == 2 and len(state["rng"]) == 1


def test_train_when_paused_then_it_stops_before_its_budget(pool: PicturePool, tmp_path: Path) -> None:
    path = train(replace(RECIPE, validation=1), Composer(pool), tmp_path, Budget(minutes=60), pause_s=0.2)
    step = load_checkpoint(path)["step"]
    assert 1 <= step < 30 and (tmp_path / "plot.png").exists()
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == step and 0 <= last["validation_overlap"] <= 1


def test_train_when_resumed_then_what_it_started_from_may_be_gone(pool: PicturePool, tmp_path: Path) -> None:
    first = train(RECIPE, Composer(pool), tmp_path / "first", Budget(steps=1))
    started = replace(RECIPE, start=str(first))
    train(started, Composer(pool), tmp_path / "run", Budget(steps=1))
    first.unlink()
    path = train(started, Composer(pool), tmp_path / "run", Budget(steps=2), resume=True)
    assert load_checkpoint(path)["step"] == 2


def test_train_when_there_is_no_time_then_a_checkpoint_is_left_all_the_same(
    pool: PicturePool, tmp_path: Path
) -> None:
    assert load_checkpoint(train(RECIPE, Composer(pool), tmp_path, Budget(minutes=0)))["step"] == 0


def test_stop_when_ctrl_c_comes_twice_then_it_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), loop._stopping() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked
        signal.raise_signal(signal.SIGINT)


def test_restore_when_the_checkpoint_is_of_an_earlier_loop_then_it_goes_on(pool: PicturePool) -> None:
    run = Run(RECIPE, Composer(pool))
    run.advance(0.5)
    state = {**run.state(), "rng": torch.Generator().get_state(), "torch_rng": torch.get_rng_state()}
    other = Run(RECIPE, Composer(pool))
    other.restore(state)
    assert other.step == 1
    assert all(torch.equal(v, run.model.state_dict()[k]) for k, v in other.model.state_dict().items())


@pytest.mark.parametrize("kind", ["fused", "plain"])
def test_step_if_finite_when_gradient_is_not_then_nothing_moves(kind: str) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    statistic, before = torch.full((2,), float("nan")), torch.tensor([1.0, 2.0])
    optimiser = (
        torch.optim.AdamW([weight], lr=0.1, fused=True) if kind == "fused" else torch.optim.SGD([weight], lr=0.1)
    )
    weight.grad = torch.full((3,), float("inf"))
    step_if_finite(optimiser, torch.tensor(float("inf")), [(statistic, before)])
    assert torch.equal(weight, torch.ones(3)) and torch.equal(statistic, before)
    weight.grad = torch.ones(3)
    statistic.fill_(5)
    step_if_finite(optimiser, torch.tensor(1.0), [(statistic, before)])
    assert (weight < 1).all() and (statistic == 5).all()


def test_advance_when_a_batch_is_not_finite_then_weights_and_statistics_stay(pool: PicturePool) -> None:
    run = Run(replace(RECIPE, frozen_from=1.0), Composer(pool))
    compose = run.source.compose

    def broken(*args: object, **kwargs: object) -> object:
        clips = compose(*args, **kwargs)
        clips.images.fill_(float("nan"))
        return clips

    before = {k: v.clone() for k, v in run.model.state_dict().items() if v.is_floating_point()}
    run.source.compose = broken
    step = run.advance(0.2)
    assert not torch.isfinite(step.losses["norm"])
    after = run.model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    run.source.compose = compose
    run.advance(0.2)
    assert not torch.equal(run.model.state_dict()["decoder.pred.weight"], before["decoder.pred.weight"])


def test_advance_when_the_gradient_is_long_then_it_is_cut_to_length(pool: PicturePool) -> None:
    run = Run(replace(RECIPE, clip_norm=1e-3), Composer(pool))
    step = run.advance(0.5)
    left = torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None]).norm()
    assert step.losses["norm"] > 0.01 and float(left) == pytest.approx(1e-3, rel=1e-3)


def test_advance_when_half_then_convolutions_are_bfloat16_and_weights_are_not(pool: PicturePool) -> None:
    seen: set[torch.dtype] = set()
    for half in (True, False):
        run = Run(replace(RECIPE, half=half), Composer(pool))
        run.model.decoder.up_8_4.register_forward_hook(lambda _, __, out: seen.add(out.dtype))
        run.advance(0.5)
        assert {p.dtype for p in run.model.parameters()} == {torch.float32}
        assert run.model.key_encoder.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert seen == {torch.bfloat16, torch.float32}


def test_validate_when_called_then_it_measures_the_average_and_changes_nothing(pool: PicturePool) -> None:
    run = Run(replace(RECIPE, validation=1), Composer(pool))
    run.advance(0.5)
    weights = {k: v.clone() for k, v in run.model.state_dict().items()}
    torch_rng = torch.get_rng_state()
    found = run.validate()
    assert found.keys() >= {"validation_loss", "validation_overlap"}
    assert run.validate() == found
    assert all(torch.equal(v, weights[k]) for k, v in run.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), torch_rng)
    run.average.tensors["decoder.pred.bias"].add_(5)
    assert run.validate() != found


def test_entries_when_steps_are_done_then_speed_is_told(pool: PicturePool) -> None:
    run = Run(RECIPE, Composer(pool))
    (entry,) = run.entries([run.advance(0.5)])
    assert entry["step"] == 1 and entry["frames"] == 6 and entry["rate"] == RECIPE.rate(0.5)
    assert 0 < entry["compose_s"] < entry["step_s"]
    assert entry["frames_per_s"] == pytest.approx(6 / entry["step_s"], rel=0.01)


def test_average_when_updated_then_it_is_the_moving_mean() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average = Average(model, 0.9)
    expected = float(average.tensors["weight"])
    for step in range(200):
        with torch.no_grad():
            model.weight.fill_(step)
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert float(average.tensors["weight"]) == pytest.approx(expected, rel=1e-5)
