"""Read a saved model file and a file of sample rows, as the result of a training function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from estiba.core.errors import BadProject, EstibaError, MissingExtra
from estiba.core.stores.disk import explained
from estiba.model.estimators.saved_files import open_file
from estiba.model.packing.training_result import Trained

if TYPE_CHECKING:
    import pandas as pd


def from_file(file: Path, sample: Path, *, target: str = "", trust: bool = False) -> tuple[Trained, tuple[str, ...]]:
    """Read a saved model and rows like those that it was trained on.

    Args:
        file: in any format that `estiba.model.estimators.saved_files` reads.
        sample: `.csv` (UTF-8, a header line) or `.parquet`.
        target: a column of the sample that is not an input of the model.
        trust: allow a file that can run code when it is read.

    Returns:
        The model and its sample, and sentences for the person who packs it.

    Raises:
        NotTrusted, NotFound, BadArtifact, MissingExtra: the model cannot be read. EstibaError: the sample cannot.
    """
    rows = read_sample(sample)
    answers = None
    if target:
        if target not in rows.columns:
            columns = ", ".join(map(str, rows.columns))
            raise BadProject(f"{sample} has no column {target!r}.", hint=f"Its columns are: {columns}.")
        answers = rows.pop(target)
    loaded = open_file(file, trust=trust)
    return Trained(model=loaded.model, sample=rows, target=answers), loaded.notes


def read_sample(path: Path) -> pd.DataFrame:
    """Read the rows of a `.csv` or `.parquet` file. Raises EstibaError where that fails."""
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtra("pandas", "train") from None
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise EstibaError(f"{path} is not of a kind that a sample can be read from.", hint="Known: .csv, .parquet.")
    with explained("read", path):
        try:
            return pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
        except ImportError:
            raise MissingExtra("pyarrow", "parquet") from None
        except ValueError as error:  # what pandas' parsers raise, UnicodeDecodeError included
            raise EstibaError(
                f"{path} cannot be read as a table: {error}", hint="Is it UTF-8 with a header?"
            ) from error
