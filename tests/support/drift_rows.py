"""Rows of ten fields of every kind, a model that answers them, and shifts of these rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.artifact.profile import build
from estiba.model.coding.coder import Coded
from estiba.model.schema.signature import Field, Head, Signature
from estiba.monitoring.comparison import GROUPS
from estiba.monitoring.layout import Layout
from estiba.monitoring.options import DriftOptions
from estiba.monitoring.windows import Gathered, WindowResult, judge, reference_of

Matrix = npt.NDArray[np.float64]

NORMAL, LOGNORMAL, ZEROS, HEAVY, UNIFORM, TWO_PEAKS, WHOLE, SMALL, LARGE, FLAG = range(10)
MANY = 50

FIELDS = (
    *(Field(name=name, kind="number", nullable=True) for name in ("normal", "lognormal", "zeros", "heavy")),
    *(Field(name=name, kind="number") for name in ("uniform", "two-peaks")),
    Field(name="whole", kind="integer"),
    Field(name="small", kind="category", levels=("a", "b", "c"), unseen="other"),
    Field(name="large", kind="category", levels=tuple(f"level-{i}" for i in range(MANY))),
    Field(name="flag", kind="boolean"),
)
SIGNATURE = Signature(fields=FIELDS, head=Head(kind="probabilities", classes=("no", "yes")))


def draw(rows: int, random: np.random.Generator) -> Matrix:
    """Independent coded rows."""
    shares = 1 / np.arange(2, MANY + 2)
    matrix = np.empty((rows, len(FIELDS)))
    matrix[:, NORMAL] = random.normal(size=rows)
    matrix[:, LOGNORMAL] = random.lognormal(size=rows)
    matrix[:, ZEROS] = np.where(random.random(rows) < 0.36, 0, random.exponential(size=rows))
    matrix[:, HEAVY] = np.where(random.random(rows) < 0.05, np.nan, random.standard_t(3, rows))
    matrix[:, UNIFORM] = random.random(rows)
    matrix[:, TWO_PEAKS] = random.normal(random.choice([-3, 3], rows), 1)
    matrix[:, WHOLE] = random.integers(1, 5, rows)
    matrix[:, SMALL] = random.choice(3, rows, p=[0.5, 0.3, 0.2])
    matrix[:, LARGE] = random.choice(MANY, rows, p=shares / shares.sum())
    matrix[:, FLAG] = random.random(rows) < 0.3
    return matrix


def answer(coded: Coded) -> Matrix:
    """Probabilities that follow from three fields."""
    yes = 1 / (1 + np.exp(-np.nan_to_num(coded.matrix[:, :3]).sum(axis=1) / 2))
    return np.stack([1 - yes, yes], axis=1)


class Watch:
    """Windows one after the other, compared with a reference of `reference_rows` rows."""

    def __init__(self, random: np.random.Generator, reference_rows: int = 5_000, **options: Any) -> None:
        self.random = random
        profile = build(SIGNATURE, Coded(draw(reference_rows, random)), answer, "holdout")
        self.reference = reference_of(profile, SIGNATURE, 0)
        self.layout = Layout(self.reference.parts, SIGNATURE)
        self.options = DriftOptions(**options)
        self.last: WindowResult | None = None
        self.at = 0

    def gathered(self, matrix: Matrix) -> Gathered:
        coded = Coded(matrix)
        group = np.arange(len(matrix)) * GROUPS // len(matrix)
        return Gathered(self.at, self.at + 1, self.layout.count(coded, answer(coded), group, GROUPS))

    def window(self, matrix: Matrix) -> WindowResult:
        """Judge a window of these rows after those before."""
        self.last = judge(self.gathered(matrix), self.reference, self.last, self.options)
        self.at += 1
        return self.last
