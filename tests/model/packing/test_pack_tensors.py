"""ONNX files packed as models of tensors: the first axis, several outputs, options, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from onnx import TensorProto, helper
from sklearn.linear_model import LinearRegression
from tensor_toys import brightness, doubled, graph, joined, two_outputs

import estiba
from estiba.core.errors import BadArtifact, BadInput, BadProject, EstibaError, ParityError
from estiba.model.artifact import artifact, golden_tensors
from estiba.model.inference.load import load_artifact
from estiba.model.packing.pack import Packed

X = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


def packed(model: bytes, sample: Any, folder: Path, **options: Any) -> Packed:
    return estiba.pack(model, sample, name="m", registry=folder / "registry", **options)


def head(found: Packed) -> Any:
    return found.artifact.manifest.signature.head


def shapes(found: Packed) -> list[tuple[int | str, ...]]:
    return [field.shape for field in found.artifact.manifest.signature.fields]


def own(model: bytes, feeds: dict[str, Any]) -> list[Any]:
    return list(onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds))


def test_a_free_first_axis_counts_records(tmp_path: Path) -> None:
    found = packed(two_outputs(), {"x": X}, tmp_path)
    assert (head(found).batch, shapes(found)) == ("free", [(3,)])
    predictions = estiba.load("m", registry=tmp_path / "registry").predict({"x": X})
    logit, probability = own(two_outputs(), {"x": X})
    assert np.array_equal([row["logit"] for row in predictions], logit)
    assert np.array_equal([row["probability"] for row in predictions], probability)


def test_a_first_axis_of_one_takes_records_one_by_one(tmp_path: Path) -> None:
    found = packed(two_outputs(1), {"x": X}, tmp_path)
    assert (head(found).batch, shapes(found)) == ("one", [(3,)])
    predictions = estiba.load("m", registry=tmp_path / "registry").predict(X)
    for row, x in zip(predictions, X, strict=True):
        assert np.array_equal(row["logit"], own(two_outputs(1), {"x": x[None]})[0][0])


def test_an_axis_that_mixes_records_does_not_count_them(tmp_path: Path) -> None:
    node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    model = graph([("x", TensorProto.FLOAT, ["n", 3])], [("y", TensorProto.FLOAT, ["n", 3])], [node])
    found = packed(model, {"x": X}, tmp_path)
    assert (head(found).batch, shapes(found)) == ("none", [("n", 3)])
    assert "answers two records together otherwise than one by one" in found.notes[0]
    (row,) = estiba.load("m", registry=tmp_path / "registry").predict({"x": X})
    assert np.array_equal(row["y"], own(model, {"x": X})[0])


def test_the_meaning_of_the_first_axis_can_be_set(tmp_path: Path) -> None:
    found = packed(doubled(shape=("length",)), {"x": X[0]}, tmp_path, batch="none")
    assert (head(found).batch, shapes(found)) == ("none", [("length",)])
    with pytest.raises(BadProject, match="batch is 'some'"):
        packed(doubled(), {"x": X}, tmp_path, batch="some")


def test_outputs_are_chosen_and_named(tmp_path: Path) -> None:
    found = packed(two_outputs(), {"x": X}, tmp_path, outputs={"tensors": {"p": "probability"}})
    assert [(each.name, each.source) for each in head(found).tensors] == [("p", "probability")]
    (row,) = estiba.load("m", registry=tmp_path / "registry").predict({"x": X[0]})
    assert list(row) == ["p"]
    assert np.array_equal(row["p"], own(two_outputs(), {"x": X[:1]})[1][0])
    with pytest.raises(BadProject, match="has no output 'prob'"):
        packed(two_outputs(), {"x": X}, tmp_path, outputs={"tensors": {"p": "prob"}})


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("float64", TensorProto.DOUBLE),
        ("float16", TensorProto.FLOAT16),
        ("int64", TensorProto.INT64),
        ("int32", TensorProto.INT32),
        ("int8", TensorProto.INT8),
        ("uint8", TensorProto.UINT8),
        ("uint64", TensorProto.UINT64),
    ],
)
def test_every_type_of_numbers(dtype: str, kind: int, tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    shape = ["n", "length"]
    model = graph([("x", kind, shape)], [("y", kind, shape)], [node])
    x = np.arange(6).reshape(2, 3).astype(dtype)
    packed(model, {"x": x}, tmp_path)
    predictions = estiba.load("m", registry=tmp_path / "registry").predict({"x": x})
    assert predictions[0]["y"].dtype == np.dtype(dtype)
    assert np.array_equal([row["y"] for row in predictions], x)


def test_texts_and_booleans(tmp_path: Path) -> None:
    sample = {"a": np.array([["x"], ["y"]], object), "b": np.array([["p", "q"], ["r", "ñ"]]), "t": np.array([1, -1])}
    found = packed(joined(), sample, tmp_path)
    rows = estiba.load("m", registry=tmp_path / "registry").predict(
        [{"a": ["x"], "b": ["p", "q"], "t": 1}, {"a": ["y"], "b": ["r", "ñ"], "t": -1}]
    )
    assert [row["y"].tolist() for row in rows] == [["x", "p", "q"], ["y", "r", "ñ"]]
    assert [bool(row["up"]) for row in rows] == [True, False]
    assert [each.dtype for each in head(found).tensors] == ["string", "bool"]


def test_options_of_a_field(tmp_path: Path) -> None:
    fields = {"pixels": {"kind": "tensor", "type": "float32", "shape": [3, "height", 4], "image": {"mode": "bgr"}}}
    x = np.random.default_rng(0).uniform(size=(2, 3, 5, 4)).astype(np.float32)
    found = packed(brightness(), {"pixels": x}, tmp_path, fields=fields, description="how bright")
    (field,) = found.artifact.manifest.signature.fields
    assert (field.shape, field.image is not None and field.image.mode) == ((3, "height", 4), "bgr")
    assert "pillow" in found.artifact.manifest.libraries
    card = found.artifact.file("card.md").read_text()
    assert "| pixels | float32 | [3, height, 4] | bgr |" in card
    assert "no profile" in card
    assert "profile.json" not in [entry.path for entry in found.artifact.manifest.files]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pixels": {"type": "uint8"}}, "has type uint8, and the model takes float32"),
        ({"pixels": {"shape": [4, "h", "w"]}}, r"has shape \[4, h, w\], and the model takes \[3, h, w\]"),
        ({"pixels": {"shape": [3, 5, 5]}}, "The sample itself does not match the signature"),
        ({"pixel": {"image": {}}}, "has no field 'pixel'"),
        ({"pixels": {"image": {"resize": True}}}, "leaves height or width free"),
        ({"pixels": {"minimum": 0}}, "cannot be missing and has no range"),
    ],
)
def test_options_that_contradict_the_file_are_refused(fields: Any, message: str, tmp_path: Path) -> None:
    x = np.zeros((1, 3, 5, 4), np.float32)
    with pytest.raises(BadProject, match=message):
        packed(brightness(), {"pixels": x}, tmp_path, fields=fields)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"x": X[:, :2]}, r"x: expected float32 of shape \[\?, 3\], got float32 of shape \[5, 2\]"),
        ({"x": X.astype(str)}, "x: expected float32"),
        ({"y": X}, "the model has no such field"),
        ({"x": X, "y": X}, "the model has no such field"),
    ],
)
def test_a_sample_that_the_file_does_not_take_is_named(sample: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadProject, match=message) as caught:
        packed(two_outputs(), sample, tmp_path)
    assert caught.value.hint == "The file takes x: float32 [n, 3]."


def test_what_is_no_file_of_tensors_is_refused(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(X, X[:, 0])
    with pytest.raises(BadProject, match="Only ONNX files"):
        estiba.pack(fitted, {"x": X}, name="m", registry=tmp_path)
    with pytest.raises(BadProject, match="the sample is a table"):
        packed(two_outputs(), pd.DataFrame(X), tmp_path, fields={"x": {"kind": "tensor"}})
    with pytest.raises(BadProject, match="threshold"):
        packed(two_outputs(), {"x": X}, tmp_path, threshold=0.5)
    with pytest.raises(BadArtifact, match="cannot run this graph"):
        packed(b"no file", {"x": X}, tmp_path)
    node = helper.make_node("SequenceConstruct", ["x"], ["y"])
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    made = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])], [sequence])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    with pytest.raises(EstibaError, match="answers no tensor: y is seq"):
        packed(model.SerializeToString(), {"x": X}, tmp_path)


def test_values_that_the_graph_refuses_are_the_callers_mistake(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    model = graph(
        [("x", TensorProto.INT64, ["n"])],
        [("y", TensorProto.FLOAT, ["n"])],
        [node],
        table=np.arange(3, dtype=np.float32),
    )
    packed(model, {"x": np.array([0, 2])}, tmp_path)
    loaded = estiba.load("m", registry=tmp_path / "registry")
    with pytest.raises(BadInput) as caught:
        loaded.predict([{"x": 1}, {"x": 7}])
    assert "the model does not take this" in caught.value.problems[0].detail


def test_the_same_file_and_sample_give_the_same_digest(tmp_path: Path) -> None:
    first, second = (packed(two_outputs(), {"x": X}, tmp_path / name) for name in "ab")
    assert first.artifact.digest == second.artifact.digest


def test_golden_records_of_large_tensors_stay_small(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(size=(4, 3, 256, 256)).astype(np.float32)
    found = packed(brightness(), {"pixels": x}, tmp_path)
    golden = golden_tensors.unseal(found.artifact.file("golden.json").read_bytes())
    assert len(golden.records) == 1
    assert len(golden.answers[0]["same"].data) == 4 * golden_tensors.MAX_ANSWER_ELEMENTS
    assert golden.answers[0]["same"].shape == (3, 256, 256)


def test_a_model_that_answers_otherwise_than_its_golden_records_is_not_loaded(tmp_path: Path) -> None:
    found = packed(two_outputs(), {"x": X}, tmp_path).artifact
    files = {entry.path: found.file(entry.path).read_bytes() for entry in found.manifest.files}
    files["model.onnx"] = two_outputs().replace(np.float32(-2).tobytes(), np.float32(-2.01).tobytes())
    assert files["model.onnx"] != two_outputs()
    other = artifact.write(tmp_path, found.manifest, files)
    with pytest.raises(ParityError, match="The output 'logit' of golden record 0 is off by"):
        load_artifact(other)
