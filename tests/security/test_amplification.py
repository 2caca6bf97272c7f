"""Requests of a few kilobytes that would become hundreds of megabytes, over every protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from attacked import MIB, Target, limit_memory
from supervised import pack, serving

pytestmark = pytest.mark.slow

JSON = {"content-type": "application/json"}
MOST = 150 * MIB
MANY = 2_500_000


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    registry = tmp_path_factory.mktemp("security") / "registry"
    pack(registry)
    with serving(registry, "--workers", "1") as server:
        target = Target(server)
        limit_memory(target.worker, 1500 * MIB)
        yield target


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "begin", "value"),
    [
        ("/v2/models/toy/infer", '{"inputs":[', "{}"),
        ("/v1/models/toy:predict", '{"instances":[', "{}"),
        ("/models/toy/predict", '{"records":[', "{}"),
        ("/invocations", '{"dataframe_records":[', "[]"),
        ("/invocations", '{"inputs":[', '{"":1}'),
    ],
)
def test_millions_of_small_values(target: Target, path: str, begin: str, value: str) -> None:
    body = (begin + f"{value}," * MANY)[: 15 * MIB].rsplit(",", 1)[0] + "]}"
    target.peak()
    status, _ = target.post(path, body.encode(), JSON, packed=True)
    assert status == 413
    assert 0 <= target.growth() < MOST


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/models/toy/predict", "/invocations"])
@pytest.mark.parametrize("text", ["a\n" * (7 * MIB), "a" + "," * (15 * MIB) + "\n1\n"])
def test_a_table_of_millions_of_lines_or_cells(target: Target, path: str, text: str) -> None:
    target.peak()
    status, _ = target.post(path, text.encode(), {"content-type": "text/csv"}, packed=True)
    assert status == 413
    assert 0 <= target.growth() < MOST


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "begin", "end", "kind"),
    [
        ("/models/toy/predict", '{"records":[{"', '":1}]}', "application/json"),
        ("/models/toy/predict", '{"', '":1}', "application/json"),
        ("/models/toy/predict", "x0,", "\n1,2\n", "text/csv"),
        ("/v1/models/toy:predict", '{"instances":[{"', '":1}]}', "application/json"),
        ("/v2/models/toy/infer", '{"id":"', '","inputs":[]}', "application/json"),
        ("/invocations", '{"dataframe_split":{"columns":["', '"],"data":[[1]]}}', "application/json"),
        ("/invocations", '{"inputs":[],"', '":1}', "application/json"),
    ],
)
def test_a_name_of_fifteen_million_letters_is_not_repeated(
    target: Target, path: str, begin: str, end: str, kind: str
) -> None:
    body = begin + "/é" * (5 * MIB) + end
    target.peak()
    status, answer = target.post(path, body.encode(), {"content-type": kind}, packed=True)
    assert status in (400, 422)
    assert len(answer) < 10_000
    assert 0 <= target.growth() < MOST


def test_of_many_unknown_names_the_first_are_named(target: Target) -> None:
    record = {f"x{n}y": 1 for n in range(50_000)}
    status, answer = target.post("/models/toy/predict", json.dumps({"records": [record]}).encode(), JSON)
    errors = json.loads(answer)["errors"]
    assert (status, len(errors)) == (422, 100)
    assert errors[0] == {"pointer": "#/records/0/x0y", "detail": "the model has no such field; did you mean 'x0'?"}


def test_an_output_that_is_named_again_and_again(target: Target) -> None:
    inputs = [{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [0.5, -1.0] * 2}]
    for outputs in ([{"name": "label"}] * 2, [{"name": "label"}] * 10_000):
        body = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
        target.peak()
        status, answer = target.post("/v2/models/toy/infer", body, JSON, packed=True)
        assert (status, b"outputs" in answer) == (400, True)
        assert 0 <= target.growth() < MOST
    body = json.dumps({"inputs": inputs, "outputs": [{"name": "label"}]}).encode()
    assert target.post("/v2/models/toy/infer", body, JSON)[0] == 200


def test_brackets_and_commas_in_text_are_no_values(target: Target) -> None:
    body = json.dumps({"records": [{"x0": 0.5, "x1": '{[,\\"' * MIB}]}).encode()
    assert target.post("/models/toy/predict", body, JSON)[0] == 422
