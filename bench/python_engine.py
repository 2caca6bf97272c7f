"""The python engine's cost for one record, beyond the model's own: a function and a pipeline, on ten mixed columns.

    python bench/python_engine.py [--calls 500] [--rounds 5] [--json FILE]

The model's own time is that of its `predict` or `predict_proba` on a DataFrame that is there already. The engine runs
in this process, or in a process of its own as it does in a server; its time includes making that DataFrame.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from models import NUMBERS, TEXTS, rows
from run import write

import estiba
from estiba.model.inference.load import load_artifact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500, help="in one round, each with another record")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write; by default bench/results/python-engine-DATE.json")
    options = parser.parse_args()
    X, y, data = rows()
    models = {name: measure(name, model, X, options) for name, model in made(X, y)}
    report = {"data": data, "calls": options.calls, "rounds": options.rounds, "models": models}
    write(report, options.json, "python-engine", markdown(models))


def made(X: pd.DataFrame, y: pd.Series[int]) -> Iterator[tuple[str, Any]]:
    """A function, whose own time is next to nothing, and a pipeline with a step that does not convert."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    yield "function", lambda frame: frame["Age"].to_numpy() * 2.0
    columns = ColumnTransformer([("text", OneHotEncoder(), TEXTS), ("number", StandardScaler(), NUMBERS)])
    yield "pipeline", make_pipeline(FunctionTransformer(lambda frame: frame), columns, LogisticRegression()).fit(X, y)


def measure(name: str, model: Any, X: pd.DataFrame, options: argparse.Namespace) -> dict[str, list[float]]:
    """By who answers, the fastest call of each round in microseconds."""
    with tempfile.TemporaryDirectory() as registry:
        artifact = estiba.pack(model, X, name=name, registry=registry, engine="python", quiet=True).artifact
        here = load_artifact(artifact, trust=True, threads=1)
        apart = load_artifact(artifact, trust=True, threads=1, isolated=True)
        coded = [here.coder.check(X.iloc[[i]].to_dict("records")) for i in range(options.calls)]
        frames = [here.coder.frame(record) for record in coded]
        own = getattr(model, "predict_proba", model)
        asked: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
            "the model itself": (own, frames),
            "engine in this process": (here.engine.predict, coded),
            "engine in a process of its own": (apart.engine.predict, coded),
        }
        fastest: dict[str, list[float]] = {who: [] for who in asked}
        for _ in range(options.rounds):
            for who, (ask, calls) in asked.items():
                fastest[who].append(min(timed(ask, call) for call in calls))
        apart.engine.close()
    return fastest


def timed(ask: Callable[[Any], object], call: Any) -> float:
    start = time.perf_counter()
    ask(call)
    return (time.perf_counter() - start) * 1e6


def markdown(models: dict[str, dict[str, list[float]]]) -> str:
    lines = ["| model | who answers | µs | over the model's own |", "|---|---|---|---|"]
    for name, fastest in models.items():
        own = median(fastest["the model itself"])
        for who, times in fastest.items():
            over = "" if who == "the model itself" else f"{median(times) - own:,.0f}"
            lines.append(f"| {name} | {who} | {median(times):,.0f} | {over} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
