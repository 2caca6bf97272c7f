"""Keep sparse columns sparse, so that nothing grows quadratically: weighted sums fold into a number for each level."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.model.coding.terms import Step
from estiba.model.convert.columns import Cell, Column, Columns, Levels, TermBlock, look_up_block, matrix, runs
from estiba.model.convert.graph import Graph

MAX_SUMMANDS = 4_000
"""Products of one weighted sum above which the parts of a sum are added up instead of multiplied by ones."""

MAX_DENSE_WIDTH = 64
"""A sparse output with more columns than this stays sparse."""


def kept(output: Any) -> Any:
    """A transformer's output: dense, or csr where it is sparse and wide."""
    if not hasattr(output, "toarray"):
        return output
    return output.tocsr() if output.shape[1] > MAX_DENSE_WIDTH else output.toarray()


def weighted(g: Graph, columns: Columns, weights: Any) -> str:
    """The columns times weights of shape (columns, width), summed from the first column on; (n, width) float64."""
    weights = np.asarray(weights, np.float64)
    if not columns.sparse:
        return g.op("MatMul", matrix(g, columns.columns), g.const(weights))
    width = weights.shape[1]
    parts: list[str] = []
    factors: list[npt.NDArray[np.float64]] = []
    start = 0
    for run in runs(columns.columns):
        part = weights[start : start + len(run)]
        start += len(run)
        folded = isinstance(run[0], Cell)
        parts.append(_folded(g, run, part) if folded else matrix(g, tuple(run)))
        factors.append(np.eye(width) if folded else part)
    if len(parts) == 1:
        return parts[0]
    if sum(len(f) for f in factors) * width > MAX_SUMMANDS:
        return g.op("Sum", *(_product(g, p, f) for p, f in zip(parts, factors, strict=True)))
    return g.op("MatMul", g.concat(parts), g.const(np.concatenate(factors)))


def weighted_in_order(g: Graph, columns: Columns, weights: Any) -> str:
    """The same by additions alone, whose every bit is that of scikit-learn's product of a sparse matrix: for trees."""
    weights = np.asarray(weights, np.float64)
    total, start = "", 0
    for run in runs(columns.columns):
        part = weights[start : start + len(run)]
        start += len(run)
        if isinstance(run[0], Cell):
            summands = [_folded(g, run, part)]
        else:
            summands = [
                g.op("Mul", matrix(g, (column,)), g.const(row[None, :])) for column, row in zip(run, part, strict=True)
            ]
        for summand in summands:
            total = g.op("Add", total, summand) if total else summand
    return total


def _product(g: Graph, part: str, factors: npt.NDArray[np.float64]) -> str:
    whole = factors.shape[0] == factors.shape[1] and bool((factors == np.eye(len(factors))).all())
    return part if whole else g.op("MatMul", part, g.const(factors))


def _folded(g: Graph, run: list[Column], weights: npt.NDArray[np.float64]) -> str:
    """The weighted sum of some columns of one block: a table of one row for each level, or weights of terms."""
    cells = [c for c in run if isinstance(c, Cell)]
    block = cells[0].block
    if isinstance(block, Levels):
        return look_up_block(g, block, _taken(block.values, cells) @ weights)
    placed = np.zeros((block.width, weights.shape[1]))
    np.add.at(placed, [c.position for c in cells], weights)
    return g.term_columns(block.terms, placed)


def _taken(values: Any, cells: list[Cell]) -> Any:
    indices = [c.position for c in cells]
    return values if indices == list(range(values.shape[1])) else values[:, indices]


def scaled(columns: Columns, factors: npt.NDArray[np.float64], sample: Any) -> Columns:
    """The columns with the numbers of sparse ones multiplied by a factor for each column."""

    def levels(values: Any, at: npt.NDArray[np.int64]) -> Any:
        return values.multiply(factors[at]).tocsr()

    def terms(block: TermBlock, cells: list[Cell], at: npt.NDArray[np.int64]) -> Step:
        placed = np.ones(block.width)
        placed[[c.position for c in cells]] = factors[at]
        return Step("scale", placed.tobytes())

    return _changed(columns, levels, terms, sample)


def above(columns: Columns, limit: float, sample: Any) -> Columns:
    """1 where a sparse column is above a limit, which is not below zero; else 0."""
    step = Step("above", np.asarray([limit]).tobytes())
    return _changed(
        columns, lambda values, _: (values > limit).astype(np.float64), lambda block, cells, at: step, sample
    )


def _changed(columns: Columns, levels: Any, terms: Any, sample: Any) -> Columns:
    """The columns with the numbers of each block of levels, or of terms, changed by a function."""
    columns_changed: list[Column] = []
    start = 0
    for run in runs(columns.columns):
        cells = [c for c in run if isinstance(c, Cell)]
        positions = np.arange(start, start + len(run))
        start += len(run)
        if not cells:
            columns_changed += run
            continue
        block = cells[0].block
        if isinstance(block, Levels):
            fresh = Levels(block.key, levels(_taken(block.values, cells), positions), block.dead)
            columns_changed += [Cell(fresh, i) for i in range(len(cells))]
        else:
            steps = (*block.terms.steps, terms(block, cells, positions))
            counted = TermBlock(msgspec.structs.replace(block.terms, steps=steps), block.width)
            columns_changed += [Cell(counted, c.position) for c in cells]
    return columns.same(tuple(columns_changed), sample)
