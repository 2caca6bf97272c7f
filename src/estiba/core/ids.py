"""Identifiers that sort by creation time: 26 characters, 48 bits of milliseconds and 80 bits of randomness.

The form is the ULID specification's: Crockford's base 32, upper case.
"""

from __future__ import annotations

import os
import time

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _DIGITS for b in _DIGITS)
_STEP = 1 << 24


class Ids:
    """A source of identifiers for one thread. Within a millisecond they count up: in order and distinct."""

    def __init__(self) -> None:
        self._milliseconds = -1
        self._prefix = ""
        self._count = 0

    def next(self) -> str:
        now = time.time_ns() // 1_000_000
        if now > self._milliseconds:
            self._milliseconds = now
            # The upper 55 random bits are drawn once a millisecond; the lower 25 start below half and count up.
            drawn = int.from_bytes(os.urandom(10))
            self._prefix = encode(now, 10) + encode(drawn >> 25, 11)
            self._count = drawn & (_STEP - 1)
        self._count += 1
        if self._count >= 2 * _STEP:
            self._milliseconds = -1
        count = self._count
        return self._prefix + _DIGITS[count >> 20] + _PAIRS[count >> 10 & 1023] + _PAIRS[count & 1023]


def encode(number: int, length: int) -> str:
    """Encode a number in Crockford's base 32, padded with zeros to `length` digits."""
    digits = ""
    for _ in range(length):
        digits = _DIGITS[number & 31] + digits
        number >>= 5
    return digits
