"""Put an adapter where its host looks for it."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

from rotomem.errors import HostError
from rotomem.host import client
from rotomem.io.atomic import whole_file

_NOT_COPIED = ("__pycache__", "*.pyc", "README.md", "*.zip")


def adapters_folder() -> Path:
    """Where the adapters lie: beside the package where it is installed, at the top of a checkout otherwise."""
    package = Path(client.__file__).resolve().parents[1]
    for folder in (package / "host_integrations", package.parents[1] / "host_integrations"):
        if folder.is_dir():
            return folder
    raise HostError(
        "the host adapters are not part of this installation", remedy="install rotomem from its repository"
    )


def assemble(adapter: str, target: Path) -> Path:
    """Copy an adapter into `target`, with the client it carries; the folder is made anew. Returns it."""
    source = adapters_folder() / adapter
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    shutil.copy(client.__file__, target / "client.py")
    return target


def blender_zip(folder: Path) -> Path:
    """Write `rotomem-blender.zip`, the extension as Blender installs it, into `folder`. Raises OutputError."""
    path = folder / "rotomem-blender.zip"
    with tempfile.TemporaryDirectory() as scratch, whole_file(path, what="extension") as part:
        source = assemble("blender", Path(scratch) / "rotomem")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(source.rglob("*")):
                archive.write(file, file.relative_to(source))
    return path
