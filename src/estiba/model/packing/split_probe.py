"""Ask the converted steps of a split pipeline which values they take though the sample has none of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.model.coding.coder import Coded, Coder
from estiba.model.coding.handover import Handover
from estiba.model.schema.signature import UNSEEN, Field, Signature, Unseen

if TYPE_CHECKING:
    import pandas as pd

Answer = npt.NDArray[np.float64]

_NEW_CATEGORY = "zxcvb unknown"


class Handed(NamedTuple):
    """The rows that a step hands over for the sample; without names of their own if it returns an array."""

    step: str
    sample: pd.DataFrame
    is_named: bool


def code(fields: Sequence[Field], handed: Handed) -> Coded:
    """The rows that a step hands over, with whatever numbers they have."""
    from estiba.model.convert import NotConvertible

    try:
        return Handover(fields, [field.name for field in fields], f"the step {handed.step!r}").code(
            handed.sample, len(handed.sample)
        )
    except ValueError as error:
        raise NotConvertible(str(error)) from error


class Probe:
    """Changes one value of a row that a step hands over, and looks if the model behind it answers a finite number."""

    def __init__(self, model: Any, signature: Signature, handed: Handed) -> None:
        self._model, self._head = model, signature.head
        self._fields = signature.fields
        lenient = tuple(map(_lenient, signature.fields))
        self._coders = [
            Coder(msgspec.structs.replace(signature, fields=tuple(_missing_as(form, field) for field in lenient)))
            for form in ("nan", "none")
        ]
        self._numbers = [i for i, field in enumerate(lenient) if field.kind == "number"]
        self.coded = code([_lenient(f) if f.kind == "number" else f for f in signature.fields], handed)

    def taken(self, value: float) -> frozenset[str]:
        """The names of the number fields whose value may be this one."""
        answers = self._answers(self._changed(self._numbers, value), self._coders[0].frame)
        return frozenset(
            self._fields[i].name for i, answer in zip(self._numbers, answers, strict=True) if answer is not None
        )

    def widened(self) -> tuple[Field, ...]:
        """The fields with categories that may be missing or unseen where the model answers those."""
        columns = [i for i, field in enumerate(self._fields) if field.kind == "category"]
        missing = self._missing(columns)
        fields = list(self._fields)
        for i in columns:
            field = msgspec.structs.replace(fields[i], nullable=fields[i].nullable or i in missing)
            if field.unseen == "error" and set(field.levels) != {True, False}:
                field = msgspec.structs.replace(field, unseen=self._unseen(i, missing.get(i)))
            fields[i] = field
        return tuple(fields)

    def _missing(self, columns: list[int]) -> dict[int, Answer]:
        """Answers by column to a missing category; only where None and NaN are answered alike, as both may come."""
        rows = self._changed(columns, math.nan)
        forms = [self._answers(rows, coder.frame) for coder in self._coders]
        return {
            i: nan
            for i, nan, none in zip(columns, *forms, strict=True)
            if nan is not None and none is not None and np.array_equal(nan, none)
        }

    def _unseen(self, column: int, missing: Answer | None) -> Unseen:
        """The way in which an unseen category of a column is to be coded."""
        if self._fields[column].dtype != "category":
            (answer,) = self._answers(self._changed([column], UNSEEN), self._coders[0].frame)
            return "error" if answer is None else "other"
        (answer,) = self._answers(self._changed([column], 0.0), lambda row: self._with_new_category(row, column))
        return "error" if answer is None or missing is None or not np.array_equal(answer, missing) else "null"

    def _with_new_category(self, row: Coded, column: int) -> pd.DataFrame:
        import pandas as pd

        frame, field = self._coders[0].frame(row), self._fields[column]
        categories = [*field.levels, _NEW_CATEGORY]
        return frame.assign(**{field.source: pd.Categorical([_NEW_CATEGORY], categories=categories)})

    def _changed(self, columns: list[int], value: float) -> Coded:
        """A row for each of the columns, with this value there."""
        finite = np.flatnonzero(np.isfinite(self.coded.matrix[:, self._numbers]).all(axis=1))
        base = int(finite[0]) if len(finite) else 0
        rows = self.coded.take(np.full(len(columns), base))
        rows.matrix[np.arange(len(columns)), columns] = value
        return rows

    def _answers(self, rows: Coded, frame: Callable[[Coded], pd.DataFrame]) -> list[Answer | None]:
        """The model's answer to each row; None where it refuses the row, or answers no finite number."""
        answers = self._asked(rows, frame)
        if answers is None:
            single = [self._asked(rows.take(np.array([n])), frame) for n in range(len(rows))]
            return [None if answer is None else _finite(answer[0]) for answer in single]
        return [_finite(answer) for answer in answers]

    def _asked(self, rows: Coded, frame: Callable[[Coded], pd.DataFrame]) -> Answer | None:
        from estiba.model.estimators.outputs import answer

        if not len(rows):
            return np.empty((0, 0))
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                return answer(self._model, frame(rows), self._head)
        except Exception:  # every library has its own errors for such a value
            return None


def _finite(answer: Answer) -> Answer | None:
    return answer if np.isfinite(answer).all() else None


def _lenient(field: Field) -> Field:
    """The field with all values that the coded form has."""
    if field.kind == "category":
        return msgspec.structs.replace(
            field, nullable=True, unseen="other" if field.unseen == "error" else field.unseen
        )
    return msgspec.structs.replace(field, nullable=True) if field.kind == "number" else field


def _missing_as(form: str, field: Field) -> Field:
    """The field whose missing values are NaN or None where its dtype allows both."""
    return msgspec.structs.replace(field, missing=form) if field.dtype == "object" else field
