"""Attention of AOT's blocks against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rotomem.models.layers.lstt import ShortTermAttention, Tokens, sine_positions
from rotomem.models.layers.norm import FrozenBatchNorm2d, freeze_norms


def short_term_by_loop(layer: ShortTermAttention, query: Tensor, memory: Tokens, y: int, x: int) -> Tensor:
    """The definition, one query at a time, before the projection."""
    heads, reach, side = layer.heads, layer.reach, layer.side
    d = query.shape[2] // heads
    weight = layer.relative_emb_k.weight.view(heads, side * side, d)
    bias = layer.relative_emb_k.bias
    assert bias is not None
    bias = bias.view(heads, side * side)
    out = torch.zeros_like(query)
    for b in range(query.shape[0]):
        for h in range(heads):
            own = slice(h * d, (h + 1) * d)
            for i in range(y):
                for j in range(x):
                    q = query[b, i * x + j, own]
                    scores, values = [], []
                    for r in range(max(0, i - reach), min(y, i + reach + 1)):
                        for c in range(max(0, j - reach), min(x, j + reach + 1)):
                            place = (r - i + reach) * side + c - j + reach
                            relative = weight[h, place] @ q + bias[h, place]
                            scores.append(q @ memory.key[b, r * x + c, own] / math.sqrt(d) + relative)
                            values.append(memory.value[b, r * x + c, own] + layer.relative_emb_v[h, :, place])
                    out[b, i * x + j, own] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return out


@pytest.mark.parametrize("y, x, reach", ((1, 1, 7), (4, 5, 7), (6, 7, 1), (2, 9, 2), (9, 1, 3)))
def test_short_term_attention_when_compared_with_a_loop_then_they_agree(y: int, x: int, reach: int) -> None:
    torch.manual_seed(3)
    layer = ShortTermAttention(8, 2, reach).double()
    torch.nn.init.normal_(layer.relative_emb_v)
    query, key, value = torch.randn(3, 2, y * x, 8, dtype=torch.float64)
    memory = Tokens(key, value)
    with torch.no_grad():
        want = layer.projection(short_term_by_loop(layer, query, memory, y, x))
        got = layer(query, memory, y, x)
    assert torch.allclose(got, want, atol=1e-12), float((got - want).abs().max())


def test_short_term_attention_when_keys_lie_outside_the_window_then_they_count_for_nothing() -> None:
    torch.manual_seed(4)
    layer = ShortTermAttention(8, 2, reach=1).double()
    query, key, value = torch.randn(3, 1, 25, 8, dtype=torch.float64)
    with torch.no_grad():
        before = layer(query, Tokens(key, value), 5, 5)
        value[:, 14] += 100  # row 2, column 4
        after = layer(query, Tokens(key, value), 5, 5)
    changed = (before - after).abs().amax(2).view(5, 5) > 0
    want = torch.zeros(5, 5, dtype=torch.bool)
    want[1:4, 3:] = True
    assert torch.equal(changed, want)


def test_short_term_attention_when_gradients_are_compared_with_finite_differences_then_they_agree() -> None:
    torch.manual_seed(5)
    layer = ShortTermAttention(4, 2, reach=1).double()
    query, key, value = (torch.randn(1, 6, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(lambda q, k, v: layer(q, Tokens(k, v), 2, 3), (query, key, value))


def test_sine_positions_when_at_the_corners_then_angles_run_from_nought_to_a_full_turn() -> None:
    at = sine_positions(3, 5, 8, like=torch.zeros(())).view(3, 5, 8)
    assert torch.allclose(at[0, 0], torch.tensor([0.0, 1, 0, 1, 0, 1, 0, 1]))
    assert torch.allclose(at[1, 0, :2], torch.tensor([0.0, -1]), atol=1e-5)  # half a turn, rows first
    assert torch.allclose(at[0, 4, 4:6], torch.tensor([0.0, 1]), atol=1e-4)  # a full turn, columns second
    assert torch.equal(at[:, 2, :4], at[:, 4, :4]) and torch.equal(at[0, :, 4:], at[2, :, 4:])


def test_freeze_norms_when_applied_then_outputs_stay_and_nothing_is_left_to_train() -> None:
    torch.manual_seed(6)
    net = torch.nn.Sequential(torch.nn.Sequential(torch.nn.BatchNorm2d(3)))
    norm = net[0][0]
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.5, 1.5)
    x, state = torch.randn(2, 3, 4, 4), net.state_dict()
    want = net.eval()(x)
    state.pop("0.0.num_batches_tracked")
    freeze_norms(net).load_state_dict(state)
    assert isinstance(net[0][0], FrozenBatchNorm2d) and not list(net.parameters())
    assert torch.allclose(net.train()(x), want, atol=1e-6)
