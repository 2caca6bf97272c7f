"""Read lengths of time as people write them, such as 90d."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds(text: str) -> float | None:
    """The seconds of a whole number above 0 with a unit (s, m, h, d or w); None if the text is something else."""
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text, re.ASCII)
    if match is None or int(match[1]) == 0:
        return None
    return float(int(match[1]) * _SECONDS[match[2]])
