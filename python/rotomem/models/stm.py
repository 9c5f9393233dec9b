"""STM (Oh, Lee, Xu and Kim, ICCV 2019): the space-time memory network that the others grew from.

Section numbers are the paper's. Parameter names are those of the published checkpoint, so `STM_weights.pth` loads
unchanged; widths are read back from a checkpoint by `STMConfig.from_state_dict`.

The published code works on eleven channels whatever the number of objects; the absent ones weigh 1e-7 against
the present ones in its softmax. Here there are as many channels as objects, and that weight is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.models.interface import Decoded, Memorised, MemoryElements, MemoryPlan, MemoryReader, Query, VOSModel
from rotomem.models.layers.aggregate import aggregate_logits
from rotomem.models.layers.blocks import ResBlock, per_object
from rotomem.models.layers.convolution import add_frame, apart, convolve_both, merged
from rotomem.models.layers.encoders import stage_depth
from rotomem.models.layers.framing import IMAGENET_MEAN, IMAGENET_STD, PadToStride
from rotomem.models.layers.resnet import BLOCKS, make_stage, out_widths


@dataclass(frozen=True)
class STMConfig:
    """Widths of the network; the defaults are the published ones (38.9 M parameters).

    block, stem, planes, depths   either encoder: kind of block, stem width, planes and blocks per stage
    decoder_dim                   channels of the decoder at every stride
    """

    block: str = "bottleneck"
    stem: int = 64
    planes: tuple[int, int, int] = (64, 128, 256)
    depths: tuple[int, int, int] = (3, 4, 6)
    key_dim: int = 128
    value_dim: int = 512
    decoder_dim: int = 256

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> STMConfig:
        """Widths as a checkpoint's shapes tell them. Raises KeyError or ValueError where it is no STM checkpoint."""

        def rows(key: str) -> int:
            return state_dict[key].shape[0]

        stages = tuple(f"Encoder_Q.res{i}." for i in (2, 3, 4))
        return cls(
            block="bottleneck" if "Encoder_Q.res2.0.conv3.weight" in state_dict else "basic",
            stem=rows("Encoder_Q.conv1.weight"),
            planes=cast("tuple[int, int, int]", tuple(rows(f"{s}0.conv1.weight") for s in stages)),
            depths=cast("tuple[int, int, int]", tuple(stage_depth(state_dict, s) for s in stages)),
            key_dim=rows("KV_Q_r4.Key.weight"),
            value_dim=rows("KV_Q_r4.Value.weight"),
            decoder_dim=rows("Decoder.convFM.weight"),
        )


@dataclass(frozen=True)
class FrameFeatures:
    """What a frame asks with, and what of it the decoder sees.

    key [B, CK, y, x];  value [B, CV, y, x];  f8, f4 at stride 8 and 4
    """

    key: Tensor
    value: Tensor
    f8: Tensor
    f4: Tensor


class QueryEncoder(nn.Module):
    """Frame to features at strides 16, 8, 4 (section 3.1, "query encoder")."""

    def __init__(self, config: STMConfig) -> None:
        super().__init__()
        block = BLOCKS[config.block]
        w2, w3, _ = out_widths(config.block, config.planes)
        p2, p3, p4 = config.planes
        d2, d3, d4 = config.depths
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.conv1 = nn.Conv2d(3, config.stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.stem)
        self.res2 = make_stage(block, config.stem, p2, d2, 1)
        self.res3 = make_stage(block, w2, p3, d3, 2)
        self.res4 = make_stage(block, w3, p4, d4, 2)

    def stem(self, image: Tensor) -> Tensor:
        """The first convolution of a picture 0..1."""
        return self.conv1((image - cast(Tensor, self.mean)) / cast(Tensor, self.std))

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What follows the first convolution: f16, f8, f4."""
        f4 = self.res2(F.max_pool2d(F.relu(self.bn1(x)), 3, 2, 1))
        f8 = self.res3(f4)
        return self.res4(f8), f8, f4

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.stages(self.stem(image))


class MemoryEncoder(QueryEncoder):
    """Frame, mask and other masks to features at stride 16, an object at a time (section 3.1, "memory encoder")."""

    def __init__(self, config: STMConfig) -> None:
        super().__init__(config)
        self.conv1_m = nn.Conv2d(1, config.stem, 7, 2, 3, bias=False)
        self.conv1_o = nn.Conv2d(1, config.stem, 7, 2, 3, bias=False)

    def forward(self, image: Tensor, masks: Tensor) -> Tensor:  # type: ignore[override]
        """image [B, 3, h, w] 0..1, masks [B, O, h, w]; returns [B, O, C, y, x]."""
        others = (masks.sum(1, keepdim=True) - masks).clamp(0, 1)
        x = self.conv1_m(merged(masks[:, :, None])) + self.conv1_o(merged(others[:, :, None]))
        return apart(self.stages(add_frame(x, self.stem(image)))[0], masks.shape[1])


class KeyValue(nn.Module):
    """Key and value of features at stride 16, by one convolution each (section 3.1)."""

    def __init__(self, in_dim: int, key_dim: int, value_dim: int) -> None:
        super().__init__()
        self.Key = nn.Conv2d(in_dim, key_dim, 3, padding=1)
        self.Value = nn.Conv2d(in_dim, value_dim, 3, padding=1)


class Refine(nn.Module):
    """Twice the raster, with the frame's finer features added (section 3.3)."""

    def __init__(self, skip_dim: int, dim: int) -> None:
        super().__init__()
        self.convFS = nn.Conv2d(skip_dim, dim, 3, padding=1)
        self.ResFS = ResBlock(dim, dim)
        self.ResMM = ResBlock(dim, dim)

    def forward(self, skip: Tensor, g: Tensor) -> Tensor:
        """skip [B, CS, 2y, 2x], g [B, O, C, y, x]; returns [B, O, C, 2y, 2x]."""
        up = F.interpolate(merged(g), scale_factor=2, mode="bilinear", align_corners=False)
        return apart(self.ResMM(add_frame(up, self.ResFS(self.convFS(skip)))), g.shape[1])


class Decoder(nn.Module):
    """Readout and the frame's value to two logits per object at stride 4 (section 3.3)."""

    def __init__(self, config: STMConfig) -> None:
        super().__init__()
        w4, w8, _ = out_widths(config.block, config.planes)
        dim = config.decoder_dim
        self.convFM = nn.Conv2d(2 * config.value_dim, dim, 3, padding=1)
        self.ResMM = ResBlock(dim, dim)
        self.RF3 = Refine(w8, dim)
        self.RF2 = Refine(w4, dim)
        self.pred2 = nn.Conv2d(dim, 2, 3, padding=1)

    def forward(self, features: FrameFeatures, readout: Tensor) -> Tensor:
        """Logits [B, O, 2, h/4, w/4]: not the object, the object."""
        o = readout.shape[1]
        m = self.ResMM(convolve_both(self.convFM, features.value, merged(readout), o, objects_first=True))
        m = self.RF2(features.f4, self.RF3(features.f8, apart(m, o)))
        return per_object(self.pred2, F.relu(m))


class STM(VOSModel):
    """The network of STM. Its memory grows with the shot, as published; `Session(long_term=True)` bounds it."""

    def __init__(self, config: STMConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or STMConfig()
        f16_dim = out_widths(config.block, config.planes)[2]
        self.Encoder_M = MemoryEncoder(config)
        self.Encoder_Q = QueryEncoder(config)
        self.KV_M_r4 = KeyValue(f16_dim, config.key_dim, config.value_dim)
        self.KV_Q_r4 = KeyValue(f16_dim, config.key_dim, config.value_dim)
        self.Decoder = Decoder(config)
        # Pictures are padded before they are normalised, so the padding is black.
        self.framing = PadToStride(16, (0.0, 0.0, 0.0))
        self.plan = MemoryPlan(
            key_dim=config.key_dim,
            value_dim=config.value_dim,
            similarity="dot",
            top_k=None,
            keys_per_object=True,
            latest_frame=True,
            clear_padding=True,
        )

    def encode_frame(self, image: Tensor) -> FrameFeatures:
        """image [B, 3, h, w] 0..1, h and w multiples of 16."""
        f16, f8, f4 = self.Encoder_Q(image)
        return FrameFeatures(self.KV_Q_r4.Key(f16).float(), self.KV_Q_r4.Value(f16), f8, f4)

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
        logits = self.Decoder(features, readout.to(features.f4.dtype)).float()
        b, o = logits.shape[:2]
        coarse = aggregate_logits(torch.softmax(logits, 2)[:, :, 1])
        logits = F.interpolate(logits.flatten(0, 1), scale_factor=4, mode="bilinear", align_corners=False)
        own = torch.softmax(logits, 1)[:, 1].view(b, o, *logits.shape[-2:])
        aggregated = aggregate_logits(own)
        return Decoded(aggregated, coarse=coarse)

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
        """See VOSModel.encode_mask; key and value both depend on the mask."""
        f16 = self.Encoder_M(image, masks)
        key, value = per_object(self.KV_M_r4.Key, f16), per_object(self.KV_M_r4.Value, f16)
        return Memorised((MemoryElements(key.float(), value.float()),))

    def aggregate(self, masks: Tensor) -> Tensor:
        """See VOSModel.aggregate (supplement, "soft aggregation")."""
        return torch.softmax(aggregate_logits(masks), 1)
