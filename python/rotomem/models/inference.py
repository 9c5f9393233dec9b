"""A network made ready for inference: the same function, faster.

What depends on weights alone is done once instead of on every frame: batch norms become part of the convolutions
before them, and weights take the type they are multiplied in and, on a CPU, the layout oneDNN reads them in (laying
out the weights of XMem's fuser takes three times as long as multiplying them with a 480p frame). What follows a
convolution is computed while its result is in registers.

No frame pays for that but the first, by 0.1 s: nothing is compiled. torch.compile would fuse as much, and let an
artist wait for a compiler at every new size of plate and every new number of objects. CUDA graphs would save launches
on a GPU, and hold buffers for every number of objects and groups of them; they are left until one has been measured.

Types are chosen by convolution: most are multiplied in the model's `compute_dtype`, those named by its `precise` in
float32. What lies between them follows from what they return. The aim is a matte that differs from float32's by less
than 1/255 on 99.9 % of the pixels. Share of pixels beyond that, of xmem-s on the demo shot with two objects at 480
lines, free running, and what the float32 parts add to a frame:

                                                            12 frames    20 frames
    torch.autocast, everything in bfloat16                  0.19 %
    prepared, everything in bfloat16                        0.12 %
    key_proj, hidden_update, pred and refine in float32     0.10 %       0.12 %         6 ms
        and the decoder's last block, which is `precise`    0.05 %       0.07 %       +34 ms
        or, instead of that block: the first convolution                 0.11 %
                                   the encoder's last stage              0.12 %
                                   the decoder's fuser                   0.12 %

Random weights may magnify what is rounded: of the published width 0 to 20 % of the pixels are beyond, by how the
weights are drawn, and float32 in the encoder or in the decoder alone does not help there; all of it does.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from rotomem.models.interface import VOSModel
from rotomem.models.layers.convolution import PreparedConv, prepare_conv


def prepare(model: VOSModel) -> VOSModel:
    """Make a model ready for inference, in the types it declares by `compute_dtype` and `precise`; returns it.

    Parameters keep their names and values, and where a gradient is asked for everything runs as before. Call it again
    where the model has been told other types since.
    Cost: the weights once more, in the type they are multiplied in.
    """
    for path, parent in list(model.named_modules()):
        children = dict(parent.named_children())
        following = dict(pairwise(children)) if isinstance(parent, nn.Sequential) else getattr(parent, "norm_of", {})
        for name, conv in children.items():
            if type(conv) not in (nn.Conv2d, PreparedConv) or conv.groups > 1 or isinstance(conv.padding, str):
                continue
            place = f"{path}.{name}.".lstrip(".")
            precise = any(place.startswith(f"{part}.") for part in model.precise)
            dtype = torch.float32 if precise else model.compute_dtype
            prepare_conv(conv, children.get(following.get(name, "")), dtype)
    return model
