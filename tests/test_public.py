"""The public names are sorted, importable and documented; importing the package loads nothing else."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import estiba


def test_the_list_is_sorted_and_complete() -> None:
    assert estiba.__all__ == sorted(estiba.__all__)
    assert set(estiba.__all__) == {*estiba._MODULES, "__version__"}


@pytest.mark.parametrize("name", [name for name in estiba.__all__ if name != "__version__"])
def test_each_name_exists_and_has_a_docstring(name: str) -> None:
    found = getattr(estiba, name)
    assert found.__name__ == name
    assert found.__doc__
    assert not found.__doc__.startswith(f"{name}(")  # the docstring that a dataclass gets by default


def test_completion_finds_each_name_before_it_is_used() -> None:
    code = "import estiba; print(set(estiba.__all__) <= set(dir(estiba)), 'pack' in vars(estiba))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "False"]


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'estiba' has no attribute 'pakc'"):
        estiba.pakc  # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert estiba.__version__ == version("estiba")


def test_every_module_has_a_docstring_and_none_is_a_utility() -> None:
    found = [module.name for module in pkgutil.walk_packages(estiba.__path__, "estiba.")]
    assert len(found) > 40
    assert [name for name in found if name.rpartition(".")[2] in ("utils", "helpers", "common", "misc")] == []
    runnable = ("estiba.__main__",)
    assert [name for name in found if name not in runnable and not importlib.import_module(name).__doc__] == []


@pytest.mark.slow
def test_serving_an_onnx_model_needs_no_library_of_training() -> None:
    code = (
        "import sys, estiba.serve, estiba.serving.workers.worker\n"
        "import estiba.model.inference.load, estiba.model.engines.onnx\n"
        "print(sorted({'pandas', 'sklearn', 'onnx', 'skl2onnx', 'skops', 'joblib', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
