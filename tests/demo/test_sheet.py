"""The contact sheet: its size, its colours where they mean something, its errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from rotomem.demo import sheet
from rotomem.errors import OutputError


def column(frame: int, shift: int = 0) -> sheet.SheetFrame:
    truth = {name: np.zeros((90, 160), np.float32) for name in ("left", "right")}
    truth["left"][30:60, 20:60] = 1
    truth["right"][30:60, 100:140] = 1
    mattes = {name: np.roll(alpha, shift, 0) for name, alpha in truth.items()}
    return sheet.SheetFrame(
        frame, np.full((90, 160, 3), 0.18, np.float32), mattes, truth, "key" if frame == 1 else ""
    )


def test_contact_sheet_when_written_then_rows_show_plate_matte_use_and_error(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sheet.png"
    sheet.write_contact_sheet(
        path, [column(1), column(2, shift=10)], title="a title", figures=["left J 0.5", "all"], cell_width=160
    )
    picture = oiio.ImageBuf(str(path)).get_pixels(oiio.FLOAT)
    left, top = sheet._MARGIN + sheet._LABELS, sheet._HEAD
    row, cell = 90 + sheet._GAP, 160 + sheet._GAP
    assert picture.shape == (top + 4 * row + sheet._FOOT, left + cell + 160 + sheet._MARGIN, 3)

    def at(r: int, c: int, y: int, x: int) -> np.ndarray:
        return picture[top + r * row + y, left + c * cell + x]

    assert at(0, 0, 10, 80) == pytest.approx(at(0, 0, 45, 80), abs=0.01), "the plate is grey"
    assert at(1, 0, 45, 40) == pytest.approx(sheet.TINTS[0], abs=0.05)
    assert at(1, 0, 45, 120) == pytest.approx(sheet.TINTS[1], abs=0.05)
    assert at(2, 0, 45, 40).mean() > 3 * at(2, 0, 45, 80).mean(), "only what the mattes hold stays lit"
    assert at(3, 1, 65, 40) == pytest.approx(sheet.TOO_MUCH, abs=0.05)
    assert at(3, 1, 35, 40) == pytest.approx(sheet.TOO_LITTLE, abs=0.05)
    assert at(3, 0, 35, 40).max() < 0.2, "the key has no error"
    head = picture[: sheet._HEAD, :, 0]
    assert head.max() > 0.8 and head.min() == pytest.approx(sheet.PAPER[0], abs=0.01), "there is a title"


def test_tone_when_light_grows_then_display_grows_and_stays_below_one() -> None:
    light = np.linspace(0, 30, 500, dtype=np.float32)
    shown = sheet.tone(light)
    assert (np.diff(shown) >= 0).all() and shown[0] == 0 and shown[-1] <= 1
    assert sheet.tone(np.float32([0.18]))[0] == pytest.approx(0.4613, abs=1e-3), "mid grey is sRGB 118"


def test_contact_sheet_when_the_place_is_a_file_then_error_names_it(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="taken"):
        sheet.write_contact_sheet(tmp_path / "taken" / "sheet.png", [column(1)], title="t", figures=[])
