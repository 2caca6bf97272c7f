"""Define the result of a training function: a fitted model, its sample, its metrics and its source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from estiba.core.errors import BadProject, MissingExtra
from estiba.model.schema.rows import field_name

if TYPE_CHECKING:
    import pandas


TEXT = "text"
"""Name of the one field of a model that is fitted on a list of texts."""


def frame_of(X: Any) -> pandas.DataFrame:
    """A sample as a DataFrame: texts become its one column, and the columns of an array x0, x1, ...

    Raises:
        BadProject: it has no rows and columns, and is no list or Series of texts.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtra("pandas", "train") from None
    if isinstance(X, pd.DataFrame):
        frame = X.reset_index(drop=True)
        frame.columns = [field_name(label) for label in frame.columns]
        return frame
    if isinstance(X, pd.Series):
        name = TEXT if X.name is None else field_name(X.name)
        return X.reset_index(drop=True).to_frame(name).set_axis([name], axis=1)
    if isinstance(X, list | tuple) and len(X) and all(isinstance(text, str) for text in X):
        return pd.DataFrame({TEXT: pd.Series(list(X), dtype=object)})
    array = np.asarray(X)
    if array.ndim == 1 and array.dtype.kind in "UOT" and all(isinstance(text, str) for text in array.tolist()):
        return pd.DataFrame({TEXT: pd.Series(array.tolist(), dtype=object)})
    if array.ndim != 2:
        raise BadProject(
            f"The sample must have rows and columns, or be texts; its shape is {array.shape}.",
            hint="Pass a DataFrame, a two-dimensional array, or a list or Series of texts.",
        )
    return pd.DataFrame(array, columns=[f"x{i}" for i in range(array.shape[1])])


@dataclass(frozen=True, kw_only=True)
class Source:
    """The origin of the training data.

    name: what people call the data set. rows: how many rows were read, before any filter.
    simulated: True when no real record is behind the rows; the model card and the terminal
    say so loudly. url, licence, notes: plain text, empty when unknown.
    """

    name: str
    rows: int
    simulated: bool = False
    url: str = ""
    licence: str = ""
    notes: str = ""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A fitted model with everything that packing needs to know of its training.

    model: a fitted estimator or Pipeline whose ``predict`` takes a DataFrame shaped (n, p).
    sample: training features shaped (n, p), real dtypes, up to all rows; the signature and
    the parity proof are drawn from it. Of an ONNX file of tensors a mapping with one array for
    each input, as the file takes them.
    target: the training target shaped (n,) or (n, outputs), aligned with sample, or None; a Series
    or DataFrame names the outputs.
    holdout: rows that the model was not trained on, with the columns of sample, or None; the
    profile, which drift is measured against, is made of them instead of sample.
    metrics: held-out or cross-validated figures, finite, by snake_case name, in the unit that
    the metric itself has (a share between 0 and 1, or the unit of the target).
    params: the settings worth showing in the model card.
    threshold: the positive class is predicted from this probability (0 to 1) on; chosen on
    training data only. None leaves the model's own rule.
    source: what the data is. notes: the model's limits, for the model card.
    """

    model: object
    sample: Any
    target: object | None = None
    holdout: pandas.DataFrame | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    threshold: float | None = None
    source: Source | None = None
    notes: str = ""


def finite_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics as finite numbers; raises BadProject for one that is not."""
    return {name: _finite(name, value) for name, value in metrics.items()}


def _finite(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadProject(f"The metric {name!r} is {value!r}, which is no number.") from None
    if not math.isfinite(number):
        raise BadProject(f"The metric {name!r} is {number}; it must be finite.")
    return number


def target_names(target: object) -> tuple[str, ...]:
    """Names of the outputs that a training target has: a Series' name or the columns of a table; empty without any."""
    columns = getattr(target, "columns", None)
    names = [getattr(target, "name", None)] if columns is None else list(columns)
    named = all(isinstance(name, (str, tuple)) and name != "" for name in names)
    return tuple(map(field_name, names)) if named else ()
