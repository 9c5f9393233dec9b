"""`rotomem shots`: an edit becomes shot projects."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rotomem.interop.edit import Cut

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "shots",
        help="an edit (OpenTimelineIO, EDL, FCPXML) becomes a shot project a clip",
        description="Begin a shot project for every clip of EDIT: OUT/NAME/rotomem.toml, with the plate and "
        "the frames that are seen. Projects that are there stay as they are.",
        epilog="example: rotomem shots reel2.otio -o shots/ --handles 8; then in a shot's folder "
        "`rotomem object add hero@1001=hero.exr` and `rotomem run`",
    )
    parser.add_argument("edit", type=Path, metavar="EDIT", help=".otio; .edl, .fcpxml and others with their adapter")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="the folder for the projects")
    parser.add_argument("--handles", type=int, default=0, metavar="N", help="frames to add at both ends (0)")
    parser.add_argument("--root", type=Path, metavar="DIR", help="look here for plates that are not where EDIT says")
    parser.add_argument("--fps", type=float, metavar="N", help="of an EDL, which does not say (24)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be begun")


def run(args: argparse.Namespace) -> int:
    """Begin them; exit code."""
    from rotomem.errors import EXIT_OK
    from rotomem.interop.edit import read_edit

    cuts, notes = read_edit(args.edit, handles=args.handles, root=args.root, fps=args.fps)
    width = max(len(cut.name) for cut in cuts)
    for cut in cuts:
        print(f"{_begin(cut, args.out / cut.name, args.dry_run):12} {cut.name:{width}}  {cut.frames:13} {cut.plate}")
        for note in cut.notes:
            print(f"{'':12} {'':{width}}  {note}")
    for note in notes:
        print(f"note: {note}")
    return EXIT_OK


def _begin(cut: Cut, folder: Path, dry: bool) -> str:
    """Save the clip's project; what became of it in a word."""
    from rotomem.errors import OutputError
    from rotomem.project.file import FILE_NAME
    from rotomem.project.project import Project

    if (folder / FILE_NAME).exists():
        asked = Project.open(folder).file.settings.get("frames")
        return "there" if asked == cut.frames else f"has {asked or 'all'}"
    if dry:
        return "would begin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the project's folder cannot be made: {error.strerror}"
        raise OutputError(what, remedy="choose another --out", path=folder) from None
    Project.create(folder, cut.plate, [], folder / "mattes", settings={"frames": cut.frames}).save()
    return "begun"
