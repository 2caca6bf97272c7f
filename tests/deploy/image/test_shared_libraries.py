"""Shared libraries that a wheel needs and an image lacks are found before the image is built."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import pytest

from estiba.core.errors import EstibaError
from estiba.deploy.image import shared_libraries


def numpy_wheel(folder: Path, *, whole: bool) -> Path:
    """A wheel of NumPy's compiled part, with or without the libraries that it brings."""
    found = importlib.util.find_spec("numpy._core._multiarray_umath")
    assert found is not None
    assert found.origin is not None
    core = Path(found.origin)
    path = folder / "numpy-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(core, f"numpy/_core/{core.name}")
        for library in (core.parents[2] / "numpy.libs").iterdir() if whole else ():
            archive.write(library, f"numpy.libs/{library.name}")
    return path


def test_a_whole_wheel_needs_nothing_more(tmp_path: Path) -> None:
    assert shared_libraries.missing([numpy_wheel(tmp_path, whole=True)]) == {}


def test_what_is_missing_is_named_with_who_needs_it(tmp_path: Path) -> None:
    missing = shared_libraries.missing([numpy_wheel(tmp_path, whole=False)])
    ((name, who),) = missing.items()
    assert "openblas" in name
    assert who.startswith("numpy (numpy/_core/_multiarray_umath")
    with pytest.raises(EstibaError, match="which a slim image does not have") as error:
        shared_libraries.packages(missing)
    assert "apt-file" in str(error.value)


def test_debian_has_what_gradient_boosting_needs() -> None:
    assert shared_libraries.packages({"libgomp.so.1": "lightgbm (lib_lightgbm.so)"}) == ["libgomp1"]
