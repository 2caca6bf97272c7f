"""Members of Open Inference requests that are null, as MLServer's types write them, and outputs in shared memory."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

PATH = "/v2/models/price/infer"
INPUT = {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.5]}


def outputs(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"]


@pytest.mark.parametrize("path", [PATH, "/v2/models/price/versions/1/infer"])
def test_null_is_as_left_out(http: Any, path: str) -> None:
    nothing = {"content_type": None, "headers": None}
    body = {"id": None, "parameters": nothing, "inputs": [{**INPUT, "parameters": nothing}], "outputs": None}
    answer = http.post(path, json=body)
    assert outputs(answer) == outputs(http.post(path, json={"inputs": [INPUT]}))
    assert answer.json()["id"] == answer.headers["x-request-id"]


def test_a_content_type_that_is_null_leaves_that_of_the_request(http: Any) -> None:
    text = {"name": "x", "shape": [1], "datatype": "BYTES", "data": ["%"], "parameters": {"content_type": None}}
    answer = http.post(PATH, json={"inputs": [text], "parameters": {"content_type": "base64"}})
    assert answer.status_code == 400
    assert "not base64" in answer.json()["error"]


def test_an_output_whose_form_is_null_is_as_the_request_says(http: Any) -> None:
    wanted = {"name": "value", "parameters": {"binary_data": None}}
    body = {"inputs": [INPUT], "outputs": [wanted], "parameters": {"binary_data_output": True}}
    assert "inference-header-content-length" in http.post(PATH, json=body).headers
    del body["parameters"]
    assert outputs(http.post(PATH, json=body))[0]["data"]


def test_the_index_takes_null(http: Any) -> None:
    assert len(http.post("/v2/repository/index", json={"ready": None}).json()) == 2
    assert http.post("/v2/repository/index", json={"ready": 1}).status_code == 400
    assert http.post("/v2/repository/index", json=[]).status_code == 400


def test_an_output_in_shared_memory_is_refused(http: Any) -> None:
    wanted = {"name": "value", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 16}}
    answer = http.post(PATH, json={"inputs": [INPUT], "outputs": [wanted]})
    assert answer.status_code == 400
    assert "shared memory" in answer.json()["error"]


def test_data_in_both_forms_are_refused(http: Any) -> None:
    content = {**INPUT, "parameters": {"binary_data_size": 16}}
    for data, status in ((INPUT["data"], 400), ([], 400), (None, 200)):
        header = json.dumps({"inputs": [{**content, "data": data}]}).encode()
        headers = {"inference-header-content-length": str(len(header))}
        answer = http.post(PATH, content=header + struct.pack("<dd", 1.0, 2.5), headers=headers)
        assert answer.status_code == status, answer.text
        if status == 200:
            assert outputs(answer) == outputs(http.post(PATH, json={"inputs": [INPUT]}))
        else:
            assert "both" in answer.json()["error"]
