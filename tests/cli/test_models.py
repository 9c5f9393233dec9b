"""`rotomem models`: the list, a look into weights, and published checkpoints as safetensors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import rotomem
from engine.toy import MODELS, tiny_model
from rotomem.cli import main
from rotomem.models import registry

SINGLE = "value_encoder.conv1.weight"


class Runs:
    """A pickle that would run code when it is loaded without care."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('the checkpoint ran its code')",)


def checkpoint(path: Path, weights: dict[str, Any] | None = None, mtime: int = 1_600_000_000) -> Path:
    """A tiny XMem as its authors would have saved it."""
    torch.save(tiny_model().state_dict() if weights is None else weights, path)
    os.utime(path, (mtime, mtime))
    return path


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}, file.metadata()  # noqa: SIM118


def test_list_when_asked_then_every_model_with_weights_and_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(registry.REGISTRY)
    assert "bundled" in lines[0] and "Apache-2.0" in lines[0] and "6.5 M" in lines[0]
    assert "bring your own" in lines[1] and "for research" in lines[1] and "62.2 M" in lines[1]


def test_list_when_json_then_parameters_are_those_of_the_built_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--json"]) == 0
    told = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    built = rotomem.build_model("xmem-s")
    assert told["xmem-s"]["parameters"] == sum(p.numel() for p in built.parameters())
    assert {m["weights"] for m in told.values()} == {"bundled", "bring your own"}


def test_info_when_bundled_then_hash_and_recipe_are_those_of_the_loaded_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "info", "xmem-s", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["hash"] == rotomem.load_model("xmem-s", device="cpu").weights_hash
    assert told["licence"] == "Apache-2.0" and "xmem_s" in told["metadata"]["recipe"] and told["metadata"]["minutes"]
    assert told["plan"]["stride"] == 16 and told["config"]["key_planes"] == [48, 96, 192]


@pytest.mark.parametrize("name", [name for name, entry in registry.REGISTRY.items() if not entry.weights])
def test_info_when_weights_are_the_users_then_the_published_size_is_told(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "info", name]) == 0
    said = capsys.readouterr().out
    assert "bring your own weights" in said and registry.REGISTRY[name].licence in said
    assert "stride            16 pixels" in said and "hash" not in said


def test_info_when_metadata_names_another_model_then_both_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tuned.safetensors"
    save_file(tiny_model().state_dict(), path, metadata={"model": "xmem-s", "licence": "the show's"})
    assert main(["models", "info", str(path)]) == 0
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["model", "xmem"] in rows and ["metadata", "model: xmem-s"] in rows and ["licence", "the show's"] in rows


@pytest.mark.parametrize("container", ("bare", "state_dict", "model", "network", "aot", "nested"))
def test_import_when_in_any_container_then_the_numbers_and_the_model_are_the_same(
    tmp_path: Path, container: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model()
    state: Any = {f"module.{k}": v for k, v in model.state_dict().items()}
    wrapped = {
        "bare": state,
        "aot": {"state_dict": state, "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]}},
        "nested": {"model": {"state_dict": state}, "epoch": 4},
    }.get(container, {container: state})
    source, out = checkpoint(tmp_path / "XMem.pth", wrapped), tmp_path / "new/XMem.safetensors"
    assert main(["models", "import", str(source), "-o", str(out)]) == 0
    assert "is XMem" in capsys.readouterr().out
    tensors, facts = read(out)
    assert tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensors[k], v) for k, v in model.state_dict().items())
    assert facts["source"] == "XMem.pth" and facts["source_date"] == "2020-09-13" and facts["model"] == "xmem"
    assert "for research" in facts["licence"] and len(facts["source_sha256"]) == 64
    hashes = {rotomem.load_model(p, device="cpu").weights_hash for p in (source, out)}
    assert len(hashes) == 1


def test_import_when_repeated_then_the_same_bytes(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "a.pth")
    outs = [tmp_path / f"{i}.safetensors" for i in range(4)]
    for out in outs:
        assert main(["models", "import", str(source), "-o", str(out)]) == 0
    assert len({out.read_bytes() for out in outs}) == 1


def test_import_when_half_then_float16_and_too_large_numbers_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tiny_model().state_dict()
    state["decoder.pred.bias"] = torch.tensor([0.1])
    source, out = checkpoint(tmp_path / "a.pth", state), tmp_path / "a.safetensors"
    assert main(["models", "import", str(source), "-o", str(out), "--half", "--licence", "CC0"]) == 0
    tensors, facts = read(out)
    assert tensors["decoder.pred.bias"].item() == torch.tensor(0.1).half().item() and facts["licence"] == "CC0"
    assert {v.dtype for v in tensors.values()} == {torch.float16, torch.int64}
    again = tmp_path / "again.safetensors"
    assert main(["models", "import", str(out), "-o", str(again)]) == 0
    assert read(again)[1]["source"] == "a.pth" and read(again)[1]["licence"] == "CC0"
    checkpoint(source, {**state, "decoder.pred.bias": torch.tensor([1e6])})
    assert main(["models", "import", str(source), "-o", str(tmp_path / "b.safetensors"), "--half"]) == 2
    assert "decoder.pred.bias is not finite in float16" in capsys.readouterr().err
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize("name", ("xmem", "stcn"))
def test_import_when_of_one_object_then_a_channel_of_zeros_is_added_and_told(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = MODELS[name]().state_dict()
    state[SINGLE] = state[SINGLE][:, :4].clone()
    source, out = checkpoint(tmp_path / "s0.pth", state), tmp_path / "s0.safetensors"
    assert main(["models", "import", str(source), "-o", str(out)]) == 0
    assert "knows one object" in capsys.readouterr().out
    conv = read(out)[0][SINGLE]
    assert conv.shape[1] == 5 and torch.equal(conv[:, :4], state[SINGLE]) and not conv[:, 4].any()
    assert len({rotomem.load_model(p, device="cpu").weights_hash for p in (source, out)}) == 1


def test_import_when_without_sensory_memory_then_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {k: v for k, v in tiny_model().state_dict().items() if "hidden_" not in k}
    source = checkpoint(tmp_path / "no.pth", state)
    assert main(["models", "import", str(source), "-o", str(tmp_path / "no.safetensors")]) == 2
    state["decoder.fuser.block1.conv1.weight"] = state["decoder.fuser.block1.conv1.weight"][:, :-8]
    state["decoder.fuser.block1.downsample.weight"] = state["decoder.fuser.block1.downsample.weight"][:, :-8]
    capsys.readouterr()
    assert main(["models", "import", str(checkpoint(source, state)), "-o", str(tmp_path / "no.safetensors")]) == 0
    assert "no sensory memory" in capsys.readouterr().out
    assert rotomem.load_model(tmp_path / "no.safetensors", device="cpu").plan.sensory_dim == 0


def test_import_when_keys_do_not_fit_then_each_is_told_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tiny_model().state_dict()
    del state["decoder.pred.bias"]
    state.update({f"extra.{i:02d}": torch.zeros(1) for i in range(23)})
    state["decoder.pred.weight"] = torch.zeros(2, 2)
    out = tmp_path / "a.safetensors"
    assert main(["models", "import", str(checkpoint(tmp_path / "a.pth", state)), "-o", str(out)]) == 2
    said = capsys.readouterr().err
    assert "missing (1):\n  decoder.pred.bias\n" in said
    assert "unexpected (23):\n  extra.00\n" in said and "  extra.19\n  and 3 more\n" in said
    assert "decoder.pred.weight is (2, 2), expected (1, 8, 3, 3)" in said
    assert said.splitlines()[-1].startswith("rotomem: the checkpoint is nearest to XMem") and not out.exists()


@pytest.mark.parametrize("lost", ("key_proj.d_proj.weight", "key_proj.key_proj.weight"))
def test_import_when_a_key_that_tells_the_model_is_lost_then_it_is_named(
    tmp_path: Path, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {k: v for k, v in registry.outline("xmem").state_dict().items() if k != lost}
    small = {k: torch.zeros(()).expand(v.shape) for k, v in state.items()}
    source = checkpoint(tmp_path / "a.pth", small)
    assert main(["models", "info", str(source)]) == 2
    assert f"missing (1):\n  {lost}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("weights", "options", "said"),
    [
        ({"state_dict": Runs()}, (), "asks to run exec"),
        ({"weight": torch.zeros(3)}, (), "no architecture rotomem knows"),
        ({"epoch": 3}, (), "holds no state_dict"),
        (None, ("-o", "{}/out.pth"), "let it end in .safetensors"),
        (None, ("-o", "{}/there.safetensors"), "use --overwrite"),
        (None, ("-o", "{}/folder.safetensors", "--overwrite"), "a folder stands where"),
    ],
)
def test_import_when_it_cannot_then_one_line_and_nothing_is_written(
    tmp_path: Path,
    weights: Any,
    options: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "there.safetensors").write_text("mine")
    (tmp_path / "folder.safetensors").mkdir()
    source = checkpoint(tmp_path / "a.pth", weights)
    before = sorted(tmp_path.iterdir())
    told = [o.replace("{}", str(tmp_path)) for o in options] or ["-o", str(tmp_path / "out.safetensors")]
    assert main(["models", "import", str(source), *told]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "there.safetensors").read_text() == "mine"


def test_import_when_told_to_overwrite_then_it_does_but_never_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = checkpoint(tmp_path / "a.pth"), tmp_path / "a.safetensors"
    out.write_text("old")
    assert main(["models", "import", str(source), "-o", str(out), "--overwrite"]) == 0
    assert read(out)[1]["source"] == "a.pth"
    assert main(["models", "import", str(out), "-o", str(out), "--overwrite"]) == 2
    assert main(["models", "info", str(tmp_path / "nothing.pth")]) == 2
    assert main(["models", "import", str(tmp_path / "nothing.pth"), "-o", str(tmp_path / "b.safetensors")]) == 2
    said = capsys.readouterr().err
    assert "cannot replace itself" in said and "neither a model nor a file" in said and "no such file" in said


def test_registry_when_shown_every_published_manifest_then_one_entry_takes_it_whole(shared: Path) -> None:
    folder = shared / "models/manifests"
    index = json.loads((folder / "index.json").read_text())
    assert len(index) == 27
    for manifest, facts in index.items():
        shapes = json.loads((folder / f"{manifest}.json").read_text())
        state = {
            f"module.{k}": torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
            for k, (shape, dtype) in shapes.items()
        }
        tensors = registry.as_loaded(state)
        claims = [name for name, entry in registry.REGISTRY.items() if entry.recognise and entry.recognise(tensors)]
        assert len(claims) == 1, manifest
        model = registry.outline(claims[0], tensors)
        assert registry.misfits(model, tensors) == {}, manifest
        channel = 64 * 7 * 7 if "single_object" in manifest else 0  # the one of zeros
        assert sum(p.numel() for p in model.parameters()) == facts["parameters"] + channel, manifest
