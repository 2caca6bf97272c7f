"""Convert what a caller sends for a model of tensors to arrays of the type and shape of its fields."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.core import memory
from estiba.core.errors import BadInput, BadRequest, MissingExtra, Problem
from estiba.core.suggest import did_you_mean
from estiba.model.coding import images
from estiba.model.coding.coder import Coded
from estiba.model.coding.images import PixelBudget, TooManyElements
from estiba.model.coding.known_names import MAX_PROBLEMS
from estiba.model.schema.json_pointer import pointer
from estiba.model.schema.signature import Field, Signature
from estiba.model.schema.tensor_types import MAX_ELEMENTS, MAX_REQUEST_ELEMENTS, Shape, fits, shape_text
from estiba.model.schema.values import expected, say

Array = npt.NDArray[Any]

Part = dict[str, Array]
"""One array per field. The first axis counts records, unless a record is all that the model takes in one run."""


BYTES_PER_ELEMENT = 128
"""Memory for an element of a request: in arrays, as a number of a list in JSON, and the same for one of its answer."""


class CodedTensors(Coded, frozen=True):
    """Records of tensors in order: `parts`, each with records of equal shapes, and the number of records of each.

    `matrix` has a row for each record and no columns.
    """

    parts: tuple[Part, ...] = ()
    counts: tuple[int, ...] = ()


def max_request_elements(fields: Sequence[Field], least: int) -> int:
    """Elements that a request may have in the memory that is free now, and at least those of one record.

    Args:
        least: elements of a request that has to be possible.
    """
    free = memory.available()
    if free is None:
        return MAX_REQUEST_ELEMENTS
    own = (field.max_elements or _fixed(field.shape) for field in fields)
    return min(MAX_REQUEST_ELEMENTS, max(free // BYTES_PER_ELEMENT, least, *own))


def _fixed(shape: Shape) -> int:
    """The number of elements of this shape; 0 where an axis is free."""
    return math.prod(axis if isinstance(axis, int) else 0 for axis in shape)


class _WrongError(ValueError):
    """A value that is not the field's; says why."""


class TensorCoder:
    """Created once per loaded model; safe to share between threads."""

    def __init__(self, signature: Signature, max_elements: int = 0) -> None:
        """Make a coder.

        Args:
            max_elements: elements of one request; MAX_REQUEST_ELEMENTS by default.
        """
        self.signature = signature
        self.max_elements = max_elements or MAX_REQUEST_ELEMENTS
        self.fields = signature.fields
        self.stacks = signature.head.batch != "none"
        self._index = {field.name: field for field in self.fields}
        self._nested = {field.name: _nested(field) for field in self.fields}

    def check(self, records: Sequence[object]) -> CodedTensors:
        """Convert records (mappings of field name to nested lists, arrays, or an image) to arrays.

        Raises:
            BadInput: with up to 100 problems, each with its JSON pointer; a wrong tensor is named with the type and
                shape that was expected, and those received. TooManyElements: they are too large together.
        """
        problems: list[Problem] = []
        coded: list[Part] = []
        left, budget = self.max_elements, PixelBudget()
        for number, record in enumerate(records):
            part = self._record(number, record, problems, budget)
            if len(problems) >= MAX_PROBLEMS:
                break
            left -= sum(array.size for array in part.values())
            if left < 0:
                raise TooManyElements(
                    f"The tensors of one request may have {self.max_elements:,} elements together; "
                    f"record {number} is beyond that."
                )
            coded.append(part)
        if problems:
            raise BadInput(problems[:MAX_PROBLEMS])
        return self._gather(coded)

    def check_stacked(self, arrays: Mapping[str, object]) -> CodedTensors:
        """One array per field for all records at once: its first axis counts them.

        Raises:
            BadInput: as `check`; an array as a whole is named by the field alone, `#/bytes`.
        """
        if not self.stacks:
            return self.check([arrays])
        problems = [Problem(f"#/{name}", self._unknown(name)) for name in arrays if name not in self._index]
        part: Part = {}
        for field in self.fields:
            if field.name not in arrays:
                problems.append(Problem(f"#/{field.name}", f"missing; expected {expected(field)} for each record"))
                continue
            try:
                part[field.name] = self._stacked(field, np.asarray(arrays[field.name]))
            except _WrongError as error:
                problems.append(Problem(f"#/{field.name}", str(error)))
        counts = {name: len(array) for name, array in part.items()}
        if not problems and len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
            problems.append(Problem("#", f"expected as many records of each field, got {listed}"))
        if problems:
            raise BadInput(problems[:MAX_PROBLEMS])
        count = next(iter(counts.values()))
        return CodedTensors(np.empty((count, 0)), parts=(part,), counts=(count,))

    def _stacked(self, field: Field, array: Array) -> Array:
        if array.ndim == 0 or not fits(field.shape, array.shape[1:]) or not len(array):
            raise _WrongError(
                f"expected {field.dtype} of shape {shape_text(('records', *field.shape))}, got {_described(array)}"
            )
        _check_size(field, array.size // len(array))
        if array.size > self.max_elements:
            raise TooManyElements(f"The tensor of {field.name!r} has more than {self.max_elements:,} elements.")
        return _converted(field, array)

    def _record(self, number: int, record: object, problems: list[Problem], budget: PixelBudget) -> Part:
        if not isinstance(record, Mapping):
            problems.append(Problem(f"#/records/{number}", f"expected an object, got {say(record)}"))
            return {}
        for name in record:
            if name not in self._index:
                problems.append(Problem(pointer(number, str(name)), self._unknown(str(name))))
        part: Part = {}
        for field in self.fields:
            if field.name not in record:
                problems.append(Problem(pointer(number, field.name), f"missing; expected {expected(field)}"))
                continue
            try:
                part[field.name] = self.tensor(field, record[field.name], budget)
            except ValueError as error:
                problems.append(Problem(pointer(number, field.name), str(error)))
        return part

    def _unknown(self, name: str) -> str:
        return "the model has no such field" + did_you_mean(name, self._index, otherwise="")

    def tensor(self, field: Field, value: Any, budget: PixelBudget | None = None) -> Array:
        """One value as the field's tensor; raises ValueError with the reason where it is not one."""
        if isinstance(value, (bytes, bytearray, memoryview)) or (isinstance(value, str) and field.image is not None):
            return _image(field, value, budget)
        is_list = not hasattr(value, "dtype")
        array = self._of_lists(field, value) if is_list else np.asarray(value)
        if not fits(field.shape, array.shape):
            received = f"shape {shape_text(array.shape)}" if is_list else _described(array)  # lists have no type
            raise _WrongError(f"expected {expected(field)}, got {received}")
        _check_size(field, array.size)
        return _converted(field, array)

    def _of_lists(self, field: Field, value: Any) -> Array:
        try:
            plain: Any = msgspec.convert(value, self._nested[field.name])
        except msgspec.ValidationError as error:
            if isinstance(value, (list, tuple)) and any(hasattr(part, "dtype") for part in value):
                return _together(field, value)
            raise _WrongError(f"expected {expected(field)}, got {_received(value, str(error))}") from None
        kind = field.dtype[0]
        dtype = {"f": np.float64, "i": np.int64, "u": np.uint64, "b": np.bool_}.get(kind, np.object_)
        try:
            return np.array(plain, dtype)
        except (OverflowError, ValueError) as error:
            if isinstance(error, OverflowError):
                raise _WrongError(f"has a value that does not fit into {field.dtype}") from None
            raise _WrongError(f"expected {expected(field)}, got arrays of unequal lengths") from None

    def _gather(self, coded: list[Part]) -> CodedTensors:
        """Stack consecutive records of equal shapes."""
        count = len(coded)
        if not self.stacks:
            return CodedTensors(np.empty((count, 0)), parts=tuple(coded), counts=(1,) * count)
        runs: list[list[Part]] = []
        for part in coded:
            if runs and _shapes(runs[-1][0]) == _shapes(part):
                runs[-1].append(part)
            else:
                runs.append([part])
        parts = tuple(
            {name: np.stack([each[name] for each in run]) if len(run) > 1 else run[0][name][None] for name in run[0]}
            for run in runs
        )
        return CodedTensors(np.empty((count, 0)), parts=parts, counts=tuple(map(len, runs)))


def tensors_of(coder: TensorCoder, rows: Any) -> CodedTensors:
    """Rows as a notebook has them: records, one record, an image, or arrays whose first axis counts records.

    Raises:
        BadInput: as `TensorCoder.check`.
    """
    only = coder.fields[0] if len(coder.fields) == 1 else None
    if isinstance(rows, Mapping):
        return coder.check_stacked(rows) if _is_stacked(coder, rows) else coder.check([rows])
    if only is not None and hasattr(rows, "ndim") and hasattr(rows, "dtype"):
        named = {only.name: rows}
        return coder.check_stacked(named) if _is_stacked(coder, named) else coder.check([named])
    if only is not None and isinstance(rows, (bytes, bytearray, memoryview)):
        return coder.check([{only.name: rows}])
    if not isinstance(rows, (list, tuple)):
        known = ", ".join(field.name for field in coder.fields)
        raise BadRequest(
            f"Cannot read records from a value of type {type(rows).__name__}.",
            hint=f"Give records, or arrays by field name: {known}.",
        )
    if only is not None:
        rows = [row if isinstance(row, Mapping) else {only.name: row} for row in rows]
    return coder.check(rows)


def _is_stacked(coder: TensorCoder, rows: Mapping[str, Any]) -> bool:
    """Tell whether all values are arrays with an axis before those of their fields."""
    ranks = {field.name: len(field.shape) for field in coder.fields}
    return coder.stacks and all(getattr(value, "ndim", -1) == ranks.get(name, -2) + 1 for name, value in rows.items())


def _shapes(part: Part) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in part.values())


def _nested(field: Field) -> Any:
    """The type that msgspec converts the nested lists of a field to."""
    kind: Any = {"f": float, "i": int, "u": int, "b": bool}.get(field.dtype[0], str)
    for _ in field.shape:
        kind = list[kind]
    return kind


def _check_size(field: Field, size: int) -> None:
    limit = field.max_elements or MAX_ELEMENTS
    if size > limit:
        raise _WrongError(f"expected at most {limit:,} elements, got {size:,}")


def _converted(field: Field, array: Array) -> Array:
    """The array with the element type of the field; only numbers of floats may be rounded."""
    kind, given = field.dtype[0], array.dtype.kind
    if field.dtype == array.dtype.name and array.dtype.isnative:
        return array
    if kind == "s" and given in "UO":
        return _texts(field, array)
    if (kind == "f" and given in "fiu") or (kind in "iu" and given in "iu"):
        with np.errstate(over="ignore", invalid="ignore"):
            converted = array.astype(field.dtype)
            kept = (
                (np.isfinite(converted) | ~np.isfinite(array))
                if given == "f"
                else _back(converted, array.dtype) == array
            )
        if not kept.all():
            raise _WrongError(f"has a value that does not fit into {field.dtype}: {array[~kept].flat[0]}")
        if kind in "iu" and ((converted < 0) != (array < 0)).any():
            raise _WrongError(f"has a value that does not fit into {field.dtype}")
        return converted
    raise _WrongError(f"expected {expected(field)}, got {_described(array)}")


def _back(converted: Array, dtype: np.dtype[Any]) -> Array:
    return converted.astype(dtype)


def _texts(field: Field, array: Array) -> Array:
    texts = array.astype(object)
    if not all(isinstance(value, str) for value in texts.flat):
        raise _WrongError(f"expected {expected(field)}, got values that are not text")
    return texts


def _together(field: Field, values: Sequence[Any]) -> Array:
    try:
        return np.stack([np.asarray(value) for value in values])
    except ValueError:
        raise _WrongError(f"expected {expected(field)}, got arrays of unequal shapes") from None


def _image(field: Field, value: Any, budget: PixelBudget | None) -> Array:
    if field.image is None:
        raise _WrongError(f"expected {expected(field)}, got bytes; the field takes no images")
    try:
        content = base64.b64decode(value, validate=True) if isinstance(value, str) else bytes(value)
    except (binascii.Error, ValueError):
        raise _WrongError(f"expected {expected(field)} in base64, got a string that is not base64") from None
    try:
        array = images.decode(content, field, budget)
    except MissingExtra as error:
        raise _WrongError(f"images cannot be read here: {error.message}") from None
    return array


def _described(array: Array) -> str:
    name = "text" if array.dtype.kind == "U" else array.dtype.name
    return f"{name} of shape {shape_text(array.shape)}"


_NAMES = {"str": "a string", "int": "an integer", "float": "a number", "bool": "a boolean", "object": "an object"}

_PLACE_SIGN = " - at `$"


def _received(value: Any, reason: str) -> str:
    """The shape of nested lists along their first elements, or the first element of a wrong type and its path."""
    shape: list[int] = []
    inner = value
    while isinstance(inner, list) and len(shape) < 16:
        shape.append(len(inner))
        inner = inner[0] if inner else None
    message, _, path = reason.partition(_PLACE_SIGN)
    if "array" in message:
        return f"shape {shape_text(shape)}" if shape else say(value)
    if message == "Number out of range":
        return f"a number beyond its range at {path.strip('`')}" if path else "a number beyond its range"
    wrong = _NAMES.get(type_name := message.rpartition("got ")[2].strip("`"), type_name)
    return f"{wrong} at {path.strip('`')}" if path else say(value)
