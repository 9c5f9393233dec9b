"""Models by name: how each is built, where its weights lie, under which licence."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rotomem.errors import CheckpointError, UsageError
from rotomem.models.aot import AOT, AOTConfig
from rotomem.models.inference import prepare
from rotomem.models.interface import VOSModel
from rotomem.models.stcn import STCN, STCNConfig
from rotomem.models.stm import STM, STMConfig
from rotomem.models.stremn import STReMN, STReMNConfig
from rotomem.models.xmem import XMEM_S, XMem, XMemConfig

_WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class ModelEntry:
    """One model of the registry.

    title       of the architecture
    network     configuration -> model with random weights
    default     configuration where no state_dict tells another one
    weights     bundled file, or None where the user brings weights
    licence     of the weights
    recognise   whether a state_dict's keys are this architecture's; None where another entry speaks for it
    remark      configuration that a state_dict told -> what its user had better know, or nothing
    """

    title: str
    network: Callable[[Any], VOSModel]
    default: Any
    weights: Path | None
    licence: str
    summary: str
    recognise: Callable[[Mapping[str, Tensor]], bool] | None = None
    remark: Callable[[Any], str] = lambda config: ""

    def config(self, state_dict: Mapping[str, Tensor] | None, settings: Mapping[str, Any]) -> Any:
        """The default, or what the state_dict's shapes tell, with `settings` in place of its fields.

        Raises UsageError for a setting there is none of; CheckpointError where a key that tells is not there.
        """
        known = {f.name for f in fields(self.default)}
        if unknown := set(settings) - known:
            raise UsageError(
                f"{self.title} has no setting {', '.join(sorted(unknown))}",
                remedy="settings: " + ", ".join(sorted(known)),
            )
        if state_dict is None:
            return replace(self.default, **settings)
        try:
            found = type(self.default).from_state_dict(state_dict)
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"the state_dict is no {self.title} checkpoint: {error} is missing",
                remedy="check which model it is of",
            ) from None
        return replace(found, **settings)


def load_strictly(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load every tensor or say what does not fit; see `misfits`."""
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}"
        for what, keys in misfits(model, state_dict).items()
    ]
    if problems:
        raise CheckpointError(
            "the weights do not fit the model: " + "; ".join(problems), remedy="check which model they are of"
        )
    model.load_state_dict(state_dict, strict=False)


def misfits(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What keeps a state_dict from being the model's: "missing", "unexpected", "of another shape" -> keys, sorted.

    Empty where it fits. A refinement head that the weights know nothing of is not missed: untrained, it changes
    nothing.
    """
    own = model.state_dict()
    spared = {k for k in own if k.endswith("num_batches_tracked")}
    if not any(k.startswith("refine.") for k in state_dict):
        spared |= {k for k in own if k.startswith("refine.")}
    found = {
        "missing": sorted(set(own) - set(state_dict) - spared),
        "unexpected": sorted(set(state_dict) - set(own)),
        "of another shape": sorted(
            f"{k} is {tuple(state_dict[k].shape)}, expected {tuple(own[k].shape)}"
            for k in set(own) & set(state_dict)
            if own[k].shape != state_dict[k].shape
        ),
    }
    return {what: keys for what, keys in found.items() if keys}


def _three_layers(config: AOTConfig) -> str:
    if config.layers < 3:
        return ""
    return "a B has the keys of an L and is taken for one; of a B keep given frames only: --mem-every keys"


REGISTRY: dict[str, ModelEntry] = {
    "xmem-s": ModelEntry(
        "XMem",
        XMem,
        XMEM_S,
        _WEIGHTS / "xmem-s.safetensors",
        "Apache-2.0",
        "XMem with narrow networks, trained by rotomem on freely licensed pictures alone",
    ),
    "xmem": ModelEntry(
        "XMem",
        XMem,
        XMemConfig(),
        None,
        "published weights: for research",
        "XMem at its published size; takes the published state_dict",
        recognise=lambda keys: "key_proj.d_proj.weight" in keys and "value_encoder.conv1.weight" in keys,
        remark=lambda config: "" if config.sensory_dim else "it has no sensory memory, as XMem-no-sensory",
    ),
    "stcn": ModelEntry(
        "STCN",
        STCN,
        STCNConfig(),
        None,
        "published weights: for research",
        "STCN at its published size; takes the published state_dict",
        recognise=lambda keys: "key_comp.weight" in keys and "decoder.compress.conv1.weight" in keys,
    ),
    "stm": ModelEntry(
        "STM",
        STM,
        STMConfig(),
        None,
        "published weights: CC BY-NC-SA 4.0, not for commercial use",
        "STM at its published size; takes the published state_dict",
        recognise=lambda keys: "KV_Q_r4.Key.weight" in keys and "Encoder_M.conv1_o.weight" in keys,
    ),
    "stremn": ModelEntry(
        "STReMN",
        STReMN,
        STReMNConfig(),
        None,
        "no published weights known",
        "STReMN at its published size; takes the state_dict that its recipe trains",
        recognise=lambda keys: "update_query.weight" in keys and "memory_encoder.conv1_o.weight" in keys,
    ),
    "aot": ModelEntry(
        "AOT",
        AOT,
        AOTConfig(),
        None,
        "published weights: for research",
        "AOT-T, -S, -B and -L with any of its encoders; takes the published state_dict",
        recognise=lambda keys: "patch_wise_id_bank.weight" in keys and "LSTT.layers.0.linear_Q.weight" in keys,
        remark=_three_layers,
    ),
    "aotv2": ModelEntry(
        "AOTv2",
        AOT,
        AOTConfig(gated=True, intermediate=False),
        None,
        "no published weights known",
        "AOTv2 with any of AOT's encoders; takes the published keys",
        recognise=lambda keys: "LSTT.layers.0.linear_ID_KV.weight" in keys and "decoder.conv_in.conv.weight" in keys,
        remark=_three_layers,
    ),
    "aost": ModelEntry(
        "AOST",
        AOT,
        AOTConfig(gated=True, scalable=True),
        None,
        "no published weights known",
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
    entry = REGISTRY[name]
    if state_dict is not None:
        state_dict = as_loaded(state_dict)
    model = entry.network(entry.config(state_dict, config)).eval()
    model.name = name
    if state_dict is not None:
        load_strictly(model, state_dict)
        model.weights_hash = hash_weights(state_dict)
    return model


def outline(name: str, state_dict: Mapping[str, Tensor] | None = None) -> VOSModel:
    """As `build_model` makes it, without its numbers: all tensors on the device "meta". Cost: 0.3 s, no memory.

    state_dict   for its shapes alone; whether it fits is for `misfits` to say
    """
    entry = REGISTRY[name]
    with torch.device("meta"), _Unfilled():
        return entry.network(entry.config(state_dict, {})).eval()


class _Unfilled(TorchFunctionMode):
    """Draws no random numbers; on "meta" the first normal ones import all of sympy, which takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is Tensor.normal_ else func(*args, **(kwargs or {}))


def recognise(state_dict: Mapping[str, Tensor]) -> str | None:
    """The registry's name for the architecture that has these keys; None where there is none."""
    return next((n for n, e in REGISTRY.items() if e.recognise and e.recognise(state_dict)), None)


def nearest(state_dict: Mapping[str, Tensor]) -> str | None:
    """The architecture of whose keys, at its default size, most are there; None where less than half of them are."""
    shares = {
        name: len(own.keys() & state_dict.keys()) / len(own)
        for name, entry in REGISTRY.items()
        if entry.recognise and (own := outline(name).state_dict())
    }
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] > 0.5 else None


_FIRST_OF_VALUES = "value_encoder.conv1.weight"


def single_object(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether these are XMem's or STCN's weights of stage 0, which know one object: no channel tells of others."""
    conv = state_dict.get(_FIRST_OF_VALUES)
    return conv is not None and conv.ndim == 4 and conv.shape[1] == 4


def as_loaded(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published keys and shapes as the networks have them.

    Without the prefix `module.`; where `single_object` is true, with a channel of zeros for the other objects, as the
    published code runs such weights.
    """
    tensors = {k.removeprefix("module."): v for k, v in state_dict.items()}
    if single_object(tensors):
        tensors[_FIRST_OF_VALUES] = torch.nn.functional.pad(tensors[_FIRST_OF_VALUES], (0, 0, 0, 0, 0, 1))
    return tensors


def load_model(
    name_or_path: str | Path = "xmem-s", *, device: str | torch.device = "auto", dtype: str = "auto"
) -> VOSModel:
    """A model with its weights, ready to run.

    name_or_path   a bundled model's name, or a checkpoint: .safetensors, or .pth/.pt read without running its code
    device         "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...
    dtype          of the convolutions: "float32", "bfloat16", "float16"; "auto" is float16 on a GPU, bfloat16 on a
                   CPU that multiplies it natively, else float32. With bfloat16 the model's `precise` parts are
                   float32; float16 has three bits more and does without

    Raises UsageError for an unknown name, device or dtype; CheckpointError for a file that is absent, damaged or of
    no known architecture.
    """
    name = str(name_or_path)
    if name in REGISTRY:
        weights = REGISTRY[name].weights
        if weights is None:
            raise UsageError(
                f"rotomem ships no weights for {name!r} ({REGISTRY[name].licence})",
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
        name = recognise(state_dict) or ""
        if not name:
            raise CheckpointError(
                "the checkpoint is of no architecture rotomem knows",
                remedy="known architectures: " + ", ".join(REGISTRY),
                path=path,
            )
    model = build_model(name, state_dict)
    model.name = name if path == REGISTRY[name].weights else path.stem
    return place(model, device=device, dtype=dtype)


def place(model: VOSModel, *, device: str | torch.device = "auto", dtype: str = "auto") -> VOSModel:
    """The model where and as it shall run; see `load_model`. Raises UsageError for an unknown device or dtype."""
    target = pick_device(device)
    model.to(device=target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.compute_dtype = _dtype(dtype, target)
    if dtype != "auto" or model.compute_dtype == torch.float16:
        model.precise = ()
    return prepare(model)


def _bundled() -> list[str]:
    return [name for name, entry in REGISTRY.items() if entry.weights is not None]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Float32 tensors of a checkpoint file; nothing in it is executed. Raises CheckpointError naming the file.

    Of a file that holds more than tensors (optimiser, step) the weights are taken; of a rotomem training's their
    average.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
            while wrapper := _wrapper(loaded):
                loaded = loaded[wrapper]
            if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
                raise CheckpointError("the file holds no state_dict", path=path)
            tensors = dict(loaded)
    except CheckpointError:
        raise
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the weights cannot be read: {error}", path=path) from None
    except Exception as error:  # unpickling raises whatever the file's bytes lead it to
        if carried := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"the weights cannot be read: the file asks to run {carried[1]}",
                remedy="rotomem reads tensors only, so it is refused and nothing of it has run; if you trust it, "
                "save its state_dict alone with the code it came with",
                path=path,
            ) from None
        # Of a cut file torch says why; of any other it advises to run the file's code, or names an opcode.
        cut = (
            str(error).splitlines()[0] if isinstance(error, RuntimeError) and "weights_only" not in str(error) else ""
        )
        raise CheckpointError(
            f"the weights cannot be read: {cut or 'this is not a checkpoint rotomem can read'}",
            remedy="rotomem reads tensors only; a file that needs to run code is refused",
            path=path,
        ) from None
    return {k.removeprefix("module."): v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def _wrapper(loaded: Any) -> str | None:
    """Under which name a checkpoint's weights stand; None where it is nothing but weights."""
    if not isinstance(loaded, Mapping):
        return None
    names = ("state_dict", "network", "average", "model")
    return next((name for name in names if isinstance(loaded.get(name), Mapping)), None)


def read_facts(path: Path) -> dict[str, str]:
    """What a checkpoint file says of itself in its metadata; nothing where it is no safetensors file.

    Raises CheckpointError naming the file.
    """
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the weights cannot be read: {error}", path=path) from None


def hash_weights(state_dict: Mapping[str, Tensor]) -> str:
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
