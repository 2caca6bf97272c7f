"""Rules that lower each operator of ONNX to columns, for the operators that the converter writes.

A tensor of the graph is an array of column numbers whose first axis, of length one, stands for the rows; constants stay
arrays. NumPy's own rules for shapes then do what ONNX's do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.engines.columns import Columns
from estiba.model.engines.onnx_reader import BOOL, DOUBLE, FLOAT, INT64, Array, NotRecognised

MAX_PRODUCTS = 20_000
"""Multiplications of one matrix product. A larger one is faster in ONNX Runtime."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A tensor with one entry per row: column numbers of shape (1, ...), and the element type of ONNX."""

    columns: npt.NDArray[np.int64]
    type: int = DOUBLE


@dataclass(frozen=True, eq=False)
class Minimum:
    """The minimum of a tensor over all rows, or the comparison of it with a limit. Only an If may use it."""

    of: Rows
    limit: float | None = None


Tensor = Rows | Minimum | Array
Rule = Callable[[Columns, Sequence[Tensor], Mapping[str, Any]], Tensor]


def _ids(c: Columns, tensor: Tensor) -> npt.NDArray[np.int64]:
    if isinstance(tensor, Minimum):
        raise NotRecognised("one number for all rows is used row by row")
    return tensor.columns if isinstance(tensor, Rows) else c.constants(tensor)


def _type(tensors: Sequence[Tensor]) -> int:
    """The element type of an operation's operands."""
    found = {t.type if isinstance(t, Rows) else _element(t) for t in tensors}
    if len(found) != 1:
        raise NotRecognised("operands differ in type")
    return found.pop()


def _element(tensor: Tensor) -> int:
    kind = tensor.dtype.str if isinstance(tensor, np.ndarray) else ""
    return {"<f8": DOUBLE, "<f4": FLOAT, "<i8": INT64, "|b1": BOOL}.get(kind, 0)


def _each(c: Columns, op: str, operands: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """An operation of the kernel on each element, with NumPy's broadcasting."""
    together = list(np.broadcast_arrays(*operands))
    flat = [c.op(op, *map(int, args)) for args in zip(*(a.ravel() for a in together), strict=True)]
    made: npt.NDArray[np.int64] = np.asarray(flat, np.int64).reshape(together[0].shape)
    if made.ndim == 0 or made.shape[0] != 1:
        raise NotRecognised("rows are computed from other rows")
    return made


def _elementwise(op: str, types: Sequence[int] = (DOUBLE,), gives: int | None = None) -> Rule:
    def rule(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
        if any(isinstance(t, Minimum) for t in given):
            return _minimum_below(op, given)
        kind = _type(given)
        if kind not in types:
            raise NotRecognised(f"{op} is asked of numbers that are not float64")
        return Rows(_each(c, op, [_ids(c, t) for t in given]), kind if gives is None else gives)

    return rule


def _minimum_below(op: str, given: Sequence[Tensor]) -> Tensor:
    near, limit = given
    if op != "less" or not isinstance(near, Minimum) or not isinstance(limit, np.ndarray):
        raise NotRecognised("one number for all rows is used in a way without a rule")
    return Minimum(near.of, float(limit))


def _where(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    if _type(given[:1]) != BOOL:
        raise NotRecognised("Where asks something else than yes or no")
    return Rows(_each(c, "where", [_ids(c, t) for t in given]), _type(given[1:]))


def _cast(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    (source,) = given
    if not isinstance(source, Rows):
        raise NotRecognised("a constant is cast")
    to, kind = attributes["to"], source.type
    if kind == INT64 and to == FLOAT:
        raise NotRecognised("whole numbers are cast to float32")
    steps = {FLOAT: "single" if kind == DOUBLE else "", DOUBLE: "", BOOL: "truth" if kind != BOOL else ""}
    steps[INT64] = "whole" if kind in (FLOAT, DOUBLE) else ""
    op = steps[to]
    return Rows(_each(c, op, [source.columns]) if op else source.columns, to)


def _same(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    return given[0]


def _gather(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    data, index = given
    axis = attributes.get("axis", 0)
    if isinstance(data, Rows) and isinstance(index, np.ndarray) and axis > 0:
        return Rows(np.take(data.columns, index, axis=axis), data.type)
    if not isinstance(data, np.ndarray) or not isinstance(index, Rows) or axis != 0 or index.type != INT64:
        raise NotRecognised("Gather takes rows by rows")
    if data.dtype != np.float64:
        raise NotRecognised("Gather takes numbers that are not float64")
    tables = np.ascontiguousarray(np.moveaxis(data.reshape(len(data), -1), 0, 1))
    flat = [[c.take(table, int(i)) for table in tables] for i in index.columns.ravel()]
    return Rows(np.asarray(flat, np.int64).reshape(*index.columns.shape, *data.shape[1:]))


def _concat(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    if attributes["axis"] == 0 or not all(isinstance(t, Rows) for t in given):
        raise NotRecognised("Concat joins something else than columns")
    return Rows(np.concatenate([_ids(c, t) for t in given], axis=attributes["axis"]), _type(given))


def _axes(given: Sequence[Tensor]) -> tuple[int, ...]:
    listed = given[1] if len(given) == 2 else None
    axes = tuple(np.atleast_1d(listed).tolist()) if isinstance(listed, np.ndarray) else ()
    if not axes or min(axes) < 1:
        raise NotRecognised("rows are put together")
    return axes


def _squeeze(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    return Rows(np.squeeze(_ids(c, given[0]), _axes(given)), _type(given[:1]))


def _unsqueeze(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    return Rows(np.expand_dims(_ids(c, given[0]), _axes(given)), _type(given[:1]))


def _add_up(c: Columns, parts: Sequence[int]) -> int:
    """A sum from the left. Others may add in another order, which is the same for whole numbers, and for two."""
    left = [p for p in parts if c.value(p) != 0.0] or list(parts[:1])
    free = len(left) <= 2 or all(c.known[p].whole for p in left)
    return reduce(lambda a, b: c.op("add", a, b, exact=free), left)


def _reduction(step: Callable[[Columns, Sequence[int]], int]) -> Rule:
    def rule(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
        if not isinstance(given[0], Rows) or given[0].type != DOUBLE:
            raise NotRecognised("something else than float64 is added up")
        (axis,) = _axes(given)
        ids = np.moveaxis(given[0].columns, axis, -1)
        flat = [step(c, line.tolist()) for line in ids.reshape(-1, ids.shape[-1])]
        made = np.asarray(flat, np.int64).reshape(ids.shape[:-1])
        return Rows(np.expand_dims(made, axis) if attributes.get("keepdims", 1) else made)

    return rule


def _chain(op: str) -> Callable[[Columns, Sequence[int]], int]:
    return lambda c, parts: reduce(lambda a, b: c.op(op, a, b), parts)


def _reduce_min(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    if len(given) == 1 and isinstance(given[0], Rows) and attributes.get("keepdims", 1) == 0:
        return Minimum(given[0])
    return _reduction(_chain("least"))(c, given, attributes)


def _sum(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    if _type(given) != DOUBLE:
        raise NotRecognised("something else than float64 is added up")
    return Rows(reduce(lambda a, b: _each(c, "add", [a, b]), [_ids(c, t) for t in given]))


def _arg_max(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    (source,) = given
    if not isinstance(source, Rows) or attributes.get("axis", 0) != 1 or source.columns.ndim != 2:
        raise NotRecognised("ArgMax looks along something else than columns")
    if attributes.get("select_last_index", 0) or not attributes.get("keepdims", 1):
        raise NotRecognised("ArgMax answers in a form without a rule")
    best, position = int(source.columns[0, 0]), c.constant(0)
    for i, column in enumerate(source.columns[0, 1:].tolist(), 1):
        larger = c.op("greater", column, best)
        position = c.op("where", larger, c.constant(i), position)
        best = c.op("where", larger, column, best)
    return Rows(np.asarray([[position]], np.int64), INT64)


def _clip(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    if len(given) != 3 or _type(given) != DOUBLE:
        raise NotRecognised("Clip has a form without a rule")
    x, low, high = (_ids(c, t) for t in given)
    return Rows(_each(c, "least", [_each(c, "most", [x, low]), high]))


def _mat_mul(c: Columns, given: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    x, weights = given
    if not isinstance(x, Rows) or not isinstance(weights, np.ndarray) or weights.ndim != 2 or _type(given) != DOUBLE:
        raise NotRecognised("MatMul has a form without a rule")
    lines = x.columns.reshape(-1, x.columns.shape[-1])
    if lines.size * weights.shape[1] > MAX_PRODUCTS or lines.shape[1] != len(weights):
        raise NotRecognised("a matrix product is too large")
    products = [
        [c.special("dot", line.tolist(), np.ascontiguousarray(w), exact=False) for w in weights.T] for line in lines
    ]
    return Rows(np.asarray(products, np.int64).reshape(*x.columns.shape[:-1], weights.shape[1]))


_NUMBERS = (DOUBLE, FLOAT, INT64)

RULES: dict[str, Rule] = {
    "Identity": _same,
    "Where": _where,
    "Cast": _cast,
    "Gather": _gather,
    "Concat": _concat,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "ReduceSum": _reduction(_add_up),
    "ReduceMax": _reduction(_chain("most")),
    "ReduceMin": _reduce_min,
    "Sum": _sum,
    "ArgMax": _arg_max,
    "Clip": _clip,
    "MatMul": _mat_mul,
    "IsNaN": _elementwise("isnan", (DOUBLE, FLOAT), BOOL),
    "IsInf": _elementwise("isinf", (DOUBLE, FLOAT), BOOL),
    "Not": _elementwise("not", (BOOL,), BOOL),
    "And": _elementwise("and", (BOOL,), BOOL),
    "Or": _elementwise("or", (BOOL,), BOOL),
    "Equal": _elementwise("equal", (*_NUMBERS, BOOL), BOOL),
    "Less": _elementwise("less", _NUMBERS, BOOL),
    "LessOrEqual": _elementwise("less_equal", _NUMBERS, BOOL),
    "Greater": _elementwise("greater", _NUMBERS, BOOL),
    "GreaterOrEqual": _elementwise("greater_equal", _NUMBERS, BOOL),
    "Add": _elementwise("add"),
    "Sub": _elementwise("subtract"),
    "Mul": _elementwise("multiply"),
    "Div": _elementwise("divide"),
    "Pow": _elementwise("power"),
    "Neg": _elementwise("negative"),
    "Abs": _elementwise("absolute"),
    "Sqrt": _elementwise("sqrt"),
    "Exp": _elementwise("exp"),
    "Log": _elementwise("log"),
    "Floor": _elementwise("floor"),
    "Ceil": _elementwise("ceil"),
    "Round": _elementwise("round"),
    "Sign": _elementwise("sign"),
    "Tanh": _elementwise("tanh"),
    "Reciprocal": _elementwise("reciprocal"),
}
