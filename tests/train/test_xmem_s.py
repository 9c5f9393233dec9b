from __future__ import annotations

import errno
import os
import signal
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rotomem.errors import CheckpointError, OutputError
from rotomem.models.interface import VOSModel
from rotomem.models.xmem import XMem, XMemConfig
from rotomem.train.checkpoint import export_weights, load_checkpoint, save_checkpoint
from rotomem.train.clip import clip_losses
from rotomem.train.compose import Clips, ComposeConfig, Composer
from rotomem.train.data import PicturePool
from rotomem.train.loop import train
from rotomem.train.recipes.xmem_s import XMemS
from rotomem.train.schedule import Budget
from train.tiny import RECIPE, TINY, entries


class Noisy(XMemS):
    """Draws from torch's own generator too, as dropout does."""

    def losses(self, model: VOSModel, clips: Clips, rng: torch.Generator, progress: float) -> dict[str, torch.Tensor]:
        return {**super().losses(model, clips, rng, progress), "noise": torch.rand(())}


NOISY = Noisy(**{f.name: getattr(RECIPE, f.name) for f in fields(RECIPE)})


def test_train_when_stopped_and_resumed_then_losses_are_those_of_one_run(pool: PicturePool, tmp_path: Path) -> None:
    budget = Budget(steps=6)
    train(NOISY, Composer(pool), tmp_path / "whole", budget)

    def stop_after_three(entry: dict[str, float]) -> None:
        if entry["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    path = train(NOISY, Composer(pool), tmp_path / "parts", budget, report=stop_after_three)
    assert load_checkpoint(path)["step"] == 3
    torch.manual_seed(99)  # what another process would have
    train(NOISY, Composer(pool), tmp_path / "parts", budget, resume=True)
    whole, parts = entries(tmp_path / "whole"), entries(tmp_path / "parts")
    assert [e["step"] for e in parts] == list(range(1, 7))
    for key in ("loss", "norm", "rate", "overlap", "noise"):
        assert [e[key] for e in whole] == [e[key] for e in parts]
    a, b = (load_checkpoint(tmp_path / run / "checkpoint.pt")["average"] for run in ("whole", "parts"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_train_when_clips_are_few_then_loss_falls(pool: PicturePool) -> None:
    torch.manual_seed(2)
    still = ComposeConfig(still=1, bend=0, region=0)
    clips = Composer(pool, still).compose(torch.Generator().manual_seed(2), clips=2, frames=3, size=48, objects=1)
    model = XMem(TINY).train()
    optimiser = RECIPE.optimiser(model)
    rng = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(40):
        loss = clip_losses(model, clips, rng, RECIPE.clip)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_clip_losses_when_run_then_every_weight_gets_a_gradient(pool: PicturePool) -> None:
    model = XMem(TINY).train()
    clips = Composer(pool).compose(torch.Generator().manual_seed(3), clips=4, frames=3, size=64, objects=2)
    clip_losses(model, clips, torch.Generator(), RECIPE.clip, rounded=True)["loss"].backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None]
    assert silent == []


def test_export_weights_when_loaded_then_they_are_the_average_in_half(pool: PicturePool, tmp_path: Path) -> None:
    path = train(RECIPE, Composer(pool), tmp_path, Budget(steps=2))
    out = export_weights(path, tmp_path / "weights" / "tiny.safetensors", version="7")
    tensors = load_file(out)
    average = load_checkpoint(path)["average"]
    assert all(torch.equal(v, average[k].half()) for k, v in tensors.items())
    missing, unexpected = XMem(TINY).load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
    assert not unexpected and all(k.endswith("num_batches_tracked") for k in missing)
    assert XMemConfig.from_state_dict(tensors) == TINY
    with safe_open(str(out), "pt") as file:
        assert file.metadata()["version"] == "7" and file.metadata()["steps"] == "2"


def test_load_checkpoint_when_file_is_damaged_then_error_names_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(CheckpointError, match=r"bad\.pt"):
        load_checkpoint(tmp_path / "bad.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not a training checkpoint"):
        load_checkpoint(tmp_path / "other.pt")


def test_save_checkpoint_when_writing_fails_then_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({"step": 1}, path)

    def full(state: object, file: BinaryIO) -> None:
        file.write(b"PK half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match=r"cannot write the checkpoint: No space left.*checkpoint\.pt"):
        save_checkpoint({"step": 2}, path)
    assert load_checkpoint(path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
