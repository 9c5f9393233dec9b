"""Put an adapter where its host looks for it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from rotomem.errors import HostError
from rotomem.host import client
from rotomem.interop.quoting import lua
from rotomem.io.atomic import whole_file

_NOT_COPIED = ("__pycache__", "*.pyc", "README.md", "TRY.md", ".*", "*.zip")


def adapters_folder() -> Path:
    """Where the adapters lie: beside the package where it is installed, at the top of a checkout otherwise."""
    package = Path(client.__file__).resolve().parents[1]
    for folder in (package / "host_integrations", package.parents[1] / "host_integrations"):
        if folder.is_dir():
            return folder
    raise HostError(
        "the host adapters are not part of this installation", remedy="install rotomem from its repository"
    )


def assemble(adapter: str, target: Path, package: str = "") -> Path:
    """Copy an adapter into `target`, with the client it carries in `package`; the folder is made anew. Returns it."""
    source = adapters_folder() / adapter
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    shutil.copy(client.__file__, target / package / "client.py")
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


def install_nuke(user: Path) -> list[Path]:
    """Put the plug-in into Nuke's user folder (~/.nuke) and have its init.py load it; the files written.

    The plug-in remembers this Python as its engine, so that nothing needs to be set in Nuke.

    Raises HostError where a folder `rotomem` of somebody else's is in the way, and where nothing can be written.
    """
    target, init = user / "rotomem", user / "init.py"
    if target.exists() and not (target / "rotomem_nuke").is_dir():
        raise HostError(
            "the folder rotomem is something else's", remedy="move it, or give another --user", path=target
        )
    load = 'nuke.pluginAddPath("./rotomem")'
    try:
        user.mkdir(parents=True, exist_ok=True)
        assemble("nuke", target, "rotomem_nuke")
        (target / "rotomem_nuke" / "engine.txt").write_text(sys.executable + "\n", encoding="utf-8")
        text = init.read_text(encoding="utf-8") if init.exists() else ""
        if load not in text:
            with whole_file(init, what="init.py") as part:
                part.write_text(text + ("\n" if text and not text.endswith("\n") else "") + f"import nuke\n{load}\n")
    except OSError as error:
        raise HostError(
            f"the plug-in cannot be written: {error.strerror}", remedy="give another --user", path=user
        ) from error
    return [target, init]


def resolve_folder(
    platform: str = sys.platform, home: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Path:
    """Where Resolve looks for a user's Fusion scripts and modules ("Scripting" README of Resolve 21)."""
    home = home or Path.home()
    if platform == "win32":
        roaming = Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
        return roaming / "Blackmagic Design" / "DaVinci Resolve" / "Support" / "Fusion"
    if platform == "darwin":
        library = home / "Library" / "Application Support"
        return library / "Blackmagic Design" / "DaVinci Resolve" / "Fusion"
    return home / ".local" / "share" / "DaVinciResolve" / "Fusion"


def install_resolve(fusion: Path) -> list[Path]:
    """Put the scripts into Resolve's (or Fusion's) folder that holds `Scripts` and `Modules`; the files written.

    They remember this Python as their engine. A `rotomem_settings.lua` that is there stays.
    """
    source = adapters_folder() / "resolve"
    written = []
    for file in sorted(source.rglob("*")):
        place = file.relative_to(source)
        if file.is_file() and place.parts[0] in ("Scripts", "Modules") and file.suffix in (".lua", ".py"):
            written.append(_copy(file, fusion / place))
    written.append(_copy(Path(client.__file__), fusion / "Modules" / "Python" / "rotomem_studio" / "client.py"))
    engine = fusion / "Modules" / "Lua" / "rotomem_engine.lua"
    with whole_file(engine, what="engine's path") as part:
        part.write_text(f"return {{ engine = {lua(sys.executable)} }}\n", encoding="utf-8", errors="surrogateescape")
    return [*written, engine]


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target, what="script") as part:
        shutil.copyfile(source, part)
    return target
