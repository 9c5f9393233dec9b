from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rotomem.errors import InputError, MissingFrameError
from rotomem.io.quality import QualityFile


def test_quality_file_when_written_then_it_reads_back_without_what_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    signals = {1002: {"Zoë": {"confidence": 0.25, "match": math.nan}}, 1001: {"Zoë": {"confidence": 1.0}}}
    QualityFile("sh010", ("Zoë",), {1001: ("Zoë",)}, signals).write(path)
    again = QualityFile.read(path)
    assert again.objects == ("Zoë",) and again.keys == {1001: ("Zoë",)}
    assert again.signals == {1001: {"Zoë": {"confidence": 1.0}}, 1002: {"Zoë": {"confidence": 0.25}}}
    first = path.read_bytes()
    again.write(path)
    assert path.read_bytes() == first


def test_quality_file_when_it_is_another_file_or_none_then_one_line_says_so(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    with pytest.raises(MissingFrameError, match="no quality file"):
        QualityFile.read(path)
    for text in ("{", "[]", json.dumps({"rotomem_quality": 99}), json.dumps({"rotomem_quality": 1})):
        path.write_text(text)
        with pytest.raises(InputError, match="quality file"):
            QualityFile.read(path)
