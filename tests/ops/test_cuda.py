"""The public functions over kernels for NVIDIA devices: emulated here, and on devices where there are any."""

from __future__ import annotations

import pytest
import torch

from kernels.cuda_on_cpu import load
from rotomem import ops
from rotomem.errors import BackendError, EmptyMemoryError
from rotomem.ops import _check, _cuda, _torch, backend


@pytest.fixture
def emulated(monkeypatch):
    """CPU tensors go where a device's would."""
    monkeypatch.setattr(backend, "kernels", load())
    monkeypatch.setattr(backend, "choose", lambda *tensors, cuda=False, **_: "cuda" if cuda else None)
    monkeypatch.setattr(_cuda, "queue", lambda device: {"device": 0, "stream": 0})


def memory(dtype: torch.dtype = torch.float32, elements: int = 300) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "key": torch.randn(2, elements, 16).to(dtype).transpose(1, 2),
        "query_key": torch.randn(2, 16, 5).to(dtype),
        "value": torch.randn(2, 3, elements, 12).to(dtype).transpose(2, 3),
        "shrinkage": 1 + torch.rand(2, elements).to(dtype),
        "selection": torch.rand(2, 16, 5).to(dtype),
    }


def both(monkeypatch, given, **options):
    """The same read by the kernels and by torch."""
    ours = ops.read_memory(**given, **options)
    with monkeypatch.context() as torch_only:
        torch_only.setattr(backend, "choose", lambda *tensors, cuda=False, **_: None)
        return ours, ops.read_memory(**given, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_read_memory_when_on_a_device_then_equals_torch(emulated, monkeypatch, dtype):
    valid = torch.rand(2, 300) < 0.7
    ours, plain = both(monkeypatch, memory(dtype), top_k=6, valid=valid, need_usage=True)
    assert ours.readout.dtype == dtype and ours.readout.shape == (2, 3, 12, 5)
    assert torch.allclose(ours.readout.float(), plain.readout.float(), atol=4 * torch.finfo(dtype).eps)
    assert torch.allclose(ours.usage, plain.usage, atol=1e-5)


def test_read_memory_when_values_are_not_rows_then_they_are_turned(emulated, monkeypatch):
    given = memory()
    given["value"] = given["value"].contiguous()
    ours, plain = both(monkeypatch, given, top_k=400)
    assert torch.allclose(ours.readout, plain.readout, atol=1e-5)
    assert ours.usage is None


def test_mask_when_on_a_device_then_nobody_waits_to_look_into_it():
    nothing = torch.zeros(1, 6, dtype=torch.bool)
    with pytest.raises(EmptyMemoryError):
        _check.mask(nothing, 1, 6)
    _check.mask(nothing.to("meta"), 1, 6)  # numbers that cannot be looked at


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_consolidate_when_on_a_device_then_equals_torch(emulated, monkeypatch, dtype):
    given = memory(dtype)
    candidates = [given["key"], given["shrinkage"], given["value"], given["key"].abs() * 0.1]
    usage, valid = torch.rand(2, 300), torch.rand(2, 300) < 0.7
    ours = ops.consolidate(*candidates, usage, 7, valid=valid)
    with monkeypatch.context() as torch_only:
        torch_only.setattr(backend, "choose", lambda *tensors, cuda=False: None)
        plain = ops.consolidate(*candidates, usage, 7, valid=valid)
    assert torch.equal(ours.index, plain.index) and torch.equal(ours.key, plain.key)
    for name in ("shrinkage", "value"):
        got, expected = getattr(ours, name), getattr(plain, name)
        assert got.dtype == dtype
        assert torch.allclose(got.float(), expected.float(), atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("top_k", "says"), [(None, "no full softmax"), (513, "top_k is 513, more than 512")])
def test_read_memory_when_a_device_cannot_then_torch_does_unless_forced(emulated, monkeypatch, top_k, says):
    given = memory(elements=600)
    ours, plain = both(monkeypatch, given, top_k=top_k)
    assert torch.equal(ours.readout, plain.readout)
    monkeypatch.setenv("ROTOMEM_BACKEND", "native-cuda")
    with pytest.raises(BackendError, match=says):
        ops.read_memory(**given, top_k=top_k)


class Device:
    """What `choose` looks at of a tensor on an NVIDIA device."""

    device = torch.device("cuda", 0)
    dtype = torch.float32
    requires_grad = False

    def is_floating_point(self) -> bool:
        return True


class Other(Device):
    device = torch.device("cuda", 1)


class Double(Device):
    dtype = torch.float64


class Learning(Device):
    requires_grad = True


class Half(Device):
    dtype = torch.float16


@pytest.fixture
def status(monkeypatch):
    """Sets what the kernels say of devices."""
    monkeypatch.delenv("ROTOMEM_BACKEND", raising=False)

    def say(devices: list[str], trouble: str) -> None:
        monkeypatch.setattr(backend, "_cuda_status", lambda: (devices, trouble))

    if backend.kernels is None:
        pytest.skip("the native kernels are not built")
    return say


def test_choose_when_a_device_is_there_then_its_kernels_take_floats_and_halves(status):
    status(["H (9.0)"], "")
    assert backend.choose(Device(), Half(), None, cuda=True) == "cuda"
    assert backend.choose(Device(), cuda=False) is None
    assert backend.choose(Device(), Double(), cuda=True) is None
    assert backend.choose(Device(), Learning(), cuda=True, differentiable=True) is None
    assert backend.choose(Device(), Other(), cuda=True) is None
    assert backend.choose(Device(), torch.rand(2), cuda=True) is None
    assert backend.choose(torch.rand(2), cuda=True) == backend.kernels.instruction_sets()[-1]
    assert backend.current("cuda") == "native-cuda"
    assert backend.available("cuda") == ("torch", "native-cuda")
    assert "native-cuda" not in backend.available()
    assert backend.explain_cuda() == "native-cuda: H (9.0); torch for float64 and gradients"
    for name in ("native", "native-cuda"):
        with backend.use(name):
            assert backend.choose(Device(), cuda=True) == "cuda"
            with pytest.raises(BackendError, match="not on one device"):
                backend.choose(Device(), Other(), cuda=True)
    with backend.use("native-cuda"):
        with pytest.raises(BackendError, match="no tensor is on an NVIDIA device"):
            backend.choose(torch.rand(2), cuda=True)
        with pytest.raises(BackendError, match="no kernel for this"):
            backend.choose(Device())
    with backend.use("native-portable"), pytest.raises(BackendError, match="not on the CPU"):
        backend.choose(Device(), cuda=True)


def test_ops_when_a_backend_is_chosen_then_every_tensor_is_looked_at(monkeypatch):
    """One on another device than the rest would be an address that a kernel must not follow."""
    asked: list[tuple[torch.Tensor | None, ...]] = []
    monkeypatch.setattr(backend, "choose", lambda *tensors, **_: asked.append(tensors))
    given, valid, index = memory(), torch.ones(2, 300, dtype=torch.bool), torch.arange(4).expand(2, 4)
    candidates = (given["key"], given["shrinkage"], given["value"], given["key"])
    usage = given["shrinkage"]
    one = {name: tensor[:1] for name, tensor in given.items()}
    values, valids = [one.pop("value")], [valid[:1]]
    for call, expected in (
        (lambda: ops.read_memory(**given, valid=valid), (*given.values(), valid)),
        (lambda: ops.read_groups(**one, values=values, valids=valids), (*one.values(), *values, *valids)),
        (lambda: ops.consolidate(*candidates, usage, 4, valid=valid, index=index), (*candidates, index, valid)),
    ):
        asked.clear()
        call()
        assert all(any(tensor is seen for seen in asked[0]) for tensor in expected)


def test_read_memory_when_valid_is_on_another_device_then_says_so():
    valid = torch.ones(2, 300, dtype=torch.bool, device="meta")
    with backend.use("native"), pytest.raises(BackendError, match="not on one device"):
        ops.read_memory(**memory(), valid=valid)


def test_choose_when_no_device_can_be_used_then_torch_runs_and_the_reason_is_told(status):
    status([], "there is no NVIDIA driver")
    assert backend.choose(Device(), cuda=True) is None
    assert backend.current("cuda") == "torch"
    assert backend.available("cuda") == ("torch",)
    assert backend.explain_cuda() == "torch, where it has such a device: there is no NVIDIA driver"
    with pytest.raises(BackendError, match="native-cuda is forced, but there is no NVIDIA driver"):
        backend.use("native-cuda").__enter__()
    with backend.use("native"), pytest.raises(BackendError, match="there is no NVIDIA driver"):
        backend.choose(Device(), cuda=True)


def window(reach: int = 3, channels: int = 8, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    places = (2 * reach + 1) ** 2
    shapes = {
        **dict.fromkeys(("query", "key", "value"), (2, 2 * channels, 5, 7)),
        "relative_key": (2, places, channels),
        "relative_bias": (2, places),
        "relative_value": (2, channels, places),
    }
    return {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_local_attention_when_on_a_device_then_equals_torch(emulated, dtype):
    given = window(dtype=dtype)
    ours, plain = ops.local_attention(**given), _torch.local_attention(**{n: t.float() for n, t in given.items()})
    assert ours.dtype == dtype and ours.shape == plain.shape
    assert torch.allclose(ours.float(), plain, atol=16 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("shape", "says"), [({"reach": 8}, "289 places, more than 225"), ({"channels": 40}, "40 channels, more than 32")]
)
def test_local_attention_when_a_device_cannot_then_torch_does_unless_forced(emulated, monkeypatch, shape, says):
    given = window(**shape)
    assert torch.allclose(ops.local_attention(**given), _torch.local_attention(**given))
    monkeypatch.setenv("ROTOMEM_BACKEND", "native-cuda")
    with pytest.raises(BackendError, match=says):
        ops.local_attention(**given)


def test_attend_when_on_a_device_then_torch_does_it(emulated):
    query, key, value = torch.randn(3, 1, 2, 6, 4)
    assert torch.allclose(ops.attend(query, key, value), _torch.attend(query, key, value))
