"""Requirements of images are serving's packages at the installed versions, with hashes and without GPU packages."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

import pytest

from estiba.core.errors import EstibaError, NotFound
from estiba.deploy.image import requirements
from estiba.deploy.plan.plan import PlannedModel
from estiba.model.registry.registry import open_registry


def planned(name: str, registry: Path) -> PlannedModel:
    found = open_registry(registry).fetch(open_registry(registry).resolve(name))
    return PlannedModel(name, "1", found.digest, found.path, "onnx", {})


def python_engine(name: str, **libraries: str) -> PlannedModel:
    named = {key.replace("_", "-"): version for key, version in libraries.items()}
    return PlannedModel(name, "1", "0" * 64, Path(), "python", named)


def test_a_model_in_onnx_needs_no_training_library(toy_registry: Path) -> None:
    lock = requirements.serving([planned("churn", toy_registry)])
    versions = {pin.name: pin.version for pin in lock.pins}
    assert {"numpy", "onnxruntime", "httptools", "starlette", "uvloop", "msgspec", "click"} <= versions.keys()
    assert not versions.keys() & {"rich", "pygments", "scikit-learn", "pandas", "protobuf", "flatbuffers", "urllib3"}
    assert versions["numpy"] == metadata.version("numpy")
    assert "ONNX Runtime reads" in lock.left_out["protobuf"]


def test_a_model_of_the_python_engine_brings_its_own_versions() -> None:
    lock = requirements.serving([python_engine("a", xgboost="3.1.0", scikit_learn="1.7.0", pandas="2.3.0")])
    pins = [str(pin) for pin in lock.pins]
    assert {"xgboost-cpu==3.1.0", "scikit-learn==1.7.0", "pandas==2.3.0"} <= set(pins)
    assert not any(pin.startswith(("nvidia", "xgboost==", "onnxruntime")) for pin in pins)
    assert "graphics cards" in lock.left_out["xgboost"]


def test_two_versions_of_one_library_do_not_go_into_one_image() -> None:
    models = [python_engine("a", scipy="1.15.0"), python_engine("b", scipy="1.16.0")]
    with pytest.raises(EstibaError, match=r"b was packed with scipy 1\.16\.0, another model with 1\.15\.0") as error:
        requirements.serving(models)
    assert "give each model a port" in str(error.value)


def test_a_package_that_is_not_here() -> None:
    with pytest.raises(NotFound, match="no-such-package, which is not installed here"):
        requirements.serving([], extra=["No_Such.Package"])


def test_training_needs_what_the_code_imports(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("import json\nfrom lightgbm import LGBMClassifier\nfrom . import other\n")
    names = {pin.name for pin in requirements.training(tmp_path, ["code.py"]).pins}
    assert {"lightgbm", "scikit-learn", "skl2onnx", "pandas"} <= names
    assert not names & {"xgboost-cpu", "catboost", "estiba"}


FILE = """\
# a comment
--prefer-binary
xgboost==3.1.0 \\
    --hash=sha256:aa
nvidia-nccl-cu12==2.21 \\
    --hash=sha256:bb
flask==3.1.0 \\
    --hash=sha256:cc
"""


def test_graphics_cards_are_taken_out_of_a_file() -> None:
    kept, added = requirements.cpu_only(FILE)
    assert kept.split() == ["#", "a", "comment", "--prefer-binary", "flask==3.1.0", "\\", "--hash=sha256:cc"]
    assert added == ["xgboost-cpu==3.1.0"]


def test_torch_has_to_be_the_build_for_processors() -> None:
    with pytest.raises(EstibaError, match="several GB"):
        requirements.cpu_only("torch==2.5.1\n")
    assert requirements.cpu_only("torch==2.5.1+cpu\n")[0].strip() == "torch==2.5.1+cpu"


def test_a_lock_names_each_wheel_by_its_digest(tmp_path: Path) -> None:
    (tmp_path / "Some_Thing-1.2-py3-none-any.whl").write_bytes(b"wheel")
    digest = hashlib.sha256(b"wheel").hexdigest()
    text = requirements.locked(tmp_path, {"some-thing": "the test"})
    assert text == f"# for the test\nsome-thing==1.2 \\\n    --hash=sha256:{digest}\n"
