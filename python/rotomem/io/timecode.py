"""SMPTE 12M time code: text, the packed bits that EXR stores, and counting in frames."""

from __future__ import annotations

import re
from fractions import Fraction

_TEXT = re.compile(r"\s*(\d{1,2}):(\d{1,2}):(\d{1,2})([:;.])(\d{1,3})\s*")
_DROP_BIT = 1 << 6


def parse(text: str) -> tuple[int, int, int, int, bool] | None:
    """Hours, minutes, seconds, frames, and whether it drops frames ("01:02:03;04"); None where it is no time code."""
    found = _TEXT.fullmatch(text)
    if not found:
        return None
    h, m, s, f = (int(found[i]) for i in (1, 2, 3, 5))
    return (h, m, s, f, found[4] != ":") if h < 24 and m < 60 and s < 60 else None


def advance(text: str, frames: int, rate: Fraction) -> str:
    """The time code `frames` later (earlier where negative), around midnight; unreadable text comes back as it is.

    Drop-frame codes leave out the first two numbers (four at 60) of every minute but each tenth.
    """
    parts = parse(text)
    if parts is None or rate <= 0:
        return text
    h, m, s, f, drop = parts
    base = round(rate)
    dropped = 2 * max(1, round(base / 30)) if drop else 0
    minutes = h * 60 + m
    number = (minutes * 60 + s) * base + f - dropped * (minutes - minutes // 10)
    per_ten = 600 * base - 9 * dropped
    number = (number + frames) % (144 * per_ten)
    if drop:
        tens, rest = divmod(number, per_ten)
        per_minute = 60 * base - dropped
        number += dropped * (9 * tens + (max(rest - dropped, 0) // per_minute))
    seconds, f = divmod(number, base)
    minutes, s = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{s:02d}{';' if drop else ':'}{f:02d}"


def pack(text: str) -> int | None:
    """EXR's first time code word (binary-coded decimals, drop flag in bit 6); None where `text` is no time code."""
    parts = parse(text)
    if parts is None or parts[3] > 39:
        return None
    h, m, s, f, drop = parts
    bits = 0
    for value, shift in ((f, 0), (s, 8), (m, 16), (h, 24)):
        bits |= (value // 10 << 4 | value % 10) << shift
    return bits | (_DROP_BIT if drop else 0)


def unpack(words: object) -> str | None:
    """Text of EXR's packed time code (first word of a pair); None where it is not one."""
    if not (isinstance(words, (tuple, list)) and words and isinstance(words[0], int)):
        return None
    bits = words[0] & 0xFFFFFFFF

    def decimal(shift: int, tens: int) -> int:
        return (bits >> (shift + 4) & tens) * 10 + (bits >> shift & 15)

    mark = ";" if bits & _DROP_BIT else ":"
    return f"{decimal(24, 3):02d}:{decimal(16, 7):02d}:{decimal(8, 7):02d}{mark}{decimal(0, 3):02d}"


def shift_packed(words: object, frames: int, rate: Fraction) -> object:
    """The packed pair `frames` later; its flags and user bits stay. What is no time code comes back as it is."""
    text = unpack(words)
    if text is None or not isinstance(words, (tuple, list)):
        return words
    moved = pack(advance(text, frames, rate))
    if moved is None:
        return words
    digits = 0x3F7F7F3F
    first = (int(words[0]) & 0xFFFFFFFF & ~digits) | (moved & digits)
    return (first, *words[1:])
