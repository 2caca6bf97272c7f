"""A server answers models of several outputs and of clusters as the originals do, in every protocol and in files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from output_cases import CASES, HELD_OUT, SAMPLE
from toys import Live

import estiba
from estiba.model.inference.score_files import score

pytestmark = pytest.mark.slow

SERVED = {
    "kinds": "forest of two classifications",
    "labels": "OneVsRest of scores",
    "numbers": "RegressorChain",
    "groups": "KMeans",
    "mixture": "GaussianMixture",
}
RECORDS = HELD_OUT.to_dict("records")


@pytest.fixture(scope="module")
def expected() -> dict[str, list[dict[str, Any]]]:
    return {}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, expected: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("outputs") / "registry"
    for name, case_name in SERVED.items():
        case = CASES[case_name]
        model = case.fit()
        y = None if case.target is None else case.target[: len(SAMPLE)]
        estiba.pack(model, SAMPLE, name=name, y=y, registry=folder)
        expected[name] = case.expected(model, HELD_OUT)
    return folder


@pytest.fixture(scope="module")
def live(registry: Path, start_server: Callable[..., Live]) -> Live:
    return start_server(*SERVED, registry=str(registry), default="kinds")


@pytest.fixture(scope="module")
def http(live: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, timeout=60) as client:
        yield client


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, each in value.items() for k, v in leaves(each, f"{prefix}.{key}" if prefix else key).items()}


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        flat, expected = leaves(a), leaves(b)
        assert list(flat) == list(expected)
        for name, value in expected.items():
            assert flat[name] == (pytest.approx(value, abs=1e-9) if isinstance(value, float) else value)


@pytest.mark.parametrize("name", SERVED)
def test_native_and_the_client(name: str, http: httpx.Client, live: Live, expected: dict[str, Any]) -> None:
    answered = http.post(f"/models/{name}/predict", json={"records": RECORDS})
    same(answered.json()["predictions"], expected[name])
    with estiba.Client(live.url) as client:
        same(client.predict(HELD_OUT, model=name), expected[name])


@pytest.mark.parametrize("name", SERVED)
def test_v1_and_v2(name: str, http: httpx.Client, expected: dict[str, Any]) -> None:
    v1 = http.post(f"/v1/models/{name}:predict", json={"instances": RECORDS})
    same(v1.json()["predictions"], expected[name])
    inputs = [{"name": c, "datatype": "FP64", "shape": [len(HELD_OUT)], "data": HELD_OUT[c].tolist()} for c in HELD_OUT]
    outputs = http.post(f"/v2/models/{name}/infer", json={"inputs": inputs}).json()["outputs"]
    described = http.get(f"/v2/models/{name}").json()["outputs"]
    assert [o["name"] for o in outputs] == [o["name"] for o in described]
    values = {o["name"]: np.reshape(np.array(o["data"], dtype=object), o["shape"]).tolist() for o in outputs}
    for i, row in enumerate(expected[name]):
        flat = leaves(row)
        for part, column in values.items():
            inner = [v for key, v in flat.items() if key == part or key.startswith(f"{part}.")]
            assert column[i] == (pytest.approx(inner, abs=1e-9) if isinstance(column[i], list) else inner[0]) or (
                column[i] == pytest.approx(inner[0], abs=1e-9)
            )


def test_v2_binary_of_one_part(http: httpx.Client, expected: dict[str, Any]) -> None:
    inputs = [{"name": c, "datatype": "FP64", "shape": [9], "data": HELD_OUT[c][:9].tolist()} for c in HELD_OUT]
    wanted = [{"name": "colour.probabilities", "parameters": {"binary_data": True}}]
    answered = http.post("/v2/models/kinds/infer", json={"inputs": inputs, "outputs": wanted})
    length = int(answered.headers["inference-header-content-length"])
    (output,) = json.loads(answered.content[:length])["outputs"]
    found = np.frombuffer(answered.content[length:], "<f8").reshape(output["shape"])
    shares = [list(row["colour"]["probabilities"].values()) for row in expected["kinds"][:9]]
    assert np.allclose(found, shares, atol=1e-9)


def test_mlflow_whole_by_output_and_by_part(http: httpx.Client, expected: dict[str, Any]) -> None:
    def ask(**params: str) -> Any:
        body = {"dataframe_records": RECORDS, **({"params": params} if params else {})}
        return http.post("/invocations", json=body).json()["predictions"]

    same(ask(), expected["kinds"])
    assert ask(output="size.label") == [row["size"]["label"] for row in expected["kinds"]]
    same(ask(output="colour"), [row["colour"] for row in expected["kinds"]])
    refused = http.post("/invocations", json={"dataframe_records": RECORDS, "params": {"output": "shape"}})
    assert refused.status_code == 400
    assert "size, colour" in refused.json()["message"]


def test_arrow_answers(http: httpx.Client, expected: dict[str, Any]) -> None:
    accept = "application/vnd.apache.arrow.stream"
    answered = http.post("/models/kinds/predict", json={"records": RECORDS}, headers={"accept": accept})
    if not answered.headers["content-type"].startswith(accept):  # JSON requests are answered in JSON
        sink = io.BytesIO()
        table = pa.Table.from_pandas(HELD_OUT)
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        headers = {"accept": accept, "content-type": accept}
        answered = http.post("/models/kinds/predict", content=sink.getvalue(), headers=headers)
    table = pa.ipc.open_stream(answered.content).read_all()
    flat = [leaves(row) for row in expected["kinds"]]
    assert table.column_names == list(flat[0])
    for name in table.column_names:
        wanted = [row[name] for row in flat]
        found = table.column(name).to_pylist()
        assert found == (pytest.approx(wanted, abs=1e-9) if isinstance(wanted[0], float) else wanted)


def test_openapi_describes_every_answer(http: httpx.Client, expected: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator

    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    for name in SERVED:
        schema = schemas[f"{name}.Prediction"]
        Draft202012Validator(schema).validate(expected[name][0])
        assert schema["required"] == list(expected[name][0])
        broken = {**expected[name][0], next(iter(expected[name][0])): "no such value"}
        assert not Draft202012Validator(schema).is_valid(broken)


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_files(kind: str, registry: Path, tmp_path: Path, expected: dict[str, Any]) -> None:
    source, target = tmp_path / f"rows{kind}", tmp_path / f"answers{kind}"
    HELD_OUT.to_csv(source, index=False) if kind == ".csv" else HELD_OUT.to_parquet(source)
    score(estiba.load("kinds", registry=registry, trust=True), source, target)
    read = pd.read_csv(target) if kind == ".csv" else pd.read_parquet(target)
    flat = [leaves(row) for row in expected["kinds"]]
    assert list(read.columns) == list(flat[0])
    assert read["size.label"].tolist() == [row["size.label"] for row in flat]
    shares = [row["colour.probabilities.red"] for row in flat]
    assert np.allclose(read["colour.probabilities.red"], shares, atol=1e-9)


def test_the_client_of_triton(live: Live, expected: dict[str, Any]) -> None:
    client = pytest.importorskip("tritonclient.http")
    inputs = []
    for name in HELD_OUT:
        each = client.InferInput(name, [len(HELD_OUT)], "FP64")
        each.set_data_from_numpy(HELD_OUT[name].to_numpy())
        inputs.append(each)
    with client.InferenceServerClient(live.url.removeprefix("http://")) as server:
        answered = server.infer("kinds", inputs)
    labels = answered.as_numpy("size.label").tolist()
    assert [each.decode() for each in labels] == [row["size"]["label"] for row in expected["kinds"]]
    shares = [list(row["colour"]["probabilities"].values()) for row in expected["kinds"]]
    assert np.allclose(answered.as_numpy("colour.probabilities"), shares, atol=1e-9)
