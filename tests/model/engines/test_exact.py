"""The kernel answers as ONNX Runtime does, on hard rows, in any batch; and what it does not know, that runs."""

from __future__ import annotations

import random
import tracemalloc
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conversion_cases import Case, cases
from conversion_check import coded_rows, fields_of
from threadpoolctl import threadpool_limits

from estiba.model.coding.coder import Coded
from estiba.model.coding.kernel import compiled
from estiba.model.convert import convert
from estiba.model.convert.graph import Graph
from estiba.model.convert.trees import Tree, scalar_sum, vector_sum
from estiba.model.engines.columns import Columns
from estiba.model.engines.exact import ExactEngine, open_exact
from estiba.model.engines.lower_onnx import lower
from estiba.model.engines.onnx import session
from estiba.model.engines.onnx_reader import NotRecognised, read_model
from estiba.model.engines.program import assemble
from estiba.model.inference.load import load
from estiba.model.packing.pack import pack
from estiba.model.schema.signature import Field

if compiled() is None:
    pytest.skip("Estiba was installed without a C compiler", allow_module_level=True)

TREES = ("Tree", "Forest", "Boosting", "AdaBoost", "Bagging", "Isolation", "XGBoost", "LightGBM", "CatBoost")
LINKED = ("GradientBoosting", "AdaBoostClassifier", "LightGBM", "CatBoost", "poisson", "logistic")
"""Answers behind an exponential, in which libraries differ by a last bit."""

NUMBER = (Field(name="x", kind="number", nullable=True),)


@cache
def converted(name: str) -> tuple[bytes, tuple[Field, ...], int, np.ndarray]:
    """A case's graph, its fields, the width of its answers, and hard rows for it."""
    case = next(c for c in cases() if c.name == name)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        model, sample = case.fit()
        fields = fields_of(sample, case.missing, case.unseen)
        made = convert(model, fields, sample)
        return made.onnx, fields, made.head.width, coded_rows(sample, fields, made)[:700]


def tree_cases() -> list[Case]:
    """The cases with trees, except those whose other steps only ONNX Runtime has, or that do not convert."""
    elsewhere = ("KNNImputer", "CatBoost(statistics)")
    return [c for c in cases() if any(word in c.name for word in TREES) and not c.name.startswith(elsewhere)]


def asked_alone(onnx: bytes, rows: np.ndarray) -> np.ndarray:
    """ONNX Runtime, one row at a time: in a batch, it counts some votes twice if any row needs it."""
    running = session(onnx)
    return np.concatenate([running.run(["y"], {"x": row[None]})[0] for row in rows])


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize("name", [c.name for c in tree_cases()])
def test_every_tree_answers_as_onnx_runtime_does(name: str) -> None:
    onnx, fields, width, rows = converted(name)
    engine = ExactEngine(onnx, fields, width)
    expected, got = asked_alone(onnx, rows), engine.predict(Coded(rows))
    if any(word in name for word in LINKED):
        assert np.nanmax(np.abs(expected - got) / np.maximum(1, np.abs(expected))) < 1e-15
    else:
        assert same(expected, got)
    for size in (1, 2, 11, 16, 17, 30, 64, 65, 257):
        assert same(engine.predict(Coded(rows[:size])), got[:size]), "the answer depends on the other rows"


@pytest.mark.parametrize("name", ["OneHotEncoder, LogisticRegression, 3 classes", "VotingClassifier(soft), 2 classes"])
def test_what_stands_beside_trees_runs_too(name: str) -> None:
    onnx, fields, width, rows = converted(name)
    got = ExactEngine(onnx, fields, width).predict(Coded(rows))
    assert np.abs(asked_alone(onnx, rows) - got).max() < 1e-14


@pytest.mark.parametrize("name", ["KNeighborsRegressor", "MLPRegressor", "SVC, 3 classes"])
def test_other_graphs_are_not_recognised(name: str) -> None:
    onnx, fields, width, _ = converted(name)
    with pytest.raises(NotRecognised):
        ExactEngine(onnx, fields, width)


def balanced(thresholds: np.ndarray, target: int = 0, vectors: bool = False) -> Tree:
    """A tree that finds the place of its input among sorted thresholds; 2^n - 1 of them."""
    inner = len(thresholds)
    depth = (inner + 1).bit_length() - 1
    order = np.concatenate([np.arange(2**d) * 2 ** (depth - d) + 2 ** (depth - d - 1) - 1 for d in range(depth)])
    left = np.concatenate([2 * np.arange(inner) + 1, np.full(inner + 1, -1)])
    value = np.concatenate([np.zeros(inner), np.arange(inner + 1.0)])
    return Tree(
        np.zeros(2 * inner + 1, np.int64), np.concatenate([thresholds[order], np.zeros(inner + 1)]), left,
        np.where(left < 0, -1, left + 1), np.arange(2 * inner + 1) % 2 == 0,
        np.stack([value, -value], axis=1) if vectors else value, target,
    )  # fmt: skip


def graph_of(trees: Sequence[Tree], vectors: bool = False) -> bytes:
    g = Graph(1)
    return g.model(vector_sum(g, "x", trees) if vectors else scalar_sum(g, "x", trees), 1 + vectors)


@pytest.mark.slow
@pytest.mark.parametrize("vectors", [False, True])
def test_more_thresholds_than_a_rank_can_count(vectors: bool) -> None:
    rng = np.random.default_rng(1)
    thresholds = np.sort(rng.normal(size=3 * (2**15 - 1))).reshape(-1, 3).T.copy()
    model = graph_of([balanced(t, vectors=vectors) for t in thresholds], vectors)
    x = np.concatenate([rng.choice(thresholds.ravel(), 500), rng.normal(size=500), [np.nan, np.inf, -np.inf]])[:, None]
    x = np.concatenate([x, np.nextafter(x, -np.inf), np.nextafter(x, np.inf)])
    engine = ExactEngine(model, NUMBER, 1 + vectors)
    assert same(session(model).run(["y"], {"x": x})[0], engine.predict(Coded(x)))


@pytest.mark.slow
def test_a_large_forest_is_read_in_a_few_copies(tmp_path: Path) -> None:
    """A node is 17 bytes of the file, and 20 in the kernel."""
    rng = np.random.default_rng(0)
    forest = [balanced(np.sort(rng.normal(size=2**12 - 1))) for _ in range(40)]
    nodes = sum(len(tree.left) for tree in forest)
    file = tmp_path / "model.onnx"
    file.write_bytes(graph_of(forest))
    tracemalloc.start()
    engine = open_exact(file, NUMBER, 1)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 25 * nodes
    assert peak < 55 * nodes
    x = rng.normal(size=(50, 1))
    assert same(session(file.read_bytes()).run(["y"], {"x": x})[0], engine.predict(Coded(x)))


def test_one_tree_with_more_thresholds_is_not_recognised() -> None:
    with pytest.raises(NotRecognised, match="more thresholds"):
        ExactEngine(graph_of([balanced(np.arange(2.0**16 - 1))]), NUMBER, 1)


def test_a_set_without_any_level_that_there_is() -> None:
    field = Field(name="x", kind="category", levels=("a", "b"))
    none = np.full(1, -1)
    tree = Tree(
        np.zeros(3, np.int64), np.zeros(3), np.append(1, [none, none]), np.append(2, [none, none]),
        np.zeros(3, bool), np.array([0.0, 1.0, 2.0]), members={0: (7,)},
    )  # fmt: skip
    model, x = graph_of([tree]), np.array([[0.0], [1.0]])
    assert same(session(model).run(["y"], {"x": x})[0], ExactEngine(model, (field,), 1).predict(Coded(x)))


def test_a_code_that_no_category_has_is_refused() -> None:
    onnx, fields, width, rows = converted("OneHotEncoder, RandomForestClassifier, 2 classes")
    engine = ExactEngine(onnx, fields, width)
    place = next(i for i, field in enumerate(fields) if field.kind == "category")
    for wrong in (-2.0, 0.5, float(len(fields[place].levels)), 1e300, np.inf):
        for count in (1, 40):
            broken = rows[:count].copy()
            broken[-1, place] = wrong
            with pytest.raises(ValueError, match="code"):
                engine.predict(Coded(broken))


def test_threads_share_a_kernel() -> None:
    onnx, fields, width, rows = converted("OneHotEncoder, RandomForestClassifier, 3 classes")
    many = np.resize(rows, (9001, rows.shape[1]))
    expected = ExactEngine(onnx, fields, width).predict(Coded(many))
    engine = ExactEngine(onnx, fields, width, threads=3)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: engine.predict(Coded(many[:n])), [9001, 5, 9001, 300, 9001, 64] * 3))
    engine.close()
    assert all(same(answer, expected[: len(answer)]) for answer in found)


def test_no_rows_have_no_answers() -> None:
    onnx, fields, width, rows = converted("DecisionTreeRegressor")
    assert ExactEngine(onnx, fields, width).predict(Coded(rows[:0])).shape == (0, 1)


@pytest.mark.parametrize(
    "name", ["OneHotEncoder, RandomForestClassifier, 3 classes", "HistGradientBoostingClassifier, missing, 3 classes"]
)
def test_broken_files_are_refused_or_run_but_never_crash(name: str) -> None:
    onnx, fields, width, rows = converted(name)
    chance = random.Random(5)
    refused = 0
    for _ in range(250):
        broken = bytearray(onnx)
        for _ in range(chance.choice([1, 1, 3, 20])):
            broken[chance.randrange(len(broken))] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
        content = bytes(broken[: chance.randrange(len(broken))] if chance.random() < 0.2 else broken)
        try:
            engine = ExactEngine(content, fields, width)
        except NotRecognised:
            refused += 1
            continue
        for count in (1, 40):
            assert engine.predict(Coded(rows[:count])).shape == (count, width)
    assert refused > 20


def test_broken_programs_are_refused_or_run_but_never_crash() -> None:
    onnx, fields, width, rows = converted("OneHotEncoder, RandomForestClassifier, 2 classes")
    kernel: Any = compiled()
    columns = Columns([None] * len(fields))
    parts = assemble(columns, lower(read_model(onnx, kernel.scan), columns, width), kernel.OPERATIONS)
    rows = np.nan_to_num(np.ascontiguousarray(rows[:20]))
    chance = random.Random(6)
    refused = 0
    for _ in range(3000):
        try:
            running = kernel.Kernel(_damaged(parts, chance))
        except ValueError:
            refused += 1
            continue
        for count in (1, 20):
            try:
                running.run(rows[:count], np.empty((count, width)))
            except ValueError:
                refused += 1
    assert refused > 300


def _damaged(parts: tuple[Any, ...], chance: random.Random) -> tuple[Any, ...]:
    """The same tuple with one number, or one byte of one list, changed."""
    place = chance.randrange(len(parts))
    value = parts[place]
    if isinstance(value, tuple):
        inner = chance.randrange(len(value)) if value else 0
        value = tuple(_damaged(v, chance) if i == inner else v for i, v in enumerate(value))
    elif isinstance(value, int):
        value = chance.choice([0, 1, value + 1, value - 1, 2**31 - 1, 2**40, -1])
    elif value:
        at, byte = chance.randrange(len(value)), chance.choice([0, 1, 2, 127, 255, chance.randrange(256)])
        value = value[:at] + bytes([byte]) + value[at + 1 :]
    return (*parts[:place], value, *parts[place + 1 :])


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(300, 3)), columns=list("abc"))
    y = (X["a"] + X["b"] > 0).astype(int)
    model = RandomForestClassifier(10, max_depth=4, random_state=0).fit(X, y)
    return pack(model, X, name="forest", registry=tmp_path_factory.mktemp("registry")).artifact.path


def test_an_artifact_runs_on_the_kernel_and_says_so(packed: Path) -> None:
    model = load(packed)
    assert model.runtime == "estiba kernel"
    assert model.parity is not None
    assert max(model.parity.max_abs_error.values()) < 1e-15


def test_the_kernel_can_be_switched_off(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESTIBA_KERNEL", "off")
    assert load(packed).runtime == "ONNX Runtime"


def test_a_kernel_that_answers_otherwise_is_replaced(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = ExactEngine.predict
    monkeypatch.setattr(ExactEngine, "predict", lambda self, coded: right(self, coded) + 1e-3)
    model = load(packed)
    assert model.runtime == "ONNX Runtime"
    assert "ONNX Runtime does" in model.notes[0]
