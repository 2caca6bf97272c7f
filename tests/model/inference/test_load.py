"""Errors of loading a model that are no fault of its files say so."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import estiba
from estiba.core.errors import BadArtifact, Conflict, EstibaError, Unavailable
from estiba.model.inference.load import load_artifact

X = pd.DataFrame({"a": [1.0, 2.0, 3.0]})


def failing(file: Path, fail: Callable[[], Any]) -> Any:
    """A function that answers, and fails once there is no such file."""

    def answer(frame: pd.DataFrame) -> Any:
        if not file.exists():
            fail()
        return frame.a * 2

    answer.__module__ = "__main__"  # goes by value, as that of a notebook does
    return answer


def no_memory() -> Any:
    return np.empty(2**50, np.uint8)


def conflict() -> None:
    raise Conflict("Two of them.")


def no_module() -> None:
    importlib.import_module("no_such_module")


def no_file() -> None:
    Path("/no/such/file").read_text()


@pytest.mark.parametrize(
    ("fail", "kind", "message"),
    [
        (no_memory, Unavailable, "m cannot be loaded: there is not enough memory."),
        (no_file, Unavailable, "m cannot be loaded: No such file or directory (/no/such/file)."),
        (no_module, BadArtifact, "m cannot be loaded: it needs the module 'no_such_module', which is not installed."),
        (conflict, Conflict, "Two of them."),
    ],
)
def test_the_sentence_names_the_cause(
    fail: Callable[[], Any], kind: type[EstibaError], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    fail.__module__ = "__main__"
    packed = estiba.pack(failing(file, fail), X, name="m", registry=tmp_path / "registry", quiet=True)
    assert load_artifact(packed.artifact, trust=True).predict(X)[0] == {"value": 2.0}
    file.unlink()
    with pytest.raises(kind) as caught:
        load_artifact(packed.artifact, trust=True)
    assert caught.value.message == message
    assert type(caught.value) is kind


def test_golden_rows_that_do_not_fit_are_no_mistake_of_a_callers(tmp_path: Path) -> None:
    packed = estiba.pack(lambda frame: frame.a * 2, X, name="m", registry=tmp_path, quiet=True)
    golden = packed.artifact.file("golden.json")
    golden.chmod(0o644)
    golden.write_bytes(golden.read_bytes().replace(b'"a":1.0', b'"a":"x"'))
    with pytest.raises(BadArtifact, match="do not fit together"):
        load_artifact(packed.artifact, trust=True)
    assert "no_such_module" not in sys.modules
