"""Data sets of the standing lab (`scripts/models.py`): public ones that wheels bring along, and made ones."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

MAX_ROWS = 1500


@dataclass(frozen=True)
class Data:
    """Rows and what to learn of them: `classes` is 0 where that is a number."""

    name: str
    rows: pd.DataFrame
    target: pd.Series
    classes: int


Made = Callable[[np.random.Generator], tuple[pd.DataFrame, str, int]]


def data_sets() -> dict[str, Made]:
    """By name: a function that gives rows, the column of the target, and how many classes it has."""
    return _of_sklearn() | _of_plotly() | _of_statsmodels() | _of_this_machine() | _made()


def _made() -> dict[str, Made]:
    return {"credit": _credit, "codes": _codes, "sensors": _sensors, "people": _people}


def draw(rng: np.random.Generator) -> Data:
    """One data set, with rows in another order and at most MAX_ROWS of them."""
    made = data_sets()
    name = str(rng.choice(sorted(made)))
    rows, target, classes = made[name](rng)
    rows = rows.sample(min(len(rows), MAX_ROWS), random_state=int(rng.integers(1 << 30))).reset_index(drop=True)
    wanted = rows.pop(target)
    if classes == 0 and rng.random() < 0.2:  # the same rows, sorted into three classes of a number
        wanted, classes = pd.Series(np.digitize(wanted, np.quantile(wanted, [0.3, 0.7])), name=target), 3
    return Data(name, rows, wanted, classes)


def _of_sklearn() -> dict[str, Made]:
    from sklearn import datasets

    def of(load: Callable[..., object], classes: int) -> Made:
        def made(rng: np.random.Generator) -> tuple[pd.DataFrame, str, int]:
            found = load(as_frame=True).frame.copy()  # type: ignore[operator]
            return found, "target", classes

        return made

    names = {"iris": 3, "wine": 3, "breast_cancer": 2, "digits": 10, "diabetes": 0}
    return {name: of(getattr(datasets, f"load_{name}"), classes) for name, classes in names.items()}


def _of_plotly() -> dict[str, Made]:
    """Small tables of the plotly wheel, where it is installed."""
    try:
        import plotly
    except ImportError:
        return {}
    folder = Path(plotly.__file__).parent / "package_data" / "datasets"

    def of(name: str, target: str, classes: int) -> Made:
        def made(rng: np.random.Generator) -> tuple[pd.DataFrame, str, int]:
            return pd.read_csv(gzip.open(folder / f"{name}.csv.gz")), target, classes

        return made

    tables = (("tips", "tip", 0), ("tips", "smoker", 2), ("gapminder", "lifeExp", 0), ("gapminder", "continent", 5))
    tables += (("election", "winner", 3), ("wind", "frequency", 0), ("carshare", "car_hours", 0))
    tables += (("experiment", "group", 2), ("experiment", "experiment_1", 0))
    there = [entry for entry in tables if (folder / f"{entry[0]}.csv.gz").exists()]
    return {f"{name} ({target})": of(name, target, classes) for name, target, classes in there}


def _of_statsmodels() -> dict[str, Made]:
    """Surveys of the statsmodels wheel, where it is installed."""
    try:
        from statsmodels import datasets
    except ImportError:
        return {}

    def of(name: str, target: str, classes: int) -> Made:
        def made(rng: np.random.Generator) -> tuple[pd.DataFrame, str, int]:
            rows = getattr(datasets, name).load_pandas().data.copy()
            rows.columns = [str(column).strip() for column in rows.columns]
            if classes == 2 and rows[target].nunique() > 2:
                rows[target] = (rows[target] > 0).astype(int)
            return rows, target, classes

        return made

    tables = (("fair", "affairs", 2), ("fair", "affairs", 0), ("anes96", "vote", 2), ("anes96", "educ", 0))
    tables += (("ccard", "AVGEXP", 0), ("randhie", "mdvis", 0), ("heart", "survival", 0), ("spector", "GRADE", 2))
    return {f"{name} ({target}, {classes})": of(name, target, classes) for name, target, classes in tables}


def _of_this_machine() -> dict[str, Made]:
    """Tables of ESTIBA_DATA, whose licences keep them out of the repository."""
    folder = Path(os.environ.get("ESTIBA_DATA", "/nowhere"))

    def of(file: str, target: str, classes: int, dropped: list[str]) -> Made:
        return lambda rng: (pd.read_csv(folder / file).drop(columns=dropped).dropna(subset=target), target, classes)

    tables: dict[str, Made] = {
        "Churn": of("Churn.csv", "Exited", 2, ["RowNumber", "CustomerId", "Surname"]),
        "vehicles": of("vehicles_us.csv", "price", 0, ["date_posted"]),
        "behavior": of("users_behavior.csv", "is_ultra", 2, []),
    }
    files = {"Churn": "Churn.csv", "vehicles": "vehicles_us.csv", "behavior": "users_behavior.csv"}
    return {name: made for name, made in tables.items() if (folder / files[name]).exists()}


def _credit(rng: np.random.Generator) -> tuple[pd.DataFrame, str, int]:
    """Columns of every kind, with words that look like missing values and a rare level."""
    n = 1200
    rows = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n),
            "income": rng.gamma(2.0, 900.0, n).round(2),
            "balance": rng.normal(0, 1e4, n),
            "rate": rng.choice([0.0, 0.1, 0.30000000000000004, 1.5], n),
            "zip": rng.choice(["00501", "10001", "94105", "60601", "02139"], n, p=[0.01, 0.3, 0.3, 0.3, 0.09]),
            "job": rng.choice(["NA", "None", "clerk", " Clerk", "añil", ""], n),
            "home": rng.random(n) < 0.4,
            "dependants": rng.integers(0, 5, n),
        }
    )
    score = rows["income"] / 900 + rows["home"] - rows["age"] / 40 + (rows["job"] == "NA") + rng.normal(0, 0.6, n)
    return rows.assign(bad=np.where(score > score.median(), "bad", "good")), "bad", 2


def _codes(rng: np.random.Generator) -> tuple[pd.DataFrame, str, int]:
    """Whole numbers and codes that stand for words, and many equal rows."""
    n = 900
    rows = pd.DataFrame(rng.integers(0, 4, (n, 5)), columns=["region", "plan", "products", "visits", "flag"])
    rows["region"] = rows["region"].astype(float)
    rows["share"] = (rng.integers(0, 11, n) / 10).astype(np.float32)
    score = rows["region"] * 0.7 + rows["plan"] - rows["visits"] * rows["share"] + rng.normal(0, 0.5, n)
    return rows.assign(spend=np.exp(score / 3)), "spend", 0


def _sensors(rng: np.random.Generator) -> tuple[pd.DataFrame, str, int]:
    """Numbers of very different sizes, one constant, one nearly so, and one that is a multiple of another."""
    n = 1000
    rows = pd.DataFrame(rng.normal(size=(n, 4)) * [1e-9, 1.0, 1e6, 30.0], columns=["leak", "flow", "pressure", "heat"])
    rows["twice"] = rows["flow"] * 2
    rows["fixed"] = 7.5
    rows["rare"] = (rng.random(n) < 0.01).astype(float)
    score = rows["leak"] * 1e9 + rows["flow"] - rows["heat"] / 30 + rng.normal(0, 0.4, n)
    return rows.assign(state=np.digitize(score, [-1.5, 0.0, 1.5])), "state", 4


def _people(rng: np.random.Generator) -> tuple[pd.DataFrame, str, int]:
    """Words of many levels, most of them rare, beside numbers with outliers and negative ones."""
    n = 1400
    towns = np.array([f"town {i}" for i in range(60)])
    rows = pd.DataFrame(
        {
            "town": rng.choice(towns, n, p=np.arange(60, 0, -1) / 1830),
            "sex": rng.choice(["f", "m", "x"], n, p=[0.5, 0.48, 0.02]),
            "debt": np.where(rng.random(n) < 0.02, 1e7, rng.normal(0, 500, n)).round(1),
            "visits": rng.poisson(2, n),
            "since": rng.integers(1990, 2025, n),
            "member": rng.choice(["yes", "no"], n),
        }
    )
    score = rows["visits"] + (rows["member"] == "yes") * 2 - (rows["since"] - 2000) / 10 + rng.normal(0, 1, n)
    return rows.assign(amount=score), "amount", 0
