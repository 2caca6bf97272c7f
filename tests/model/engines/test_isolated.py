"""The python engine in a process of its own: same answers, contained crashes."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.neighbors import KNeighborsClassifier

import estiba
from estiba.core.errors import NotTrusted, ParityError, Unavailable
from estiba.model.inference.load import load_artifact

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> estiba.Packed:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    model = GaussianProcessClassifier(random_state=0).fit(rows, rows[:, 0] > 0)
    place = tmp_path_factory.mktemp("registry")
    return estiba.pack(model, rows, name="slow", engine="python", registry=place)


def test_it_answers_as_in_this_process(packed: estiba.Packed) -> None:
    here = load_artifact(packed.artifact, threads=1)
    apart = load_artifact(packed.artifact, threads=1, isolated=True)
    coded = here.coder.check(here.golden.records)
    assert np.array_equal(here.answer(coded), apart.answer(coded))
    apart.engine.close()


def test_a_crash_costs_one_call(packed: estiba.Packed) -> None:
    model: Any = load_artifact(packed.artifact, threads=1, isolated=True)
    record = model.golden.records[0]
    before = model.predict(record)
    child = model.engine._child
    os.kill(child.pid, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (child.pid, signal.SIGKILL)).start()
    with pytest.raises(Unavailable, match="was killed by SIGKILL"):
        model.predict(record)
    assert model.predict(record) == before
    model.engine.close()


def test_a_crash_is_named_by_its_signal(packed: estiba.Packed) -> None:
    model: Any = load_artifact(packed.artifact, threads=1, isolated=True)
    record = model.golden.records[0]
    for number in (signal.SIGSEGV, signal.SIGKILL):
        child = model.engine._child
        os.kill(child.pid, signal.SIGSTOP)
        threading.Timer(0.2, os.kill, (child.pid, number)).start()
        if number != signal.SIGKILL:  # which ends a stopped process too
            threading.Timer(0.3, os.kill, (child.pid, signal.SIGCONT)).start()
        with pytest.raises(Unavailable, match=f"was killed by {signal.Signals(number).name}"):
            model.predict(record)
        assert model.predict(record)
    model.engine.close()


def test_the_process_ends_with_its_parent(packed: estiba.Packed) -> None:
    model: Any = load_artifact(packed.artifact, threads=1, isolated=True)
    child = model.engine._child
    model.engine.close()
    assert child.returncode is not None


@pytest.mark.parametrize("kind", [KNeighborsClassifier, IsolationForest])
def test_trust_is_asked_for_there_as_well(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from estiba.model.estimators import saved_files

    rows = np.random.default_rng(0).normal(size=(40, 2))
    model = kind().fit(rows, rows[:, 0] > 0)
    # What skops cannot hold is pickled; forced here, as which estimators those are changes with its versions.
    monkeypatch.setattr(saved_files, "dumps", lambda m: ("joblib", "model.joblib", _pickled(m)))
    packed = estiba.pack(model, rows, name="pickled", engine="python", registry=tmp_path)
    with pytest.raises(NotTrusted, match="pickle"):
        load_artifact(packed.artifact, threads=1, isolated=True)
    load_artifact(packed.artifact, threads=1, isolated=True, trust=True).engine.close()


def _pickled(model: object) -> bytes:
    import io

    import joblib

    stream = io.BytesIO()
    joblib.dump(model, stream)
    return stream.getvalue()


class Nosy:
    """A model that answers the number of the variables whose names begin with TEST_."""

    def predict(self, rows: Any) -> Any:
        return np.full(len(rows), float(len([name for name in os.environ if name.startswith("TEST_")])))


def test_code_of_a_model_does_not_inherit_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 2))
    packed = estiba.pack(Nosy(), rows, name="nosy", registry=tmp_path)
    monkeypatch.setenv("TEST_DATABASE_PASSWORD", "hunter2")
    monkeypatch.setenv("TEST_ENDPOINT", "http://features")
    apart = load_artifact(packed.artifact, threads=1, trust=True, isolated=True)
    assert apart.predict(rows[:1])[0]["value"] == 0
    apart.engine.close()
    monkeypatch.setenv("ESTIBA_MODEL_ENVIRONMENT", "TEST_ENDPOINT, PATH")
    with pytest.raises(ParityError, match="1 for"):
        load_artifact(packed.artifact, threads=1, trust=True, isolated=True)


def test_closing_waits_for_no_call(packed: estiba.Packed) -> None:
    model: Any = load_artifact(packed.artifact, threads=1, isolated=True)
    record, child = model.golden.records[0], model.engine._child
    os.kill(child.pid, signal.SIGSTOP)
    failures: list[BaseException] = []

    def ask() -> None:
        with pytest.raises(Unavailable) as raised:
            model.predict(record)
        failures.append(raised.value)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.3)
    began = time.monotonic()
    model.engine.close()
    asking.join(5)
    assert (len(failures), time.monotonic() - began < 2) == (1, True)
    with pytest.raises(Unavailable, match="not served any more"):
        model.predict(record)
