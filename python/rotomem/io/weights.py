"""Weights as safetensors files that appear whole, the same bytes every time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from rotomem.io.atomic import whole_file


def write_weights(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path) -> int:
    """Write tensors, contiguous and none twice, with their metadata; returns the file's bytes.

    The library leaves the order of metadata to chance, and with it the file's hash; here it is sorted.

    Raises OutputError.
    """
    data = save(dict(tensors), metadata=dict(metadata))
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with whole_file(path, what="weights") as part:
        part.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
    return path.stat().st_size
