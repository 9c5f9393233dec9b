"""STReMN (Nguyen, Kim and Li 2022): STM with a memory of a few slots and a learned choice of what to let go.

Section and equation numbers are those of "Space Time Recurrent Memory Network". Its authors published neither code
nor weights, so this file is a definition. Where the paper leaves a choice open:

- Encoders and decoder are STM's with group norms (section 4.1.1). Section 3.3 has a decoder without highway
  connections; that is `skips=False`.
- The template that is compared and stored is what the memory encoder makes of frame and mask (section 3.1). Eq. 4
  mixes features; here it mixes their keys, values and update keys, which is the same, as each is one convolution.
- One frame fills one slot for all objects: eq. 1 is averaged over the objects that have seen a slot.
- Scores of eq. 5 are divided by sqrt(CK), as in STM's code; a key convolution takes up any such factor.
- The details of the post-processing are not published; `drop_far` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.errors import UsageError
from rotomem.models.interface import (
    Decoded,
    HeldFrame,
    Memorised,
    MemoryElements,
    MemoryPlan,
    MemoryReader,
    Query,
    VOSModel,
)
from rotomem.models.layers.aggregate import aggregate_logits
from rotomem.models.layers.aspp import ASPP
from rotomem.models.layers.blocks import ResBlock, per_object
from rotomem.models.layers.convolution import apart, convolve_both, merged
from rotomem.models.layers.encoders import stage_depth
from rotomem.models.layers.framing import PadToStride
from rotomem.models.layers.norm import group_norms
from rotomem.models.layers.resnet import out_widths
from rotomem.models.layers.slots import (
    POLICIES,
    Policy,
    SlotSettings,
    choose_slot,
    slot_settings,
    update_keys,
)
from rotomem.models.stm import FrameFeatures, KeyValue, MemoryEncoder, QueryEncoder, Refine, STMConfig


@dataclass(frozen=True)
class STReMNConfig(STMConfig):
    """Widths of the network, and how its memory behaves; the defaults are the published ones.

    update_dim   channels of the update keys (section 3.2)
    skips        the decoder sees the frame at strides 8 and 4 as STM's does; False: through the memory only
    slots        frames in memory: the annotated one, the latest, and those between (table 2: 6 is best)
    policy       how the frame that is let go is chosen; all but "learned" are the ablation's rules A to F
    seed         of the rules that draw lots
    reach        how far from an object's place on the frame before it may newly show up, as a share of the shorter
                 side; what lies farther away is dropped as a false positive. None: nothing is dropped
    """

    update_dim: int = 128
    skips: bool = True
    slots: int = 6
    policy: Policy = "learned"
    seed: int = 0
    reach: float | None = 0.25

    def __post_init__(self) -> None:
        if self.slots < 2:
            raise UsageError(f"slots is {self.slots}", remedy="give 2 or more: the annotated frame and the latest")
        if self.policy not in POLICIES:
            raise UsageError(f"policy is {self.policy!r}", remedy="use " + ", ".join(POLICIES))
        if self.reach is not None and not self.reach > 0:
            raise UsageError(f"reach is {self.reach}", remedy="give a share of the picture above 0, or None")

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> STReMNConfig:
        """Widths as a checkpoint's shapes tell them, and its memory as `SlotSettings` wrote it.

        Raises KeyError or ValueError where it is not one of STReMN.
        """

        def rows(key: str) -> int:
            return state_dict[key].shape[0]

        stages = tuple(f"query_encoder.res{i}." for i in (2, 3, 4))
        return cls(
            block="bottleneck" if "query_encoder.res2.0.conv3.weight" in state_dict else "basic",
            stem=rows("query_encoder.conv1.weight"),
            planes=cast("tuple[int, int, int]", tuple(rows(f"{s}0.conv1.weight") for s in stages)),
            depths=cast("tuple[int, int, int]", tuple(stage_depth(state_dict, s) for s in stages)),
            key_dim=rows("query_kv.Key.weight"),
            value_dim=rows("query_kv.Value.weight"),
            decoder_dim=rows("decoder.convFM.weight"),
            update_dim=rows("update_memory.weight"),
            skips="decoder.RF3.convFS.weight" in state_dict,
            **slot_settings(state_dict),
        )


class Grow(nn.Module):
    """Twice the raster, and nothing of the frame (section 3.3, "without highway connections")."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ResMM = ResBlock(dim, dim)

    def forward(self, skip: Tensor, g: Tensor) -> Tensor:
        """g [B, O, C, y, x]; returns [B, O, C, 2y, 2x]; `skip` stands where `Refine` has its own."""
        up = F.interpolate(merged(g), scale_factor=2, mode="bilinear", align_corners=False)
        return apart(self.ResMM(up), g.shape[1])


class Decoder(nn.Module):
    """Readout and the frame's value (eq. 5) to two logits per object at stride 4: STM's, with ASPP at stride 16."""

    def __init__(self, config: STReMNConfig) -> None:
        super().__init__()
        w4, w8, _ = out_widths(config.block, config.planes)
        dim = config.decoder_dim
        self.convFM = nn.Conv2d(2 * config.value_dim, dim, 3, padding=1)
        self.ResMM = ResBlock(dim, dim)
        self.aspp = ASPP(dim)
        self.RF3 = Refine(w8, dim) if config.skips else Grow(dim)
        self.RF2 = Refine(w4, dim) if config.skips else Grow(dim)
        self.pred2 = nn.Conv2d(dim, 2, 3, padding=1)

    def forward(self, features: FrameFeatures, readout: Tensor) -> Tensor:
        """Logits [B, O, 2, h/4, w/4]: not the object, the object."""
        o = readout.shape[1]
        m = convolve_both(self.convFM, features.value, merged(readout), o, objects_first=True)
        m = apart(self.aspp(self.ResMM(m)), o)
        m = self.RF2(features.f4, self.RF3(features.f8, m))
        return per_object(self.pred2, F.relu(m))


class STReMN(SlotSettings, VOSModel):
    """The network of STReMN. Its memory holds `config.slots` frames, whatever the length of the shot."""

    def __init__(self, config: STReMNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or STReMNConfig()
        f16_dim = out_widths(config.block, config.planes)[2]
        self.query_encoder = group_norms(QueryEncoder(config))
        self.memory_encoder = group_norms(MemoryEncoder(config))
        self.query_kv = KeyValue(f16_dim, config.key_dim, config.value_dim)
        self.memory_kv = KeyValue(f16_dim, config.key_dim, config.value_dim)
        self.update_query = nn.Conv2d(f16_dim, config.update_dim, 3, padding=1)
        self.update_memory = nn.Conv2d(f16_dim, config.update_dim, 3, padding=1)
        self.decoder = Decoder(config)
        self.framing = PadToStride(16, (0.0, 0.0, 0.0))
        self.plan = MemoryPlan(
            key_dim=config.key_dim,
            value_dim=config.value_dim,
            similarity="dot",
            top_k=None,
            keys_per_object=True,
            latest_frame=True,
            short_term=config.reach is not None,
            clear_padding=True,
            slots=2 if config.policy == "first_and_last" else config.slots,
            memory_every=1,
        )

    def encode_frame(self, image: Tensor) -> FrameFeatures:
        """image [B, 3, h, w] 0..1, h and w multiples of 16."""
        f16, f8, f4 = self.query_encoder(image)
        return FrameFeatures(self.query_kv.Key(f16).float(), self.query_kv.Value(f16), f8, f4)

    def decode(
        self,
        features: FrameFeatures,
        memory: MemoryReader,
        sensory: Tensor | None,
        *,
        update_sensory: bool = True,
    ) -> Decoded:
        """See VOSModel.decode. False positives far away are dropped at test only (section 4.1.1)."""
        readout = memory.read(Query(features.key))
        logits = self.decoder(features, readout.to(features.f4.dtype)).float()
        b, o = logits.shape[:2]
        coarse = aggregate_logits(torch.softmax(logits, 2)[:, :, 1])
        logits = F.interpolate(logits.flatten(0, 1), scale_factor=4, mode="bilinear", align_corners=False)
        own = torch.softmax(logits, 1)[:, 1].view(b, o, *logits.shape[-2:])
        if not self.training and self.config.reach is not None:
            before = memory.latest().extra
            assert before is not None
            far = far_regions(torch.softmax(aggregate_logits(own), 1), before[:, :, -1], self.config.reach)
            own = own * (1 - F.interpolate(far, size=own.shape[-2:], mode="nearest"))
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
        """See VOSModel.encode_mask. `extra` is `update_keys`, with the greatest mask value of every position."""
        f16 = self.memory_encoder(image, masks)
        key, value = per_object(self.memory_kv.Key, f16), per_object(self.memory_kv.Value, f16)
        if self.config.policy == "most_similar":  # nothing learned: the keys of eq. 5 say what looks alike
            asking = found = key
        else:
            asking, found = per_object(self.update_query, f16), per_object(self.update_memory, f16)
        place = F.max_pool2d(masks.detach(), self.plan.stride)[:, :, None]
        extra = update_keys(asking, found, place)
        return Memorised((MemoryElements(key.float(), value.float(), extra=extra),))

    def choose_slot(self, arriving: MemoryElements, step: int, held: Sequence[HeldFrame]) -> int:
        """See VOSModel.choose_slot: learned (section 3.2), or a rule of the ablation."""
        return choose_slot(self.config.policy, self.config.seed, arriving, step, held)

    def aggregate(self, masks: Tensor) -> Tensor:
        """See VOSModel.aggregate; STM's soft aggregation."""
        return torch.softmax(aggregate_logits(masks), 1)


def far_regions(probabilities: Tensor, before: Tensor, reach: float) -> Tensor:
    """Where an object newly shows up far from its place on the frame before (section 4.1.1, "post-processing").

    Regions are those of the grid's cells that hold a pixel of the object, cells that touch at a corner joined. A
    region is near where one of its cells lies within `reach` of a cell that held the object; an object without a
    near region is left alone, as is one that was nowhere: it has jumped, or comes back.

    probabilities   [B, O+1, h, w], background first
    before          [B, O, y, x] greatest mask value of every cell on the frame before
    reach           share of the shorter side
    returns         [B, O, y, x] 1 in cells of what is far and of its soft rim, else 0
    """
    y, x = before.shape[-2:]
    stride = probabilities.shape[-2] // y
    label = probabilities.argmax(1, keepdim=True)
    rows = torch.arange(1, probabilities.shape[1], device=label.device).view(1, -1, 1, 1)
    now = F.max_pool2d((label == rows).float(), stride)
    near = now * _dilated((before > 0.5).float(), max(1, round(reach * min(y, x))))
    while True:
        grown = near
        for _ in range(8):  # a question to the device costs more than a few needless steps
            grown = now * _dilated(grown, 1)
        if torch.equal(grown, near):
            break
        near = grown
    found = near.amax((2, 3), keepdim=True)
    return _dilated(now - near, 1) * (1 - _dilated(near, 1)) * found


def _dilated(cells: Tensor, radius: int) -> Tensor:
    return F.max_pool2d(cells, 2 * radius + 1, 1, radius)
