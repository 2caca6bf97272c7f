"""A saved model file and a file of sample rows, as if a training function had returned them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from estiba.core.errors import BadProject, BadRequest, EstibaError, MissingExtra
from estiba.core.stores.disk import explained
from estiba.model.coding.csv_file import PLAIN_CSV, CsvFile, CsvOptions
from estiba.model.coding.xlsx_file import XlsxFile, as_text
from estiba.model.estimators.booster_categories import as_categories, named_categories
from estiba.model.estimators.saved_files import open_file
from estiba.model.packing import sample_size
from estiba.model.packing.training_result import Trained
from estiba.model.schema.estimator_columns import text_columns

if TYPE_CHECKING:
    import pandas as pd

_WRITE_AGAIN = "Write it again with pandas: df.to_parquet(path)."

_POINTED = re.compile(r"-?\d{1,3}(\.\d{3})+(,\d+)?")


def from_file(
    file: Path,
    sample: Path,
    *,
    target: str = "",
    trust: bool = False,
    csv_options: CsvOptions = PLAIN_CSV,
    sheet: str = "",
) -> tuple[Trained, tuple[str, ...]]:
    """Read a saved model and rows like those that it was trained on.

    Args:
        file: in any format that `estiba.model.estimators.saved_files` reads.
        sample: `.csv` or `.xlsx` (with a header line) or `.parquet`; of an ONNX file of tensors `.npy` or `.npz`.
        target: a column of the sample that is no input of the model.
        trust: allow a file that can run code when it is read.
        csv_options: separator, decimal separator and encoding of a `.csv` sample.
        sheet: of an `.xlsx` sample; empty is the first.

    Returns:
        What is to be packed, and sentences that whoever packs it should read.

    Raises:
        NotTrusted, NotFound, BadArtifact, MissingExtra: the model cannot be read. EstibaError: the sample cannot.
    """
    with explained("read", sample):
        sample.stat()
    loaded = open_file(file, trust=trust)
    if sample.suffix.lower() in (".npy", ".npz"):
        if target:
            raise BadProject(f"{sample} holds arrays, and has no column {target!r}.", hint="Leave the target away.")
        return Trained(model=loaded.model, sample=read_arrays(sample)), loaded.notes
    rows = read_sample(sample, loaded.model, target=target, csv_options=csv_options, sheet=sheet)
    rows = as_categories(rows, named_categories(loaded.model), sample)
    answers = None
    if target:
        if target not in rows.columns:
            columns = ", ".join(map(str, rows.columns))
            raise BadProject(f"{sample} has no column {target!r}.", hint=f"Its columns are: {columns}.")
        answers = rows.pop(target)
    return Trained(model=loaded.model, sample=rows, target=answers), loaded.notes


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a `.npz` file by name, or that of a `.npy` file under an empty name.

    Raises:
        EstibaError: it is no such file, or holds objects, which could run code.
    """
    with explained("read", path):
        try:
            sample_size.check_arrays(path)
            content = np.load(path, allow_pickle=False)
            return {"": content} if isinstance(content, np.ndarray) else {name: content[name] for name in content.files}
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise EstibaError(f"{path} cannot be read as NumPy's arrays: {error}") from None


def read_sample(
    path: Path, model: Any, *, target: str = "", csv_options: CsvOptions = PLAIN_CSV, sheet: str = ""
) -> pd.DataFrame:
    """Read the rows of a `.csv`, `.xlsx` or `.parquet` file. Raises EstibaError where that fails.

    A column of CSV or Excel whose levels are text in the model's encoders stays text, so that "00501" and "NA" do. An
    empty cell is the only missing value.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtra("pandas", "train") from None
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet", ".xlsx"):
        raise EstibaError(
            f"{path} is not of a kind that a sample can be read from.",
            hint="Known: .csv, .parquet, .xlsx; .npy and .npz for tensors.",
        )
    if suffix == ".xlsx":
        return _read_xlsx(path, model, target, sheet)
    if sheet:
        raise EstibaError(f"{path} has no sheets.", hint="A sheet is chosen in .xlsx files alone.")
    with explained("read", path):
        try:
            if suffix == ".csv":
                return _read_csv(path, model, target, csv_options)
            sample_size.check_parquet(path)
            return pd.read_parquet(path)
        except ImportError:
            raise MissingExtra("pyarrow", "parquet") from None
        except BadRequest as error:
            raise EstibaError(f"{path} cannot be read as a table: {error.message}", hint=_WRITE_AGAIN) from None
        except ValueError as error:  # what pandas' parsers raise
            raise EstibaError(
                f"{path} cannot be read as a table: {error}", hint="Is it a table with a header?"
            ) from error


def _read_csv(path: Path, model: Any, target: str, options: CsvOptions) -> pd.DataFrame:
    import pandas as pd

    file = CsvFile(path, options)
    names = list(file.columns)
    _check_named(path, names)
    texts = _text_columns(model, [name for name in names if name != target])
    rows = pd.read_csv(
        path,
        sep=options.delimiter,
        decimal=options.decimal,
        encoding=options.codec,
        keep_default_na=False,
        na_values=[""],
        dtype=dict.fromkeys(texts, str),
        index_col=False,
    )
    if options.decimal == ",":
        _refuse_points(path, rows, texts)
    return rows


def _text_columns(model: Any, names: list[str]) -> frozenset[str]:
    """The columns that are text for the model, also those of which a booster's file names texts as categories."""
    named = named_categories(model)
    levels = {name: named.get(name) or named.get(name.replace(" ", "_"), ()) for name in names}
    of_texts = {name for name, own in levels.items() if own and all(isinstance(level, str) for level in own)}
    return text_columns(model, names) | of_texts


def _refuse_points(path: Path, rows: pd.DataFrame, texts: frozenset[str]) -> None:
    """Refuse "1.234" beside decimal commas: it may be a thousand, or one and a bit."""
    for name in rows.columns:
        cells = [] if name in texts or rows[name].dtype.kind in "fiub" else rows[name].dropna().tolist()
        if cells and any(_POINTED.fullmatch(cell) for cell in map(str, cells)):
            shown = next(cell for cell in map(str, cells) if _POINTED.fullmatch(cell))
            raise EstibaError(
                f"{path}, column {name!r}: {shown} has points beside a decimal comma.",
                hint="With --decimal ',' a number has no points, not even between thousands.",
            )


def _check_named(path: Path, names: list[str]) -> None:
    if "" in names:
        column = "The first column" if names[0] == "" else f"Column {names.index('') + 1}"
        raise EstibaError(
            f"{column} of {path} has no name.",
            hint="It seems to be pandas' index: write the file with df.to_csv(path, index=False), or name the column.",
        )


def _read_xlsx(path: Path, model: Any, target: str, sheet: str) -> pd.DataFrame:
    """The rows of a sheet, its columns with the types that their cells have in common."""
    import pandas as pd

    file = XlsxFile(path, sheet)
    names = list(file.columns)
    _check_named(path, names)
    if len(set(names)) < len(names):
        raise EstibaError(f"{path} has the column {next(name for name in names if names.count(name) > 1)!r} twice.")
    texts = _text_columns(model, [name for name in names if name != target])
    rows = [row.cells for row in file.rows(range(len(names)))]
    cells = zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True)
    return pd.DataFrame(
        {name: pd.Series([as_text(v) if name in texts else v for v in column]) for name, column in cells}
    )
