"""What the engine asks of a model, and what a model declares about itself.

The engine knows nothing of STM, STCN, XMem, AOT or STReMN. It runs, for every frame,

    features = model.encode_frame(image)
    decoded  = model.decode(features, memory, sensory)       # the model asks `memory` whenever it needs to
    memorised = model.encode_mask(image, features, masks, sensory, seen=decoded)    # on frames that are kept

and keeps the elements that `encode_mask` returns in a bank that follows `model.plan`. Because the model calls
`memory.read`, one read after the encoder (STM, STCN, XMem, STReMN) and one read inside each of several layers
(AOT's LSTT) are the same thing to the engine. Features are opaque to it.

How the five methods express themselves:

    ==========  ==================================================================================
    STM         layers=1, keys_per_object, similarity "dot", top_k None, latest_frame, clear_padding
    STCN        layers=1, similarity "l2", top_k 20
    XMem        layers=1, similarity "anisotropic_l2", top_k 30, sensory_dim 64, consolidates
    AOT         one layer per LSTT block, keys_per_object, "dot" with 8 heads, top_k None, short_term, feedback
                "labels", objects_per_pass 10, framing ResizeToGrid(16, offset=1); the keys and values its blocks
                made while decoding travel in `Decoded.state`
    STReMN      as STM, slots 6, memory_every 1; its learned update keys travel in `MemoryElements.extra`, and
                `choose_slot` says which frame a full memory lets go
    ==========  ==================================================================================

A model with identities (AOT) tells the objects of one pass apart by itself and keeps them all in one value map. In a
session its batch is the passes: masks [B, I, h, w] and logits [B, I+1, ...] have a row per identity, used or not,
values [B, 1, CV, y, x] and readouts have one row. Features and queries may have batch 1: the same for all passes.

Shapes: B batch, O objects, CK and CV channels, h w the network picture, y x the feature map (h/16, w/16).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

Similarity = Literal["dot", "l2", "anisotropic_l2"]


@dataclass(frozen=True)
class MemoryPlan:
    """What a model needs remembered, and how it wants to be asked.

    layers              number of separate memories; 1 but for AOT, which has one per block
    key_dim, value_dim  CK and CV
    similarity          how a query is compared with an element
    top_k               elements a query attends to; None is a full softmax
    keys_per_object     True where the key depends on the mask (STM; AOT, where it differs from pass to pass)
    sensory_dim         channels of the recurrent map per object; 0 where there is none
    feedback            what is memorised of a frame that was segmented: soft probabilities at the network's raster,
                        or masks of 0 and 1: the argmax at the picture's raster, framed
    latest_frame        True where the previous frame is always in memory, memorised or not
    short_term          True where the model asks for `MemoryReader.latest`: what the previous frame left is then kept
                        beside the memory, whether or not it is memorised
    placed_keys         True where a key says where in the picture it lies: then the picture may not become another
                        window of the plate between two frames
    memory_every        frames between two that are memorised, as published; None: only those the artist drew on
    clear_padding       True where masks are fed back without what the network saw in the padding around the picture
    slots               frames a memory of fixed size holds (STReMN), of which one is the frame the artist drew first;
                        frames drawn later have a slot of their own. None where memory grows
    consolidates        True where old elements can become long-term prototypes (needs shrinkage and selection)
    objects_per_pass    identities: most objects that one pass holds in one value map; None: a value map per object
    heads               attention heads that key and value are split into; needs keys_per_object
    stride              pixels of the network picture per element, along either axis
    """

    key_dim: int
    value_dim: int
    similarity: Similarity
    top_k: int | None
    layers: int = 1
    keys_per_object: bool = False
    sensory_dim: int = 0
    feedback: Literal["probabilities", "labels"] = "probabilities"
    latest_frame: bool = False
    short_term: bool = False
    placed_keys: bool = False
    memory_every: int | None = 5
    clear_padding: bool = False
    slots: int | None = None
    consolidates: bool = False
    objects_per_pass: int | None = None
    heads: int = 1
    stride: int = 16


@dataclass(frozen=True)
class Query:
    """What the positions of one frame ask of the memory.

    key         [B, CK, y, x]
    selection   [B, CK, y, x] in 0..1, or None for all ones
    """

    key: Tensor
    selection: Tensor | None = None


@dataclass(frozen=True)
class MemoryElements:
    """What one frame leaves in one layer's memory.

    key         [B, CK, y, x], or [B, O, CK, y, x] where the plan says keys_per_object
    value       [B, O, CV, y, x]
    shrinkage   [B, 1, y, x] or None
    selection   [B, CK, y, x] or None; kept for consolidation only
    extra       [B, O, C, y, x] or None; whatever else a model's memory decides by (STReMN's update keys)
    """

    key: Tensor
    value: Tensor
    shrinkage: Tensor | None = None
    selection: Tensor | None = None
    extra: Tensor | None = None


@dataclass(frozen=True)
class HeldFrame:
    """A frame in a memory of fixed size that may be let go.

    step     the step it was memorised on
    extra    [B, O, C, y, x] as `encode_mask` left it; rows of objects that appeared later hold zeros
    seen     [O] bool, objects that had appeared by then; at least one
    """

    step: int
    extra: Tensor | None
    seen: Tensor


class MemoryReader(Protocol):
    """The memory as a model sees it while it decodes one frame."""

    def read(self, query: Query, *, layer: int = 0) -> Tensor:
        """Readout [B, O, CV, y, x], a row per object."""
        ...

    def latest(self, *, layer: int = 0) -> MemoryElements:
        """What the previous frame left; only where the plan says short_term. Of a layer that did not run on it, what
        the last frame left on which it did.
        """
        ...


@dataclass(frozen=True)
class Decoded:
    """What the decoder says of one frame.

    logits          [B, O+1, h, w] float32, background first; what losses want. Where the plan says feedback "labels"
                    the raster is the decoder's own, and the engine enlarges them
    sensory         [B, O, CH, y, x], or None where the model has none or was asked not to update it
    state           what `encode_mask` of the same frame wants back; opaque to the engine
    coarse          [B, O+1, h/4, w/4] float32 logits as the decoder made them, before anything enlarged or refined
                    them; None where a model does not tell
    refined         [B, O+1, h, w] float32 logits of the matte that is delivered; None where `probabilities` are.
                    What is memorised are always `probabilities`
    """

    logits: Tensor
    sensory: Tensor | None = None
    state: Any = None
    coarse: Tensor | None = None
    refined: Tensor | None = None

    @cached_property
    def probabilities(self) -> Tensor:
        """[B, O+1, h, w] float32, summing to 1 over objects; computed when first asked for."""
        return self.logits.softmax(1)


@dataclass(frozen=True)
class Memorised:
    """What a frame with a mask leaves behind.

    elements    one a layer; of a model that ran fewer layers than it has, those of the first ones
    sensory     [B, O, CH, y, x] after the deep update, or None where it was not asked for
    """

    elements: tuple[MemoryElements, ...]
    sensory: Tensor | None = None


class Framing(Protocol):
    """How a picture of any size becomes one the network takes, and back."""

    def image(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] 0..1 to [B, 3, h, w] 0..1."""
        ...

    def mask(self, mask: Tensor) -> Tensor:
        """[B, O, H, W] to [B, O, h, w]."""
        ...

    def restore(self, probabilities: Tensor, height: int, width: int) -> Tensor:
        """[B, O, h, w] to [B, O, H, W]."""
        ...


class VOSModel(nn.Module, ABC):
    """A segmentation network with a memory outside of itself.

    plan      declared once; may not change while a session runs
    framing   how pictures are brought to the network's raster
    depths    numbers of layers it can run; empty where there are no layers to choose from
    depth     layers that it runs; may change between any two frames
    compute_dtype   type of the convolutions at inference; memory, masks and probabilities stay float32
    precise         submodules, by the beginning of their names, whose convolutions are float32 whatever
                    `compute_dtype` says
    name, weights_hash   what a matte's metadata says of its origin
    """

    plan: MemoryPlan
    framing: Framing
    depths: tuple[int, ...] = ()
    depth: int = 0
    compute_dtype: torch.dtype = torch.float32
    precise: tuple[str, ...] = ()
    name: str = "unnamed"
    weights_hash: str = ""

    @property
    def precision(self) -> str:
        """Types of the convolutions at inference, for reports: "float32", "bfloat16+float32", ..."""
        mixed = self.precise and self.compute_dtype != torch.float32
        return str(self.compute_dtype).removeprefix("torch.") + ("+float32" if mixed else "")

    @abstractmethod
    def encode_frame(self, image: Tensor) -> Any:
        """Features of one frame, computed once whatever the number of objects.

        image   [B, 3, h, w] float, display-referred 0..1, already framed; the model normalises it
        """

    @abstractmethod
    def decode(
        self, features: Any, memory: MemoryReader, sensory: Tensor | None, *, update_sensory: bool = True
    ) -> Decoded:
        """Segment a frame from what `memory` says of it.

        sensory   [B, O, CH, y, x] or None, as the plan has it
        """

    @abstractmethod
    def encode_mask(
        self,
        image: Tensor,
        features: Any,
        masks: Tensor,
        sensory: Tensor | None,
        *,
        seen: Decoded | None = None,
        drawn: bool = False,
        deep_update: bool = False,
    ) -> Memorised:
        """What this frame with these masks is remembered by.

        masks     [B, O, h, w] 0..1, without the background; 0 or 1 where the plan says feedback "labels"
        seen      what `decode` said of this frame, or None where it did not run (all objects were drawn)
        drawn     True where the artist drew on this frame (AOT: a reference, which attends to itself)
        """

    @abstractmethod
    def aggregate(self, masks: Tensor) -> Tensor:
        """Given masks [B, O, h, w] as the probabilities [B, O+1, h, w] the model would have given for them.

        O is all objects, in a model with identities too.
        """

    def fine_features(self, features: Any) -> Tensor | None:
        """Of an encoded frame what tells its places apart, [B, C, h/4, w/4]; None where a model has no such thing."""
        return None

    def choose_slot(self, arriving: MemoryElements, step: int, held: Sequence[HeldFrame]) -> int:
        """Which of the held frames gives its slot to the arriving one, where the plan has slots and all are taken.

        step      of the arriving frame
        held      frames that may go, oldest first, at least one: what the artist drew is not among them
        returns   a place in `held`; the oldest, unless a model knows better
        """
        return 0

    def empty_sensory(self, batch: int, objects: int, y: int, x: int, like: Tensor) -> Tensor | None:
        """The sensory memory of objects that were never seen: zeros, or None where the plan has none."""
        if not self.plan.sensory_dim:
            return None
        return torch.zeros(batch, objects, self.plan.sensory_dim, y, x, device=like.device, dtype=torch.float32)
