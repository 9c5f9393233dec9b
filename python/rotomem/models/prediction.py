"""Video prediction with the memory of STReMN: the next frame of a clip (Nguyen, Kim and Li 2022, section 4.2).

Three frames on top of one another carry appearance and motion. They are encoded once: there is no mask, so the same
features ask the memory and become its next template. Readout and the query's own value (eq. 5) are decoded into the
next frame. The decoder sees nothing else of the frames.

Told through that bottleneck alone, as published, what stands still is never quite what it was. So, unless the
configuration says otherwise, the decoder also tells where the frame is new; elsewhere the last one stays (as in Finn,
Goodfellow and Levine, NeurIPS 2016, section 3, "static background").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd, prod
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from rotomem.errors import CheckpointError, UsageError
from rotomem.models.interface import HeldFrame, MemoryElements, MemoryPlan, MemoryReader, Query
from rotomem.models.layers.slots import (
    POLICIES,
    Policy,
    SlotSettings,
    choose_slot,
    slot_settings,
    update_keys,
)
from rotomem.models.registry import load_strictly, pick_device, read_state_dict
from rotomem.models.stm import KeyValue

STACK = 3
"""Consecutive frames that are seen at once."""


@dataclass(frozen=True)
class PredictorConfig:
    """Widths of the network; six blocks either way, as published, which gives no widths.

    widths     channels that leave each block of the encoder; the decoder has them in reverse
    strides    of those blocks, 1 or 2; their product is the number of pixels between two positions of the memory
    blend      the last frame shows through where nothing new is told; False: every pixel is told, as published
    slots      frames in memory, the latest among them; the first has no slot of its own, as nobody drew it
    """

    widths: tuple[int, ...] = (64, 64, 128, 128, 256, 256)
    strides: tuple[int, ...] = (1, 2, 1, 2, 1, 2)
    key_dim: int = 64
    value_dim: int = 256
    update_dim: int = 64
    blend: bool = True
    slots: int = 5
    policy: Policy = "learned"
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.strides) or not self.widths or not set(self.strides) <= {1, 2}:
            raise UsageError(
                f"widths {self.widths} and strides {self.strides} are no encoder",
                remedy="give both for every block, strides 1 or 2",
            )
        if self.slots < 2 or self.policy not in POLICIES:
            raise UsageError(f"slots is {self.slots}, policy {self.policy!r}", remedy="see STReMNConfig")

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> PredictorConfig:
        """Widths as a checkpoint's shapes tell them, and its memory as `SlotSettings` wrote it.

        Raises KeyError or ValueError where it is not a predictor's.
        """
        blocks = 1 + max(int(k.split(".")[1]) for k in state_dict if k.startswith("encoder."))
        convs = [state_dict[f"encoder.{i}.0.weight"] for i in range(blocks)]
        return cls(
            widths=tuple(conv.shape[0] for conv in convs),
            # A block that halves the raster looks at 4 x 4 pixels, another one at 3 x 3.
            strides=tuple(2 if conv.shape[-1] == 4 else 1 for conv in convs),
            key_dim=state_dict["kv.Key.weight"].shape[0],
            value_dim=state_dict["kv.Value.weight"].shape[0],
            update_dim=state_dict["update_memory.weight"].shape[0],
            blend=state_dict["picture.weight"].shape[0] == 4,
            **{name: value for name, value in slot_settings(state_dict).items() if name != "reach"},
        )


@dataclass(frozen=True)
class StackFeatures:
    """What three frames ask with, and what they are remembered by.

    key [B, CK, y, x];  value [B, CV, y, x];  extra [B, 1, 2*CU + 1, y, x], see `update_keys`;  last [B, 3, h, w]
    """

    key: Tensor
    value: Tensor
    extra: Tensor
    last: Tensor

    @property
    def template(self) -> MemoryElements:
        """The same as a template of memory, one "object"."""
        return MemoryElements(self.key[:, None], self.value[:, None], extra=self.extra)


class FramePredictor(SlotSettings):
    """Three frames and a memory of what came before to the frame that comes next."""

    def __init__(self, config: PredictorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PredictorConfig()
        widths, strides = config.widths, config.strides
        inner = widths[-1]
        ins = (3 * STACK, *widths)
        self.encoder = nn.Sequential(*(_down(i, o, s) for i, o, s in zip(ins, widths, strides, strict=False)))
        self.kv = KeyValue(inner, config.key_dim, config.value_dim)
        self.update_query = nn.Conv2d(inner, config.update_dim, 3, padding=1)
        self.update_memory = nn.Conv2d(inner, config.update_dim, 3, padding=1)
        outs = (*widths[::-1][1:], widths[0])
        ins = (2 * config.value_dim, *outs)
        self.decoder = nn.Sequential(*(_up(i, o, s) for i, o, s in zip(ins, outs, strides[::-1], strict=False)))
        self.picture = nn.Conv2d(widths[0], 4 if config.blend else 3, 3, padding=1)
        if config.blend:
            nn.init.constant_(cast(Tensor, self.picture.bias)[3:], -2)  # to begin with, little is new
        self.plan = MemoryPlan(
            key_dim=config.key_dim,
            value_dim=config.value_dim,
            similarity="dot",
            top_k=None,
            keys_per_object=True,
            slots=2 if config.policy == "first_and_last" else config.slots,
            memory_every=1,
            stride=prod(strides),
        )

    def encode(self, frames: Sequence[Tensor]) -> StackFeatures:
        """STACK frames [B, 3, h, w] 0..1, oldest first; h and w multiples of `plan.stride`."""
        f = self.encoder(torch.cat(list(frames), 1) - 0.5)
        place = torch.zeros_like(f[:, None, :1])
        extra = update_keys(self.update_query(f)[:, None], self.update_memory(f)[:, None], place)
        return StackFeatures(self.kv.Key(f).float(), self.kv.Value(f).float(), extra, frames[-1])

    def decode(self, features: StackFeatures, memory: MemoryReader) -> Tensor:
        """The next frame [B, 3, h, w] float32, about 0..1, from what `memory` knows of earlier stacks (eq. 5)."""
        readout = memory.read(Query(features.key))[:, 0]
        y = torch.cat([readout, features.value], 1)
        told = self.picture(self.decoder(y)).float()
        if not self.config.blend:
            return told + 0.5
        return torch.lerp(features.last.float(), told[:, :3] + 0.5, torch.sigmoid(told[:, 3:]))

    def choose_slot(self, arriving: MemoryElements, step: int, held: Sequence[HeldFrame]) -> int:
        """As `VOSModel.choose_slot`."""
        return choose_slot(self.config.policy, self.config.seed, arriving, step, held)


def load_predictor(path: str | Path, *, device: str | torch.device = "auto") -> FramePredictor:
    """A trained predictor from a checkpoint file. Raises CheckpointError where it is none."""
    path = Path(path)
    state_dict = read_state_dict(path)
    try:
        model = FramePredictor(PredictorConfig.from_state_dict(state_dict))
    except (KeyError, ValueError):
        raise CheckpointError(
            "the weights are not a frame predictor's", remedy="train one: rotomem train prediction", path=path
        ) from None
    load_strictly(model, state_dict)
    return model.eval().to(pick_device(device))


def _down(in_dim: int, out_dim: int, stride: int) -> nn.Sequential:
    """Two convolutions, the first of which may halve the raster; norm and leaky ReLU after each."""
    first = nn.Conv2d(in_dim, out_dim, 4 if stride == 2 else 3, stride, 1)
    return _block(first, nn.Conv2d(out_dim, out_dim, 3, padding=1), out_dim)


def _up(in_dim: int, out_dim: int, stride: int) -> nn.Sequential:
    """Two transposed convolutions, the first of which may double the raster; norm and leaky ReLU after each."""
    first = nn.ConvTranspose2d(in_dim, out_dim, 4 if stride == 2 else 3, stride, 1)
    return _block(first, nn.ConvTranspose2d(out_dim, out_dim, 3, padding=1), out_dim)


def _block(first: nn.Module, second: nn.Module, width: int) -> nn.Sequential:
    # How bright a picture is as a whole outlives a norm only beside what does not scale with it, the biases of its
    # group. The narrower a group, the less is left of it: 16 channels.
    norms = [nn.GroupNorm(gcd(max(width // 16, 1), width), width) for _ in range(2)]
    return nn.Sequential(first, norms[0], nn.LeakyReLU(0.2), second, norms[1], nn.LeakyReLU(0.2))
