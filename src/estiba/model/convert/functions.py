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


_CENTRE = (
    "2509.0809287301226727 33430.575583588128105 67265.770927008700853 45921.953931549871457 13731.693765509461125 "
    "1971.5909503065514427 133.14166789178437745 3.387132872796366608",
    "5226.495278852854561 28729.085735721942674 39307.89580009271061 21213.794301586595867 5394.1960214247511077 "
    "687.1870074920579083 42.313330701600911252 1",
)
_FLANK = (
    "7.7454501427834140764e-4 0.0227238449892691845833 0.24178072517745061177 1.27045825245236838258 "
    "3.64784832476320460504 5.7694972214606914055 4.6303378461565452959 1.42343711074968357734",
    "1.05075007164441684324e-9 5.475938084995344946e-4 0.0151986665636164571966 0.14810397642748007459 "
    "0.68976733498510000455 1.6763848301838038494 2.05319162663775882187 1",
)
"""Coefficients of two rational functions, the highest power first: Wichura's algorithm AS 241 (1988), PPND16."""


def normal_quantile(g: Graph, p: str) -> str:
    """The inverse of the normal distribution function, for probabilities between 1e-11 and 1 - 1e-11.

    Its largest relative error is 1e-15.
    """
    half, zero = g.const(0.5), g.const(0.0)
    q = g.op("Sub", p, half)
    middle = g.op("LessOrEqual", g.op("Abs", q), g.const(0.425))
    square = g.op("Sub", g.const(0.180625), g.op("Mul", q, q))
    centre = g.op("Mul", q, _rational(g, square, _CENTRE))
    below = g.op("Less", q, zero)
    rest = g.op("Where", below, p, g.op("Sub", g.const(1.0), p))
    flank = _rational(g, g.op("Sub", g.op("Sqrt", g.op("Neg", g.op("Log", rest))), g.const(1.6)), _FLANK)
    return g.op("Where", middle, centre, g.op("Where", below, g.op("Neg", flank), flank))


def _rational(g: Graph, x: str, coefficients: tuple[str, str]) -> str:
    """One polynomial over another, both by Horner's rule."""
    parts = []
    for text in coefficients:
        first, *others = map(float, text.split())
        value = g.const(first)
        for number in others:
            value = g.op("Add", g.op("Mul", value, x), g.const(number))
        parts.append(value)
    return g.op("Div", *parts)


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
