"""Trains the model of the levels and writes it as a joblib file: `python train.py FILE`."""

import sys

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

TEXTS = ["Geography", "Gender"]
NUMBERS = ["CreditScore", "Age", "Tenure", "Balance", "NumOfProducts", "HasCrCard", "IsActiveMember", "EstimatedSalary"]


def rows(count: int = 4000) -> pd.DataFrame:
    """Made-up customers: what an image weighs and how fast it starts does not depend on them."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.uniform(0, 100, (count, len(NUMBERS))), columns=NUMBERS)
    return frame.assign(
        Geography=random.choice(["France", "Spain", "Germany"], count), Gender=random.choice(["Female", "Male"], count)
    )


def main() -> None:
    sample = rows()
    left = (sample["Age"] + sample["Balance"] > 110).astype(int)
    encoder = ColumnTransformer([("texts", OneHotEncoder(), TEXTS)], remainder="passthrough")
    model = make_pipeline(encoder, RandomForestClassifier(100, max_depth=10, random_state=0)).fit(sample, left)
    joblib.dump(model, sys.argv[1])


if __name__ == "__main__":
    main()
