"""Models of texts answer as their originals, without scikit-learn, and what cannot says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, MultinomialNB
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MaxAbsScaler, Normalizer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

import estiba
from estiba.model.artifact.golden_rows import ODD_TEXTS
from estiba.model.engines.exact import ExactTextEngine

pytestmark = pytest.mark.slow

WORDS = [*(f"w{i}" for i in range(300)), "niño", "the", "and", "café", "straße", "a", "x_y", "日本語", "😀", "İstanbul"]


def texts(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [
        " ".join(rng.choice(WORDS, rng.integers(0, 25))) + str(rng.choice(["", "!!", "  \n"])) for _ in range(count)
    ]


def target(given: list[str]) -> np.ndarray:
    return np.array(["spam" if sum(f"w{k} " in text for k in range(30)) > 1 else "ham" for text in given])


MODELS: dict[str, Any] = {
    "logistic regression": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()),
    "pairs of words": lambda: make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), stop_words="english", sublinear_tf=True, strip_accents="unicode"),
        LogisticRegression(),
    ),
    "characters": lambda: make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)), LogisticRegression()),
    "hashed": lambda: make_pipeline(HashingVectorizer(n_features=2**14), SGDClassifier(loss="log_loss")),
    "multinomial naive Bayes": lambda: make_pipeline(CountVectorizer(), MultinomialNB()),
    "complement naive Bayes": lambda: make_pipeline(TfidfVectorizer(), ComplementNB()),
    "Bernoulli naive Bayes": lambda: make_pipeline(TfidfVectorizer(), BernoulliNB(binarize=0.1)),
    "counts, then weights": lambda: make_pipeline(CountVectorizer(), TfidfTransformer(norm="l1"), LinearSVC()),
    "ridge": lambda: make_pipeline(TfidfVectorizer(), Ridge()),
    "truncated SVD, forest": lambda: make_pipeline(
        TfidfVectorizer(), TruncatedSVD(8, random_state=0), RandomForestClassifier(8, random_state=0)
    ),
    "forest": lambda: make_pipeline(TfidfVectorizer(), RandomForestClassifier(10, random_state=0)),
    "boosting": lambda: make_pipeline(CountVectorizer(), GradientBoostingClassifier(n_estimators=5, random_state=0)),
    "selected words": lambda: make_pipeline(
        TfidfVectorizer(norm=None), SelectKBest(chi2, k=50), Normalizer(), LogisticRegression()
    ),
    "scaled": lambda: make_pipeline(
        CountVectorizer(), MaxAbsScaler(), StandardScaler(with_mean=False), LogisticRegression(max_iter=500)
    ),
    "words and characters": lambda: make_pipeline(
        make_union(TfidfVectorizer(), TfidfVectorizer(analyzer="char", ngram_range=(2, 3))), LogisticRegression()
    ),
    "voting": lambda: VotingClassifier(
        [
            ("a", make_pipeline(TfidfVectorizer(), LogisticRegression())),
            ("b", make_pipeline(TfidfVectorizer(), MultinomialNB())),
        ],
        voting="soft",
    ),
    "calibrated": lambda: CalibratedClassifierCV(make_pipeline(TfidfVectorizer(), LinearSVC())),
}


def numbers(predictions: list[Any], model: Any, asked: Any) -> tuple[np.ndarray, np.ndarray]:
    """The packed model's numbers and the original's."""
    if hasattr(model, "predict_proba"):
        return np.array([list(p["probabilities"].values()) for p in predictions]), model.predict_proba(asked)
    if hasattr(model, "decision_function"):
        return np.array([p["score"] for p in predictions]), model.decision_function(asked)
    return np.array([p["value"] for p in predictions]), model.predict(asked)


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
