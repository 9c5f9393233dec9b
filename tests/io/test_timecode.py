"""SMPTE time code: counting over the hour, midnight and dropped numbers; the bits EXR stores."""

from __future__ import annotations

from fractions import Fraction

import pytest

from rotomem.io import timecode


@pytest.mark.parametrize(
    ("start", "frames", "rate", "end"),
    [
        ("01:00:00:23", 1, Fraction(24000, 1001), "01:00:01:00"),
        ("01:59:59:24", 1, Fraction(25), "02:00:00:00"),
        ("23:59:59:23", 1, Fraction(24), "00:00:00:00"),
        ("00:00:00:00", -1, Fraction(24), "23:59:59:23"),
        ("01:00:00:00", 100_000, Fraction(24), "02:09:26:16"),
        # Two numbers of every minute are left out, but not of each tenth.
        ("00:00:59;29", 1, Fraction(30000, 1001), "00:01:00;02"),
        ("00:09:59;29", 1, Fraction(30000, 1001), "00:10:00;00"),
        ("00:01:00;02", -1, Fraction(30000, 1001), "00:00:59;29"),
        ("00:00:00;00", 17_982, Fraction(30000, 1001), "00:10:00;00"),
        ("00:00:59;59", 1, Fraction(60000, 1001), "00:01:00;04"),
        ("nonsense", 5, Fraction(24), "nonsense"),
    ],
)
def test_advance_when_frames_pass_then_counted_as_a_clock_does(
    start: str, frames: int, rate: Fraction, end: str
) -> None:
    assert timecode.advance(start, frames, rate) == end


def test_advance_when_every_frame_of_an_hour_then_each_code_is_met_once() -> None:
    rate = Fraction(30000, 1001)
    seen = [timecode.advance("00:00:00;00", n, rate) for n in range(0, 107_892, 7)]
    assert len(set(seen)) == len(seen) and seen == sorted(seen)
    assert all(timecode.advance(code, -n * 7, rate) == "00:00:00;00" for n, code in enumerate(seen))


@pytest.mark.parametrize("text", ["01:02:03:04", "23:59:59;29", "00:00:00:00"])
def test_pack_when_unpacked_then_equal(text: str) -> None:
    assert timecode.unpack((timecode.pack(text), 0)) == text


def test_shift_packed_when_flags_are_set_then_they_and_user_bits_stay() -> None:
    flags = 0x80 | 1 << 31
    moved = timecode.shift_packed((0x01020323 | flags, 99), 1, Fraction(24))
    assert moved == (0x01020400 | flags, 99)
    assert timecode.shift_packed("no", 1, Fraction(24)) == "no"
