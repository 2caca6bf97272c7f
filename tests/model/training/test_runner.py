"""Training runs in a child process, registers a model only on success, and is skipped while nothing has changed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import estiba
from estiba import project
from estiba.core.errors import MissingExtra, NotFound
from estiba.core.installation import install_command
from estiba.model.registry.registry import open_registry
from estiba.model.training import fingerprints
from estiba.model.training.runner import Event, Outcome, TrainingFailed, train

pytestmark = pytest.mark.slow

TOML = """
[models.line]
train = "line:train"
data = ["points.csv"]
[models.line.outputs]
value = "height"
"""

MODULE = """
import csv
from pathlib import Path

import pandas as pd
from sklearn.linear_model import LinearRegression

import slope


def train(data):
    Path("note.txt").read_text()
    Path("made.txt").write_text("made here")
    Path("made.txt").read_text()
    sample = pd.DataFrame({"x": [float(i) for i in range(20)]})
    target = sample["x"] * slope.SLOPE
    print("fitting", data["points.csv"])
    return LinearRegression().fit(sample, target), sample, target, {"r2": 1.0}
"""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ESTIBA_REGISTRY", "ESTIBA_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def make(folder: Path, module: str = MODULE, toml: str = TOML) -> project.Project:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data/points.csv").write_text("x\n1\n")
    (folder / "estiba.toml").write_text(toml)
    (folder / "line.py").write_text(module)
    (folder / "slope.py").write_text("SLOPE = 2.0\n")
    (folder / "note.txt").write_text("a note")
    return project.load(folder)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event], Outcome]:
    folder = tmp_path_factory.mktemp("project")
    events: list[Event] = []
    (outcome,) = train(make(folder).workshop, on_event=events.append)
    return folder, events, outcome


@pytest.fixture
def trained(trained_once: tuple[Path, list[Event], Outcome], tmp_path: Path) -> project.Project:
    """A copy of a project that was trained."""
    shutil.copytree(trained_once[0], tmp_path / "copy")
    return project.load(tmp_path / "copy")


def why(found: project.Project) -> str:
    """The reason why a project would be trained again; empty where it would not."""
    fingerprint = fingerprints.read(found.folder, "line")
    assert fingerprint is not None
    return fingerprints.change(fingerprint, found.models["line"], found.folder, found.models["line"].data)


def test_it_trains_packs_and_registers(trained_once: tuple[Path, list[Event], Outcome]) -> None:
    folder, events, outcome = trained_once
    assert [event.stage for event in events] == ["training", "packing", "done"]
    assert (str(outcome.version), outcome.why) == ("line@1", "it is not trained yet")
    assert outcome.manifest.metrics == {"r2": 1.0}
    store = open_registry(folder / ".estiba/registry")
    assert store.resolve("line@production").digest == outcome.version.digest
    model = estiba.load("line", registry=folder / ".estiba/registry")
    assert model.predict({"x": 3.0}) == [{"height": pytest.approx(6.0)}]


def test_what_it_printed_is_in_its_log(trained: project.Project) -> None:
    log = fingerprints.fingerprint_file(trained.folder, "line").with_suffix(".log")
    assert "fitting /" in log.read_text()


def test_nothing_is_trained_again_that_has_not_changed(trained: project.Project) -> None:
    events: list[Event] = []
    (outcome,) = train(trained.workshop, on_event=events.append)
    assert [(event.stage, event.detail) for event in events] == [("unchanged", "line@1")]
    assert (outcome.why, outcome.seconds) == ("", 0.0)


def test_the_second_start_imports_neither_pandas_nor_sklearn(trained: project.Project) -> None:
    code = (
        "import sys, estiba.project, estiba.model.training.runner as t\n"
        f"t.train(estiba.project.load(__import__('pathlib').Path({str(trained.folder)!r})).workshop)\n"
        "print(sorted({'pandas', 'sklearn', 'onnx', 'onnxruntime', 'skl2onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_stamp_names_what_was_read_and_nothing_else(trained: project.Project) -> None:
    fingerprint = fingerprints.read(trained.folder, "line")
    assert fingerprint is not None
    assert sorted(fingerprint.files) == ["line.py", "note.txt", "slope.py"]
    assert sorted(fingerprint.data) == ["points.csv"]
    assert {"estiba", "numpy", "pandas", "scikit-learn"} <= set(fingerprint.libraries)


@pytest.mark.parametrize(
    ("file", "text"),
    [("line.py", "changed"), ("slope.py", "changed"), ("note.txt", "changed"), ("data/points.csv", "changed")],
)
def test_a_changed_file_is_named(trained: project.Project, file: str, text: str) -> None:
    assert why(trained) == ""
    with (trained.folder / file).open("a") as handle:
        handle.write("\n")
    assert why(trained) == f"{file.removeprefix('data/')} {text}"


def test_missing_data_that_turns_up_is_a_change_and_so_is_data_that_goes(
    trained: project.Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = trained.folder / "data/points.csv"
    moved = tmp_path / "shared"
    moved.mkdir()
    points.rename(moved / "points.csv")
    assert why(trained) == "points.csv is gone"
    monkeypatch.setenv("ESTIBA_DATA", str(moved))
    assert why(trained) == ""


def test_other_settings_are_a_change_and_other_models_are_not(trained: project.Project) -> None:
    file = trained.file
    file.write_text(TOML + '[models.other]\ntrain = "line:train"\n')
    assert why(project.load(file)) == ""
    file.write_text(TOML.replace("height", "depth"))
    assert why(project.load(file)) == "its section of the project file changed"


def test_another_library_is_a_change(trained: project.Project) -> None:
    fingerprint = fingerprints.fingerprint_file(trained.folder, "line")
    fingerprint.write_text(fingerprint.read_text().replace('"numpy": "', '"numpy": "0.'))
    assert why(trained).startswith("numpy 0.")


def test_a_version_that_is_gone_from_the_registry_is_trained_again(trained: project.Project) -> None:
    open_registry(trained.registry).remove("line", 1, force=True)
    (outcome,) = train(trained.workshop)
    assert outcome.why == "line@1 is not in the registry"
    assert str(outcome.version) == "line@2"


def test_force_trains_again_and_the_same_model_keeps_its_version(trained: project.Project) -> None:
    (outcome,) = train(trained.workshop, ["line"], force=True)
    assert (outcome.why, str(outcome.version)) == ("asked to", "line@1")


def test_a_model_that_is_not_there_is_named_with_the_nearest(trained: project.Project) -> None:
    with pytest.raises(NotFound, match=r"no model 'lime'; did you mean 'line'\?"):
        train(trained.workshop, ["lime"])


FAILURES = [
    ("import slope\nraise RuntimeError('no luck')", "Training line failed: RuntimeError: no luck"),
    ("def train(data): return {'a': 1}", "line:train returned an object of type dict."),
    ("def train(): return None", "line:train returned nothing."),
    ("def train(): return (1, 2, 3, 4, 5)", "line:train returned a tuple of 5."),
    ("def train(): return (1, [[1.0]])", "line:train returned a sample that is an object of type list."),
    ("def train(a, data): pass", "The training function line:train requires an argument 'a'"),
    ("x = 1", "line.py has no function 'train'."),
    ("import no_such_thing", "Training line failed: ModuleNotFoundError: No module named 'no_such_thing'"),
    ("import sys\nsys.exit(3)", "Training line failed: SystemExit: 3"),
    ("import os\nos._exit(3)", "Training line ended with exit code 3 and gave nothing back."),
    ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "Training line was ended by SIGKILL."),
    ("def train(:", "Training line failed: SyntaxError: "),
]


@pytest.mark.parametrize(("module", "message"), FAILURES)
def test_a_training_that_fails_says_why_and_registers_nothing(tmp_path: Path, module: str, message: str) -> None:
    found = make(tmp_path, module)
    with pytest.raises(TrainingFailed) as caught:
        train(found.workshop)
    assert message in caught.value.message
    assert open_registry(found.registry).list() == ()
    assert fingerprints.read(tmp_path, "line") is None


def test_a_failure_leaves_the_registry_as_it_was_and_shows_its_output(trained: project.Project) -> None:
    (trained.folder / "line.py").write_text("print('so far so good')\nraise ValueError('bad data')\n")
    with pytest.raises(TrainingFailed) as caught:
        train(trained.workshop)
    assert "so far so good" in caught.value.output
    assert 'line.py", line 2' in caught.value.output
    store = open_registry(trained.registry)
    assert [v.version for v in store.versions("line")] == [1]
    assert store.aliases("line") == {"production": 1}


def test_a_module_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    found = make(tmp_path, toml='[models.line]\ntrain = "curve:train"\n')
    with pytest.raises(TrainingFailed, match=r"There is no module 'curve' in /") as caught:
        train(found.workshop)
    assert (caught.value.output, caught.value.exit_code) == ("", 2)


def test_a_library_of_an_extra_that_is_not_installed_is_a_sentence(tmp_path: Path) -> None:
    hidden = "import sys\n\nsys.modules['sklearn'] = None\n"  # an import then fails as without the library
    with pytest.raises(TrainingFailed) as caught:
        train(make(tmp_path, hidden + MODULE).workshop)
    assert str(caught.value) == f"scikit-learn is not installed.\nInstall it with: {install_command('train')}"
    assert caught.value.output == ""


def test_mlflow_that_is_named_and_not_installed_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = make(tmp_path, toml=TOML + "[mlflow]\ntracking_uri = 'sqlite:///runs.db'\n")
    with pytest.raises(MissingExtra, match="mlflow is not installed"):
        train(found.workshop)


SLEEPS = """
import subprocess, time
child = subprocess.Popen(['sleep', '61'])
open('pid', 'w').write(str(child.pid))
time.sleep(60)
"""


def _wait_for(file: Path) -> int:
    for _ in range(600):
        if file.exists() and file.read_text():
            return int(file.read_text())
        time.sleep(0.05)
    raise AssertionError("the training never began")


def _is_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def sleeping(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    make(tmp_path, SLEEPS)
    command = [sys.executable, "-m", "estiba", "train", "-C", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
        yield child
        child.kill()


def test_ctrl_c_ends_the_training_and_what_it_started(sleeping: subprocess.Popen[str], tmp_path: Path) -> None:
    pid = _wait_for(tmp_path / "pid")
    sleeping.send_signal(signal.SIGINT)
    assert sleeping.wait(20) == 130
    assert _is_gone(pid)
    assert sleeping.stderr is not None
    assert "Traceback" not in sleeping.stderr.read()
    assert open_registry(tmp_path / ".estiba/registry").list() == ()


def test_a_training_ends_with_the_process_that_wanted_it(sleeping: subprocess.Popen[str], tmp_path: Path) -> None:
    pid = _wait_for(tmp_path / "pid")
    sleeping.kill()
    assert _is_gone(pid)


def test_a_model_from_a_file_is_packed_and_watched_outside_the_project_too(trained: project.Project) -> None:
    import joblib
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    folder = trained.folder
    rows = pd.DataFrame({"x": [float(i) for i in range(20)], "y": [2.0 * i for i in range(20)]})
    rows.to_csv(folder / "rows.csv", index=False, sep=";", decimal=",")
    joblib.dump(LinearRegression().fit(rows[["x"]], rows["y"]), folder.parent / "old.joblib")
    trained.file.write_text(
        '[models.line]\nfile = "../old.joblib"\nsample = "rows.csv"\ntarget = "y"\ntrust = true\nalias = "candidate"\n'
        "[models.line.csv]\nseparator = ';'\ndecimal = ','\n"
    )
    whole = trained.file.read_text()
    trained.file.write_text(whole.replace("trust = true\n", ""))
    with pytest.raises(TrainingFailed) as caught:
        train(project.load(folder).workshop)
    assert "write trust = true in [models.line]" in str(caught.value.hint)
    trained.file.write_text(whole)
    (outcome,) = train((found := project.load(folder)).workshop)
    assert outcome.why == "its section of the project file changed"
    assert open_registry(found.registry).aliases("line")["candidate"] == outcome.version.version
    assert why(found) == ""
    (folder.parent / "old.joblib").write_bytes(b"")
    assert why(found) == "../old.joblib changed"
