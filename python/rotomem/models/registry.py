"""Models by name: how each is built, where its weights lie, under which licence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rotomem.errors import CheckpointError, UsageError
from rotomem.models.aot import AOT, AOTConfig
from rotomem.models.interface import VOSModel
from rotomem.models.stcn import STCN, STCNConfig
from rotomem.models.stm import STM, STMConfig
from rotomem.models.stremn import STReMN, STReMNConfig
from rotomem.models.xmem import XMEM_S, XMem, XMemConfig

_WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class ModelEntry:
    """One model of the registry.

    build       state_dict or None, configuration overrides -> model with untouched or loaded parameters
    weights     bundled file, or None where the user brings weights
    licence     of the weights
    recognise   whether a state_dict's keys are this architecture's; None where another entry speaks for it
    """

    build: Callable[[Mapping[str, Tensor] | None, Mapping[str, Any]], VOSModel]
    weights: Path | None
    licence: str
    summary: str
    recognise: Callable[[Mapping[str, Tensor]], bool] | None = None


def _builder(
    title: str, network: Callable[[Any], VOSModel], default: Any
) -> Callable[[Mapping[str, Tensor] | None, Mapping[str, Any]], VOSModel]:
    """The `build` of an architecture whose configuration is the dataclass `default` is of."""

    def build(state_dict: Mapping[str, Tensor] | None, config: Mapping[str, Any]) -> VOSModel:
        known = {f.name for f in fields(default)}
        if unknown := set(config) - known:
            raise UsageError(
                f"{title} has no setting {', '.join(sorted(unknown))}",
                remedy="settings: " + ", ".join(sorted(known)),
            )
        if state_dict is None:
            return network(replace(default, **config))
        # Stage-0 checkpoints know one object only: their first convolution lacks the "others" channel.
        conv = state_dict.get("value_encoder.conv1.weight")
        if conv is not None and conv.ndim == 4 and conv.shape[1] == 4:
            padded = torch.nn.functional.pad(conv, (0, 0, 0, 0, 0, 1))
            state_dict = {**state_dict, "value_encoder.conv1.weight": padded}
        try:
            found = type(default).from_state_dict(state_dict)
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"the state_dict is no {title} checkpoint: {error} is missing", remedy="check which model it is of"
            ) from None
        model = network(replace(found, **config))
        load_strictly(model, state_dict)
        return model

    return build


def load_strictly(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load every tensor or say key by key what does not fit.

    A refinement head that the weights know nothing of stays as it is: untrained, it changes nothing.
    """
    own = model.state_dict()
    spared = {k for k in own if k.endswith("num_batches_tracked")}
    if not any(k.startswith("refine.") for k in state_dict):
        spared |= {k for k in own if k.startswith("refine.")}
    missing = sorted(set(own) - set(state_dict) - spared)
    unexpected = sorted(set(state_dict) - set(own))
    wrong = sorted(
        f"{k} is {tuple(state_dict[k].shape)}, expected {tuple(own[k].shape)}"
        for k in set(own) & set(state_dict)
        if own[k].shape != state_dict[k].shape
    )
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if keys
    ]
    if problems:
        raise CheckpointError(
            "the weights do not fit the model: " + "; ".join(problems), remedy="check which model they are of"
        )
    model.load_state_dict(state_dict, strict=False)


REGISTRY: dict[str, ModelEntry] = {
    "xmem-s": ModelEntry(
        _builder("XMem", XMem, XMEM_S),
        _WEIGHTS / "xmem-s.safetensors",
        "Apache-2.0",
        "XMem with narrow networks, trained by rotomem on freely licensed pictures alone",
    ),
    "xmem": ModelEntry(
        _builder("XMem", XMem, XMemConfig()),
        None,
        "bring your own: the published weights are for research",
        "XMem at its published size; takes the published state_dict",
        recognise=lambda keys: "key_proj.d_proj.weight" in keys and "value_encoder.conv1.weight" in keys,
    ),
    "stcn": ModelEntry(
        _builder("STCN", STCN, STCNConfig()),
        None,
        "bring your own: the published weights are for research",
        "STCN at its published size; takes the published state_dict",
        recognise=lambda keys: "key_comp.weight" in keys and "decoder.compress.conv1.weight" in keys,
    ),
    "stm": ModelEntry(
        _builder("STM", STM, STMConfig()),
        None,
        "bring your own: the published weights are not for commercial use (CC BY-NC-SA 4.0)",
        "STM at its published size; takes the published state_dict",
        recognise=lambda keys: "KV_Q_r4.Key.weight" in keys and "Encoder_M.conv1_o.weight" in keys,
    ),
    "stremn": ModelEntry(
        _builder("STReMN", STReMN, STReMNConfig()),
        None,
        "bring your own: no weights were published",
        "STReMN at its published size; takes the state_dict that its recipe trains",
        recognise=lambda keys: "update_query.weight" in keys and "memory_encoder.conv1_o.weight" in keys,
    ),
    "aot": ModelEntry(
        _builder("AOT", AOT, AOTConfig()),
        None,
        "bring your own: the published weights are for research",
        "AOT-T, -S, -B and -L with any of its encoders; takes the published state_dict",
        recognise=lambda keys: "patch_wise_id_bank.weight" in keys and "LSTT.layers.0.linear_Q.weight" in keys,
    ),
    "aotv2": ModelEntry(
        _builder("AOTv2", AOT, AOTConfig(gated=True, intermediate=False)),
        None,
        "bring your own",
        "AOTv2 with any of AOT's encoders; takes the published keys",
        recognise=lambda keys: "LSTT.layers.0.linear_ID_KV.weight" in keys and "decoder.conv_in.conv.weight" in keys,
    ),
    "aost": ModelEntry(
        _builder("AOST", AOT, AOTConfig(gated=True, scalable=True)),
        None,
        "bring your own",
        "AOST, its layers shared or not, run at any depth; takes the published keys",
        recognise=lambda keys: "patch_wise_id_bank.weight" in keys and "decoder.conv_in.0.conv.weight" in keys,
    ),
}


def build_model(name: str, state_dict: Mapping[str, Tensor] | None = None, **config: Any) -> VOSModel:
    """A model of a known architecture on the CPU, in float32, for inference.

    name         a key of `REGISTRY`
    state_dict   published keys, a `module.` prefix allowed; widths are read from its shapes. None: random weights
    config       fields of the model's configuration that differ from its default

    Raises UsageError for an unknown name or setting; CheckpointError telling the keys that do not fit.
    """
    if name not in REGISTRY:
        raise UsageError(f"no model called {name!r}", remedy="known models: " + ", ".join(REGISTRY))
    if state_dict is not None:
        state_dict = {k.removeprefix("module."): v for k, v in state_dict.items()}
    model = REGISTRY[name].build(state_dict, config).eval()
    model.name = name
    if state_dict is not None:
        model.weights_hash = _hash(state_dict)
    return model


def load_model(
    name_or_path: str | Path = "xmem-s", *, device: str | torch.device = "auto", dtype: str = "auto"
) -> VOSModel:
    """A model with its weights, ready to run.

    name_or_path   a bundled model's name, or a checkpoint: .safetensors, or .pth/.pt read without running its code
    device         "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...
    dtype          of the convolutions: "float32", "bfloat16", "float16"; "auto" is float16 on a GPU, bfloat16 on a
                   CPU that multiplies it natively, else float32

    Raises UsageError for an unknown name, device or dtype; CheckpointError for a file that is absent, damaged or of
    no known architecture.
    """
    name = str(name_or_path)
    if name in REGISTRY:
        weights = REGISTRY[name].weights
        if weights is None:
            raise UsageError(
                f"rotomem ships no weights for {name!r}: {REGISTRY[name].licence}",
                remedy="give the path of a checkpoint instead of the name",
            )
        path = weights
    else:
        path = Path(name)
        if not path.exists():
            raise UsageError(
                f"{name!r} is neither a model nor a file", remedy="bundled models: " + ", ".join(_bundled())
            )
    state_dict = read_state_dict(path)
    if name not in REGISTRY:
        name = next((n for n, e in REGISTRY.items() if e.recognise and e.recognise(state_dict)), "")
        if not name:
            raise CheckpointError(
                "the checkpoint is of no architecture rotomem knows",
                remedy="known architectures: " + ", ".join(REGISTRY),
                path=path,
            )
    model = build_model(name, state_dict)
    model.name = name if path == REGISTRY[name].weights else path.stem
    target = pick_device(device)
    model.to(device=target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.compute_dtype = _dtype(dtype, target)
    return model


def _bundled() -> list[str]:
    return [name for name, entry in REGISTRY.items() if entry.weights is not None]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Float32 tensors of a checkpoint file; nothing in it is executed. Raises CheckpointError naming the file."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
            for wrapper in ("state_dict", "network", "model"):
                if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
                    loaded = loaded[wrapper]
            if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
                raise CheckpointError("the file holds no state_dict", path=path)
            tensors = {k.removeprefix("module."): v for k, v in loaded.items()}
    except CheckpointError:
        raise
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the weights cannot be read: {error}", path=path) from None
    except Exception as error:  # unpickling raises whatever the file's bytes lead it to
        # Of a cut file torch says why; of any other it advises to run the file's code, or names an opcode.
        cut = (
            str(error).splitlines()[0] if isinstance(error, RuntimeError) and "weights_only" not in str(error) else ""
        )
        raise CheckpointError(
            f"the weights cannot be read: {cut or 'this is not a checkpoint rotomem can read'}",
            remedy="rotomem reads tensors only; a file that needs to run code is refused",
            path=path,
        ) from None
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def _hash(state_dict: Mapping[str, Tensor]) -> str:
    """First 16 hex digits of a sha256 over names and bytes: the weights' identity in a matte's metadata."""
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        digest.update(key.encode())
        digest.update(state_dict[key].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def pick_device(device: str | torch.device) -> torch.device:
    """The device of that name, "auto" being a GPU where there is one. Raises UsageError where there is none such."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"no device {device!r}", remedy="use auto, cpu or cuda") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "there is no usable CUDA device", remedy="use device cpu or auto, or check the driver and torch build"
        )
    return chosen


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        if device.type == "cuda":
            return torch.float16
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    if dtype not in _DTYPES:
        raise UsageError(f"no dtype {dtype!r}", remedy="use auto, " + ", ".join(_DTYPES))
    if dtype == "float16" and device.type == "cpu":
        raise UsageError("float16 convolutions need a GPU", remedy="use bfloat16 or float32")
    return _DTYPES[dtype]
