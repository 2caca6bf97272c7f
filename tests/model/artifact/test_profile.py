"""Training profiles have bins, levels, texts, outputs and background rows, a bounded size, and a source."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import estiba
from estiba.core.errors import BadArtifact, BadProject
from estiba.model.artifact import artifact, profile
from estiba.model.artifact.profile import Levels, Numbers, Profile
from estiba.model.coding.coder import Coded, Coder, Matrix
from estiba.model.schema.signature import UNSEEN, Field, Head, Outputs, Signature

pytestmark = pytest.mark.slow

NAN = math.nan


def of_column(field: Field, values: list[float], texts: list[str | None] | None = None) -> Profile:
    """The profile of a model with one field that answers with 0."""
    signature = Signature(fields=(field,), head=Head(kind="values", names=("y",)))
    rows = Coded(np.array(values, np.float64).reshape(-1, 1), {field.name: texts} if texts is not None else {})
    return profile.build(signature, rows, lambda coded: np.zeros((len(coded), 1)), "sample")


def numbers(values: list[float], kind: Any = "number") -> Numbers:
    found = of_column(Field(name="x", kind=kind), values).fields["x"]
    assert isinstance(found, Numbers)
    return found


def levels(field: Field, values: list[float]) -> Levels:
    found = of_column(field, values).fields[field.name]
    assert isinstance(found, Levels)
    return found


def test_bins_of_numbers_hold_equal_shares() -> None:
    found = numbers([*np.linspace(0, 1, 1000), NAN, NAN])
    assert (found.missing, len(found.edges), found.minimum, found.maximum) == (2, 19, 0.0, 1.0)
    assert set(found.counts) == {50}
    assert found.mean == pytest.approx(0.5)
    assert found.sd == pytest.approx(np.std(np.linspace(0, 1, 1000)))


def test_a_number_that_many_rows_share_has_a_bin_of_its_own() -> None:
    rng = np.random.default_rng(0)
    values = [0.0] * 360 + rng.lognormal(size=640).tolist()
    found = numbers(values)
    zero = found.edges.index(0.0)
    assert found.edges[zero + 1] == np.nextafter(0, 1)
    assert found.counts[zero + 1] == 360
    assert found.counts[0] == 0


def test_an_integer_that_many_rows_share_ends_at_the_next_one() -> None:
    found = numbers([7.0] * 500 + [float(n) for n in range(100, 600)], "integer")
    assert found.edges[:2] == (7.0, 8.0)
    assert found.counts[1] == 500


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=80),
    st.lists(st.just(NAN), max_size=3),
)
def test_every_row_is_in_the_bin_of_its_value(values: list[float], missing: list[float]) -> None:
    found = of_column(Field(name="x", kind="number"), values + missing).fields["x"]
    assert found.missing == len(missing)
    if isinstance(found, Levels):
        assert {v: values.count(v) for v in found.values} == dict(zip(found.values, found.counts, strict=True))
        return
    assert list(found.edges) == sorted(set(found.edges))
    assert len(found.counts) == len(found.edges) + 1 <= profile.MAX_BINS + 1
    expected = [0] * len(found.counts)
    for value in values:
        expected[sum(edge <= value for edge in found.edges)] += 1
    assert list(found.counts) == expected
    assert msgspec.json.decode(msgspec.json.encode(found), type=Numbers) == found


def test_few_whole_numbers_are_counted_one_by_one() -> None:
    found = levels(Field(name="x", kind="integer"), [1.0, 2.0, 2.0, 4.0] * 25 + [NAN])
    assert (found.values, found.counts, found.missing) == ((1.0, 2.0, 4.0), (25, 50, 25), 1)


@pytest.mark.parametrize(("value", "constant"), [([3.0] * 50, True), ([3.0] * 49 + [NAN], True), ([1.0, 2.0], False)])
def test_constant_fields_are_named(value: list[float], constant: bool) -> None:
    found = of_column(Field(name="x", kind="number"), value)
    assert found.constant_fields == (("x",) if constant else ())


def test_a_column_without_values_has_one_bin() -> None:
    found = numbers([NAN, NAN])
    assert (found.missing, found.edges, found.counts, found.minimum, found.mean) == (2, (), (0,), None, None)


def test_levels_are_counted_by_code() -> None:
    field = Field(name="x", kind="category", levels=("a", "b", "c"), unseen="other")
    found = levels(field, [0.0, 0.0, 2.0, UNSEEN, NAN])
    assert (found.values, found.counts) == ((0.0, 1.0, 2.0), (2, 0, 1))
    assert (found.unseen, found.missing, found.other) == (1, 1, 0)


def test_only_the_most_frequent_levels_are_kept() -> None:
    field = Field(name="x", kind="category", levels=tuple(f"level {n}" for n in range(1000)))
    codes = np.repeat(np.arange(1000.0), np.arange(1000) // 100 + 1).tolist()
    found = levels(field, codes)
    assert found.values == tuple(float(n) for n in range(900, 1000))
    assert found.counts == (10,) * 100
    assert found.other == len(codes) - 1000


def test_texts_are_profiled_by_length_and_cut_in_background_rows() -> None:
    texts = ["ab", None, "x" * 500] * 20
    found = of_column(Field(name="note", kind="text"), [0.0, NAN, 0.0] * 20, texts)
    lengths = found.fields["note"]
    assert isinstance(lengths, Numbers)
    assert (lengths.missing, lengths.minimum, lengths.maximum) == (20, 2.0, 500.0)
    assert set(found.background.texts["note"]) == {"ab", None, "x" * profile.MAX_TEXT_CHARACTERS}
    assert found.background.coded.texts["note"][:2] == ["ab", None]


def of_answers(raw: Matrix, head: Head, outputs: Outputs = Outputs()) -> Profile:  # noqa: B008 - it is frozen
    signature = Signature(fields=(Field(name="x", kind="number"),), head=head, outputs=outputs)
    rows = Coded(np.arange(float(len(raw))).reshape(-1, 1))
    return profile.build(signature, rows, lambda coded: raw[coded.matrix[:, 0].astype(int)], "holdout")


def test_of_two_classes_the_positive_one_has_a_distribution() -> None:
    p = np.linspace(0, 1, 101)
    head = Head(kind="probabilities", classes=("no", "yes"))
    found = of_answers(np.column_stack([1 - p, p]), head, Outputs(threshold=0.25)).outputs
    assert list(found.columns) == ["yes"]
    assert found.labels is not None
    assert found.labels.counts == (25, 76)


def test_many_classes_keep_those_that_are_predicted_most() -> None:
    raw = np.zeros((500, 50))
    raw[np.arange(500), np.tile(np.arange(25, 50), 20)] = 1.0
    found = of_answers(raw, Head(kind="probabilities", classes=tuple(range(50)))).outputs
    assert found.labels is not None
    assert len(found.labels.values) == 50
    assert list(found.columns) == [str(n) for n in range(25, 45)]


def test_answers_that_are_not_finite_are_missing() -> None:
    found = of_answers(np.array([[1.0], [NAN], [math.inf]]), Head(kind="values", names=("price",))).outputs
    assert found.labels is None
    assert found.columns["price"].missing == 2


def test_edges_of_outputs_keep_away_from_what_many_rows_have() -> None:
    """Two engines may differ in the last digit of a sum; neither may leave the bin."""
    raw = np.repeat([0.1, 0.30000000000000004, 0.9], 30).reshape(-1, 1)
    found = of_answers(raw, Head(kind="values", names=("y",))).outputs.columns["y"]
    assert [np.searchsorted(found.edges, v, side="right") for v in (0.3, 0.30000000000000004)] == [3, 3]
    assert found.counts[3] == 30


def test_a_wide_model_has_a_bounded_profile() -> None:
    fields = tuple(Field(name=f"column {n}", kind="number") for n in range(500)) + tuple(
        Field(name=f"category {n}", kind="category", levels=tuple(map(str, range(2000)))) for n in range(500)
    )
    rng = np.random.default_rng(0)
    matrix = np.column_stack([rng.normal(size=(3000, 500)), rng.integers(0, 2000, (3000, 500)).astype(float)])
    signature = Signature(fields=fields, head=Head(kind="values", names=("y",)))
    made = profile.build(signature, Coded(matrix), lambda coded: coded.matrix[:, :1], "sample")
    assert len(made.background.rows) == 10
    assert len(profile.encode(made)) < 500_000


ROWS = pd.DataFrame(
    {
        "age": np.random.default_rng(0).integers(18, 90, 400),
        "plan": ["basic", "pro", "pro", "team"] * 100,
        "same": [1.5] * 400,
    }
)
TARGET = (ROWS["age"] + 20 * (ROWS["plan"] == "pro") > 55).map({True: "leaves", False: "stays"})


def forest() -> Any:
    encoded = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan"]), remainder="passthrough")
    return make_pipeline(encoded, RandomForestClassifier(10, random_state=0)).fit(ROWS, TARGET)


@pytest.mark.parametrize("engine", ["onnx", "python"])
def test_what_is_packed_has_a_profile_of_the_sample(tmp_path: Path, engine: Any) -> None:
    packed = estiba.pack(forest(), ROWS, name="churn", registry=tmp_path, engine=engine)
    found = estiba.load("churn", registry=tmp_path).profile
    assert found is not None
    assert (found.source, found.rows, found.constant_fields) == ("sample", 400, ("same",))
    plan = found.fields["plan"]
    assert isinstance(plan, Levels)
    assert plan.counts == (100, 200, 100)
    assert found.outputs.labels is not None
    counts = pd.Series(forest().predict(ROWS)).value_counts()
    assert found.outputs.labels.counts == (counts["leaves"], counts["stays"])
    coder = Coder(packed.artifact.manifest.signature)
    background = coder.rows(found.background.coded)
    assert len(background) == 100
    assert background[0] == ROWS.iloc[0].to_dict()


def test_the_same_inputs_give_the_same_profile(tmp_path: Path) -> None:
    one, two = (estiba.pack(forest(), ROWS, name="churn", registry=tmp_path / n) for n in ("a", "b"))
    assert one.artifact.digest == two.artifact.digest
    assert one.artifact.file(profile.FILE).read_bytes() == two.artifact.file(profile.FILE).read_bytes()


def test_held_out_rows_come_before_the_sample(tmp_path: Path) -> None:
    held_out = ROWS.iloc[:50].assign(id=range(50), plan=["basic", "never seen"] * 25)
    packed = estiba.pack(forest(), ROWS, name="churn", registry=tmp_path, holdout=held_out)
    found = profile.read(packed.artifact)
    assert found is not None
    assert (found.source, found.rows, found.outputs.rows) == ("holdout", 50, 50)
    plan = found.fields["plan"]
    assert isinstance(plan, Levels)
    assert (plan.counts, plan.unseen) == ((25, 0, 0), 25)


@pytest.mark.parametrize(
    ("held_out", "sentence"),
    [
        (ROWS.drop(columns="plan"), "no column 'plan'"),
        (ROWS.iloc[:0], "no held-out rows"),
        (ROWS.assign(age=np.nan), "do not match the signature"),
    ],
)
def test_held_out_rows_must_be_rows_of_the_model(tmp_path: Path, held_out: pd.DataFrame, sentence: str) -> None:
    with pytest.raises(BadProject, match=sentence):
        estiba.pack(forest(), ROWS, name="churn", registry=tmp_path, holdout=held_out)


def test_held_out_rows_may_be_an_array(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 4))
    model = LinearRegression().fit(rows[:200], rows[:200, 0])
    packed = estiba.pack(model, rows[:200], name="line", registry=tmp_path, holdout=rows[200:])
    found = profile.read(packed.artifact)
    assert found is not None
    assert (found.source, found.rows) == ("holdout", 100)
    assert list(found.outputs.columns) == ["value"]


def test_a_typical_profile_has_about_20_kb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({f"column {n}": rng.normal(size=5000) for n in range(10)})
    packed = estiba.pack(LinearRegression().fit(rows, rows["column 0"]), rows, name="line", registry=tmp_path)
    assert packed.artifact.file(profile.FILE).stat().st_size < 30_000


def test_a_model_packed_before_has_no_profile() -> None:
    before = Path(__file__).parent / "written_by_0_1/registry"
    model = estiba.load("churn", registry=before)
    assert model.profile is None


def test_a_profile_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    packed = estiba.pack(forest(), ROWS, name="churn", registry=tmp_path)
    manifest = packed.artifact.manifest
    files = {entry.path: packed.artifact.file(entry.path).read_bytes() for entry in manifest.files}
    for content, sentence in ((b"{}", "cannot be read as a profile"), (b'{"schema": 99}', "newer Estiba")):
        changed = artifact.write(tmp_path / "changed", manifest, files | {profile.FILE: content})
        with pytest.raises(BadArtifact, match=sentence):
            profile.read(changed)
