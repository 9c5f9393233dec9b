"""The main tables of the papers, as rows that can be measured again with the published weights.

A row names its weights as their authors' release does, and how the authors ran them. Figures are per cent, as
printed; where no weights were released, the row waits for the user's own under the name given here. The papers are
those of STM (ICCV 2019, supplement), STCN (NeurIPS 2021), XMem (ECCV 2022), AOT/AOST and STReMN; which methods read
all frames of YouTube-VOS stands in AOT's table 1 and XMem's table 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rotomem.evaluation.davis import VideoSequence, find_sequences

DAVIS = ("jf", "j", "f")
YOUTUBE = ("g", "j_seen", "f_seen", "j_unseen", "f_unseen")
_LISTS = {"davis2016": "ImageSets/2016/val.txt", "davis2017": "ImageSets/2017/val.txt"}


@dataclass(frozen=True)
class Row:
    """One method on one data set.

    method      as the table calls it
    weights     file name
    dataset     "davis2016", "davis2017", "youtube2018", "youtube2019"; also its folder's name
    figures     of `DAVIS` or `YOUTUBE`, and "fps", in per cent; what the table leaves out is absent
    settings    of `Session`, where they are not rotomem's defaults
    all_frames  every frame was read
    """

    method: str
    weights: str
    dataset: str
    figures: Mapping[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    all_frames: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of the row's figures, in the table's order."""
        return YOUTUBE if self.dataset.startswith("youtube") else DAVIS


def _davis(method: str, weights: str, year: int, *figures: float, fps: float | None = None, **settings: Any) -> Row:
    values = dict(zip(DAVIS, figures, strict=False))
    return Row(method, weights, f"davis{year}", values if fps is None else {**values, "fps": fps}, settings)


def _youtube(
    method: str,
    weights: str,
    year: int,
    *figures: float,
    fps: float | None = None,
    all_frames: bool = False,
    **settings: Any,
) -> Row:
    values = dict(zip(YOUTUBE, figures, strict=True))
    return Row(
        method, weights, f"youtube{year}", values if fps is None else {**values, "fps": fps}, settings, all_frames
    )


_XMEM, _XMEM_BL30K = ("XMem", "XMem.pth"), ("XMem, BL30K", "XMem-s012.pth")
_STCN_BL30K = ("STCN, BL30K", "stcn.pth")
_STM = ("STM, YouTube-VOS", "STM_weights.pth")
_AOT_T, _AOT_S, _AOT_B = ((f"AOT-{size}", f"AOT{size}_PRE_YTB_DAV.pth") for size in "TSB")
_AOT_L, _R50_AOT_L = ("AOT-L", "AOTL_PRE_YTB_DAV.pth"), ("R50-AOT-L", "R50_AOTL_PRE_YTB_DAV.pth")
_SWINB_AOT_L = ("SwinB-AOT-L", "SwinB_AOTL_PRE_YTB_DAV.pth")
_STREMN = ("STReMN", "STReMN.pth")
_FIRST_ONLY = 9999
"""The smaller AOTs memorise the first frame alone."""

TABLES: Mapping[str, tuple[Row, ...]] = {
    # supplement, table 2; DAVIS 2017 and YouTube-VOS as STCN's table 3 quotes them
    "stm": (
        _davis(*_STM, 2016, 89.3, 88.7, 89.9),
        _davis(*_STM, 2017, 81.8, 79.2, 84.3),
        _youtube(*_STM, 2018, 79.4, 79.7, 84.2, 72.8, 80.9, all_frames=True),
    ),
    # tables 3, 4 and 5
    "stcn": (
        _davis(*_STCN_BL30K, 2016, 91.7, 90.4, 93.0),
        _davis(*_STCN_BL30K, 2017, 85.3, 82.0, 88.6, fps=20.2),
        _youtube(*_STCN_BL30K, 2018, 84.3, 83.2, 87.9, 79.0, 87.3, all_frames=True),
        _youtube(*_STCN_BL30K, 2019, 84.2, 82.6, 87.0, 79.4, 87.7, all_frames=True),
    ),
    # table 2, and table S3 for 2019
    "xmem": (
        _davis(*_XMEM, 2016, 91.5, 90.4, 92.7, fps=29.6),
        _davis(*_XMEM, 2017, 86.2, 82.9, 89.5, fps=22.6),
        _youtube(*_XMEM, 2018, 85.7, 84.6, 89.3, 80.2, 88.7, fps=22.6, all_frames=True),
        _youtube(*_XMEM, 2019, 85.5, 84.3, 88.6, 80.3, 88.6, all_frames=True),
        _davis(*_XMEM_BL30K, 2016, 92.0, 90.7, 93.2, fps=29.6),
        _davis(*_XMEM_BL30K, 2017, 87.7, 84.0, 91.4, fps=22.6),
        _youtube(*_XMEM_BL30K, 2018, 86.1, 85.1, 89.8, 80.3, 89.2, fps=22.6, all_frames=True),
        _youtube(*_XMEM_BL30K, 2019, 85.8, 84.8, 89.2, 80.3, 88.8, all_frames=True),
    ),
    # tables 1 and 3
    "aot": (
        _davis(*_AOT_T, 2016, 86.8, 86.1, 87.4, fps=51.4, mem_every=_FIRST_ONLY),
        _davis(*_AOT_T, 2017, 79.9, 77.4, mem_every=_FIRST_ONLY),
        _youtube(*_AOT_T, 2018, 80.2, 80.1, 84.5, 74.0, 82.2, fps=41.0, mem_every=_FIRST_ONLY),
        _youtube(*_AOT_T, 2019, 79.7, 79.6, 83.8, 73.7, 81.8, fps=41.0, mem_every=_FIRST_ONLY),
        _davis(*_AOT_S, 2016, 89.4, 88.6, 90.2, fps=40.0, mem_every=_FIRST_ONLY),
        _davis(*_AOT_S, 2017, 81.3, 78.7, mem_every=_FIRST_ONLY),
        _youtube(*_AOT_S, 2018, 82.6, 82.0, 86.7, 76.6, 85.0, fps=27.1, mem_every=_FIRST_ONLY),
        _youtube(*_AOT_S, 2019, 82.2, 81.3, 85.9, 76.6, 84.9, fps=27.1, mem_every=_FIRST_ONLY),
        _davis(*_AOT_B, 2016, 89.9, 88.7, 91.1, fps=29.6, mem_every=_FIRST_ONLY),
        _davis(*_AOT_B, 2017, 82.5, 79.7, mem_every=_FIRST_ONLY),
        _youtube(*_AOT_B, 2018, 83.5, 82.6, 87.5, 77.7, 86.0, fps=20.5, mem_every=_FIRST_ONLY),
        _youtube(*_AOT_B, 2019, 83.3, 82.4, 87.1, 77.8, 86.0, fps=20.5, mem_every=_FIRST_ONLY),
        _davis(*_AOT_L, 2016, 90.4, 89.6, 91.1, fps=18.7),
        _davis(*_AOT_L, 2017, 83.8, 81.1),
        _youtube(*_AOT_L, 2018, 83.8, 82.9, 87.9, 77.7, 86.5, fps=16.0),
        _youtube(*_AOT_L, 2019, 83.7, 82.8, 87.5, 78.0, 86.7, fps=16.0),
        _davis(*_R50_AOT_L, 2016, 91.1, 90.1, 92.1, fps=18.0),
        _davis(*_R50_AOT_L, 2017, 84.9, 82.3),
        _youtube(*_R50_AOT_L, 2018, 84.1, 83.7, 88.5, 78.1, 86.1, fps=14.9),
        _youtube(*_R50_AOT_L, 2019, 84.1, 83.5, 88.1, 78.4, 86.3, fps=14.9),
        _davis(*_SWINB_AOT_L, 2016, 92.0, 90.7, 93.3, fps=12.1),
        _davis(*_SWINB_AOT_L, 2017, 85.4, 82.4),
        _youtube(*_SWINB_AOT_L, 2018, 84.5, 84.3, 89.3, 77.9, 86.4, fps=9.3),
        _youtube(*_SWINB_AOT_L, 2019, 84.5, 84.0, 88.8, 78.4, 86.7, fps=9.3),
    ),
    # tables 3 and 4; no weights were released
    "stremn": (
        _davis(*_STREMN, 2017, 83.7, 81.3, 86.1),
        _youtube(*_STREMN, 2018, 80.9, 79.6, 83.8, 76.1, 84.1),
    ),
}


def lacking(row: Row, data: Path, weights: Path) -> str | None:
    """What keeps a row from being measured; None where nothing does."""
    if not (data / row.dataset).is_dir():
        return f"no folder {data / row.dataset}"
    if not (weights / row.weights).is_file():
        return f"no weights {weights / row.weights}"
    return None


def sequences_of(row: Row, data: Path) -> list[VideoSequence]:
    """The row's sequences: of DAVIS those of the validation list where there is one, of YouTube-VOS all.

    Raises what `find_sequences` raises.
    """
    root = data / row.dataset
    listed = root / _LISTS.get(row.dataset, "")
    names = [str(listed)] if listed.is_file() else None
    protocol = {"davis2016": "davis2016", "davis2017": "davis"}.get(row.dataset, "youtube")
    return find_sequences(root, names, protocol=protocol, all_frames=row.all_frames)


def annotated_throughout(sequences: list[VideoSequence]) -> bool:
    """Whether every frame that counts has an annotation; of YouTube-VOS' validation only the keys are public."""
    return all(set(s.annotations) >= s.wanted for s in sequences)


def measured(row: Row, means: Mapping[str, Any]) -> dict[str, float | None]:
    """The row's figures out of `figures.as_dict(...)["all"]`, in per cent."""
    sources = {
        "jf": "jf", "j": "j_mean", "f": "f_mean",
        "g": "overall", "j_seen": "seen_j", "f_seen": "seen_f", "j_unseen": "unseen_j", "f_unseen": "unseen_f",
    }  # fmt: skip
    out: dict[str, float | None] = {}
    for name in row.names:
        value = means.get(sources[name])
        out[name] = None if value is None else 100 * value
    out["fps"] = means.get("fps")
    return out
