"""A booster's file names the categories of its columns, so a sample of plain values is typed by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from xgboost import XGBClassifier

import estiba
from estiba.core.errors import BadProject
from estiba.model.packing.from_file import from_file
from estiba.model.packing.pack import PackOptions, register

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
ROWS = pd.DataFrame(
    {
        "v": RANDOM.normal(size=300),
        "postcode": pd.Categorical(RANDOM.choice(["00501", "NA", "10001"], 300), categories=["NA", "10001", "00501"]),
        "size": pd.Categorical(RANDOM.choice([3, 1, 2], 300)),
    }
)
TARGET = ((ROWS.postcode == "NA") ^ (ROWS["size"] == 3)).astype(int)


def saved(library: str, folder: Path) -> tuple[Path, Any]:
    if library == "lightgbm":
        model = LGBMClassifier(n_estimators=10, verbose=-1).fit(ROWS, TARGET)
        model.booster_.save_model(folder / "m.txt")
        return folder / "m.txt", model
    model = XGBClassifier(n_estimators=10, enable_categorical=True).fit(ROWS, TARGET)
    model.save_model(folder / f"m.{library}")
    return folder / f"m.{library}", model


@pytest.mark.parametrize("library", ["lightgbm", "json", "ubj"])
def test_a_csv_sample_is_typed_by_the_file(library: str, tmp_path: Path) -> None:
    path, model = saved(library, tmp_path)
    ROWS.assign(y=TARGET).to_csv(tmp_path / "rows.csv", index=False)
    trained, _ = from_file(path, tmp_path / "rows.csv", target="y")
    packed = register(trained, "m", PackOptions(), registry=tmp_path / "registry")
    loaded = estiba.load(packed.ref, registry=tmp_path / "registry")
    assert loaded.signature.field("postcode").levels == ("NA", "10001", "00501")
    assert loaded.signature.field("size").levels == (1, 2, 3)
    answers = loaded.predict(ROWS.astype({"postcode": object, "size": object}))
    ours = [row["value"] if "value" in row else row["probabilities"]["1"] for row in answers]
    assert ours == pytest.approx(model.predict_proba(ROWS)[:, 1], abs=1e-6)


def test_a_value_that_is_no_category_is_refused(tmp_path: Path) -> None:
    path, _ = saved("lightgbm", tmp_path)
    rows = ROWS.astype({"postcode": object})
    rows.loc[7, "postcode"] = "99999"
    rows.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(BadProject, match=r"column 'postcode': '99999' is not a category"):
        from_file(path, tmp_path / "rows.csv")
