"""Find out what a fitted estimator does with columns of its sample: reads, encodes, imputes, takes them as text.

Source: the fitted attributes of scikit-learn's Pipeline, ColumnTransformer, FeatureUnion and meta-estimators.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from estiba.model.schema.signature import Scalar, Unseen
from estiba.model.schema.text_input import takes_texts

_OF_ONE = ("regressor_", "best_estimator_")
"""Attributes of wrappers with the fitted estimator that sees the same columns."""

_OF_ONE_BY_CLASS = ("FixedThresholdClassifier", "TunedThresholdClassifierCV", "SelfTrainingClassifier")
_OF_SEVERAL = """
    VotingClassifier VotingRegressor StackingClassifier StackingRegressor MultiOutputClassifier MultiOutputRegressor
    OneVsRestClassifier
"""


class KnownLevels(msgspec.Struct, frozen=True):
    """The levels of a column that an encoder inside the estimator knows."""

    levels: tuple[Any, ...]
    unseen: Unseen
    missing: bool
    missing_is_none: bool


class _Part(NamedTuple):
    """A transformer or estimator that sees columns of the sample as they are.

    Args:
        before: transformers that saw them before, and left each column in its place.
        alone: it was given one column as such, not as a table of one.
    """

    part: Any
    columns: list[str]
    before: tuple[Any, ...] = ()
    alone: bool = False


def read_columns(model: Any, columns: Sequence[str]) -> list[str]:
    """The columns that the estimator reads, as far as it tells; all of them where it does not."""
    read: set[str] = set()
    for part, seen, *_ in _parts(model, list(columns)):
        own = _own_names(part)
        read |= set(own) if own and set(own) <= set(seen) else set(seen)
    return [name for name in columns if name in read]


def known_levels(model: Any, columns: Sequence[str]) -> dict[str, KnownLevels]:
    """Levels and rules of the encoders inside the estimator for columns that they see as they are."""
    found: dict[str, KnownLevels] = {}
    for part, seen, *_ in _parts(model, list(columns)):
        if hasattr(part, "categories_") and len(part.categories_) == len(seen):
            for name, levels in zip(seen, part.categories_, strict=True):
                known = _known(part, levels)
                found[name] = _both(found[name], known) if name in found else known
    return found


def text_columns(model: Any, columns: Sequence[str]) -> frozenset[str]:
    """The columns that are text for the estimator: a vectorizer's, and those of an encoder that knows texts alone."""
    encoded = {
        name
        for name, known in known_levels(model, columns).items()
        if known.levels and all(isinstance(level, str) for level in known.levels)
    }
    return frozenset(encoded) | vectorized_columns(model, columns)


def vectorized_columns(model: Any, columns: Sequence[str]) -> frozenset[str]:
    """The columns whose words a vectorizer counts or hashes."""
    if takes_texts(model):
        return frozenset(columns)
    return frozenset(
        seen[0]
        for part, seen, _, alone in _parts(model, list(columns))
        if alone and hasattr(part, "build_analyzer") and hasattr(part, "ngram_range")
    )


def imputed_columns(model: Any, columns: Sequence[str]) -> list[str]:
    """The columns of which whatever reads them sees missing values filled in."""
    filled: dict[str, bool] = {}
    for part, seen, before, _ in _parts(model, list(columns)):
        for name in seen:
            filled[name] = filled.get(name, True) and any(map(_fills_nan, (*before, part)))
    return [name for name in columns if filled.get(name)]


def _parts(model: Any, columns: list[str], before: tuple[Any, ...] = (), alone: bool = False) -> Iterator[_Part]:
    if hasattr(model, "steps"):
        yield from _of_pipeline(model, columns, before, alone)
        return
    branches = _branches(model, columns, alone)
    if branches is None:
        yield _Part(model, columns, before, alone)
        return
    for part, chosen, single in branches:
        if not isinstance(part, str):
            yield from _parts(part, chosen, before, single)
        elif part == "passthrough":
            yield _Part(part, chosen, before, single)


def _of_pipeline(model: Any, columns: list[str], before: tuple[Any, ...], alone: bool) -> Iterator[_Part]:
    """The parts of a Pipeline: what comes behind a step that changes the columns does not see them."""
    for _, step in model.steps:
        if step is None or step == "passthrough" or hasattr(step, "fit_resample"):
            continue
        if not _keeps_columns(step):
            yield from _parts(step, columns, before, alone)
            return
        before = (*before, step)
    yield _Part(before[-1] if before else model, columns, before, alone)


def _branches(model: Any, columns: list[str], alone: bool) -> list[tuple[Any, list[str], bool]] | None:
    """The fitted parts of an estimator with the columns that each sees; None for one that has no such parts."""
    if hasattr(model, "transformers_"):
        inputs = [str(c) for c in getattr(model, "feature_names_in_", columns)]
        return [
            (part, _names(chosen, inputs), isinstance(chosen, str | int) or hasattr(chosen, "item"))
            for _, part, chosen in model.transformers_
        ]
    if hasattr(model, "transformer_list"):  # a FeatureUnion
        return [(part, columns, alone) for _, part in model.transformer_list]
    if type(model).__name__ in _OF_SEVERAL.split():
        rest = ["passthrough"] if getattr(model, "passthrough", False) else []
        return [(part, columns, False) for part in (*model.estimators_, *rest)]
    calibrated = getattr(model, "calibrated_classifiers_", None)
    if calibrated:  # an encoder inside each member knows the levels of its own folds
        return [(member.estimator, columns, False) for member in calibrated]
    inner = _inner(model)
    return None if inner is None else [(inner, columns, False)]


def _inner(model: Any) -> Any:
    """The fitted estimator in a wrapper that hands it the same columns; None for all else."""
    for name in _OF_ONE:
        if hasattr(model, name):
            return getattr(model, name)
    if type(model).__name__ in _OF_ONE_BY_CLASS:
        return getattr(model, "estimator_", None)
    return None


def _keeps_columns(step: Any) -> bool:
    """Tell whether a transformer leaves each column in its place, with the values that it has."""
    return type(step).__name__ == "SimpleImputer" and not step.add_indicator


def _fills_nan(part: Any) -> bool:
    missing = getattr(part, "missing_values", None)
    return type(part).__name__.endswith("Imputer") and (missing is None or missing != missing)


def _own_names(part: Any) -> list[str]:
    """The column names that an estimator itself was fitted on; empty where it does not know them."""
    for attribute in ("feature_names_in_", "feature_names_", "feature_name_", "feature_names", "feature_name"):
        names = getattr(part, attribute, None)
        names = names() if callable(names) else names
        if names is not None and len(names):
            return [str(name) for name in names]
    return []


def _names(chosen: Any, inputs: Sequence[str]) -> list[str]:
    """Column names that a ColumnTransformer was told as names, positions, a mask or a slice."""
    if isinstance(chosen, str):
        return [chosen]
    if isinstance(chosen, slice):
        return list(inputs[chosen]) if not isinstance(chosen.start, str) else _between(chosen, inputs)
    if isinstance(chosen, int) or (hasattr(chosen, "item") and not getattr(chosen, "ndim", 1)):
        return [inputs[int(chosen)]]
    chosen = list(chosen)
    if chosen and all(isinstance(c, bool) or type(c).__name__ == "bool" for c in chosen):
        return [name for name, taken in zip(inputs, chosen, strict=True) if taken]
    return [inputs[c] if isinstance(c, int) or hasattr(c, "item") else str(c) for c in chosen]


def _between(chosen: slice, inputs: Sequence[str]) -> list[str]:
    """The names of a slice of names, which includes its end."""
    end = inputs.index(chosen.stop) + 1 if chosen.stop is not None else len(inputs)
    return list(inputs[inputs.index(chosen.start) : end])


def _known(encoder: Any, levels: Any) -> KnownLevels:
    present = [v for v in levels if v is not None and v == v]
    refuses = getattr(encoder, "handle_unknown", "ignore") == "error"
    return KnownLevels(
        tuple(_plain(v) for v in present),
        "error" if refuses else "other",
        len(present) < len(levels),
        any(v is None for v in levels),
    )


def _both(one: KnownLevels, other: KnownLevels) -> KnownLevels:
    """Merge two encoders of the same column: every level that one has, and the stricter of their rules."""
    return KnownLevels(
        tuple(dict.fromkeys((*one.levels, *other.levels))),
        "error" if "error" in (one.unseen, other.unseen) else "other",
        one.missing and other.missing,
        one.missing_is_none or other.missing_is_none,
    )


def _plain(value: Any) -> Scalar:
    """A Python scalar of a NumPy one."""
    plain: Scalar = value.item() if hasattr(value, "item") else value
    return plain
