"""Bodies of requests for models of tensors: what each protocol takes, what it refuses and how, images, and limits."""

from __future__ import annotations

import base64
import gzip
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tensor_toys import brightness, doubled, joined, two_outputs
from toys import Live

import estiba
from estiba.core.errors import BadInput, BadRequest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]

NPY, NPZ = "application/x-npy", "application/x-npz"
X = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
PIXELS = np.random.default_rng(4).integers(0, 256, (6, 5, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tensor-toys") / "registry"
    floats = np.random.default_rng(0).uniform(size=(2, 3, 6, 5)).astype(np.float32)
    image = {"pixels": {"kind": "tensor", "image": {"scale": 1 / 255}, "max_elements": 100_000}}
    texts = {"a": np.array([["x"]]), "b": np.array([["p", "q"]]), "t": np.array([1])}
    estiba.pack(two_outputs(), {"x": X}, name="two", registry=folder)
    estiba.pack(doubled(), {"x": X}, name="free", registry=folder)
    estiba.pack(doubled(shape=(1, "length")), {"x": X[:1]}, name="one", registry=folder)
    estiba.pack(brightness(), {"pixels": floats}, name="bright", registry=folder, fields=image)
    estiba.pack(joined(), texts, name="joined", registry=folder)
    return folder


@pytest.fixture(scope="module")
def live(registry: Path, start_server: Callable[..., Live]) -> Live:
    return start_server("two", "free", "one", "bright", "joined", registry=str(registry), default="two")


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, timeout=60) as http:
        yield http


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(save: Any = np.savez, **arrays: Any) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def picture(kind: str = "PNG", pixels: Any = PIXELS) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def problems(answer: Any, status: int = 422) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return {each["pointer"]: each["detail"] for each in answer.json().get("errors", [])}


def native(client: httpx.Client, model: str, records: list[Any], **more: Any) -> Any:
    answer = client.post(f"/models/{model}/predict", json={"records": records, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def test_outputs_are_chosen_in_every_protocol(client: httpx.Client) -> None:
    row = X[0].tolist()
    both = native(client, "two", [{"x": row}])[0]
    assert list(both) == ["logit", "probability"]
    assert native(client, "two", [{"x": row}], params={"outputs": ["probability"]}) == [
        {"probability": both["probability"]}
    ]
    assert client.post("/predict?output=logit", json={"x": row}).json()["predictions"] == [{"logit": both["logit"]}]
    part = client.post("/invocations", json={"instances": [row], "params": {"output": "logit"}}).json()
    assert part == {"predictions": [both["logit"]]}
    assert client.post("/invocations", json={"inputs": {"x": [row]}}).json() == {"predictions": [both]}
    assert client.post("/v1/models/two:predict", json={"instances": [{"x": row}]}).json() == {"predictions": [both]}
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": row}
    v2 = client.post("/v2/models/two/infer", json={"inputs": [tensor], "outputs": [{"name": "probability"}]}).json()
    assert [(each["name"], each["data"]) for each in v2["outputs"]] == [("probability", both["probability"])]
    npy = client.post(
        "/models/two/predict?output=logit", content=saved(X), headers={"content-type": NPY, "accept": NPY}
    )
    assert np.load(io.BytesIO(npy.content))[0].tolist() == both["logit"]


def test_a_bare_record_at_the_short_path_has_its_outputs_at_the_top(client: httpx.Client) -> None:
    answer = client.post("/predict", json={"x": X[0].tolist()}).json()
    assert {"logit": answer["logit"], "probability": answer["probability"]} == answer["predictions"][0]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"records": [{"x": [1, 2, 3]}, {"x": [1, 2]}]}, {"#/records/1/x": "got shape [2]"}),
        ({"x": [[1, 2, 3]]}, {"#/x": "expected float32 of shape [3], got shape [1, 3]"}),
        ({"records": [{"x": [1, "2", 3]}]}, {"#/records/0/x": "got a string at [1]"}),
        ({"records": [{"y": 1}]}, {"#/records/0/y": "no such field", "#/records/0/x": "missing"}),
        ({"records": []}, {"#/records": "one record or more"}),
        ({"records": [{"x": [1, 2, 3]}], "params": {"a": 1}}, {"#/params": "outputs"}),
        ({"records": [{"x": [1, 2, 3]}], "more": 1}, {"#/more": "only records and params"}),
        ([1], {"#": "expected an object"}),
    ],
)
def test_what_is_wrong_is_named_natively(body: Any, expected: dict[str, str], client: httpx.Client) -> None:
    found = problems(client.post("/models/two/predict", json=body))
    assert found.keys() == expected.keys()
    assert all(text in found[pointer] for pointer, text in expected.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datatype": "FP64"}, "expected FP32 of shape [-1, 3], got FP64 of shape [2, 3]"),
        ({"shape": [3, 2]}, "expected float32 of shape [records, 3], got float32 of shape [3, 2]"),
        ({"shape": [2, 4]}, "Input 'x' has shape [2, 4], 8 values, but 6 of data"),
        ({"shape": [2**20, 2**20], "data": [1]}, "has more than"),
        ({"shape": "x"}, "needs a shape"),
        ({"data": [1, 2, 3, 4, 5, None]}, "has null at element 5"),
        ({"data": [1, 2, 3, 4, 5, "6"]}, "Element 5 of input 'x' is not of datatype FP32"),
        ({"data": [1, 2, 3, 4, 5, 1e39]}, "does not fit into FP32"),
        ({"name": "y"}, "The model has no input 'y'"),
        ({"shape": [0, 3], "data": []}, "has shape [0, 3], which holds no element"),
        ({"shape": [0, *[2**39] * 8], "data": []}, "which holds no element"),
    ],
)
def test_what_is_wrong_is_named_in_v2(change: dict[str, Any], message: str, client: httpx.Client) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]} | change
    answer = client.post("/v2/models/two/infer", json={"inputs": [tensor]})
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/models/two/predict", b"{", {"content-type": "application/json"}, 400),
        ("/models/two/predict", b"a,b", {"content-type": "text/csv"}, 415),
        ("/models/two/predict", picture(), {"content-type": "image/png"}, 415),
        ("/models/joined/predict", saved(X), {"content-type": NPY}, 415),
        ("/models/two/predict", b"x", {"content-type": NPY}, 400),
        ("/models/two/predict", saved(X), {"content-type": NPY, "accept": NPY}, 400),
        ("/models/two/predict?output=nothing", saved(X), {"content-type": NPY}, 400),
        ("/models/two/predict?age=3", saved(X), {"content-type": NPY}, 400),
        ("/models/two/predict", saved(X[:, :2]), {"content-type": NPY}, 422),
        ("/models/two/predict", saved(np.array([{}], object)), {"content-type": NPY}, 400),
        ("/models/bright/predict", b"no image", {"content-type": "image/jpeg"}, 422),
        ("/invocations", b"{}", {"content-type": "application/json"}, 400),
        ("/invocations", b'{"inputs": {"x": []}}', {"content-type": "application/json"}, 400),
        ("/invocations", b'{"inputs": {"x": 3}}', {"content-type": "application/json"}, 400),
        ("/v1/models/two:predict", b'{"instances": []}', {"content-type": "application/json"}, 400),
        ("/v1/models/joined:predict", b'{"instances": [3]}', {"content-type": "application/json"}, 400),
        ("/v2/models/two/infer", b"{}", {}, 400),
        ("/models/two/predict", b'{"x": [1, 2, 3], "x": [1, 2, 3]}', {"content-type": "application/json"}, 422),
        ("/v1/models/two:predict", b'{"instances": [{"x": [1, 2, 3], "x": 1}]}', {}, 400),
        ("/v2/models/two/infer", b'{"id": "a", "id": "b", "inputs": []}', {}, 400),
    ],
)
def test_a_body_that_a_path_does_not_take(
    path: str, body: bytes, headers: dict[str, str], status: int, client: httpx.Client
) -> None:
    assert client.post(path, content=body, headers=headers).status_code == status


TEXTS = {"a": np.array([["x"], ["y"]]), "b": np.array([["p", "q"], ["r", "ñ"]]), "t": np.array([1, -1])}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_several_inputs_and_outputs_as_npz(save: Any, client: httpx.Client) -> None:
    headers = {"content-type": NPZ, "accept": NPZ}
    answer = client.post("/models/joined/predict", content=zipped(save, **TEXTS), headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, NPZ)
    records = [{name: array[i].tolist() for name, array in TEXTS.items()} for i in range(2)]
    expected = native(client, "joined", records)
    found = np.load(io.BytesIO(answer.content))
    assert {name: found[name].tolist() for name in found} == {n: [row[n] for row in expected] for n in expected[0]}
    assert (
        client.post("/models/joined/predict", content=zipped(save, **TEXTS), headers={"content-type": NPZ}).json()[
            "predictions"
        ]
        == expected
    )
    one = {name: array[0] for name, array in TEXTS.items()}
    answer = client.post("/models/joined/predict", content=zipped(save, **one), headers={"content-type": NPZ})
    assert answer.json()["predictions"] == expected[:1]
    both = client.post("/models/two/predict", content=zipped(x=X), headers=headers)
    part = client.post(
        "/models/two/predict?output=logit", content=saved(X), headers={"content-type": NPY, "accept": NPY}
    )
    logits = np.load(io.BytesIO(both.content))["logit"]
    assert logits.tolist() == np.load(io.BytesIO(part.content)).tolist()


def _entries(*entries: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (zipped(arr_0=X), 422, "numpy.savez(file, NAME=array) names it"),
        (zipped(**TEXTS, more=X), 422, "the model has no such field"),
        (zipped(**TEXTS | {"t": np.array([1])}), 422, "expected as many records of each field"),
        (zipped(**TEXTS | {"t": np.array([1.5, 2.5])}), 422, "#/t"),
        (zipped(**TEXTS | {"t": np.array([{}, {}], object)}), 400, "t.npy: The .npy file has elements of type object"),
        (b"PK", 400, "The body is not a .npz file"),
        (saved(X), 400, "The body is not a .npz file"),
        (zipped(**TEXTS)[:-30], 400, "The body is not a .npz file"),
        (zipped(**TEXTS).replace(b"NUMPY", b"NUMPX"), 400, "The body is not a .npz file: Bad CRC-32"),
        (_entries(("a.npy", b"x"), ("a.npy", b"x")), 400, "has 'a' twice"),
        (_entries(("a.txt", b"x")), 400, "'a.txt', which is no .npy file"),
        (_entries(("a.npy", b"x")), 400, "a.npy: The body is not a .npy file"),
        (_entries(("a.npy", b"x"), method=zipfile.ZIP_LZMA), 400, "in a way that NumPy does not"),
        (_entries(("a.npy", bytes(300_000_000))), 413, "are larger than"),
        (_entries(*((f"{i}.npy", b"") for i in range(1001))), 413, "more than 1,000 arrays"),
    ],
)
def test_an_npz_file_that_is_refused(body: bytes, status: int, message: str, client: httpx.Client) -> None:
    answer = client.post("/models/joined/predict", content=body, headers={"content-type": NPZ})
    assert answer.status_code == status, answer.text
    assert message in answer.text


@pytest.mark.parametrize("huge", ["1" + "0" * 400, "-1" + "0" * 400])
def test_a_whole_number_beyond_all_floats_is_named(huge: str, client: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    found = problems(client.post("/models/free/predict", content=f'{{"x": [1, {huge}]}}', headers=headers))
    assert found == {"#/x": "expected float32 of shape [length], got a number beyond its range at [1]"}
    t = client.post("/models/joined/predict", content=f'{{"a":["x"],"b":["p","q"],"t":{huge}}}', headers=headers)
    assert "#/t" in problems(t)
    tensor = f'{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, {huge}]}}]}}'
    for path, body in (("/v2/models/free/infer", tensor), ("/invocations", f'{{"inputs": {{"x": [[{huge}]]}}}}')):
        answer = client.post(path, content=body, headers=headers)
        assert answer.status_code == 400, answer.text
        assert "x" in answer.text


def test_the_header_that_curl_needs_is_named(client: httpx.Client) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    for path in ("/predict", "/models/joined/predict", "/invocations"):
        answer = client.post(path, content=b'{"x": [1, 2, 3]}', headers=headers)
        assert answer.status_code == 415
        assert "-H 'Content-Type: application/json'" in answer.text


def test_free_axes_may_differ_from_record_to_record(client: httpx.Client) -> None:
    rows = [[1.0], [1.0, 2.0], [3.0, 4.0], [5.0]]
    expected = [{"y": [2 * value for value in row]} for row in rows]
    assert native(client, "free", [{"x": row} for row in rows]) == expected
    assert native(client, "one", [{"x": row} for row in rows]) == expected
    headers = {"content-type": "application/json", "accept": NPY}
    mixed = client.post("/models/free/predict", json={"records": [{"x": row} for row in rows]}, headers=headers)
    assert mixed.status_code == 400
    assert "different shapes" in mixed.text


def test_texts_scalars_and_booleans(client: httpx.Client) -> None:
    record = {"a": ["x"], "b": ["p", "ñ"], "t": -1}
    assert native(client, "joined", [record]) == [{"y": ["x", "p", "ñ"], "up": False}]
    described = client.get("/v2/models/joined").json()
    assert [(each["name"], each["datatype"], each["shape"]) for each in described["inputs"]] == [
        ("a", "BYTES", [-1, 1]),
        ("b", "BYTES", [-1, 2]),
        ("t", "INT64", [-1]),
    ]
    with estiba.Client(str(client.base_url)) as ours:
        arrays = {"a": np.array([["x"]]), "b": np.array([["p", "ñ"]]), "t": np.array([5])}
        (answer,) = ours.predict(arrays, model="joined")
    assert (answer["y"].tolist(), bool(answer["up"])) == (["x", "p", "ñ"], True)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_in_every_form_is_its_pixels(kind: str, client: httpx.Client) -> None:
    content = picture(kind)
    pixels = np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1).astype(np.float32) * np.float32(1 / 255)
    in_base64 = base64.b64encode(content).decode()
    expected = native(client, "bright", [{"pixels": pixels.tolist()}])[0]
    assert np.array_equal(np.array(expected["same"], np.float32), pixels)
    assert native(client, "bright", [{"pixels": in_base64}])[0] == expected
    body = client.post("/models/bright/predict", content=content, headers={"content-type": f"image/{kind.lower()}"})
    assert body.json()["predictions"] == [expected]
    text = {"name": "pixels", "datatype": "BYTES", "shape": [1], "data": [in_base64]}
    v2 = client.post("/v2/models/bright/infer", json={"inputs": [text], "outputs": [{"name": "mean"}]}).json()
    assert v2["outputs"][0]["data"] == expected["mean"]
    block = len(content).to_bytes(4, "little") + content
    header = json.dumps({"inputs": [text | {"data": None, "parameters": {"binary_data_size": len(block)}}]}).encode()
    length = {"inference-header-content-length": str(len(header))}
    binary = client.post("/v2/models/bright/infer", content=header + block, headers=length).json()
    assert binary["outputs"][0]["data"] == expected["mean"]
    header = header.replace(b"null", b'["x"]')
    length = {"inference-header-content-length": str(len(header))}
    assert "both" in client.post("/v2/models/bright/infer", content=header + block, headers=length).json()["error"]


def test_an_image_of_too_many_elements_is_refused(client: httpx.Client) -> None:
    large = picture(pixels=np.zeros((300, 300, 3), np.uint8))
    found = problems(client.post("/models/bright/predict", content=large, headers={"content-type": "image/png"}))
    assert found == {"#": "pixels: an image of 300 x 300 in rgb has more than 100,000 elements"}


def test_images_of_a_small_request_do_not_become_gigabytes(client: httpx.Client) -> None:
    large = base64.b64encode(picture("PNG", np.zeros((150, 200, 3), np.uint8))).decode()
    images = {"name": "pixels", "datatype": "BYTES", "shape": [400], "data": [large] * 400}
    answer = client.post("/v2/models/bright/infer", json={"inputs": [images]})
    assert answer.status_code == 413, answer.text
    answer = client.post("/v2/models/bright/infer", json={"inputs": [{**images, "shape": [0], "data": []}]})
    assert answer.status_code == 400, answer.text


def test_small_bodies_do_not_become_large_ones(client: httpx.Client) -> None:
    arrays = b'{"records": [{"x": [' + b"[]," * 600_000 + b"1]}]}"
    answer = client.post("/models/two/predict", content=arrays, headers={"content-type": "application/json"})
    assert answer.status_code == 413, answer.text
    packed = gzip.compress(b'{"records": [{"x": [' + b"1," * 5_000_000 + b"1]}]}")
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert client.post("/models/free/predict", content=packed, headers=headers).status_code == 413


def test_numbers_that_are_not_finite_are_null_with_a_warning_and_whole_in_npy(client: httpx.Client) -> None:
    x = np.array([[1, np.inf, np.nan]], np.float32)
    answer = client.post("/models/free/predict", content=saved(x), headers={"content-type": NPY}).json()
    assert answer["predictions"] == [{"y": [2, None, None]}]
    assert answer["warnings"] == [{"code": "not-finite", "pointer": "#/predictions/0/y"}]
    npy = client.post("/models/free/predict", content=saved(x), headers={"content-type": NPY, "accept": NPY})
    assert np.array_equal(np.load(io.BytesIO(npy.content)), x * 2, equal_nan=True)


def test_many_requests_at_once_get_their_own_answers(client: httpx.Client) -> None:
    """Of three lengths, so that some run together and others do not; one in ten is wrong."""
    bodies = [[float(i)] * (i % 3 + 1) if i % 10 else ["wrong"] for i in range(120)]

    def ask(x: list[Any]) -> Any:
        return client.post("/models/free/predict", json={"x": x})

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, bodies))
    for x, answer in zip(bodies, answers, strict=True):
        if x == ["wrong"]:
            assert answer.status_code == 422
        else:
            assert answer.json()["predictions"] == [{"y": [2 * value for value in x]}]


def test_the_client_and_load_refuse_alike(client: httpx.Client, registry: Path) -> None:
    with estiba.Client(str(client.base_url)) as ours:
        assert [row["logit"].shape for row in ours.predict(X, model="two")] == [(1,)] * 4
        assert ours.predict(X[0], model="two")[0]["logit"] == ours.predict(X, model="two")[0]["logit"]
        assert ours.predict([{"x": X[0].tolist()}], model="two", version=1)[0]["logit"]
        with pytest.raises(BadInput):
            ours.predict({"x": np.array(["a", "b", "c"])}, model="two")
        with pytest.raises(BadRequest, match="expected float32 of shape"):
            ours.predict(X[:, :2], model="two")
    with pytest.raises(BadInput, match="expected float32 of shape"):
        estiba.load("two", registry=registry).predict(X[:, :2])


def test_openapi_describes_tensors(client: httpx.Client) -> None:
    from openapi_spec_validator import validate

    document = client.get("/openapi.json").json()
    validate(document)
    content = document["paths"]["/models/bright/predict"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", NPY, NPZ, "image/jpeg", "image/png"}
    assert "get" not in document["paths"]["/models/bright/predict"]
    schemas = document["components"]["schemas"]
    assert schemas["two.Record"]["properties"]["x"]["minItems"] == 3
    assert schemas["two.Record"]["examples"]
    assert schemas["two.Prediction"]["properties"]["logit"]["items"]["type"] == ["number", "null"]
    assert client.get("/models/bright/schema").json()["properties"]["pixels"]["anyOf"][1]["contentEncoding"] == "base64"
    assert client.get("/docs").status_code == 200
