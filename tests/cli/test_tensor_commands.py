"""estiba pack, models show, verify and predict, with a model of tensors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Estiba
from tensor_toys import two_outputs

X = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.onnx").write_bytes(two_outputs())
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    return tmp_path


@pytest.mark.parametrize("sample", ["x.npy", "x.npz"])
def test_arrays_are_a_sample(sample: str, estiba: Estiba, folder: Path) -> None:
    place = ["--registry", folder / "registry"]
    ran = estiba("pack", folder / "m.onnx", "--name", "m", "--sample", folder / sample, *place, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["ref"] == "m@1"
    assert estiba("verify", "m", *place).out.startswith("m@1 is sound: 3 files as packed, 5 golden rows")
    shown = " ".join(estiba("models", "show", "m", *place).out.split())
    assert "float32 of shape [3]" in shown
    assert "tensors: logit float32 [1], probability float32 [1]" in shown
    assert "none; tensors have no distribution by field" in shown


def test_a_file_of_rows_is_not_scored_and_the_hint_says_what_is(estiba: Estiba, folder: Path) -> None:
    place = ["--registry", folder / "registry"]
    estiba("pack", folder / "m.onnx", "--name", "m", "--sample", folder / "x.npy", *place)
    ran = estiba("predict", "m", folder / "x.csv", "-o", folder / "y.csv", *place)
    assert ran.code == 1
    assert "m is a model of tensors, which files of rows do not hold" in ran.err
    assert "numpy.load('x.npy')" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample", "objects.npy"], "cannot be read as NumPy's arrays"),
        (["--sample", "x.npy", "--target", "y"], "holds arrays, and has no column 'y'"),
        (["--sample", "none.npy"], "none.npy"),
    ],
)
def test_a_sample_that_cannot_be_one(arguments: list[str], message: str, estiba: Estiba, folder: Path) -> None:
    given = [folder / each if each.endswith(".npy") else each for each in arguments]
    ran = estiba("pack", folder / "m.onnx", "--name", "m", *given, "--registry", folder / "registry")
    assert ran.code != 0
    assert message in ran.err
    assert "Traceback" not in ran.err
