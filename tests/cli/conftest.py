"""A registry with two versions of a real model, and the command line as a function."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import Estiba, Ran

from estiba.cli.main import run


@pytest.fixture
def estiba(capsys: pytest.CaptureFixture[str]) -> Estiba:
    """Runs a command line in this process, without a terminal."""

    def call(*arguments: object) -> Ran:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ESTIBA_REGISTRY", "ESTIBA_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def packed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with churn@1 and churn@2, of which the first is production; and flats, on simulated data."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LinearRegression, LogisticRegression

    import estiba as package

    place = tmp_path_factory.mktemp("registry")
    draw = np.random.default_rng(7)
    sample = pd.DataFrame({"age": draw.integers(18, 80, 200), "balance": draw.normal(1000, 300, 200).round(2)})
    target = (sample["age"] > 50).astype(int)
    for strength, aliases in ((1.0, ["production"]), (0.5, [])):
        model = LogisticRegression(C=strength, max_iter=1000).fit(sample, target)
        package.pack(model, sample, name="churn", metrics={"roc_auc": 0.9}, registry=place, aliases=aliases)
    made_up = package.Source(name="Dice", rows=200, simulated=True)
    regression = LinearRegression().fit(sample[["age"]], sample["balance"])
    package.pack(regression, sample[["age"]], name="flats", source=made_up, registry=place)
    return place


@pytest.fixture
def registry(packed_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that registry, which commands find by themselves."""
    shutil.copytree(packed_once, tmp_path / "registry")
    monkeypatch.setenv("ESTIBA_REGISTRY", str(tmp_path / "registry"))
    return tmp_path / "registry"
