"""Choosing and forcing a backend."""

from __future__ import annotations

import pytest
import torch

from rotomem import ops
from rotomem.errors import BackendError
from rotomem.ops import backend


@pytest.fixture(autouse=True)
def nothing_forced(monkeypatch):
    monkeypatch.delenv("ROTOMEM_BACKEND", raising=False)


@pytest.fixture
def native():
    if backend.kernels is None:
        pytest.skip("the native kernels are not built")


def read(**more: object) -> ops.Readout:
    key = torch.rand(1, 4, 6)
    return ops.read_memory(key, torch.rand(1, 4, 3), torch.rand(1, 1, 2, 6), **more)


def test_auto_takes_the_widest_native_kernels(native):
    assert backend.current() == f"native-{backend.kernels.instruction_sets()[-1]}"
    assert backend.current() in backend.explain()
    assert backend.choose(torch.rand(2)) is not None


def test_auto_leaves_gradients_and_other_types_to_torch(native):
    assert backend.choose(torch.rand(2, requires_grad=True)) is None
    assert backend.choose(torch.rand(2, requires_grad=True), differentiable=True) is not None
    assert backend.choose(torch.rand(2, dtype=torch.float64)) is None
    assert backend.choose(torch.rand(2).half()) is None
    with torch.no_grad():
        assert backend.choose(torch.rand(2, requires_grad=True)) is not None


def test_environment_forces_a_backend(native, monkeypatch):
    monkeypatch.setenv("ROTOMEM_BACKEND", "torch")
    assert backend.current() == "torch"
    assert "ROTOMEM_BACKEND=torch" in backend.explain()
    monkeypatch.setenv("ROTOMEM_BACKEND", "native-portable")
    assert backend.choose(torch.rand(2)) == "portable"
    with backend.use("torch"):
        assert backend.current() == "torch"
    assert backend.current() == "native-portable"


def test_unknown_backend_is_refused(monkeypatch):
    monkeypatch.setenv("ROTOMEM_BACKEND", "cuda9")
    with pytest.raises(BackendError, match=r"no backend called 'cuda9'.*use one of"):
        read()


def test_forced_native_never_gives_way(native):
    with backend.use("native"):
        key = torch.rand(1, 4, 6, requires_grad=True)
        with pytest.raises(BackendError, match="a gradient is needed"):
            ops.read_memory(key, torch.rand(1, 4, 3), torch.rand(1, 1, 2, 6), top_k=None)
        with pytest.raises(BackendError, match="float64"):
            ops.read_memory(torch.rand(1, 4, 6).double(), torch.rand(1, 4, 3), torch.rand(1, 1, 2, 6))
        with pytest.raises(BackendError, match="not on the CPU"):
            backend.choose(torch.rand(2, device="meta"))


def test_forced_native_without_a_build_names_the_remedy(monkeypatch):
    monkeypatch.setattr(backend, "kernels", None)
    assert backend.available() == ("torch",)
    assert backend.current() == "torch"
    assert "not built" in backend.explain()
    assert read().readout.shape == (1, 1, 2, 3)
    with pytest.raises(BackendError, match="pip install"), backend.use("native"):
        pass


def test_forced_instructions_that_the_processor_lacks_are_refused(native, monkeypatch):
    class Old:
        @staticmethod
        def instruction_sets() -> list[str]:
            return ["portable"]

    monkeypatch.setattr(backend, "kernels", Old)
    with pytest.raises(BackendError, match="has only portable"), backend.use("native-avx512"):
        pass
    assert backend.current() == "native-portable"
