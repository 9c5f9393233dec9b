"""XMem (Cheng and Schwing, ECCV 2022), at its published size and as the narrow network rotomem ships.

Section numbers are the paper's. Parameter names are those of the published checkpoint, so `XMem.pth` loads
unchanged; widths are read back from a checkpoint by `XMemConfig.from_state_dict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.models.interface import (
    Decoded,
    Memorised,
    MemoryElements,
    MemoryPlan,
    MemoryReader,
    Query,
    VOSModel,
)
from rotomem.models.layers.aggregate import aggregate_logits, aggregate_object_logits
from rotomem.models.layers.blocks import FeatureFusion, UpsampleBlock, object_groups, per_object
from rotomem.models.layers.convolution import apart, merged
from rotomem.models.layers.encoders import KeyEncoder, ValueEncoder, stage_depth
from rotomem.models.layers.framing import IMAGENET_MEAN, IMAGENET_STD, PadToStride
from rotomem.models.layers.refine import RefinementHead
from rotomem.models.layers.resnet import out_widths


@dataclass(frozen=True)
class XMemConfig:
    """Widths of the network; the defaults are the published ones (62.2 M parameters).

    key_*     the frame encoder: stem width, planes and blocks per stage, kind of block
    value_*   the mask encoder, basic blocks throughout
    decoder   channels at stride 16, 8 and 4
    update_dim    width inside the sensory update of the decoder
    refine        width of the head that refines alpha from the picture, which is not in the paper; 0 is none
    """

    key_block: str = "bottleneck"
    key_stem: int = 64
    key_planes: tuple[int, int, int] = (64, 128, 256)
    key_depths: tuple[int, int, int] = (3, 4, 6)
    value_stem: int = 64
    value_planes: tuple[int, int, int] = (64, 128, 256)
    value_depths: tuple[int, int, int] = (2, 2, 2)
    key_dim: int = 64
    value_dim: int = 512
    sensory_dim: int = 64
    decoder: tuple[int, int, int] = (512, 256, 256)
    update_dim: int = 256
    refine: int = 0

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> XMemConfig:
        """Widths as a checkpoint's shapes tell them. Raises KeyError where it is no XMem checkpoint."""

        def rows(key: str) -> int:
            return state_dict[key].shape[0]

        stages = ("key_encoder.res2.", "key_encoder.layer2.", "key_encoder.layer3.")
        value_stages = tuple(f"value_encoder.layer{i}." for i in (1, 2, 3))
        hidden = "decoder.hidden_update.transform.weight"
        bottleneck = "key_encoder.res2.0.conv3.weight" in state_dict
        return cls(
            key_block="bottleneck" if bottleneck else "basic",
            key_stem=rows("key_encoder.conv1.weight"),
            key_planes=cast("tuple[int, int, int]", tuple(rows(f"{s}0.conv1.weight") for s in stages)),
            key_depths=cast("tuple[int, int, int]", tuple(stage_depth(state_dict, s) for s in stages)),
            value_stem=rows("value_encoder.conv1.weight"),
            value_planes=cast("tuple[int, int, int]", tuple(rows(f"{s}0.conv1.weight") for s in value_stages)),
            value_depths=cast("tuple[int, int, int]", tuple(stage_depth(state_dict, s) for s in value_stages)),
            key_dim=rows("key_proj.key_proj.weight"),
            value_dim=rows("value_encoder.fuser.block2.conv2.weight"),
            sensory_dim=rows(hidden) // 3 if hidden in state_dict else 0,
            decoder=(
                rows("decoder.fuser.block2.conv2.weight"),
                rows("decoder.up_16_8.out_conv.conv2.weight"),
                rows("decoder.up_8_4.out_conv.conv2.weight"),
            ),
            update_dim=rows("decoder.hidden_update.g16_conv.weight") if hidden in state_dict else 0,
            refine=rows("refine.mix.weight") if "refine.mix.weight" in state_dict else 0,
        )


XMEM_S = XMemConfig(
    key_block="basic",
    key_stem=32,
    key_planes=(48, 96, 192),
    key_depths=(2, 2, 2),
    value_stem=24,
    value_planes=(32, 64, 128),
    value_depths=(1, 1, 1),
    value_dim=128,
    sensory_dim=32,
    decoder=(192, 96, 48),
    update_dim=64,
    refine=32,
)
"""The narrow network that comes with rotomem: `recipes/xmem_s.py` trains all but its head, `refine.py` that."""


_NARROW = 64
"""Channels at stride 4 up to which the decoder's last stage is cheap enough for float32."""


@dataclass(frozen=True)
class FrameFeatures:
    """Everything that belongs to a frame and not to its objects.

    key, selection   [B, CK, y, x];  shrinkage [B, 1, y, x], >= 1
    f16, f8, f4      [B, C, ...] at stride 16, 8 and 4
    seen             [B, C, ...] at stride 4, what the refinement head saw of the picture; None where there is none
    """

    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    f16: Tensor
    f8: Tensor
    f4: Tensor
    seen: Tensor | None = None


class KeyProjection(nn.Module):
    """Key, shrinkage d^2 + 1 and selection sigmoid(e) of a frame (section 3.4, "anisotropic L2")."""

    def __init__(self, in_dim: int, key_dim: int) -> None:
        super().__init__()
        self.key_proj = nn.Conv2d(in_dim, key_dim, 3, padding=1)
        self.d_proj = nn.Conv2d(in_dim, 1, 3, padding=1)
        self.e_proj = nn.Conv2d(in_dim, key_dim, 3, padding=1)
        nn.init.orthogonal_(self.key_proj.weight)
        nn.init.zeros_(cast(Tensor, self.key_proj.bias))

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shrinkage = self.d_proj(f16).float() ** 2 + 1
        return self.key_proj(f16).float(), shrinkage, torch.sigmoid(self.e_proj(f16).float())


def _sensory_step(transform: nn.Conv2d, g: Tensor, h: Tensor) -> Tensor:
    """The recurrent cell of the sensory memory: h' = f h (1 - u) + u n (section 3.3, as published).

    Unlike a GRU the candidate n does not see the forgotten state; the released weights were trained so.

    g [B, O, C, y, x] what was seen, h [B, O, CH, y, x] the state; returns the new state, float32
    """
    values = per_object(transform, torch.cat([g, h.to(g.dtype)], 2)).float()
    forget, update, new = values.chunk(3, dim=2)
    forget, update = torch.sigmoid(forget), torch.sigmoid(update)
    return forget * h.float() * (1 - update) + update * torch.tanh(new)


def _sensory_transform(in_dim: int, sensory_dim: int) -> nn.Conv2d:
    transform = nn.Conv2d(in_dim + sensory_dim, 3 * sensory_dim, 3, padding=1)
    nn.init.xavier_normal_(transform.weight)
    return transform


class HiddenReinforcer(nn.Module):
    """The deep update: the sensory memory sees a frame's value (section 3.3)."""

    def __init__(self, value_dim: int, sensory_dim: int) -> None:
        super().__init__()
        self.transform = _sensory_transform(value_dim, sensory_dim)

    def forward(self, value: Tensor, h: Tensor) -> Tensor:
        return _sensory_step(self.transform, value, h)


class XMemValueEncoder(ValueEncoder):
    """Frame and mask of one object to its value (section 3.5); also the deep update (section 3.3)."""

    def __init__(self, config: XMemConfig, f16_dim: int) -> None:
        super().__init__(config.value_stem, config.value_planes, config.value_depths, f16_dim, config.value_dim)
        self.hidden_reinforce = HiddenReinforcer(config.value_dim, config.sensory_dim) if config.sensory_dim else None


class HiddenUpdate(nn.Module):
    """The decoder's share of the sensory update: its features of three strides at stride 16."""

    def __init__(self, config: XMemConfig) -> None:
        super().__init__()
        g16, g8, g4 = config.decoder
        self.g16_conv = nn.Conv2d(g16, config.update_dim, 1)
        self.g8_conv = nn.Conv2d(g8, config.update_dim, 1)
        self.g4_conv = nn.Conv2d(g4 + 1, config.update_dim, 1)
        self.transform = _sensory_transform(config.update_dim, config.sensory_dim)

    def forward(self, g16: Tensor, g8: Tensor, g4: Tensor, logits: Tensor, h: Tensor) -> Tensor:
        finest = torch.cat([_area(g4, 4), _area(logits, 4)], 2)
        g = per_object(self.g16_conv, g16) + per_object(self.g8_conv, _area(g8, 2)) + per_object(self.g4_conv, finest)
        return _sensory_step(self.transform, g, h)


def _area(x: Tensor, ratio: int) -> Tensor:
    """Mean over `ratio` x `ratio` pixels of [B, O, C, y, x]."""
    return apart(F.avg_pool2d(merged(x), ratio), x.shape[1])


class Decoder(nn.Module):
    """Readout and sensory memory to a logit per object at stride 4 (section 3.5)."""

    def __init__(self, config: XMemConfig) -> None:
        super().__init__()
        w4, w8, w16 = out_widths(config.key_block, config.key_planes)
        d16, d8, d4 = config.decoder
        self.fuser = FeatureFusion(w16, config.value_dim + config.sensory_dim, d16)
        self.hidden_update = HiddenUpdate(config) if config.sensory_dim else None
        self.up_16_8 = UpsampleBlock(w8, d16, d8)
        self.up_8_4 = UpsampleBlock(w4, d8, d4)
        self.pred = nn.Conv2d(d4, 1, 3, padding=1)

    def forward(
        self, features: FrameFeatures, readout: Tensor, sensory: Tensor | None, update: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits [B, O, h/4, w/4], the features [B, O, C, h/4, w/4] they are made from, and the new sensory state,
        None where it is not updated."""
        if sensory is not None:
            readout = torch.cat([readout, sensory.to(readout.dtype)], 2)
        g16 = self.fuser(features.f16, readout)
        g8 = self.up_16_8(features.f8, g16)
        g4 = self.up_8_4(features.f4, g8)
        finest = F.relu(g4)
        logits = per_object(self.pred, finest)
        if update and self.hidden_update is not None and sensory is not None:
            sensory = self.hidden_update(g16, g8, g4, logits, sensory)
        else:
            sensory = None
        return logits[:, :, 0], finest, sensory


def _joined(parts: list[Tensor]) -> Tensor:
    """Objects of several groups in one tensor."""
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


class XMem(VOSModel):
    """The network of XMem; its three memories live in the engine."""

    def __init__(self, config: XMemConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or XMemConfig()
        f16_dim = out_widths(config.key_block, config.key_planes)[2]
        self.key_encoder = KeyEncoder(config.key_block, config.key_stem, config.key_planes, config.key_depths)
        self.value_encoder = XMemValueEncoder(config, f16_dim)
        self.key_proj = KeyProjection(f16_dim, config.key_dim)
        self.decoder = Decoder(config)
        self.refine = RefinementHead(config.decoder[2], config.refine) if config.refine else None
        self.register_buffer("_mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.framing = PadToStride(16, IMAGENET_MEAN)
        # Little work and much of the error: see the table in `inference.py`.
        self.precise = ("key_proj", "decoder.hidden_update", "decoder.pred", "refine")
        if config.decoder[2] <= _NARROW:
            self.precise += ("decoder.up_8_4.out_conv",)
        self.plan = MemoryPlan(
            key_dim=config.key_dim,
            value_dim=config.value_dim,
            similarity="anisotropic_l2",
            top_k=30,
            sensory_dim=config.sensory_dim,
            consolidates=True,
        )

    def _normalise(self, image: Tensor) -> Tensor:
        return (image - cast(Tensor, self._mean)) / cast(Tensor, self._std)

    def encode_frame(self, image: Tensor) -> FrameFeatures:
        """image [B, 3, h, w] 0..1, h and w multiples of 16."""
        normalised = self._normalise(image)
        f16, f8, f4 = self.key_encoder(normalised)
        key, shrinkage, selection = self.key_proj(f16)
        seen = None if self.refine is None else self.refine.look(normalised)
        return FrameFeatures(key, shrinkage, selection, f16, f8, f4, seen)

    def fine_features(self, features: FrameFeatures) -> Tensor:
        """See VOSModel.fine_features."""
        return features.f4

    def decode(
        self,
        features: FrameFeatures,
        memory: MemoryReader,
        sensory: Tensor | None,
        *,
        update_sensory: bool = True,
    ) -> Decoded:
        """See VOSModel.decode."""
        readout = memory.read(Query(features.key, features.selection))
        readout = readout.to(features.f16.dtype)
        enlarged, corrections, states, small = [], [], [], []
        for g in object_groups(readout.shape[1], features.f4):
            state = None if sensory is None else sensory[:, g]
            logits, finest, state = self.decoder(features, readout[:, g], state, update_sensory)
            small.append(logits.float())
            enlarged.append(F.interpolate(small[-1], scale_factor=4, mode="bilinear", align_corners=False))
            if self.refine is not None:
                assert features.seen is not None
                corrections.append(self.refine(features.seen, finest))
            if state is not None:
                states.append(state)
        logits = _joined(enlarged)
        return Decoded(
            aggregate_object_logits(logits),
            _joined(states) if states else None,
            coarse=aggregate_object_logits(_joined(small)),
            refined=aggregate_object_logits(logits + _joined(corrections)) if corrections else None,
        )

    def encode_mask(
        self,
        image: Tensor,
        features: FrameFeatures,
        masks: Tensor,
        sensory: Tensor | None,
        *,
        seen: Decoded | None = None,
        drawn: bool = False,
        deep_update: bool = False,
    ) -> Memorised:
        """See VOSModel.encode_mask."""
        value = self.value_encoder(self._normalise(image), features.f16, masks)
        reinforce = self.value_encoder.hidden_reinforce
        updated = reinforce(value, sensory) if deep_update and reinforce is not None else None
        elements = MemoryElements(features.key, value.float(), features.shrinkage, features.selection)
        return Memorised((elements,), updated)

    def aggregate(self, masks: Tensor) -> Tensor:
        """See VOSModel.aggregate; a hard mask becomes probabilities of 1 - 1e-14 and 1e-14."""
        return torch.softmax(aggregate_logits(masks), 1)
