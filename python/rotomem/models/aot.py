"""AOT, AOST and AOTv2: all objects of a frame in one pass, told apart by an embedding of their identities
(Yang, Wei, Yang: "Associating Objects with Transformers for Video Object Segmentation", 2021, and its scalable
successor), in the published checkpoints' parameter names.

The network keeps nothing: `LayerMemory` holds what each of its blocks remembers, and goes in and comes out.

    features = model.encode_frame(image)
    memory   = model.remember_reference(features, labels)          # a frame whose labels are known
    logits, seen = model.segment(features, memory, objects=2)      # another frame
    memory   = model.remember(seen, labels, memory, long_term=True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.errors import ShapeError, UsageError
from rotomem.models.layers.framing import IMAGENET_MEAN, IMAGENET_STD, ResizeToGrid
from rotomem.models.layers.lstt import LSTTBlock, MemoryLookup, Tokens, sine_positions
from rotomem.models.layers.mobilenet import MobileNetV2
from rotomem.models.layers.norm import as_map, as_tokens, freeze_norms
from rotomem.models.layers.resnet import Bottleneck, make_stage
from rotomem.models.layers.swin import Swin

Encoder = Literal["mobilenetv2", "resnet50", "resnet101", "swin_base"]


@dataclass(frozen=True)
class AOTConfig:
    """Which member of the family; `from_state_dict` reads all of it from published keys but the memory schedule.

    layers          LSTT blocks; of AOST, the most that can run
    gated           the block of AOTv2 and AOST (see LSTTBlock), with a norm on the identity embedding
    scalable        the decoder has an entrance for every depth, so fewer layers can run (AOST)
    shared          one block's weights serve all layers
    intermediate    the decoder sees the frame and every layer's output; else the last layer's alone
    memory_every    frames between two that long-term memory keeps; None: only frames with a given mask
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

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], *, memory_every: int | None = 5) -> AOTConfig:
        """Raises KeyError naming the first key that tells and is not there."""
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
            memory_every=memory_every,
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


@dataclass(frozen=True)
class LayerMemory:
    """What the blocks remember, layer by layer; immutable, so a step back is keeping the old one.

    long        tokens [B, N, C] of each layer's remembered frames, newest first
    short       tokens [B, y*x, C] of the frame each layer saw last
    reference   for each layer and frame in `long`, whether its labels were given: these are never let go
    """

    long: tuple[Tokens, ...]
    short: tuple[Tokens, ...]
    reference: tuple[tuple[bool, ...], ...] = field(default=())

    @property
    def frames(self) -> int:
        """Frames in the first layer's long-term memory."""
        return len(self.reference[0])

    def bounded(self, most: int) -> LayerMemory:
        """At most `most` frames in the long-term memory of each layer: reference frames and the newest others.

        Reference frames stay even where there are more of them.
        """
        long, reference = [], []
        for tokens, given, short in zip(self.long, self.reference, self.short, strict=True):
            spare = max(0, most - sum(given))
            keep = []
            for is_reference in given:
                spare -= not is_reference
                keep.append(is_reference or spare >= 0)
            if not all(keep):
                n = short.key.shape[1]
                rows = torch.tensor(keep, device=tokens.key.device).repeat_interleave(n)
                tokens = Tokens(tokens.key[:, rows], tokens.value[:, rows])
                given = tuple(g for g, k in zip(given, keep, strict=True) if k)
            long.append(tokens)
            reference.append(given)
        return LayerMemory(tuple(long), self.short, tuple(reference))


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


class AOT(nn.Module):
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
        self._depth = config.layers
        self.framing = ResizeToGrid(16, offset=1 if config.align_corners else 0)
        self.register_buffer("_mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    @property
    def depth(self) -> int:
        """Layers that run."""
        return self._depth

    @depth.setter
    def depth(self, depth: int) -> None:
        """Raises UsageError for a depth that the weights do not allow."""
        allowed = range(1, self.config.layers + 1) if self.config.scalable else [self.config.layers]
        if depth not in allowed:
            raise UsageError(
                f"depth is {depth}", remedy="this model runs at depth " + ", ".join(str(d) for d in allowed)
            )
        self._depth = depth

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

    def embed_identities(self, labels: Tensor) -> Tensor:
        """labels [B, h, w] integers, 0 the background, at most `config.identities`; returns tokens [B, y*x, C].

        Raises ShapeError for a label that has no identity.
        """
        if labels.numel() and int(labels.max()) > self.config.identities:
            raise ShapeError(
                f"a label is {int(labels.max())}, one pass tells {self.config.identities} objects apart",
                remedy="split the objects into several passes",
            )
        one_hot = F.one_hot(labels.long(), self.config.identities + 1).permute(0, 3, 1, 2)
        tokens = as_tokens(self.patch_wise_id_bank(one_hot.to(self.patch_wise_id_bank.weight.dtype)))
        return tokens if self.id_norm is None else self.id_norm(tokens)

    def match_reference(self, features: AOTFeatures, labels: Tensor) -> tuple[Seen, tuple[Tokens, ...]]:
        """A frame whose labels [B, h, w] are known, matched with itself: all layers, whatever the depth.

        returns   what they saw, and a layer's memory of the frame
        """
        identity = self.embed_identities(labels)
        memory: list[Tokens] = []

        def itself(block: LSTTBlock, own: Tokens) -> tuple[Tokens, Tokens]:
            memory.append(block.remember(own, identity))
            return memory[-1], memory[-1]

        return self._run(features, itself, self.config.layers), tuple(memory)

    def remember_reference(
        self, features: AOTFeatures, labels: Tensor, memory: LayerMemory | None = None
    ) -> LayerMemory:
        """Memory with a frame whose labels [B, h, w] are given: a first one, a correction, or new objects.

        The labels must speak for every object of the pass, those seen before included.
        """
        _, tokens = self.match_reference(features, labels)
        if memory is None:
            return LayerMemory(tokens, tokens, ((True,),) * len(tokens))
        long = tuple(new.joined(old) for new, old in zip(tokens, memory.long, strict=True))
        return LayerMemory(long, tokens, tuple((True, *given) for given in memory.reference))

    def match(self, features: AOTFeatures, memory: LayerMemory) -> Seen:
        """A frame matched with what is remembered, by the first `depth` layers."""
        stored = iter(zip(memory.long, memory.short, strict=True))
        return self._run(features, lambda block, own: next(stored), self.depth)

    def _run(self, features: AOTFeatures, memories: MemoryLookup, layers: int) -> Seen:
        y, x = features.projected.shape[-2:]
        tokens = as_tokens(features.projected)
        outputs, kept = [], []
        for layer in range(layers):
            tokens, own = self.LSTT.block(layer)(tokens, features.positions, memories, y, x)
            norm = self.LSTT.norm(layer, self.depth)
            outputs.append(as_map(tokens if norm is None else norm(tokens), y, x))
            kept.append(own)
        return Seen(tuple(outputs), tuple(kept))

    def decode(self, features: AOTFeatures, seen: Seen, *, objects: int) -> Tensor:
        """Logits [B, identities+1, h/4, w/4], background first; those of identities above `objects` are -1e10.

        The published AOST inference leaves unused identities in the race, so pixels can go to objects that do not
        exist; here they never do.
        """
        outputs = seen.outputs[: self.depth]
        x = torch.cat([features.projected, *outputs], 1) if self.config.intermediate else outputs[-1]
        logits = self.decoder(x, features, self.depth).float()
        logits[:, objects + 1 :] = -1e10
        return logits

    def segment(self, features: AOTFeatures, memory: LayerMemory, *, objects: int) -> tuple[Tensor, Seen]:
        """`match`, then `decode`: logits [B, identities+1, h/4, w/4], and what `remember` wants back."""
        seen = self.match(features, memory)
        return self.decode(features, seen, objects=objects), seen

    def remember(self, seen: Seen, labels: Tensor, memory: LayerMemory, *, long_term: bool) -> LayerMemory:
        """Memory after a frame that was segmented as labels [B, h, w]: its short-term part, and its long-term one.

        Layers beyond those that ran stay as they are.
        """
        identity = self.embed_identities(labels)
        long, short, reference = list(memory.long), list(memory.short), list(memory.reference)
        for layer, own in enumerate(seen.own):
            short[layer] = self.LSTT.block(layer).remember(own, identity)
            if long_term:
                long[layer] = short[layer].joined(long[layer])
                reference[layer] = (False, *reference[layer])
        return LayerMemory(tuple(long), tuple(short), tuple(reference))

    def resize_logits(self, logits: Tensor, height: int, width: int) -> Tensor:
        """[B, C, h/4, w/4] to [B, C, height, width], as the published code brings logits to the picture."""
        size = (height, width)
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=self.config.align_corners)


def split_labels(labels: Tensor, identities: int) -> list[Tensor]:
    """Labels [B, h, w] of any number of objects as those of each pass: 1..identities, objects of others are 0.

    Pass i speaks for the labels i*identities+1 to (i+1)*identities; there is one pass where there is no object.
    """
    most = int(labels.max()) if labels.numel() else 0
    passes = []
    for first in range(0, max(most, 1), identities):
        own = (labels > first) & (labels <= first + identities)
        passes.append(torch.where(own, labels - first, 0))
    return passes


def join_passes(logits: Sequence[Tensor], objects: Sequence[int]) -> Tensor:
    """Logits of several passes [B, identities+1, h, w] as one [B, O+1, h, w], background first.

    objects   in each pass; O is their sum

    The background is what every pass calls background: q_0 = prod_i p_i0; the objects keep their p, and the logits
    are log(q / (1 - q)) with q held inside [1e-5, 1 - 1e-5]. A single pass goes through as it is.
    """
    if len(logits) == 1:
        return logits[0][:, : objects[0] + 1]
    each = [x.float().softmax(1) for x in logits]
    background = torch.stack([p[:, :1] for p in each]).prod(0)
    own = [p[:, 1 : n + 1] for p, n in zip(each, objects, strict=True)]
    return torch.logit(torch.cat([background, *own], 1).clamp(1e-5, 1 - 1e-5))
