from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from rotomem.errors import OutputError
from rotomem.io.weights import write_weights


def test_write_weights_when_written_twice_then_bytes_are_equal_and_read_back(tmp_path):
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1, 2])}
    facts = {name: name * 3 for name in "qwertyuiopasdfgh"}
    for folder in ("one", "two"):
        size = write_weights(tensors, facts, tmp_path / folder / "w.safetensors")
    first, second = ((tmp_path / folder / "w.safetensors").read_bytes() for folder in ("one", "two"))
    assert first == second and len(first) == size
    assert list(facts) != sorted(facts)
    with safe_open(tmp_path / "one" / "w.safetensors", "pt") as file:
        assert file.metadata() == facts
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())


def test_write_weights_when_folder_is_a_file_then_says_so(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="cannot write the weights"):
        write_weights({"a": torch.zeros(1)}, {}, tmp_path / "out" / "w.safetensors")
