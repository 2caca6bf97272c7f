"""Compare the signatures of two versions of a model: can both answer the same requests in the same form?"""

from __future__ import annotations

from collections.abc import Iterator

from estiba.model.schema.signature import Field, Head, Signature

MAX_DIFFERENCES = 5
"""Differences that a message names."""

_NAMES = ("label", "probabilities", "probability", "score", "value", "cluster")


def differences(old: Signature, new: Signature) -> list[str]:
    """Differences that a caller would notice, in words; none where both take the same rows and answer in one form.

    Observed ranges, examples, descriptions, thresholds and words for ranges may differ between versions, and levels of
    a category where an unseen one is no error.
    """
    return [*_fields(old, new), *_answers(old.head, new.head, ""), *_options(old, new)]


def listed(found: list[str]) -> str:
    """Differences as one text."""
    more = len(found) - MAX_DIFFERENCES
    return "; ".join(found[:MAX_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def _fields(old: Signature, new: Signature) -> Iterator[str]:
    before = {field.name: field for field in old.fields}
    after = {field.name: field for field in new.fields}
    yield from (f"the field {name} is gone" for name in before if name not in after)
    yield from (f"the field {name} is new" for name in after if name not in before)
    for name in before:
        if name in after:
            yield from (f"{name}: {text}" for text in _field(before[name], after[name]))


def _field(old: Field, new: Field) -> Iterator[str]:
    if old.kind != new.kind:
        yield f"{new.kind} instead of {old.kind}"
        return
    if old.nullable != new.nullable:
        yield "may be missing" if new.nullable else "may not be missing"
    if old.unseen != new.unseen:
        yield f"an unseen level is {new.unseen} instead of {old.unseen}"
    elif old.unseen == "error" and set(old.levels) != set(new.levels):
        changed = sorted(map(str, set(old.levels) ^ set(new.levels)))
        yield f"other levels ({', '.join(changed[:4])}{', ...' if len(changed) > 4 else ''})"
    for bound in ("minimum", "maximum", "max_length"):
        if getattr(old, bound) != getattr(new, bound):
            yield f"{bound} {_shown(getattr(new, bound))} instead of {_shown(getattr(old, bound))}"
    if (old.shape, old.kind == "tensor" and old.dtype) != (new.shape, new.kind == "tensor" and new.dtype):
        yield "another tensor"


def _shown(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _answers(old: Head, new: Head, where: str) -> Iterator[str]:
    if old.kind != new.kind:
        yield f"{where}answers {new.kind} instead of {old.kind}"
        return
    if old.classes != new.classes:
        yield f"{where}classes {_words(new.classes)} instead of {_words(old.classes)}"
    if old.names != new.names:
        yield f"{where}outputs {_words(new.names)} instead of {_words(old.names)}"
    if [head.name for head in old.heads] != [head.name for head in new.heads]:
        yield f"outputs {_words([h.name for h in new.heads])} instead of {_words([h.name for h in old.heads])}"
    else:
        for before, after in zip(old.heads, new.heads, strict=True):
            yield from _answers(before, after, f"{before.name}: ")
    if old.tensors != new.tensors:
        yield f"{where}other tensors in its answer"


def _words(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, tuple | list) else str(values)


def _options(old: Signature, new: Signature) -> Iterator[str]:
    for name in _NAMES:
        before, after = getattr(old.outputs, name), getattr(new.outputs, name)
        if before != after:
            yield f"its answer has {after or 'no'} {name} instead of {before or 'none'}"
    if old.extra != new.extra:
        yield f"further fields: {new.extra} instead of {old.extra}"
    if old.keep != new.keep:
        yield f"keeps {_words(new.keep) or 'nothing'} instead of {_words(old.keep) or 'nothing'}"
