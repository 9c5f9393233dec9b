from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import rotomem
from rotomem.errors import UsageError
from rotomem.evaluation.measures import gradient_error
from rotomem.models.xmem import XMem
from rotomem.train.checkpoint import export_weights, load_checkpoint
from rotomem.train.compose import Clips
from rotomem.train.loop import Run, train
from rotomem.train.recipes.refine import AlphaKnobs, Refine, edge_strength
from rotomem.train.schedule import Budget

from .conftest import SMALL
from .tiny import TINY


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny network that has no head."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "show_b.safetensors"
    save_file({k: v.contiguous() for k, v in XMem(TINY).state_dict().items()}, path)
    return path


def recipe(start: Path) -> Refine:
    return Refine(start=str(start), width=8, size=48, clips=2, sources=SMALL, validation=0, half=False)


def moving_bar() -> Clips:
    """A bright bar with soft sides before a dark ground, on two frames."""
    at = torch.arange(48, dtype=torch.float32)
    coverage = torch.stack([(1 - (at - c).abs() / 8).clamp(0, 1).expand(48, 48) for c in (20, 23)])[None, :, None]
    return Clips(coverage.expand(-1, -1, 3, -1, -1) * 0.8 + 0.1, coverage, torch.ones(1, 1, dtype=torch.bool))


def test_refine_when_trained_then_only_the_head_learns_and_the_export_runs(
    start: Path, source_folder: Path, tmp_path: Path
) -> None:
    asked = recipe(start)
    path = train(asked, asked.open(source_folder, torch.device("cpu")), tmp_path, Budget(steps=1))
    state = load_checkpoint(path)
    base = rotomem.load_model(start, device="cpu", dtype="float32").state_dict()
    assert all(torch.equal(state["average"][k], v) for k, v in base.items()), "the network stays as it was"
    assert state["average"]["refine.out.weight"].abs().max() > 0
    out = export_weights(path, tmp_path / "refined.safetensors")
    model = rotomem.load_model(out, device="cpu", dtype="float32")
    assert isinstance(model, XMem) and model.config == replace(TINY, refine=8) and state["model_name"] == "show_b"
    session = rotomem.Session(model, size=None)
    picture, mask = np.random.default_rng(0).random((48, 64, 3), np.float32), np.zeros((48, 64), np.uint8)
    mask[10:30, 10:30] = 1
    session.step(picture, mask)
    assert session.step(picture).shape == (2, 48, 64)


def test_refine_when_weights_have_a_head_then_it_goes_on_learning(start: Path, tmp_path: Path) -> None:
    run = Run(recipe(start), None)
    with torch.no_grad():
        run.model.refine.out.bias.fill_(0.25)
    path = tmp_path / "with_head.safetensors"
    save_file({k: v.contiguous() for k, v in run.model.state_dict().items()}, path)
    again = Run(replace(recipe(path), width=99), None)
    assert again.model.config.refine == 8 and bool((again.model.refine.out.bias == 0.25).all())


def test_refine_when_one_clip_is_shown_again_and_again_then_its_matte_gets_better(start: Path) -> None:
    asked = replace(recipe(start), peak=1e-2)
    run, clips = Run(asked, None), moving_bar()
    asked.prepare(run.model, 0.0)
    losses = []
    for _ in range(25):
        found = asked.losses(run.model, clips, torch.Generator(), 0.0)
        run.optimiser.zero_grad()
        found["loss"].backward()
        run.optimiser.step()
        losses.append(float(found["loss"].detach()))
    assert losses[-1] < 0.8 * losses[0]  # seeded weights know no object, and the head may not say where one is


def test_refine_when_start_is_another_method_then_it_is_refused(tmp_path: Path) -> None:
    from rotomem.models.stcn import STCN, STCNConfig

    config = STCNConfig("basic", 8, (8, 12, 16), (1, 1, 1), 8, (8, 8, 12), (1, 1, 1), 16, 16, 16, (16, 16, 8))
    path = tmp_path / "stcn.safetensors"
    save_file({k: v.contiguous() for k, v in STCN(config).state_dict().items()}, path)
    with pytest.raises(UsageError, match="is no XMem"):
        Refine(start=str(path)).build()


def test_edge_strength_when_squared_differences_are_summed_then_they_are_the_gradient_error() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 20, 24))
    a, b = (np.kron(x[:5, :6], np.ones((4, 4))) for x in (a, b))
    ours, theirs = (edge_strength(torch.from_numpy(x)[None, None].float()) for x in (a, b))
    assert float((ours - theirs).square().sum() / 1000) == pytest.approx(gradient_error(a, b), rel=2e-3)


def test_losses_when_the_matte_is_right_then_they_are_zero(start: Path) -> None:
    truth = moving_bar().coverage[:, 1].clamp(1e-4, 1 - 1e-4)
    logits = torch.cat([1 - truth, truth], 1).log()
    found = Refine(start=str(start), alpha=AlphaKnobs(1, 1, 1))._errors(logits, truth)
    assert float(found["loss"]) == pytest.approx(0, abs=1e-5)
