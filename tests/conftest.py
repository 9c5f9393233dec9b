"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared_root() -> Path:
    """The folder of recordings and sample data: $ROTOMEM_SHARED, else ../shared beside the checkout."""
    return Path(os.environ.get("ROTOMEM_SHARED", ROOT.parent / "shared")).resolve()


@pytest.fixture(scope="session")
def shared() -> Path:
    root = shared_root()
    if not root.is_dir():
        pytest.skip(f"no shared data at {root}; set ROTOMEM_SHARED to run this test")
    return root
