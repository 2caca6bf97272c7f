"""Convert steps that only see categories: run the fitted step on every level, and store the answers as a table.

This is exact for every encoder with every option, and for code of the user's own, because nothing is translated.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.convert.columns import Cell, Column, Columns, Key, Levels, NotConvertible, Slot, Table
from estiba.model.convert.graph import Array
from estiba.model.convert.sparse import MAX_DENSE_WIDTH

MAX_PROBE_CELLS = 4_000_000
"""Cells of dense output that are asked for at once: 32 MB."""


def keyed(columns: Columns, levels: list[npt.NDArray[np.float64] | None]) -> Columns:
    """Turn computed columns into tables over the given levels, by equality; tables and columns without levels stay."""
    made = tuple(
        column if not isinstance(column, Slot) or values is None else _key_column(columns, i, column, values)
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
    if hasattr(sample, "toarray"):
        return sample[:, [i]].toarray().ravel()
    return sample.iloc[:, i] if hasattr(sample, "iloc") else sample[:, i]


def tabulate(transformer: Any, columns: Columns, output: Any) -> Columns | None:
    """Run a fitted transformer on each level of each column.

    Args:
        output: what it makes of the sample, to check the tables against.

    Returns:
        Its outputs as tables, or None where an output depends on more than one column.
    """
    tables = [c for c in columns.columns if isinstance(c, Table)]
    width = output.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # encoders warn of unknown levels, and here those are wanted
        if width > MAX_DENSE_WIDTH and _is_numeric(output):
            return _tabulate_sparse(transformer, columns, tables, output)
        answers = [_run(transformer, columns, tables, j) for j in range(len(tables))]
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


def _is_numeric(output: Any) -> bool:
    kinds = [output.dtype] if hasattr(output, "dtype") else list(output.dtypes)
    return all(getattr(kind, "kind", "O") in "fiub" for kind in kinds)


def _tabulate_sparse(transformer: Any, columns: Columns, tables: list[Table], output: Any) -> Columns | None:
    """The same with outputs as columns of sparse blocks, one for each input that has outputs of its own."""
    answers = [_run_sparse(transformer, columns, tables, j, output) for j in range(len(tables))]
    varying = np.stack([_varying(values[~dead]) for values, dead in answers])
    if (varying.sum(axis=0) > 1).any():
        return None
    owner = np.argmax(varying, axis=0)
    sources: list[Column] = [Slot("", 0, 0)] * output.shape[1]
    sample = _csr(output)
    for j in np.unique(owner).tolist():
        own = np.flatnonzero(owner == j)
        values, dead = answers[j]
        block = Levels(tables[j].key, values[:, own], dead)
        alive = ~dead[tables[j].sample]
        if (block.values[tables[j].sample][alive] != sample[:, own][alive]).nnz:
            return None
        for index, position in enumerate(own.tolist()):
            sources[position] = Cell(block, index)
    return columns.same(tuple(sources), sample)


def _varying(values: Any) -> npt.NDArray[np.bool_]:
    """Columns of a csr matrix that are not the same in every row."""
    high, low = (m.toarray().ravel() for m in (values.max(axis=0), values.min(axis=0)))
    return np.asarray(high != low, bool)


def _csr(output: Any) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix(output.to_numpy() if hasattr(output, "iloc") else output, dtype=np.float64)


def _run_sparse(
    transformer: Any, columns: Columns, tables: list[Table], j: int, output: Any
) -> tuple[Any, npt.NDArray[np.bool_]]:
    """As `_run`, as a csr matrix in which rows that the transformer refuses are empty."""
    from scipy.sparse import csr_matrix, vstack

    frame = _probe(columns, tables, j)
    rows, width = len(tables[j].values), output.shape[1]
    step = rows if hasattr(output, "toarray") else max(1, MAX_PROBE_CELLS // width)
    alive = np.flatnonzero(~tables[j].dead)
    parts = []
    dead = np.ones(rows, bool)
    for start in range(0, len(alive), step):
        accepted, answers = _accepted(transformer, frame, alive[start : start + step])
        dead[accepted] = False
        parts.append(_csr(answers) if len(accepted) else csr_matrix((0, width)))
    joined = vstack(parts, format="csr")
    if not joined.shape[0]:
        raise NotConvertible(f"{type(transformer).__name__} refuses every level of a category")
    counts = np.zeros(rows + 1, np.int64)
    counts[np.flatnonzero(~dead) + 1] = np.diff(joined.indptr)
    return csr_matrix((joined.data, joined.indices, np.cumsum(counts)), shape=(rows, width)), dead


def _run(transformer: Any, columns: Columns, tables: list[Table], j: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Answers for each row of table j, the others held still; (rows, outputs), and which rows it refuses."""
    table = tables[j]
    frame = _probe(columns, tables, j)
    alive, answers = _accepted(transformer, frame, np.flatnonzero(~table.dead))
    if not len(alive):
        raise NotConvertible(f"{type(transformer).__name__} refuses every level of a category")
    answers = dense(answers)
    answers = np.asarray(answers.to_numpy(dtype=object) if hasattr(answers, "iloc") else answers)
    values = np.empty((len(table.values), answers.shape[1]), object)
    values[alive] = answers
    dead = np.ones(len(values), bool)
    dead[alive] = False
    values[dead] = answers[0]
    return values, dead


def _accepted(transformer: Any, frame: Any, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Any]:
    """The rows that the transformer takes, and its answers to them. Halves are asked until it refuses a single row."""
    try:
        return rows, transformer.transform(_rows(frame, rows))
    except (ValueError, TypeError, KeyError):
        taken = _taken(transformer, frame, rows)
    return taken, transformer.transform(_rows(frame, taken)) if len(taken) else None


def _taken(transformer: Any, frame: Any, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    try:
        transformer.transform(_rows(frame, rows))
        return rows
    except (ValueError, TypeError, KeyError):
        if len(rows) < 2:
            return rows[:0]
    half = len(rows) // 2
    return np.concatenate([_taken(transformer, frame, part) for part in (rows[:half], rows[half:])])


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
