"""Where mattes go: from the OUT that the user typed to one path a frame and object."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from rotomem.errors import OutputError, UsageError
from rotomem.io.exr import no_text
from rotomem.io.plate import PlateInfo

FORMATS = ("exr", "png", "mov")
_OTHER_SUFFIXES = """
    .jpg .jpeg .tif .tiff .dpx .cin .tga .bmp .webp .jp2 .jxl .gif .hdr .psd .mp4 .mkv .avi .mxf .webm .m4v .qt
    .iff .sgi .rgb .pic .sxr
"""
_OTHER_PICTURES = frozenset(_OTHER_SUFFIXES.split())
_FRAME_TOKEN = re.compile(r"%(?:0?(?P<printf>\d+))?d|(?P<hashes>#+)|(?P<ats>@+)|\$F(?P<houdini>\d*)")
OBJECT_TOKEN = "{object}"


@dataclass(frozen=True)
class OutputPattern:
    """The paths of all mattes of a run.

    folder      where the files go; may hold `{object}`
    prefix      file name before the frame number, with its separator; may hold `{object}`
    suffix      file name after the frame number, extension included
    padding     digits of the frame number; None where the name has no number (a movie, or a single still)
    """

    folder: str
    prefix: str
    suffix: str
    padding: int | None

    @property
    def has_object(self) -> bool:
        return any(OBJECT_TOKEN in part for part in (self.folder, self.prefix, self.suffix))

    def path(self, frame: int, layer: str | None = None) -> Path:
        """The file of one frame; `layer` replaces `{object}` and is left out where there is none."""
        number = "" if self.padding is None else f"%0{self.padding}d" % frame
        text = os.path.join(self.folder, f"{self.prefix}{number}{self.suffix}")
        return Path(text.replace(OBJECT_TOKEN, layer) if layer is not None else text)

    def per_object(self, *, own_folder: bool) -> OutputPattern:
        """The same pattern with a place for the object's name, where the user gave none.

        own_folder   True: a sub-folder an object, and its name in the file name too
        """
        if self.has_object:
            return self
        stem, separator = re.fullmatch(r"(.*?)([._-]*)", self.prefix, re.DOTALL).groups()  # type: ignore[union-attr]
        named = f"{stem}_{OBJECT_TOKEN}" if stem else OBJECT_TOKEN
        if self.padding is not None and not separator:
            separator = "."
        folder = os.path.join(self.folder, OBJECT_TOKEN) if own_folder else self.folder
        return OutputPattern(folder, f"{named}{separator}", self.suffix, self.padding)

    def beside(self, word: str, suffix: str, *, padding: int | None, per_object: bool = False) -> OutputPattern:
        """The pattern of another kind of files in the same place: `sh010_matte.%04d.exr` -> `sh010_<word>...`.

        word        takes the place of `matte` in the name, else follows it
        padding     digits of the frame number, None for a movie
        per_object  keep the object's place; else leave it out, with folders that are an object's own
        """
        stem, separator = re.fullmatch(r"(.*?)([._-]*)", self.prefix, re.DOTALL).groups()  # type: ignore[union-attr]
        folder = self.folder
        if not per_object:
            stem = re.sub(r"[._-]*" + re.escape(OBJECT_TOKEN) + r"[._-]*", "", stem)
            folder = os.path.join(*(p for p in Path(folder).parts if OBJECT_TOKEN not in p), "")
        before, matte, after = stem.rpartition("_matte")
        named = f"{before}_{word}{after}" if matte else f"{stem}_{word}" if stem else word
        numbered = "" if padding is None else separator or "."
        return OutputPattern(folder, named + numbered, suffix, padding)


def format_of(out: str | Path) -> str | None:
    """The format that OUT's name asks for: "exr", "png", "mov", or None where it is a folder.

    Raises UsageError for the extension of a picture that cannot hold a matte as it should be.
    """
    text = os.fspath(out)
    if _is_folder(text):
        return None
    suffix = os.path.splitext(text)[1].lower()
    if suffix[1:] in FORMATS:
        return suffix[1:]
    if suffix in _OTHER_PICTURES:
        raise UsageError(
            f"mattes are not written as {suffix}",
            remedy="use .exr (half, lossless), .png (8 or 16 bit) or .mov (ProRes 4444 with alpha)",
            out=text,
        )
    if _FRAME_TOKEN.search(os.path.basename(text)):
        raise UsageError(
            "the output pattern has no extension", remedy="end it in .exr or .png, or give a folder", out=text
        )
    return None


def parse_output(out: str | Path, info: PlateInfo, *, format: str) -> OutputPattern:
    """Read OUT: a folder, a pattern with the frame number (`%04d`, `####`, `@@@@`, `$F4`), or a movie.

    A folder gives `<folder>/<stem>_matte.<frame>.<format>` with the plate's padding, at least 4 digits (and the
    view after the stem where the plate has several); with format "mov" `<folder>/<stem>_matte.mov`. `#` alone
    means four digits, several mean their own number. `%V` and `%v` are the view and its first letter.

    Raises UsageError where OUT names another format, several frame numbers, or one file for many frames; OutputError
    where its path is no text.
    """
    text = os.fspath(out)
    if not text.strip():
        raise UsageError("the output has no name", remedy="give a folder or a pattern such as out/hero.%04d.exr")
    wrong = no_text(text)
    if wrong:
        raise OutputError(
            f"the path of the output is not UTF-8 text: {wrong}", remedy="choose another folder or name"
        )
    if info.view:
        text = text.replace("%V", info.view).replace("%v", info.view[:1])
    wanted = format_of(text)
    if wanted is None:
        stem = info.stem.rstrip("._- ") or "plate"
        if info.view and len(info.views) > 1:
            stem += f"_{info.view}"
        folder = text if text.endswith((os.sep, "/")) is False else text.rstrip("/" + os.sep) or os.sep
        if format == "mov":
            return OutputPattern(folder, f"{stem}_matte", ".mov", None)
        return OutputPattern(folder, f"{stem}_matte.", f".{format}", max(info.padding, 4))
    if wanted != format:
        raise UsageError(
            f"the output is named .{wanted}, but the format asked for is {format}",
            remedy="leave the format out, or change the extension",
            out=text,
        )
    folder, name = os.path.split(text)
    if _FRAME_TOKEN.search(folder):
        raise UsageError(
            "the frame number may stand in the file name only, not in a folder's", remedy="move it", out=text
        )
    tokens = list(_FRAME_TOKEN.finditer(name))
    if len(tokens) > 1:
        raise UsageError("the output has more than one frame number", remedy="keep one of them", out=text)
    if not tokens:
        if format != "mov" and len(info.frames) + len(info.missing) > 1:
            raise UsageError(
                "one file cannot hold the mattes of several frames",
                remedy="put the frame number into the name, for example "
                + os.path.join(folder, "{}.%04d{}".format(*os.path.splitext(name))),
                out=text,
            )
        stem, suffix = os.path.splitext(name)
        return OutputPattern(folder, stem, suffix, None)
    if format == "mov":
        raise UsageError("a movie has no frame number in its name", remedy="leave it out", out=text)
    token = tokens[0]
    return OutputPattern(folder, name[: token.start()], name[token.end() :], _padding(token))


def _is_folder(text: str) -> bool:
    return text.endswith(("/", os.sep)) or text in (".", "..") or os.path.isdir(text)


def _padding(token: re.Match[str]) -> int:
    if token["hashes"]:
        return 4 if len(token["hashes"]) == 1 else len(token["hashes"])
    if token["ats"]:
        return len(token["ats"])
    digits = token["printf"] or token["houdini"]
    return int(digits) if digits else 1
