"""STReMN against its paper's equations written out as loops, and the rules by which frames leave its memory."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import rotomem
from rotomem.errors import CheckpointError, UsageError
from rotomem.models.interface import HeldFrame, MemoryElements, Query
from rotomem.models.layers.aspp import ASPP
from rotomem.models.layers.norm import group_norms
from rotomem.models.layers.resnet import Bottleneck
from rotomem.models.layers.slots import POLICIES, gumbel_one_hot, slot_by_rule, slot_scores, template_similarity
from rotomem.models.stremn import STReMN, STReMNConfig, far_regions

TINY = STReMNConfig("basic", 8, (8, 12, 16), (1, 1, 1), 16, 16, 16, update_dim=6)


def tiny(seed: int = 0, **settings: object) -> STReMN:
    torch.manual_seed(seed)
    return STReMN(STReMNConfig(**{**TINY.__dict__, **settings})).eval()  # type: ignore[arg-type]


def units(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=1, keepdim=True)


def test_template_similarity_when_written_as_loops_then_it_is_equation_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asking, held = units(2, 5, 12, seed=1), units(2, 5, 9, seed=2)
    expected = []
    for n in range(2):
        total = 0.0
        for p in range(12):
            a = 3.0 * asking[n, :, p]  # the length of a vector does not matter
            total += max(float(a @ held[n, :, q] / (a.norm() * held[n, :, q].norm())) for q in range(9))
        expected.append(total / 12)
    assert torch.allclose(template_similarity(asking, held), torch.tensor(expected), atol=1e-6)
    monkeypatch.setattr("rotomem.models.layers.slots._SCRATCH", 2 * 9 * 5)  # five positions at once
    assert torch.allclose(template_similarity(asking, held), torch.tensor(expected), atol=1e-6)


def test_template_similarity_when_positions_are_shuffled_then_a_template_still_finds_itself() -> None:
    x = units(1, 5, 12)
    assert template_similarity(x, x[:, :, torch.randperm(12)]).item() == pytest.approx(1, abs=1e-6)


def test_template_similarity_when_differentiated_then_it_agrees_with_finite_differences() -> None:
    a, b = (units(2, 3, n, seed=n).double().requires_grad_() for n in (4, 5))
    assert torch.autograd.gradcheck(template_similarity, (a, b))


def test_gumbel_when_drawn_often_then_frequencies_are_the_softmax_of_the_scores() -> None:
    scores = torch.tensor([[0.5, -1.0, 9.0, 1.0]]).expand(20000, 4)
    candidates = torch.tensor([[True, True, False, True]]).expand(20000, 4)
    drawn = gumbel_one_hot(scores, candidates, torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {0.0, 1.0} and torch.equal(drawn.sum(1), torch.ones(20000))
    expected = torch.tensor([0.5, -1.0, -torch.inf, 1.0]).softmax(0)
    assert torch.allclose(drawn.mean(0), expected, atol=0.01)


def test_gumbel_when_seeded_alike_then_draws_are_equal() -> None:
    scores, candidates = torch.zeros(50, 4), torch.ones(50, 4, dtype=torch.bool)
    draws = [gumbel_one_hot(scores, candidates, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_gumbel_when_differentiated_then_the_gradient_is_the_soft_ones() -> None:
    """Straight through: forward is one-hot, backward is what finite differences say of equation 3."""
    scores = torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    candidates, weight = torch.tensor([[True, True, True]]), torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    hard = gumbel_one_hot(scores, candidates, torch.Generator().manual_seed(4))
    (gradient,) = torch.autograd.grad((hard * weight).sum(), scores)
    noise = -(-torch.rand((1, 3), generator=torch.Generator().manual_seed(4)).double().log()).log()

    def soft(s: Tensor) -> float:
        return float(((s + noise).softmax(1) * weight).sum())

    for i in range(3):
        step = torch.zeros(1, 3, dtype=torch.float64)
        step[0, i] = 1e-5
        with torch.no_grad():
            slope = (soft(scores + step) - soft(scores - step)) / 2e-5
        assert gradient[0, i].item() == pytest.approx(slope, abs=1e-6)


def follow(policy: str, frames: int, between: int, seed: int = 0) -> list[int]:
    """Steps in memory beside the annotated one after that many frames."""
    held: list[int] = []
    for step in range(1, frames + 1):
        if len(held) == between:
            del held[slot_by_rule(policy, step, held, seed)]  # type: ignore[arg-type]
        held.append(step)
    return held


def test_rules_when_followed_then_they_keep_what_the_ablation_says() -> None:
    assert follow("oldest", 12, 5) == [8, 9, 10, 11, 12]
    assert follow("newest", 12, 5) == [1, 2, 3, 11, 12]
    assert follow("first_and_last", 12, 1) == [12]
    drops = {tuple(follow("random_drop", 12, 5, seed)) for seed in range(20)}
    assert len(drops) > 10 and all(held[-2:] == (11, 12) and len(held) == 5 for held in drops)
    assert follow("random_drop", 12, 5, 3) == follow("random_drop", 12, 5, 3)


def test_random_select_when_repeated_then_every_frame_is_as_likely() -> None:
    counts = collections.Counter(s for seed in range(1500) for s in follow("random_select", 9, 4, seed)[:-1])
    assert counts.keys() == set(range(1, 9))
    assert all(abs(n / 1500 - 3 / 8) < 0.05 for n in counts.values())


def left(model: STReMN, objects: int = 2, seed: int = 0) -> MemoryElements:
    g = torch.Generator().manual_seed(seed)
    image, masks = torch.rand(1, 3, 32, 48, generator=g), torch.rand(1, objects, 32, 48, generator=g)
    with torch.no_grad():
        return model.encode_mask(image, model.encode_frame(image), masks, None).elements[0]


def held_frames(elements: Sequence[MemoryElements]) -> list[HeldFrame]:
    return [HeldFrame(i + 1, e.extra, torch.tensor([True, i > 0])) for i, e in enumerate(elements)]


@pytest.mark.parametrize("policy", ("learned", "most_similar"))
def test_choose_slot_when_scored_then_the_most_similar_goes_but_never_the_latest(policy: str) -> None:
    model = tiny(policy=policy)
    arriving, others = left(model, seed=9), [left(model, seed=s) for s in range(4)]
    held = held_frames(others)
    scores = []
    for i, e in enumerate(others):
        assert arriving.extra is not None and e.extra is not None
        rows = slot_scores(arriving.extra, e.extra)[0]
        scores.append(float(rows[0] if i == 0 else rows.mean()))  # object 2 was not there in the oldest
    assert model.choose_slot(arriving, 9, held) == int(np.argmax(scores[:-1]))
    same = [*held[:2], HeldFrame(3, arriving.extra, held[1].seen), held[3]]
    if policy == "most_similar":
        assert model.choose_slot(arriving, 9, same) == 2
        assert model.choose_slot(arriving, 9, [*held[:3], HeldFrame(4, arriving.extra, held[1].seen)]) != 3
    assert model.choose_slot(arriving, 9, held[:1]) == 0


def test_update_keys_when_left_then_they_are_unit_vectors_of_two_convolutions() -> None:
    model = tiny()
    extra = left(model).extra
    assert extra is not None and extra.shape == (1, 2, 13, 2, 3)
    for part in (extra[:, :, :6], extra[:, :, 6:12]):
        assert torch.allclose(part.norm(dim=2), torch.ones(1, 2, 2, 3), atol=1e-5)
    assert not torch.allclose(extra[:, :, :6], extra[:, :, 6:12], atol=0.1)


class Whole:
    """A memory of all templates, read by equation 5 as loops in float64."""

    def __init__(self, elements: Sequence[MemoryElements]) -> None:
        self.elements = elements

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        key = torch.cat([e.key[0].flatten(2) for e in self.elements], 2).double()
        value = torch.cat([e.value[0].flatten(2) for e in self.elements], 2).double()
        asking = query.key[0].flatten(1).double()
        out = torch.zeros(value.shape[0], value.shape[1], asking.shape[1], dtype=torch.float64)
        for o in range(value.shape[0]):
            for i in range(asking.shape[1]):
                weights = torch.stack([k @ asking[:, i] / key.shape[1] ** 0.5 for k in key[o].T]).exp()
                out[o, :, i] = sum(w / weights.sum() * v for w, v in zip(weights, value[o].T, strict=True))
        return out.float().view(1, *out.shape[:2], *query.key.shape[-2:])

    def latest(self, *, layer: int = 0) -> MemoryElements:
        return self.elements[-1]


def test_decode_when_probabilities_are_summed_then_they_are_one_for_every_number_of_objects() -> None:
    for skips in (True, False):
        model = tiny(skips=skips)
        for objects in (1, 3):
            with torch.no_grad():
                features = model.encode_frame(torch.rand(1, 3, 32, 48))
                decoded = model.decode(features, Whole([left(model, objects)]), None)
            assert decoded.probabilities.shape == (1, objects + 1, 32, 48)
            assert torch.allclose(decoded.probabilities.sum(1), torch.ones(1, 32, 48), atol=1e-5)
            assert torch.allclose(decoded.logits.softmax(1), decoded.probabilities, atol=1e-6)


def test_decoder_when_without_skips_then_fine_features_do_not_reach_it() -> None:
    for skips in (True, False):
        model = tiny(skips=skips)
        features = model.encode_frame(torch.rand(1, 3, 32, 48))
        other = type(features)(features.key, features.value, features.f8 + 1, features.f4 + 1)
        readout = torch.rand(1, 1, 16, 2, 3)
        same = torch.equal(model.decoder(features, readout), model.decoder(other, readout))
        assert same is not skips


def test_group_norms_when_in_place_then_no_batch_norm_is_left_and_published_widths_have_32_groups() -> None:
    model = STReMN(STReMNConfig(depths=(1, 1, 1)))
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert {m.num_groups for m in norms} == {32}
    narrow = group_norms(Bottleneck(12, 6))
    assert all(m.num_channels // m.num_groups >= 2 for m in narrow.modules() if isinstance(m, nn.GroupNorm))


def test_network_when_batched_then_a_clip_does_not_see_its_neighbours() -> None:
    model = tiny()
    images = torch.rand(2, 3, 32, 32)
    both, alone = model.encode_frame(images), model.encode_frame(images[:1])
    assert torch.allclose(both.key[:1], alone.key, atol=1e-5)


def test_aspp_when_a_position_changes_then_it_is_felt_at_every_rate() -> None:
    torch.manual_seed(0)
    aspp = ASPP(4)
    x = torch.zeros(1, 4, 40, 40, requires_grad=True)
    # The dilated branches alone: norms and the mean see everything.
    for branch, rate in zip(list(aspp.branches)[1:], (6, 12, 18), strict=True):
        (gradient,) = torch.autograd.grad(branch[0](x)[0, :, 20, 20].sum(), x)
        rows = gradient[0].abs().sum((0, 2)).nonzero()[:, 0].tolist()
        assert rows == [20 - rate, 20, 20 + rate]
    assert aspp(torch.rand(2, 4, 5, 7)).shape == (2, 4, 5, 7)


def boxes(*where: tuple[int, int, int, int, float], size: int = 160) -> Tensor:
    """[1, 2, h, w]: background and one object of boxes (top, left, height, width, probability)."""
    p = torch.zeros(1, 1, size, size)
    for top, left_, height, width, value in where:
        p[..., top : top + height, left_ : left_ + width] = value
    return torch.cat([1 - p, p], 1)


def test_far_regions_when_one_lies_far_from_the_frame_before_then_it_goes_whole() -> None:
    before = boxes((16, 16, 32, 32, 1.0))[:, 1:, ::16, ::16]
    now = boxes((20, 24, 32, 32, 0.9), (112, 100, 6, 40, 0.8), (118, 100, 4, 4, 0.3))
    far = F.interpolate(far_regions(now, before, 0.25), scale_factor=16) > 0
    assert not (far & (now[:, 1:] == 0.9)).any()
    assert far[now[:, 1:] == 0.8].all() and far[now[:, 1:] == 0.3].all()


def test_far_regions_when_a_region_reaches_out_then_its_far_end_stays() -> None:
    before = boxes((16, 16, 32, 32, 1.0))[:, 1:, ::16, ::16]
    assert not far_regions(boxes((20, 20, 20, 140, 0.9), (20, 140, 130, 20, 0.9)), before, 0.1).any()


@pytest.mark.parametrize("seen", (True, False))
def test_far_regions_when_nothing_is_near_then_all_stays(seen: bool) -> None:
    before = boxes((0, 0, 16, 16, 1.0 if seen else 0.0))[:, 1:, ::16, ::16]
    assert not far_regions(boxes((120, 120, 30, 30, 0.9)), before, 0.1).any()


def test_decode_when_a_false_positive_is_far_then_its_probability_is_the_backgrounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny(reach=0.2)
    logits = torch.full((1, 1, 2, 40, 40), -4.0)
    logits[..., 0, :, :] = 4.0
    for part in (slice(4, 12), slice(30, 38)):
        logits[0, 0, :, part, part] = torch.tensor([-4.0, 4.0]).view(2, 1, 1)
    monkeypatch.setattr(model.decoder, "forward", lambda features, readout: logits)
    image = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        features = model.encode_frame(image)
        mask = boxes((16, 16, 32, 32, 1.0))[:, 1:]
        memory = Whole(model.encode_mask(image, features, mask, None).elements)
        monkeypatch.setattr(memory, "read", lambda query: torch.zeros(1, 1, 16, 10, 10))
        p = model.decode(features, memory, None).probabilities  # type: ignore[arg-type]
        assert p[0, 1, 30, 30] > 0.99 and p[0, 1, 136, 136] < 1e-5 and p[0, 0, 136, 136] > 0.99
        kept = model.train().decode(features, memory, None).probabilities  # type: ignore[arg-type]
    assert kept[0, 1, 136, 136] > 0.99


@pytest.mark.parametrize("skips", (True, False))
def test_load_model_when_given_its_weights_then_they_tell_its_widths_and_its_memory(
    tmp_path: Path, skips: bool
) -> None:
    model = tiny(skips=skips, slots=9, policy="random_drop", seed=7, reach=0.3 if skips else None)
    path = tmp_path / "show.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    loaded = rotomem.load_model(path, device="cpu", dtype="float32")
    assert isinstance(loaded, STReMN) and loaded.config == model.config and loaded.plan.slots == 9
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_build_model_when_told_otherwise_than_its_weights_then_what_it_is_told_holds_and_is_kept() -> None:
    state = tiny(slots=9, policy="random_drop").state_dict()
    other = rotomem.build_model("stremn", state, slots=4, policy="oldest")
    again = rotomem.build_model("stremn", other.state_dict())
    assert isinstance(again, STReMN) and (again.config.slots, again.config.policy) == (4, "oldest")
    assert other.plan.slots == again.plan.slots == 4


def test_build_model_when_weights_do_not_tell_their_memory_then_they_are_refused() -> None:
    state = tiny().state_dict()
    for broken in ({k: v for k, v in state.items() if k != "_extra_state"}, _with_policy(state, 99)):
        with pytest.raises(CheckpointError, match="_extra_state"):
            rotomem.build_model("stremn", broken)


def _with_policy(state: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    told = state["_extra_state"].clone()
    told[1] = number
    return {**state, "_extra_state": told}


@pytest.mark.parametrize("setting", ({"slots": 1}, {"policy": "cleverest"}, {"reach": 0.0}))
def test_config_when_a_setting_makes_no_sense_then_it_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(setting))):
        tiny(**setting)


def test_policies_when_listed_then_all_of_the_ablation_are_there() -> None:
    assert len(POLICIES) == 7 and tiny(policy="first_and_last").plan.slots == 2
