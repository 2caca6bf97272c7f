"""A user's own ONNX file, wrapped: the same answers from one coded input, or a sentence saying why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import catboost
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import (
    BooleanTensorType,
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from tensor_toys import two_outputs

import estiba
from estiba.core.errors import BadProject, EstibaError
from estiba.model.coding.coder import Coder
from estiba.model.coding.predictions import labels
from estiba.model.engines.onnx import session
from estiba.model.estimators import saved_files
from estiba.model.onnx_import.wrap import ask, wrap
from estiba.model.schema.signature import Field, Head, Signature
from estiba.model.schema.signature_checks import validated

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

OPSETS = {"": 17, "ai.onnx.ml": 3}
RANDOM = np.random.default_rng(0)
FLOATS = RANDOM.normal(size=(120, 3)).astype(np.float32)
ROWS = pd.DataFrame(FLOATS, columns=["a", "b", "c"])
Y = (FLOATS[:, 0] > 0).astype(int)
THREE = Y + (FLOATS[:, 1] > 0)
WORDS = np.where(Y == 1, "yes", "no")
MIXED = pd.DataFrame(
    {
        "a": RANDOM.normal(size=120),
        "i": RANDOM.integers(0, 9, 120),
        "c": RANDOM.choice(["u", "v", "w"], 120),
        "b": RANDOM.choice([True, False], 120),
    }
)


def exported(model: Any, y: Any, **options: Any) -> bytes:
    model.fit(FLOATS, y)
    chosen = {id(model): options} if options else None
    return bytes(to_onnx(model, FLOATS[:1], options=chosen, target_opset=OPSETS).SerializeToString())


def piped(first: Any = FloatTensorType) -> bytes:
    """Columns of four types, each an input of its own."""
    columns = make_column_transformer(
        (StandardScaler(), ["a"]), (OneHotEncoder(handle_unknown="ignore"), ["c"]), ("passthrough", ["i", "b"])
    )
    model = make_pipeline(columns, LogisticRegression()).fit(MIXED, WORDS)
    kinds = {"a": first, "i": Int64TensorType, "c": StringTensorType, "b": BooleanTensorType}
    types = [(name, kind([None, 1])) for name, kind in kinds.items()]
    plain = {id(model): {"zipmap": False}} if first is DoubleTensorType else None  # ZipMap takes float32 alone
    return bytes(to_onnx(model, initial_types=types, options=plain, target_opset=OPSETS).SerializeToString())


def small(kind: int, dims: list[Any], op: str = "Identity", out: int | None = None) -> bytes:
    """One node between an input and an output."""
    node = helper.make_node(op, ["rows"], ["answer"], **({"to": out} if op == "Cast" else {}))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("rows", kind, dims)],
        [helper.make_tensor_value_info("answer", out or kind, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def answered(model: bytes, fields: tuple[Field, ...], head: Head, sample: pd.DataFrame) -> Any:
    coder = Coder(validated(Signature(fields=fields, head=head)))
    coded = coder.check_columns({name: sample[name].tolist() for name in sample}, len(sample))
    return session(model).run(["y"], {"x": coded.matrix})[0]


@pytest.mark.parametrize(
    ("model", "y", "options", "expected"),
    [
        (LogisticRegression(), WORDS, {}, Head(kind="probabilities", classes=("no", "yes"))),
        (LogisticRegression(), WORDS, {"zipmap": False}, Head(kind="probabilities", classes=("no", "yes"))),
        (LogisticRegression(), THREE * 5, {}, Head(kind="probabilities", classes=(0, 5, 10))),
        (RandomForestClassifier(3), THREE, {"zipmap": False}, Head(kind="probabilities", classes=(0, 1, 2))),
        (SGDClassifier(), WORDS, {}, Head(kind="scores", classes=("no", "yes"))),
        (LinearSVC(), Y, {}, Head(kind="scores", classes=(0, 1))),
        (LinearSVC(), THREE, {}, Head(kind="scores", classes=(0, 1, 2))),
        (IsolationForest(n_estimators=3, random_state=0), None, {}, Head(kind="outlier", classes=(-1, 1))),
        (LinearRegression(), FLOATS[:, 0] * 3, {}, Head(kind="values", names=("value",))),
        (LinearRegression(), FLOATS[:, :2] * 3, {}, Head(kind="values", names=("y_0", "y_1"))),
    ],
)
def test_it_answers_as_the_file_does(model: Any, y: Any, options: dict[str, Any], expected: Head) -> None:
    original = exported(model, y, **options)
    wrapped, head, fields = wrap(original, ROWS)
    got = answered(wrapped, fields, head, ROWS)
    assert head == expected
    assert [field.name for field in fields] == ["a", "b", "c"]
    assert np.array_equal(got, ask(original, ROWS, head))
    if head.classes:
        assert labels(head, got).tolist() == model.predict(FLOATS).tolist()


@pytest.mark.parametrize("first", [FloatTensorType, DoubleTensorType])
def test_columns_of_every_type_are_fed_by_name(first: Any) -> None:
    original = piped(first)
    shuffled = MIXED[["c", "b", "a", "i"]]
    wrapped, head, fields = wrap(original, shuffled)
    assert [(f.name, f.kind) for f in fields] == [
        ("a", "number"),
        ("i", "integer"),
        ("c", "category"),
        ("b", "boolean"),
    ]
    assert fields[2].levels == ("u", "v", "w")
    assert fields[2].unseen == "other"
    assert np.array_equal(answered(wrapped, fields, head, MIXED), ask(original, MIXED, head))


def test_an_unseen_level_is_unseen_by_the_graph_as_well() -> None:
    wrapped, head, fields = wrap(piped(), MIXED)
    other = MIXED.head(5).assign(c="never heard of")
    assert np.array_equal(answered(wrapped, fields, head, other), ask(piped(), other, head))


@pytest.mark.slow
def test_a_missing_string_is_the_empty_one_to_the_graph() -> None:
    holed = MIXED.assign(c=MIXED["c"].where(MIXED.index % 7 > 0, None))
    wrapped, head, fields = wrap(piped(), holed)
    assert fields[2].nullable
    assert np.array_equal(answered(wrapped, fields, head, holed), ask(piped(), holed, head))


def test_one_input_may_hold_several_columns_of_strings() -> None:
    cells = pd.DataFrame({"p": RANDOM.choice(["u", "v"], 120), "q": RANDOM.choice(["k", "l", "m"], 120)})
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(cells.to_numpy(), WORDS)
    types = [("cells", StringTensorType([None, 2]))]
    original = bytes(to_onnx(model, initial_types=types, target_opset=OPSETS).SerializeToString())
    wrapped, head, fields = wrap(original, cells)
    assert [(f.name, f.levels) for f in fields] == [("p", ("u", "v")), ("q", ("k", "l", "m"))]
    assert np.array_equal(answered(wrapped, fields, head, cells), ask(original, cells, head))


def test_without_a_sample_the_file_itself_tells_names_and_levels() -> None:
    wrapped, head, fields = wrap(piped())
    assert [f.name for f in fields] == ["a", "i", "c", "b"]
    assert fields[2].levels == ("u", "v", "w")
    assert head.classes == ("no", "yes")
    assert np.array_equal(answered(wrapped, fields, head, MIXED), ask(piped(), MIXED, head))
    named = wrap(exported(LogisticRegression(), Y), None, ["p", "q", "r"])[2]
    assert [f.name for f in named] == ["p", "q", "r"]


def test_catboosts_own_export_is_served(tmp_path: Path) -> None:
    model = catboost.CatBoostClassifier(iterations=5, thread_count=1, verbose=0, allow_writing_files=False)
    model.fit(FLOATS, WORDS).save_model(str(tmp_path / "model.onnx"), format="onnx")
    original = saved_files.load_file(tmp_path / "model.onnx")
    wrapped, head, fields = wrap(original, ROWS)
    assert head == Head(kind="probabilities", classes=("no", "yes"))
    assert np.array_equal(answered(wrapped, fields, head, ROWS), ask(original, ROWS, head))


def test_the_same_file_gives_the_same_bytes_and_onnx_accepts_them() -> None:
    first, again = wrap(piped(), MIXED)[0], wrap(piped(), MIXED)[0]
    assert first == again
    proto = onnx.load_model_from_string(first)
    onnx.checker.check_model(proto)
    assert [value.name for value in proto.graph.input] == ["x"]
    assert [value.name for value in proto.graph.output] == ["y"]


def test_a_flat_column_and_softmax_without_a_label() -> None:
    wrapped, head, fields = wrap(small(TensorProto.FLOAT, [None]), ROWS[["a"]])
    assert np.array_equal(answered(wrapped, fields, head, ROWS[["a"]]), ROWS[["a"]].to_numpy(np.float64))
    head = wrap(small(TensorProto.FLOAT, [None, 3], "Softmax"), ROWS)[1]
    assert head == Head(kind="probabilities", classes=(0, 1, 2))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (small(TensorProto.FLOAT, [1, 3]), "exactly 1 row at a time"),
        (small(TensorProto.FLOAT, [None, 3, 8, 8]), "4 dimensions"),
        (small(TensorProto.FLOAT, [None, None]), "does not say how many columns"),
        (small(TensorProto.FLOAT, [None, 3], "Cast", TensorProto.INT64), "only labels"),
        (small(TensorProto.STRING, [None, 1], "Cast", TensorProto.FLOAT), "does not list which"),
        (b"not a model", "no ONNX file"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(model: bytes, said: str) -> None:
    with pytest.raises(EstibaError, match=said):
        wrap(model)


def test_a_batch_fixed_inside_the_graph_shows_itself() -> None:
    shape = onnx.numpy_helper.from_array(np.array([1, 3]), "shape")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["rows", "shape"], ["answer"])],
        "g",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)],
        [shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(EstibaError, match="fails on 120 rows"):
        wrap(model.SerializeToString(), ROWS)


def test_a_sample_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BadProject, match="takes 3 columns, and 2 were given"):
        wrap(exported(LogisticRegression(), Y), ROWS[["a", "b"]])
    with pytest.raises(BadProject, match="takes numbers; the sample's 'c' is category"):
        wrap(exported(LogisticRegression(), Y), MIXED[["a", "i", "c"]])
    with pytest.raises(BadProject, match="'c' takes strings; the sample's 'c' is number"):
        wrap(piped(), MIXED.assign(c=0.5))
    with pytest.raises(BadProject, match="'i' is not all whole numbers"):
        wrap(piped(), MIXED.assign(i=0.5))


def test_the_producer_is_its_framework() -> None:
    assert saved_files.framework(piped()).startswith("ONNX from skl2onnx ")


@pytest.mark.slow
@pytest.mark.parametrize("zipmap", [False, True])
@pytest.mark.parametrize("count", [1, 10, 20, 50, 100])
def test_a_forest_has_probabilities_with_any_number_of_trees(count: int, zipmap: bool) -> None:
    data = load_breast_cancer(as_frame=True)
    rows = data.data.iloc[:, :8].astype(np.float32)
    model = RandomForestClassifier(count, random_state=0).fit(rows.to_numpy(), data.target)
    options = {} if zipmap else {"options": {"zipmap": False}}
    content = to_onnx(model, rows.to_numpy()[:1], target_opset=OPSETS, **options).SerializeToString()
    made, head, fields = wrap(content, rows.iloc[::2])
    assert (head.kind, head.classes) == ("probabilities", (0, 1))
    others = rows.iloc[1::2].reset_index(drop=True)
    raw = answered(made, fields, head, others)
    assert raw.min() >= 0
    assert raw.max() <= 1
    assert np.abs(raw - model.predict_proba(others.to_numpy())).max() < 1e-6
    assert labels(head, raw).tolist() == model.predict(others.to_numpy()).tolist()
    assert np.array_equal(raw, ask(content, others, head))


def test_several_outputs_of_numbers_are_values_named_as_in_the_file(tmp_path: Path) -> None:
    """As torch exports a logit and its probability."""
    model, rows = two_outputs(), FLOATS.astype(np.float64)
    packed = estiba.pack(model, pd.DataFrame(rows, columns=["a", "b", "c"]), name="two", registry=tmp_path)
    assert packed.artifact.manifest.signature.head == Head(kind="values", names=("logit", "probability"))
    logit, probability = session(model).run(None, {"x": FLOATS})
    predictions = estiba.load("two", registry=tmp_path).predict(rows)
    assert [row["logit"] for row in predictions] == logit[:, 0].tolist()
    assert [row["probability"] for row in predictions] == probability[:, 0].tolist()


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({"p": "probability"}, ["value"]), ({"p": "probability", "raw": "logit"}, ["p", "raw"])],
)
def test_outputs_of_numbers_are_chosen(chosen: dict[str, str], expected: list[str], tmp_path: Path) -> None:
    table = pd.DataFrame(FLOATS, columns=["a", "b", "c"])
    estiba.pack(two_outputs(), table, name="two", registry=tmp_path, outputs={"tensors": chosen})
    predictions = estiba.load("two", registry=tmp_path).predict(table)
    answers = dict(zip(["logit", "probability"], session(two_outputs()).run(None, {"x": FLOATS}), strict=True))
    for name, source in zip(expected, chosen.values(), strict=True):
        assert [row[name] for row in predictions] == answers[source][:, 0].tolist()
    assert list(predictions[0]) == expected


def test_an_output_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadProject, match="has no output of numbers 'prob'"):
        estiba.pack(two_outputs(), ROWS, name="two", registry=tmp_path, outputs={"tensors": {"p": "prob"}})


def test_a_file_that_takes_one_row_at_a_time_says_how_to_pack_it(tmp_path: Path) -> None:
    with pytest.raises(EstibaError, match="exactly 1 row at a time") as caught:
        estiba.pack(two_outputs(1), ROWS, name="one", registry=tmp_path)
    assert "as arrays, in a .npy or .npz file" in str(caught.value.hint)
