from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rotomem.errors import CheckpointError
from rotomem.models.layers.mobilenet import MobileNetV2
from rotomem.models.stcn import STCN
from rotomem.models.stm import STM
from rotomem.models.xmem import XMem
from rotomem.train.encoders import begin_encoder, settle_norms

from .tiny_published import STCN_TINY, STM_TINY, XMEM_TINY


def classifier_of(encoder: torch.nn.Module, names: dict[str, str]) -> dict[str, torch.Tensor]:
    """What torchvision's file would hold, had a classifier these widths."""
    state = {}
    for key, value in encoder.state_dict().items():
        head, _, tail = key.partition(".")
        norm_or_weight = value.dim() != 1 or f"{key.rpartition('.')[0]}.running_mean" in encoder.state_dict()
        if head in names and norm_or_weight:
            state[f"{names[head]}.{tail}"] = torch.randn_like(value.float()) if value.dim() else value
    state["conv1.weight"] = state["conv1.weight"][:, :3]
    return {**state, "fc.weight": torch.zeros(2, 2)}


RESNET = {n: n for n in ("conv1", "bn1", "layer1", "layer2", "layer3")}


@pytest.mark.parametrize(
    ("encoder", "names"),
    [
        (STCN(STCN_TINY).key_encoder, {**RESNET, "res2": "layer1"}),
        (STCN(STCN_TINY).value_encoder, RESNET),
        (XMem(XMEM_TINY).value_encoder, RESNET),
        (STM(STM_TINY).Encoder_M, {**RESNET, "res2": "layer1", "res3": "layer2", "res4": "layer3"}),
    ],
)
def test_begin_encoder_when_given_a_classifier_then_all_of_it_arrives(
    encoder: torch.nn.Module, names: dict[str, str], tmp_path: Path
) -> None:
    given = classifier_of(encoder, names)
    torch.save(given, tmp_path / "resnet.pth")
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    begin_encoder(encoder, tmp_path / "resnet.pth")
    for key, value in encoder.state_dict().items():
        head, _, tail = key.partition(".")
        source = given.get(f"{names.get(head)}.{tail}")
        if key == "conv1.weight":
            assert torch.equal(value[:, :3], given[key])
        elif key.endswith("num_batches_tracked") or head not in names:
            assert torch.equal(value, before[key])
        else:
            assert torch.equal(value, source if source is not None else torch.zeros_like(value))


def test_begin_encoder_when_a_tensor_is_missing_or_of_other_widths_then_the_error_names_it(tmp_path: Path) -> None:
    encoder = STCN(STCN_TINY).key_encoder
    given = classifier_of(encoder, {**RESNET, "res2": "layer1"})
    for broken in (
        {k: v for k, v in given.items() if k != "layer2.0.conv1.weight"},
        {**given, "layer2.0.conv1.weight": given["conv1.weight"]},
    ):
        torch.save(broken, tmp_path / "resnet.pth")
        with pytest.raises(CheckpointError, match=r"layer2\.0\.conv1\.weight.*resnet\.pth"):
            begin_encoder(encoder, tmp_path / "resnet.pth")


def test_settle_norms_when_weights_are_random_then_signals_keep_their_size() -> None:
    torch.manual_seed(0)
    encoder = MobileNetV2()
    noise = torch.nn.functional.interpolate(torch.randn(2, 3, 9, 9), (65, 65), mode="bilinear")
    faded = encoder(noise)[-1].std()
    settle_norms(encoder)
    assert faded < 1e-3 < 0.1 < encoder(noise)[-1].std() < 10
