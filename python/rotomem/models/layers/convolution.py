"""Convolutions as blocks call them, and what becomes of them for inference.

`convolve` is a convolution with what follows it: a norm, a sum, a ReLU, one after the other. Once a network is
prepared (`models/inference.py`) all of them are one pass, wherever no gradient is asked for: the norm is part of the
weights, these have the type they are multiplied in and, on a CPU, the layout oneDNN reads them in. Parameters and
their names stay what they are, so a prepared network trains, loads and saves as any other.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.models.layers.norm import FrozenBatchNorm2d


def merged(x: Tensor) -> Tensor:
    """[B, O, C, y, x] as [B*O, C, y, x]; of one batch a view that is still known to have its channels last."""
    return x[0] if x.shape[0] == 1 else x.flatten(0, 1)


def apart(x: Tensor, o: int) -> Tensor:
    """[B*O, C, y, x] as [B, O, C, y, x]."""
    return x[None] if x.shape[0] == o else x.unflatten(0, (-1, o))


def add_frame(objects: Tensor, frame: Tensor) -> Tensor:
    """What objects have [B*O, C, y, x] plus what their frame has [B, C, y, x]."""
    b = frame.shape[0]
    if b == 1:
        return objects + frame
    return (objects.unflatten(0, (b, -1)) + frame[:, None]).flatten(0, 1)


def convolve(
    conv: nn.Module, x: Tensor, *, norm: nn.Module | None = None, add: Tensor | None = None, relu: bool = False
) -> Tensor:
    """conv(x), then the norm, plus `add` of the result's shape, then ReLU."""
    if isinstance(conv, PreparedConv) and conv.folds:
        return conv.pass_through(x, add=add, relu=relu)
    y: Tensor = conv(x)
    if norm is not None:
        y = norm(y)
    if add is not None:
        y = y + add
    return F.relu(y) if relu else y


def convolve_both(
    conv: nn.Conv2d,
    frame: Tensor,
    objects: Tensor,
    o: int,
    *,
    objects_first: bool = False,
    norm: nn.Module | None = None,
    relu: bool = False,
) -> Tensor:
    """`convolve` of cat[frame repeated for its objects, objects], or the reverse; the frame's share once for all.

    A convolution of a concatenation is the sum of two convolutions, so only the order of rounding differs.
    frame [B, CF, y, x], objects [B*O, CO, y, x]; returns [B*O, C, ...]
    """
    if o == 1:
        both = torch.cat([objects, frame] if objects_first else [frame, objects], 1)
        return convolve(conv, both, norm=norm, relu=relu)
    first = (objects if objects_first else frame).shape[1]
    parts = (slice(first, None), slice(first)) if objects_first else (slice(first), slice(first, None))
    if isinstance(conv, PreparedConv) and conv.folds:
        shared = conv.pass_through(frame, channels=parts[0]).repeat_interleave(o, 0)
        return conv.pass_through(objects, channels=parts[1], add=shared, relu=relu)
    how = conv.stride, conv.padding
    # The bias goes with the first channels, here and there.
    once, own = (
        F.conv2d(x, conv.weight[:, part], None if part.start else conv.bias, *how)  # type: ignore[arg-type]
        for x, part in ((frame, parts[0]), (objects, parts[1]))
    )
    y = add_frame(own, once)
    y = y if norm is None else norm(y)
    return F.relu(y) if relu else y


class PreparedConv(nn.Conv2d):
    """A convolution made ready by `prepare_conv`: [B, CI, h, w] of any float type to [B, CO, ...] in its own."""

    _ALL = slice(None)

    dtype: torch.dtype  # of the factors and of the result; sums are float32
    _norm: tuple[nn.Module, ...]  # what follows it, or nothing; a tuple, so that it is no submodule
    _made: dict[tuple[int | None, int | None], tuple[object, Tensor, Tensor | None]]

    @property
    def folds(self) -> bool:
        """Whether it takes the norm into its weights, here and now; the norm asks for the same."""
        return not torch.is_grad_enabled() and not any(norm.training for norm in self._norm)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}  # packed weights can be neither copied nor pickled

    def forward(self, x: Tensor) -> Tensor:
        return self.pass_through(x) if self.folds else super().forward(x)

    def pass_through(
        self, x: Tensor, *, channels: slice = _ALL, add: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        """conv(x) and its norm, plus `add` of the result's shape, then ReLU.

        channels   of the convolution's input that `x` holds; whoever has the first has the bias
        """
        x = x.to(self.dtype)
        packs = self.dtype == torch.bfloat16 and x.device.type == "cpu" and _onednn()
        if packs:
            x = x.contiguous(memory_format=torch.channels_last)
        weight, bias = self._weights(channels, x.shape if packs else None)
        if packs:
            how = list(self.padding), list(self.stride), list(self.dilation), self.groups
            after = "relu" if relu else None
            run = torch.ops.mkldnn._convolution_pointwise
            if add is None:
                return cast(Tensor, run(x, weight, bias, *how, after or "none", [], ""))
            add = add.to(self.dtype).contiguous(memory_format=torch.channels_last)
            return cast(Tensor, run.binary(x, add, weight, bias, *how, "add", 1.0, after, [], ""))
        with torch.autocast(x.device.type, enabled=False):
            y = F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        if add is not None:
            y += add
        return F.relu_(y) if relu else y

    def _weights(self, channels: slice, packed_for: torch.Size | None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as they are multiplied, made anew where parameters have changed."""
        sources = [self.weight, *(norm.weight for norm in self._norm)]
        state = packed_for is None, *(_state(t) for t in cast("list[Tensor]", sources))
        made = self._made.get((channels.start, channels.stop))
        if made is None or made[0] != state:
            weight, bias = self.weight.detach(), None if self.bias is None else self.bias.detach()
            for norm in self._norm:
                weight, bias = _folded(weight, bias, norm)
            weight, bias = weight[:, channels].to(self.dtype), None if channels.start else bias
            bias = None if bias is None else bias.to(self.dtype)
            if packed_for is None:
                weight = weight.contiguous(memory_format=torch.channels_last)
            else:
                reorder = cast(Any, torch._C._nn).mkldnn_reorder_conv2d_weight
                how = list(self.padding), list(self.stride), list(self.dilation), self.groups
                weight = reorder(weight.contiguous().to_mkldnn(), *how, list(packed_for))
            made = self._made[channels.start, channels.stop] = state, weight, bias
        return made[1], made[2]


class _Folded(nn.Module):
    """A norm that is part of the convolution before it wherever that takes it in."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() and not self.training:
            return x
        return cast(Tensor, super().forward(x))


class FoldedBatchNorm2d(_Folded, nn.BatchNorm2d):
    """See _Folded."""


class FoldedFrozenBatchNorm2d(_Folded, FrozenBatchNorm2d):
    """See _Folded."""


_FOLDED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: FoldedBatchNorm2d,
    FrozenBatchNorm2d: FoldedFrozenBatchNorm2d,
}


def prepare_conv(conv: nn.Conv2d, norm: nn.Module | None, dtype: torch.dtype) -> None:
    """Make a dense convolution, and the norm that follows it, ready for inference in `dtype`.

    A norm that is no scale and offset per channel once training is over stays as it is.
    """
    folds = type(norm) in _FOLDED or isinstance(norm, _Folded)
    if norm is not None and type(norm) in _FOLDED:
        norm.__class__ = _FOLDED[type(norm)]
    conv.__class__ = PreparedConv
    assert isinstance(conv, PreparedConv)
    conv.dtype, conv._made = dtype, {}
    conv._norm = (norm,) if norm is not None and folds else ()


def _state(tensor: Tensor) -> object:
    """What changes when a tensor is written to; one that was made in inference mode does not tell that."""
    return id(tensor), tensor.data_ptr(), None if tensor.is_inference() else tensor._version


def _folded(weight: Tensor, bias: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution and the norm behind it, made in float64."""
    mean, var = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    scale = cast(Tensor, norm.weight).detach().double() / (var + cast(float, norm.eps)).sqrt()
    offset = -mean if bias is None else bias.double() - mean
    shift = cast(Tensor, norm.bias).detach().double() + offset * scale
    return (weight.double() * scale[:, None, None, None]).float(), shift.float()


@cache
def _onednn() -> bool:
    """Whether this torch has oneDNN's fused bfloat16 convolutions, which its own compiler calls."""
    ops = torch.ops.mkldnn
    return (
        torch.backends.mkldnn.is_available()
        and all(hasattr(ops, name) for name in ("_convolution_pointwise", "_is_mkldnn_bf16_supported"))
        and bool(ops._is_mkldnn_bf16_supported())
    )
