"""Code the rows that a step of a pipeline hands to the next one, where that was converted to ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadInput, Problem
from estiba.model.coding.coder import Coded, Coder, Matrix
from estiba.model.coding.known_names import MAX_PROBLEMS
from estiba.model.schema.json_pointer import escape, unescape
from estiba.model.schema.rows import field_name
from estiba.model.schema.signature import Field, Head, Signature


class NotTaken(BadInput, ValueError):
    """Rows of a caller became values that the converted steps do not take, as the original does not."""


class Handover:
    """Codes a DataFrame, an array or a list of texts of a transformer, for steps that take a coded matrix.

    Args:
        fields: the columns that are read: numbers, categories and texts.
        infinite: names of fields that may be infinite.
        step: the name of the step that hands over, for messages.
    """

    def __init__(self, fields: Sequence[Field], infinite: Sequence[str], step: str) -> None:
        self._fields = tuple(fields)
        self._sources = [field.source for field in fields]
        self._step = step
        self._numbers = [i for i, field in enumerate(fields) if field.kind == "number"]
        self._nullable = np.array([fields[i].nullable for i in self._numbers], bool)
        self._infinite = np.array([fields[i].name in infinite for i in self._numbers], bool)
        self._singles = [i for i in self._numbers if fields[i].dtype == "float32"]
        others = tuple(field for field in fields if field.kind != "number")
        self._words = [i for i, field in enumerate(fields) if field.kind != "number"]
        self._coder = Coder(Signature(fields=others, head=Head(kind="values"))) if others else None

    def code(self, rows: Any, count: int) -> Coded:
        """The coded form of `count` rows.

        Raises:
            NotTaken: a value is none that the converted steps take, as it was when the model was packed.
            ValueError: there are other columns or more or fewer rows than in training.
        """
        columns = _Columns(rows, self._sources, self._step)
        if columns.rows != count:
            raise ValueError(f"{self._step} hands over {columns.rows} rows for {count}")
        for i in self._singles:
            if columns.dtype(i) != np.float32:
                raise ValueError(f"{self._step} hands over {columns.dtype(i)} in {self._sources[i]!r}, not float32")
        if self._coder is None:
            matrix = columns.numbers()
            self._check(matrix)
            return Coded(matrix)
        matrix = np.empty((count, len(self._fields)))
        for i in self._numbers:
            matrix[:, i] = _floats(columns.column(i))
        self._check(matrix[:, self._numbers])
        try:
            values = {self._fields[i].name: _listed(columns.column(i)) for i in self._words}
            coded = self._coder.check_columns(values, count)
        except BadInput as error:
            raise NotTaken([self._named(problem) for problem in error.problems]) from None
        matrix[:, self._words] = coded.matrix
        return Coded(matrix, coded.texts)

    def _check(self, numbers: Matrix) -> None:
        """Refuse what the original refuses."""
        finite = np.isfinite(numbers)
        if finite.all():
            return
        bad = ~(finite | (np.isnan(numbers) & self._nullable) | (np.isinf(numbers) & self._infinite))
        if bad.any():
            raise NotTaken([self._problem(numbers, *place) for place in np.argwhere(bad)[:MAX_PROBLEMS].tolist()])

    def _problem(self, numbers: Matrix, row: int, column: int) -> Problem:
        detail = (
            f"{self._step} hands over {numbers[row, column]} in {self._sources[self._numbers[column]]!r} for row "
            f"{row}, which the step behind it does not take"
        )
        return Problem(f"#/records/{row}", detail)

    def _named(self, problem: Problem) -> Problem:
        """A problem with a word that is handed over as one with the record that it was made of."""
        _, _, row, step = problem.pointer.split("/", 3)
        source = next((field.source for field in self._fields if escape(field.name) == step), unescape(step))
        detail = f"{self._step} hands over in {source!r} what the step behind it does not take: "
        return Problem(f"#/records/{row}", detail + problem.detail)


class _Columns:
    """The columns of what a transformer returns, in the order of the fields."""

    def __init__(self, rows: Any, sources: list[str], step: str) -> None:
        self._frame = rows if hasattr(rows, "columns") else None
        self._array: Any = None
        self._places = range(len(sources))
        if self._frame is not None:
            names = [field_name(label) for label in rows.columns]
            if names != sources:
                missing = [name for name in sources if name not in names]
                if missing:
                    raise ValueError(f"{step} hands over no column {missing[0]!r}")
                self._places = [names.index(name) for name in sources]  # type: ignore[assignment]
                self._frame = rows.iloc[:, self._places]
        elif getattr(rows, "ndim", 1) == 1:
            self._array = np.asarray(rows, object)[:, None]
        else:
            self._array = rows
            if rows.shape[1] != len(sources):
                raise ValueError(f"{step} hands over {rows.shape[1]} columns in place of {len(sources)}")
        self.rows = len(rows)

    def numbers(self) -> Matrix:
        return _floats(self._array if self._frame is None else self._frame)

    def column(self, i: int) -> Any:
        return self._array[:, i] if self._frame is None else self._frame.iloc[:, i]

    def dtype(self, i: int) -> Any:
        return self._array.dtype if self._frame is None else self._frame.dtypes.iloc[i]


def _floats(values: Any) -> npt.NDArray[np.float64]:
    """Numbers as float64; pandas' NA as NaN."""
    numbers: npt.NDArray[np.float64]
    if isinstance(values, np.ndarray):
        numbers = np.ascontiguousarray(values, np.float64)
        return numbers
    try:
        numbers = values.to_numpy(np.float64)
    except (TypeError, ValueError):
        numbers = values.to_numpy(np.float64, na_value=np.nan)
    return np.ascontiguousarray(numbers)


def _listed(values: Any) -> list[Any]:
    listed: list[Any] = values.tolist() if isinstance(values, np.ndarray) else values.astype(object).tolist()
    return listed
