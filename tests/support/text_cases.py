"""Models of texts, the texts that they learn from, and the target that depends on those."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, MultinomialNB
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MaxAbsScaler, Normalizer, StandardScaler
from sklearn.svm import LinearSVC

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
