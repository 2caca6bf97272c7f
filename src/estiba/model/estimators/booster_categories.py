"""Read the categories of columns that a saved LightGBM or XGBoost model names, to type a sample that has none."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from estiba.core.errors import BadProject

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 8
"""Categories that a message names."""


def named_categories(model: Any) -> dict[str, tuple[Any, ...]]:
    """By column, the pandas categories of training in their order; empty for a model whose file names none."""
    library = type(model).__module__.partition(".")[0]
    if library == "lightgbm":
        return _of_lightgbm(getattr(model, "booster_", model))
    if library == "xgboost":
        return _of_xgboost(model.get_booster() if hasattr(model, "get_booster") else model)
    return {}


def _of_lightgbm(booster: Any) -> dict[str, tuple[Any, ...]]:
    categories = getattr(booster, "pandas_categorical", None) or []
    header = booster.model_to_string(num_iteration=1).split("\n")
    ranges: list[str] = next(
        (line.partition("=")[2].split(" ") for line in header if line.startswith("feature_infos=")), []
    )
    # A number has a range in brackets, a category its codes, and a column without any split neither.
    columns = [name for name, shown in zip(booster.feature_name(), ranges, strict=True) if ":" in shown.split("[")[0]]
    return dict(zip(columns, map(tuple, categories), strict=True)) if len(columns) == len(categories) else {}


def _of_xgboost(booster: Any) -> dict[str, tuple[Any, ...]]:
    if "c" not in (booster.feature_types or ()) or not hasattr(booster, "get_categories"):
        return {}
    with suppress(ImportError):  # it hands them over as Arrow's arrays
        named = booster.get_categories(export_to_arrow=True).to_arrow()
        return {name: tuple(levels.to_pylist()) for name, levels in named if levels is not None}
    return {}


def as_categories(sample: pd.DataFrame, named: dict[str, tuple[Any, ...]], where: object) -> pd.DataFrame:
    """The sample with columns of plain values as the categories of training.

    Args:
        where: the file of the sample, for messages.

    Raises:
        BadProject: a column has a value that is none of its categories.
    """
    import pandas as pd

    own = {str(name).replace(" ", "_"): name for name in sample.columns}  # as LightGBM writes names
    for column, levels in named.items():
        name = column if column in sample.columns else own.get(column)
        if name is None or isinstance(sample[name].dtype, pd.CategoricalDtype):
            continue
        unknown = sample[name][sample[name].notna() & ~sample[name].isin(levels)]
        if len(unknown):
            more = ", ..." if len(levels) > _SHOWN else ""
            raise BadProject(
                f"{where}, column {name!r}: {unknown.iloc[0]!r} is not a category of the model.",
                hint=f"Its categories are: {', '.join(map(repr, levels[:_SHOWN]))}{more}.",
            )
        sample = sample.assign(**{name: pd.Categorical(sample[name], categories=list(levels))})
    return sample
