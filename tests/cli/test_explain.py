"""estiba explain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import Estiba
from sklearn.linear_model import LinearRegression

import estiba as package


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of 2 a - 3 b + 1."""
    monkeypatch.setenv("ESTIBA_REGISTRY", str(tmp_path / "registry"))
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(150, 2)).round(2), columns=["a", "b"])
    model = LinearRegression().fit(rows, 2 * rows.a - 3 * rows.b + 1)
    package.pack(model, rows, name="line", registry=str(tmp_path / "registry"))


def test_contributions_of_a_line_are_its_terms(estiba: Estiba, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"a": 0, "b": 2}')
    first = json.loads(estiba("explain", "line", str(tmp_path / "record.json"), "--json").out)
    second = json.loads(estiba("explain", "line", str(tmp_path / "record.json"), "--set", "a=1.5", "--json").out)
    assert first["method"] == "additive"
    assert first["explained"] == pytest.approx(-5)
    by_field = [{c["field"]: c["contribution"] for c in each["contributions"]} for each in (first, second)]
    assert by_field[1]["a"] - by_field[0]["a"] == pytest.approx(3)
    assert by_field[1]["b"] == pytest.approx(by_field[0]["b"])


def test_a_table_of_the_models_own_example(estiba: Estiba) -> None:
    shown = estiba("explain", "line")
    assert shown.code == 0
    assert shown.out.startswith('line@1: {"value":')
    assert "contribution" in shown.out
    assert "Explained: value of value = " in shown.out
    assert "This is exact, as no fields of this model interact" in shown.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "a"], "FIELD=VALUE"),
        (["--set", "a=tall"], "a"),
        (["--output", "price"], "no output 'price'"),
    ],
)
def test_mistakes(estiba: Estiba, words: list[str], said: str) -> None:
    answer = estiba("explain", "line", *words)
    assert answer.code not in (0, 1)
    assert said in answer.err
