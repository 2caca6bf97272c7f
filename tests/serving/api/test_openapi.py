"""The document is valid OpenAPI 3.1, and what it shows as examples is true to its own schemas."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from described import CAR, CHURN, CHURN_ROW, IRIS, IRIS_ROW, described, predicted
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from estiba.model.coding.predictions import Predictions
from estiba.model.schema.json_schema import json_schema
from estiba.model.schema.signature import Field, Head, Outputs, Signature
from estiba.serving.api import openapi
from estiba.serving.api.openapi import Described, document
from estiba.serving.api.openapi_prediction import prediction_schema

Json = dict[str, Any]


def made(models: list[Described]) -> Json:
    """The document after a journey through JSON, which refuses NaN and Infinity."""
    shown = document(models, title="Portfolio", version="2026.11", server_version="0.1.0")
    return json.loads(json.dumps(shown, allow_nan=False))


def validator(doc: Json, schema: Json) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": doc["components"]})


def media_types(node: Any) -> list[Json]:
    """Every media type object below a node: what has a schema beside examples."""
    if isinstance(node, list):
        return [found for item in node for found in media_types(item)]
    if not isinstance(node, dict):
        return []
    here = [node] if "schema" in node and "examples" in node else []
    return here + [found for item in node.values() for found in media_types(item)]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_document_is_valid_openapi_3_1(count: int) -> None:
    errors = list(OpenAPIV31SpecValidator(made(described()[:count])).iter_errors())
    assert errors == []


def test_every_example_is_true_to_its_schema() -> None:
    doc = made(described())
    found = media_types({"paths": doc["paths"], "components": doc["components"]})
    assert len(found) > 15
    for media in found:
        for example in media["examples"].values():
            validator(doc, media["schema"]).validate(example["value"])


def test_each_model_has_its_own_paths_with_its_real_fields() -> None:
    doc = made(described())
    assert {"/models/iris/predict", "/models/iris/versions/1/predict", "/models/cars/predict"} <= set(doc["paths"])
    record = doc["components"]["schemas"]["bankchurn.Record"]
    assert list(record["properties"]) == list(CHURN.names)
    assert record["properties"]["Geography"]["enum"] == ["France", "Germany", "Spain"]
    assert record["properties"]["Age"]["minimum"] == 18
    assert "null" in record["properties"]["Tenure"]["type"]
    assert "Tenure" not in record["required"]
    assert record["examples"] == [CHURN_ROW]


def test_levels_that_are_not_the_only_ones_are_examples_with_the_usual_one_first() -> None:
    name = Field(name="model", kind="category", levels=("ford", "honda", "vw"), unseen="other", example="honda")
    schema = json_schema(Signature(fields=(name,), head=Head(kind="values")))
    assert schema["properties"]["model"] == {"type": ["string"], "examples": ["honda", "ford", "vw"]}


def test_the_short_path_needs_one_model_or_a_default() -> None:
    one, two, three = described()
    assert "/predict" in made([one])["paths"]
    assert "/predict" not in made([one, two, three])["paths"]
    short = made([one, replace(two, default=True), three])["paths"]["/predict"]["post"]
    assert short["x-estiba"]["model"] == "iris"


def test_the_schema_says_what_an_answer_means() -> None:
    doc = made(described())
    churn = doc["components"]["schemas"]["bankchurn.Prediction"]["properties"]
    assert {name: schema["description"] for name, schema in churn.items()} == {
        "churn": "1 (leaves) from a probability of 27 % on, otherwise 0 (stays).",
        "churn_probability": "The probability of 1 (leaves).",
        "probabilities": "The probability of each class.",
        "risk": "low below 30 %, medium from 30 %, high from 70 %, by the probability of 1 (leaves).",
    }
    assert churn["churn"]["enum"] == [0, 1, None]
    price = doc["components"]["schemas"]["cars.Prediction"]["properties"]
    assert price["price"]["description"] == "The value, in US dollars."
    assert "budget below 8000 US dollars" in price["class"]["description"]
    calls = doc["paths"]
    assert calls["/models/bankchurn/predict"]["post"]["description"].startswith("SIMULATED DATA: ")
    assert "SIMULATED" not in calls["/models/iris/predict"]["post"]["description"]


def test_operations_of_a_protocol_name_their_model() -> None:
    paths = made(described())["paths"]
    assert paths["/v2/models/iris/infer"]["post"]["x-estiba"] == {"of": "iris"}
    assert paths["/v2/models/iris/versions/1/infer"]["post"]["x-estiba"] == {"of": "iris", "version": "1"}
    assert paths["/models/iris/predict"]["get"]["x-estiba"] == {"of": "iris", "version": "1"}
    assert "x-estiba" not in paths["/v2/health/live"]["get"]


def test_a_record_may_stand_bare_or_in_a_list_and_nothing_else_is_taken() -> None:
    doc = made(described())
    content = doc["paths"]["/models/iris/predict"]["post"]["requestBody"]["content"]
    accepts = validator(doc, content["application/json"]["schema"]).is_valid
    assert accepts(IRIS_ROW)
    assert accepts({"records": [IRIS_ROW, IRIS_ROW]})
    assert not accepts({"records": []})
    assert not accepts({"records": [{**IRIS_ROW, "more": 1}]})
    assert not accepts({"records": [{**IRIS_ROW, "petal width (cm)": 11}]})
    assert content["text/csv"]["examples"]["csv"]["value"].splitlines()[1] == "5.9,3.0,4.2,1.5"


def test_csv_writes_missing_as_nothing_and_booleans_as_json_does() -> None:
    doc = made(described())
    content = doc["paths"]["/models/bankchurn/predict"]["post"]["requestBody"]["content"]
    line = content["text/csv"]["examples"]["csv"]["value"].splitlines()[1]
    assert line == "608,Spain,Female,41,,83807.86,1,false,true,112542.58"


def test_versions_of_one_model_share_a_tag_and_the_first_leads() -> None:
    new = described()[1]
    doc = made([replace(new, version="2"), new])
    assert doc["paths"]["/models/iris/predict"]["post"]["x-estiba"]["version"] == "2"
    assert "/models/iris/versions/1/predict" in doc["paths"]
    assert [tag["name"] for tag in doc["tags"]].count("iris") == 1


def test_names_that_look_alike_stay_apart() -> None:
    one = described()[1]
    doc = made([replace(one, name=name) for name in ("a-b", "a_b", "a b/ü", "…")])
    operations = [op["operationId"] for path in doc["paths"].values() for op in path.values()]
    assert len(operations) == len(set(operations))
    assert "/models/a%20b%2F%C3%BC/predict" in doc["paths"]
    assert list(OpenAPIV31SpecValidator(doc).iter_errors()) == []


SIGNATURES = {
    "bands and one probability": CHURN,
    "three classes": IRIS,
    "a value with bands": CAR,
    "two values": Signature(fields=IRIS.fields, head=Head(kind="values", names=("low", "high"))),
    "two scores": Signature(fields=IRIS.fields, head=Head(kind="scores", classes=(0, 1))),
    "three scores": Signature(fields=IRIS.fields, head=Head(kind="scores", classes=("a", "b", "c"))),
    "outliers": Signature(fields=IRIS.fields, head=Head(kind="outlier", classes=(-1, 1))),
    "no label": Signature(fields=IRIS.fields, head=CHURN.head, outputs=Outputs(label="", probability="p")),
    "booleans": Signature(fields=IRIS.fields, head=Head(kind="probabilities", classes=(False, True))),
}


@pytest.mark.parametrize("signature", SIGNATURES.values(), ids=SIGNATURES.keys())
def test_predictions_are_true_to_their_schema(signature: Signature) -> None:
    schema = prediction_schema(signature)
    Draft202012Validator.check_schema(schema)
    width = signature.head.width
    raw = np.vstack([np.full(width, 1 / width), np.eye(width)[0], np.full(width, np.nan)])
    for prediction in Predictions(signature).rows(raw):
        assert list(prediction) == schema["required"]
        Draft202012Validator(schema).validate(prediction)


def test_a_prediction_of_another_model_is_refused() -> None:
    schema = Draft202012Validator(prediction_schema(IRIS))
    right = predicted("iris", IRIS)
    assert schema.is_valid(right)
    assert not schema.is_valid({**right, "species": "rosa"})
    assert not schema.is_valid({**right, "probabilities": {"setosa": 1.0}})


@given(st.lists(st.text(min_size=1), min_size=1, unique=True))
@settings(max_examples=30, deadline=None)
def test_a_field_may_have_any_name(names: list[str]) -> None:
    signature = Signature(fields=tuple(Field(name=name, kind="number") for name in names), head=CAR.head)
    row = dict.fromkeys(names, 1.5)
    doc = made([Described("any", "1", signature, row, {"value": 1.0})])
    content = doc["paths"]["/models/any/predict"]["post"]["requestBody"]["content"]
    assert validator(doc, content["application/json"]["schema"]).is_valid({"records": [row]})
    header = next(csv.reader(io.StringIO(content["text/csv"]["examples"]["csv"]["value"], newline="")))
    assert header == names


def test_the_public_names() -> None:
    assert openapi.__all__ == ["Described", "document"]
