"""Compare the label of a prediction with the answer, as the signature of its version says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from estiba.core.suggest import did_you_mean
from estiba.model.schema.signature import Label, Signature


class AnswerForm(msgspec.Struct, frozen=True, omit_defaults=True):
    """The parts of a version's answers that labels are compared with.

    Args:
        kind: `class`, `value`, or `none` where no label can be compared, with the `reason`.
        name: the part of an answer that holds the predicted class or value.
        classes: of a classifier.
        positive: text of the class that `probability` is of; empty where an answer has no probabilities.
        probability: path of that probability in an answer.
    """

    kind: Literal["class", "value", "none"]
    name: str = ""
    classes: tuple[Label, ...] = ()
    positive: str = ""
    probability: tuple[str, ...] = ()
    reason: str = ""

    def label(self, given: Any) -> tuple[Any, str]:
        """A given label as the model writes it, and otherwise the sentence that says why it is impossible."""
        if self.kind == "none":
            return None, self.reason
        if self.kind == "class":
            by_text = {_text(each): each for each in self.classes}
            if _text(given) in by_text:
                return by_text[_text(given)], ""
            known = ", ".join(list(by_text)[:10]) + (", ..." if len(by_text) > 10 else "")
            suggestion = did_you_mean(str(given), list(by_text)) if isinstance(given, str) else "."
            return None, f"{given!r} is no class of the model{suggestion} Classes: {known}."
        try:
            value = float("nan") if isinstance(given, bool) else float(given)
        except ValueError:
            value = float("nan")
        return (value, "") if math.isfinite(value) else (None, f"{given!r} is no number, and the model predicts one.")

    def predicted(self, answer: Mapping[str, Any]) -> tuple[Any, float | None]:
        """The class or value that an answer holds, and the probability of the positive class; None if it has none."""
        probability: Any = answer
        for name in self.probability:
            probability = probability.get(name) if isinstance(probability, Mapping) else None
        return answer.get(self.name), probability if self.probability else None


def answer_form(signature: Signature) -> AnswerForm:
    """The parts of a model's answers that labels can be compared with."""
    outputs, head = signature.outputs, signature.head
    if signature.is_tensors or not signature.is_single:
        return AnswerForm("none", reason="The model has several answers, which labels cannot be compared with yet.")
    if head.kind == "values":
        return AnswerForm("value", outputs.value)
    if head.clusters or not signature.label_name:
        return AnswerForm("none", reason="The model's answer has no class that a label could be compared with.")
    positive = str(head.classes[signature.positive]) if signature.positive >= 0 else ""
    path: tuple[str, ...] = ()
    if head.kind == "probabilities" and positive:
        if outputs.probability:
            path = (outputs.probability,)
        elif outputs.probabilities:
            path = (outputs.probabilities, positive)
    return AnswerForm("class", signature.label_name, head.classes, positive, path)


def _text(label: Any) -> str:
    """A class as text: callers may write 1, 1.0 or "1" for the same one, and true for True."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label).lower() if isinstance(label, bool) else str(label)
