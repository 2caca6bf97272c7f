"""Define a slow regressor that records its input."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np


class Slow:
    """Answer 0.01 times the input after a number of seconds per row, and write every value to the file `seen`."""

    def __init__(self, seconds: float, seen: Path) -> None:
        self.seconds = seconds
        self.seen = str(seen)

    def predict(self, rows: Any) -> Any:
        values = np.asarray(rows, np.float64)[:, 0]
        with Path(self.seen).open("a") as file:
            file.write("".join(f"{value:.0f}\n" for value in values))
        time.sleep(self.seconds * len(values))
        return values * 0.01
