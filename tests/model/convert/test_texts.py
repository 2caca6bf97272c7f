"""Models of texts answer as their originals, without scikit-learn, and what cannot says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from text_cases import MODELS, numbers, target, texts

import estiba
from estiba.model.artifact.golden_rows import ODD_TEXTS
from estiba.model.engines.exact import ExactTextEngine

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_texts_answers_as_the_original(name: str, tmp_path: Path) -> None:
    sample = texts(600, 1)
    answers = target(sample)
    model = MODELS[name]().fit(sample, (answers == "spam") * 1.0 if name == "ridge" else answers)
    packed = estiba.pack(model, sample, name="texts", registry=tmp_path)
    assert packed.artifact.manifest.engine == "onnx", packed.artifact.manifest.reason
    loaded = estiba.load("texts", registry=tmp_path)
    assert isinstance(loaded.engine, ExactTextEngine)
    assert loaded.signature.names == ("text",)
    asked = [*texts(2000, 2), *ODD_TEXTS]
    predictions = loaded.predict(asked)
    np.testing.assert_allclose(*numbers(predictions, model, asked), rtol=0, atol=1e-12)
    if "label" in predictions[0]:
        assert [p["label"] for p in predictions] == model.predict(asked).tolist()


SEVERAL = {
    "vectorizer inside": lambda: MultiOutputClassifier(make_pipeline(TfidfVectorizer(), LogisticRegression())),
    "vectorizer before": lambda: make_pipeline(CountVectorizer(), MultiOutputClassifier(MultinomialNB())),
    "chain": lambda: make_pipeline(TfidfVectorizer(), ClassifierChain(LogisticRegression())),
    "labels": lambda: OneVsRestClassifier(make_pipeline(TfidfVectorizer(), LogisticRegression())),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_answers_to_one_text(name: str, tmp_path: Path) -> None:
    sample, asked = texts(400, 1), texts(400, 2)
    y = np.column_stack([target(sample) == "spam", [len(text) % 2 for text in sample]]).astype(int)
    model = SEVERAL[name]().fit(sample, y)
    packed = estiba.pack(model, sample, name="texts", registry=tmp_path, outputs={"names": ["spam", "odd"]})
    assert packed.artifact.manifest.engine == "onnx", packed.artifact.manifest.reason
    predictions = estiba.load("texts", registry=tmp_path).predict(asked)
    own = model.predict_proba(asked)
    expected = np.column_stack([each[:, 1] for each in own]) if isinstance(own, list) else own
    got = [[p[output]["probabilities"]["1"] for output in ("spam", "odd")] for p in predictions]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert [[p[output]["label"] for output in ("spam", "odd")] for p in predictions] == model.predict(asked).tolist()


def test_texts_beside_numbers_and_categories(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": [f"customer {i}" for i in range(600)],
            "price": rng.gamma(2, 10, 600),
            "subject": texts(600, 3),
            "shop": pd.Series(rng.choice(["north", "south", "west"], 600), dtype=object),
            "body": texts(600, 4),
        }
    )
    columns = make_column_transformer(
        (TfidfVectorizer(), "body"),
        (OneHotEncoder(handle_unknown="ignore"), ["shop"]),
        (CountVectorizer(binary=True), "subject"),
        (StandardScaler(), ["price"]),
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(frame, target(frame["body"].tolist()))
    packed = estiba.pack(model, frame, name="mixed", registry=tmp_path)
    assert packed.artifact.manifest.engine == "onnx", packed.artifact.manifest.reason
    loaded = estiba.load("mixed", registry=tmp_path)
    asked = frame.assign(body=texts(600, 5), subject=texts(600, 6))
    asked.loc[:20, "shop"] = "elsewhere"
    np.testing.assert_allclose(*numbers(loaded.predict(asked.drop(columns="id")), model, asked), rtol=0, atol=1e-12)


def test_onnx_runtime_answers_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = texts(300, 1)
    model = MODELS["pairs of words"]().fit(sample, target(sample))
    estiba.pack(model, sample, name="texts", registry=tmp_path)
    monkeypatch.setenv("ESTIBA_KERNEL", "off")
    loaded = estiba.load("texts", registry=tmp_path)
    assert loaded.runtime == "ONNX Runtime"
    asked = [*texts(200, 2), *ODD_TEXTS]
    np.testing.assert_allclose(*numbers(loaded.predict(asked), model, asked), rtol=0, atol=1e-12)


def own_tokens(text: str) -> list[str]:
    return text.split()


@pytest.mark.parametrize(
    ("vectorizer", "reason"),
    [
        (TfidfVectorizer(tokenizer=str.split, token_pattern=None), "calls split as its tokenizer"),
        (CountVectorizer(analyzer=str.split), "calls split as its analyzer"),
        (TfidfVectorizer(dtype=np.float32), "counts in float32"),
    ],
)
def test_what_calls_functions_stays_with_python_and_says_why(vectorizer: Any, reason: str, tmp_path: Path) -> None:
    sample = pd.Series(texts(300, 1), name="message")
    model = make_pipeline(vectorizer, LogisticRegression()).fit(sample, target(sample.tolist()))
    packed = estiba.pack(model, sample, name="own", registry=tmp_path)
    assert packed.artifact.manifest.engine == "python"
    assert reason in packed.artifact.manifest.reason
    loaded = estiba.load("own", registry=tmp_path, trust=True)
    asked = pd.Series(texts(50, 2))
    np.testing.assert_allclose(*numbers(loaded.predict(asked), model, asked), rtol=0, atol=0)


def test_the_artifact_grows_as_the_vocabulary_does(tmp_path: Path) -> None:
    sizes = []
    for words in (5_000, 20_000):
        sample = [" ".join(f"term{i}" for i in range(start, start + 100)) for start in range(0, words, 100)]
        model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(sample, np.arange(len(sample)) % 2)
        packed = estiba.pack(model, sample[:20], name=f"v{words}", registry=tmp_path)
        sizes.append(packed.artifact.path.joinpath("model.onnx").stat().st_size)
    assert sizes[1] < 4.3 * sizes[0]
    assert sizes[1] < 800_000
