"""A prepared network: the same function, its parameters where they were, its types as declared."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rotomem
from rotomem.models.inference import prepare
from rotomem.models.interface import VOSModel
from rotomem.models.layers import blocks, convolution
from rotomem.models.layers.aggregate import aggregate_logits, aggregate_object_logits
from rotomem.models.layers.convolution import PreparedConv, convolve, convolve_both
from rotomem.models.layers.norm import FrozenBatchNorm2d
from rotomem.models.registry import build_model

from .test_bundled import leaf

NARROW = dict(
    xmem=dict(
        key_block="basic",
        key_stem=8,
        key_planes=(8, 8, 16),
        key_depths=(1, 1, 1),
        value_stem=8,
        value_planes=(8, 8, 16),
        value_depths=(1, 1, 1),
        key_dim=8,
        value_dim=16,
        sensory_dim=8,
        decoder=(16, 16, 16),
        update_dim=8,
        refine=8,
    ),
    stcn=dict(
        key_stem=8,
        key_planes=(4, 4, 8),
        key_depths=(1, 1, 1),
        value_stem=8,
        value_planes=(8, 8, 16),
        value_depths=(1, 1, 1),
        key_dim=8,
        value_dim=16,
        thin_dim=16,
        decoder=(16, 16, 16),
    ),
    stm=dict(stem=8, planes=(4, 4, 8), depths=(1, 1, 1), key_dim=8, value_dim=16, decoder_dim=16),
    aot=dict(encoder="mobilenetv2", width=32, heads=2, layers=1, hidden=32),
)


def random_model(name: str) -> VOSModel:
    """With norms that do something: fresh ones are the identity, and to fold them would prove nothing."""
    torch.manual_seed(3)
    model = build_model(name, **NARROW[name])
    for m in model.modules():
        if isinstance(m, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            for t, low, high in ((m.weight, 0.5, 1.5), (m.bias, -0.5, 0.5), (m.running_mean, -0.5, 0.5)):
                nn.init.uniform_(t, low, high)  # type: ignore[arg-type]
            nn.init.uniform_(m.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return model


def mattes(model: VOSModel, objects: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    session = rotomem.Session(model, size=None, mem_every=1)
    labels = np.zeros((48, 64), np.uint8)
    for i in range(objects):
        labels[6 + 12 * i : 18 + 12 * i, 8:40] = i + 1
    pictures = rng.random((4, 48, 64, 3), np.float32)
    return np.stack([session.step(p, labels if t == 0 else None) for t, p in enumerate(pictures)])


@pytest.mark.parametrize("objects", (1, 3))
@pytest.mark.parametrize("name", NARROW)
def test_prepare_when_float32_then_mattes_are_the_networks_own(name: str, objects: int) -> None:
    model = random_model(name)
    own = mattes(model, objects)
    assert own[1:].std() > 1e-3
    assert sum(isinstance(m, PreparedConv) for m in prepare(model).modules()) > 10
    assert np.abs(mattes(model, objects) - own).max() < 2e-5


@pytest.mark.parametrize("name", NARROW)
def test_prepare_when_a_gradient_is_asked_for_then_the_network_trains_as_before(name: str) -> None:
    plain, prepared = random_model(name), prepare(random_model(name))
    assert list(plain.state_dict()) == list(prepared.state_dict())
    gradients = []
    for model in (plain, prepared):
        picture = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
        features = model.train().encode_frame(model.framing.image(picture))
        leaves = features if isinstance(features, tuple) else vars(features).values()
        sum(leaf.sum() for leaf in leaves if isinstance(leaf, Tensor)).backward()
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 5
    assert all(torch.equal(gradients[0][k], gradients[1][k]) for k in gradients[0])


@torch.no_grad()
def test_prepared_conv_when_weights_or_norm_change_then_it_follows() -> None:
    x = torch.randn(1, 4, 6, 6)
    pair = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)).eval()
    convolution.prepare_conv(pair[0], pair[1], torch.float32)
    before = pair(x)
    pair[1].weight.mul_(2)
    assert torch.allclose(pair(x), 2 * before, atol=1e-5)
    pair[0].weight.zero_()
    pair[0].bias.copy_(pair[1].running_mean)
    assert torch.allclose(pair(x), pair[1].bias[:, None, None].expand_as(x), atol=1e-6)


def test_prepared_model_when_copied_after_it_ran_then_the_copy_runs_too() -> None:
    model = random_model("xmem")
    model.compute_dtype = torch.bfloat16
    expected = mattes(prepare(model), 1)
    assert np.array_equal(mattes(copy.deepcopy(model), 1), expected)
    assert np.array_equal(mattes(pickle.loads(pickle.dumps(model)), 1), expected)


@torch.no_grad()
@pytest.mark.parametrize("fused", (True, False))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize("order", (False, True))
def test_convolve_when_prepared_then_sum_norm_and_relu_are_in_it(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, order: bool, fused: bool
) -> None:
    if not fused:
        monkeypatch.setattr(convolution, "_onednn", lambda: False)
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(24, 16, 3, padding=1), nn.BatchNorm2d(16).eval()
    nn.init.uniform_(norm.running_mean)  # type: ignore[arg-type]
    frame, objects, add = torch.randn(2, 16, 9, 7), torch.randn(6, 8, 9, 7), torch.randn(6, 16, 9, 7)
    joined = frame.repeat_interleave(3, 0)
    joined = torch.cat([objects, joined] if order else [joined, objects], 1)
    if order:
        conv.weight.copy_(conv.weight.roll(8, 1))
    want = norm(conv(joined)).relu(), (norm(conv(joined)) + add).relu()
    convolution.prepare_conv(conv, norm, dtype)
    got = (
        convolve_both(conv, frame, objects, 3, objects_first=order, norm=norm, relu=True),
        convolve(conv, joined, norm=norm, add=add, relu=True),
    )
    for a, b in zip(got, want, strict=True):
        assert a.dtype == dtype
        assert (a - b).abs().max() < (1e-5 if dtype == torch.float32 else 0.04)


def test_prepare_when_parts_are_precise_then_they_alone_are_float32() -> None:
    model = random_model("xmem")
    model.compute_dtype, model.precise = torch.bfloat16, ("decoder.pred", "key_encoder.layer2")
    prepare(model)
    precise = {n for n, m in model.named_modules() if isinstance(m, PreparedConv) and m.dtype == torch.float32}
    assert {n.rpartition(".")[0] for n in precise} >= {"decoder", "key_encoder.layer2.0"}
    assert all(n.startswith(("decoder.pred", "key_encoder.layer2.")) for n in precise)
    model.compute_dtype = torch.float32
    assert {m.dtype for m in prepare(model).modules() if isinstance(m, PreparedConv)} == {torch.float32}


@pytest.mark.parametrize("name", ("xmem", "stcn"))
def test_objects_when_decoded_in_groups_then_mattes_are_the_same(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model = prepare(random_model(name))
    together = mattes(model, 3)
    monkeypatch.setattr(blocks, "AT_ONCE", 2 * 12 * 16)
    assert [g.stop - g.start for g in blocks.object_groups(3, torch.empty(1, 1, 12, 16))] == [2, 2]
    assert np.abs(mattes(model, 3) - together).max() < 2e-5
    monkeypatch.setattr(blocks, "AT_ONCE", 1)
    assert np.abs(mattes(model, 3) - together).max() < 2e-5


def test_aggregate_object_logits_when_probabilities_would_do_then_the_same_distribution() -> None:
    x = 6 * torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = torch.sigmoid(x)
    q = torch.cat([(1 - p).prod(1, keepdim=True), p], 1).clamp(1e-7, 1 - 1e-7)
    want = torch.log(q / (1 - q))
    got = aggregate_object_logits(x)
    assert (got - want).abs().max() < 1e-5
    assert (got.softmax(1) - want.softmax(1)).abs().max() < 2e-6
    # What goes by way of p in float32 is further off.
    assert (aggregate_logits(p) - want).abs().max() > 1e-2


def test_aggregate_object_logits_when_an_object_is_beyond_doubt_then_gradients_are_finite() -> None:
    x = torch.tensor([-200.0, -20, 0, 20, 200]).view(1, 1, 1, 5).repeat(1, 2, 1, 1).requires_grad_()
    aggregate_object_logits(x).softmax(1)[:, 0].sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad[0, 0, 0, 2] < 0


def test_load_model_when_called_in_inference_mode_then_the_model_runs() -> None:
    with torch.inference_mode():
        model = rotomem.load_model("xmem-s", device="cpu")
    picture, mask = leaf(0)
    session = rotomem.Session(model, size=96)
    session.step(picture, mask)
    assert np.isfinite(session.step(picture)).all()


def test_load_model_when_type_is_given_then_nothing_else_is_computed_in() -> None:
    told = {d: rotomem.load_model("xmem-s", device="cpu", dtype=d).precision for d in ("float32", "bfloat16", "auto")}
    assert (told["float32"], told["bfloat16"]) == ("float32", "bfloat16")
    assert told["auto"] in ("float32", "bfloat16+float32")


def test_bundled_model_when_types_are_left_to_it_then_mattes_are_those_of_float32() -> None:
    sessions = [
        rotomem.Session(rotomem.load_model("xmem-s", device="cpu", dtype=d), size=None) for d in ("float32", "auto")
    ]
    worst = []
    for t in range(5):
        picture, mask = leaf(t)
        a, b = (s.step(picture, mask if t == 0 else None)[1] for s in sessions)
        worst.append((np.abs(a - b) >= 1 / 255).mean())
    assert np.mean(worst[1:]) < 0.001
