"""The words about a prediction agree with the prediction itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from estiba.core.errors import BadProject
from estiba.model.coding.predictions import Predictions
from estiba.model.schema.answer_text import part_texts
from estiba.model.schema.signature import Band, Field, Head, OutputOptions, Outputs, Signature
from estiba.model.schema.signature_checks import validated

FIELD = (Field(name="x", kind="number"),)
NAMES = {"0": "stays", "1": "leaves"}


def signature(head: Head, **outputs: Any) -> Signature:
    return validated(Signature(fields=FIELD, head=head, outputs=Outputs(**outputs)))


def texts(signature: Signature) -> dict[str, str]:
    return {part.name: part.text for part in part_texts(signature)}


BINARY = Head(kind="probabilities", classes=(0, 1))


@pytest.mark.parametrize(("positive", "said"), [(1, "1 (leaves)"), (0, "0 (stays)")])
def test_the_threshold_is_that_of_the_prediction(positive: int, said: str) -> None:
    made = signature(BINARY, threshold=0.27, positive=positive, class_names=NAMES)
    other = {1: "0 (stays)", 0: "1 (leaves)"}[positive]
    assert texts(made)["label"] == f"{said} from a probability of 27 % on, otherwise {other}."
    raw = np.zeros((2, 2))
    raw[:, positive] = [0.27, 0.269999]
    raw[:, 1 - positive] = 1 - raw[:, positive]
    assert [row["label"] for row in Predictions(made).rows(raw)] == [positive, 1 - positive]


@pytest.mark.parametrize(
    ("head", "outputs", "expected"),
    [
        (BINARY, {}, "The most probable class."),
        (BINARY, {"class_names": NAMES}, "The most probable class: 0 (stays), 1 (leaves)."),
        (Head(kind="probabilities", classes=(0, 1), labelled=True), {"threshold": 0.5}, "The class."),
        (Head(kind="scores", classes=(0, 1)), {"class_names": {"1": "leaves"}}, "The class: 0, 1 (leaves)."),
        (Head(kind="label", classes=(True, False)), {"class_names": {"True": "yes"}}, "The class: True (yes), False."),
        (Head(kind="scores", classes=(0, 1), clusters=True), {}, "The cluster."),
    ],
)
def test_a_label_is_told_with_the_names_of_its_classes(head: Head, outputs: dict[str, Any], expected: str) -> None:
    assert next(part_texts(signature(head, **outputs))).text == expected


def test_bands_are_told_at_the_edges_of_the_prediction() -> None:
    made = signature(
        Head(kind="values", names=("y",)), unit="km", bands={"far": Band((10.0, 20.5), ("near", "mid", "far"))}
    )
    assert texts(made) == {
        "value": "The value, in km.",
        "far": "near below 10 km, mid from 10 km, far from 20.5 km.",
    }
    assert [row["far"] for row in Predictions(made).rows(np.array([[9.9], [10.0], [20.5]]))] == ["near", "mid", "far"]


def test_names_of_no_class_and_units_of_no_value_are_refused() -> None:
    with pytest.raises(BadProject, match=r"names .leave., which is not a class of this model; did you mean"):
        signature(Head(kind="probabilities", classes=("stay", "leaves")), class_names={"leave": "x"})
    with pytest.raises(BadProject, match=r"outputs.unit is 'km', and the model predicts classes"):
        signature(BINARY, unit="km")


def test_one_of_several_outputs_has_names_and_a_unit_of_its_own() -> None:
    heads = (
        Head(kind="probabilities", name="churn", classes=(0, 1)),
        Head(kind="values", name="income", names=("income",)),
    )
    each = {"churn": OutputOptions(class_names=NAMES), "income": OutputOptions(unit="euros")}
    made = signature(Head(kind="several", heads=heads), each=each)
    churn, income = made.each
    assert texts(churn.signature)["label"] == "The most probable class: 0 (stays), 1 (leaves)."
    assert texts(income.signature)["value"] == "The value, in euros."
