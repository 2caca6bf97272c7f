"""The command `estiba pack` registers a saved model file as a version, and a pickle only with --trust."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Estiba


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model in three formats, and its rows."""
    import joblib
    import pandas as pd
    import skops.io
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    folder = tmp_path_factory.mktemp("saved")
    rows = load_iris(as_frame=True).frame.set_axis(["a", "b", "c", "d", "species"], axis=1)
    inputs = rows.drop(columns="species")
    model = LogisticRegression(max_iter=1000).fit(inputs, rows["species"])
    joblib.dump(model, folder / "iris.joblib")
    skops.io.dump(model, folder / "iris.skops")
    (folder / "iris.onnx").write_bytes(to_onnx(model, inputs[:1].astype("float32").to_numpy()).SerializeToString())
    rows.to_csv(folder / "rows.csv", index=False)
    pd.DataFrame({"a": [1.0]}).to_csv(folder / "other.csv", index=False)
    return folder


def test_a_skops_file_is_packed_proven_and_registered(estiba: Estiba, saved: Path, tmp_path: Path) -> None:
    place = tmp_path / "registry"
    given = ["--sample", saved / "rows.csv", "--target", "species", "--registry", place, "--alias", "production"]
    ran = estiba("pack", saved / "iris.skops", "--name", "iris", "--description", "Flowers.", *given)
    assert ran.code == 0
    assert ran.out.splitlines()[-1].startswith("iris@1 sha256:")
    assert "iris: packing" in ran.err
    shown = json.loads(estiba("models", "show", "iris@production", "--registry", place, "--json").out)["manifest"]
    assert (shown["engine"], shown["description"]) == ("onnx", "Flowers.")
    assert [field["name"] for field in shown["signature"]["fields"]] == ["a", "b", "c", "d"]


def test_made_rows_are_asked_for_by_option(estiba: Estiba, saved: Path, tmp_path: Path) -> None:
    given = ["--sample", saved / "rows.csv", "--target", "species", "--registry", tmp_path, "--rows", "made", "--json"]
    ran = estiba("pack", saved / "iris.skops", "--name", "iris", *given)
    assert "made golden rows" in json.loads(ran.out)["parity"]["note"]


def test_a_pickle_needs_trust(estiba: Estiba, saved: Path, tmp_path: Path) -> None:
    given = ["--name", "iris", "--sample", saved / "rows.csv", "--target", "species", "--registry", tmp_path / "r"]
    ran = estiba("pack", saved / "iris.joblib", *given)
    assert ran.code == 3
    assert "can run any code" in ran.err
    assert "--trust" in ran.err
    found = json.loads(estiba("pack", saved / "iris.joblib", *given, "--trust", "--json").out)
    assert (found["ref"], found["new"], found["engine"]) == ("iris@1", True, "onnx")


def test_an_onnx_file_is_packed(estiba: Estiba, saved: Path, tmp_path: Path) -> None:
    given = ["--sample", saved / "rows.csv", "--target", "species", "--registry", tmp_path / "r"]
    ran = estiba("pack", saved / "iris.onnx", "--name", "iris", *given)
    assert (ran.code, ran.err.splitlines()[-1]) == (0, "iris: done iris@1")


MISTAKES = [
    (["nothing.skops", "--sample", "rows.csv"], 4, "There is no file"),
    (["iris.skops", "--sample", "nothing.csv"], 4, "nothing.csv"),
    (["iris.skops", "--sample", "iris.skops"], 1, "not of a kind that a sample can be read from"),
    (["iris.skops", "--sample", "rows.csv", "--target", "kind"], 2, "has no column 'kind'"),
    (["rows.csv", "--sample", "rows.csv"], 1, "is not in a model format that Estiba reads"),
    (["iris.skops", "--sample", "other.csv"], 2, "The model fails on its own sample: ValueError: The feature names"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES)
def test_mistakes_are_sentences_and_register_nothing(
    estiba: Estiba, saved: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(saved)
    ran = estiba("pack", *arguments, "--name", "iris", "--registry", "none")
    assert ran.code == code
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not Path("none/models").exists()


def test_a_name_that_cannot_be_one_is_said_at_once(estiba: Estiba, saved: Path) -> None:
    ran = estiba("pack", saved / "iris.skops", "--name", "Iris!", "--sample", saved / "rows.csv")
    assert (ran.code, ran.err.splitlines()[0]) == (1, "error: 'Iris!' cannot be the name of a model.")


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose levels are texts that look like numbers and missing values, and its rows as CSV."""
    import joblib
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    folder = tmp_path_factory.mktemp("zipped")
    words = {"zip": ["00501", "90210", "NA"] * 20, "country": ["NA", "None", "null"] * 20}
    rows = pd.DataFrame({**words, "price": [n / 4 for n in range(60)]})
    columns = make_column_transformer((OneHotEncoder(), ["zip", "country"]), remainder="passthrough")
    joblib.dump(make_pipeline(columns, LogisticRegression()).fit(rows, rows["price"] > 7), folder / "zip.joblib")
    rows.to_csv(folder / "zip.csv", index=False)
    with pd.ExcelWriter(folder / "zip.xlsx") as book:
        pd.DataFrame({"nothing": [1]}).to_excel(book, sheet_name="Notes", index=False)
        rows.to_excel(book, sheet_name="Rows", index=False)
    rows.to_csv(folder / "indexed.csv")
    rows.to_csv(folder / "spanish.csv", index=False, sep=";", decimal=",", encoding="utf-16")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sample", "options"),
    [
        ("zip.csv", ()),
        ("spanish.csv", ("--separator", ";", "--decimal", ",", "--encoding", "utf-16")),
        ("zip.xlsx", ("--sheet", "Rows")),
    ],
)
def test_a_sample_is_typed_by_the_model(
    estiba: Estiba, zipped: Path, tmp_path: Path, sample: str, options: tuple[str, ...]
) -> None:
    import joblib
    import pandas as pd

    from estiba import load

    given = ["--name", "zip", "--sample", zipped / sample, "--trust", "--registry", tmp_path / "r", *options]
    ran = estiba("pack", zipped / "zip.joblib", *given)
    assert ran.code == 0, ran.err
    packed = load("zip", registry=tmp_path / "r", trust=True)
    kinds = {field.name: (field.kind, field.nullable) for field in packed.signature.fields}
    assert kinds == {"zip": ("category", False), "country": ("category", False), "price": ("number", False)}
    row = {"zip": "00501", "country": "NA", "price": 3.25}
    expected = joblib.load(zipped / "zip.joblib").predict_proba(pd.DataFrame([row]))[0]
    assert list(packed.predict(row)[0]["probabilities"].values()) == pytest.approx(expected, abs=1e-12)


def test_pandas_index_in_a_sample_is_refused_with_the_remedy(estiba: Estiba, zipped: Path, tmp_path: Path) -> None:
    given = ["--name", "zip", "--trust", "--registry", tmp_path / "r", "--sample"]
    ran = estiba("pack", zipped / "zip.joblib", *given, zipped / "indexed.csv")
    assert ran.code == 1
    assert "The first column of" in ran.err
    assert "index=False" in ran.err
    ran = estiba("pack", zipped / "zip.joblib", *given, zipped / "spanish.csv")
    assert "The encoding seems to be utf-16: --encoding utf-16" in ran.err
