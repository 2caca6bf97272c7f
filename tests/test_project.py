"""Every setting of the project file is read, and every mistake is reported with its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba import project
from estiba.core.errors import BadProject, NotFound

WHOLE = """
[project]
name = "bank"
registry = "packed"

[server]
port = 9000
insecure = true
[server.http]
max_body = 1000

[models.churn]
train = "churn:train"
data = ["Churn.csv"]
description = "Who leaves."
tolerance = 1
alias = "candidate"
[models.churn.fields.age]
minimum = 18
levels = ["a", 1]
[models.churn.outputs]
positive = 1
[models.churn.outputs.bands.risk]
edges = [0.3, 0.7]
labels = ["LOW", "MEDIUM", "HIGH"]

[models.price]
file = "price.onnx"
sample = "rows.csv"

[mlflow]
tracking_uri = "sqlite:///runs.db"
"""

MODEL = '[models.churn]\ntrain = "churn:train"\n'


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ESTIBA_REGISTRY", "ESTIBA_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def written(folder: Path, text: str) -> Path:
    file = folder / "estiba.toml"
    file.write_text(text, encoding="utf-8")
    return file


def refused(folder: Path, text: str) -> BadProject:
    with pytest.raises(BadProject) as caught:
        project.load(written(folder, text))
    return caught.value


def test_what_the_file_says_is_what_is_read(tmp_path: Path) -> None:
    found = project.load(written(tmp_path, WHOLE))
    churn = found.models["churn"]
    assert (found.name, found.registry) == ("bank", str(tmp_path / "packed"))
    assert (found.server.port, found.server.insecure, found.server.http.max_body) == (9000, True, 1000)
    assert (churn.data, churn.alias, churn.tolerance) == (("Churn.csv",), "candidate", 1.0)
    assert churn.fields["age"].minimum == 18.0
    assert churn.outputs.bands["risk"].labels == ("LOW", "MEDIUM", "HIGH")
    assert found.models["price"].file == "price.onnx"
    assert (found.mlflow.tracking_uri, found.mlflow.experiment) == ("sqlite:///runs.db", "bank")


def test_an_empty_file_is_a_project_named_as_its_folder(tmp_path: Path) -> None:
    found = project.load(written(tmp_path, ""))
    assert (found.name, found.models, found.mlflow.tracking_uri) == (tmp_path.name, {}, "")
    assert found.registry == str(tmp_path / ".estiba/registry")


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, '[project]\nregistry = "s3://models/bank"\n')
    assert project.load(file).registry == "s3://models/bank"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESTIBA_REGISTRY", "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    found = project.load(file)
    assert found.registry == str(tmp_path / "elsewhere")
    assert found.mlflow.tracking_uri == "http://localhost:5000"


def test_it_is_searched_for_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, "")
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert project.load().file == file
    assert project.load(tmp_path).file == file
    with pytest.raises(NotFound, match=r"no estiba\.toml in /.*/b"):
        project.load(inside)


def test_without_a_file_the_hint_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound) as caught:
        project.load()
    assert "estiba init" in str(caught.value.hint)


UNKNOWN = [
    ("[projct]\n", "projct: unknown key; did you mean 'project'?"),
    ("[project]\nnam = 'a'\n", "project.nam: unknown key; did you mean 'name'?"),
    ("[server]\nprot = 1\n", "server.prot: unknown key; did you mean 'port'?"),
    ("[server.http]\nmax_bdy = 1\n", "server.http.max_bdy: unknown key; did you mean 'max_body'?"),
    ("[mlflow]\ntracking_url = 'a'\n", "mlflow.tracking_url: unknown key; did you mean 'tracking_uri'?"),
    (MODEL + "descripton = ''\n", "models.churn.descripton: unknown key; did you mean 'description'?"),
    (MODEL + "fields.age.minimun = 1\n", "models.churn.fields.age.minimun: unknown key; did you mean 'minimum'?"),
    (MODEL + 'fields."the age".minimun = 1\n', 'models.churn.fields."the age".minimun: unknown key; did you mean'),
    (MODEL + "outputs.lable = 'a'\n", "models.churn.outputs.lable: unknown key; did you mean 'label'?"),
    (
        MODEL + "outputs.bands.risk.edge = [1]\n",
        "models.churn.outputs.bands.risk.edge: unknown key; did you mean 'edges'?",
    ),
    (MODEL + "zzzzzz = 1\n", "models.churn.zzzzzz: unknown key."),
]


@pytest.mark.parametrize(("text", "message"), UNKNOWN)
def test_an_unknown_key_is_refused_with_the_nearest_known(tmp_path: Path, text: str, message: str) -> None:
    error = refused(tmp_path, text)
    assert message in error.message
    assert error.hint
    assert error.hint.startswith("Keys of ")


WRONG = [
    ("[server]\nport = 'a'\n", "server.port: must be a whole number, not text in quotes."),
    ("[server]\nport = 1.5\n", "server.port: must be a whole number, not a number."),
    ("[server]\nport = 65536\n", "server.port: must be at most 65535."),
    ("[server]\ndrain = -1\n", "server.drain: must be at least 0.0."),
    ("[server]\nworkers = 0\n", "server.workers: must be at least 1."),
    ("[server]\ninsecure = 1\n", "server.insecure: must be true or false, not a whole number."),
    ("[server]\nlog = 'loud'\n", "server.log: must be one of 'auto', 'json', 'text', not 'loud'."),
    ("[server]\nhost = 2020-01-01\n", "server.host: must be text in quotes, not a date."),
    ("server = 1\n", "server: must be a table, not a whole number."),
    ("models = []\n", "models: must be a table, not a list."),
    ("[models]\nchurn = 'a'\n", "models.churn: must be a table, not text in quotes."),
    (MODEL + "data = 'a.csv'\n", "models.churn.data: must be a list, not text in quotes."),
    (MODEL + "data = ['a', 1]\n", "models.churn.data[1]: must be text in quotes, not a whole number."),
    (MODEL + "engine = 'fast'\n", "models.churn.engine: must be one of 'auto', 'onnx', 'python', not 'fast'."),
    (MODEL + "fields.age.kind = 'int'\n", "models.churn.fields.age.kind: must be one of 'number', "),
    (MODEL + "fields.age.nullable = 'yes'\n", "models.churn.fields.age.nullable: must be true or false, not text"),
    (MODEL + "fields.age.minimum = '1'\n", "models.churn.fields.age.minimum: must be a number, not text in quotes."),
    (MODEL + "outputs.bands.x.edges = [1]\n", "models.churn.outputs.bands.x.labels: this key is missing."),
    (
        MODEL + "outputs.bands.x = {edges = ['a'], labels = []}\n",
        "outputs.bands.x.edges[0]: must be a number, not text",
    ),
    (
        MODEL + "fields.age.example = {}\n",
        "fields.age.example: must be true or false or a whole number or a number or text in quotes",
    ),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_value_is_named_in_words_of_toml(tmp_path: Path, text: str, message: str) -> None:
    error = refused(tmp_path, text)
    assert message in error.message
    assert str(tmp_path / "estiba.toml") in error.message
    assert "`" not in error.message


SENSELESS = [
    ("[project]\nname = 'Ä b'\n", "project.name: 'Ä b' cannot be a name."),
    ("[models.Churn]\ntrain = 'a:b'\n", "models.Churn: 'Churn' cannot be the name of a model."),
    ("[models.churn]\n", "models.churn: needs either train or file."),
    (MODEL + "file = 'a.onnx'\n", "models.churn: needs either train or file, not both."),
    ("[models.churn]\ntrain = 'churn'\n", "models.churn.train: 'churn' is not of the form module:function."),
    ("[models.churn]\ntrain = 'my-churn:train'\n", "models.churn.train: 'my-churn:train' is not of the form"),
    ("[models.churn]\nfile = 'a.onnx'\n", "models.churn.sample: this key is missing."),
    (MODEL + "trust = true\n", "models.churn.trust: belongs to a model from a file"),
    (MODEL + "alias = '3'\n", "models.churn: '3' cannot be an alias."),
    (MODEL + "[server]\ndefault = 'chrun'\n", "server.default: there is no model 'chrun'; did you mean 'churn'?"),
]


@pytest.mark.parametrize(("text", "message"), SENSELESS)
def test_a_section_that_contradicts_itself_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text).message


def test_broken_toml_is_named_by_its_line(tmp_path: Path) -> None:
    assert "(at line 2, column 8)" in refused(tmp_path, "[server]\nport = \n").message
    (tmp_path / "estiba.toml").write_bytes(b"[project]\n\nname = '\xff'\n")
    with pytest.raises(BadProject, match=r"line 3 is not UTF-8"):
        project.load(tmp_path)


@pytest.mark.parametrize(
    "line", ['certificate = "tls.crt"', 'unix = "/run/estiba.sock"', 'prefix = "/models"', 'trusted_proxies = ["x"]']
)
def test_settings_of_the_socket_that_a_project_cannot_have(tmp_path: Path, line: str) -> None:
    file = tmp_path / "estiba.toml"
    file.write_text(f"[server]\n{line}\n")
    with pytest.raises(BadProject, match=rf"server\.{line.split()[0]}"):
        project.load(file)
