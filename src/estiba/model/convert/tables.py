"""Convert steps that only see categories: run the fitted step on every level, and store the answers as a table.

This is exact for every encoder with every option, and for code of the user's own, because nothing is translated.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.convert.columns import Columns, Key, NotConvertible, Slot, Table
from estiba.model.convert.graph import Array


def keyed(columns: Columns, levels: list[npt.NDArray[np.float64] | None]) -> Columns:
    """Turn computed columns into tables over the given levels, by equality; tables and columns without levels stay."""
    made = tuple(
        column if isinstance(column, Table) or values is None else _key_column(columns, i, column, values)
        for i, (column, values) in enumerate(zip(columns.columns, levels, strict=True))
    )
    return columns.same(made, columns.sample)


def _key_column(columns: Columns, i: int, column: Slot, levels: npt.NDArray[np.float64]) -> Table:
    known = np.unique(levels[~np.isnan(levels)])
    key = Key(column, len(known) + 2, known)
    given = _column(columns.sample, i)
    unseen = known[-1] + 1 if len(known) else 0.0
    values = _like(np.asarray([unseen, *known, np.nan]), given)
    numbers = np.asarray(given, np.float64)
    sample = np.searchsorted(known, numbers)
    inside = np.minimum(sample, len(known) - 1)
    sample = np.where(known[inside] == numbers, inside + 1, 0) if len(known) else np.zeros(len(numbers), np.int64)
    sample = np.where(np.isnan(numbers), len(known) + 1, sample).astype(np.int64)
    return Table(key, values, np.zeros(key.rows, bool), sample)


def _like(values: npt.NDArray[np.float64], given: Any) -> Array:
    """The levels as the column had them: True and False, or whole numbers, where it had such."""
    kind = np.asarray(given).dtype.kind
    if kind not in "bO":
        return values
    made: Array = values.astype(object)
    for i, value in enumerate(values[:-1]):
        made[i] = bool(value) if value in (0, 1) else value
    return made if kind == "b" else values


def _column(sample: Any, i: int) -> Any:
    return sample.iloc[:, i] if hasattr(sample, "iloc") else sample[:, i]


def tabulate(transformer: Any, columns: Columns, output: Any) -> Columns | None:
    """Run a fitted transformer on each level of each column.

    Args:
        output: what it makes of the sample, to check the tables against.

    Returns:
        Its outputs as tables, or None where an output depends on more than one column.
    """
    tables = [c for c in columns.columns if isinstance(c, Table)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # encoders warn of unknown levels, and here those are wanted
        answers = [_run(transformer, columns, tables, j) for j in range(len(tables))]
    width = output.shape[1]
    outputs: list[Table] = []
    for w in range(width):
        sources = [j for j, (values, dead) in enumerate(answers) if _varies(values[:, w], dead)]
        if len(sources) > 1:
            return None
        j = sources[0] if sources else 0
        values, dead = answers[j]
        table = Table(tables[j].key, values[:, w], dead, tables[j].sample)
        if not _agrees(table, _column(output, w)):
            return None
        outputs.append(table)
    return columns.same(tuple(outputs), output)


def _run(transformer: Any, columns: Columns, tables: list[Table], j: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Answers for each row of table j, the others held still; (rows, outputs), and which rows it refuses."""
    table = tables[j]
    frame = _probe(columns, tables, j)
    alive = np.flatnonzero(~table.dead)
    try:
        answers = dense(transformer.transform(_rows(frame, alive)))
    except (ValueError, TypeError, KeyError):
        alive = np.asarray([r for r in alive if _accepts(transformer, _rows(frame, np.asarray([r])))], np.int64)
        if not len(alive):
            raise NotConvertible(f"{type(transformer).__name__} refuses every level of a category") from None
        answers = dense(transformer.transform(_rows(frame, alive)))
    answers = np.asarray(answers.to_numpy(dtype=object) if hasattr(answers, "iloc") else answers)
    values = np.empty((len(table.values), answers.shape[1]), object)
    values[alive] = answers
    dead = np.ones(len(values), bool)
    dead[alive] = False
    values[dead] = answers[0]
    return values, dead


def _accepts(transformer: Any, row: Any) -> bool:
    try:
        transformer.transform(row)
    except (ValueError, TypeError, KeyError):
        return False
    return True


def _probe(columns: Columns, tables: list[Table], j: int) -> Any:
    """Rows in the shape of the sample: column j runs through its values, the others stay at a live one."""
    rows = len(tables[j].values)
    values = [t.values if i == j else np.repeat(t.values[_first_live(t)], rows) for i, t in enumerate(tables)]
    if not hasattr(columns.sample, "iloc"):
        return np.stack([np.asarray(v, object) for v in values], axis=1)
    import pandas as pd

    probe_columns = {i: _series(v, columns.sample.iloc[:, i].dtype) for i, v in enumerate(values)}
    frame = pd.DataFrame(probe_columns)
    frame.columns = columns.sample.columns
    return frame


def _series(values: Array, dtype: Any) -> Any:
    """The values in the sample's own type, or as they are where that type cannot hold a missing one."""
    import pandas as pd

    series = pd.Series(values, dtype=object)
    if isinstance(dtype, np.dtype) and dtype.kind in "biu" and series.isna().any():
        return series.astype(object) if dtype.kind == "b" else series.astype(np.float64)
    if isinstance(dtype, pd.CategoricalDtype):
        return series.where(series.isin(dtype.categories)).astype(dtype)
    return series.astype(dtype)


def _first_live(table: Table) -> int:
    """A level that the sample really has, so that no other error hides behind it."""
    live = [int(r) for r in table.sample if not table.dead[r]]
    return live[0] if live else int(np.argmin(table.dead))


def _rows(frame: Any, rows: npt.NDArray[np.int64]) -> Any:
    return frame.iloc[rows].reset_index(drop=True) if hasattr(frame, "iloc") else _typed(frame[rows])


def _typed(block: Array) -> Array:
    """Numbers as numbers: a step that had a float array before does not expect an object one."""
    try:
        return block.astype(np.float64)
    except (TypeError, ValueError):
        return block


def dense(output: Any) -> Any:
    """A transformer's output without sparse storage."""
    return output.toarray() if hasattr(output, "toarray") else output


def _varies(values: Array, dead: npt.NDArray[np.bool_]) -> bool:
    live = values[~dead]
    return not all(_same(v, live[0]) for v in live)


def _same(a: Any, b: Any) -> bool:
    return bool(a is b or a == b or (a != a and b != b))


def _agrees(table: Table, column: Any) -> bool:
    """The table gives, for the rows of the sample, what the transformer gave for all of them at once."""
    expected = np.asarray(column, object)
    return all(
        _same(table.values[row], value)
        for row, value in zip(table.sample, expected, strict=True)
        if not table.dead[row]
    )
