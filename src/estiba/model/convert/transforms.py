"""Convert transformers of numbers, in float64 and in scikit-learn's own order of operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.convert import curves, kernel_maps, sparse, texts
from estiba.model.convert.columns import Cell, Column, Columns, NotConvertible, Slot, Table, Text, slots
from estiba.model.convert.compose import STRUCTURES
from estiba.model.convert.context import Context, unsupported
from estiba.model.convert.functions import FUNCTIONS
from estiba.model.convert.graph import DOUBLE, Graph
from estiba.model.convert.iterative_imputer import iterative_imputer
from estiba.model.convert.knn_imputer import knn_imputer
from estiba.model.convert.sparse import kept, weighted_in_order
from estiba.model.convert.tables import keyed, tabulate
from estiba.model.convert.wrappers import resampling_transformers

Rule = Callable[[Graph, Any, str], str]
"""The graph, the fitted transformer, its input of shape (n, width) -> its output."""


def apply(c: Context, transformer: Any, columns: Columns) -> Columns:
    """Add a fitted transformer to the graph.

    Raises:
        NotConvertible: no rule covers it.
    """
    if transformer is None or (isinstance(transformer, str) and transformer == "passthrough"):
        return columns
    name = type(transformer).__name__
    ours = type(transformer).__module__.startswith("sklearn.")
    if type(transformer).__module__.startswith("imblearn.") and name == "Pipeline":
        return resampling_transformers(c, transformer, columns)
    if ours and name in STRUCTURES:
        return STRUCTURES[name](c, transformer, columns)
    if ours and name in VECTORIZERS:
        return texts.vectorize(transformer, columns)
    return _transformed(c, transformer, columns, name if ours else "")


def _why_no_text(field: str, transformer: Any) -> str:
    reader = type(transformer).__name__
    if hasattr(transformer, "categories_"):
        return (
            f"the field {field!r} is a text for a vectorizer and a category for {reader}, and a field is one of them: "
            f"train with a copy of the column under another name for {reader}"
        )
    return (
        f"the field {field!r} is a text that {reader} reads, and texts convert only behind scikit-learn's vectorizers"
    )


def _transformed(c: Context, transformer: Any, columns: Columns, name: str) -> Columns:
    """The columns after one transformer; `name` is its class in scikit-learn, empty for one of another library."""
    for column in columns.columns:
        if isinstance(column, Text):
            raise NotConvertible(_why_no_text(column.field, transformer))
    output = kept(transformer.transform(columns.sample))
    if output.shape[0] != columns.sample.shape[0]:
        raise unsupported(transformer, "takes one column as a list, not a table")
    if name and hasattr(transformer, "get_support"):
        return columns.take(list(map(int, transformer.get_support(indices=True)))).same(
            tuple(columns.columns[i] for i in transformer.get_support(indices=True)), output
        )
    if columns.sparse and name in SPARSE:
        return SPARSE[name](c, transformer, columns, output)
    if name in _WHOLE:
        return _WHOLE[name](c, transformer, columns, output)
    columns = keyed(columns, _levels(transformer, columns))
    if columns.tables:
        columns_made = tabulate(transformer, columns, output)
        if columns_made is not None:
            return columns_made
    rule = RULES.get(name)
    if rule is None:
        alone = "does not turn each category column, one by one, into what the sample shows"
        raise unsupported(transformer, alone if columns.tables else _why_not(transformer))
    if name == "FunctionTransformer" and _ufunc(transformer) is None:
        raise unsupported(transformer, _why_not(transformer))
    result = rule(c.graph, transformer, c.matrix(columns))
    return columns.same(slots(result, output.shape[1]), output)


def _why_not(transformer: Any) -> str:
    if type(transformer).__name__ == "FunctionTransformer":
        name = getattr(transformer.func, "__name__", "a function")
        return f"calls {name}, which has no exact ONNX form on numbers"
    if not type(transformer).__module__.startswith("sklearn."):
        return "reads columns of numbers, for which it has no rule; on category columns alone it converts"
    return "has no exact ONNX form on numbers"


def _levels(transformer: Any, columns: Columns) -> list[npt.NDArray[np.float64] | None]:
    """Per column the few numbers that matter to the transformer: those of an encoder, or a boolean's two."""
    categories = getattr(transformer, "categories_", None)
    levels: list[npt.NDArray[np.float64] | None] = []
    for i, column in enumerate(columns.columns):
        if isinstance(column, Slot) and categories is not None and len(categories) == len(columns):
            levels.append(_numbers(categories[i]))
        else:
            levels.append(column.levels if isinstance(column, Slot) and _cannot(transformer) else None)
    return levels


def _cannot(transformer: Any) -> bool:
    """Refuse a transformer that has no rule in numbers."""
    name = type(transformer).__name__
    return name not in RULES or (name == "FunctionTransformer" and _ufunc(transformer) is None)


def _numbers(categories: Any) -> npt.NDArray[np.float64] | None:
    try:
        return np.asarray([np.nan if c is None else float(c) for c in categories], np.float64)
    except (TypeError, ValueError):
        return None


def _impute(c: Context, imputer: Any, columns: Columns, output: Any) -> Columns:
    """SimpleImputer column by column, because strings and numbers may stand side by side."""
    if columns.tables:
        imputed = tabulate(imputer, columns, output)
        if imputed is not None:
            return imputed
    kept = [i for i, s in enumerate(imputer.statistics_) if imputer.keep_empty_features or not _is_nan(s)]
    fills = np.asarray(imputer.statistics_, object)
    made_columns = _fill(c, imputer, columns, kept, fills)
    flagged = [int(i) for i in imputer.indicator_.features_] if imputer.add_indicator else []
    if flagged:
        missing = _missing(c.graph, imputer, c.matrix(columns.take(flagged)))
        made_columns += slots(c.graph.cast(missing, DOUBLE), len(flagged))
    return columns.same(made_columns, output)


def _is_nan(value: Any) -> bool:
    return bool(value != value)


def _missing(g: Graph, imputer: Any, x: str) -> str:
    value = imputer.missing_values
    if value is None or _is_nan(value):
        return g.op("IsNaN", x)
    return g.op("Equal", x, g.const(float(value)))


def _flags(c: Context, indicator: Any, columns: Columns, output: Any) -> Columns:
    """MissingIndicator: 1 where a value is missing, for the columns that it watches."""
    watched = [int(i) for i in indicator.features_]
    flags: list[Column] = []
    for i in watched:
        column = columns.columns[i]
        if isinstance(column, Table):
            gone = [_is_missing(value, indicator.missing_values) for value in column.values]
            flags.append(replace(column, values=np.asarray(gone, np.float64)))
        else:
            flags += slots(c.graph.cast(_missing(c.graph, indicator, c.matrix(columns.take([i]))), DOUBLE), 1)
    return columns.same(tuple(flags), np.asarray(output, np.float64))


def _fill(c: Context, imputer: Any, columns: Columns, kept: list[int], fills: Any) -> tuple[Column, ...]:
    g = c.graph
    numeric = [i for i in kept if isinstance(columns.columns[i], Slot)]
    done: dict[int, Column] = {}
    if numeric:
        x = c.matrix(columns.take(numeric))
        row = g.const(np.asarray([[float(fills[i]) for i in numeric]]))
        result = g.op("Where", _missing(g, imputer, x), row, x)
        done = dict(zip(numeric, slots(result, len(numeric)), strict=True))
    for i in kept:
        column = columns.columns[i]
        if isinstance(column, Table):
            done[i] = _fill_table(column, imputer.missing_values, fills[i])
    return tuple(done[i] for i in kept)


def _is_missing(value: Any, missing: Any) -> bool:
    """Tell whether an imputer takes a value for missing."""
    return bool(value != value) or value is None if missing is None or _is_nan(missing) else bool(value == missing)


def _fill_table(table: Table, missing: Any, fill: Any) -> Table:
    values = np.empty(len(table.values), object)
    values[:] = [fill if _is_missing(v, missing) else v for v in table.values]
    return replace(table, values=values)


def _standard(g: Graph, t: Any, x: str) -> str:
    if t.with_mean:
        x = g.op("Sub", x, g.const(t.mean_[None, :]))
    return g.op("Div", x, g.const(t.scale_[None, :])) if t.with_std else x


def _min_max(g: Graph, t: Any, x: str) -> str:
    x = g.op("Add", g.op("Mul", x, g.const(t.scale_[None, :])), g.const(t.min_[None, :]))
    low, high = t.feature_range
    return g.op("Clip", x, g.const(float(low)), g.const(float(high))) if t.clip else x


def _max_abs(g: Graph, t: Any, x: str) -> str:
    x = g.op("Div", x, g.const(t.scale_[None, :]))
    return g.op("Clip", x, g.const(-1.0), g.const(1.0)) if getattr(t, "clip", False) else x


def _robust(g: Graph, t: Any, x: str) -> str:
    if t.with_centering:
        x = g.op("Sub", x, g.const(t.center_[None, :]))
    return g.op("Div", x, g.const(t.scale_[None, :])) if t.with_scaling else x


def _normalise(g: Graph, t: Any, x: str) -> str:
    if t.norm == "l2":
        size = g.op("Sqrt", g.total(g.op("Mul", x, x)))
    elif t.norm == "l1":
        size = g.total(g.op("Abs", x))
    else:
        size = g.op("ReduceMax", g.op("Abs", x), g.const([1], np.int64))
    return g.op("Div", x, g.op("Where", g.op("Equal", size, g.const(0.0)), g.const(1.0), size))


def _binarise(g: Graph, t: Any, x: str) -> str:
    return g.cast(g.op("Greater", x, g.const(float(t.threshold))), DOUBLE)


def _components(g: Graph, t: Any, x: str) -> str:
    """PCA as scikit-learn computes it: the mean goes through the product on its own."""
    components = np.asarray(t.components_, np.float64)
    result = g.op("MatMul", x, g.const(components.T))
    mean = getattr(t, "mean_", None)
    if mean is not None:
        result = g.op("Sub", result, g.const((mean.reshape(1, -1) @ components.T).reshape(1, -1)))
    if getattr(t, "whiten", False):
        scale = np.sqrt(t.explained_variance_)
        scale[scale < np.finfo(scale.dtype).eps] = np.finfo(scale.dtype).eps
        result = g.op("Div", result, g.const(scale[None, :]))
    return result


def _polynomial(g: Graph, t: Any, x: str) -> str:
    """Each power is one more factor on the product of fewer, from the left."""
    width = t.n_features_in_
    factors = [[i for i in range(width) for _ in range(p[i])] for p in t.powers_]
    longest = max(map(len, factors))
    if longest == 0:
        return g.fill(np.ones(len(factors)))
    ones = g.fill([1.0])
    extended = g.concat([x, ones])
    places = [f + [width] * (longest - len(f)) for f in factors]
    result = g.columns(extended, [p[0] for p in places], width + 1)
    for k in range(1, longest):
        result = g.op("Mul", result, g.columns(extended, [p[k] for p in places], width + 1))
    return result


def _bins(g: Graph, t: Any, x: str) -> str:
    """KBinsDiscretizer: how many inner edges are not above the value."""
    codes = []
    for i, edges in enumerate(t.bin_edges_):
        column = g.columns(x, [i], len(t.bin_edges_))
        inner = np.asarray(edges[1:-1], np.float64)
        above = g.cast(g.op("GreaterOrEqual", column, g.const(inner[None, :])), DOUBLE) if len(inner) else g.fill([0.0])
        code = g.total(above)
        if t.encode != "ordinal":
            code = g.cast(g.op("Equal", code, g.const(np.arange(len(inner) + 1.0)[None, :])), DOUBLE)
        codes.append(code)
    return g.concat(codes)


def _ufunc(transformer: Any) -> Callable[[Graph, str], str] | None:
    function = transformer.func
    if function is None:
        return lambda g, x: x
    known = isinstance(function, np.ufunc) and not transformer.kw_args
    return FUNCTIONS.get(function.__name__) if known else None


def _function(g: Graph, t: Any, x: str) -> str:
    rule = _ufunc(t)
    if rule is None:
        raise unsupported(t, _why_not(t))
    return rule(g, x)


def _scale_sparse(c: Context, t: Any, columns: Columns, output: Any) -> Columns:
    """StandardScaler without a mean, and MaxAbsScaler, which multiply a sparse matrix by the reciprocal."""
    if getattr(t, "with_mean", False):
        raise unsupported(t, "subtracts a mean from sparse columns")
    if t.scale_ is None or getattr(t, "clip", False):
        return columns.same(slots(RULES[type(t).__name__](c.graph, t, c.matrix(columns)), len(columns)), output)
    factors = 1.0 / np.asarray(t.scale_, np.float64)
    rescaled_cells = sparse.scaled(columns, factors, output)
    dense = [i for i, column in enumerate(columns.columns) if not isinstance(column, Cell)]
    if not dense:
        return rescaled_cells
    product = c.graph.op("Mul", c.matrix(columns.take(dense)), c.graph.const(factors[dense][None, :]))
    rescaled = dict(zip(dense, slots(product, len(dense)), strict=True))
    return columns.same(tuple(rescaled.get(i, column) for i, column in enumerate(rescaled_cells.columns)), output)


def _components_sparse(c: Context, t: Any, columns: Columns, output: Any) -> Columns:
    """TruncatedSVD: every component is a weighted sum."""
    result = weighted_in_order(c.graph, columns, np.asarray(t.components_, np.float64).T)
    return columns.same(slots(result, len(t.components_)), output)


VECTORIZERS = ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer")

SPARSE: dict[str, Callable[[Context, Any, Columns, Any], Columns]] = {
    "StandardScaler": _scale_sparse,
    "MaxAbsScaler": _scale_sparse,
    "TruncatedSVD": _components_sparse,
    "TfidfTransformer": lambda c, t, columns, output: texts.reweight(t, columns, output),
    "Normalizer": lambda c, t, columns, output: texts.normalise(t, columns, output),
}
"""Transformers that leave sparse columns sparse, or need them in a weighted sum alone."""

_WHOLE: dict[str, Callable[[Context, Any, Columns, Any], Columns]] = {
    "SimpleImputer": _impute,
    "IterativeImputer": iterative_imputer,
    "KNNImputer": knn_imputer,
    "MissingIndicator": _flags,
}
"""Transformers that look at each column, whether it is computed or looked up."""

RULES: dict[str, Rule] = {
    "StandardScaler": _standard,
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": _max_abs,
    "RobustScaler": _robust,
    "Normalizer": _normalise,
    "Binarizer": _binarise,
    "PCA": _components,
    "TruncatedSVD": _components,
    "PolynomialFeatures": _polynomial,
    "KBinsDiscretizer": _bins,
    "FunctionTransformer": _function,
    "PowerTransformer": curves.power,
    "QuantileTransformer": curves.quantile,
    "SplineTransformer": curves.spline,
    "Nystroem": kernel_maps.nystroem,
    "RBFSampler": kernel_maps.random_fourier,
}
