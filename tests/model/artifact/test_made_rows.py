"""With rows = "made" an artifact holds no row of its sample, and still proves the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

import estiba
from estiba.core.errors import BadProject, ParityError
from estiba.model.artifact import golden_rows
from estiba.model.coding.coder import Coded, Coder, Matrix
from estiba.model.engines.onnx import runner
from estiba.model.inference.load import Model
from estiba.model.packing.candidate import prepare
from estiba.model.packing.converted import Converted
from estiba.model.packing.proof import Proof, choose, choose_made
from estiba.model.packing.training_result import Trained
from estiba.model.schema.infer import FieldOptions
from estiba.model.schema.signature import Outputs

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
COUNT = 300
PEOPLE = pd.DataFrame(
    {
        "age": RANDOM.integers(18, 90, COUNT),
        "income": np.where(RANDOM.random(COUNT) < 0.1, np.nan, RANDOM.lognormal(10, 1, COUNT)),
        "plan": RANDOM.choice(["basic", "pro", "gold"], COUNT),
        "member": RANDOM.random(COUNT) < 0.5,
    }
)
TARGET = ((PEOPLE.age > 50) ^ (PEOPLE.plan == "pro") ^ (PEOPLE.income > 20_000)).astype(int)
WORDS = ["late", "broken", "thanks", "great", "refund", "parcel"]
TEXTS = [f"{' '.join(RANDOM.choice(WORDS, 4))} says {name}" for name in (f"Person{n}" for n in range(COUNT))]


def hist() -> Any:
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan"]), remainder="passthrough")
    return make_pipeline(encoder, HistGradientBoostingClassifier(max_iter=5)).fit(PEOPLE, TARGET)


def stored(loaded: Model) -> list[Coded]:
    """The rows that an artifact holds: golden rows, background rows, and the examples of its fields."""
    assert loaded.profile
    examples = {field.name: field.example for field in loaded.signature.fields}
    return [
        loaded.coder.check(loaded.golden.records), loaded.profile.background.coded, loaded.coder.check([examples])
    ]  # fmt: skip


def keys(coded: Coded) -> set[str]:
    """Rows as texts that are equal for equal rows."""
    return {
        repr((row, [texts[i] for texts in coded.texts.values()])) for i, row in enumerate((coded.matrix + 0.0).tolist())
    }


def shared(loaded: Model, sample: pd.DataFrame) -> list[int]:
    """The number of rows of the sample in each part of the artifact."""
    plain = sample.astype(object).where(sample.notna(), None)
    own = keys(loaded.coder.check(plain.to_dict("records")))
    return [len(own & keys(part)) for part in stored(loaded)]


def packed(model: Any, sample: Any, folder: Path, **options: Any) -> Model:
    result = estiba.pack(model, sample, name="m", registry=folder, quiet=True, **options)
    return estiba.load(result.ref, registry=folder, trust=True)


def test_no_row_of_the_sample_is_stored(tmp_path: Path) -> None:
    model = hist()
    ours = packed(model, PEOPLE, tmp_path, rows="made")
    assert shared(ours, PEOPLE) == [0, 0, 0]
    assert shared(packed(model, PEOPLE, tmp_path), PEOPLE)[0] > 50  # the count can fail
    matrix = stored(ours)[0].matrix
    assert set(matrix[:, 2]) >= {0.0, 1.0, 2.0}
    assert np.isnan(matrix[:, 1]).any()
    assert {PEOPLE.income.min(), PEOPLE.income.max()} <= set(matrix[:, 1])
    assert "made golden rows" in str(ours.manifest.parity)
    assert ours.manifest.engine == "onnx"


def test_the_same_sample_makes_the_same_artifact(tmp_path: Path) -> None:
    model = hist()
    first, second = (packed(model, PEOPLE, tmp_path / n, rows="made") for n in "ab")
    assert first.digest == second.digest


def test_the_python_engine_and_held_out_rows(tmp_path: Path) -> None:
    model = make_pipeline(
        FunctionTransformer(pd.DataFrame.fillna, kw_args={"value": 0.0}), RandomForestClassifier(5, random_state=0)
    )
    numbers = PEOPLE[["age", "income"]]
    ours = packed(model.fit(numbers, TARGET), numbers[:200], tmp_path, rows="made", holdout=numbers[200:])
    assert ours.manifest.engine == "python"
    assert shared(ours, numbers) == [0, 0, 0]


def test_texts_have_only_words_that_several_rows_have(tmp_path: Path) -> None:
    model = make_pipeline(TfidfVectorizer(max_features=6), LogisticRegression()).fit(TEXTS, TARGET)
    ours = packed(model, TEXTS, tmp_path, rows="made")
    assert shared(ours, pd.DataFrame({"text": TEXTS})) == [0, 0, 0]
    content = b"".join(path.read_bytes() for path in ours.artifact.path.iterdir())
    assert not re.search(rb"Person\d", content)
    assert b"refund" in content


def test_few_different_rows_are_fewer_golden_rows_and_not_those_of_the_sample(tmp_path: Path) -> None:
    """All pairs of two levels but one are in the sample: the golden rows are that one and unseen levels."""
    pairs = [(a, b) for a in "abc" for b in "xyz" if (a, b) != ("a", "z")]
    sample = pd.DataFrame(pairs * 20, columns=["left", "right"])
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), DecisionTreeClassifier(random_state=0))
    ours = packed(model.fit(sample, sample.left == "b"), sample, tmp_path, rows="made")
    assert shared(ours, sample)[:2] == [0, 0]
    assert {"left": "a", "right": "z"} in ours.golden.records


def test_where_every_possible_row_is_in_the_sample_they_are_kept(tmp_path: Path) -> None:
    """One field of two levels has two rows; without them nothing would be proven."""
    sample = pd.DataFrame({"member": PEOPLE.member})
    ours = packed(DecisionTreeClassifier().fit(sample, TARGET), sample, tmp_path, rows="made")
    assert shared(ours, sample)[0] == 2


def test_the_reason_names_no_row_of_the_sample() -> None:
    model = hist()
    candidate = prepare(Trained(model=model, sample=PEOPLE), {}, Outputs())
    rows = np.arange(COUNT)
    right = runner(candidate.convert())
    own = keys(candidate.coded)

    def wrong(coded: Coded) -> Matrix:
        answers = right(coded).copy()
        answers[[key in own for key in map(_key, coded.matrix)]] += 0.25
        return answers

    for select, named in ((choose_made, False), (choose, True)):
        chosen = select(candidate, right, 0.0)
        proof = Proof(candidate, chosen, (rows, candidate.direct(rows)), 1e-6)
        reason = proof.of_converted(Converted(b"", wrong), proof.of_original(), must_hold=False)[1]
        assert "off by up to 0.25" in reason
        assert ("first on a row of the sample" in reason) != named
        assert ('"age":' in reason) == named


def _key(row: Any) -> str:
    return repr(((row + 0.0).tolist(), []))


def test_a_wrong_model_is_found_by_made_rows(tmp_path: Path) -> None:
    """A copy of the model whose levels are swapped, and one that rounds thresholds to float32."""
    ours = packed(hist(), PEOPLE, tmp_path, rows="made")
    answer, tolerance = ours.answer, golden_rows.TOLERANCE
    golden_rows.prove(ours.coder, ours.golden, answer, tolerance)

    def swapped(coded: Coded) -> Matrix:
        moved = coded.matrix.copy()
        moved[:, 2] = np.array([1.0, 0.0, 2.0, -1.0])[moved[:, 2].astype(int)]
        return answer(Coded(moved))

    def rounded(coded: Coded) -> Matrix:
        return answer(Coded(coded.matrix.astype(np.float32).astype(float)))

    for wrong in (swapped, rounded):
        with pytest.raises(ParityError):
            golden_rows.prove(ours.coder, ours.golden, wrong, tolerance)


def test_rare_levels_are_named_and_examples_of_the_user_kept(tmp_path: Path) -> None:
    sample = PEOPLE.assign(plan=PEOPLE.plan.where(PEOPLE.index > 0, "founder"))
    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan"]), remainder="passthrough")
    model = make_pipeline(encoder, HistGradientBoostingClassifier(max_iter=2)).fit(sample, TARGET)
    fields = {"age": {"example": 33}}
    result = estiba.pack(model, sample, name="m", registry=tmp_path, quiet=True, rows="made", fields=fields)
    assert any("plan = 'founder'" in note for note in result.notes)
    assert result.artifact.manifest.signature.field("age").example == 33


def test_rare_levels_that_a_step_in_python_makes_are_named(tmp_path: Path) -> None:
    titles = pd.DataFrame({"title": np.where(PEOPLE.index > 0, PEOPLE.plan.str.upper(), "COUNTESS OF LOVELACE")})
    model = make_pipeline(
        FunctionTransformer(lambda rows: rows.assign(title=rows.title.str.lower())),
        OneHotEncoder(handle_unknown="ignore"),
        DecisionTreeClassifier(random_state=0),
    ).fit(titles, TARGET)
    fields = {"title": {"kind": "text"}}
    result = estiba.pack(model, titles, name="m", registry=tmp_path, quiet=True, rows="made", fields=fields)
    assert result.artifact.manifest.tail
    named = "title = 'countess of lovelace' behind the step 'functiontransformer'"
    assert [named in note for note in result.notes] == [True]
    assert named in result.artifact.manifest.notes


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(BadProject, match="rows is 'none'"):
        packed(hist(), PEOPLE, tmp_path, rows="none")


def test_timestamps_and_many_levels_are_composed() -> None:
    days = pd.to_datetime("2024-01-01") + pd.to_timedelta(RANDOM.integers(0, 99, COUNT), "D")
    levels = [f"level {n % 150}" for n in range(COUNT)]
    frame = pd.DataFrame({"day": days, "n": np.arange(300.0), "level": levels})

    def model(rows: pd.DataFrame) -> Any:
        return rows.n + rows.day.dt.day

    category = FieldOptions(kind="category", levels=tuple(dict.fromkeys(levels)))
    candidate = prepare(Trained(model=model, sample=frame), {"level": category}, Outputs())
    rows = choose_made(candidate, None, 0.0).golden
    position = {name: i for i, name in enumerate(candidate.signature.names)}
    assert not (rows.matrix[:, position["day"]] % 86_400).any()
    assert not (rows.matrix[:, position["n"]] % 1).any()
    assert Coder(candidate.signature).check(candidate.coder.rows(rows)).matrix.tolist() == rows.matrix.tolist()
