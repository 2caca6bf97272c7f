"""Models of tensors over HTTP: files that other projects ship, equal to ONNX Runtime's answers in every protocol."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
from tensor_toys import shipped
from toys import Live

import estiba

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]

RANDOM = np.random.default_rng(7)
SAMPLES: dict[str, dict[str, Any]] = {
    "magika": {"bytes": RANDOM.integers(0, 256, (3, 2048)).astype(np.int32)},
    "vad": {
        "input": RANDOM.normal(0, 0.1, (1, 512)).astype(np.float32),
        "state": RANDOM.normal(0, 0.1, (2, 1, 128)).astype(np.float32),
        "sr": np.array(16000),
    },
    "det": {"x": RANDOM.normal(0, 1, (2, 3, 64, 96)).astype(np.float32)},
    "rec": {"x": RANDOM.normal(0, 1, (1, 3, 48, 64)).astype(np.float32)},
}
NAMES = {"FP32": "float32", "INT32": "int32", "INT64": "int64"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, Path]]:
    """The files, and the registry that they are packed into."""
    registry = tmp_path_factory.mktemp("tensors") / "registry"
    found = {}
    for name, sample in SAMPLES.items():
        if (model := shipped(name)) is None:
            pytest.skip(f"the wheel of {name} cannot be downloaded")
        estiba.pack(model, sample, name=name, registry=registry)
        found[name] = (model, registry)
    return found


@pytest.fixture(scope="module")
def tensor_http(
    packed: dict[str, tuple[bytes, Path]], start_server: Callable[..., Live]
) -> Iterator[tuple[httpx.Client, Live]]:
    registry = next(iter(packed.values()))[1]
    live = start_server(*SAMPLES, registry=str(registry))
    with httpx.Client(base_url=live.url, timeout=60) as client:
        yield client, live


def own(packed: dict[str, tuple[bytes, Path]], name: str, feeds: dict[str, Any]) -> dict[str, Any]:
    """The answers of ONNX Runtime itself."""
    session = onnxruntime.InferenceSession(packed[name][0], providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def records(name: str) -> list[dict[str, Any]]:
    sample = SAMPLES[name]
    if name == "vad":
        return [{field: array.tolist() for field, array in sample.items()}]
    count = len(next(iter(sample.values())))
    return [{field: array[i].tolist() for field, array in sample.items()} for i in range(count)]


@pytest.mark.parametrize("name", SAMPLES)
def test_json_of_the_native_protocol(name: str, packed: Any, tensor_http: Any) -> None:
    answer = tensor_http[0].post(f"/models/{name}/predict", json={"records": records(name)})
    assert answer.status_code == 200, answer.text
    predictions = answer.json()["predictions"]
    for output, expected in own(packed, name, SAMPLES[name]).items():
        got = [np.array(row[output], expected.dtype) for row in predictions]
        assert np.array_equal(got[0] if name == "vad" else np.stack(got), expected)
    assert answer.json()["warnings"] == []


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("binary", [True, False])
def test_v2_with_tritons_own_client(name: str, binary: bool, packed: Any, tensor_http: Any) -> None:
    import tritonclient.http as triton
    from tritonclient.utils import np_to_triton_dtype

    with triton.InferenceServerClient(tensor_http[1].url.removeprefix("http://"), network_timeout=60) as client:
        metadata = client.get_model_metadata(name)
        inputs = []
        for each in metadata["inputs"]:
            array = SAMPLES[name][each["name"]]
            assert each["datatype"] == np_to_triton_dtype(array.dtype)
            assert len(each["shape"]) == array.ndim
            assert all(a in (-1, b) for a, b in zip(each["shape"], array.shape, strict=True))
            tensor = triton.InferInput(each["name"], array.shape, each["datatype"])
            tensor.set_data_from_numpy(array, binary_data=binary)
            inputs.append(tensor)
        outputs = [triton.InferRequestedOutput(each["name"], binary_data=binary) for each in metadata["outputs"]]
        answer = client.infer(name, inputs, outputs=outputs)
    for output, expected in own(packed, name, SAMPLES[name]).items():
        got = answer.as_numpy(output)
        assert got.dtype == expected.dtype
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("name", ["magika", "det", "rec"])
def test_npy(name: str, packed: Any, tensor_http: Any) -> None:
    (array,) = SAMPLES[name].values()
    file = io.BytesIO()
    np.save(file, array)
    headers = {"content-type": "application/x-npy", "accept": "application/x-npy"}
    answer = tensor_http[0].post(f"/models/{name}/predict", content=file.getvalue(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-npy"
    got = np.load(io.BytesIO(answer.content))
    (expected,) = own(packed, name, SAMPLES[name]).values()
    assert got.dtype == expected.dtype
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("name", SAMPLES)
def test_from_python(name: str, packed: Any) -> None:
    model = estiba.load(name, registry=packed[name][1])
    predictions = model.predict(SAMPLES[name])
    for output, expected in own(packed, name, SAMPLES[name]).items():
        got = [row[output] for row in predictions]
        assert got[0].dtype == expected.dtype
        assert np.array_equal(got[0] if name == "vad" else np.stack(got), expected)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_client(name: str, packed: Any, tensor_http: Any) -> None:
    with estiba.Client(tensor_http[1].url) as client:
        predictions = client.predict(SAMPLES[name], model=name)
    for output, expected in own(packed, name, SAMPLES[name]).items():
        got = [np.asarray(row[output], expected.dtype) for row in predictions]
        assert np.array_equal(got[0] if name == "vad" else np.stack(got), expected)


def test_the_file_is_packed_unchanged(packed: Any) -> None:
    for name, (content, registry) in packed.items():
        assert estiba.load(name, registry=registry).artifact.model.read_bytes() == content


def test_a_stream_keeps_its_state_in_the_callers_hands(packed: Any, tensor_http: Any) -> None:
    """Three pieces of sound, each with the state that the answer before it gave, as the authors of the file use it."""
    ours = theirs = np.zeros((2, 1, 128), np.float32)
    for _ in range(3):
        sound = RANDOM.normal(0, 0.1, (1, 512)).astype(np.float32)
        body = {"input": sound.tolist(), "state": ours.tolist(), "sr": 16000}
        got = tensor_http[0].post("/models/vad/predict", json=body).json()["predictions"][0]
        ours = np.array(got["stateN"], np.float32)
        expected = own(packed, "vad", {"input": sound, "state": theirs, "sr": np.array(16000)})
        theirs = expected["stateN"]
        assert np.array_equal(ours, theirs)
        assert np.array_equal(np.array(got["output"], np.float32), expected["output"])
