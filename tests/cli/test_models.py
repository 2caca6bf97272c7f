"""estiba models, verify, predict: on a registry with real models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Estiba


def test_the_list_shows_versions_and_aliases(estiba: Estiba, registry: Path) -> None:
    ran = estiba("models")
    lines = ran.out.splitlines()
    assert ran.code == 0
    assert lines[0].split()[:3] == ["model", "version", "alias"]
    assert [line.split()[:2] for line in lines[1:]] == [["churn", "2"], ["churn", "1"], ["flats", "1"]]
    assert "production" in lines[2]
    assert estiba("models", "list").out == ran.out


def test_the_list_for_scripts(estiba: Estiba, registry: Path) -> None:
    found = json.loads(estiba("models", "list", "--json").out)
    assert [entry["name"] for entry in found] == ["churn", "flats"]
    assert found[0]["aliases"] == {"production": 1}
    assert [version["version"] for version in found[0]["versions"]] == [1, 2]


def test_an_empty_registry_says_so(estiba: Estiba, tmp_path: Path) -> None:
    ran = estiba("models", "list", "--registry", tmp_path / "none")
    assert (ran.code, ran.out) == (0, f"There is no model in {tmp_path / 'none'} yet.\n")


def test_a_folder_with_a_models_name_is_no_artifact(
    estiba: Estiba, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "churn").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert estiba("models", "show", "churn", "--registry", registry).code == 0


def test_show_tells_fields_proof_metrics_and_libraries(estiba: Estiba, registry: Path) -> None:
    ran = estiba("models", "show", "churn@2")
    assert ran.code == 0
    for words in ("churn@2", "sha256:", "age", "integer", "roc_auc", "labels", "onnxruntime", "scikit-learn"):
        assert words in ran.out
    found = json.loads(estiba("models", "show", "churn", "--json").out)
    assert (found["version"], found["manifest"]["name"]) == ("1", "churn")


def test_show_tells_of_the_profile(estiba: Estiba, registry: Path) -> None:
    found = json.loads(estiba("models", "show", "churn", "--json").out)["profile"]
    assert (found["source"], found["background_rows"]) == ("sample", 100)
    assert f"of {found['rows']:,} rows of the sample, with 100 background rows" in estiba("models", "show", "churn").out


def test_show_tells_of_a_model_without_a_profile(estiba: Estiba) -> None:
    before = Path(__file__).parent.parent / "model/artifact/written_by_0_1/registry"
    assert (
        "none; it was packed by an Estiba that kept none" in estiba("models", "show", "churn", "--registry", before).out
    )
    assert json.loads(estiba("models", "show", "churn", "--registry", before, "--json").out)["profile"] is None


def test_simulated_data_is_shouted(estiba: Estiba, registry: Path) -> None:
    assert "SIMULATED DATA: flats" in estiba("models", "show", "flats").err
    assert "SIMULATED" not in estiba("models", "show", "churn").err


def test_an_alias_moves(estiba: Estiba, registry: Path) -> None:
    ran = estiba("models", "alias", "churn@2", "production")
    assert (ran.code, ran.out) == (0, "churn@production is churn@2 now.\n")
    assert "churn@2" in estiba("models", "show", "churn").out


def test_a_version_travels_in_a_file(estiba: Estiba, registry: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "churn.estiba", tmp_path / "other"
    assert estiba("models", "export", "churn@2", file).out == f"churn@2 is in {file}.\n"
    ran = estiba("models", "import", file, "--alias", "candidate", "--registry", other)
    assert ran.out.startswith("churn@1 sha256:")
    assert "candidate" in estiba("models", "list", "--registry", other).out


def test_a_version_is_removed_unless_an_alias_means_it(estiba: Estiba, registry: Path) -> None:
    ran = estiba("models", "remove", "churn@1")
    assert ran.code == 5
    assert "churn@1 is the version of the alias production" in ran.err
    assert estiba("models", "remove", "churn@1", "--force").code == 0
    assert estiba("models", "remove", "churn@2").out == "churn@2 is removed.\n"
    assert "churn" not in estiba("models").out


def test_only_a_number_names_what_is_removed(estiba: Estiba, registry: Path) -> None:
    ran = estiba("models", "remove", "churn")
    assert ran.code == 2
    assert "such as bankchurn@1" in ran.err


@pytest.mark.parametrize("ref", ["chrun", "churn@9", "churn@nobody"])
def test_what_is_not_there_is_a_sentence_and_exit_code_4(estiba: Estiba, registry: Path, ref: str) -> None:
    ran = estiba("models", "show", ref)
    assert ran.code == 4
    assert ran.err.startswith("error: ")
    assert "\nhint: " in ran.err


def test_the_registry_of_the_project_around_is_found(
    estiba: Estiba, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "estiba.toml").write_text('[project]\nregistry = "registry"\n')
    (tmp_path / "inside").mkdir()
    monkeypatch.delenv("ESTIBA_REGISTRY")
    monkeypatch.chdir(tmp_path / "inside")
    assert "churn" in estiba("models").out


def test_verify_proves_the_golden_rows(estiba: Estiba, registry: Path) -> None:
    ran = estiba("verify", "churn")
    assert ran.code == 0
    assert ran.out.startswith("churn@1 is sound: 4 files as packed")
    found = json.loads(estiba("verify", "churn", "--json").out)
    assert found["parity"]["labels_equal"] == found["parity"]["labels_total"]


def test_verify_fails_on_a_changed_file(estiba: Estiba, registry: Path) -> None:
    for model in registry.glob("artifacts/*/model.onnx"):
        model.write_bytes(model.read_bytes()[:-1] + b"x")
    ran = estiba("verify", "churn")
    assert ran.code == 3
    assert "was changed" in ran.err


def test_predict_scores_a_file(estiba: Estiba, registry: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("age,balance,who\n20,100,a\n70,100,b\n")
    ran = estiba("predict", "churn", tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--keep", "who")
    assert ran.code == 0
    assert ran.out.startswith("2 rows answered by churn@1 in ")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0].startswith("who,label")
    assert [line.split(",")[:2] for line in lines[1:]] == [["a", "0"], ["b", "1"]]


def test_predict_for_scripts_and_its_mistakes(estiba: Estiba, registry: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("age,balance,who\n20,100,a\n")
    found = json.loads(estiba("predict", "churn", tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--json").out)
    assert (found["rows"], found["ignored"]) == (1, ["who"])
    (tmp_path / "in.csv").write_text("age,balance\nold,100\n")
    ran = estiba("predict", "churn", tmp_path / "in.csv", "-o", tmp_path / "bad.csv")
    assert ran.code != 0
    assert "line 2, field 'age'" in ran.err
    assert not (tmp_path / "bad.csv").exists()


def test_show_tells_what_an_answer_means(estiba: Estiba, tmp_path: Path) -> None:
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    import estiba as package

    rows = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0] * 10})
    names = {"0": "stays", "1": "leaves"}
    fitted = LogisticRegression().fit(rows, (rows.x > 1).astype(int))
    package.pack(fitted, rows, name="churn", registry=tmp_path, threshold=0.27, outputs={"class_names": names})
    shown = estiba("models", "show", "churn", "--registry", tmp_path).out
    assert " label 1 (leaves) from a probability of 27 % on, otherwise 0 (stays). " in " ".join(shown.split())


def test_the_list_is_printed_as_json_without_its_name(estiba: Estiba, registry: Path) -> None:
    assert estiba("models", "--json").out == estiba("models", "list", "--json").out
    assert [model["name"] for model in json.loads(estiba("models", "--json").out)] == ["churn", "flats"]
    wrong = estiba("models", "--json", "show", "churn")
    assert wrong.code == 2
    assert "Put --json behind the command: estiba models show --json" in wrong.err


def test_a_name_that_is_nearly_right_is_suggested(estiba: Estiba, registry: Path) -> None:
    assert "; did you mean 'churn'?" in estiba("serve", "chrun").err
    assert "estiba models has no command 'shwo'; did you mean 'show'?" in estiba("models", "shwo").err
    assert "There are: list, show, alias" in estiba("models", "foo").err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("estiba serve c", ["churn"]),
        ("estiba models show churn@", ["churn@production", "churn@1", "churn@2"]),
        ("estiba up c", ["churn", "client"]),
        ("estiba up --profile d", ["dev"]),
        ("estiba train c", ["churn"]),
        ("estiba serve churn --registry /nowhere/at/all n", []),
    ],
)
def test_names_are_completed(
    typed: str, expected: list[str], registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "estiba.toml").write_text(
        '[models.churn]\ntrain = "a:b"\n[services.client]\ncommand = "sleep 1"\nprofile = "dev"\n'
    )
    monkeypatch.chdir(tmp_path)
    count = len(typed.split())
    settings = {"_ESTIBA_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(count - 1)}
    environment = {**os.environ, "ESTIBA_REGISTRY": str(registry), **settings}
    done = subprocess.run([sys.executable, "-m", "estiba"], env=environment, capture_output=True, text=True, check=True)
    assert [line.partition(",")[2] for line in done.stdout.splitlines() if line] == expected
    assert done.stderr == ""
