"""Define the columns between the steps of a pipeline: those that are computed, and those that are looked up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from estiba.core.errors import EstibaError
from estiba.model.coding.terms import Terms
from estiba.model.convert.graph import DOUBLE, INT64, Array, Graph

MAX_TABLE = 200_000
"""Above this many cells, tables are looked up one by one instead of all at once."""

MAX_DENSE_CELLS = 4_000_000
"""Cells of a block that is looked up whole: 32 MB. A larger one only reaches steps that keep it sparse."""

MAX_DENSE_COLUMNS = 5_000
"""Sparse columns that a step may ask for one by one."""


class NotConvertible(EstibaError):
    """The model has no exact ONNX form. The message is one sentence with the reason."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="engine = 'auto' serves the original estimator instead.")


@dataclass(frozen=True, eq=False)
class Slot:
    """A column that is computed: one column of a float64 tensor of `width` columns."""

    tensor: str
    index: int
    width: int
    levels: npt.NDArray[np.float64] | None = None
    """The only values that it takes beside missing, where they are known and few."""


@dataclass(frozen=True, eq=False)
class Key:
    """The row of a table: 0 unseen, 1..n one of the n levels, n + 1 missing.

    A category of the input brings its code; a number of the input is compared with `values`.
    """

    column: Slot
    rows: int
    values: npt.NDArray[np.float64] | None = None
    nullable: bool = True


@dataclass(frozen=True, eq=False)
class Table:
    """A column that is a function of one category: a value for each row of the key.

    `values` are the original's own (strings, numbers), one per row of the key; `dead` marks rows on which the original
    raises an error. `sample` has the key's row of each row of the sample.
    """

    key: Key
    values: Array
    dead: npt.NDArray[np.bool_]
    sample: npt.NDArray[np.int64]

    def numbers(self) -> npt.NDArray[np.float64]:
        """The values as float64, NaN where dead.

        Raises:
            NotConvertible: they are not numbers.
        """
        live = [0.0 if dead else value for value, dead in zip(self.values, self.dead, strict=True)]
        try:
            numbers = np.asarray([np.nan if _is_missing(v) else float(v) for v in live], np.float64)
        except (TypeError, ValueError):
            raise NotConvertible(
                f"a category such as {self.values[1]!r} reaches a step that computes with numbers"
            ) from None
        return np.where(self.dead, np.nan, numbers)


@dataclass(frozen=True, eq=False)
class Levels:
    """Columns that depend on one category and are zero for most of its levels, as an encoder's one-hot columns.

    Args:
        values: scipy's csr matrix, (key.rows, columns); rows on which the original raises an error are empty.
        dead: those rows.
    """

    key: Key
    values: Any
    dead: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TermBlock:
    """Columns of numbers of a text's terms: counts, or what steps have made of them."""

    terms: Terms
    width: int


@dataclass(frozen=True, eq=False)
class Text:
    """A column that is a text field of the signature, which only a vectorizer reads."""

    field: str


class Cell(NamedTuple):
    """One column of a sparse block."""

    block: Levels | TermBlock
    position: int


Column = Slot | Table | Cell | Text


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns at one point of a pipeline, and the rows of the sample as they are there."""

    columns: tuple[Column, ...]
    sample: Any
    """DataFrame or array of shape (rows, len(columns))."""

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def tables(self) -> bool:
        return bool(self.columns) and all(isinstance(c, Table) for c in self.columns)

    @property
    def sparse(self) -> bool:
        return any(isinstance(c, Cell) for c in self.columns)

    def take(self, indices: list[int]) -> Columns:
        """Return some of the columns, in that order."""
        sample = self.sample.iloc[:, indices] if hasattr(self.sample, "iloc") else self.sample[:, indices]
        return Columns(tuple(self.columns[i] for i in indices), sample)

    def same(self, columns: tuple[Column, ...], sample: Any) -> Columns:
        return replace(self, columns=columns, sample=sample)


def slots(tensor: str, width: int) -> tuple[Slot, ...]:
    """All columns of a tensor."""
    return tuple(Slot(tensor, i, width) for i in range(width))


def matrix(g: Graph, columns: tuple[Column, ...]) -> str:
    """The columns as one float64 tensor of shape (n, len(columns)).

    Raises:
        NotConvertible: a column has values that are not numbers.
    """
    if not columns:
        raise NotConvertible("a step of the model has no input columns")
    pieces: list[str] = []
    for run in runs(columns):
        first = run[0]
        if isinstance(first, Slot):
            pieces.append(g.columns(first.tensor, [c.index for c in run if isinstance(c, Slot)], first.width))
        elif isinstance(first, Text):
            raise NotConvertible(f"the field {first.field!r} is a text, which only Python code can read")
        elif isinstance(first, Cell):
            pieces.append(_cells(g, first.block, [c.position for c in run if isinstance(c, Cell)]))
        else:
            pieces.append(_look_up(g, [c for c in run if isinstance(c, Table)]))
    return g.concat(pieces)


def runs(columns: tuple[Column, ...]) -> list[list[Column]]:
    """Neighbours that one node can fetch: slots of one tensor, tables, or cells of one block."""
    neighbours: list[list[Column]] = []
    last: object = None
    for column in columns:
        kind = column.tensor if isinstance(column, Slot) else column.block if isinstance(column, Cell) else ""
        if not neighbours or not (kind is last or (isinstance(kind, str) and kind == last)):
            neighbours.append([])
            last = kind
        neighbours[-1].append(column)
    return neighbours


def _cells(g: Graph, block: Levels | TermBlock, indices: list[int]) -> str:
    """Look up some columns of a sparse block as a dense tensor, for steps that need each of them as a number."""
    if len(indices) > MAX_DENSE_COLUMNS:
        raise NotConvertible(
            f"a step needs {len(indices)} columns of a category or text as numbers of their own, "
            f"and the graph holds at most {MAX_DENSE_COLUMNS}"
        )
    if isinstance(block, TermBlock):
        return _term_cells(g, block, indices)
    values = block.values[:, indices].tocsc()
    values.sort_indices()
    single = bool((np.diff(values.indptr) == 1).all()) and not block.dead.any()
    if not single:
        return look_up_block(g, block, values)
    asked = g.op("Equal", key_rows(g, [block.key]), g.const(values.indices[None, :], np.int64))
    if (values.data == 1.0).all():
        return g.cast(asked, DOUBLE)
    return g.op("Where", asked, g.const(values.data[None, :]), g.const(0.0))


def _term_cells(g: Graph, block: TermBlock, indices: list[int]) -> str:
    """The numbers of some terms, each in a column of its own."""
    from scipy.sparse import csr_matrix

    shape = (block.width, len(indices))
    return g.term_columns(block.terms, csr_matrix((np.ones(len(indices)), (indices, range(len(indices)))), shape=shape))


def look_up_block(g: Graph, block: Levels, values: Any) -> str:
    """One row of `values`, (key.rows, width), for the row of the block's key; NaN where the original raises an error.

    Raises:
        NotConvertible: it would be too large.
    """
    if values.shape[0] * values.shape[1] > max(MAX_DENSE_CELLS, 64 * values.shape[0]):
        raise NotConvertible(
            f"a step needs a table of {values.shape[0]} levels times {values.shape[1]} columns, which is too large"
        )
    table = np.asarray(values.toarray() if hasattr(values, "toarray") else values, np.float64)
    table[block.dead] = np.nan
    index = g.op("Squeeze", key_rows(g, [block.key]), g.const([1], np.int64))
    return g.op("Gather", g.const(table), index, axis=0)


def _look_up(g: Graph, tables: list[Table]) -> str:
    keys = list(dict.fromkeys(t.key for t in tables))
    cells = sum(k.rows for k in keys) * len(tables)
    if len(keys) > 1 and len(keys) == len(tables):
        return _look_up_scalars(g, tables)
    if len(keys) > 1 and cells > MAX_TABLE:
        return g.concat([_look_up(g, part) for part in _by_key(tables)])
    return _look_up_rows(g, keys, tables)


def _by_key(tables: list[Table]) -> list[list[Table]]:
    parts: list[list[Table]] = []
    for table in tables:
        if not parts or parts[-1][0].key is not table.key:
            parts.append([])
        parts[-1].append(table)
    return parts


def _look_up_scalars(g: Graph, tables: list[Table]) -> str:
    """One value per key: all from one long list."""
    values = np.concatenate([t.numbers() for t in tables])
    return g.op("Gather", g.const(values), key_rows(g, [t.key for t in tables]), axis=0)


def _look_up_rows(g: Graph, keys: list[Key], tables: list[Table]) -> str:
    """Each key brings one row as wide as the result, zero outside its own columns; their sum is the result."""
    offsets = np.cumsum([0, *(k.rows for k in keys)])
    block = np.zeros((int(offsets[-1]), len(tables)))
    for column, table in enumerate(tables):
        start = offsets[keys.index(table.key)]
        block[start : start + table.key.rows, column] = table.numbers()
    index = key_rows(g, keys)
    if len(keys) == 1:
        index = g.op("Squeeze", index, g.const([1], np.int64))
        return g.op("Gather", g.const(block), index, axis=0)
    rows = g.op("Gather", g.const(block), index, axis=0)
    return g.op("ReduceSum", rows, g.const([1], np.int64), keepdims=0)


def key_rows(g: Graph, keys: list[Key]) -> str:
    """The rows of several tables laid end to end that the keys mean, int64 of shape (n, len(keys))."""
    offsets = np.cumsum([0, *(k.rows for k in keys)])[:-1]
    if all(k.values is None for k in keys):
        codes = matrix(g, tuple(k.column for k in keys))
        if any(k.nullable for k in keys):
            missing = g.const([[k.rows - 2.0 for k in keys]])
            codes = g.op("Where", g.op("IsNaN", codes), missing, codes)
        return g.cast(g.op("Add", codes, g.const([offsets + 1.0])), INT64)
    parts = [_key_row(g, key) for key in keys]
    return g.cast(g.op("Add", g.concat(parts), g.const([offsets.astype(float)])), INT64)


def _key_row(g: Graph, key: Key) -> str:
    column = matrix(g, (key.column,))
    missing = g.const([[key.rows - 1.0]])
    if key.values is None:
        return g.op("Where", g.op("IsNaN", column), missing, g.op("Add", column, g.const(1.0)))
    numbers = g.const([np.arange(1.0, len(key.values) + 1)])
    equal = g.op("Equal", column, g.const([key.values]))
    row = g.total(g.op("Where", equal, numbers, g.const(0.0)))
    return g.op("Where", g.op("IsNaN", column), missing, row)


def _is_missing(value: object) -> bool:
    return value is None or value != value or type(value).__name__ in ("NAType", "NaTType")
