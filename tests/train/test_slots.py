"""The slots of a training clip: what they hold, what a query reads, where gradients go."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from rotomem.models.interface import HeldFrame, MemoryElements, Query
from rotomem.models.layers.slots import POLICIES
from rotomem.models.stremn import STReMN, STReMNConfig
from rotomem.train.slots import SlotMemory


def tiny(**settings: object) -> STReMN:
    torch.manual_seed(0)
    narrow = {"block": "basic", "stem": 8, "planes": (8, 8, 12), "depths": (1, 1, 1)}
    dims = {"key_dim": 8, "value_dim": 6, "decoder_dim": 8, "update_dim": 4}
    return STReMN(STReMNConfig(**narrow, **dims, **settings))  # type: ignore[arg-type]


def of(model: STReMN, seed: int) -> SlotMemory:
    return SlotMemory(model.plan, model.config.policy, Generator().manual_seed(seed), seed=model.config.seed)


def template(seed: int, b: int = 2, o: int = 2) -> MemoryElements:
    """Random key, value, update keys and place, of a frame."""
    g = Generator().manual_seed(seed)
    unit = [torch.nn.functional.normalize(torch.randn(b, o, 4, 2, 3, generator=g), dim=2) for _ in range(2)]
    place = torch.rand(b, o, 1, 2, 3, generator=g)
    key, value = torch.randn(b, o, 8, 2, 3, generator=g), torch.randn(b, o, 6, 2, 3, generator=g)
    return MemoryElements(key, value, extra=torch.cat([*unit, place], 2))


def filled(model: STReMN, frames: int, seed: int = 0) -> SlotMemory:
    memory = of(model, seed)
    for step in range(frames):
        memory.add([template(step)])
    return memory


def test_slots_when_clips_are_long_then_the_given_frame_and_the_latest_two_are_always_there() -> None:
    model, seen = tiny(slots=4), set()
    memory = of(model, 0)
    for step in range(12):
        memory.add([template(step)])
        held = memory.steps
        assert held.shape == (2, min(step + 1, 4))
        for row in held.tolist():
            assert {0, step, max(step - 1, 0)} <= set(row)
            seen.add(tuple(sorted(row)))
    assert len(seen) > 14  # the two clips of the batch did not choose alike


def test_read_when_written_as_loops_then_it_is_equation_five_over_the_slots() -> None:
    memory = filled(tiny(slots=3), 7)
    query = torch.randn(2, 8, 2, 3)
    readout = memory.read(Query(query))
    for b, row in enumerate(memory.steps.tolist()):
        held = [template(step) for step in row]
        for o in range(2):
            keys = torch.cat([e.key[b, o].flatten(1) for e in held], 1)
            values = torch.cat([e.value[b, o].flatten(1) for e in held], 1)
            for i in range(6):
                q = query[b].flatten(1)[:, i]
                weights = [float(torch.exp(k @ q / 8**0.5)) for k in keys.T]
                expected = sum(w / sum(weights) * v for w, v in zip(weights, values.T, strict=True))
                assert torch.allclose(readout[b, o].flatten(1)[:, i], torch.as_tensor(expected), atol=1e-5)


def test_draws_when_seeded_alike_then_slots_are_alike_and_noise_matters() -> None:
    model = tiny(slots=5)
    a, b, c = (filled(model, 14, seed).steps for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_update_keys_when_later_frames_have_a_loss_then_it_reaches_them_through_the_draw() -> None:
    memory = of(tiny(slots=4), 0)
    extras: list[Tensor] = []
    for step in range(5):
        e = template(step)
        assert e.extra is not None
        extras.append(e.extra.requires_grad_())
        memory.add([e])
    memory.read(Query(torch.randn(2, 8, 2, 3))).square().sum().backward()
    asking, found = [x.grad[:, :, :4] for x in extras], [x.grad[:, :, 4:8] for x in extras]  # type: ignore[index]
    assert asking[4].abs().sum() > 0 and asking[2].abs().sum() == 0
    assert found[1].abs().sum() > 0 and found[2].abs().sum() > 0  # those that might have gone
    assert found[0].abs().sum() == 0 and found[3].abs().sum() == 0  # the given frame, and the latest


def test_network_when_a_clip_is_learned_then_every_parameter_has_a_gradient() -> None:
    model = tiny(slots=4).train()
    images, masks = torch.rand(6, 1, 3, 32, 32), torch.rand(1, 2, 32, 32).round()
    memory, loss = of(model, 0), torch.zeros(())
    for step, image in enumerate(images):
        features = model.encode_frame(image)
        if step:
            decoded = model.decode(features, memory, None)
            loss = loss - decoded.logits.log_softmax(1)[:, 1:].mul(masks).mean()
            masks = decoded.probabilities[:, 1:]
        memory.add(model.encode_mask(image, features, masks, None).elements)
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "learned"])
def test_slots_when_a_rule_empties_them_then_it_is_the_one_of_the_session(policy: str) -> None:
    """A batch of one, step for step against what the model tells the engine."""
    model = tiny(policy=policy, slots=4)
    memory = of(model, 0)
    held: list[tuple[int, MemoryElements]] = []
    for step in range(11):
        e = template(step, b=1)
        memory.add([e])
        between = [(s, x) for s, x in held if s > 0]
        if len(held) == model.plan.slots:
            frames = [HeldFrame(s, x.extra, torch.ones(2, dtype=torch.bool)) for s, x in between]
            held.remove(between[model.choose_slot(e, step, frames)])
        held.append((step, e))
        assert sorted(memory.steps[0].tolist()) == [s for s, _ in held]
