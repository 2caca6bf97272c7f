"""Convert XGBoost's linear booster, which adds up in float32, column by column."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.convert.graph import Graph


def linear_margin(g: Graph, x: str, booster: Any, base: npt.NDArray[np.float32]) -> str:
    """The margins of each output, float32 values of shape (n, outputs); a missing number adds nothing.

    A product and a sum of two float32 numbers, computed in float64 and rounded once, are those of float32.
    """
    weights = np.asarray(booster["model"]["weights"], np.float32).reshape(-1, len(base)).astype(np.float64)
    rows, bias = weights[:-1], weights[-1]
    x, width = g.as_float32(x), len(rows)
    # XGBoost keeps a start for each class, and its linear booster adds that of the first class to all of them.
    total = g.fill((bias.astype(np.float32) + base[0]).astype(np.float64))
    for i, row in enumerate(rows):
        column = g.columns(x, [i], width)
        product = g.as_float32(g.op("Mul", column, g.const(row[None, :])))
        added = g.as_float32(g.op("Add", total, product))
        total = g.op("Where", g.op("IsNaN", column), total, added)
    return total
