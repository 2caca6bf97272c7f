"""Read a table from a CSV file, with a clear error if it is not the expected one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from estiba import EstibaError


def read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The named columns of a CSV file, in that order; other columns are not read.

    Raises:
        EstibaError: the file lacks a column.
    """
    present = pd.read_csv(path, nrows=0).columns
    missing = [name for name in columns if name not in present]
    if missing:
        raise EstibaError(
            f"{path} has no column {', '.join(missing)}.",
            hint="Is it the file that examples/portfolio/README.md describes? Its header row must name the columns.",
        )
    return pd.read_csv(path, usecols=list(columns))[list(columns)]
