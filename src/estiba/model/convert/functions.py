"""Convert NumPy functions of one number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from estiba.model.convert.graph import DOUBLE, Graph


def log1p(g: Graph, x: str) -> str:
    """log(1 + x) without losing small x: log(u) * x / (u - 1) with u = 1 + x (Kahan's trick, Goldberg 1991)."""
    one = g.const(1.0)
    u = g.op("Add", one, x)
    rest = g.op("Sub", u, one)
    flat = g.op("Or", g.op("Equal", rest, g.const(0.0)), g.op("IsInf", u))
    safe = g.op("Where", flat, one, rest)
    value = g.op("Mul", g.op("Log", u), g.op("Div", x, safe))
    return g.op("Where", flat, x, value)


def expm1(g: Graph, x: str) -> str:
    """exp(x) - 1 without losing small x: (u - 1) * x / log(u) with u = exp(x) (Kahan; Higham 2002, section 1.14.1)."""
    one = g.const(1.0)
    u = g.op("Exp", x)
    plain = g.op("Sub", u, one)
    big = g.op("Greater", g.op("Abs", x), g.const(0.5))
    same = g.op("Equal", u, one)
    below = g.op("Where", g.op("Or", same, big), one, g.op("Log", u))
    value = g.op("Div", g.op("Mul", plain, x), below)
    return g.op("Where", big, plain, g.op("Where", same, x, value))


def cosine(g: Graph, x: str) -> str:
    """The cosine: turns taken off in two steps, so that no digit is lost, then its series. ONNX Runtime's own Cos is
    only good to 1e-9."""
    turns = g.op("Round", g.op("Div", x, g.const(2 * np.pi)))
    high = float(np.float32(2 * np.pi))
    low = 2 * np.pi - high + 2.4492935982947064e-16  # the rest of 2 pi, and what float64 does not hold of it
    rest = g.op("Sub", g.op("Sub", x, g.op("Mul", turns, g.const(high))), g.op("Mul", turns, g.const(low)))
    square = g.op("Mul", rest, rest)
    value = g.fill([0.0])
    for n in range(16, 0, -1):
        factor = g.const(-1.0 / ((2 * n - 1) * (2 * n)))
        value = g.op("Mul", g.op("Mul", square, factor), g.op("Add", g.const(1.0), value))
    return g.op("Add", g.const(1.0), value)


def _over(operator: str, constant: float, first: bool = False) -> Callable[[Graph, str], str]:
    def rule(g: Graph, x: str) -> str:
        return g.op(operator, g.const(constant), x) if first else g.op(operator, x, g.const(constant))

    return rule


def _plain(operator: str) -> Callable[[Graph, str], str]:
    return lambda g, x: g.op(operator, x)


FUNCTIONS: dict[str, Callable[[Graph, str], str]] = {
    "log1p": log1p,
    "expm1": expm1,
    "log2": lambda g, x: g.op("Div", g.op("Log", x), g.const(np.log(2.0))),
    "log10": lambda g, x: g.op("Div", g.op("Log", x), g.const(np.log(10.0))),
    "square": lambda g, x: g.op("Mul", x, x),
    "exp2": _over("Pow", 2.0, first=True),
    "cbrt": lambda g, x: g.op("Mul", g.op("Sign", x), g.op("Pow", g.op("Abs", x), g.const(1 / 3))),
    "isnan": lambda g, x: g.cast(g.op("IsNaN", x), DOUBLE),
    "deg2rad": _over("Mul", np.pi / 180),
    "rad2deg": _over("Mul", 180 / np.pi),
    "rint": _plain("Round"),
    "negative": _plain("Neg"),
    "absolute": _plain("Abs"),
    "fabs": _plain("Abs"),
} | {name: _plain(name.capitalize()) for name in ("log", "exp", "sqrt", "floor", "ceil", "sign", "tanh", "reciprocal")}
"""NumPy functions of one number, by name."""
