"""The python engine's cost beyond the model's own, and the gain from converting the steps behind a step in Python.

    python bench/python_engine.py [--calls 500] [--rounds 5] [--json FILE] [--docs]

The models read ten mixed columns. A model's own time is that of its `predict` or `predict_proba` on a DataFrame that is
there already. The engine runs in this process, or in a process of its own as it does in a server; its time includes
making that DataFrame. `--docs` writes the second table into docs/concepts/engines.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pandas as pd
from models import NUMBERS, TEXTS, rows
from run import write

import estiba
from estiba.model.inference.load import Model, load_artifact

PAGE = Path(__file__).resolve().parent.parent / "docs/concepts/engines.md"
BEGIN, END = "<!-- split:begin -->", "<!-- split:end -->"
MANY = 1000

Times = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500, help="in one round, each with another record")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write; by default bench/results/python-engine-DATE.json")
    parser.add_argument("--docs", action="store_true", help="also into the page about engines")
    options = parser.parse_args()
    X, y, data = rows()
    models = {name: measure(name, model, X, options) for name, model in made(X, y)}
    split = {name: compare(model, X, options) for name, model in split_models(X, y)}
    report = {"data": data, "calls": options.calls, "rounds": options.rounds, "models": models, "split": split}
    table = split_table(split)
    write(report, options.json, "python-engine", f"{markdown(models)}\n{table}")
    if options.docs:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table}{END}{rest.partition(END)[2]}")


def made(X: pd.DataFrame, y: pd.Series[int]) -> Iterator[tuple[str, Any]]:
    """A function, whose own time is next to nothing, and a pipeline with a step that does not convert."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    yield "function", lambda frame: frame["Age"].to_numpy() * 2.0
    own = FunctionTransformer(lambda frame: frame)
    yield "pipeline", make_pipeline(own, prepared(), LogisticRegression(max_iter=1000)).fit(X, y)


def prepared() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    return ColumnTransformer([("text", OneHotEncoder(), TEXTS), ("number", StandardScaler(), NUMBERS)])


def split_models(X: pd.DataFrame, y: pd.Series[int]) -> Iterator[tuple[str, Any]]:
    """Pipelines that begin with a function of two new columns."""
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    def features(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(Age=frame["Age"] / 10, CreditScore=frame["CreditScore"].clip(upper=800))

    for name, model in {
        "LogisticRegression": LogisticRegression(max_iter=1000),
        "RandomForest, 100 of depth 10": RandomForestClassifier(100, max_depth=10, random_state=0),
        "LightGBM, 100 of 31 leaves": LGBMClassifier(verbose=-1, n_jobs=1),
    }.items():
        yield name, make_pipeline(FunctionTransformer(features), prepared(), model).fit(X, y)


def measure(name: str, model: Any, X: pd.DataFrame, options: argparse.Namespace) -> Times:
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
        fastest = in_turns(asked, options.rounds)
        apart.engine.close()
    return fastest


def compare(model: Any, X: pd.DataFrame, options: argparse.Namespace) -> dict[str, Times]:
    """By number of rows, the fastest call of each round with all steps in Python, and with the last ones converted."""
    with tempfile.TemporaryDirectory() as registry:
        whole, split = (_served(model, X, registry, engine) for engine in ("python", "auto"))
        assert split.manifest.tail, split.manifest.reason
        by_rows: dict[str, Times] = {}
        for count, calls in ((1, options.calls), (MANY, max(5, options.calls // 20))):
            parts = [X.iloc[[(i + n) % len(X) for n in range(count)]] for i in range(calls)]
            coded = [whole.coder.check(part.to_dict("records")) for part in parts]
            asked = {"python": (whole.engine.predict, coded), "python + kernel": (split.engine.predict, coded)}
            by_rows[str(count)] = in_turns(asked, options.rounds)
        whole.engine.close()
        split.engine.close()
    return by_rows


def _served(model: Any, X: pd.DataFrame, registry: str, engine: Literal["auto", "python"]) -> Model:
    artifact = estiba.pack(model, X, name=engine, registry=registry, engine=engine, quiet=True).artifact
    return load_artifact(artifact, trust=True, threads=1, isolated=True)


def in_turns(asked: dict[str, tuple[Callable[[Any], object], Sequence[Any]]], rounds: int) -> Times:
    fastest: Times = {who: [] for who in asked}
    for _ in range(rounds):
        for who, (ask, calls) in asked.items():
            fastest[who].append(min(timed(ask, call) for call in calls))
    return fastest


def timed(ask: Callable[[Any], object], call: Any) -> float:
    start = time.perf_counter()
    ask(call)
    return (time.perf_counter() - start) * 1e6


def markdown(models: dict[str, Times]) -> str:
    lines = ["| model | who answers | µs | over the model's own |", "|---|---|---|---|"]
    for name, fastest in models.items():
        own = median(fastest["the model itself"])
        for who, times in fastest.items():
            over = "" if who == "the model itself" else f"{median(times) - own:,.0f}"
            lines.append(f"| {name} | {who} | {median(times):,.0f} | {over} |")
    return "\n".join(lines) + "\n"


def split_table(models: dict[str, dict[str, Times]]) -> str:
    heads = f"| a function, encoder and scaler, then | 1 row, µs: all in Python / split | {MANY:,} rows, µs |"
    lines = [heads, "| --- | ---: | ---: |"]
    for name, found in models.items():
        cells = []
        for times in found.values():
            python, split = median(times["python"]), median(times["python + kernel"])
            cells.append(f"{python:,.0f} / {split:,.0f} ({python / split:.1f}×)")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
