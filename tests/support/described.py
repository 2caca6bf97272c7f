"""Three served models for the tests of the document and of the docs page."""

from __future__ import annotations

from typing import Any

import numpy as np

from estiba.model.coding.predictions import Predictions
from estiba.model.schema.signature import Band, Field, Head, Outputs, Signature
from estiba.model.schema.signature_checks import validated
from estiba.serving.api.openapi import Described

CHURN = validated(
    Signature(
        fields=(
            Field(
                name="CreditScore",
                kind="integer",
                minimum=300,
                maximum=850,
                observed=(350, 850),
                description="Score of the credit bureau.",
            ),
            Field(name="Geography", kind="category", levels=("France", "Germany", "Spain")),
            Field(name="Gender", kind="category", levels=("Female", "Male")),
            Field(name="Age", kind="integer", minimum=18, maximum=100, observed=(18, 92), description="In years."),
            Field(
                name="Tenure", kind="integer", minimum=0, maximum=10, nullable=True, description="Years as a client."
            ),
            Field(name="Balance", kind="number", minimum=0, observed=(0, 250898.09), description="In euros."),
            Field(name="NumOfProducts", kind="integer", minimum=1, maximum=4),
            Field(name="HasCrCard", kind="boolean"),
            Field(name="IsActiveMember", kind="boolean"),
            Field(name="EstimatedSalary", kind="number", minimum=0, description="In euros a year."),
        ),
        head=Head(kind="probabilities", classes=(0, 1)),
        outputs=Outputs(
            label="churn",
            probability="churn_probability",
            threshold=0.27,
            class_names={"0": "stays", "1": "leaves"},
            bands={"risk": Band((0.3, 0.7), ("low", "medium", "high"))},
        ),
    )
)

IRIS = validated(
    Signature(
        fields=tuple(
            Field(name=f"{part} (cm)", kind="number", minimum=0, maximum=10, observed=seen)
            for part, seen in {
                "sepal length": (4.3, 7.9),
                "sepal width": (2.0, 4.4),
                "petal length": (1.0, 6.9),
                "petal width": (0.1, 2.5),
            }.items()
        ),
        head=Head(kind="probabilities", classes=("setosa", "versicolor", "virginica")),
        outputs=Outputs(label="species"),
    )
)

CAR = validated(
    Signature(
        fields=(
            Field(name="model_year", kind="integer", minimum=1990, maximum=2027, observed=(1990, 2021)),
            Field(name="model", kind="category", levels=("ford f-150", "honda civic", "toyota camry"), unseen="other"),
            Field(name="odometer", kind="number", minimum=0, nullable=True, description="In miles."),
            Field(name="fuel", kind="category", levels=("diesel", "gas"), unseen="null", nullable=True),
            Field(name="posted", kind="timestamp", nullable=True),
            Field(name="title", kind="text", description="Headline of the advertisement."),
        ),
        head=Head(kind="values", names=("price",)),
        outputs=Outputs(
            value="price", unit="US dollars", bands={"class": Band((8000, 20000), ("budget", "middle", "premium"))}
        ),
    )
)

CHURN_ROW: dict[str, Any] = {
    "CreditScore": 608,
    "Geography": "Spain",
    "Gender": "Female",
    "Age": 41,
    "Tenure": None,
    "Balance": 83807.86,
    "NumOfProducts": 1,
    "HasCrCard": False,
    "IsActiveMember": True,
    "EstimatedSalary": 112542.58,
}
IRIS_ROW = {"sepal length (cm)": 5.9, "sepal width (cm)": 3.0, "petal length (cm)": 4.2, "petal width (cm)": 1.5}
CAR_ROW: dict[str, Any] = {
    "model_year": 2014,
    "model": "ford f-150",
    "odometer": 97500.0,
    "fuel": "gas",
    "posted": "2019-03-04T00:00:00Z",
    "title": "F-150 XLT, one owner",
}
RAW = {"bankchurn": [0.283, 0.717], "iris": [0.004, 0.913, 0.083], "cars": [18450.25]}


def predicted(name: str, signature: Signature) -> dict[str, Any]:
    """The prediction of the model's one raw answer, shown as the server shows it."""
    return Predictions(signature).rows(np.array([RAW[name]]))[0]


def described() -> list[Described]:
    return [
        Described(
            "bankchurn",
            "3",
            CHURN,
            CHURN_ROW,
            predicted("bankchurn", CHURN),
            "Will a bank's client leave?",
            simulated=True,
        ),
        Described("iris", "1", IRIS, IRIS_ROW, predicted("iris", IRIS), "Species of an iris from four measurements."),
        Described("cars", "12", CAR, CAR_ROW, predicted("cars", CAR), "Asking price of a used car, in US dollars."),
    ]
