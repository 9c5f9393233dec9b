"""First weights of encoders: classifiers trained on ImageNet, in the layout torchvision (or Swin's authors) publish.

The papers' encoders all begin so. rotomem ships no such weights: whoever trains brings the files.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotomem.errors import CheckpointError
from rotomem.models.layers.norm import FrozenBatchNorm2d
from rotomem.models.registry import read_state_dict

_PARTS = {"res2": "layer1", "res3": "layer2", "res4": "layer3"} | {
    name: name for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "features", "patch_embed", "layers")
}
"""Parts of our encoders -> those of torchvision's ResNet and MobileNetV2 and of Swin's authors' classifiers; other
parts are no classifier's."""


@torch.no_grad()
def begin_encoder(encoder: nn.Module, path: str | Path) -> None:
    """Give an encoder the weights of a classifier.

    Input channels beyond the picture's three (masks) get orthogonal weights. A convolution's bias that the classifier
    does not have is 0.

    Raises CheckpointError where the file cannot be read, or a tensor is missing or of another shape.
    """
    given = read_state_dict(Path(path))
    normed = {k.removesuffix("running_mean") for k in given if k.endswith("running_mean")}
    found: dict[str, Tensor] = {}
    for key, own in encoder.state_dict().items():
        head, _, tail = key.partition(".")
        name = f"{_PARTS.get(head)}.{tail}"
        if head not in _PARTS or key.endswith("num_batches_tracked"):
            continue
        value = given.get(name)
        if value is None and name.endswith(".bias") and name.removesuffix("bias") not in normed:
            value = torch.zeros_like(own)
        elif value is not None and key == "conv1.weight" and own.shape[1] > 3:
            value = torch.cat([value, nn.init.orthogonal_(torch.empty_like(own[:, 3:]))], 1)
        if value is None or value.shape != own.shape:
            what = "is missing" if value is None else f"is {tuple(value.shape)}, expected {tuple(own.shape)}"
            raise CheckpointError(
                f"the classifier's {name} {what}", remedy="give weights in torchvision's layout", path=path
            )
        found[key] = value
    encoder.load_state_dict(found, strict=False)


@torch.no_grad()
def settle_norms(encoder: nn.Module) -> None:
    """Give the frozen norms of an encoder with random weights the statistics of noise that is as smooth as pictures.

    Such norms learn nothing; left at mean 0 and variance 1 they would let signals fade from layer to layer.
    """
    hooks = []

    def settle(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, FrozenBatchNorm2d)
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
        norm.load_state_dict({"running_mean": mean, "running_var": variance + norm.eps}, strict=False)

    for module in encoder.modules():
        if isinstance(module, FrozenBatchNorm2d):
            hooks.append(module.register_forward_pre_hook(settle))
    if hooks:
        octaves = [torch.randn(4, 3, n, n) for n in (2, 4, 8, 16, 32, 64)]
        encoder(sum(F.interpolate(octave, (65, 65), mode="bilinear") for octave in octaves) / 2)
    for hook in hooks:
        hook.remove()
