"""Models packed from a notebook are converted and proven, or fall back to the original, and load again."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PowerTransformer, SplineTransformer

import estiba
from estiba.core.errors import BadArtifact, BadProject, EstibaError, NotFound, ParityError
from estiba.model.convert import NotConvertible
from estiba.model.registry.registry import open_registry

ROWS = pd.DataFrame(
    {"age": [20, 35, 50, 65] * 15, "plan": ["basic", "pro", "pro"] * 20, "balance": np.linspace(-1, 1, 60)}
)
TARGET = (ROWS["age"] + 20 * (ROWS["plan"] == "pro") > 55).map({True: "leaves", False: "stays"})


def forest() -> Any:
    encoded = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan"]), remainder="passthrough")
    return make_pipeline(encoded, RandomForestClassifier(10, random_state=0)).fit(ROWS, TARGET)


@pytest.fixture
def packed(tmp_path: Path) -> estiba.Packed:
    return estiba.pack(
        forest(), ROWS, name="churn", registry=tmp_path, metrics={"accuracy": 0.9}, aliases=["production"]
    )


def test_it_is_converted_proven_and_registered(packed: estiba.Packed, tmp_path: Path) -> None:
    manifest = packed.artifact.manifest
    assert manifest.engine == "onnx"
    assert manifest.parity is not None
    assert manifest.parity.labels_equal == manifest.parity.labels_total > 60
    assert max(manifest.parity.max_abs_error.values()) < 1e-12
    assert str(packed).startswith("churn@1 sha256:")
    assert open_registry(tmp_path).aliases("churn") == {"production": 1}


def test_it_predicts_what_the_original_predicts(packed: estiba.Packed, tmp_path: Path) -> None:
    model = estiba.load("churn@production", registry=tmp_path)
    answers = model.predict(ROWS)
    assert [answer["label"] for answer in answers] == list(forest().predict(ROWS))
    shuffled = ROWS[["balance", "plan", "age"]]
    assert model.predict(shuffled) == answers
    assert model.predict({"age": 30, "plan": "never seen", "balance": 0})[0]["label"] in ("leaves", "stays")


@pytest.mark.slow
def test_the_same_inputs_give_the_same_digest(packed: estiba.Packed, tmp_path: Path) -> None:
    again = estiba.pack(forest(), ROWS, name="churn", registry=tmp_path / "other", metrics={"accuracy": 0.9})
    assert again.artifact.digest == packed.artifact.digest
    same = estiba.pack(forest(), ROWS, name="churn", registry=tmp_path, metrics={"accuracy": 0.9})
    assert (same.version, same.new) == (1, False)


@pytest.mark.slow
def test_what_cannot_be_converted_falls_back_and_says_why(tmp_path: Path) -> None:
    rows = ROWS[["age", "balance"]]
    model = make_pipeline(SplineTransformer(extrapolation="periodic"), LogisticRegression()).fit(rows, TARGET)
    packed = estiba.pack(model, rows, name="splines", registry=tmp_path)
    assert packed.artifact.manifest.engine == "python"
    assert "SplineTransformer" in packed.artifact.manifest.reason
    loaded = estiba.load("splines", registry=tmp_path)
    assert [a["label"] for a in loaded.predict(rows)] == list(model.predict(rows))
    with pytest.raises(NotConvertible, match="SplineTransformer"):
        estiba.pack(model, rows, name="splines", registry=tmp_path, engine="onnx")


@pytest.mark.slow
def test_arrays_get_names_and_several_targets_keep_theirs(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 2))
    model = LinearRegression().fit(rows, rows @ np.array([[1.0, 2.0], [3.0, 4.0]]))
    packed = estiba.pack(model, rows, name="two", registry=tmp_path)
    assert packed.artifact.manifest.signature.names == ("x0", "x1")
    answer = estiba.load("two", registry=tmp_path).predict({"x0": 1, "x1": 1})[0]
    assert list(answer.values()) == pytest.approx([4.0, 6.0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "Not A Name"}, "Not A Name"),
        ({"fields": {"age": {"minimun": 1}}}, "minimun"),
        ({"fields": {"agee": {}}}, "no field 'agee'"),
        ({"fields": {"age": {"minimum": 30}}}, "#/records/0/age: must be at least 30"),
        ({"outputs": {"threshold": 0.3, "positive": "maybe"}}, "'maybe', which is not a class"),
        ({"metrics": {"accuracy": float("nan")}}, "finite"),
    ],
)
def test_a_mistake_is_a_sentence_and_leaves_the_registry_alone(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(EstibaError, match=message):
        estiba.pack(forest(), ROWS, **{"name": "churn", "registry": tmp_path, **arguments})
    assert open_registry(tmp_path).list() == ()


def test_an_empty_sample_and_what_is_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadProject, match="no rows"):
        estiba.pack(forest(), ROWS.head(0), name="churn", registry=tmp_path)
    with pytest.raises(EstibaError, match="predict"):
        estiba.pack(object(), ROWS, name="churn", registry=tmp_path)


def test_a_model_that_cannot_do_what_its_signature_allows(tmp_path: Path) -> None:
    model = LinearRegression().fit(ROWS[["age"]], ROWS["balance"])
    with pytest.raises((BadProject, ParityError)):
        estiba.pack(
            model, ROWS[["age"]], name="nan", registry=tmp_path, engine="python", fields={"age": {"nullable": True}}
        )


@pytest.mark.slow
def test_the_card_says_what_matters(packed: estiba.Packed, tmp_path: Path) -> None:
    card = (packed.artifact.path / "card.md").read_text()
    for part in ("# churn", "accuracy", "basic, pro", "labels equal", "scikit-learn"):
        assert part in card
    source = estiba.Source(name="made up", rows=60, simulated=True)
    made_up = estiba.pack(forest(), ROWS, name="churn", registry=tmp_path, source=source)
    assert "SIMULATED DATA" in (made_up.artifact.path / "card.md").read_text()


@pytest.mark.slow
def test_a_damaged_artifact_is_never_loaded(packed: estiba.Packed, tmp_path: Path) -> None:
    model = packed.artifact.path / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(BadArtifact, match=r"model\.onnx"):
        estiba.load("churn", registry=tmp_path)


@pytest.mark.slow
def test_other_library_versions_must_prove_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A python-engine model packed with another scikit-learn loads where its golden rows agree, and says so."""
    from estiba.model.estimators import saved_files

    rows = ROWS[["age", "balance"]]
    model = make_pipeline(PowerTransformer(), LogisticRegression()).fit(rows, TARGET)
    real = saved_files.libraries
    monkeypatch.setattr(saved_files, "libraries", lambda *a, **k: {**real(*a, **k), "scikit-learn": "0.1"})
    estiba.pack(model, rows, name="old", registry=tmp_path, engine="python")
    loaded = estiba.load("old", registry=tmp_path)
    assert "scikit-learn 0.1 packed" in loaded.notes[0]
    assert "golden rows still agree" in loaded.notes[0]


@pytest.mark.slow
def test_other_library_versions_that_answer_otherwise_are_refused(tmp_path: Path) -> None:
    rows = ROWS[["age", "balance"]]
    model = make_pipeline(PowerTransformer(), LogisticRegression()).fit(rows, TARGET)
    path = estiba.pack(model, rows, name="old", registry=tmp_path, engine="python").artifact.path
    _forge(path, {"scikit-learn": "0.1"}, shift=0.25)
    digest = next(p for p in path.parent.iterdir() if p != path)
    with pytest.raises(ParityError, match=r"scikit-learn 0\.1 packed.*golden row"):
        estiba.load(digest)


def _forge(path: Path, libraries: dict[str, str], shift: float) -> None:
    """The same artifact as if packed by other libraries, whose answers were others."""
    import msgspec

    from estiba.model.artifact.artifact import read, write

    made = read(path)
    golden = json.loads(made.file("golden.json").read_bytes())
    golden["answers"] = [[a - shift, b + shift] for a, b in golden["answers"]]
    files = {entry.path: made.file(entry.path).read_bytes() for entry in made.manifest.files}
    files["golden.json"] = json.dumps(golden).encode()
    manifest = msgspec.structs.replace(made.manifest, libraries={**made.manifest.libraries, **libraries}, files=())
    write(path.parent, manifest, files)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nobody"):
        estiba.load("nobody", registry=tmp_path)


def test_an_estimator_with_a_threshold_of_its_own_keeps_its_labels(tmp_path: Path) -> None:
    rows = ROWS[["age", "balance"]]
    model = FixedThresholdClassifier(LogisticRegression(), threshold=0.2).fit(rows, TARGET)
    packed = estiba.pack(model, rows, name="fixed", registry=tmp_path)
    assert packed.artifact.manifest.signature.outputs.threshold == 0.2
    assert packed.notes == ()
    answers = estiba.load("fixed", registry=tmp_path).predict(rows)
    assert [answer["label"] for answer in answers] == list(model.predict(rows))


class Contrary(LogisticRegression):
    """Predicts the less probable class."""

    def predict(self, X: Any) -> Any:
        return self.classes_[np.argmin(self.predict_proba(X), axis=1)]


@pytest.mark.slow
def test_labels_are_those_of_predict_whatever_the_probabilities_are(tmp_path: Path) -> None:
    from estiba.model.packing.candidate import prepare
    from estiba.model.packing.training_result import Trained
    from estiba.model.schema.signature import Outputs

    model = Contrary().fit(ROWS[["age"]], TARGET)
    made = prepare(Trained(model=model, sample=ROWS[["age"]]), {}, Outputs())
    assert made.signature.head.labelled
    assert [made.signature.head.classes[int(row[-1])] for row in made.ask(ROWS[["age"]])] == list(
        model.predict(ROWS[["age"]])
    )
    scored = FixedThresholdClassifier(LogisticRegression(), threshold=-1e9, response_method="decision_function")
    packed = estiba.pack(scored.fit(ROWS[["age"]], TARGET), ROWS[["age"]], name="scored", registry=tmp_path)
    assert "predict says another class than its probabilities or scores on" in packed.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "ONNX"}, "engine is 'ONNX'"),
        ({"tolerance": -1}, "tolerance is -1"),
        ({"threshold": 3}, "from 0 to 1"),
        ({"metrics": {"auc": "good"}}, "'auc' is 'good'"),
    ],
)
def test_more_mistakes_are_sentences(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadProject, match=message):
        estiba.pack(forest(), ROWS, name="churn", registry=tmp_path, **arguments)


def test_column_names_that_come_twice_and_models_of_one_class(tmp_path: Path) -> None:
    twice = pd.concat([ROWS[["age"]], ROWS[["age"]]], axis=1)
    with pytest.raises(BadProject, match="two columns"):
        estiba.pack(LinearRegression().fit(twice.to_numpy(), ROWS["balance"]), twice, name="twice", registry=tmp_path)
    one = RandomForestClassifier(2).fit(ROWS[["age"]], ["same"] * len(ROWS))
    with pytest.raises(EstibaError, match="one class only"):
        estiba.pack(one, ROWS[["age"]], name="one", registry=tmp_path)


@pytest.mark.slow
def test_a_text_model_falls_back_and_one_alias_may_be_a_string(tmp_path: Path) -> None:
    texts = pd.DataFrame({"text": ["good stuff", "bad stuff"] * 50})
    counts = CountVectorizer(dtype=np.float32)
    model = make_pipeline(make_column_transformer((counts, "text")), LogisticRegression())
    model.fit(texts, [1, 0] * 50)
    packed = estiba.pack(model, texts, name="text", registry=tmp_path, aliases="production")  # type: ignore[arg-type]
    assert packed.artifact.manifest.engine == "python"
    assert open_registry(tmp_path).aliases("text") == {"production": 1}
    assert [a["label"] for a in estiba.load("text", registry=tmp_path).predict(texts)] == [1, 0] * 50


@pytest.mark.slow
def test_scripts_and_notebooks_are_shown_engine_parity_reason_and_notes(
    packed: estiba.Packed, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, engine, parity = packed.report.splitlines()
    assert first == f"churn@1 sha256:{packed.artifact.digest[:12]}"
    assert engine == "engine: onnx"
    assert re.fullmatch(
        r"parity: largest difference .*, (\d+) of \1 labels equal \(\d+ golden rows and 60 rows of the sample\)", parity
    )
    model = FixedThresholdClassifier(LogisticRegression(), threshold=-1e9, response_method="decision_function")
    rows = ROWS[["age"]]
    other = estiba.pack(model.fit(rows, TARGET), rows, name="python", registry=tmp_path, engine="python")
    assert other.report.splitlines()[3] == "reason: The project asks for the python engine."
    assert other.report.splitlines()[4].startswith("note: The model's own predict says another class")
    assert (*capsys.readouterr(), repr(other)) == ("", f"{other.report}\n", str(other))
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    estiba.pack(model, rows, name="python", registry=tmp_path, engine="python")
    quiet = estiba.pack(model, rows, name="python", registry=tmp_path, engine="python", quiet=True)
    assert (*capsys.readouterr(), repr(quiet)) == (f"{other.report}\n", "", other.report)


def test_extra_and_keep_are_packed_into_the_signature(tmp_path: Path) -> None:
    X = pd.DataFrame({"a": np.arange(60.0) % 7, "b": np.arange(60.0) % 11})
    model = LinearRegression().fit(X, X.a)
    packed = estiba.pack(model, X, name="kept", registry=tmp_path, extra="ignore", keep=["id"])
    assert packed.artifact.manifest.signature.extra == "ignore"
    answer = estiba.load("kept", registry=tmp_path).predict({"a": 3.0, "b": 1.0, "id": "C-7", "more": 1})
    assert list(answer[0]) == ["id", "value"]
    assert answer[0]["id"] == "C-7"
    with pytest.raises(BadProject, match="'a', which is a field"):
        estiba.pack(model, X, name="kept", registry=tmp_path, keep=["a"])
    with pytest.raises(BadProject, match="Invalid enum value"):
        estiba.pack(model, X, name="kept", registry=tmp_path, extra="drop")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_notebook_shows_a_table_unless_the_report_was_printed(packed: estiba.Packed) -> None:
    import dataclasses

    assert packed._repr_html_() is None
    table = dataclasses.replace(packed, shown=False, notes=("a < b",))._repr_html_() or ""
    assert table.startswith("<p>churn@1 sha256:")
    assert "<tr><th>engine</th><td>onnx</td></tr>" in table
    assert "<td>a &lt; b</td>" in table
