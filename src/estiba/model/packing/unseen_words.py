"""Find the fields whose unseen levels a model tells apart, as the coded form has one number for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from estiba.core.errors import BadProject
from estiba.model.coding.coder import Coded
from estiba.model.packing.candidate import Candidate
from estiba.model.schema.infer import FieldOptions
from estiba.model.schema.signature import UNSEEN, Field, Scalar, Signature

_ROWS = 16
_LEVELS = 4
"""Known levels that are asked again in another spelling: the first ones and the last one."""


def word_readers(candidate: Candidate, tolerance: float) -> dict[str, Scalar]:
    """The fields of unseen = "other" of which the original tells unseen levels apart, and a level that shows it.

    Args:
        tolerance: largest accepted difference, absolute below 1 and relative above.
    """
    rows = np.unique(np.linspace(0, len(candidate.coded) - 1, _ROWS).astype(int))
    readers: dict[str, Scalar] = {}
    for i, field in enumerate(candidate.coder.fields):
        if field.unseen == "other" and field.dtype != "category" and (levels := list(_unseen_levels(field))):
            sample = candidate.coded.take(rows)
            matrix = sample.matrix.copy()
            matrix[:, i] = UNSEEN
            level = _told_apart(candidate, i, Coded(matrix, sample.texts), levels, tolerance)
            if level is not None:
                readers[field.name] = level
    return readers


def as_texts(
    signature: Signature, readers: Mapping[str, Scalar], fields: Mapping[str, FieldOptions]
) -> dict[str, FieldOptions]:
    """Options with which these fields are text, so that the model gets the caller's own words.

    Raises:
        BadProject: a level is no word, or the user has said which levels there are.
    """
    options = dict(fields)
    for name, level in readers.items():
        own = options.get(name, FieldOptions())
        if own.levels is not None or not all(isinstance(known, str) for known in signature.field(name).levels):
            raise BadProject(
                f"The model answers unseen values of {name!r} differently, such as {level!r}, and "
                "unseen = 'other' hands it the same value for all of them.",
                hint="Set the field's unseen to 'error' or 'null', or leave its levels away.",
            )
        options[name] = msgspec.structs.replace(own, kind="text", unseen=None)
    return options


def _told_apart(
    candidate: Candidate, column: int, unseen: Coded, levels: list[Scalar], tolerance: float
) -> Scalar | None:
    """The first unseen level with another answer than the word that stands for all of them; None without one."""
    import pandas as pd

    field, frame = candidate.coder.fields[column], candidate.coder.frame(unseen)
    expected = candidate.ask(frame)
    for level in levels:
        asked = frame.copy()
        values: Any = [level] * len(frame)
        asked[field.source] = pd.Series(values, index=frame.index, dtype=frame[field.source].dtype)
        try:
            same = np.allclose(candidate.ask(asked), expected, rtol=tolerance, atol=tolerance, equal_nan=True)
        except Exception:  # a library's own error for this word and not for another is an answer too
            same = False
        if not same:
            return level
    return None


def _unseen_levels(field: Field) -> Iterator[Scalar]:
    """Levels that the field does not have: known words in another spelling and others, or numbers out of range."""
    known = set(field.levels)
    texts = [level for level in field.levels if isinstance(level, str)]
    if len(texts) == len(field.levels):
        spelled = [*texts[: _LEVELS - 1], *texts[-1:]]
        forms = [(w.upper(), w.lower(), w.title(), f" {w} ", f"{w} {w}", w[:-1], f"{w}s") for w in spelled]
        unseen = dict.fromkeys([*(form for group in forms for form in group), "q7", "zxcvb unknown", "0"])
        yield from (word for word in unseen if word.strip() and word not in known)
    elif not texts and not any(isinstance(level, bool) for level in field.levels):
        largest = max(int(level) for level in field.levels)
        yield from (largest + 2, largest + 1000)
