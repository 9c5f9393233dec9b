"""STCN (Cheng, Tai and Tang, NeurIPS 2021): one affinity for all objects, from frames alone.

Section numbers are the paper's. Parameter names are those of the published checkpoint, so `stcn.pth` loads
unchanged; widths are read back from a checkpoint by `STCNConfig.from_state_dict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.models.interface import Decoded, Memorised, MemoryElements, MemoryPlan, MemoryReader, Query, VOSModel
from rotomem.models.layers.aggregate import aggregate_logits, aggregate_object_logits
from rotomem.models.layers.blocks import ResBlock, UpsampleBlock, object_groups, per_object
from rotomem.models.layers.encoders import KeyEncoder, ValueEncoder, stage_depth
from rotomem.models.layers.framing import IMAGENET_MEAN, IMAGENET_STD, PadToStride
from rotomem.models.layers.resnet import out_widths


@dataclass(frozen=True)
class STCNConfig:
    """Widths of the network; the defaults are the published ones (54.4 M parameters).

    key_*     the frame encoder: stem width, planes and blocks per stage, kind of block
    value_*   the mask encoder, basic blocks throughout
    thin_dim  frame features that the decoder sees beside the readout
    decoder   channels at stride 16, 8 and 4
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
    thin_dim: int = 512
    decoder: tuple[int, int, int] = (512, 256, 256)

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> STCNConfig:
        """Widths as a checkpoint's shapes tell them. Raises KeyError or ValueError where it is no STCN checkpoint."""

        def rows(key: str) -> int:
            return state_dict[key].shape[0]

        def planes(stages: tuple[str, ...]) -> tuple[int, int, int]:
            return cast("tuple[int, int, int]", tuple(rows(f"{s}0.conv1.weight") for s in stages))

        def depths(stages: tuple[str, ...]) -> tuple[int, int, int]:
            return cast("tuple[int, int, int]", tuple(stage_depth(state_dict, s) for s in stages))

        stages = ("key_encoder.res2.", "key_encoder.layer2.", "key_encoder.layer3.")
        value_stages = tuple(f"value_encoder.layer{i}." for i in (1, 2, 3))
        return cls(
            key_block="bottleneck" if "key_encoder.res2.0.conv3.weight" in state_dict else "basic",
            key_stem=rows("key_encoder.conv1.weight"),
            key_planes=planes(stages),
            key_depths=depths(stages),
            value_stem=rows("value_encoder.conv1.weight"),
            value_planes=planes(value_stages),
            value_depths=depths(value_stages),
            key_dim=rows("key_proj.key_proj.weight"),
            value_dim=rows("value_encoder.fuser.block2.conv2.weight"),
            thin_dim=rows("key_comp.weight"),
            decoder=(
                rows("decoder.compress.conv2.weight"),
                rows("decoder.up_16_8.out_conv.conv2.weight"),
                rows("decoder.up_8_4.out_conv.conv2.weight"),
            ),
        )


@dataclass(frozen=True)
class FrameFeatures:
    """Everything that belongs to a frame and not to its objects.

    key [B, CK, y, x];  thin [B, CT, y, x], f16 brought to the decoder's width;  f16, f8, f4 at stride 16, 8 and 4
    """

    key: Tensor
    thin: Tensor
    f16: Tensor
    f8: Tensor
    f4: Tensor


class KeyProjection(nn.Module):
    """Key of a frame; the same for a frame that asks and one that is remembered (section 3.1)."""

    def __init__(self, in_dim: int, key_dim: int) -> None:
        super().__init__()
        self.key_proj = nn.Conv2d(in_dim, key_dim, 3, padding=1)
        nn.init.orthogonal_(self.key_proj.weight)
        nn.init.zeros_(cast(Tensor, self.key_proj.bias))

    def forward(self, f16: Tensor) -> Tensor:
        return self.key_proj(f16).float()


class Decoder(nn.Module):
    """Readout and frame features to a logit per object at stride 4 (section 3.1, as in STM)."""

    def __init__(self, config: STCNConfig) -> None:
        super().__init__()
        w4, w8, _ = out_widths(config.key_block, config.key_planes)
        d16, d8, d4 = config.decoder
        self.compress = ResBlock(config.value_dim + config.thin_dim, d16)
        self.up_16_8 = UpsampleBlock(w8, d16, d8)
        self.up_8_4 = UpsampleBlock(w4, d8, d4)
        self.pred = nn.Conv2d(d4, 1, 3, padding=1)

    def forward(self, features: FrameFeatures, readout: Tensor) -> Tensor:
        """Logits [B, O, h/4, w/4]."""
        g16 = self.compress.fused(features.thin, readout, objects_first=True)
        g4 = self.up_8_4(features.f4, self.up_16_8(features.f8, g16))
        return per_object(self.pred, F.relu(g4))[:, :, 0]


class STCN(VOSModel):
    """The network of STCN. Its memory grows with the shot, as published; `Session(long_term=True)` bounds it."""

    def __init__(self, config: STCNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or STCNConfig()
        f16_dim = out_widths(config.key_block, config.key_planes)[2]
        self.key_encoder = KeyEncoder(config.key_block, config.key_stem, config.key_planes, config.key_depths)
        self.value_encoder = ValueEncoder(
            config.value_stem,
            config.value_planes,
            config.value_depths,
            f16_dim,
            config.value_dim,
            conv_bias=True,
            objects_first=True,
        )
        self.key_proj = KeyProjection(f16_dim, config.key_dim)
        self.key_comp = nn.Conv2d(f16_dim, config.thin_dim, 3, padding=1)
        self.decoder = Decoder(config)
        self.register_buffer("_mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.framing = PadToStride(16, IMAGENET_MEAN)
        # Negative squared distance (section 3.2), the 20 best of it (section 4.2).
        self.plan = MemoryPlan(key_dim=config.key_dim, value_dim=config.value_dim, similarity="l2", top_k=20)

    def _normalise(self, image: Tensor) -> Tensor:
        return (image - cast(Tensor, self._mean)) / cast(Tensor, self._std)

    def encode_frame(self, image: Tensor) -> FrameFeatures:
        """image [B, 3, h, w] 0..1, h and w multiples of 16."""
        f16, f8, f4 = self.key_encoder(self._normalise(image))
        return FrameFeatures(self.key_proj(f16), self.key_comp(f16), f16, f8, f4)

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
        readout = memory.read(Query(features.key))
        readout = readout.to(features.f16.dtype)
        parts = [self.decoder(features, readout[:, g]) for g in object_groups(readout.shape[1], features.f4)]
        logits = torch.cat(parts, 1).float()
        enlarged = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        return Decoded(aggregate_object_logits(enlarged), coarse=aggregate_object_logits(logits))

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
        return Memorised((MemoryElements(features.key, value.float()),))

    def aggregate(self, masks: Tensor) -> Tensor:
        """See VOSModel.aggregate."""
        return torch.softmax(aggregate_logits(masks), 1)
