"""AOT, AOST and AOTv2: all objects of a frame in one pass, told apart by an embedding of their identities
(Yang, Wei, Yang: "Associating Objects with Transformers for Video Object Segmentation", 2021, and its scalable
successor), in the published checkpoints' parameter names.

A batch is the passes over one frame: each holds up to `identities` objects of its own, and shares the features. Every
LSTT block has a memory of its own. The published AOST inference leaves unused identities in the race, so that
pixels can go to objects that do not exist; here the engine takes the logits of those that do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.errors import ShapeError
from rotomem.models.interface import Decoded, Memorised, MemoryElements, MemoryPlan, MemoryReader, Query, VOSModel
from rotomem.models.layers.framing import IMAGENET_MEAN, IMAGENET_STD, ResizeToGrid
from rotomem.models.layers.lstt import LSTTBlock, MemoryLookup, Tokens, attend, sine_positions
from rotomem.models.layers.mobilenet import MobileNetV2
from rotomem.models.layers.norm import as_map, as_tokens, freeze_norms
from rotomem.models.layers.resnet import Bottleneck, make_stage
from rotomem.models.layers.swin import Swin

Encoder = Literal["mobilenetv2", "resnet50", "resnet101", "swin_base"]


@dataclass(frozen=True)
class AOTConfig:
    """Which member of the family; `from_state_dict` reads it from published keys.

    layers          LSTT blocks; of AOST, the most that can run
    gated           the block of AOTv2 and AOST (see LSTTBlock), with a norm on the identity embedding
    scalable        the decoder has an entrance for every depth, so fewer layers can run (AOST)
    shared          one block's weights serve all layers
    intermediate    the decoder sees the frame and every layer's output; else the last layer's alone
    memory_every    frames between two that long-term memory keeps; None: only frames with a given mask
    objects_per_pass   most objects given to one pass; None: as many as there are identities
    """

    encoder: Encoder = "mobilenetv2"
    layers: int = 3
    gated: bool = False
    scalable: bool = False
    shared: bool = False
    intermediate: bool = True
    memory_every: int | None = 5
    width: int = 256
    heads: int = 8
    hidden: int = 1024
    identities: int = 10
    objects_per_pass: int | None = None

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> AOTConfig:
        """Raises KeyError naming the first key that tells and is not there.

        As published, models of one and two layers (T, S) keep given frames only, those of three (L) every fifth one
        too. B, which keeps given frames only, cannot be told from L: say memory_every=None for it.
        """
        encoder: Encoder
        if "encoder.features.0.0.weight" in state:
            encoder = "mobilenetv2"
        elif "encoder.patch_embed.proj.weight" in state:
            encoder = "swin_base"
        else:
            encoder = "resnet101" if "encoder.layer3.22.conv1.weight" in state else "resnet50"
        bank = state["patch_wise_id_bank.weight"]
        shared = "LSTT.layer.norm1.weight" in state
        scalable = "decoder.conv_in.0.conv.weight" in state
        first = "LSTT.layer." if shared else "LSTT.layers.0."
        counted = "decoder.conv_in.{}.conv.weight" if shared else "LSTT.layers.{}.norm1.weight"
        layers = 0
        while counted.format(layers) in state:
            layers += 1
        entrance = state["decoder.conv_in.0.conv.weight" if scalable else "decoder.conv_in.conv.weight"]
        return cls(
            encoder=encoder,
            layers=layers,
            gated=f"{first}linear_QV.weight" in state,
            scalable=scalable,
            shared=shared,
            intermediate=entrance.shape[1] != bank.shape[0],
            memory_every=5 if scalable or layers > 2 else None,
            width=bank.shape[0],
            heads=state[f"{first}short_term_attn.relative_emb_v"].shape[0],
            hidden=state[f"{first}linear1.weight"].shape[0],
            identities=bank.shape[1] - 1,
        )

    @property
    def align_corners(self) -> bool:
        """Whether pictures are 16k+1 with a position on every corner, or 16k with patches side by side (Swin)."""
        return self.encoder != "swin_base"


class ResNet(nn.Module):
    """ResNet-50 or -101 to stride 16; the last features stand once more at the end."""

    widths = (256, 512, 1024, 1024)
    norm_of = MappingProxyType({"conv1": "bn1"})

    def __init__(self, depths: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = make_stage(Bottleneck, 64, 64, depths[0], 1)
        self.layer2 = make_stage(Bottleneck, 256, 128, depths[1], 2)
        self.layer3 = make_stage(Bottleneck, 512, 256, depths[2], 2)
        freeze_norms(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        f4 = self.layer1(x)
        f8 = self.layer2(f4)
        f16 = self.layer3(f8)
        return f4, f8, f16, f16


def _encoder(name: Encoder) -> MobileNetV2 | ResNet | Swin:
    if name == "mobilenetv2":
        return MobileNetV2()
    if name == "swin_base":
        return Swin()
    return ResNet((3, 4, 6) if name == "resnet50" else (3, 4, 23))


@dataclass(frozen=True)
class AOTFeatures:
    """One frame, computed once however many objects there are.

    f4, f8, f16   [B, C, ...] at 1/4, 1/8, 1/16 for the decoder
    projected     [B, width, y, x] what the LSTT starts from
    positions     [1, y*x, width]
    """

    f4: Tensor
    f8: Tensor
    f16: Tensor
    projected: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Seen:
    """What the layers made of one frame, before its labels are known.

    outputs   [B, width, y, x] a layer, as the decoder takes them
    own       key and value a layer, without identity
    """

    outputs: tuple[Tensor, ...]
    own: tuple[Tokens, ...]


class LSTT(nn.Module):
    """The stack of blocks and the norms between it and the decoder."""

    def __init__(self, config: AOTConfig) -> None:
        super().__init__()
        self.config = config

        def block() -> LSTTBlock:
            return LSTTBlock(config.width, config.heads, config.hidden, gated=config.gated)

        if config.shared:
            self.layer = block()
            self.decoder_norm = nn.LayerNorm(config.width)
        else:
            self.layers = nn.ModuleList(block() for _ in range(config.layers))
            norms = config.layers if config.intermediate else 1
            self.decoder_norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(norms))
        if not config.gated:
            # Stands in every published AOT checkpoint; nothing reads it.
            self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width), requires_grad=False)

    def block(self, layer: int) -> LSTTBlock:
        """The block that runs as layer `layer`."""
        return self.layer if self.config.shared else cast(LSTTBlock, self.layers[layer])

    def norm(self, layer: int, depth: int) -> nn.Module | None:
        """The norm between layer `layer` of `depth` and the decoder; None where the output goes as it is."""
        if self.config.intermediate:
            return self.decoder_norms[layer]
        if layer < depth - 1:
            return None
        return self.decoder_norm if self.config.shared else self.decoder_norms[0]


class _ConvGN(nn.Module):
    def __init__(self, in_dim: int, out_dim: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, out_dim, kernel, padding=kernel // 2)
        self.gn = nn.GroupNorm(8, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.gn(self.conv(x)))


class FPN(nn.Module):
    """Layer outputs to logits at a quarter of the picture, the frame's finer features added on the way."""

    def __init__(self, config: AOTConfig, widths: Sequence[int]) -> None:
        super().__init__()
        self.align_corners = config.align_corners
        width, half = config.width, config.width // 2
        depths = range(1, config.layers + 1) if config.scalable else [config.layers]
        entrances = [_ConvGN(width * (d + 1 if config.intermediate else 1), width, 1) for d in depths]
        self.conv_in = nn.ModuleList(entrances) if config.scalable else entrances[0]
        self.conv_16x = _ConvGN(width, width, 3)
        self.conv_8x = _ConvGN(width, half, 3)
        self.conv_4x = _ConvGN(half, half, 3)
        self.adapter_16x = nn.Conv2d(widths[2], width, 1)
        self.adapter_8x = nn.Conv2d(widths[1], width, 1)
        self.adapter_4x = nn.Conv2d(widths[0], half, 1)
        self.conv_out = nn.Conv2d(half, config.identities + 1, 1)

    def forward(self, x: Tensor, features: AOTFeatures, depth: int) -> Tensor:
        enter = self.conv_in[depth - 1] if isinstance(self.conv_in, nn.ModuleList) else self.conv_in
        x = self.conv_16x(self.adapter_16x(features.f16) + enter(x))
        for adapter, conv, skip in (
            (self.adapter_8x, self.conv_8x, features.f8),
            (self.adapter_4x, self.conv_4x, features.f4),
        ):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=self.align_corners)
            x = conv(adapter(skip) + x)
        logits: Tensor = self.conv_out(x)
        return logits


class AOT(VOSModel):
    """The network of AOT, AOST and AOTv2.

    Of a scalable model (AOST) `depth` says how many layers run, and may change between any two frames: layers beyond
    it keep what they last remembered, so a deeper one that wakes up matches with the last frame it saw.
    """

    def __init__(self, config: AOTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AOTConfig()
        self.encoder = _encoder(config.encoder)
        widths = self.encoder.widths
        self.encoder_projector = nn.Conv2d(widths[3], config.width, 1)
        kernel, padding = (17, 8) if config.align_corners else (16, 0)
        self.patch_wise_id_bank = nn.Conv2d(config.identities + 1, config.width, kernel, 16, padding)
        self.id_norm = nn.LayerNorm(config.width) if config.gated else None
        self.LSTT = LSTT(config)
        self.decoder = FPN(config, widths)
        self.depths = tuple(range(1, config.layers + 1)) if config.scalable else (config.layers,)
        self.depth = config.layers
        self.framing = ResizeToGrid(16, offset=1 if config.align_corners else 0)
        self.plan = MemoryPlan(
            key_dim=config.width,
            value_dim=config.width,
            similarity="dot",
            top_k=None,
            layers=config.layers,
            heads=config.heads,
            keys_per_object=True,
            feedback="labels",
            objects_per_pass=min(config.objects_per_pass or config.identities, config.identities),
            short_term=True,
            memory_every=config.memory_every,
        )
        self.register_buffer("_mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def encode_frame(self, image: Tensor) -> AOTFeatures:
        """image [B, 3, h, w] 0..1; h and w are 16k+1, or 16k where the encoder is Swin.

        Raises ShapeError for other sizes: predictions would not lie on the picture.
        """
        extra = 1 if self.config.align_corners else 0
        h, w = image.shape[-2:]
        if h % 16 != extra or w % 16 != extra or min(h, w) < 16:
            raise ShapeError(
                f"image is {w}x{h}",
                remedy="resize both sides to 16k" + ("+1" if extra else "") + " with the model's framing",
            )
        f4, f8, f16, last = self.encoder((image - cast(Tensor, self._mean)) / cast(Tensor, self._std))
        projected = self.encoder_projector(last)
        positions = sine_positions(projected.shape[2], projected.shape[3], self.config.width, like=projected)
        return AOTFeatures(f4, f8, f16, projected, positions)

    def fine_features(self, features: AOTFeatures) -> Tensor:
        """See VOSModel.fine_features."""
        return features.f4

    def decode(
        self,
        features: AOTFeatures,
        memory: MemoryReader,
        sensory: Tensor | None,
        *,
        update_sensory: bool = True,
    ) -> Decoded:
        """See VOSModel.decode; logits [B, identities+1, h/4, w/4], background first."""
        seen = self.match(features, memory)
        logits = self.decode_logits(features, seen)
        return Decoded(logits, state=seen, coarse=logits)

    def encode_mask(
        self,
        image: Tensor,
        features: AOTFeatures,
        masks: Tensor,
        sensory: Tensor | None,
        *,
        seen: Decoded | None = None,
        drawn: bool = False,
        deep_update: bool = False,
    ) -> Memorised:
        """See VOSModel.encode_mask; masks [B, identities, h, w] are 0 or 1 and do not overlap.

        A frame that was drawn on is matched with itself, by all layers whatever the depth. Of any other what its
        layers made while decoding is kept, told who is where; layers that did not run leave nothing.
        """
        identity = self.embed_identities(masks)
        if drawn or seen is None:
            kept = self.match_reference(features, identity)[1]
        else:
            own = cast(Seen, seen.state).own
            kept = tuple(self.LSTT.block(layer).remember(tokens, identity) for layer, tokens in enumerate(own))
        y, x = features.projected.shape[-2:]
        return Memorised(
            tuple(MemoryElements(as_map(t.key, y, x).float(), as_map(t.value, y, x).float()[:, None]) for t in kept)
        )

    def aggregate(self, masks: Tensor) -> Tensor:
        """See VOSModel.aggregate: coverage as it is, what is left over is background."""
        masks = masks.float()
        both = torch.cat([(1 - masks.sum(1, keepdim=True)).clamp(min=0), masks], 1)
        return both / both.sum(1, keepdim=True)

    def embed_identities(self, masks: Tensor) -> Tensor:
        """masks [B, I, h, w] of the first I identities as tokens [B, y*x, C]; where none is, there is background.

        Raises ShapeError for more masks than identities.
        """
        unused = self.config.identities - masks.shape[1]
        if unused < 0:
            raise ShapeError(
                f"masks hold {masks.shape[1]} objects, one pass tells {self.config.identities} apart",
                remedy="split the objects into several passes",
            )
        masks = masks.to(self.patch_wise_id_bank.weight.dtype)
        background = 1 - masks.sum(1, keepdim=True)
        one_hot = F.pad(torch.cat([background, masks], 1), (0, 0, 0, 0, 0, unused))
        tokens = as_tokens(self.patch_wise_id_bank(one_hot))
        return tokens if self.id_norm is None else self.id_norm(tokens)

    def match_reference(self, features: AOTFeatures, identity: Tensor) -> tuple[Seen, tuple[Tokens, ...]]:
        """A frame whose objects are known, matched with itself by all layers: what they saw, and what they keep.

        identity   [B, y*x, C] from `embed_identities`
        """
        kept: list[Tokens] = []

        def itself(layer: int, own: Tokens) -> tuple[Tensor, Tokens]:
            tokens = self.LSTT.block(layer).remember(own, identity)
            kept.append(tokens)
            return attend(own.key.expand_as(tokens.key), tokens.key, tokens.value, self.config.heads), tokens

        return self._run(features, itself, self.config.layers), tuple(kept)

    def match(self, features: AOTFeatures, memory: MemoryReader) -> Seen:
        """A frame matched with what is remembered, by the first `depth` layers."""
        y, x = features.projected.shape[-2:]

        def remembered(layer: int, own: Tokens) -> tuple[Tensor, Tokens]:
            readout = memory.read(Query(as_map(own.key, y, x).float()), layer=layer)[:, 0]
            last = memory.latest(layer=layer)
            tokens = Tokens(as_tokens(last.key), as_tokens(last.value[:, 0]))
            return as_tokens(readout).to(own.key.dtype), tokens

        return self._run(features, remembered, self.depth)

    def _run(self, features: AOTFeatures, lookup: MemoryLookup, layers: int) -> Seen:
        y, x = features.projected.shape[-2:]
        tokens = as_tokens(features.projected)
        outputs, kept = [], []
        for layer in range(layers):
            tokens, own = self.LSTT.block(layer)(tokens, features.positions, partial(lookup, layer), y, x)
            norm = self.LSTT.norm(layer, self.depth)
            outputs.append(as_map(tokens if norm is None else norm(tokens), y, x))
            kept.append(own)
        return Seen(tuple(outputs), tuple(kept))

    def decode_logits(self, features: AOTFeatures, seen: Seen) -> Tensor:
        """Logits [B, identities+1, h/4, w/4] float32, background first."""
        outputs = seen.outputs[: self.depth]
        x = outputs[-1]
        if self.config.intermediate:
            x = torch.cat([features.projected.expand_as(x), *outputs], 1)
        logits: Tensor = self.decoder(x, features, self.depth)
        return logits.float()
