"""The Open Inference Protocol, by hand and by clients that others wrote."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
import subprocess
from typing import Any

import httpx
import numpy as np
import pytest
from toys import CHURN_ROW, SUPPORT, Live

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

PATH = "/v2/models/churn/infer"
COLUMNS: list[tuple[str, str, list[Any]]] = [
    ("age", "INT64", [41, 20]),
    ("balance", "FP64", [10.5, 0.1]),
    ("country", "BYTES", ["ES", "DE"]),
    ("channel", "BYTES", ["web", "shop"]),
    ("active", "BOOL", [True, False]),
]
RECORDS = [CHURN_ROW, {**CHURN_ROW, "age": 20, "balance": 0.1, "country": "DE", "channel": "shop", "active": False}]


def tensor(name: str, datatype: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data, **more}


def inputs(**changed: dict[str, Any]) -> list[dict[str, Any]]:
    """The two records as inputs; `changed` replaces members of the input of that name."""
    return [tensor(*column) | changed.get(column[0], {}) for column in COLUMNS]


def native(http: Any, records: list[Any] = RECORDS, model: str = "churn") -> list[Any]:
    answer = http.post(f"/models/{model}/predict", json={"records": records})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["predictions"])


def outputs(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: output for output in answer.json()["outputs"]}


def error(answer: Any, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    return str(answer.json()["error"])


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_says_what_it_is(http: Any, path: str) -> None:
    said = http.get(path).json()
    assert said["name"] == "estiba"
    assert set(said) == {"name", "version", "extensions"}
    assert "binary_tensor_data" in said["extensions"]


@pytest.mark.parametrize("where", ["", "/models/churn", "/models/churn/versions/1"])
def test_health(http: Any, where: str) -> None:
    answer = http.get(f"/v2{where}/ready" if where else "/v2/health/ready")
    assert answer.status_code == 200
    assert answer.json()["ready"] is True
    assert http.get("/v2/health/live").json() == {"live": True}


def test_metadata_lists_every_field_and_output(http: Any) -> None:
    said = http.get("/v2/models/churn").json()
    assert {t["name"]: t["datatype"] for t in said["inputs"]} == {
        "age": "INT64",
        "balance": "FP64",
        "country": "BYTES",
        "channel": "BYTES",
        "a/b~c d": "FP64",
        "active": "BOOL",
    }
    assert [(t["name"], t["datatype"], t["shape"]) for t in said["outputs"]] == [
        ("label", "BYTES", [-1]),
        ("probabilities", "FP64", [-1, 2]),
    ]
    assert said["properties"]["classes"] == ["stays", "leaves"]
    assert http.get("/v2/models/churn/versions/1").json() == said


@pytest.mark.parametrize("path", [PATH, "/v2/models/churn/versions/1/infer"])
def test_an_answer_is_the_native_one_by_column(http: Any, path: str) -> None:
    answer = http.post(path, json={"id": "mine", "inputs": inputs()})
    found, expected = outputs(answer), native(http)
    assert found["label"]["data"] == [p["label"] for p in expected]
    assert found["label"] | {"data": 0, "parameters": 0} == {
        "name": "label",
        "datatype": "BYTES",
        "shape": [2],
        "data": 0,
        "parameters": 0,
    }
    assert found["probabilities"]["shape"] == [2, 2]
    assert found["probabilities"]["data"] == [v for p in expected for v in p["probabilities"].values()]
    assert {k: answer.json()[k] for k in ("id", "model_name", "model_version")} == {
        "id": "mine",
        "model_name": "churn",
        "model_version": "1",
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"age": {"shape": [2, 1]}},
        {"age": {"shape": [2, 1], "data": [[41], [20]]}},
        {"age": {"datatype": "UINT8"}},
        {"age": {"datatype": "FP64", "data": [41.0, 20]}},
        {"active": {"datatype": "INT8", "data": [1, 0]}},
        {"country": {"parameters": {"content_type": "str"}}},
        {
            "country": {
                "parameters": {"content_type": "base64"},
                "data": [base64.b64encode(x).decode() for x in (b"ES", b"DE")],
            }
        },
    ],
)
def test_forms_that_mean_the_same(http: Any, changed: Any) -> None:
    body = {"inputs": inputs(**changed), "parameters": {"content_type": "pd"}}
    assert outputs(http.post(PATH, json=body)) == outputs(http.post(PATH, json={"inputs": inputs()}))


def test_float32_is_widened_and_null_is_missing(http: Any) -> None:
    extra = tensor("a/b~c d", "FP32", [None, 0.1])
    found = outputs(http.post(PATH, json={"inputs": [*inputs(), extra]}))
    expected = native(http, [RECORDS[0], {**RECORDS[1], "a/b~c d": float(np.float32(0.1))}])
    assert found["probabilities"]["data"] == [v for p in expected for v in p["probabilities"].values()]


def test_outputs_are_chosen(http: Any) -> None:
    answer = http.post(PATH, json={"inputs": inputs(), "outputs": [{"name": "probabilities"}]})
    assert list(outputs(answer)) == ["probabilities"]
    wrong = http.post(PATH, json={"inputs": inputs(), "outputs": [{"name": "score"}]})
    assert "label, probabilities" in error(wrong)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"age": {"data": [41]}}, "2 values, but 1"),
        ({"age": {"shape": [2, 2]}}, "4 values"),
        ({"age": {"shape": [3], "data": [1, 2, 3]}}, "rows"),
        ({"age": {"shape": [-2]}}, "needs a shape"),
        ({"age": {"shape": [2, 1], "data": [[41, 20]]}}, "nested"),
        ({"age": {"datatype": "INT65"}}, "no known datatype"),
        ({"age": {"data": [41, "20"]}}, "Element 1 of input 'age'"),
        ({"age": {"data": [41, 1.5]}}, "not of datatype INT64"),
        ({"age": {"datatype": "UINT8", "data": [41, 256]}}, "does not fit into UINT8"),
        ({"age": {"data": [41, None]}}, "age in row 1: may not be missing"),
        ({"age": {"data": [41, 12]}}, "age in row 1: must be at least 18"),
        ({"balance": {"datatype": "FP32", "data": [1.0, 1e300]}}, "finite"),
        ({"country": {"data": ["ES", "IT"]}}, "country in row 1: expected one of: ES, FR, DE"),
        ({"country": {"parameters": {"content_type": "hg"}}}, "content type 'hg'"),
        ({"country": {"parameters": {"content_type": "base64"}}}, "not base64"),
        ({"country": {"name": "county"}}, "did you mean 'country'"),
        ({"country": {"name": "age"}}, "twice"),
        ({"balance": {"data": None}}, "not an array"),
        ({"age": {"parameters": {"binary_data_size": 16}}}, "is incomplete"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(http: Any, changed: Any, said: str) -> None:
    assert said in error(http.post(PATH, json={"inputs": inputs(**changed)}))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "JSON"),
        (b"[]", "inputs"),
        (b'{"inputs": []}', "inputs"),
        (b'{"inputs": [1]}', "name"),
        (json.dumps({"inputs": inputs(), "id": 7}).encode(), "id"),
        (json.dumps({"inputs": inputs(), "outputs": {}}).encode()[:-3] + b"7}", "outputs"),
        (json.dumps({"inputs": inputs()[1:]}).encode(), "age in row 0: missing"),
        (json.dumps({"inputs": inputs(), "parameters": 3}).encode(), "parameters"),
    ],
)
def test_bodies_that_are_no_request(http: Any, body: bytes, said: str) -> None:
    assert said in error(http.post(PATH, content=body))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nobody", 404),
        ("/v2/models/nobody/ready", 404),
        ("/v2/models/churn/versions/7", 404),
        ("/v2/models/churn/config", 404),
        (PATH, 405),
    ],
)
def test_what_is_not_here_is_said_in_the_protocols_form(http: Any, path: str, status: int) -> None:
    assert error(http.get(path), status)


def test_a_model_that_is_not_here_does_not_infer(http: Any) -> None:
    assert "nobody" in error(http.post("/v2/models/nobody/infer", json={"inputs": inputs()}), 404)
    assert "churn@9" in error(http.post("/v2/models/churn/versions/9/infer", json={"inputs": inputs()}), 404)


def test_integers_that_would_be_rounded_are_refused(http: Any) -> None:
    assert "age in row 0" in error(http.post(PATH, json={"inputs": inputs(age={"data": [2**53 + 1, 20]})}))


@pytest.mark.parametrize("count", [1, 40])
def test_numbers_that_are_not_finite_are_refused(http: Any, count: int) -> None:
    given = {"name": "x", "datatype": "FP64", "shape": [count]}
    whole = {**given, "data": [10**400] * count}
    assert error(http.post("/v2/models/price/infer", content=json.dumps({"inputs": [whole]})))
    block = np.full(count, np.inf).tobytes()
    header = json.dumps({"inputs": [{**given, "parameters": {"binary_data_size": len(block)}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header))}
    answer = http.post("/v2/models/price/infer", content=header + block, headers=headers)
    assert "x in row 0: expected a finite number" in error(answer)


def test_too_many_rows_are_refused_before_they_are_read(http: Any) -> None:
    given = {"name": "x", "datatype": "FP64", "shape": [100_001], "data": []}
    assert "100,000" in error(http.post("/v2/models/price/infer", json={"inputs": [given]}), 413)


def test_warnings_are_parameters_of_the_answer(http: Any) -> None:
    answer = http.post(PATH, json={"inputs": inputs(channel={"data": ["web", "fax"]})})
    assert answer.json()["parameters"] == {"warnings": "unseen-category: channel in row 1"}


def test_numbers_alone_may_come_in_one_tensor(http: Any) -> None:
    body = {"inputs": [{"name": "anything", "datatype": "FP32", "shape": [3, 1], "data": [1, 2.5, 3]}]}
    found = outputs(http.post("/v2/models/price/infer", json=body | {"inputs": [body["inputs"][0]]}))
    expected = native(http, [{"x": 1}, {"x": 2.5}, {"x": 3}], "price")
    assert found["price" if "price" in found else "value"]["data"] == [next(iter(p.values())) for p in expected]


def test_the_repository_is_listed_and_not_managed(http: Any) -> None:
    listed = http.post("/v2/repository/index", json={"ready": True}).json()
    assert listed == [{"name": name, "version": "1", "state": "READY", "reason": ""} for name in ("churn", "price")]
    assert "registry" in error(http.post("/v2/repository/models/churn/unload"), 501)


def test_a_large_request_is_answered_alike(http: Any) -> None:
    count = 6000
    given = [tensor(name, kind, data * (count // 2)) for name, kind, data in COLUMNS]
    found = outputs(http.post(PATH, json={"inputs": given}))
    small = outputs(http.post(PATH, json={"inputs": inputs()}))
    assert found["probabilities"]["data"] == small["probabilities"]["data"] * (count // 2)


def test_calls_are_counted_under_the_protocols_name(http: Any) -> None:
    http.post(PATH, json={"inputs": inputs()})
    lines = [line for line in http.get("/metrics").text.splitlines() if 'protocol="v2"' in line]
    assert any(line.startswith("estiba_requests_total") and 'code="200"' in line for line in lines)


# The binary extension


def binary(blocks: dict[str, bytes], **more: Any) -> tuple[bytes, dict[str, str]]:
    """A body whose inputs named in `blocks` are binary, and its headers."""
    given = inputs()
    for each in given:
        if each["name"] in blocks:
            del each["data"]
            each["parameters"] = {"binary_data_size": len(blocks[each["name"]])}
    header = json.dumps({"inputs": given, **more}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header)), "content-type": "application/octet-stream"}
    return header + b"".join(blocks.values()), headers


AGES = np.array([41, 20], "<i8").tobytes()
COUNTRIES = b"".join(struct.pack("<I", 2) + code for code in (b"ES", b"DE"))


def test_binary_inputs_and_outputs(http: Any) -> None:
    content, headers = binary({"age": AGES, "country": COUNTRIES}, parameters={"binary_data_output": True})
    answer = http.post(PATH, content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    found = {o["name"]: o for o in json.loads(answer.content[:length])["outputs"]}
    size = found["label"]["parameters"]["binary_data_size"]
    labels, numbers = answer.content[length : length + size], answer.content[length + size :]
    expected = native(http)
    assert labels == b"".join(struct.pack("<I", len(p["label"])) + p["label"].encode() for p in expected)
    assert np.frombuffer(numbers, "<f8").tolist() == [v for p in expected for v in p["probabilities"].values()]


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ({"age": AGES[:-1]}, "16 bytes"),
        ({"country": COUNTRIES[:-1]}, "middle of a string"),
        ({"country": COUNTRIES + b"\0\0\0\0"}, "2 strings"),
        ({"country": b"\xff\xff\xff\xff"}, "middle of a string"),
        ({"country": COUNTRIES[:8] + b"\1"}, "not a block"),
        ({"country": COUNTRIES.replace(b"ES", b"\xff\xfe")}, "not a block"),
    ],
)
def test_binary_data_that_do_not_fit(http: Any, blocks: dict[str, bytes], said: str) -> None:
    content, headers = binary(blocks)
    assert said in error(http.post(PATH, content=content, headers=headers))


@pytest.mark.parametrize("length", ["0", "-1", "x", "9" * 30, "100000"])
def test_a_wrong_length_of_the_json_is_refused(http: Any, length: str) -> None:
    content, headers = binary({"age": AGES})
    wrong = headers | {"Inference-Header-Content-Length": length}
    assert "Content-Length" in error(http.post(PATH, content=content, headers=wrong))


def test_what_belongs_to_no_input_is_refused(http: Any) -> None:
    content, headers = binary({"age": AGES})
    assert "belong to no input" in error(http.post(PATH, content=content + b"more", headers=headers))


# Triton's own client


def triton_inputs(client: Any, *, is_binary: bool) -> list[Any]:
    kinds = {"INT64": np.int64, "FP64": np.float64, "BYTES": np.object_, "BOOL": np.bool_}
    made = []
    for name, datatype, data in COLUMNS:
        each = client.InferInput(name, [2, 1], datatype)
        each.set_data_from_numpy(np.array(data, kinds[datatype]).reshape(2, 1), binary_data=is_binary)
        made.append(each)
    return made


@pytest.fixture(scope="module")
def triton(server: Live) -> Any:
    client = pytest.importorskip("tritonclient.http")
    connected = client.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield connected
    connected.close()


@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("version", ["", "1"])
def test_tritons_client_infers(triton: Any, http: Any, is_binary: bool, version: str) -> None:
    import tritonclient.http as client

    wanted = [client.InferRequestedOutput(name, binary_data=is_binary) for name in ("label", "probabilities")]
    given = triton_inputs(client, is_binary=is_binary)
    for chosen in (None, wanted):
        result = triton.infer("churn", given, model_version=version, outputs=chosen, request_id="7")
        expected = native(http)
        labels = [v.decode() if isinstance(v, bytes) else v for v in result.as_numpy("label").tolist()]
        assert labels == [p["label"] for p in expected]
        assert result.as_numpy("probabilities").tolist() == [list(p["probabilities"].values()) for p in expected]
        assert result.get_response()["id"] == "7"


def test_tritons_client_asks_for_health_and_metadata(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("churn")
    assert triton.is_model_ready("churn", "1")
    assert not triton.is_model_ready("churn", "2")
    assert triton.get_server_metadata()["name"] == "estiba"
    assert triton.get_model_metadata("churn")["versions"] == ["1"]
    assert [m["name"] for m in triton.get_model_repository_index()] == ["churn", "price"]


def test_tritons_client_reads_errors(triton: Any) -> None:
    import tritonclient.http as client
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="age in row 0: missing"):
        triton.infer("churn", triton_inputs(client, is_binary=True)[1:])
    with pytest.raises(InferenceServerException, match="nobody"):
        triton.get_model_metadata("nobody")
    with pytest.raises(InferenceServerException, match="registry"):
        triton.load_model("churn")


# Clients whose pins fight ours run in environments of their own, which these variables name.


@pytest.mark.parametrize("name", ["mlserver", "kserve"])
def test_clients_of_others(server: Live, http: Any, name: str) -> None:
    python = os.environ.get(f"ESTIBA_{name.upper()}_PYTHON", "")
    if not python:
        pytest.skip(
            f"{name} cannot be installed beside Estiba; ESTIBA_{name.upper()}_PYTHON names a Python that has it"
        )
    script = SUPPORT / f"{name}_client.py"
    ran = subprocess.run([python, str(script), server.url], capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    expected = native(http)
    assert said["labels"] == [p["label"] for p in expected]
    assert said["probabilities"] == [list(p["probabilities"].values()) for p in expected]


def test_a_server_that_still_starts_is_not_ready() -> None:
    from estiba.serving.api.management_routes import application
    from estiba.serving.catalog import CurrentCatalog
    from estiba.serving.server_status import Health
    from estiba.serving.telemetry.metrics import Metrics

    async def ask() -> list[Any]:
        transport = httpx.ASGITransport(application(CurrentCatalog(), Health(), Metrics()))
        async with httpx.AsyncClient(transport=transport, base_url="http://estiba") as client:
            return [await client.get(path) for path in ("/v2/health/ready", "/v2/health/live", "/ping")]

    answers = asyncio.run(ask())
    assert [answer.status_code for answer in answers] == [503, 200, 503]
    assert answers[0].json() == {"live": True, "ready": False, "error": "The server is starting."}
