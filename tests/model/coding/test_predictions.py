"""Answers as callers see them, by row and by column."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from estiba.core.errors import BadProject
from estiba.model.coding.predictions import Predictions, labels, readers
from estiba.model.schema.signature import Band, Field, Head, Outputs, Signature
from estiba.model.schema.signature_checks import validated

FIELD = (Field(name="x", kind="number"),)
TWO = Head(kind="probabilities", classes=("no", "yes"))


def shown(head: Head, raw: list[list[float]], **outputs: Any) -> list[dict[str, Any]]:
    signature = validated(Signature(fields=FIELD, head=head, outputs=Outputs(**outputs)))
    predictions = Predictions(signature)
    rows = predictions.rows(np.array(raw))
    warned = list(predictions.with_warnings(np.array(raw))[1])
    predictions._compiled = None  # the same without a C compiler
    assert predictions.rows(np.array(raw)) == rows
    assert list(predictions.with_warnings(np.array(raw))[1]) == warned
    columns = predictions.columns(np.array(raw))
    flat = [
        {
            k: v
            for n, x in row.items()
            for k, v in (({f"{n}.{c}": p for c, p in x.items()}) if isinstance(x, dict) else {n: x}).items()
        }
        for row in rows
    ]
    for i, row in enumerate(flat):
        assert list(row) == list(columns)
        for name, value in row.items():
            other = columns[name][i]
            assert other == value or (value is None and (other is None or other != other))
    return rows


def test_the_most_probable_class_and_the_first_of_equals() -> None:
    rows = shown(TWO, [[0.4, 0.6], [0.5, 0.5]])
    assert [row["label"] for row in rows] == ["yes", "no"]
    assert rows[0]["probabilities"] == {"no": 0.4, "yes": 0.6}


def test_a_threshold_decides_from_itself_on() -> None:
    rows = shown(TWO, [[0.7, 0.3], [0.71, 0.29]], threshold=0.3)
    assert [row["label"] for row in rows] == ["yes", "no"]


def test_the_positive_class_may_be_the_first() -> None:
    rows = shown(TWO, [[0.7, 0.3]], positive="no", threshold=0.5, probability="p", probabilities="")
    assert rows == [{"label": "no", "p": 0.7}]


def test_bands_take_their_lower_edge() -> None:
    bands = {"risk": Band(edges=(0.3, 0.7), labels=("LOW", "MEDIUM", "HIGH"))}
    rows = shown(TWO, [[0.71, 0.29], [0.7, 0.3], [0.3, 0.7]], bands=bands)
    assert [row["risk"] for row in rows] == ["LOW", "MEDIUM", "HIGH"]


@pytest.mark.parametrize(
    ("head", "raw", "expected"),
    [
        (Head(kind="scores", classes=(0, 1)), [[0.0], [0.1]], [0, 1]),
        (Head(kind="scores", classes=("a", "b", "c")), [[1, 3, 2], [2, 2, 1]], ["b", "a"]),
        (Head(kind="outlier", classes=(-1, 1)), [[0.0], [-0.1]], [1, -1]),
    ],
)
def test_labels_of_scores(head: Head, raw: list[list[float]], expected: list[Any]) -> None:
    assert [row["label"] for row in shown(head, raw)] == expected
    assert labels(head, np.array(raw)).tolist() == expected


def test_values_by_their_names() -> None:
    assert shown(Head(kind="values", names=("y",)), [[2.5]], value="price") == [{"price": 2.5}]
    assert shown(Head(kind="values", names=("a", "b")), [[1, 2]]) == [{"a": 1.0, "b": 2.0}]


def test_a_number_that_is_not_finite_is_null_and_a_label_never_is() -> None:
    rows = shown(TWO, [[float("nan"), 0.5], [0.2, 0.8]], bands={"risk": Band(edges=(0.5,), labels=("L", "H"))})
    assert rows[0] == {"label": "no", "probabilities": {"no": None, "yes": 0.5}, "risk": "H"}
    assert rows[1]["label"] == "yes"
    assert shown(Head(kind="values", names=("y",)), [[float("inf")]]) == [{"value": None}]
    outlier = Head(kind="outlier", classes=(-1, 1))
    assert shown(outlier, [[-math.inf], [math.nan], [0.0]]) == [
        {"label": -1, "score": None},
        {"label": -1, "score": None},
        {"label": 1, "score": 0.0},
    ]


def test_the_label_of_the_last_column() -> None:
    head = Head(kind="probabilities", classes=("a", "b", "c"), labelled=True)
    raw = [[0.1, 0.2, 0.7, 0.0], [0.9, 0.05, 0.05, 2.0], [math.nan, math.nan, math.nan, 1.0]]
    assert [row["label"] for row in shown(head, raw)] == ["a", "c", "b"]
    assert shown(head, raw)[0]["probabilities"] == {"a": 0.1, "b": 0.2, "c": 0.7}
    assert labels(head, np.array(raw)).tolist() == ["a", "c", "b"]
    signature = Signature(fields=(), head=Head(kind="scores", classes=(0, 1), labelled=True))
    columns = Predictions(signature).columns(np.array([[-2.0, 1.0], [3.0, 0.0]]))
    assert {name: values.tolist() for name, values in columns.items()} == {"label": [1, 0], "score": [-2.0, 3.0]}


def test_every_output_that_is_null_is_warned_of() -> None:
    bands = {"size": Band(edges=(1.0,), labels=("SMALL", "LARGE"))}
    signature = Signature(fields=FIELD, head=Head(kind="values", names=("y",)), outputs=Outputs(bands=bands))
    shown, warned = Predictions(signature).with_warnings(np.array([[2.0], [math.inf], [math.nan]]))
    assert shown[1] == {"value": None, "size": None}
    assert [(w.row, w.field) for w in warned] == [(1, "value"), (1, "size"), (2, "value"), (2, "size")]
    assert warned[0].pointer == "#/predictions/1/value"


def test_an_output_that_is_not_shown_is_not_warned_of() -> None:
    signature = Signature(fields=FIELD, head=TWO, outputs=Outputs(probabilities=""))
    assert Predictions(signature).with_warnings(np.array([[math.nan, math.nan]])) == ([{"label": "no"}], [])


def test_several_outputs_each_as_it_would_be_alone() -> None:
    heads = (
        Head(kind="probabilities", name="size", classes=("big", "small")),
        Head(kind="scores", name="mood", classes=(0, 1), labelled=True),
        Head(kind="values", name="price", names=("price",)),
        Head(kind="label", name="group", classes=("a", "b", "c")),
        Head(kind="outlier", name="odd", classes=(-1, 1)),
        Head(kind="probabilities", name="part", classes=(0, 1, 2), clusters=True),
    )
    raw = [[0.4, 0.6, 0.5, 0.0, 9.5, 2.0, -0.1, 0.1, 0.2, 0.7]]
    head = Head(kind="several", heads=heads)
    assert head.width == 10
    signature = validated(Signature(fields=FIELD, head=head))
    expected = {
        "size": {"label": "small", "probabilities": {"big": 0.4, "small": 0.6}},
        "mood": {"label": 0, "score": 0.5},
        "price": 9.5,
        "group": "c",
        "odd": {"label": -1, "score": -0.1},
        "part": {"cluster": 2, "probabilities": {"0": 0.1, "1": 0.2, "2": 0.7}},
    }
    predictions = Predictions(signature)
    assert predictions.rows(np.array(raw)) == [expected]
    predictions._compiled = None  # the same without a C compiler
    assert predictions.rows(np.array(raw)) == [expected]
    columns = {name: values[0] for name, values in predictions.columns(np.array(raw)).items()}
    assert columns["size.probabilities.small"] == 0.6
    assert columns["part.cluster"] == 2
    assert {name: read(expected) for name, read in readers(signature).items()} == {
        "size.label": "small",
        "size.probabilities": {"big": 0.4, "small": 0.6},
        "mood.label": 0,
        "mood.score": 0.5,
        "price": 9.5,
        "group": "c",
        "odd.label": -1,
        "odd.score": -0.1,
        "part.cluster": 2,
        "part.probabilities": {"0": 0.1, "1": 0.2, "2": 0.7},
    }


def test_a_number_that_is_not_finite_is_null_in_one_of_several_outputs() -> None:
    heads = (Head(kind="values", name="a", names=("a",)), Head(kind="probabilities", name="b", classes=(0, 1)))
    signature = validated(Signature(fields=FIELD, head=Head(kind="several", heads=heads)))
    rows = Predictions(signature).rows(np.array([[math.inf, math.nan, 0.5]]))
    assert rows == [{"a": None, "b": {"label": 0, "probabilities": {"0": None, "1": 0.5}}}]


def test_a_nested_head_is_refused() -> None:
    inner = Head(kind="values", name="b", names=("x", "y"))
    with pytest.raises(BadProject, match="several outputs itself"):
        validated(Signature(fields=FIELD, head=Head(kind="several", heads=(inner,))))
