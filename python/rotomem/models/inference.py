"""A network made ready for inference: the same function, faster.

What depends on weights alone is done once instead of on every frame: batch norms become part of the convolutions
before them, and weights take the type they are multiplied in and, on a CPU, the layout oneDNN reads them in (laying
out the weights of XMem's fuser takes three times as long as multiplying them with a 480p frame). What follows a
convolution is computed while its result is in registers.

No frame pays for that but the first, by 0.1 s: nothing is compiled. torch.compile would fuse as much, and let an
artist wait for a compiler at every new size of plate and every new number of objects.

Types are chosen by convolution: most are multiplied in the model's `compute_dtype`, those named by its `precise` in
float32. What lies between them follows from what they return. The aim is a matte that differs from float32's by less
than 1/255 on 99.9 % of the pixels. Share of pixels beyond that, of xmem-s on 20 frames of the demo shot with two
objects at 480 lines, free running, and what the float32 part costs there:

    bfloat16 throughout, sums of residual blocks included (autocast)       0.19 %
    key_proj, hidden_update, pred and refine in float32                    0.12 %    6 ms
        and the decoder's last block                                       0.07 %   34 ms
        or, instead of that block: the first convolution                   0.11 %
                                   the encoder's last stage                0.12 %
                                   the decoder's fuser                     0.12 %
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from rotomem.models.interface import VOSModel
from rotomem.models.layers.convolution import prepare_conv


def prepare(model: VOSModel) -> VOSModel:
    """Make a model ready for inference, in the types it declares by `compute_dtype` and `precise`; returns it.

    Parameters keep their names and values, and where a gradient is asked for everything runs as before.
    Cost: the weights once more, in the type they are multiplied in.
    """
    for path, parent in list(model.named_modules()):
        children = dict(parent.named_children())
        following = dict(pairwise(children)) if isinstance(parent, nn.Sequential) else getattr(parent, "norm_of", {})
        for name, conv in children.items():
            if not (type(conv) is nn.Conv2d and conv.groups == 1 and not isinstance(conv.padding, str)):
                continue
            place = f"{path}.{name}.".lstrip(".")
            precise = any(place.startswith(f"{part}.") for part in model.precise)
            dtype = torch.float32 if precise else model.compute_dtype
            prepare_conv(conv, children.get(following.get(name, "")), dtype)
    return model
