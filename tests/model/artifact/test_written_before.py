"""Artifacts, registries and training records that an earlier Estiba wrote stay readable, verifiable and servable."""

from __future__ import annotations

import hashlib
import json
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper
from supervised import serving
from tensor_toys import graph

import estiba
from estiba.cli.main import run
from estiba.model.artifact import archive
from estiba.model.registry.registry import open_registry
from estiba.model.schema.signature_checks import check_sound
from estiba.model.schema.tensor_types import TensorOutput
from estiba.model.training import fingerprints

WRITTEN = Path(__file__).parent / "written_by_0_1"

CHURN = "1d2786762fdd6c25a2f4d0164fe8a27b35bf96c149bb44dceb784fdc08a3ac1e"
ROW = {"age": 70, "balance": 773.62, "country": "ES", "active": True}
ANSWER = {"leaves": 0, "risk": 0.0, "probabilities": {"0": 1.0, "1": 0.0}, "level": "low"}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WRITTEN / "registry", tmp_path / "registry"))


def test_versions_and_aliases_are_read(registry: Path) -> None:
    store = open_registry(registry)
    assert store.list() == ("churn", "price")
    assert [version.version for version in store.versions("churn")] == [1, 2]
    assert store.aliases("churn") == {"production": 1, "candidate": 2}
    assert store.resolve("churn").digest == CHURN


@pytest.mark.parametrize(
    ("ref", "row", "answer"),
    [
        ("churn", ROW, ANSWER),
        ("churn@candidate", ROW, {"label": 0, "probabilities": {"0": 1.0, "1": 0.0}}),
        ("price", {"age": 70}, {"value": 140.0}),
    ],
)
def test_models_prove_themselves_and_answer_as_before(
    registry: Path, ref: str, row: dict[str, object], answer: dict[str, object]
) -> None:
    model = estiba.load(ref, registry=registry)
    assert model.parity is not None
    assert model.parity.labels_equal == model.parity.labels_total
    assert model.predict(row) == [answer]


def test_the_next_version_gets_the_next_number(registry: Path) -> None:
    """Version 3 was removed; its number is not given again."""
    store = open_registry(registry)
    exported = archive.load(WRITTEN / "churn.estiba", registry.parent / "unpacked")
    store.remove("churn", 1, force=True)
    assert store.push(exported).version == 4


def test_an_exported_file_is_imported(tmp_path: Path) -> None:
    version = open_registry(tmp_path / "other").import_(WRITTEN / "churn.estiba")
    assert version.digest == CHURN


def test_a_training_is_still_known(tmp_path: Path) -> None:
    path = fingerprints.fingerprint_file(tmp_path, "churn")
    path.parent.mkdir(parents=True)
    shutil.copy(WRITTEN / "trained.json", path)
    kept = fingerprints.read(tmp_path, "churn")
    assert kept is not None
    assert (kept.version, kept.digest) == (1, CHURN)
    assert kept.files == {"train.py": "3893ed708eaf50a240d8d75602d792cd1d6d3ae0f9ad71902122215eab460a16"}


def test_the_command_line_verifies_it(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "churn@1", "--registry", str(registry)]) == 0
    assert capsys.readouterr().out == "churn@1 is sound: 3 files as packed, 76 golden rows (equal, 76/76 labels).\n"


@pytest.mark.slow
def test_a_server_serves_it(registry: Path) -> None:
    with serving(registry, models=("churn", "price")) as server:
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/models/churn/predict",
            json.dumps({"records": [ROW]}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["predictions"] == [ANSWER]
        listed = json.loads(server.get("/models")[1])
        assert "SIMULATED" in server.get("/models/churn/card")[1]
    assert {model["name"]: model["version"] for model in listed["models"]} == {"churn": "1", "price": "1"}


def with_signature(folder: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """An artifact whose manifest has another signature, as JSON."""
    manifest = json.loads((folder / "artifact.json").read_bytes())
    change(manifest["signature"])
    content = json.dumps(manifest).encode()
    other = Path(shutil.copytree(folder, target / hashlib.sha256(content).hexdigest()))
    (other / "artifact.json").write_bytes(content)
    return other


def doubled(signature: dict[str, Any]) -> None:
    """Levels that come twice, which users could give, and classes of one name, which functions could answer."""
    (country,) = [field for field in signature["fields"] if field["name"] == "country"]
    country["levels"].append(country["levels"][0])
    signature["head"]["classes"] = [0, "0"]
    signature["outputs"]["positive"] = 0


def test_levels_that_come_twice_and_classes_of_one_name_are_still_served(registry: Path, tmp_path: Path) -> None:
    model = estiba.load(with_signature(registry / "artifacts" / CHURN, tmp_path, doubled))
    (answer,) = model.predict(ROW)
    assert answer["probabilities"]["0"] in (0.0, 1.0)


def test_outputs_of_more_axes_and_elements_than_inputs_may_have_are_served(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    shape = ["n", 1, 1, 1, 1, 1, 1, 1, 1, 3]
    model = graph(
        [("x", TensorProto.FLOAT, ["n", 3])], [("y", TensorProto.FLOAT, shape)], nodes, shape=np.array([-1, *shape[1:]])
    )
    sample = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    packed = estiba.pack(model, sample, name="wide", registry=tmp_path, quiet=True)
    loaded = estiba.load("wide", registry=tmp_path)
    assert [answer["y"].shape for answer in loaded.predict(sample)] == [tuple(shape[1:])] * 2
    large = TensorOutput(name="y", dtype="float32", shape=(2**13, 2**13))
    signature = packed.artifact.manifest.signature
    check_sound(msgspec.structs.replace(signature, head=msgspec.structs.replace(signature.head, tensors=(large,))))
