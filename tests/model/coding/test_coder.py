"""Both ways into the coded matrix agree, what is wrong is named, and coded rows come back as they went in."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from estiba.core.errors import BadInput
from estiba.model.coding.coder import Coded, Coder
from estiba.model.coding.known_names import MAX_PROBLEMS
from estiba.model.coding.record_type import code_hook
from estiba.model.schema.json_pointer import escape
from estiba.model.schema.signature import UNSEEN, Field, Head, Signature
from estiba.model.schema.signature_checks import validated

FIELDS = (
    Field(name="number", kind="number"),
    Field(name="ranged", kind="number", minimum=-1.5, maximum=2, nullable=True),
    Field(name="integer", kind="integer"),
    Field(name="few", kind="integer", minimum=0.5, maximum=9.5, nullable=True),
    Field(name="wide", kind="integer", minimum=-1e300, maximum=math.inf),
    Field(name="boolean", kind="boolean"),
    Field(name="perhaps", kind="boolean", nullable=True),
    Field(name="words", kind="category", levels=("a", "b", "")),
    Field(name="words or null", kind="category", levels=("a", "b"), nullable=True, unseen="null"),
    Field(name="words or other", kind="category", levels=("a", "b"), unseen="other"),
    Field(name="integers", kind="category", levels=(1, 2, -3), nullable=True),
    Field(name="integers or other", kind="category", levels=(0, 1, 2), unseen="other"),
    Field(name="large integers", kind="category", levels=(1, 2**70)),
    Field(name="floats", kind="category", levels=(0.5, 1.0, 2.0)),
    Field(name="floats or null", kind="category", levels=(0.5, 1.0), unseen="null", nullable=True),
    Field(name="truths", kind="category", levels=(True, False)),
    Field(name="mixed", kind="category", levels=("a", 1, 2.5), nullable=True),
    Field(name="mixed or other", kind="category", levels=("a", 1, 2.5), unseen="other"),
    Field(name="text", kind="text"),
    Field(name="a/b~c", kind="text", nullable=True),
    Field(name="time", kind="timestamp"),
    Field(name="times", kind="timestamp", minimum=0, maximum=2e9, nullable=True),
)
FIELD = {field.name: field for field in FIELDS}
HEAD = Head(kind="values", names=("y",))
GOOD: dict[str, Any] = {
    "number": 0.5, "ranged": 1, "integer": 7, "few": 3, "wide": 1, "boolean": True, "perhaps": None, "words": "b",
    "words or null": "a", "words or other": "b", "integers": -3, "integers or other": 2, "large integers": 2**70,
    "floats": 1.0, "floats or null": 0.5, "truths": False, "mixed": 2.5, "mixed or other": 1, "text": "x",
    "a/b~c": None, "time": "2026-01-31T12:00:00Z", "times": "2001-02-03T04:05:06.789",
}  # fmt: skip


def signature(*names: str) -> Signature:
    return validated(Signature(fields=tuple(FIELD[name] for name in names), head=HEAD))


CODERS = {name: Coder(signature(name)) for name in FIELD}
ALL = Coder(signature(*FIELD))
EDGES = [0, 1, -1, 2, 0.5, 1.0, 2.5, 5.0, 9, 10, 2**53, 2**53 + 1, -(2**53), 2**63, 2**70, 10**400, 1e300, -0.0, 5e-324]
WORDS = ["a", "b", "", "A", "x", "1", "true", "\x00", "é", "2026-01-31T12:00:00Z", "2026-01-31", "1960-01-01T00:00:00"]
values = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(EDGES),
    st.sampled_from(WORDS),
    st.integers(-(2**54), 2**54),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4).filter(lambda s: not any("\ud800" <= c <= "\udfff" for c in s)),
    st.datetimes().map(lambda t: t.isoformat()),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))])).map(str),
    st.just([]),
    st.just({}),
)


def fast(coder: Coder, row: dict[str, Any]) -> Coded | None:
    """A row coded by msgspec and the kernel; None where they refuse it."""
    try:
        record = msgspec.json.decode(json.dumps(row).encode(), type=coder.record, dec_hook=code_hook)
    except msgspec.DecodeError:
        return None
    packed = coder.pack([record])
    kernel, coder._compiled = coder._compiled, None  # the same without a C compiler
    assert same(coder.pack([record]), packed)
    coder._compiled = kernel
    return packed


def checked(coder: Coder, row: Any) -> Coded | None:
    try:
        return coder.check([row])
    except BadInput:
        return None


def same(one: Coded, other: Coded) -> bool:
    equal = np.array_equal(one.matrix, other.matrix, equal_nan=True)
    return equal and one.texts == other.texts and one.warnings == other.warnings


def details(coder: Coder, *rows: Any) -> dict[str, str]:
    with pytest.raises(BadInput) as found:
        coder.check(rows)
    return {p.pointer: p.detail for p in found.value.problems}


def odd(field: Field, value: object) -> bool:
    """Not the kind of value that the field asks for, and yet the same without loss."""
    whole = isinstance(value, float) and value.is_integer()
    if field.kind == "boolean":
        return type(value) in (int, float) and value in (0, 1)
    return whole and (field.kind == "integer" or any(type(level) is int for level in field.levels))


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(FIELD)), values)
def test_both_ways_agree(name: str, value: object) -> None:
    coder = CODERS[name]
    quick, careful = fast(coder, {name: value}), checked(coder, msgspec.json.decode(json.dumps({name: value})))
    if quick is not None:
        assert careful is not None
        assert same(quick, careful)
    elif careful is not None:
        assert odd(FIELD[name], value)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_order_of_keys_never_matters(data: st.DataObject) -> None:
    names = data.draw(st.permutations(sorted(GOOD)))
    shuffled = {name: GOOD[name] for name in names}
    quick = fast(ALL, shuffled)
    assert quick is not None
    assert same(quick, ALL.check([GOOD]))
    assert same(quick, ALL.check([shuffled]))


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(FIELD)), values)
def test_coded_rows_come_back(name: str, value: object) -> None:
    coder = CODERS[name]
    coded = checked(coder, {name: value})
    if coded is None or UNSEEN in coded.matrix:
        return
    again = coder.check(coder.rows(coded))
    assert np.array_equal(coded.matrix, again.matrix, equal_nan=True)
    assert coded.texts == again.texts


def test_a_nullable_field_may_be_left_out() -> None:
    short = {name: value for name, value in GOOD.items() if not FIELD[name].nullable}
    full = short | {name: None for name in FIELD if FIELD[name].nullable}
    quick = fast(ALL, short)
    assert quick is not None
    assert same(quick, ALL.check([full]))
    assert len(details(ALL, {})) == len(short)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("words or null", "z", math.nan),
        ("words or other", "z", UNSEEN),
        ("integers or other", 99, UNSEEN),
        ("floats or null", 7, math.nan),
        ("mixed or other", "z", UNSEEN),
        ("mixed or other", 7.25, UNSEEN),
    ],
)
def test_an_unseen_level_is_warned_of(name: str, value: object, code: float) -> None:
    for coded in (fast(CODERS[name], {name: value}), checked(CODERS[name], {name: value})):
        assert coded is not None
        assert np.array_equal(coded.matrix, [[code]], equal_nan=True)
        assert [(w.code, w.row, w.field) for w in coded.warnings] == [("unseen-category", 0, name)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("words", "z"), ("floats", 3), ("floats", True), ("mixed", "z"), ("mixed", True), ("integers", 4),
        ("integers or other", True), ("integers or other", "z"), ("words or other", 1), ("mixed or other", True),
        ("large integers", 3), ("times", "2100-01-01T00:00:00Z"), ("times", "1960-01-01"), ("time", 5),
        ("number", math.nan), ("number", math.inf), ("number", -math.inf), ("number", 10**400), ("number", True),
        ("integer", 2**53 + 1), ("integer", 0.5), ("wide", 2**60), ("boolean", 0.5), ("boolean", "true"),
        ("text", 5), ("number", np.array([1.0, 2.0])), ("words", ["a"]), ("number", np.float64("nan")),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(name: str, value: object) -> None:
    assert list(details(CODERS[name], {name: value})) == [f"#/records/0/{escape(name)}"]


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("number", np.float32(0.5), 0.5), ("integer", np.int64(5), 5), ("integer", np.float64(5), 5),
        ("boolean", np.bool_(True), 1), ("boolean", 1.0, 1),
        ("boolean", -0.0, 0), ("words", np.str_("b"), 1), ("integers", np.int8(-3), 2),
        ("perhaps", pd.NA, math.nan), ("times", pd.NaT, math.nan), ("times", np.datetime64("NaT"), math.nan),
        ("times", np.datetime64("1970-01-01T00:01", "ns"), 60), ("ranged", np.float32("nan"), math.nan),
        ("times", pd.Timestamp("1970-01-01T01:00+01:00"), 0), ("times", datetime(1970, 1, 2), 86400),
        ("times", datetime(1970, 1, 2).date(), 86400), ("mixed", float("nan"), math.nan),
    ],
)  # fmt: skip
def test_values_of_numpy_and_pandas(name: str, value: object, code: float) -> None:
    assert np.array_equal(CODERS[name].check([{name: value}]).matrix, [[code]], equal_nan=True)


def test_timestamps_without_a_zone_are_utc() -> None:
    rows = [{"time": t} for t in ("2026-01-31T12:00:00", "2026-01-31T12:00:00Z", "2026-01-31T13:30:00+01:30")]
    assert len(set(CODERS["time"].check(rows).matrix[:, 0])) == 1


def test_pointers_are_uri_fragments() -> None:
    coder = Coder(Signature(fields=tuple(Field(name=n, kind="number") for n in ("a/b~c", "é %", "x")), head=HEAD))
    found = details(coder, {"a/b~c": 1, "é %": 1, "x": 1}, {"a/b~c": "x", "x": 1, "y": 1})
    assert set(found) == {"#/records/1/a~1b~0c", "#/records/1/%C3%A9%20%25", "#/records/1/y"}
    assert set(details(coder, 5, "x", None)) == {"#/records/0", "#/records/1", "#/records/2"}


def test_no_more_than_a_hundred_problems_in_order_of_rows() -> None:
    found = details(ALL, *[{**GOOD, "number": "x", "words": "z"}] * 200)
    rows = [int(pointer.split("/")[2]) for pointer in found]
    assert len(rows) == 100
    assert rows == sorted(rows)


@pytest.mark.parametrize(
    ("name", "cell", "code"),
    [
        ("number", " 1.5e3 ", 1500), ("integer", "9007199254740992", 2**53), ("boolean", "TRUE", 1),
        ("boolean", "0", 0),
        ("words", "b", 1), ("integers", "-3", 2), ("integers", "2.0", 1), ("floats", "1", 1), ("floats", "0.50", 0),
        ("large integers", str(2**70), 1), ("truths", "true", 0), ("truths", "False", 1), ("perhaps", "", math.nan),
        ("integers or other", "99", UNSEEN), ("ranged", "nan", math.nan), ("times", "1970-01-01 00:01:00", 60),
        ("mixed", "1", 1), ("words or null", "z", math.nan),
    ],
)  # fmt: skip
def test_cells_of_csv(name: str, cell: str, code: float) -> None:
    assert np.array_equal(CODERS[name].check_text([name], [[cell]]).matrix, [[code]], equal_nan=True)


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("number", "1_000"), ("number", "x"), ("number", ""), ("number", "nan"), ("number", "inf"),
        ("integer", "9007199254740993"), ("integer", "1.5"), ("boolean", "yes"), ("words", "z"), ("floats", "x"),
    ],
)  # fmt: skip
def test_cells_that_do_not_fit(name: str, cell: str) -> None:
    with pytest.raises(BadInput) as found:
        CODERS[name].check_text([name], [[cell]])
    assert found.value.problems[0].pointer == f"#/records/0/{name}"


def test_whole_columns_are_judged_as_single_values_are() -> None:
    arrays = {
        "integer": [np.array([2**53 + 1]), np.array([2**53]), np.array([0.5]), np.array([math.inf])],
        "few": [np.array([math.nan, 5.0]), np.array([10]), np.array([3], np.uint8)],
        "number": [np.array([math.nan]), np.array([True]), np.array([1], np.int8), np.array([1e38], np.float32)],
        "boolean": [np.array([True]), np.array([0, 1]), np.array([2])],
    }  # fmt: skip
    for name, columns in arrays.items():
        for column in columns:
            whole = _accepted(name, column)
            single = _accepted(name, column.astype(object).tolist())
            assert whole == single, (name, column)


def _accepted(name: str, column: Any) -> bool:
    try:
        CODERS[name].check_columns({name: column}, len(column))
    except BadInput:
        return False
    return True


@pytest.mark.timeout(20)
def test_a_header_of_very_many_columns_is_judged_at_once() -> None:
    """A body of 16 MB may have millions of them; counting each in all of them would take a worker for hours."""
    with pytest.raises(BadInput) as caught:
        CODERS["number"].check_text(["number"] * 200_000 + [f"n{n}" for n in range(200_000)], [])
    assert caught.value.problems[0].detail == "the model has no such field"
    assert len(caught.value.problems) == MAX_PROBLEMS
