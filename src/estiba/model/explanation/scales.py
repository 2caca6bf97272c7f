"""Find the scale on which a model's answer is a weighted sum of what its trees answer: its own, or log-odds.

The relation is found from answers, not from the graph: it is fitted on some rows, and believed if other rows, which had
no part in the fit, follow it to the last digits. So it also holds for averages and stacks of ensembles, if it holds.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from estiba.model.coding.coder import Matrix

Vector = npt.NDArray[np.float64]

Scale = Literal["probability", "log-odds", "margin", "score", "value"]

TOLERANCE = 1e-9
TOLERANCE_OF_SINGLE = 1e-5
"""Largest deviation from the relation, relative to the largest number; for sums that are rounded to float32."""

CLEAR_ODDS, CLEAR_ODDS_OF_SINGLE = 12.0, 3.0
"""Log-odds up to which a probability says them to the tolerance; beyond, they are noise of its last digits."""

UNIT_TOLERANCE = 1e-4
"""Largest deviation of weights from 1, with which boosted models add what their trees answer to the log-odds."""

ROWS_BY_SUM = 2
"""Rows to fit with, for each number that the trees answer with."""


class Relation(NamedTuple):
    """The explained number as `sums @ weights + offset`."""

    scale: Scale
    weights: Vector
    offset: float


def log_odds(probabilities: Vector) -> Vector:
    """The logarithm of the odds; infinite for 0 and 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(probabilities) - np.log1p(-probabilities))


def find_relation(sums: Matrix, answers: Vector, own: Scale, tolerance: float) -> Relation | None:
    """The relation between what trees answer and the explained answer, on its own scale or as log-odds.

    Args:
        sums: what the trees answer to several rows, of shape (rows, sums).
        answers: the explained column of the model's answers to them.
        own: the scale of that column.
    """
    direct = _fitted(sums, answers, tolerance)
    odds = _fitted_odds(sums, answers, tolerance) if own == "probability" else None
    # Both hold where a boosted model knows no doubt, so that its sum takes two values: then the sum itself is meant.
    if odds is not None and (direct is None or np.abs(odds[0] - 1).max() < UNIT_TOLERANCE):
        return Relation("log-odds", *odds)
    return None if direct is None else Relation(own, *direct)


def _fitted_odds(sums: Matrix, probabilities: Vector, tolerance: float) -> tuple[Vector, float] | None:
    """Weights and offset of the log-odds, from the rows whose probability has digits enough to say them.

    The sum itself is tried first, with an offset alone: of a model that is nearly always sure, few rows say anything.
    """
    odds = log_odds(probabilities)
    clear = np.abs(odds) < (CLEAR_ODDS_OF_SINGLE if tolerance > TOLERANCE else CLEAR_ODDS)
    if clear.sum() < ROWS_BY_SUM:
        return None
    apart = (odds - sums.sum(axis=1))[clear]
    fitted: tuple[Vector, float] | None = np.ones(sums.shape[1]), float(np.median(apart))
    if np.ptp(apart) > tolerance * max(float(np.abs(odds[clear]).max()), 1.0):
        fitted = _fitted(sums[clear], odds[clear], tolerance)
    if fitted is None:
        return None
    weights, offset = fitted
    with np.errstate(over="ignore"):
        again = 1 / (1 + np.exp(-(sums @ weights + offset)))
    return fitted if np.nanmax(np.abs(again - probabilities)) <= tolerance else None


def _fitted(sums: Matrix, numbers: Vector, tolerance: float) -> tuple[Vector, float] | None:
    usable = np.isfinite(numbers) & np.isfinite(sums).all(axis=1)
    sums, numbers = sums[usable], numbers[usable]
    half = len(sums) // 2
    if half < ROWS_BY_SUM * sums.shape[1] + 1:
        return None
    center, spread = sums.mean(axis=0), sums.std(axis=0)
    spread[spread == 0] = 1.0
    design = np.column_stack([(sums - center) / spread, np.ones(len(sums))])
    solution, *_ = np.linalg.lstsq(design[:half], numbers[:half], rcond=1e-12)
    largest = max(float(np.abs(numbers).max()), 1e-300)
    if np.abs(design @ solution - numbers).max() > tolerance * largest:
        return None
    weights = solution[:-1] / spread
    return weights, float(solution[-1] - center @ weights)


def margin_of_class(sums: Matrix, probabilities: Matrix, position: int, tolerance: float) -> Relation | None:
    """The margin of one of several classes whose probabilities are the softmax of one sum for each class."""
    if sums.shape[1] != probabilities.shape[1]:
        return None
    usable = np.isfinite(sums).all(axis=1) & (probabilities > 0).all(axis=1)
    if usable.sum() < ROWS_BY_SUM:
        return None
    apart = np.log(probabilities[usable]) - sums[usable]
    apart -= apart[:, :1]  # the same for every row, if the classes' sums are all that a softmax was taken of
    largest = max(float(np.abs(sums[usable]).max()), 1.0)
    if np.abs(apart - apart[0]).max() > tolerance * largest:
        return None
    weights = np.zeros(sums.shape[1])
    weights[position] = 1.0
    return Relation("margin", weights, float(apart[0, position]))
