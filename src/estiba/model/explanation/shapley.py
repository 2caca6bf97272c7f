"""Shapley values of any model, from its answers to mixtures alone.

Three methods, the first that is exact within the rows that it may ask: additive, all subsets, permutations.

Source: Shapley, "A value for n-person games" (1953); sampling of permutations: Castro, Gomez and Tejada, "Polynomial
calculation of the Shapley value based on sampling" (2009), with each permutation and its reverse (antithetic pairs).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from estiba.model.coding.coder import Coded
from estiba.model.explanation.mixtures import Masks, Mixer

Vector = npt.NDArray[np.float64]
Ask = Callable[[Coded], Vector]
"""The explained number of each row, on the scale of the explanation."""

Method = Literal["trees", "additive", "subsets", "permutations"]

MAX_SUBSET_FIELDS = 16
"""Fields beyond which subsets are never enumerated: 65,536 of them for each background row."""

MAX_FIELDS = 1_000
"""Fields of a model that is asked about mixtures: each step of a permutation is a row of all fields."""

VALUES_AT_ONCE = 2**21
"""Numbers of the mixtures that are built and asked together."""

CHECKED_COALITIONS = 64
"""Random mixtures on which a model without interactions is checked, besides the explained row."""

ADDITIVE_TOLERANCE = 1e-9
"""Largest difference, relative to the largest number, between a sum of single effects and the whole effect."""


class Values(NamedTuple):
    """Contributions of the fields, in their order.

    Args:
        base: mean over the background rows; base plus the contributions is the explained number.
        errors: standard errors, None where the method is exact.
        asked: rows that the model was asked for.
    """

    method: Method
    base: float
    contributions: Vector
    errors: Vector | None
    asked: int


def additive(mixer: Mixer, ask: Ask) -> Values | None:
    """The values of a model without interactions; None where it has some, or answers that are not finite.

    A field's effect then does not depend on the other fields: one mixture for each field and background row says all.
    """
    fields, count = mixer.fields, len(mixer.background)
    masks = np.concatenate([np.zeros((1, fields), bool), np.eye(fields, dtype=bool), np.ones((1, fields), bool)])
    answers = ask(mixer.with_every_background(masks)).reshape(fields + 2, count)
    if not np.isfinite(answers).all():
        return None
    effects = answers[1:-1] - answers[0]
    largest = max(float(np.abs(answers).max()), 1e-300)
    random = np.random.default_rng(0)
    coalitions = random.random((CHECKED_COALITIONS, fields)) < 0.5
    background = np.arange(CHECKED_COALITIONS) % count
    mixed = ask(mixer.mix(coalitions, background))
    whole = effects.sum(axis=0) - (answers[-1] - answers[0])
    some = answers[0][background] + (coalitions * effects[:, background].T).sum(axis=1) - mixed
    apart = max(float(np.abs(whole).max()), float(np.abs(some).max()))
    if not apart <= ADDITIVE_TOLERANCE * largest:
        return None
    return Values("additive", float(answers[0].mean()), effects.mean(axis=1), None, answers.size + len(mixed))


def model_free(mixer: Mixer, ask: Ask, max_rows: int) -> Values:
    """The values of any model, exact where all subsets of the differing fields fit into `max_rows`."""
    differing = mixer.differing()
    exact = len(differing) <= MAX_SUBSET_FIELDS and 2 ** len(differing) * len(mixer.background) <= max_rows
    return _subsets(mixer, ask, differing) if exact else _permutations(mixer, ask, differing, max_rows)


def _subsets(mixer: Mixer, ask: Ask, differing: npt.NDArray[np.int_]) -> Values:
    n, count = len(differing), len(mixer.background)
    members = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1
    masks = np.zeros((len(members), mixer.fields), bool)
    masks[:, differing] = members
    step = max(VALUES_AT_ONCE // (count * mixer.fields), 1)
    pieces = [masks[start : start + step] for start in range(0, len(masks), step)]
    worth = np.concatenate(
        [ask(mixer.with_every_background(piece)).reshape(len(piece), count).mean(axis=1) for piece in pieces]
    )
    weights = np.array([1 / (n * math.comb(n - 1, size)) for size in range(n)]) if n else np.zeros(0)
    sizes = members.sum(axis=1)
    contributions = np.zeros(mixer.fields)
    for i, field in enumerate(differing.tolist()):
        without = np.flatnonzero(~members[:, i])
        contributions[field] = float(weights[sizes[without]] @ (worth[without | (1 << i)] - worth[without]))
    return Values("subsets", float(worth[0]), contributions, None, len(members) * count)


def _permutations(mixer: Mixer, ask: Ask, differing: npt.NDArray[np.int_], max_rows: int) -> Values:
    n, count = len(differing), len(mixer.background)
    pairs = max(max_rows // (2 * (n + 1)), 2)
    if pairs >= count:  # each background row as often as any other
        pairs -= pairs % count
    random = np.random.default_rng(0)  # the same row has the same explanation
    orders = np.array([random.permutation(n) for _ in range(pairs)])
    walks = np.stack([orders, orders[:, ::-1]], axis=1).reshape(2 * pairs, n)
    background = np.repeat(random.permutation(np.arange(pairs) % count), 2)
    step = max(VALUES_AT_ONCE // ((n + 1) * mixer.fields), 1)
    answers = np.concatenate(
        [
            ask(
                mixer.mix(
                    _steps(walks[i : i + step], differing, mixer.fields), np.repeat(background[i : i + step], n + 1)
                )
            )
            for i in range(0, len(walks), step)
        ]
    ).reshape(2 * pairs, n + 1)
    effects = np.zeros((2 * pairs, mixer.fields))
    np.put_along_axis(effects, differing[walks], np.diff(answers, axis=1), axis=1)
    by_pair = effects.reshape(pairs, 2, mixer.fields).mean(axis=1)
    contributions, errors = by_pair.mean(axis=0), by_pair.std(axis=0, ddof=1) / math.sqrt(pairs)
    base = float(ask(mixer.with_every_background(np.zeros((1, mixer.fields), bool))).mean())
    # Few walks do not begin at every background row; the least certain contributions take up the difference.
    left, doubt = float(answers[0, -1]) - base - float(contributions.sum()), errors**2
    contributions += left * (doubt / doubt.sum() if doubt.any() else 1 / mixer.fields)
    return Values("permutations", base, contributions, errors, answers.size + count)


def _steps(walks: npt.NDArray[np.int_], differing: npt.NDArray[np.int_], fields: int) -> Masks:
    """For each walk the masks of its steps: none of the fields, the first, the first two, and so on to all."""
    count, n = walks.shape
    at = np.empty_like(walks)
    np.put_along_axis(at, walks, np.broadcast_to(np.arange(n), walks.shape), axis=1)
    members = at[:, None, :] < np.arange(n + 1)[None, :, None]
    masks = np.zeros((count * (n + 1), fields), bool)
    masks[:, differing] = members.reshape(-1, n)
    return masks
