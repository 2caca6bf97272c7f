"""The kernel beside ONNX Runtime: the same graphs, the same rows, in turns, in one process and one thread.

    python bench/engines.py [--rounds 5] [--seconds 0.1] [--json FILE]

CPU time of one call, by rows in it, for each family of trees; how long each takes to load; and by how much any answer
to the 10,000 rows differs. Every call gets other rows than the one before it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from models import NUMBERS, TEXTS, fit, rows
from run import write
from table import table

from estiba.model.coding.coder import Coded
from estiba.model.convert import convert
from estiba.model.engines.exact import ExactEngine
from estiba.model.engines.onnx import session
from estiba.model.schema.signature import Field

SIZES = (1, 8, 64, 1000, 10_000)

BUSY = 1.5
"""Load average, of which this program is 1, beyond which the report says that the machine was not quiet."""

Run = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    options = _options()
    X, y, said = rows()
    found = {}
    for name, model, sample in families(X, y):
        print(f"bench: {name}", file=sys.stderr)
        found[name] = _measure(model, sample, options.rounds, options.seconds)
    report = {"data": said, "rounds": options.rounds, "load": os.getloadavg()[0], "families": found}
    write(report, options.json, "engines", _markdown(report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="of calls in one round, for each engine and size")
    parser.add_argument("--json", type=Path, help="where to write; by default bench/results/engines-DATE.json")
    return parser.parse_args()


def families(X: pd.DataFrame, y: pd.Series[int]) -> Iterator[tuple[str, Any, pd.DataFrame]]:
    """A model of each family that converts, and the rows that it was fitted on."""
    import catboost
    import lightgbm
    import xgboost
    from sklearn import ensemble, linear_model

    encoded = X.astype(dict.fromkeys(TEXTS, "category"))
    numbers = X[NUMBERS].astype(float)
    three = y + (X["Age"] > 50)
    yield "RandomForest, 100 trees of depth 10", fit(X, y), X
    full = ensemble.RandomForestClassifier(100, random_state=0)
    yield "RandomForest, 100 full trees, 3 classes", _prepared(full, X, three), X
    yield "ExtraTrees, 100 of depth 12", _prepared(ensemble.ExtraTreesClassifier(100, max_depth=12), X, y), X
    yield "GradientBoosting, 100 of depth 3", _prepared(ensemble.GradientBoostingClassifier(), X, y), X
    hist = ensemble.HistGradientBoostingClassifier(max_iter=200, categorical_features="from_dtype")
    yield "HistGradientBoosting, 200, categories", hist.fit(encoded, y), encoded
    xgb = xgboost.XGBClassifier(n_estimators=200, max_depth=6, enable_categorical=True, n_jobs=1)
    yield "XGBoost, 200 of depth 6, categories", xgb.fit(encoded, y), encoded
    lgb = lightgbm.LGBMClassifier(n_estimators=200, n_jobs=1, verbose=-1)
    yield "LightGBM, 200 of 31 leaves, categories", lgb.fit(encoded, y), encoded
    cat = catboost.CatBoostClassifier(iterations=300, depth=6, verbose=0, thread_count=1, allow_writing_files=False)
    yield "CatBoost, 300 of depth 6, numbers", cat.fit(numbers, y), numbers
    yield "LogisticRegression, no trees", _prepared(linear_model.LogisticRegression(max_iter=1000), X, y), X


def _prepared(model: Any, X: pd.DataFrame, y: pd.Series[int]) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    parts = [("text", OneHotEncoder(handle_unknown="ignore"), TEXTS), ("number", StandardScaler(), NUMBERS)]
    return make_pipeline(ColumnTransformer(parts), model).fit(X, y)


def _coded(sample: pd.DataFrame) -> tuple[tuple[Field, ...], np.ndarray]:
    fields, matrix = [], np.empty(sample.shape)
    for i, name in enumerate(sample):
        column, dtype = sample[name], str(sample[name].dtype)
        if name in TEXTS:
            levels = tuple(sorted(column.unique()))
            fields.append(Field(name=name, kind="category", levels=levels, unseen="other", dtype=dtype))
            matrix[:, i] = pd.Categorical(column, categories=list(levels)).codes
        else:
            fields.append(Field(name=name, kind="number", dtype=dtype))
            matrix[:, i] = column
    return tuple(fields), matrix


def _measure(model: Any, sample: pd.DataFrame, rounds: int, seconds: float) -> dict[str, Any]:
    fields, matrix = _coded(sample)
    conversion = convert(model, fields, sample)
    start = time.perf_counter()
    kernel = ExactEngine(conversion.onnx, fields, conversion.head.width)
    loaded = time.perf_counter()
    running = session(conversion.onnx)
    load = {"kernel": (loaded - start) * 1e3, "onnxruntime": (time.perf_counter() - loaded) * 1e3}
    runs: dict[str, Run] = {
        "kernel": lambda x: kernel.predict(Coded(x)),
        "onnxruntime": lambda x: running.run(["y"], {"x": x})[0],
    }
    difference = float(np.abs(runs["kernel"](matrix) - runs["onnxruntime"](matrix)).max())
    figures = {str(size): _turns(runs, matrix, size, rounds, seconds) for size in SIZES}
    return {"load_ms": load, "difference": difference, "us_per_row": figures}


def _turns(runs: dict[str, Run], matrix: np.ndarray, size: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(_per_row(run, matrix, size, seconds))
    return found


def _per_row(run: Run, matrix: np.ndarray, size: int, seconds: float) -> float:
    """CPU microseconds for one row."""
    spent, done, at = 0, 0, 0
    while spent < seconds * 1e9:
        x = np.ascontiguousarray(matrix[at : at + size])
        at = (at + size) % (len(matrix) - size + 1)
        start = time.process_time_ns()
        run(x)
        spent += time.process_time_ns() - start
        done += size
    return spent / done / 1e3


def _markdown(report: dict[str, Any]) -> str:
    rows_ = [
        [
            name,
            *(_cell(figures["us_per_row"][str(size)]) for size in SIZES),
            f"{figures['load_ms']['kernel']:.0f} / {figures['load_ms']['onnxruntime']:.0f}",
            f"{figures['difference']:.1g}",
        ]
        for name, figures in report["families"].items()
    ]
    names = ["CPU µs/row: kernel / ONNX Runtime", *(f"{s:,} row{'s' * (s > 1)}" for s in SIZES), "load ms", "differ by"]
    conditions = f"{report['data']}; medians of {report['rounds']} rounds in turns, one thread."
    load = f"The machine's load average was {report['load']:.1f}: trust the ratios, and load times little."
    return f"{table(names, rows_)}\n\n{conditions}{' ' + load if report['load'] > BUSY else ''}\n"


def _cell(figures: dict[str, list[float]]) -> str:
    ours, theirs = median(figures["kernel"]), median(figures["onnxruntime"])
    return f"{ours:.2f} / {theirs:.2f} ({theirs / ours:.1f}×)"


if __name__ == "__main__":
    main()
