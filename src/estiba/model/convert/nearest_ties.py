"""Find training rows at equal distances, of which scikit-learn takes any as the nearest.

Its choice is what NumPy's argpartition, or the traversal of a tree, happens to leave in front. That differs from
processor to processor, so no graph can repeat it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TIES_ASKED = 200
"""Training rows that are asked whether their nearest neighbours are at equal distances."""

MAX_TIED_SHARE = 0.02
"""Largest share of such rows in a model that converts."""


Numbers = npt.NDArray[np.float64]


def tied_share(
    distances: Numbers, count: int, values: Numbers, slack: float, own: npt.NDArray[np.int_] | None = None
) -> float:
    """The share of rows whose answer depends on the choice among training rows at equal distances.

    Args:
        distances: of each asked row to all training rows, shape (asked, rows).
        count: nearest neighbours that a row has.
        values: answers of the training rows, shape (rows, width).
        slack: the difference up to which distances count as equal.
        own: position of each asked row among the training rows, or -1. Such rows are asked again without themselves:
            as the nearest of all they would hide the ties of others, and with one neighbour all of them.
    """
    share = _share(distances, count, values, slack)
    if own is None:
        return share
    others = distances.copy()
    known = np.flatnonzero(own >= 0)
    others[known, own[known]] = np.inf
    return max(share, _share(others, count, values, slack))


def _share(distances: Numbers, count: int, values: Numbers, slack: float) -> float:
    if distances.shape[1] <= count:
        return 0.0
    tied = 0
    for row in distances:
        nearest = np.partition(row, (count - 1, count))
        last, following = nearest[count - 1], nearest[count]
        limit = last * (1 + 1e-9) + slack
        if np.isfinite(following) and following <= limit:
            rivals = values[(row >= last * (1 - 1e-9) - slack) & (row <= limit)]
            tied += bool(np.ptp(rivals, axis=0).any())
    return tied / len(distances)
