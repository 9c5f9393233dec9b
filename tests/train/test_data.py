from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rotomem.errors import InputError
from rotomem.train.data import PicturePool, cut_out, load_pool, read_bytes


def test_load_pool_when_folder_is_read_then_sources_are_told_apart(pool: PicturePool) -> None:
    assert pool.pictures.shape == (11, 3, 96, 96) and pool.pictures.dtype == torch.uint8
    assert pool.stills == 6
    assert pool.labelled.tolist() == [0, 1, 2]
    assert pool.runs.tolist() == [[6, 5]]
    assert len(pool.cutouts) == 3
    assert torch.allclose(pool.aspect, torch.full((11,), 160 / 120))


def test_cut_out_when_object_is_a_disc_then_square_holds_it_with_its_shape() -> None:
    y, x = torch.meshgrid(torch.arange(100), torch.arange(140), indexing="ij")
    coverage = torch.hypot(x - 90.0, y - 40.0) < 25
    cut = cut_out(torch.full((3, 100, 140), 200, dtype=torch.uint8), coverage, 64, 0.06)
    half = int(49 * 0.56) + 1
    filled = cut[3].float().mean() / 255
    assert abs(filled - coverage.sum() / (2 * half) ** 2) < 0.01
    assert cut[3, 32, 32] == 255 and cut[3, 0, 0] == 0


def test_cut_out_when_object_touches_the_border_then_beyond_is_empty() -> None:
    coverage = torch.zeros(60, 60, dtype=torch.bool)
    coverage[:20, :20] = True
    cut = cut_out(torch.full((3, 60, 60), 99, dtype=torch.uint8), coverage, 32, 0.1)
    assert cut[:, 0, 0].tolist() == [0, 0, 0, 0]
    assert cut[3, 16, 16] == 255


def test_load_pool_when_manifest_is_missing_then_error_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json"):
        load_pool(tmp_path)


def test_load_pool_when_picture_is_damaged_then_error_names_it(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"images": [{"file": "bad.png"}]}))
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with pytest.raises(InputError, match=r"bad\.png"):
        load_pool(tmp_path)


def test_read_bytes_when_map_is_grey_then_values_are_kept(source_folder: Path) -> None:
    assert read_bytes(source_folder / "mask/0.png", 1).unique().tolist() == [0, 1]
