"""Golden rows are chosen from the sample and beside thresholds, and a model that answers differently is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from estiba.core.errors import BadArtifact, ParityError
from estiba.model.artifact import golden_rows
from estiba.model.coding.coder import Coded, Coder, Matrix
from estiba.model.schema.signature import UNSEEN, Field, Head, Outputs, Signature

FIELDS = (
    Field(name="age", kind="integer", minimum=18, maximum=100),
    Field(name="balance", kind="number", nullable=True),
    Field(name="plan", kind="category", levels=("a", "b", "c"), unseen="other"),
)
SIGNATURE = Signature(fields=FIELDS, head=Head(kind="probabilities", classes=("no", "yes")))
THRESHOLD = 0.1 + 0.2  # no short decimal


@pytest.fixture
def coder() -> Coder:
    return Coder(SIGNATURE)


@pytest.fixture
def sample() -> Coded:
    rng = np.random.default_rng(0)
    balance = np.where(rng.random(300) < 0.1, np.nan, rng.normal(size=300))
    return Coded(np.column_stack([rng.integers(18, 90, 300), balance, rng.integers(0, 2, 300)]).astype(float))


def tree(coded: Coded) -> Matrix:
    """A model with one threshold per number."""
    x = np.nan_to_num(coded.matrix)
    p = 0.2 + 0.3 * (x[:, 0] > 40) + 0.4 * (x[:, 1] > THRESHOLD) + 0.01 * x[:, 2]
    return np.column_stack([1 - p, p])


def test_every_level_missing_values_and_the_ends_are_there(coder: Coder, sample: Coded) -> None:
    chosen = golden_rows.choose(coder, sample, tree).matrix
    assert {0.0, 1.0, 2.0, UNSEEN} <= set(chosen[:, 2])
    assert np.isnan(chosen[:, 1]).any()
    assert {18.0, 100.0, sample.matrix[:, 0].max()} <= set(chosen[:, 0])


def test_bisection_finds_thresholds_to_the_last_bit(sample: Coded) -> None:
    pairs = golden_rows.beside_thresholds(FIELDS, sample, tree).matrix
    half = len(pairs) // 2
    below, above = pairs[:half], pairs[half:]
    number = np.flatnonzero((below[:, 1] != above[:, 1]) & np.isfinite(below[:, 1]))
    assert len(number)
    low, high = np.minimum(below, above)[number, 1], np.maximum(below, above)[number, 1]
    assert np.array_equal(np.nextafter(low, math.inf), high)
    assert set(low) == {THRESHOLD}
    whole = np.flatnonzero(below[:, 0] != above[:, 0])
    assert len(whole)
    assert set(np.minimum(below, above)[whole, 0]) == {40.0}


def test_rows_away_from_a_threshold_stay_within_the_sample() -> None:
    """A balance has no value below 0, and a model that jumps there."""
    balance = np.concatenate([np.zeros(150), np.arange(1.0, 151.0)])
    sample = Coded(np.column_stack([np.full(300, 30.0), balance, np.zeros(300)]))
    for threshold in (0.0, 1e-3, 75.0):
        above = golden_rows.beside_thresholds(
            FIELDS,
            sample,
            lambda coded, threshold=threshold: (coded.matrix[:, 1:2] > threshold).astype(float),  # type: ignore[misc]
            0.01,
        ).matrix[:, 1]
        assert above.min(initial=150.0) >= 0
        assert above.max(initial=0.0) <= 150
        assert (len(above) > 0) == (threshold == 75)


def test_a_float32_copy_of_the_threshold_is_caught(coder: Coder, sample: Coded) -> None:
    """The trap: the copy agrees on every sample row."""

    def rounded(coded: Coded) -> Matrix:
        moved = coded.matrix.copy()
        moved[:, 1] += THRESHOLD - float(np.float32(THRESHOLD))
        return tree(Coded(moved))

    assert np.array_equal(tree(sample), rounded(sample))
    rows = golden_rows.choose(coder, sample, tree)
    sealed = golden_rows.unseal(golden_rows.seal(coder, rows, tree(rows)))
    with pytest.raises(ParityError, match=r"Golden row \d+ is answered with"):
        golden_rows.prove(coder, sealed, rounded, golden_rows.TOLERANCE)


def test_sealing_loses_nothing(coder: Coder, sample: Coded) -> None:
    rows = golden_rows.choose(coder, sample, tree)
    sealed = golden_rows.unseal(golden_rows.seal(coder, rows, tree(rows)))
    assert np.array_equal(coder.check(sealed.records).matrix, rows.matrix, equal_nan=True)
    assert np.array_equal(sealed.matrix, tree(rows))
    parity = golden_rows.prove(coder, sealed, tree, golden_rows.TOLERANCE)
    assert parity.labels_equal == parity.labels_total == len(rows)
    assert set(parity.max_abs_error.values()) == {0.0}


def test_labels_are_compared_at_the_threshold() -> None:
    signature = Signature(fields=FIELDS, head=SIGNATURE.head, outputs=Outputs(threshold=0.3))
    expected, got = np.array([[0.7, 0.3]]), np.array([[0.7 + 1e-12, 0.3 - 1e-12]])
    parity, broken = golden_rows.compare(signature, expected, got)
    assert (parity.labels_equal, broken) == (0, 0)


def test_tolerance_is_relative_above_one() -> None:
    signature = Signature(fields=FIELDS, head=Head(kind="values", names=("price",)))
    assert golden_rows.compare(signature, np.array([[1e6]]), np.array([[1e6 + 0.5]]))[1] is None
    assert golden_rows.compare(signature, np.array([[1.0]]), np.array([[1.5]]))[1] == 0


@pytest.mark.parametrize("content", [b"", b"{", b'{"records":[{}],"answers":[]}', b"[1]"])
def test_what_is_no_golden_file_is_refused(content: bytes) -> None:
    with pytest.raises(BadArtifact):
        golden_rows.unseal(content)
