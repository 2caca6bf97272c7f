"""Every part of a prediction has a tensor, and its binary form equals its JSON form."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estiba.core.errors import BadRequest
from estiba.model.coding.predictions import Predictions
from estiba.model.schema.signature import Band, Field, Head, Outputs, Signature
from estiba.model.schema.signature_checks import validated
from estiba.serving.protocols.tensors import (
    DTYPES,
    datatype_of,
    flatten,
    from_binary,
    from_json,
    input_tensor,
    output_tensors,
    to_binary,
)

FIELDS = (Field(name="x", kind="number"),)
SIGNATURES = [
    Signature(fields=FIELDS, head=Head(kind="probabilities", classes=("a", "b", "c"))),
    Signature(
        fields=FIELDS,
        head=Head(kind="probabilities", classes=(0, 1)),
        outputs=Outputs(probability="p", bands={"risk": Band((0.5,), ("low", "high"))}),
    ),
    Signature(fields=FIELDS, head=Head(kind="probabilities", classes=(False, True)), outputs=Outputs(probabilities="")),
    Signature(fields=FIELDS, head=Head(kind="scores", classes=("no", "yes"))),
    Signature(fields=FIELDS, head=Head(kind="scores", classes=(1, 2, 3)), outputs=Outputs(label="class")),
    Signature(fields=FIELDS, head=Head(kind="outlier", classes=(-1, 1))),
    Signature(fields=FIELDS, head=Head(kind="values", names=("only",))),
    Signature(fields=FIELDS, head=Head(kind="values", names=("low", "high"))),
]


@pytest.mark.parametrize("signature", SIGNATURES)
def test_every_part_of_a_prediction_is_an_output_of_its_shape(signature: Signature) -> None:
    width = signature.head.width
    prediction = Predictions(validated(signature)).rows(np.full((1, width), 1 / width))[0]
    tensors = output_tensors(signature)
    assert [tensor.name for tensor in tensors] == list(prediction)
    for tensor in tensors:
        value = prediction[tensor.name]
        flat = list(value.values()) if isinstance(value, dict) else [value]
        assert len(flat) == int(np.prod(tensor.shape[1:]))
        assert datatype_of(flat) == tensor.datatype


@pytest.mark.parametrize(
    ("values", "datatype"),
    [
        ((1, 2), "INT64"),
        ((1, 2.5), "FP64"),
        ((True, False), "BOOL"),
        (("a",), "BYTES"),
        (("a", 1), "BYTES"),
        ((), "BYTES"),
    ],
)
def test_datatypes_hold_all_values(values: tuple[Any, ...], datatype: str) -> None:
    assert datatype_of(values) == datatype


def test_inputs_are_named_by_their_fields() -> None:
    said = input_tensor(Field(name="when", kind="timestamp"))
    assert said == ("when", "BYTES", (-1,), {"content_type": "datetime"})
    assert input_tensor(Field(name="size", kind="category", levels=(1, 2))).datatype == "INT64"


ELEMENTS = {
    "b": st.booleans(),
    "f": st.floats(allow_nan=False, width=16),
    "i": st.integers(-128, 127),
    "u": st.integers(0, 255),
}


@given(st.sampled_from(sorted(DTYPES)), st.data())
def test_numbers_survive_both_forms(datatype: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(ELEMENTS[np.dtype(DTYPES[datatype]).kind], min_size=1, max_size=8))
    block = to_binary(values, datatype)
    assert block is not None
    assert list(from_binary(block, datatype, len(values), "x")) == values
    assert list(from_json(values, datatype, "x")) == values


@given(st.lists(st.text(max_size=9), max_size=8))
def test_strings_survive_both_forms(values: list[str]) -> None:
    block = to_binary(values, "BYTES")
    assert block is not None
    assert from_binary(block, "BYTES", len(values), "x") == values


@given(st.binary(max_size=40), st.integers(0, 6), st.sampled_from(["BYTES", "INT64", "BOOL"]))
def test_any_block_is_read_or_refused(block: bytes, count: int, datatype: str) -> None:
    with contextlib.suppress(BadRequest):
        assert len(from_binary(block, datatype, count, "x")) == count


def test_what_binary_cannot_say_stays_json() -> None:
    assert to_binary(["a", None], "BYTES") is None
    assert to_binary([1, None], "INT64") is None
    assert np.isnan(np.frombuffer(to_binary([1.0, None], "FP64") or b"")[1])


@pytest.mark.parametrize(("data", "shape"), [([[1, 2], [3, 4]], [2, 2]), ([1, 2, 3, 4], [2, 2]), ([[1], [2]], [2, 1])])
def test_data_are_flat_or_nested(data: Any, shape: list[int]) -> None:
    assert flatten(data, shape, "x") == [1, 2, 3, 4][: int(np.prod(shape))]


@pytest.mark.parametrize(
    ("data", "shape"), [([[1, 2], [3]], [2, 2]), ([[[1]], [[2]]], [2, 1]), ([1, [2]], [2]), ({}, [1])]
)
def test_data_of_another_shape_are_refused(data: Any, shape: list[int]) -> None:
    with pytest.raises(BadRequest):
        from_json(flatten(data, shape, "x"), "INT64", "x")
