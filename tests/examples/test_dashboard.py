"""The CarVision dashboard, tested with AppTest and in a browser, with a real model server and without one."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from applications import PORTFOLIO, Served, clean, environment, running
from browser import Browser, browsing, missing
from toys import SUPPORT, Live

from estiba.core.ports import free

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

APP = PORTFOLIO / "dashboard" / "app.py"
NOWHERE = "http://127.0.0.1:1"
TABS = ["Overview", "Market Analysis", "Model Metrics", "Price a car"]


@pytest.fixture(scope="session")
def programs() -> Path:
    return environment("dashboard")


@pytest.fixture(scope="session")
def url(serve: Served) -> str:
    return serve("carvision")


def visit(programs: Path, url: str, choose: dict[str, Any] | None = None, **more: str) -> dict[str, Any]:
    """The page that a visitor of the dashboard sees; with `choose`, after entering that and asking for the price."""
    asked = {"app": str(APP), "choose": choose or {}, "price": choose is not None}
    done = subprocess.run(
        [programs / "python", SUPPORT / "dashboard_visit.py", json.dumps(asked)],
        capture_output=True,
        text=True,
        cwd=PORTFOLIO,
        env=clean(CARVISION_URL=url, **more),
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen["exceptions"] == []
    assert seen["tabs"] == TABS
    return seen


@pytest.fixture(scope="session")
def opened(programs: Path, url: str) -> dict[str, Any]:
    return visit(programs, url)


def test_the_pages_describe_the_adverts_and_the_served_model(opened: dict[str, Any]) -> None:
    assert {"Adverts", "Median price", "R²"} <= opened["metrics"].keys()
    assert int(opened["metrics"]["Adverts"].replace(",", "")) > 1000
    assert 0.5 < float(opened["metrics"]["R²"]) < 1
    assert opened["errors"] == []
    assert any("rows asked of both, largest difference" in text for text in opened["texts"])
    assert any(text.startswith("**Data:** US adverts of used") for text in opened["texts"])


def test_the_form_has_the_fields_of_the_signature(opened: dict[str, Any]) -> None:
    assert {f"field-{name}" for name in module("adverts").FIELDS} | {"make"} <= set(opened["keys"])
    assert opened["options"]["field-fuel"] == ["diesel", "electric", "gas", "hybrid", "other"]
    assert len(opened["options"]["field-model"]) > 1


def test_another_car_has_another_price(programs: Path, url: str, opened: dict[str, Any]) -> None:
    other = opened["options"]["field-model"][-1]
    seen = visit(programs, url, {"field-model": other, "field-model_year": 2018, "field-odometer": 20000.0})
    title, price = next((label, value) for label, value in seen["metrics"].items() if label.startswith(other))
    assert title == f"{other}, 2018, by model version 1"
    assert price.startswith("$")
    assert any("off by" in text and "Without the odometer" not in text for text in seen["texts"])


def test_what_the_server_finds_wrong_stands_at_the_field(programs: Path, url: str) -> None:
    seen = visit(programs, url, {"field-model_year": 1880, "field-odometer": -5.0})
    complaints = [text for text in seen["texts"] if text.startswith(":red[")]
    assert len(complaints) == 2
    assert complaints[0] == ":red[Must be at least 1990, got 1880]"
    assert complaints[1] == ":red[Must be at least 0, got -5]"
    assert "No price" in seen["headings"]


def test_without_a_model_server_the_pages_say_so_and_still_show_the_market(programs: Path) -> None:
    seen = visit(programs, NOWHERE)
    assert len(seen["errors"]) == 2
    assert all("Nothing answers at http://127.0.0.1:1. Start the models" in error for error in seen["errors"])
    assert "Median price" in seen["metrics"]
    assert seen["keys"] == []


def test_a_server_of_other_models_says_which_it_has(programs: Path, server: Live) -> None:
    seen = visit(programs, server.url)
    assert seen["errors"][0] == "There is no model 'carvision' here. Being served: churn, price."


def test_the_market_pages_read_the_same_rows_as_training() -> None:
    found = module("cars").read(module("cars").find())
    trained, source = module("adverts").load(None if found.table["make"].nunique() == 1 else module("cars").find())
    assert found.rows == source.rows
    columns = ["price", "model", *module("cars").FACTS]
    pd.testing.assert_frame_equal(found.table[columns], trained[columns], check_dtype=False)


def test_models_are_compared_where_all_cars_are_of_one_make() -> None:
    summaries = module("summaries")
    models = ["mercedes-benz c-class", "ford focus", "mercedes-benz c-class", "mercedes-benz"]
    table = pd.DataFrame({"model": models, "make": map(module("cars").make, models), "price": [1.0, 9.0, 3.0, 5.0]})
    word, offered = summaries.most_offered(table)
    assert (word, offered["kind"].tolist()) == ("Make", ["Mercedes-Benz", "Ford"])
    word, offered = summaries.most_offered(table[table["make"] == "Mercedes-Benz"])
    assert (word, offered["kind"].tolist()) == ("Model", ["c-class", "mercedes-benz"])
    assert offered["median"].tolist() == [2.0, 5.0]


def test_a_foreign_table_is_refused_by_name(tmp_path: Path) -> None:
    cars = module("cars")
    (tmp_path / cars.FILE).write_text("price,model\n1,x\n")
    with pytest.raises(cars.NoAdverts, match=r"vehicles_us\.csv is not the expected table"):
        cars.read(tmp_path / cars.FILE)


@pytest.mark.parametrize(
    ("model", "make"),
    [
        ("ford f-150", "Ford"),
        ("bmw x5", "BMW"),
        ("mercedes-benz c-class", "Mercedes-Benz"),
        ("land rover lr2", "Land Rover"),
    ],
)
def test_a_model_belongs_to_a_make(model: str, make: str) -> None:
    assert module("cars").make(model) == make


def module(name: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for folder in (PORTFOLIO, PORTFOLIO / "dashboard"):
            patch.syspath_prepend(str(folder))
        return importlib.import_module(name)


@pytest.fixture(scope="session")
def tab(programs: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with the dashboard open, as its command serves it."""
    if program := missing():
        pytest.skip(f"{program} is not installed")
    folder, port = tmp_path_factory.mktemp("dashboard"), free("127.0.0.1")
    command = [programs / "streamlit", "run", APP, "--server.address", "127.0.0.1", "--server.port", str(port)]
    here = f"http://127.0.0.1:{port}"
    with (
        running(command, f"{here}/_stcore/health", log=folder / "log", more={"CARVISION_URL": url}),
        browsing(folder / "profile") as browser,
    ):
        browser.requested()
        _open(browser, here)
        yield browser


def _open(browser: Browser, url: str) -> None:
    """Loads the page, once more where this machine's networks changed meanwhile, at which Chromium drops requests."""
    for _ in range(3):
        browser.open(url, width=1440, height=1100, wait="")
        browser.wait("return document.querySelectorAll('[role=tab]').length == 4", seconds=60)
        browser.wait(IDLE, seconds=60)
        if not any("ERR_NETWORK_CHANGED" in line for line in browser.console()):
            return


IDLE = "return !document.querySelector('[data-testid=stStatusWidget]')"


def turn(tab: Browser, name: str) -> str:
    """The text of a tab of the dashboard once it is drawn."""
    tab.run("[...document.querySelectorAll('[role=tab]')].find(t => t.innerText == arguments[0]).click()", name)
    tab.wait(IDLE, seconds=30)
    shown = "[...document.querySelectorAll('[role=tabpanel]')].find(p => p.offsetParent)"
    tab.wait(
        f"const p = {shown}; return p && p.innerText.length > 100 && p.querySelector('canvas, svg, input')", seconds=30
    )
    return str(tab.run(f"return {shown}.innerText"))


def test_every_tab_is_drawn_and_nothing_is_asked_of_others(
    tab: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [turn(tab, name) for name in TABS]
    monkeypatch.delenv("ESTIBA_DATA", raising=False)  # the dashboard runs without it
    cars = module("cars")
    offer = f"{module('summaries').kinds(cars.read(cars.find()).table)[0]}s on offer"
    for text, expected in zip(texts, (offer, "Price by mileage", "Model card", "Describe the car"), strict=True):
        assert expected in text
    tab.screenshot(Path(os.environ.get("ESTIBA_SCREENSHOTS", tmp_path)) / "dashboard.png")
    assert [url for url in tab.requested() if url.startswith("http") and "//127.0.0.1" not in url] == []
    assert [line for line in tab.console() if "SEVERE" in line] == []


def test_a_name_that_training_never_saw_is_priced_with_a_remark(tab: Browser) -> None:
    turn(tab, "Price a car")
    tab.press("//input[contains(@aria-label, 'Model *')]", "Trabant 601\ue007")
    tab.wait(IDLE, seconds=30)
    tab.click("//button[.//p[contains(., 'Price this car')]]")
    tab.wait("return document.body.innerText.includes('Training never saw this')", seconds=30)
    assert "trabant 601, " in tab.run("return document.body.innerText")
