"""Models with code of the user's own, packed by scripts as people write them, and served by a real server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import supervised

import estiba
from estiba.core.errors import BadArtifact, NotTrusted
from estiba.model.artifact import archive
from estiba.model.artifact.artifact import read
from estiba.model.inference.load import load_artifact
from estiba.model.registry.registry import open_registry

pytestmark = pytest.mark.slow

BASE = """
from sklearn.base import BaseEstimator, TransformerMixin

class Base(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self
"""

CAP = """
from . import settings
from .base import Base

class Cap(Base):
    def transform(self, X):
        return X.clip(upper=settings.LIMIT)
"""

HEAD = """
import json
import sys

sys.path.insert(0, "src")
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import estiba

rng = np.random.default_rng(0)
X = pd.DataFrame({"a": rng.normal(size=120), "b": rng.uniform(size=120)})
y = X.a + X.b > 0.5
"""

PIPELINE = """
from features.cap import Cap

SHIFT = 0.25

def shifted(frame):
    return np.add(frame, SHIFT)

model = make_pipeline(Cap(), FunctionTransformer(shifted), FunctionTransformer(lambda f: f * 2), LogisticRegression())
model.fit(X, y)
packed = estiba.pack(model, X, name=sys.argv[1], registry="registry")
print(json.dumps([packed.artifact.digest, model.predict_proba(X)[:, 1].tolist(), X.to_dict("records")]))
"""


def project(folder: Path, limit: float = 0.7) -> Path:
    """A project with a package of relative imports, and what must not be packed beside it."""
    package = folder / "src/features"
    package.mkdir(parents=True)
    for name, content in {
        "__init__.py": "",
        "base.py": BASE,
        "cap.py": CAP,
        "settings.py": f"LIMIT = {limit}\n",
        "unused.py": "raise RuntimeError('imported')\n",
        ".env": "PASSWORD=secret\n",
        "rows.csv": "a,b\n1,2\n",
    }.items():
        (package / name).write_text(content)
    return folder


def run(folder: Path, script: str, *arguments: str, fails: bool = False) -> str:
    """The output of `python script.py` in that folder; with `fails`, its errors."""
    (folder / "script.py").write_text(textwrap.dedent(script))
    command = [sys.executable, "script.py", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert bool(done.returncode) == fails, done.stderr
    return done.stderr if fails else done.stdout


def packed_in(folder: Path, name: str, limit: float = 0.7) -> tuple[str, list[float], list[dict[str, float]]]:
    digest, answers, rows = json.loads(run(project(folder, limit), HEAD + PIPELINE, name).splitlines()[-1])
    return digest, answers, rows


def probabilities(answers: list[Any]) -> list[float]:
    return [answer["probabilities"]["True"] for answer in answers]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[float], list[dict[str, float]]]:
    folder = tmp_path_factory.mktemp("made")
    return (folder, *packed_in(folder, "own"))


Made = tuple[Path, str, list[float], list[dict[str, float]]]


def test_the_code_and_nothing_else_is_in_the_artifact(made: Made) -> None:
    folder, digest, _, _ = made
    manifest = read(folder / "registry/artifacts" / digest).manifest
    names = ("__init__", "base", "cap", "settings")
    assert manifest.code_files == tuple(f"code/features/{name}.py" for name in names)
    assert manifest.by_value == ("function <lambda> of __main__", "function shifted of __main__")
    assert {"scikit-learn", "pandas", "cloudpickle"} <= manifest.libraries.keys()
    card = (folder / "registry/artifacts" / digest / "card.md").read_text()
    assert "`code/features/cap.py`" in card
    assert "function shifted of __main__" in card
    assert str(folder).encode() not in (folder / "registry/artifacts" / digest / "model.pkl").read_bytes()


def test_it_answers_as_the_original_far_from_its_project(made: Made, tmp_path: Path) -> None:
    folder, digest, answers, rows = made
    shutil.copytree(folder / "registry/artifacts" / digest, tmp_path / digest)
    model = estiba.load(tmp_path / digest, trust=True)
    assert probabilities(model.predict(rows)) == pytest.approx(answers, abs=1e-12)
    assert "features" not in sys.modules
    model.engine.close()
    read(tmp_path / digest)  # running it has left no file behind


def test_the_same_code_gives_the_same_digest(made: Made, tmp_path: Path) -> None:
    assert packed_in(tmp_path / "again", "own")[0] == made[1]


def test_two_versions_of_one_module_live_side_by_side(made: Made, tmp_path: Path) -> None:
    folder, _, answers, rows = made
    _, other_answers, _ = packed_in(tmp_path / "other", "other", limit=0.1)
    assert other_answers != answers
    registry = open_registry(tmp_path / "registry")
    registry.push(open_registry(folder / "registry").fetch(open_registry(folder / "registry").resolve("own")))
    store = open_registry(tmp_path / "other/registry")
    registry.push(store.fetch(store.resolve("other")))
    with supervised.serving(tmp_path / "registry", "--trust", models=("own", "other")) as server:
        for name, expected in (("own", answers), ("other", other_answers)):
            assert probabilities(ask(server.port, name, rows)) == pytest.approx(expected, abs=1e-12)


def ask(port: int, name: str, rows: list[dict[str, float]]) -> list[Any]:
    body = json.dumps({"records": rows}).encode()
    url = f"http://127.0.0.1:{port}/models/{name}/predict"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        found: list[Any] = json.load(answer)["predictions"]
        return found


EVIL = """
import pathlib

pathlib.Path({mark!r}).write_text("ran")
from sklearn.base import BaseEstimator, TransformerMixin

class Cap(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self
    def transform(self, X):
        return X
"""


def test_code_of_others_never_runs_without_trust(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = project(tmp_path / "foreign")
    (folder / "src/features/cap.py").write_text(EVIL.format(mark=str(mark)))
    run(folder, HEAD + PIPELINE, "own")
    assert mark.exists()
    mark.unlink()
    theirs = open_registry(folder / "registry")
    archive.save(theirs.fetch(theirs.resolve("own")), tmp_path / "own.tar")
    estiba_command(tmp_path, "models", "import", "own.tar", "--registry", "mine", expected=0)
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    score = ("predict", "own", "rows.csv", "-o", "out.csv")
    for command in (("serve", "own", "--port", "0"), ("verify", "own"), score):
        message = estiba_command(tmp_path, *command, "--registry", "mine", expected=None)
        assert "contains Python code of its author" in message
        assert "code/features/cap.py" in message
        assert "'own'" in message
    with pytest.raises(NotTrusted):
        estiba.load("own", registry=tmp_path / "mine")
    assert not mark.exists()


def estiba_command(folder: Path, *arguments: str, expected: int | None) -> str:
    command = [sys.executable, "-m", "estiba", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == expected if expected is not None else done.returncode, done.stderr
    return " ".join((done.stdout + done.stderr).split())


def test_bytecode_of_another_python_is_refused_before_it_is_read(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = read(made[0] / "registry/artifacts" / made[1])
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    with pytest.raises(BadArtifact, match=r"bytecode of Python .* this is Python 3\.99\.0"):
        load_artifact(artifact, trust=True)


READS_A_FILE = """
from pathlib import Path
from sklearn.base import BaseEstimator, TransformerMixin

class Cap(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self
    def transform(self, X):
        return X + float(Path(__file__).with_name("settings.txt").read_text())
"""


def test_a_file_that_the_code_reads_is_missed_when_packing(tmp_path: Path) -> None:
    folder = project(tmp_path)
    (folder / "src/features/cap.py").write_text(READS_A_FILE)
    (folder / "src/features/settings.txt").write_text("1")
    errors = run(folder, HEAD + PIPELINE, "own", fails=True)
    assert "does not run with the code that was packed with it" in errors
    assert "settings.txt" in errors


def test_too_much_code_is_refused_with_its_largest_file(tmp_path: Path) -> None:
    folder = project(tmp_path)
    (folder / "src/features/settings.py").write_text(f"LIMIT = 0.7\nTABLE = {list(range(900_000))}\n")
    assert "the largest file is features/settings.py" in run(folder, HEAD + PIPELINE, "own", fails=True)


NOTEBOOK = """
from sklearn.base import BaseEstimator, ClassifierMixin

class Careful(ClassifierMixin, BaseEstimator):
    '''A threshold of one's own around any classifier, as people write it in a notebook.'''
    def __init__(self, inner, limit):
        self.inner, self.limit = inner, limit
    def fit(self, X, y):
        self.inner.fit(X, y)
        self.classes_ = self.inner.classes_
        return self
    def predict_proba(self, X):
        return self.inner.predict_proba(X)
    def predict(self, X):
        return self.predict_proba(X)[:, 1] > self.limit

model = Careful(LogisticRegression(), 0.8).fit(X, y)
packed = estiba.pack(model, X, name="careful", registry="registry")
assert packed.artifact.manifest.by_value == ("class Careful of __main__",), packed.artifact.manifest.by_value
shown = [answer["label"] for answer in estiba.load("careful", registry="registry", trust=True).predict(X)]
assert shown == model.predict(X).tolist()
assert shown != model.inner.predict(X).tolist()
print(packed.artifact.digest)
"""


def test_a_class_of_a_notebook_goes_by_value_with_its_own_labels(tmp_path: Path) -> None:
    digests = {run(tmp_path, HEAD + NOTEBOOK).splitlines()[-1] for _ in range(2)}
    assert len(digests) == 1


CRASH = """
import os, signal
from sklearn.base import BaseEstimator, TransformerMixin

class Cap(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self
    def transform(self, X):
        if "estiba.model.engines.isolated" in str(os.sys.argv) or os.sys.argv[0].endswith("isolated.py"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return X
"""


def test_code_that_crashes_when_it_is_proven_is_an_error_and_no_crash(tmp_path: Path) -> None:
    folder = project(tmp_path)
    (folder / "src/features/cap.py").write_text(CRASH)
    errors = run(folder, HEAD + PIPELINE, "own", fails=True)
    assert "The process of the model 'own' was killed by SIGSEGV" in errors
