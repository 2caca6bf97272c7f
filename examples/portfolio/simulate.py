"""Simulate the bank and telecom tables, with a seed, for users without the CSV files. No row describes a person.

Both draw each field from a plain distribution, add up a latent score, and toss a coin with that score's logistic
probability. A model trained on them shows that the software works and nothing about banks or subscribers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

Vector = npt.NDArray[np.float64]

BANK = (
    "SIMULATED, not real customers. Latent score: age (rising to 55, falling after), an inactive member, Germany, "
    "one or more than two products, a woman, a balance above zero; credit score, salary, card and tenure have next "
    "to no effect. Figures on it say nothing about a real bank."
)
TELECOM = (
    "SIMULATED, not real subscribers. Latent score: steps at 600 minutes, 60 messages and 22,000 MB a month, and the "
    "rare light user who pays for Ultra anyway. Figures on it say nothing about a real operator."
)


def bank(rows: int, *, seed: int) -> pd.DataFrame:
    """Customers with the fields of Churn.csv and the target `Exited` (1: left), shaped (rows, 11).

    Args:
        rows: how many. seed: the same seed gives the same table.
    """
    draw = np.random.default_rng(seed)
    country = draw.choice(["France", "Germany", "Spain"], rows, p=[0.5, 0.25, 0.25])
    empty = draw.random(rows) < np.where(country == "Germany", 0.0, 0.48)
    tenure = draw.integers(0, 11, rows).astype(float)
    tenure[draw.random(rows) < 0.09] = np.nan
    table = pd.DataFrame(
        {
            "CreditScore": np.clip(draw.normal(650, 96, rows).round(), 300, 850).astype(int),
            "Geography": pd.Series(country, dtype="str"),
            "Gender": pd.Series(draw.choice(["Female", "Male"], rows, p=[0.455, 0.545]), dtype="str"),
            "Age": np.clip((18 + draw.gamma(4.4, 4.8, rows)).round(), 18, 92).astype(int),
            "Tenure": tenure,
            "Balance": np.where(empty, 0.0, np.clip(draw.normal(120_000, 30_000, rows), 4_000, 250_000).round(2)),
            "NumOfProducts": draw.choice([1, 2, 3, 4], rows, p=[0.508, 0.459, 0.027, 0.006]),
            "HasCrCard": draw.binomial(1, 0.705, rows),
            "IsActiveMember": draw.binomial(1, 0.515, rows),
            "EstimatedSalary": draw.uniform(12, 200_000, rows).round(2),
        }
    )
    return table.assign(Exited=draw.binomial(1, _logistic(_leaving(table))))


def _leaving(table: pd.DataFrame) -> Vector:
    """The latent score of leaving, in log-odds."""
    age = table["Age"].to_numpy(float)
    products = table["NumOfProducts"].to_numpy()
    score = (
        -2.75
        + 2.9 * np.exp(-(((age - 55) / 13) ** 2))
        + np.select([products == 1, products == 2], [0.55, -1.0], 2.8)
        - 0.95 * table["IsActiveMember"].to_numpy()
        + 0.85 * (table["Geography"] == "Germany").to_numpy()
        + 0.5 * (table["Gender"] == "Female").to_numpy()
        + 0.25 * (table["Balance"] > 0).to_numpy()
        - 0.0006 * (table["CreditScore"].to_numpy() - 650)
    )
    return np.asarray(score, float)


def telecom(rows: int, *, seed: int) -> pd.DataFrame:
    """Subscriber-months with the fields of users_behavior.csv and `is_ultra` (1: Ultra), shaped (rows, 5).

    Args:
        rows: how many. seed: the same seed gives the same table.
    """
    draw = np.random.default_rng(seed)
    calls = np.clip(draw.normal(63, 32, rows).round(), 0, None)
    silent = draw.random(rows) < 0.15
    table = pd.DataFrame(
        {
            "calls": calls,
            "minutes": (calls * np.clip(draw.normal(6.95, 0.7, rows), 3, None)).round(2),
            "messages": np.where(silent, 0.0, draw.gamma(1.7, 26, rows).round()),
            "mb_used": np.clip(draw.normal(17_200, 7_500, rows), 0, None).round(2),
        }
    )
    return table.assign(is_ultra=draw.binomial(1, _logistic(_ultra(table))))


def _ultra(table: pd.DataFrame) -> Vector:
    """The latent score of holding Ultra, in log-odds."""
    steps = (
        3.0 * (table["minutes"] > 600).to_numpy()
        + 2.2 * (table["messages"] > 60).to_numpy()
        + 2.6 * (table["mb_used"] > 22_000).to_numpy()
        + 1.4 * (table["mb_used"] < 4_000).to_numpy()
    )
    return np.asarray(-2.9 + steps, float)


def _logistic(score: Vector) -> Vector:
    return 1 / (1 + np.exp(-score))
