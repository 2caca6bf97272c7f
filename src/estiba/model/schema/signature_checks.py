"""Check that fields, outputs and settings of a signature contradict neither each other nor the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from estiba.core.errors import BadProject
from estiba.core.suggest import did_you_mean
from estiba.model.schema.signature import Field, Head, Signature, is_unsafe, shown_parts
from estiba.model.schema.tensor_types import check_tensor


def validated(signature: Signature) -> Signature:
    """Return the signature itself, or raise BadProject where it contradicts itself."""
    check_sound(signature)
    _check_distinct(signature)
    _check_parts(signature)
    _check_explanations(signature)
    return signature


def check_sound(signature: Signature) -> None:
    """Raise BadProject for a signature that no model can be served with, also for one from an artifact."""
    if name := _twice(signature.names):
        raise BadProject(f"The field {name!r} appears twice in the signature.")
    for field in signature.fields:
        if is_unsafe(field.name):
            raise BadProject(
                f"The field {field.name!r} has a quote, a backslash or a control character in its name, or none.",
                hint="Rename the column before training.",
            )
        if field.kind == "category" and not field.levels:
            raise BadProject(f"The category field {field.name!r} has no levels.")
        if field.unseen == "null" and not field.nullable:
            raise BadProject(
                f"The field {field.name!r} has unseen = 'null' but may not be missing.",
                hint="Set nullable = true, or choose 'error' or 'other'.",
            )
        if field.max_length is not None and (field.kind != "text" or field.max_length < 1):
            raise BadProject(
                f"The field {field.name!r} has max_length {field.max_length}.",
                hint="It is a number of characters from 1 on, and for text fields alone.",
            )
        low, high = field.minimum, field.maximum
        if low is not None and high is not None and low > high:
            raise BadProject(f"The field {field.name!r} has minimum {low:g} above maximum {high:g}.")
        _check_tensor_field(signature, field)
    for head in signature.head.heads or (signature.head,):
        _check_head(head)
    _check_names(signature)
    for output in signature.each:
        _check_output(output.signature, f" for the output {output.name!r}" if output.name else "")
    _check_keep(signature)


_CLASSES = {"probabilities": (1, None), "scores": (2, None), "outlier": (2, 2), "label": (1, None)}
"""By kind of head, the fewest and most classes that it has."""


def _check_head(head: Head) -> None:
    """Raise BadProject for a head whose classes, names or tensors are not those of its kind, or not unique."""
    fewest, most = _CLASSES.get(head.kind, (0, 0))
    count = len(head.classes)
    if count < fewest or (most is not None and count > most):
        raise BadProject(f"The model answers {head.kind}, and has {count} classes.")
    _refuse_class(_twice(f"{type(label).__name__} {label}" for label in head.classes).partition(" ")[2])
    if (head.kind == "values") != bool(head.names):
        raise BadProject(f"The model answers {head.kind}, and has {len(head.names)} names for values.")
    if (head.kind == "tensors") != bool(head.tensors):
        raise BadProject(f"The model answers {head.kind}, and has {len(head.tensors)} tensors.")
    if name := _twice(head.names) or _twice(tensor.name for tensor in head.tensors):
        raise BadProject(f"Two outputs of the model are called {name!r}.")
    if (head.labelled and head.kind not in ("probabilities", "scores", "outlier")) or (head.kind == "several") != bool(
        head.heads
    ):
        raise BadProject(f"The parts of the model's answer are not those of {head.kind}.")


def _refuse_class(twice: str) -> None:
    if twice:
        raise BadProject(f"The class {twice!r} appears twice among those of the model.")


def _check_distinct(signature: Signature) -> None:
    """Refuse levels, and names of classes such as 1 and "1", that come twice. Older artifacts with them are served."""
    for field in signature.fields:
        if level := _twice(map(str, field.levels)) if len(set(field.levels)) < len(field.levels) else "":
            raise BadProject(f"The category field {field.name!r} has the level {level!r} twice.")
    for head in signature.head.heads or (signature.head,):
        _refuse_class(_twice(map(str, head.classes)))


def _check_parts(signature: Signature) -> None:
    """Refuse two outputs with a part of the same name in tables and tensors: `a.label` of `a`, and `a.label`."""
    parts = [part for output in signature.each for part in _part_names(output.flat)]
    if part := _twice(parts):
        raise BadProject(
            f"Two outputs of the model have a part called {part!r} in tables and tensors.",
            hint="Rename an output with outputs.names.",
        )


def _check_keep(signature: Signature) -> None:
    taken = {part for output in signature.each for part in (output.name, *_part_names(output.flat))}
    taken |= {tensor.name for tensor in signature.head.tensors}
    for name in signature.keep:
        if name in signature.names:
            raise BadProject(
                f"keep names {name!r}, which is a field of the model.",
                hint="Remove it from keep, which is for values that are not inputs of the model.",
            )
        if is_unsafe(name):
            reason = "has a quote, a backslash or a control character, or is empty"
            raise BadProject(f"A name in keep {reason}: {name!r}.", hint="Give it another name.")
        if signature.keep.count(name) > 1 or name in taken:
            reason = "is an output of the model" if name in taken else "appears twice"
            raise BadProject(f"A name in keep {reason}: {name!r}.", hint="Give it another name.")


def _check_tensor_field(signature: Signature, field: Field) -> None:
    if (field.kind == "tensor") != signature.is_tensors:
        raise BadProject(f"The field {field.name!r} is of kind {field.kind}; all fields are tensors, or none is.")
    if signature.is_tensors:
        if field.nullable or field.minimum is not None or field.maximum is not None:
            raise BadProject(f"The field {field.name!r} is a tensor, which cannot be missing and has no range.")
        check_tensor(field.name, field.dtype, field.shape, field.image, field.max_elements)


def _check_names(signature: Signature) -> None:
    names = [output.name for output in signature.each]
    if signature.outputs.names:
        raise BadProject(
            "outputs.names is for a model of several outputs, and this one has one.",
            hint="Name the answer of a single output with outputs.value, outputs.label or outputs.cluster.",
        )
    if unknown := [name for name in signature.outputs.each if name not in names or signature.is_single]:
        known = "it has one, without a name" if signature.is_single else f"its outputs are: {', '.join(names)}"
        raise BadProject(f"outputs.each.{unknown[0]}: the model has no output of this name; {known}.")
    for name in () if signature.is_single else names:
        if not name or names.count(name) > 1:
            raise BadProject(
                f"Two outputs of the model are called {name!r}." if name else "An output of the model has no name.",
                hint="Name them with outputs.names, or with the columns of y.",
            )
    if any(head.kind == "several" or len(head.names) > 1 for head in signature.head.heads):
        raise BadProject("One of several outputs of a model has several outputs itself.")


def _twice(names: Iterable[str]) -> str:
    """The first name that appears twice; empty if none does."""
    return next((name for name, count in Counter(names).items() if count > 1), "")


def _part_names(signature: Signature) -> set[str]:
    """The names of the parts of a prediction of a single output."""
    return {getattr(signature.outputs, part) for part in shown_parts(signature)} | set(signature.outputs.bands)


def _check_output(signature: Signature, where: str) -> None:
    """Raise BadProject where the settings of an output contradict what the model answers."""
    head, outputs = signature.head, signature.outputs
    classes = head.classes
    if outputs.positive is not None and str(outputs.positive) not in {str(c) for c in classes}:
        raise BadProject(
            f"outputs.positive is {outputs.positive!r}{where}, which is not a class of this model.",
            hint=f"Its classes are: {', '.join(map(str, classes)) or 'none'}.",
        )
    if outputs.threshold is not None and not 0 <= outputs.threshold <= 1:
        raise BadProject(f"outputs.threshold is a probability from 0 to 1, not {outputs.threshold:g}.")
    needs_positive = outputs.threshold is not None or outputs.probability
    if needs_positive and (head.kind != "probabilities" or signature.positive < 0):
        raise BadProject(
            f"outputs.threshold and outputs.probability need a model with probabilities and a positive class{where}.",
            hint=_hint_about_positive(head, where),
        )
    for name, band in outputs.bands.items():
        if len(band.labels) != len(band.edges) + 1 or list(band.edges) != sorted(set(band.edges)):
            raise BadProject(
                f"outputs.bands.{name} needs rising edges and one label more than edges, "
                f"not {len(band.edges)} edges and {len(band.labels)} labels."
            )
        if head.kind != "values" and (head.kind != "probabilities" or signature.positive < 0):
            raise BadProject(f"outputs.bands.{name} needs a positive class or a single value{where}.")
    if where and not shown_parts(signature) and not outputs.bands:
        raise BadProject(f"The settings of outputs leave nothing to show{where}.")


def _check_explanations(signature: Signature) -> None:
    """Refuse the name of a class that no output has, and a unit where no output is a value."""
    outputs = [output.signature for output in signature.each]
    classes = list(dict.fromkeys(str(label) for output in outputs for label in output.head.classes))
    for name in dict.fromkeys(name for output in outputs for name in output.outputs.class_names):
        if name not in classes:
            raise BadProject(
                f"outputs.class_names names {name!r}, which is not a class of this model{did_you_mean(name, classes)}",
                hint=f"Its classes are: {', '.join(classes) or 'none'}.",
            )
    unit = next((output.outputs.unit for output in outputs if output.outputs.unit), "")
    if unit and not any(output.head.kind == "values" for output in outputs):
        raise BadProject(
            f"outputs.unit is {unit!r}, and the model predicts classes, not a value.",
            hint="Remove it. outputs.class_names gives classes a name.",
        )


def _hint_about_positive(head: Head, where: str) -> str:
    if where:
        return "Set them in outputs.each for the outputs that have one."
    if head.kind != "probabilities":
        return "Leave them away: this model answers no probabilities."
    return "Set outputs.positive to the class that they refer to."
