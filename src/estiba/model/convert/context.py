"""Define the context of every conversion rule: the graph, the notes, and the way to convert a part of the model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from estiba.model.convert.columns import Columns, NotConvertible, matrix
from estiba.model.convert.graph import INT64, Graph
from estiba.model.estimators.estimator_facts import has_classes, innermost

Want = Literal["proba", "decision", "value", "label"]
"""Which answer: predict_proba (n, classes), decision_function (n, 1 or classes) or predict (n, targets).

`label` is the position of the class that predict says, int64 (n, 1), for which support vector machines have a rule."""


@dataclass
class Context:
    """Passed to all rules. `emit(context, model, columns, want)` converts any estimator, `apply` any transformer."""

    graph: Graph
    emit_with: Callable[[Context, Any, Columns, Want], str]
    apply_with: Callable[[Context, Any, Columns], Columns]
    notes: list[str] = field(default_factory=list)

    def emit(self, model: Any, columns: Columns, want: Want) -> str:
        return self.emit_with(self, model, columns, want)

    def apply(self, transformer: Any, columns: Columns) -> Columns:
        return self.apply_with(self, transformer, columns)

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    def matrix(self, columns: Columns) -> str:
        """The columns as one float64 tensor."""
        return matrix(self.graph, columns.columns)

    def label(self, model: Any, columns: Columns, answer: str = "") -> str:
        """Position of the predicted class, int64 of shape (n, 1), decided as the model's own predict does.

        Args:
            answer: its probabilities or scores by class, where they are in the graph already.
        """
        name = type(_last(model)).__name__
        if name == "Booster":  # XGBoost's multi:softmax
            return self.graph.argmax(self.emit(model, columns, "decision"))
        many = has_classes(model) and len(model.classes_) > 2
        named = name == "OneVsOneClassifier" or name in CENTRES
        if named or (many and name in ("OneVsRestClassifier", "SVC", "NuSVC")):
            return self.emit(model, columns, "label")
        if name in _BAYES:  # predict compares joint log likelihoods, which differ where probabilities are 1 and 0
            return self.graph.argmax(self.emit(model, columns, "decision"))
        if _decides_by_score(model):
            scores = self.emit(model, columns, "decision")
            if len(model.classes_) > 2:
                return self.graph.argmax(scores)
            positive = self.graph.op("Greater", scores, self.graph.const(0.0))
            return self.graph.cast(positive, INT64)
        return self.graph.argmax(answer or self.emit(model, columns, "proba"))


CENTRES = ("KMeans", "MiniBatchKMeans", "AffinityPropagation", "MeanShift")
"""Clusterers whose predict says the nearest centre."""

_BAYES = ("GaussianNB", "MultinomialNB", "ComplementNB", "BernoulliNB")


def _decides_by_score(model: Any) -> bool:
    """Linear and support vector classifiers look at the sign of the score even where they have probabilities."""
    name = type(_last(model)).__name__
    linear = (
        "LogisticRegression",
        "LogisticRegressionCV",
        "SGDClassifier",
        "LinearDiscriminantAnalysis",
        "SVC",
    )
    return name in linear or not hasattr(model, "predict_proba")


def _last(model: Any) -> Any:
    """The estimator that answers, also where columns are selected before it."""
    model = innermost(model)
    return _last(model.estimator_) if type(model).__name__ in ("RFE", "RFECV") else model


def unsupported(model: Any, why: str = "") -> NotConvertible:
    """The error for an estimator, transformer or function that no rule covers, with its library's name."""
    kind = type(model)
    library = kind.__module__.partition(".")[0]
    if library == "sklearn":
        return NotConvertible(f"{kind.__name__} {why or 'has no exact ONNX form'}")
    if not _installed(library):
        return NotConvertible(f"{kind.__name__} is a class of the user's own, which only Python can run")
    owner = f"{library}'" if library.endswith("s") else f"{library}'s"
    return NotConvertible(f"{owner} {kind.__name__} {why or 'has no exact ONNX form'}")


def _installed(library: str) -> bool:
    """Tell whether a module comes from an installed distribution."""
    file = str(getattr(sys.modules.get(library), "__file__", None) or "")
    return "site-packages" in file or "dist-packages" in file
