"""Convert transformers that map rows into the space of a kernel: Nystroem and random Fourier features."""

from __future__ import annotations

from typing import Any

import numpy as np

from estiba.model.convert.context import unsupported
from estiba.model.convert.functions import cosine
from estiba.model.convert.graph import Graph


def nystroem(g: Graph, t: Any, x: str) -> str:
    """Nystroem: the kernel between each row and some training rows, normalised."""
    points = np.asarray(t.components_, np.float64)
    return g.op("MatMul", _kernel(g, t, x, points), g.const(np.asarray(t.normalization_, np.float64).T))


def _kernel(g: Graph, t: Any, x: str, points: Any) -> str:
    gamma = 1.0 / points.shape[1] if t.gamma is None else float(t.gamma)
    if t.kernel_params or t.kernel not in ("rbf", "laplacian", "linear", "poly", "polynomial", "sigmoid"):
        raise unsupported(t, f"with the kernel {t.kernel} has no rule")
    if t.kernel in ("rbf", "laplacian"):
        rows = g.op("Unsqueeze", x, g.const([1], np.int64))
        apart = g.op("Sub", rows, g.const(points[None]))
        size = g.op("Mul", apart, apart) if t.kernel == "rbf" else g.op("Abs", apart)
        distance = g.op("ReduceSum", size, g.const([2], np.int64), keepdims=0)
        return g.op("Exp", g.op("Mul", g.const(-gamma), distance))
    inner = g.op("MatMul", x, g.const(points.T))
    if t.kernel == "linear":
        return inner
    shift = 1.0 if t.coef0 is None else float(t.coef0)
    inner = g.op("Add", g.op("Mul", g.const(gamma), inner), g.const(shift))
    if t.kernel == "sigmoid":
        return g.op("Tanh", inner)
    return g.op("Pow", inner, g.const(3.0 if t.degree is None else float(t.degree)))


def random_fourier(g: Graph, t: Any, x: str) -> str:
    """RBFSampler: cosines of random projections (Rahimi and Recht, 2007)."""
    projected = g.op("MatMul", x, g.const(np.asarray(t.random_weights_, np.float64)))
    shifted = g.op("Add", projected, g.const(np.asarray(t.random_offset_, np.float64)[None, :]))
    # A row, not one number: ONNX Runtime would take one into the next matrix product, and round it to float32.
    return g.op("Mul", cosine(g, shifted), g.const(np.full((1, t.n_components), (2.0 / t.n_components) ** 0.5)))
