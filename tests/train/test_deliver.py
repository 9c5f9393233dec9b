from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rotomem.errors import CheckpointError, OutputError
from rotomem.train.checkpoint import load_checkpoint
from rotomem.train.compose import Composer
from rotomem.train.data import PicturePool
from rotomem.train.deliver import collect, deliver
from rotomem.train.loop import train
from rotomem.train.schedule import Budget
from train.tiny import RECIPE, entries

PART = 2**20


@pytest.fixture(scope="module")
def run(pool: PicturePool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(RECIPE, Composer(pool), out, Budget(steps=2))
    return out


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def test_deliver_when_collected_then_the_checkpoint_is_the_same_bytes(run: Path, tmp_path: Path) -> None:
    sizes = deliver(run, tmp_path / "d", part_bytes=PART)
    parts = [name for name in sizes if name.endswith(".part")]
    assert len(parts) > 1 and max(sizes.values()) <= PART
    assert {"xmem-s.safetensors", "log.jsonl.gz", "plot.png", "checkpoint.json"} <= sizes.keys()
    assert {p.name for p in (tmp_path / "d").iterdir()} == sizes.keys()
    assert collect(tmp_path / "d", tmp_path / "again")
    assert (tmp_path / "again/checkpoint.pt").read_bytes() == (run / "checkpoint.pt").read_bytes()
    assert entries(tmp_path / "again") == entries(run)
    average = load_checkpoint(run / "checkpoint.pt")["average"]
    assert all(torch.equal(v, average[k].half()) for k, v in load_file(tmp_path / "d/xmem-s.safetensors").items())


def test_deliver_when_compact_then_it_is_half_and_still_resumes(run: Path, pool: PicturePool, tmp_path: Path) -> None:
    exact = deliver(run, tmp_path / "exact", part_bytes=PART)
    compact = deliver(run, tmp_path / "compact", compact=True, part_bytes=PART)

    def total(sizes: dict[str, int]) -> int:
        return sum(size for name, size in sizes.items() if name.endswith(".part"))

    assert total(compact) < 0.6 * total(exact)
    collect(tmp_path / "compact", tmp_path / "out")
    train(RECIPE, Composer(pool), tmp_path / "out", Budget(steps=4), resume=True)
    shutil.copytree(run, tmp_path / "straight")
    train(RECIPE, Composer(pool), tmp_path / "straight", Budget(steps=4), resume=True)
    rounded, straight = entries(tmp_path / "out"), entries(tmp_path / "straight")
    assert [e["step"] for e in rounded] == [1, 2, 3, 4]
    assert rounded[2]["loss"] == pytest.approx(straight[2]["loss"], rel=0.05)
    assert rounded[2]["loss"] != straight[2]["loss"]


def test_deliver_when_done_again_then_only_the_last_parts_remain(
    run: Path, pool: PicturePool, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(run, out)
    first = deliver(out, tmp_path / "d", part_bytes=PART)
    train(RECIPE, Composer(pool), out, Budget(steps=3), resume=True)
    second = deliver(out, tmp_path / "d", part_bytes=PART)
    assert {p.name for p in (tmp_path / "d").iterdir()} == second.keys()
    assert not {n for n in first if n.endswith(".part")} & second.keys()


@pytest.mark.parametrize("harm", ["missing", "short", "damaged", "list", "log"])
def test_collect_when_something_is_harmed_then_one_error_names_it_and_nothing_is_left(
    harm: str, run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    deliver(run, folder, part_bytes=PART)
    whole = {"list": "checkpoint.json", "log": "log.jsonl.gz"}
    path = folder / whole[harm] if harm in whole else sorted(folder.glob("*.part"))[1]
    data = bytearray(path.read_bytes())
    if harm == "missing":
        path.unlink()
    elif harm == "damaged":
        data[100] ^= 1
        path.write_bytes(data)
    elif harm == "log":
        data[20:24] = b"\xff" * 4  # in the middle of what is compressed
        path.write_bytes(data)
    else:
        path.write_bytes(data[:-10])
    said = {
        "missing": r"part 2 of \d+ .*cannot be read: No such file",
        "short": r"part 2 of \d+ .*has \d+ bytes, expected",
        "damaged": r"part 2 of \d+ .*checksum",
        "list": "no list of a checkpoint's parts",
        "log": "the log is damaged",
    }[harm]
    with pytest.raises(CheckpointError, match=said) as caught:
        collect(folder, tmp_path / "out")
    assert path.name in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_collect_when_nothing_was_delivered_then_it_says_so(tmp_path: Path) -> None:
    assert collect(tmp_path, tmp_path / "out") is False


def test_deliver_when_weights_are_larger_than_a_file_may_be_then_error_tells(run: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"xmem-s\.safetensors has \d+ bytes, more than the 20000"):
        deliver(run, tmp_path / "d", part_bytes=20_000)
