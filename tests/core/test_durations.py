"""Lengths of time as people write them."""

from __future__ import annotations

import pytest

from estiba.core.durations import seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30), ("15m", 900), ("1h", 3600), ("7d", 604_800), ("12w", 7_257_600), ("999999w", 604_799_395_200)],
)
def test_a_number_with_a_unit(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "1.5h", "1 h", "1y", "1234567s", "٣d", "1d\n"])
def test_anything_else_is_none(text: str) -> None:
    assert seconds(text) is None
