"""Summarise a table of adverts in smaller tables."""

from __future__ import annotations

import pandas as pd

ENOUGH = 15
"""Number of adverts below which a median is mostly chance."""


def quartiles(table: pd.DataFrame, by: pd.Series) -> pd.DataFrame:
    """Lower quartile, median and upper quartile of the price, in US dollars, for each value of `by` with enough."""
    groups = table.groupby(by, observed=True)["price"]
    found = groups.quantile([0.25, 0.5, 0.75]).unstack().set_axis(["low", "median", "high"], axis=1)
    found["adverts"] = groups.size()
    return found[found["adverts"] >= ENOUGH].reset_index()


def by_mileage(table: pd.DataFrame, step: int = 20_000) -> pd.DataFrame:
    """Price quartiles over the odometer's reading, in steps of miles; `odometer` is the middle of a step."""
    known = table[table["odometer"] < 300_000]
    middle = (known["odometer"] // step) * step + step // 2
    return quartiles(known, middle.rename("odometer"))


def depreciation(table: pd.DataFrame, models: list[str], years: int = 15) -> pd.DataFrame:
    """For each model: age in years, and the median price as a `share` of that of its newest year."""
    parts = []
    for model in models:
        rows = table[table["model"] == model]
        by_year = quartiles(rows, rows["model_year"])
        if len(by_year) < 2:
            continue
        newest = by_year.iloc[-1]
        age = int(newest["model_year"]) - by_year["model_year"]
        part = pd.DataFrame({"model": model, "age": age, "share": by_year["median"] / newest["median"]})
        parts.append(part[part["age"] <= years])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["model", "age", "share"])


def missing(table: pd.DataFrame) -> pd.DataFrame:
    """The share of adverts that leave a field out, the largest first."""
    share = table.isna().mean().sort_values(ascending=False)
    found = share.rename("share").rename_axis("field").reset_index()
    return found[found["share"] > 0]


def kinds(table: pd.DataFrame) -> tuple[str, pd.Series]:
    """The word for the kinds of cars that are worth comparing, and the kind of each advert.

    They are makes, or, where all cars are of one make, its models.
    """
    if table["make"].nunique() > 1:
        return "Make", table["make"]
    return "Model", names(table, table["model"])


def names(table: pd.DataFrame, models: pd.Series) -> pd.Series:
    """Names of models, without their make where all cars of the table are of one make."""
    makes = table["make"].unique()
    if len(makes) != 1:
        return models
    prefix = f"{makes[0].lower()} "
    short = models.str.removeprefix(prefix)
    return short.where(short != "", models)


def most_offered(table: pd.DataFrame, count: int = 12) -> tuple[str, pd.DataFrame]:
    """The word for kinds of cars, and those with the most adverts: `kind`, `adverts` and the `median` price."""
    word, kind = kinds(table)
    groups = table.groupby(kind.rename("kind"))["price"]
    found = pd.DataFrame({"adverts": groups.size(), "median": groups.median()})
    return word, found.sort_values("adverts", ascending=False).head(count).reset_index()


def similar(table: pd.DataFrame, model: str, year: int | None) -> pd.DataFrame:
    """Adverts of the same model, no more than two years older or newer."""
    rows = table[table["model"] == model]
    return rows if year is None else rows[(rows["model_year"] - year).abs() <= 2]
