"""Notice that a model is asked no longer: silence is not health."""

from __future__ import annotations

from collections.abc import Mapping

WEEK_HOURS = 24 * 7
USUAL_ROWS = 100
"""Rows in the same hour a week ago from which an hour without any is silence."""


def is_silent(rows: Mapping[int, int], hour: int) -> bool:
    """Return True if the last whole hour had no rows, and the same hour a week ago had USUAL_ROWS or more.

    Args:
        rows: by hour since 1970. hour: the current one; rows in it end the silence.
    """
    return not rows.get(hour) and not rows.get(hour - 1) and rows.get(hour - 1 - WEEK_HOURS, 0) >= USUAL_ROWS
