"""A run as files small enough to carry anywhere: the weights, the log, the plot, and the checkpoint in parts.

The parts are named after their step and listed in `checkpoint.json` with their checksums; the list is written last,
so a delivery that was cut short leaves the one before it whole.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rotomem.errors import CheckpointError, OutputError
from rotomem.train.checkpoint import export_weights, load_checkpoint, save_checkpoint

PART_BYTES = 16 * 2**20
"""No delivered file is larger."""

_LIST = "checkpoint.json"
_FORMAT = "rotomem-parts-1"


def deliver(
    out: str | Path, folder: str | Path, *, compact: bool = False, part_bytes: int = PART_BYTES
) -> dict[str, int]:
    """Leave in `folder` what the run in `out` has come to; returns its files and their sizes.

    compact      the checkpoint in 16 bits a number: half the size, and a resume that is exact but for rounding
    part_bytes   size of the checkpoint's parts and largest size of any file

    Raises CheckpointError where there is no checkpoint, OutputError where the weights or the log are too large.
    """
    out, folder = Path(out), Path(folder)
    make_folder(folder)
    source = out / "checkpoint.pt"
    state = load_checkpoint(source)
    weights = export_weights(state, folder / f"{state['model_name']}.safetensors")
    compacted = folder / ".checkpoint.pt"
    if compact:
        save_checkpoint(halved(state), compacted)
    try:
        parts = _split(compacted if compact else source, folder, int(state["step"]), part_bytes)
    finally:
        compacted.unlink(missing_ok=True)
    log, plot = folder / "log.jsonl.gz", folder / "plot.png"
    if (out / "log.jsonl").exists():
        _replace(log, gzip.compress((out / "log.jsonl").read_bytes(), mtime=0))
    if (out / plot.name).exists():
        _replace(plot, (out / plot.name).read_bytes())
    for path in (weights, log):
        if path.exists() and path.stat().st_size > part_bytes:
            raise OutputError(
                f"{path.name} has {path.stat().st_size} bytes, more than the {part_bytes} a delivered file may have",
                path=path,
                remedy="carry it by other means; everything else has been delivered",
            )
    files = [weights, log, plot, folder / _LIST, *parts]
    return {path.name: path.stat().st_size for path in files if path.exists()}


def make_folder(folder: str | Path) -> None:
    """Make a folder that a run will write to. Raises OutputError where it cannot be: better now than when it ends."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder: {error.strerror}", path=folder, remedy="choose another one"
        ) from None


def collect(folder: str | Path, out: str | Path) -> bool:
    """Put a delivered run back into `out`, to be resumed there; False where `folder` holds none.

    Raises CheckpointError naming the part that is missing or damaged.
    """
    folder, out = Path(folder), Path(out)
    listed = folder / _LIST
    if not listed.exists():
        return False
    try:
        contents = json.loads(listed.read_text())
        if contents["format"] != _FORMAT:
            raise ValueError(contents["format"])
        parts = [(str(part["file"]), int(part["bytes"]), str(part["sha256"])) for part in contents["parts"]]
    except (ValueError, KeyError, TypeError):
        raise CheckpointError("this is no list of a checkpoint's parts", path=listed, remedy=_AGAIN) from None
    out.mkdir(parents=True, exist_ok=True)
    joined = out / ".checkpoint.pt.part"
    try:
        with joined.open("wb") as file:
            for i, (name, size, digest) in enumerate(parts, 1):
                file.write(_checked(folder / name, size, digest, f"part {i} of {len(parts)} of the checkpoint"))
            file.flush()
            os.fsync(file.fileno())
        log = folder / "log.jsonl.gz"
        if log.exists():
            _replace(out / "log.jsonl", gzip.decompress(log.read_bytes()))
        joined.replace(out / "checkpoint.pt")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CheckpointError(f"the log is damaged: {error}", path=log, remedy=_AGAIN) from None
    finally:
        joined.unlink(missing_ok=True)
    return True


def halved(state: Mapping[str, Any]) -> dict[str, Any]:
    """A run's state in 16 bits a number: weights as float16, the optimiser's moments as bfloat16 for their range."""

    def shrink(item: Any, dtype: torch.dtype) -> Any:
        if isinstance(item, Tensor):
            return item.to(dtype) if item.dtype == torch.float32 and item.dim() else item
        if isinstance(item, Mapping):
            return {key: shrink(value, dtype) for key, value in item.items()}
        if isinstance(item, list):
            return [shrink(value, dtype) for value in item]
        return item

    kinds = {"model": torch.float16, "average": torch.float16, "optimiser": torch.bfloat16}
    return {key: shrink(value, kinds[key]) if key in kinds else value for key, value in state.items()}


_AGAIN = "copy the whole delivered folder again"


def _checked(path: Path, size: int, digest: str, what: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{what} cannot be read: {error.strerror}", path=path, remedy=_AGAIN) from None
    if len(data) != size:
        raise CheckpointError(f"{what} has {len(data)} bytes, expected {size}", path=path, remedy=_AGAIN)
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{what} is damaged: its checksum differs", path=path, remedy=_AGAIN)
    return data


def _split(source: Path, folder: Path, step: int, part_bytes: int) -> list[Path]:
    """`source` as parts in `folder`, then the list, then no older parts; returns the parts."""
    parts = []
    for i, data in enumerate(_pieces(source, part_bytes)):
        name = f"checkpoint-{step}-{i:02d}.part"
        _replace(folder / name, data)
        parts.append({"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    contents = {"format": _FORMAT, "step": step, "parts": parts}
    _replace(folder / _LIST, (json.dumps(contents, indent=1) + "\n").encode())
    named = {str(part["file"]) for part in parts}
    for path in folder.iterdir():
        if re.fullmatch(r"checkpoint-\d+-\d+\.part", path.name) and path.name not in named:
            path.unlink()
    return [folder / name for name in sorted(named)]


def _pieces(source: Path, size: int) -> Iterator[bytes]:
    with source.open("rb") as file:
        while data := file.read(size):
            yield data


def _replace(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all."""
    part = path.with_name(f".{path.name}.new")
    part.write_bytes(data)
    part.replace(path)
