"""Count the faults of a model that golden rows find: rows of the sample beside rows that are made.

Each mutant is the packed model with one fault: a leaf, a split, a coefficient, two levels swapped, or a missing value
sent the other way. It is found where a golden row is answered otherwise than by the original.

    python bench/proof_power.py [MUTANTS]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pandas as pd
from lightgbm import LGBMClassifier
from onnx import numpy_helper
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBRegressor

from estiba.model.artifact import golden_rows
from estiba.model.coding.coder import Coded, Matrix
from estiba.model.engines.onnx import runner
from estiba.model.packing.candidate import Candidate, prepare
from estiba.model.packing.proof import choose, choose_made
from estiba.model.packing.training_result import Trained
from estiba.model.schema.signature import Outputs

KINDS = ("leaf", "split", "coefficient", "levels", "missing")
Predict = Callable[[Coded], Matrix]


@dataclass(frozen=True)
class Asked:
    """Rows of one kind, and the answers of the model without a fault."""

    rows: Coded
    answers: Matrix


def people(rows: int, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Made-up customers, whose fields depend on each other, with missing values and rare levels."""
    age = rng.integers(18, 90, rows)
    school = np.minimum(rng.poisson(1.2, rows) + (age > 30), 4)
    income = np.round(np.exp(9.5 + 0.25 * school + 0.01 * age + rng.normal(0, 0.4, rows)), 2)
    tenure = np.floor(rng.random(rows) * np.minimum(age - 17, 25))
    usage = np.where(rng.random(rows) < 0.07, np.nan, np.round(rng.gamma(2, 10 + 3 * school), 1))
    region = np.array([f"r{n}" for n in range(12)])[np.minimum(rng.geometric(0.25, rows) - 1, 11)]
    plan = np.where(income > 25_000, rng.choice(["gold", "silver"], rows), rng.choice(["silver", "basic"], rows))
    frame = pd.DataFrame(
        {
            "age": age,
            "school": school,
            "income": income,
            "tenure": tenure,
            "usage": usage,
            "region": region,
            "plan": plan,
        }
    )
    score = 1.0 * (income > 30_000) + (np.nan_to_num(usage) > 25) * (plan == "gold") - (tenure > 10) + (region == "r3")
    return frame, pd.Series((score + rng.normal(0, 0.7, rows) > 0.8).astype(int))


def prepared(model: Any) -> Any:
    """A pipeline that fills, scales and encodes before the model."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    texts = make_column_selector(dtype_exclude="number")
    encoder = OneHotEncoder(handle_unknown="ignore")
    steps = make_column_transformer((numbers, make_column_selector(dtype_include="number")), (encoder, texts))
    return make_pipeline(steps, model)


def models() -> Iterator[tuple[str, Any, pd.DataFrame]]:
    """Fitted models of several kinds, with their samples."""
    X, y = people(4_000, np.random.default_rng(0))
    categories = X.assign(region=X.region.astype("category"), plan=X.plan.astype("category"))
    yield "logistic regression after one-hot", prepared(LogisticRegression(max_iter=1000)).fit(X, y), X
    histograms = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=50)
    yield "HistGradientBoosting with categories", histograms.fit(categories, y), categories
    yield "LightGBM with categories", LGBMClassifier(n_estimators=50, verbose=-1).fit(categories, y), categories
    yield "random forest, full depth", prepared(RandomForestClassifier(50, random_state=0)).fit(X, y), X
    cancer, diabetes = load_breast_cancer(as_frame=True), load_diabetes(as_frame=True)
    boosting = GradientBoostingClassifier(n_estimators=50, random_state=0)
    yield "GradientBoosting, 30 correlated numbers", boosting.fit(cancer.data, cancer.target), cancer.data
    yield "XGBoost, regression", XGBRegressor(n_estimators=50).fit(diabetes.data, diabetes.target), diabetes.data


def mutants(candidate: Candidate, graph: bytes, kind: str, count: int) -> Iterator[Predict]:
    """The model with one fault each."""
    rng = np.random.default_rng(1)
    if kind == "levels":
        predict = runner(graph)
        pairs = [
            (i, a, b) for i, f in enumerate(candidate.coder.fields) for b in range(len(f.levels)) for a in range(b)
        ]
        for i, a, b in (pairs[n] for n in rng.permutation(len(pairs))[:count]):
            yield lambda coded, i=i, a=a, b=b: predict(_swapped(coded, i, a, b))
        return
    for _ in range(count):
        proto = onnx.load_from_string(graph)
        if not FAULTS[kind](proto, candidate, rng):
            return
        yield runner(proto.SerializeToString())


def _swapped(coded: Coded, field: int, first: int, second: int) -> Coded:
    matrix = coded.matrix.copy()
    column = coded.matrix[:, field]
    matrix[column == first, field], matrix[column == second, field] = second, first
    return Coded(matrix, coded.texts)


def _trees(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.op_type == "TreeEnsemble"]


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((attribute for attribute in node.attribute if attribute.name == name), None)


def _change(tensor: onnx.TensorProto, change: Callable[[Matrix], None]) -> None:
    array = numpy_helper.to_array(tensor).copy()
    change(array)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _leaf(proto: onnx.ModelProto, candidate: Candidate, rng: np.random.Generator) -> bool:
    """One leaf, by a tenth of what leaves differ by."""
    if not _trees(proto):
        return False

    def change(array: Matrix) -> None:
        array[rng.integers(len(array))] += 0.1 * max(array.std(), 1e-3)

    _change(_attribute(rng.choice(np.array(_trees(proto), object)), "leaf_weights").t, change)
    return True


def _split(proto: onnx.ModelProto, candidate: Candidate, rng: np.random.Generator) -> bool:
    """One threshold, by a hundredth of what the thresholds of its column differ by."""
    if not _trees(proto):
        return False
    node = rng.choice(np.array(_trees(proto), object))
    feature, modes = (
        np.array(_attribute(node, "nodes_featureids").ints),
        numpy_helper.to_array(_attribute(node, "nodes_modes").t),
    )
    at = int(rng.choice(np.flatnonzero(modes != 6)))

    def change(array: Matrix) -> None:
        array[at] += 0.01 * max(array[(feature == feature[at]) & (modes != 6)].std(), 1e-3)

    _change(_attribute(node, "nodes_splits").t, change)
    return True


def _missing(proto: onnx.ModelProto, candidate: Candidate, rng: np.random.Generator) -> bool:
    """One node that sends a missing value the other way."""
    nodes = []
    for node in _trees(proto):
        flags = _attribute(node, "nodes_missing_value_tracks_true")
        if flags is not None and any(field.nullable for field in candidate.coder.fields):
            feature = np.array(_attribute(node, "nodes_featureids").ints)
            asked = np.unique(feature[np.array(flags.ints) == 1])  # columns with a missing value in training
            nodes += [(flags, int(at)) for at in np.flatnonzero(np.isin(feature, asked))]
    if not nodes:
        return False
    flags, at = nodes[rng.integers(len(nodes))]
    flags.ints[at] = 1 - flags.ints[at]
    return True


def _coefficient(proto: onnx.ModelProto, candidate: Candidate, rng: np.random.Generator) -> bool:
    """One number of a table or of a linear model, by a hundredth."""
    tensors = [t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.DOUBLE]
    sizes = [int(np.count_nonzero(numpy_helper.to_array(t))) for t in tensors]
    if _trees(proto) or not tensors:
        return False

    def change(array: Matrix) -> None:
        flat = array.reshape(-1)
        flat[rng.choice(np.flatnonzero(flat))] *= 1.01

    weights = np.array(sizes) / sum(sizes)
    _change(tensors[int(rng.choice(len(tensors), p=weights))], change)
    return True


FAULTS = {"leaf": _leaf, "split": _split, "missing": _missing, "coefficient": _coefficient}


def found(candidate: Candidate, asked: Asked, mutant: Predict) -> bool:
    """Tell whether some row is answered differently."""
    return golden_rows.compare(candidate.signature, asked.answers, mutant(asked.rows))[1] is not None


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    print("| model | fault | mutants | golden rows of the sample | made golden rows | the whole sample |")
    print("|---|---|---|---|---|---|")
    for name, model, sample in models():
        candidate = prepare(Trained(model=model, sample=sample), {}, Outputs())
        graph = candidate.convert()
        predict = runner(graph)
        chosen = [select(candidate, predict, 0.0).golden for select in (choose, choose_made)]
        asked = [Asked(rows, predict(rows)) for rows in (*chosen, candidate.coded)]
        print(f"# {name}: {len(chosen[0])} and {len(chosen[1])} rows", file=sys.stderr)
        for kind in KINDS:
            caught = [[found(candidate, part, m) for part in asked] for m in mutants(candidate, graph, kind, count)]
            if caught:
                shares = " | ".join(f"{share:.0%}" for share in np.mean(caught, axis=0))
                print(f"| {name} | {kind} | {len(caught)} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
