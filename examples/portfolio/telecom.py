"""Train the model of telecom plans: from a subscriber's monthly usage to the plan that fits, Ultra (1) or Smart (0)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import figures
import pandas as pd
import reading
import simulate
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import train_test_split

from estiba import Source, Trained

SEED = 42
FILE = "users_behavior.csv"
FIELDS = ["calls", "minutes", "messages", "mb_used"]
TARGET = "is_ultra"
SETTINGS: dict[str, int] = {"n_estimators": 200, "min_samples_leaf": 8}


def load(path: Path | None) -> tuple[pd.DataFrame, pd.Series, Source]:
    """Features shaped (n, 4), the target (1: Ultra) shaped (n,), and where they come from; None simulates them."""
    if path is None:
        table = simulate.telecom(3_214, seed=SEED)
        source = Source(name="Simulated subscribers", rows=len(table), simulated=True, notes=simulate.TELECOM)
    else:
        table = reading.read(path, [*FIELDS, TARGET])
        source = Source(
            name=f"Subscribers of the Megaline plans ({FILE})",
            rows=len(table),
            licence="educational use; not ours to pass on",
            notes="A teaching set of 3,214 subscriber-months; whether a real operator is behind it is not known.",
        )
    return table[FIELDS].astype(float), table[TARGET], source


def recipe() -> ExtraTreesClassifier:
    """The unfitted model: leaves of at least 8 rows keep the averaged probabilities near the seen shares."""
    return ExtraTreesClassifier(**SETTINGS, max_features=None, n_jobs=1, random_state=SEED)


def split(y: pd.Series) -> tuple[list[int], list[int]]:
    """Positions of the training rows and of the held-out fifth, stratified."""
    fit, held = train_test_split(range(len(y)), test_size=0.2, stratify=y, random_state=SEED)
    return list(fit), list(held)


@figures.one_thread
def train(data: Mapping[str, Path | None]) -> Trained:
    """Fits on four fifths of the rows and reports on the fifth that the model and its threshold never saw."""
    X, y, source = load(data.get(FILE))
    fit, held = split(y)
    inside, folds = figures.out_of_fold(recipe(), X.iloc[fit], y.iloc[fit], seed=SEED)
    threshold = figures.best_threshold(y.iloc[fit], inside)
    model = recipe().fit(X.iloc[fit], y.iloc[fit])
    metrics = figures.binary(y.iloc[held], model.predict_proba(X.iloc[held])[:, 1], threshold)
    return Trained(
        model=model,
        sample=X.iloc[fit].reset_index(drop=True),
        target=y.iloc[fit].reset_index(drop=True),
        metrics={
            **metrics,
            **figures.spread("roc_auc", (auc for auc, _ in folds)),
            **figures.spread("brier", (brier for _, brier in folds)),
        },
        params={"estimator": "ExtraTreesClassifier", **SETTINGS, "train_rows": len(fit), "test_rows": len(held)},
        threshold=threshold,
        source=source,
        notes="Figures without cv_ are of a stratified fifth that was held out; cv_ figures are 5 folds, three times, "
        "inside the training part, and are the better guide, for a fifth of 3,214 rows is few. One month of usage says "
        "little about the next.",
    )
