"""Drift of made-up rows is reported after two windows and resolved after two; rows without drift stay quiet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from drift_rows import FLAG, HEAVY, LARGE, LOGNORMAL, NORMAL, SMALL, TWO_PEAKS, UNIFORM, WHOLE, Matrix, Watch, draw

from estiba.model.artifact.profile import build
from estiba.model.coding.coder import Coded
from estiba.model.schema.signature import UNSEEN
from estiba.monitoring.windows import adopted, reference_of

Change = Callable[[Matrix, np.random.Generator], None]


def shifted(rows: Matrix, random: np.random.Generator) -> None:
    rows[:, NORMAL] += 0.35


def scaled(rows: Matrix, random: np.random.Generator) -> None:
    rows[:, NORMAL] *= 1.5


def in_other_units(rows: Matrix, random: np.random.Generator) -> None:
    rows[:, LOGNORMAL] *= 1.609


def constant(rows: Matrix, random: np.random.Generator) -> None:
    rows[:, UNIFORM] = 0.5


def swapped(rows: Matrix, random: np.random.Generator) -> None:
    rows[:, [NORMAL, TWO_PEAKS]] = rows[:, [TWO_PEAKS, NORMAL]]


def other_mix(rows: Matrix, random: np.random.Generator) -> None:
    rows[random.random(len(rows)) < 0.2, SMALL] = 2


def missing_more(rows: Matrix, random: np.random.Generator) -> None:
    rows[random.random(len(rows)) < 0.07, HEAVY] = np.nan


def unseen(rows: Matrix, random: np.random.Generator) -> None:
    rows[random.random(len(rows)) < 0.05, SMALL] = UNSEEN


def one_level(rows: Matrix, random: np.random.Generator) -> None:
    rows[:, LARGE] = 7


def new_whole(rows: Matrix, random: np.random.Generator) -> None:
    rows[random.random(len(rows)) < 0.1, WHOLE] = 9


def flags(rows: Matrix, random: np.random.Generator) -> None:
    rows[random.random(len(rows)) < 0.15, FLAG] = 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (shifted, "normal"),
        (scaled, "normal"),
        (in_other_units, "lognormal"),
        (constant, "uniform"),
        (swapped, "two-peaks"),
        (other_mix, "small"),
        (missing_more, "heavy"),
        (unseen, "small"),
        (one_level, "large"),
        (new_whole, "whole"),
        (flags, "flag"),
    ],
)
def test_a_shift_is_reported_in_the_second_window_and_resolved_after_two(change: Change, field: str) -> None:
    watch = Watch(np.random.default_rng(11))
    assert watch.window(draw(1_000, watch.random)).detected == ()
    for count in range(2):
        rows = draw(1_000, watch.random)
        change(rows, watch.random)
        found = watch.window(rows)
        assert found.parts[field].flagged
        assert found.parts[field].since == 1
        assert (field in found.detected) is (count == 1)
    assert field in watch.window(draw(1_000, watch.random)).detected
    quiet = watch.window(draw(1_000, watch.random))
    assert quiet.detected == ()
    assert quiet.parts[field].since == 0


@pytest.mark.parametrize("times", [1, 4])
def test_windows_without_drift_are_quiet_and_rows_that_repeat_too(times: int) -> None:
    watch = Watch(np.random.default_rng(12 + times))
    flagged = 0
    for _ in range(120):
        result = watch.window(np.repeat(draw(1_000 // times, watch.random), times, axis=0))
        flagged += any(part.flagged for part in result.parts.values())
        assert result.detected == ()
    assert flagged <= 4, "a rate of 1 % has more with a probability below 1 %"


def test_a_drift_that_comes_slowly_is_reported_once_it_is_large_enough() -> None:
    watch = Watch(np.random.default_rng(13))
    began = None
    for step in range(20):
        rows = draw(1_000, watch.random)
        rows[:, NORMAL] += 0.03 * step
        if "normal" in watch.window(rows).detected:
            began = began or step
    assert began is not None
    assert 5 <= began <= 13
    assert watch.last is not None
    assert watch.last.parts["normal"].since < began


def test_windows_of_few_rows_are_not_compared_and_leave_the_state_as_it_is() -> None:
    watch = Watch(np.random.default_rng(14))
    for _ in range(2):
        rows = draw(1_000, watch.random)
        shifted(rows, watch.random)
        watch.window(rows)
    few = watch.window(draw(150, watch.random))
    assert not few.compared
    assert few.detected == ("normal", "output:yes")[: len(few.detected)]
    assert "normal" in few.detected


def test_answers_to_rows_of_training_are_no_measure() -> None:
    watch = Watch(np.random.default_rng(15))
    sample = build(watch.layout._signature, Coded(draw(2_000, watch.random)), _too_sure, "sample")  # type: ignore[arg-type]
    watch.reference = reference_of(sample, watch.layout._signature, 0)  # type: ignore[arg-type]
    assert watch.reference.output_source == "pending"
    for _ in range(2):
        result = watch.window(draw(1_000, watch.random))
    assert result.detected == ()
    assert result.parts["output:yes"].statistics == ()
    first = watch.gathered(draw(1_000, watch.random))
    watch.reference = adopted(watch.reference, first, source="live", at=5, outputs_only=True)
    assert (watch.reference.source, watch.reference.output_source) == ("sample", "live")
    assert watch.window(draw(1_000, watch.random)).parts["output:yes"].statistics != ()
    for _ in range(2):
        rows = draw(1_000, watch.random)
        rows[:, LOGNORMAL] += 1.5
        result = watch.window(rows)
    assert "output:yes" in result.detected


def _too_sure(coded: Coded) -> Matrix:
    """The answers of a model that knows its rows by heart."""
    yes = np.round(np.random.default_rng(0).random(len(coded.matrix)))
    return np.stack([1 - yes, yes], axis=1)


def test_ignored_fields_are_shown_and_not_reported() -> None:
    from estiba.monitoring.windows import judge

    watch = Watch(np.random.default_rng(16))
    rows = draw(1_000, watch.random)
    shifted(rows, watch.random)
    before = None
    for _ in range(2):
        before = judge(watch.gathered(rows), watch.reference, before, watch.options, ("normal",))
    assert before is not None
    assert "normal" not in before.detected
    assert before.parts["normal"].statistics[0].value > 0.1
