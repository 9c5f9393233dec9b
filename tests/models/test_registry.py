"""Loading models: names, checkpoints of every kind, and files that must be refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import rotomem
from engine.toy import MODELS, TINY, tiny_model
from rotomem.errors import CheckpointError, UsageError
from rotomem.models.interface import VOSModel
from rotomem.models.registry import REGISTRY, read_state_dict
from rotomem.models.stcn import STCN
from rotomem.models.stm import STM
from rotomem.models.xmem import XMem


class Runs:
    """A pickle that would run code when it is loaded without care."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('the checkpoint ran its code')",)


def test_load_model_when_given_safetensors_then_widths_come_from_its_shapes(tmp_path: Path) -> None:
    model = tiny_model()
    path = tmp_path / "show_a.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    loaded = rotomem.load_model(path, device="cpu", dtype="float32")
    assert isinstance(loaded, XMem) and loaded.config == TINY
    assert loaded.name == "show_a" and len(loaded.weights_hash) == 16
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_load_model_when_float16_and_prefixed_then_it_loads_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"state_dict": {f"module.{k}": v.half() for k, v in tiny_model().state_dict().items()}}, path)
    loaded = rotomem.load_model(path, device="cpu")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_weights_hash_when_one_number_differs_then_it_differs() -> None:
    state = tiny_model().state_dict()
    first = rotomem.build_model("xmem", state).weights_hash
    state["decoder.pred.bias"] = state["decoder.pred.bias"] + 1e-3
    assert rotomem.build_model("xmem", state).weights_hash != first


def test_load_model_when_a_pickle_carries_code_then_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": Runs()}, path)
    with pytest.raises(CheckpointError, match=r"asks to run exec.*tensors only.*refused") as caught:
        rotomem.load_model(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "said"),
    (("picture", "is not a checkpoint"), ("text", "is not a checkpoint"), ("pickle", r"asks to run pathlib\.")),
)
def test_load_model_when_the_file_is_no_checkpoint_then_no_advice_to_run_it(
    tmp_path: Path, kind: str, said: str
) -> None:
    path = tmp_path / "model.exr"
    if kind == "pickle":
        torch.save({"state_dict": {"x": Path("x")}}, path)
    else:
        path.write_bytes(b"v/1\x01\x02\0\0\0channels\0" if kind == "picture" else b"hello")
    with pytest.raises(CheckpointError, match=rf"{said}.*tensors only") as caught:
        rotomem.load_model(path)
    assert "weights_only" not in str(caught.value) and "PyTorch" not in str(caught.value)


@pytest.mark.parametrize("content", (b"", b"not a checkpoint", b"\x80\x02}q\x00."))
@pytest.mark.parametrize("suffix", (".pth", ".safetensors"))
def test_load_model_when_the_file_is_damaged_then_the_error_names_it(
    tmp_path: Path, content: bytes, suffix: str
) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="broken"):
        rotomem.load_model(path)


def test_build_model_when_keys_do_not_fit_then_the_error_tells_them() -> None:
    state = tiny_model().state_dict()
    del state["decoder.pred.bias"]
    state["decoder.extra"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"missing: decoder\.pred\.bias.*unexpected: decoder\.extra"):
        rotomem.build_model("xmem", state)
    with pytest.raises(CheckpointError, match="no XMem checkpoint"):
        rotomem.build_model("xmem", {"conv.weight": torch.zeros(1)})


def test_load_model_when_asked_for_what_is_not_there_then_the_remedy_lists_what_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="xmem-s"):
        rotomem.load_model("resnet")
    with pytest.raises(UsageError, match="path of a checkpoint"):
        rotomem.load_model("xmem")
    with pytest.raises(UsageError, match="known models"):
        rotomem.build_model("resnet")
    with pytest.raises(UsageError, match="no setting colour"):
        rotomem.build_model("xmem", colour=3)
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="no architecture"):
        rotomem.load_model(path)


def test_load_model_when_device_or_dtype_is_wrong_then_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({k: v.contiguous() for k, v in tiny_model().state_dict().items()}, path)
    with pytest.raises(UsageError, match="float16 convolutions"):
        rotomem.load_model(path, device="cpu", dtype="float16")
    with pytest.raises(UsageError, match="no dtype"):
        rotomem.load_model(path, device="cpu", dtype="int8")
    with pytest.raises(UsageError, match="no device"):
        rotomem.load_model(path, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="CUDA"):
            rotomem.load_model(path, device="cuda")


def test_build_model_when_a_setting_is_given_then_the_network_has_it() -> None:
    model = rotomem.build_model("xmem-s", value_dim=96)
    assert model.plan.value_dim == 96


@pytest.mark.parametrize("name, kind", (("xmem", XMem), ("stcn", STCN), ("stm", STM)))
def test_load_model_when_a_checkpoint_has_no_name_then_its_keys_tell_the_model(
    tmp_path: Path, name: str, kind: type[VOSModel]
) -> None:
    model = MODELS[name]()
    path = tmp_path / "weights.pth"
    torch.save({f"module.{k}": v for k, v in model.state_dict().items()}, path)
    loaded = rotomem.load_model(path, device="cpu", dtype="float32")
    assert type(loaded) is kind and loaded.plan == model.plan
    keys = read_state_dict(path)
    claims = [n for n, e in REGISTRY.items() if e.recognise and e.recognise(keys)]
    assert claims == [name]
