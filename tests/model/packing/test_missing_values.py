"""Columns with missing values and unusual dtypes: packed, they answer as the original does on rows of its own."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, TargetEncoder
from sklearn.tree import DecisionTreeClassifier

import estiba
from estiba.core.errors import BadProject, ParityError
from estiba.model.artifact.golden_rows import ALL_ROWS, RARE_ROWS, proof_rows
from estiba.model.coding.coder import Coded
from estiba.model.schema.signature import Field

pytestmark = pytest.mark.slow

COUNT = 3000
RARE = [7, 501, 1003, 2111]
"""Rows with a missing value, none of them among 200 that are spread evenly."""

SIZE = np.linspace(0, 1, COUNT)
ENCODERS = {
    "one-hot": lambda: OneHotEncoder(handle_unknown="ignore"),
    "ordinal": lambda: OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "target": lambda: TargetEncoder(),
    "imputed": lambda: make_pipeline(
        SimpleImputer(missing_values=np.nan, strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    ),
}
COLUMNS: dict[str, tuple[list[Any], object, str]] = {
    "float codes": ([1.0, 2.0, 3.0], np.nan, "float64"),
    "float32 codes": ([1.0, 2.0, 3.0], np.nan, "float32"),
    "words with None": (["a", "b", "c"], None, "object"),
    "words with NaN": (["a", "b", "c"], np.nan, "object"),
    "str": (["a", "b", "c"], None, "str"),
    "nullable integers": ([1, 2, 3], None, "Int64"),
    "nullable booleans": ([True, False], None, "boolean"),
    "booleans with None": ([True, False], None, "object"),
    "integers with None": ([1, 2, 3], None, "object"),
    "categorical": (["a", "b", "c"], None, "category"),
    "categorical integers": ([1, 2, 3], None, "category"),
}


def column(values: list[Any], missing: object, dtype: str, rows: list[int]) -> pd.Series[Any]:
    made = pd.Series(np.resize(np.array(values, object), COUNT), dtype=object)
    made[rows] = missing
    return made.astype(dtype)


def fitted(frame: pd.DataFrame, encoder: Any) -> Any:
    columns = make_column_transformer((encoder, ["grade"]), remainder="passthrough")
    gone = frame["grade"].isna() | (frame["size"] > 0.7)
    tree = DecisionTreeClassifier(max_depth=5, random_state=0)
    return make_pipeline(columns, tree).fit(frame, np.where(gone, "reject", "accept"))


# SimpleImputer does not take None, or booleans, for what it fills.
PAIRS = [
    (kind, encoder)
    for kind in COLUMNS
    for encoder in ENCODERS
    if encoder != "imputed" or not (kind.endswith("None") or "booleans" in kind)
]


@pytest.mark.parametrize(("kind", "encoder"), PAIRS)
@pytest.mark.parametrize("rows", [RARE, list(range(0, COUNT, 5))], ids=["rare", "often"])
def test_a_missing_value_reaches_the_encoder_as_in_training(
    kind: str, encoder: str, rows: list[int], tmp_path: Path
) -> None:
    frame = pd.DataFrame({"grade": column(*COLUMNS[kind], rows), "size": SIZE})
    model = fitted(frame, ENCODERS[encoder]())
    packed = estiba.pack(model, frame, name="grades", registry=tmp_path)
    parity = packed.artifact.manifest.parity
    assert parity is not None
    assert parity.note.endswith(f"and {COUNT} rows of the sample")
    loaded = estiba.load(packed.ref, registry=tmp_path, trust=True)
    asked = frame.iloc[sorted({*rows[:40], *range(40)})]
    shares = [answer["probabilities"]["reject"] for answer in loaded.predict(asked)]
    assert shares == pytest.approx(model.predict_proba(asked)[:, 1].tolist(), abs=1e-12)
    assert [answer["label"] for answer in loaded.predict(asked)] == model.predict(asked).tolist()


def test_a_boolean_column_before_an_encoder(tmp_path: Path) -> None:
    frame = pd.DataFrame({"grade": np.resize([True, False, False], COUNT), "size": SIZE})
    model = fitted(frame, OneHotEncoder(handle_unknown="ignore"))
    packed = estiba.pack(model, frame, name="members", registry=tmp_path)
    field = packed.artifact.manifest.signature.field("grade")
    assert (field.levels, field.unseen) == ((False, True), "error")
    loaded = estiba.load(packed.ref, registry=tmp_path)
    assert [answer["label"] for answer in loaded.predict(frame)] == model.predict(frame).tolist()


def test_none_and_nan_in_one_column_are_refused_where_the_model_tells_them_apart(tmp_path: Path) -> None:
    words = column(["a", "b"], None, "object", RARE)
    words[RARE[0]] = np.nan
    frame = pd.DataFrame({"grade": words, "size": SIZE})
    encode = OneHotEncoder(handle_unknown="ignore")
    columns = make_column_transformer((encode, ["grade"]), remainder="passthrough")
    alone = np.where(np.arange(COUNT) == RARE[0], "reject", "accept")
    model = make_pipeline(columns, DecisionTreeClassifier(random_state=0)).fit(frame, alone)
    frame["size"] = 0.5  # nothing but the missing value tells the rows apart
    model.fit(frame, alone)
    with pytest.raises(
        ParityError, match=r"1 of 3000 rows .* 'grade' makes the difference: the sample has nan"
    ) as caught:
        estiba.pack(model, frame, name="grades", registry=tmp_path)
    assert "one missing value before training" in str(caught.value.hint)


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_timestamps_keep_their_zone_and_their_microseconds(zone: str | None, unit: str, tmp_path: Path) -> None:
    times = pd.date_range("2024-03-30", periods=COUNT, freq="37min17s", tz=zone).as_unit(unit)  # type: ignore[arg-type]
    frame = pd.DataFrame({"at": times + pd.Timedelta(0 if unit == "s" else "123457us"), "size": SIZE})
    frame.loc[5, "at"] = pd.NaT
    words = FunctionTransformer(pd.DataFrame.astype, kw_args={"dtype": "str"})
    columns = make_column_transformer((words, ["at"]), ("passthrough", ["size"]))
    steps = columns, OneHotEncoder(handle_unknown="ignore"), DecisionTreeClassifier(random_state=0)
    model = make_pipeline(*steps).fit(frame, SIZE > 0.5)
    packed = estiba.pack(model, frame, name="times", registry=tmp_path)
    loaded = estiba.load(packed.ref, registry=tmp_path, trust=True)
    assert [answer["label"] for answer in loaded.predict(frame)] == model.predict(frame).tolist()


@pytest.mark.parametrize(
    ("values", "message", "remedy"),
    [
        ([Decimal(1), Decimal(2)], "type Decimal", "astype(float)"),
        ([datetime.date(2026, 1, 1)] * 2, "type date", "pd.to_datetime(df['odd'])"),
        (pd.to_timedelta([1, 2], unit="h"), "type Timedelta", "dt.total_seconds()"),
        (pd.period_range("2026-01", periods=2, freq="M"), "type Period", "astype(str)"),
        (pd.cut([1, 2], 2), "type Interval", "astype(str)"),
        ([["a"], ["b"]], "type list", "astype(str)"),
        (["a", 1], "mixes values of type int, str", "one type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_that_json_has_no_form_for_are_refused_with_a_remedy(
    values: Any, message: str, remedy: str, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"odd": pd.Series(values), "size": [0.0, 1.0]})
    reading = make_column_transformer((FunctionTransformer(_present), ["odd"]), ("passthrough", ["size"]))
    model = make_pipeline(reading, DecisionTreeClassifier())
    with pytest.raises(BadProject, match=message) as caught:
        estiba.pack(model.fit(frame, [0, 1]), frame, name="odd", registry=tmp_path)
    assert remedy in str(caught.value.hint)


def test_they_do_not_matter_in_a_column_that_the_model_does_not_read(tmp_path: Path) -> None:
    frame = pd.DataFrame({"odd": [Decimal(1), Decimal(2)], "size": [0.0, 1.0]})
    model = make_pipeline(make_column_transformer(("passthrough", ["size"])), DecisionTreeClassifier())
    packed = estiba.pack(model.fit(frame, [0, 1]), frame, name="odd", registry=tmp_path)
    assert packed.artifact.manifest.signature.names == ("size",)


def _present(rows: pd.DataFrame) -> Any:
    return rows.notna()


def test_times_that_an_encoder_takes_as_categories_are_refused_with_a_remedy(tmp_path: Path) -> None:
    frame = pd.DataFrame({"grade": pd.date_range("2026-01-01", periods=COUNT), "size": SIZE})
    with pytest.raises(BadProject, match="'grade' holds times that an encoder"):
        estiba.pack(fitted(frame, OneHotEncoder()), frame, name="times", registry=tmp_path)


def test_dates_before_an_encoder_are_to_become_text(tmp_path: Path) -> None:
    days = pd.Series([datetime.date(2026, 1, 1 + i % 3) for i in range(COUNT)])
    frame = pd.DataFrame({"grade": days, "size": SIZE})
    with pytest.raises(BadProject, match="'grade' holds values of type date") as caught:
        estiba.pack(fitted(frame, OneHotEncoder()), frame, name="dates", registry=tmp_path)
    assert "astype(str)" in str(caught.value.hint)
    text = frame.assign(grade=frame["grade"].astype(str))
    assert estiba.pack(fitted(text, OneHotEncoder()), text, name="dates", registry=tmp_path)


def test_an_object_column_of_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": pd.Series([1.5, 2.5] * 100, dtype=object), "b": pd.Series([1, 2] * 100, dtype=object)})
    model = DecisionTreeClassifier(random_state=0).fit(frame, [0, 1] * 100)
    packed = estiba.pack(model, frame, name="objects", registry=tmp_path)
    assert [field.kind for field in packed.artifact.manifest.signature.fields] == ["number", "integer"]
    loaded = estiba.load(packed.ref, registry=tmp_path)
    assert [answer["label"] for answer in loaded.predict({"a": 1.5, "b": 1})] == [0]


def test_of_a_large_sample_every_rare_row_is_proven() -> None:
    count = 10 * ALL_ROWS
    random = np.random.default_rng(0)
    matrix = np.column_stack([random.normal(size=count), random.integers(0, 3, count).astype(float)])
    gone, rare = [11, 4242, 77_777], [13, 50_001]
    matrix[gone, 0], matrix[rare, 1] = np.nan, 3.0
    fields = (Field(name="size", kind="number"), Field(name="word", kind="category", levels=("a", "b", "c", "d")))
    rows = set(proof_rows(fields, Coded(matrix)).tolist())
    assert rows.issuperset([*gone, *rare, int(np.nanargmin(matrix[:, 0])), int(np.nanargmax(matrix[:, 0]))])
    assert ALL_ROWS < len(rows) < ALL_ROWS + len(gone) + len(rare) + 3 * RARE_ROWS + 3
    assert len(proof_rows(fields, Coded(matrix[:ALL_ROWS]))) == ALL_ROWS
