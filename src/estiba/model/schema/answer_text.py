"""Describe the parts of a prediction in words: names of classes, the threshold, units and bands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from estiba.model.schema.signature import Band, Label, Signature

MAX_LISTED_CLASSES = 12
"""Classes of a model that a sentence lists."""


class PartText(NamedTuple):
    """One part of a prediction.

    Args:
        role: the setting of `[models.NAME.outputs]` that names it, or `band`.
        name: in a prediction.
        text: a sentence about it.
        is_specific: the sentence says more than the part's name and values do.
    """

    role: str
    name: str
    text: str
    is_specific: bool


def part_texts(signature: Signature) -> Iterator[PartText]:
    """The parts of a prediction of a single output, in the order of the prediction; tensors have none."""
    kind, outputs = signature.head.kind, signature.outputs
    if kind == "tensors":
        return
    if kind == "values":
        text = f"The value, in {outputs.unit}." if outputs.unit else "The value."
        yield PartText("value", outputs.value, text, bool(outputs.unit))
    elif signature.label_name:
        yield PartText("label", signature.label_name, *_label(signature))
    if kind == "probabilities":
        if outputs.probability:
            text = f"The probability of {positive_class(signature)}."
            yield PartText("probability", outputs.probability, text, True)
        if outputs.probabilities:
            text = "The probability of each class."
            yield PartText("probabilities", outputs.probabilities, text, False)
    elif kind in ("scores", "outlier") and outputs.score:
        text = "The decision value; not a probability."
        yield PartText("score", outputs.score, text, True)
    for name, band in outputs.bands.items():
        yield PartText("band", name, _band(signature, band), True)


def class_text(signature: Signature, label: Label) -> str:
    """A class with its name, such as `1 (leaves)`; without a name, the class alone."""
    name = signature.outputs.class_names.get(str(label), "")
    return f"{label} ({name})" if name else str(label)


def positive_class(signature: Signature) -> str:
    return class_text(signature, signature.head.classes[signature.positive])


def percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def _label(signature: Signature) -> tuple[str, bool]:
    head, outputs = signature.head, signature.outputs
    if head.clusters:
        text = "The cluster."
        return text, False
    classes = [class_text(signature, label) for label in head.classes]
    if outputs.threshold is not None and len(classes) == 2 and not head.says_label:
        limit = percent(outputs.threshold)
        other = classes[1 - signature.positive]
        text = f"{positive_class(signature)} from a probability of {limit} on, otherwise {other}."
        return text, True
    # Whole sentences, so that each can be translated.
    text = "The class."
    if head.kind == "probabilities" and not head.says_label:
        text = "The most probable class."
    if not outputs.class_names:
        return text, False
    listed = ", ".join(classes[:MAX_LISTED_CLASSES]) + (", ..." if len(classes) > MAX_LISTED_CLASSES else "")
    return f"{text.removesuffix('.')}: {listed}.", True


def _band(signature: Signature, band: Band) -> str:
    unit = f" {signature.outputs.unit}" if signature.outputs.unit else ""
    is_share = signature.head.kind == "probabilities"

    def edge(number: float) -> str:
        return percent(number) if is_share else f"{number:g}{unit}"

    if not band.edges:
        return f"{band.labels[0]}."
    above = [f"{label} from {edge(number)}" for number, label in zip(band.edges, band.labels[1:], strict=True)]
    of = f", by the probability of {positive_class(signature)}" if is_share else ""
    return f"{band.labels[0]} below {edge(band.edges[0])}, {', '.join(above)}{of}."
