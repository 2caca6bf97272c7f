"""Represent the numbers that a graph computes for each row as columns, and compute them beforehand where possible.

Whatever depends on nothing is a constant. Whatever depends on one category alone is a table over its codes, by running
the graph's own operations on each of them; so an encoder with all that stands behind it becomes one look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.engines.onnx_reader import NotRecognised

Numbers = npt.NDArray[np.float64]

MAX_CODES = 4_000
"""Codes of a category up to which a comparison is kept as a table; many of a larger one are computed for each row."""

MAX_COLUMNS = 50_000
"""Columns of one graph. A larger one is slow in the kernel, which has no matrix product."""

_EXACT: dict[str, Callable[..., Any]] = {
    "copy": lambda a: a,
    "negative": np.negative,
    "absolute": np.abs,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "reciprocal": lambda a: 1.0 / a,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "not": lambda a: a == 0,
    "single": lambda a: np.asarray(a, np.float32),
    "whole": np.trunc,
    "truth": lambda a: a != 0,
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "least": np.minimum,
    "most": np.maximum,
    "equal": np.equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "and": lambda a, b: (a != 0) & (b != 0),
    "or": lambda a, b: (a != 0) | (b != 0),
    "where": lambda a, b, c: np.where(a != 0, b, c),
}
"""Operations with one right answer, the same for every library that follows IEEE 754."""

_FLAGS = ("isnan", "isinf", "not", "truth", "equal", "less", "less_equal", "greater", "greater_equal", "and", "or")


@dataclass(frozen=True, eq=False)
class Column:
    """The computation of one column.

    Args:
        args: numbers of the columns that it is computed from.
        data: for `constant` its value, for `load` the place in the input, for others what the kernel needs besides.
        over: for a column that depends on one category alone, its values over the codes of `category`.
        exact: any right implementation gives these very bits.
        whole: the values are whole numbers.
    """

    op: str
    args: tuple[int, ...] = ()
    data: Any = None
    category: int = -1
    over: Numbers | None = None
    exact: bool = True
    whole: bool = False


class Columns:
    """Columns by number, each before those that are computed from it; equal ones are the same.

    Args:
        domains: for each input its codes with -1 before and NaN behind, where it can have no others; else None.
    """

    def __init__(self, domains: Sequence[Numbers | None]) -> None:
        self.known: list[Column] = []
        self._numbers: dict[Any, int] = {}
        self.domains = domains
        self.inputs = [self._input(i, domain) for i, domain in enumerate(domains)]

    def _input(self, i: int, domain: Numbers | None) -> int:
        return self._keep(("load", i), Column("load", (), i, -1 if domain is None else i, domain))

    def _keep(self, key: Any, column: Column) -> int:
        if key not in self._numbers:
            if len(self.known) >= MAX_COLUMNS:
                raise NotRecognised("the graph computes too many numbers for each row")
            self._numbers[key] = len(self.known)
            self.known.append(column)
        return self._numbers[key]

    def nullable(self, category: int) -> bool:
        """Check that the input, whose codes are known, may be missing."""
        return bool(np.isnan(self._domain(category)[-1]))

    def constant(self, value: float) -> int:
        value = float(value)
        bits = np.float64(value).tobytes()
        return self._keep(bits, Column("constant", (), value, whole=value.is_integer()))

    def constants(self, values: Any) -> npt.NDArray[np.int64]:
        """The numbers of an array's values, in its shape."""
        flat = [self.constant(v) for v in np.asarray(values, np.float64).ravel().tolist()]
        return np.asarray(flat, np.int64).reshape(np.shape(values))

    def stored(self, number: int) -> int:
        """The column itself, or for a constant one with a slot of its own: what trees ask must stand in one."""
        if self.known[number].op != "constant":
            return number
        return self._keep(("copy", number), Column("copy", (number,), whole=self.known[number].whole))

    def value(self, number: int) -> float | None:
        """The constant value of the column, or None."""
        column = self.known[number]
        return column.data if column.op == "constant" else None

    def op(self, op: str, *args: int, exact: bool = True) -> int:
        """Another column: an operation of the kernel on these."""
        of = [self.known[a] for a in args]
        exact = exact and op in _EXACT and all(c.exact for c in of)
        if exact and not (op == "equal" and any(c.over is not None and len(c.over) > MAX_CODES for c in of)):
            made = self._beforehand(args, _EXACT[op])
            if made is not None:
                return made
        whole = op in _FLAGS or op == "whole" or self._stays_whole(op, of)
        return self._keep((op, args, exact), Column(op, args, exact=exact, whole=whole))

    def _stays_whole(self, op: str, of: Sequence[Column]) -> bool:
        parts = of[1:] if op == "where" else of
        return op in ("copy", "add", "subtract", "multiply", "where", "least", "most", "negative") and all(
            c.whole for c in parts
        )

    def take(self, table: Numbers, index: int) -> int:
        """The row of a table, of shape (rows,), that another column names."""
        rows = len(table)

        def look(index: Numbers) -> Numbers:
            if not (np.isfinite(index) & (index >= -rows) & (index < rows)).all():
                raise IndexError("a code that has no row")
            return table[index.astype(np.int64)]

        return self._with("take", table, index, look)

    def member(self, listed: Numbers, of: int) -> int:
        """1 where the column is one of the listed numbers, which are sorted."""
        return self._with("member", listed, of, lambda a: np.isin(a, listed))

    def _with(self, op: str, table: Numbers, of: int, compute: Callable[[Numbers], Any]) -> int:
        if self.known[of].exact:
            made = self._beforehand((of,), compute)
            if made is not None:
                return made
        whole = op == "member" or bool((table == np.floor(table)).all())
        return self._keep((op, of, table.tobytes()), Column(op, (of,), table, exact=self.known[of].exact, whole=whole))

    def special(self, op: str, args: Sequence[int], data: Any, *, exact: bool) -> int:
        """A column that is never shared and never computed beforehand."""
        exact = exact and all(self.known[a].exact for a in args)
        return self._keep(len(self.known), Column(op, tuple(args), data, exact=exact))

    def _beforehand(self, args: Sequence[int], compute: Callable[..., Any]) -> int | None:
        """A constant or a table, where all that it is computed from is known for each code of one category."""
        of = [self.known[a] for a in args]
        categories = {c.category for c in of if c.op != "constant"}
        if len(categories) > 1 or -1 in categories:
            return None
        category = next(iter(categories), -1)
        with np.errstate(all="ignore"):
            try:
                values = [np.asarray(c.data, np.float64) if c.op == "constant" else c.over for c in of]
                values_over = np.asarray(compute(*values), np.float64)
            except IndexError:
                return None
        if category < 0:
            return self.constant(float(values_over))
        size = len(self._domain(category))
        return self._table(category, np.ascontiguousarray(np.broadcast_to(values_over, (size,))))

    def _domain(self, category: int) -> Numbers:
        domain = self.domains[category]
        assert domain is not None
        return domain

    def _table(self, category: int, over: Numbers) -> int:
        bits = over.view(np.int64)
        if bool((bits == bits[0]).all()):
            return self.constant(float(over[0]))
        whole = bool((over == np.floor(over)).all())
        key = (category, over.tobytes())
        return self._keep(key, Column("code", (self.inputs[category],), over, category, over, whole=whole))
