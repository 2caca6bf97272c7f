"""Columns whose names cannot be those of fields: served under a safe name, which is shown, and taken under both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, SplineTransformer, StandardScaler

import estiba
from estiba.core.errors import BadInput
from estiba.model.inference.score_files import score
from estiba.model.schema.infer import safe_names
from estiba.model.schema.json_schema import json_schema
from estiba.serving.protocols.arrow_parquet import ARROW, PARQUET, code_table_body
from estiba.serving.protocols.body_parsing import code_records, code_table

RANDOM = np.random.default_rng(0)
ROWS = pd.DataFrame(RANDOM.normal(size=(200, 2)), columns=['size 27"', ""]).assign(
    **{'the "kind"': RANDOM.choice(["a", "b"], 200)}
)


@pytest.fixture
def original() -> Any:
    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ['the "kind"']), (StandardScaler(), ['size 27"', ""])
    )
    return make_pipeline(encoder, RandomForestRegressor(10, random_state=0)).fit(ROWS, ROWS['size 27"'] * 2)


@pytest.fixture
def packed(original: Any, tmp_path: Path) -> estiba.Packed:
    options = {'size 27"': {"minimum": -10}, "the _kind": {"description": "x"}}
    return estiba.pack(original, ROWS, name="m", registry=tmp_path, fields=options, holdout=ROWS[:50])


def test_they_are_served_under_a_safe_name_that_is_shown(packed: estiba.Packed) -> None:
    signature = packed.artifact.manifest.signature
    assert signature.names == ("size 27", "column_2", "the _kind")
    assert [field.column for field in signature.fields] == list(ROWS.columns)
    assert signature.field("size 27").minimum == -10
    assert json_schema(signature)["properties"]["size 27"]["title"] == 'size 27"'
    assert any("'size 27' in requests" in note for note in packed.notes)
    assert packed.artifact.manifest.engine == "onnx"


def test_rows_are_taken_under_both_names(packed: estiba.Packed, original: Any, tmp_path: Path) -> None:
    model = estiba.load(packed.ref, registry=tmp_path)
    expected = original.predict(ROWS).tolist()
    safe = ROWS.set_axis(list(model.signature.names), axis=1)
    for rows in (ROWS, safe, ROWS.to_numpy().tolist()):
        assert [row["value"] for row in model.predict(rows)] == expected
    with pytest.raises(BadInput, match="under both of its names"):
        model.predict({**dict(safe.iloc[0]), "": 1.0})


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_have_either_name(packed: estiba.Packed, original: Any, tmp_path: Path, suffix: str) -> None:
    source, target = tmp_path / f"in.{suffix}", tmp_path / "out.csv"
    rows = ROWS[['the "kind"', "", 'size 27"']].assign(id=1)
    if suffix == "csv":
        rows.to_csv(source, index=False)
    else:
        pq.write_table(pa.table({name: rows[name].tolist() for name in rows}), source)
    assert score(estiba.load(packed.ref, registry=tmp_path), source, target, keep=["id", 'size 27"']).rows == 200
    assert pd.read_csv(target)["size 27"].tolist() == pytest.approx(ROWS['size 27"'].tolist())
    assert pd.read_csv(target)["value"].tolist() == pytest.approx(original.predict(ROWS).tolist(), abs=1e-12)


@pytest.mark.slow
def test_the_python_engine_gets_the_own_names(tmp_path: Path) -> None:
    rows = ROWS[['size 27"', ""]]
    model = make_pipeline(
        make_column_transformer((SplineTransformer(), ['size 27"']), (PolynomialFeatures(), [""])),
        LinearRegression(),
    ).fit(rows, rows[""])
    packed = estiba.pack(model, rows, name="p", registry=tmp_path, engine="python")
    answers = estiba.load(packed.ref, registry=tmp_path, trust=True).predict(rows)
    assert [row["value"] for row in answers] == pytest.approx(model.predict(rows).tolist(), abs=1e-12)


def test_names_are_distinct() -> None:
    assert safe_names(["a", 'a"', "", '"', "b\\c", "column_3"]) == {
        'a"': "a_2",
        "": "column_3_2",
        '"': "column_4",
        "b\\c": "b_c",
    }


def test_a_field_that_may_be_missing_is_taken_under_its_own_name_in_every_form(tmp_path: Path) -> None:
    rows = pd.DataFrame({'size 27"': [*RANDOM.normal(size=99), np.nan], "b": RANDOM.normal(size=100)})
    original = HistGradientBoostingRegressor(max_iter=5).fit(rows, rows["b"] + rows['size 27"'].fillna(0))
    estiba.pack(original, rows, name="m", registry=tmp_path, extra="ignore", quiet=True)
    model = estiba.load("m", registry=tmp_path)
    table = pa.table({name: pa.array(rows[name], from_pandas=True) for name in rows})
    stream, file = pa.BufferOutputStream(), pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, file)
    records = table.to_pylist()
    forms = {
        "arrow": code_table_body(model.coder, stream.getvalue().to_pybytes(), ARROW, 2**20),
        "parquet": code_table_body(model.coder, file.getvalue().to_pybytes(), PARQUET, 2**20),
        "records": code_records(model.coder, [{**record, "else": 1} for record in records]),
        "rows": code_table(model.coder, list(rows), [list(record.values()) for record in records]),
    }
    expected = original.predict(rows)
    for form, coded in forms.items():
        assert model.answer(coded)[:, 0] == pytest.approx(expected, abs=1e-12), form
