"""Files trimmed from packages each have a reason, and the packages and Python's library still work without them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from estiba.deploy.image.slim import elf, rootfs, trim_packages


@pytest.mark.parametrize(
    ("path", "level", "kept"),
    [
        ("numpy/core/__init__.py", "onnx", False),
        ("numpy/_core/multiarray.py", "onnx", True),
        ("numpy/random/mtrand.so", "onnx", False),
        ("numpy/random/mtrand.so", "models", True),
        ("numpy/f2py/__init__.py", "models", True),
        ("numpy/ma/core.py", "onnx", True),
        ("sklearn/linear_model/tests/test_ridge.py", "models", False),
        ("sklearn/linear_model/tests/test_ridge.py", "app", False),
        ("mine/tests/data.py", "app", True),
        ("pyarrow/include/arrow/api.h", "app", False),
        ("pyarrow/include/arrow/api.h", "compiler", True),
        ("pydeck/static/index.js.map", "app", False),
        ("skimage/io/__init__.pyi", "app", True),
        ("httptools/parser/parser.pyx", "models", False),
        ("onnxruntime/capi/libonnxruntime.so.1.31.1", "onnx", False),
        ("onnxruntime/capi/onnxruntime_pybind11_state.so", "onnx", True),
        ("estiba/deploy/image/slim/trim_packages.py", "server", False),
        ("estiba/serving/workers/worker.py", "server", True),
    ],
)
def test_what_is_left_out(path: str, level: str, kept: bool) -> None:
    assert (trim_packages.reason(path, level) == "") == kept


def test_every_reason_is_a_sentence_of_a_few_words() -> None:
    for rules in trim_packages.LEVELS.values():
        assert all(3 <= len(why.split()) <= 12 for _, why in rules if why not in ("", "examples"))


@pytest.mark.parametrize(
    "module", ["asyncio", "ssl", "email.parser", "urllib.request", "unicodedata", "encodings.idna"]
)
def test_python_keeps_what_a_server_imports(module: str) -> None:
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    if found.origin not in ("built-in", "frozen"):
        folder = f"python3.{sys.version_info.minor}/"
        assert rootfs.reason(found.origin.partition(folder)[2], "onnx") == ""


def test_python_loses_what_draws_windows() -> None:
    assert rootfs.reason("tkinter/__init__.py", "app")
    assert rootfs.reason("sqlite3/__init__.py", "onnx")
    assert not rootfs.reason("sqlite3/__init__.py", "app")


def library(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin)


def test_a_shortened_library_still_loads(tmp_path: Path) -> None:
    shutil.copytree(library("uvloop").parent, tmp_path / "uvloop")
    (loop,) = (tmp_path / "uvloop").glob("loop.*.so")
    before = loop.stat().st_size
    cut = elf.shorten(loop)
    assert cut > before / 2
    assert loop.stat().st_size == before - cut
    code = "import uvloop; print(uvloop.__file__); uvloop.new_event_loop().close()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(str(tmp_path)), done.stderr
    assert elf.shorten(loop) == 0


def test_what_a_library_needs() -> None:
    found = elf.read(library("numpy._core._multiarray_umath"))
    assert found is not None
    assert "libc.so.6" in found.needed
    assert any(folder.startswith("$ORIGIN") for folder in found.search)


def test_what_is_no_library(tmp_path: Path) -> None:
    for content in (b"", b"#!/bin/sh", b"\x7fELF\x02\x01" + b"\xff" * 200):
        (tmp_path / "file").write_bytes(content)
        assert elf.read(tmp_path / "file") is None
        assert elf.shorten(tmp_path / "file") == 0


def test_trimming_a_tree(tmp_path: Path) -> None:
    site = tmp_path / "usr/local/lib/python3.11/site-packages"
    for name in ("numpy/tests/big.py", "numpy/__init__.py", "numpy/_core/a.pyi", "numpy-2.0.dist-info/METADATA"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("x" * 10)
    (site / "numpy-2.0.dist-info/RECORD").write_text(
        "numpy/__init__.py,sha256=a,1\nnumpy.libs/b.so,,\nnumpy-2.0.dist-info/RECORD,,\n../../../bin/f2py,,\n"
    )
    left_out = trim_packages.trim(tmp_path, "onnx")
    assert trim_packages.LeftOut("numpy", "tests of the package itself", 10) in left_out
    assert sorted(path.name for path in site.rglob("*") if path.is_file()) == ["METADATA", "__init__.py"]
    assert not (site / "numpy/tests").exists()
    (owners,) = (tmp_path / trim_packages.OWNERS).iterdir()
    inside = dict.fromkeys(("numpy", "numpy.libs", "numpy-2.0.dist-info"), "numpy")
    assert json.loads(owners.read_text()) == {**inside, "usr/local/bin/f2py": "numpy"}


def recorded(site: Path, package: str, *names: str) -> None:
    """A package as an installer leaves it."""
    (site / f"{package}-1.0.dist-info").mkdir(parents=True)
    for name in names:
        (site / name).resolve().parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("x" * 10)
    (site / f"{package}-1.0.dist-info/RECORD").write_text("".join(f"{name},,\n" for name in names))


def owners(root: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in (root / trim_packages.OWNERS).iterdir():
        found |= json.loads(path.read_text())
    return found


def test_a_folder_that_packages_share_is_of_none(tmp_path: Path) -> None:
    site = tmp_path / "usr/local/lib/python3.11/site-packages"
    recorded(site, "mlflow", "mlflow/server/a.py", "../../../bin/mlflow")
    recorded(site, "mlflow_tracing", "mlflow/tracing/b.py", "mlflow/c.py")
    trim_packages.trim(tmp_path, "app")
    assert owners(tmp_path) == {
        "mlflow/server": "mlflow",
        "usr/local/bin/mlflow": "mlflow",
        "mlflow/tracing": "mlflow_tracing",
        "mlflow/c.py": "mlflow_tracing",
    }


@pytest.mark.parametrize("there", [True, False])
def test_extensions_of_jupyterlab_stay_where_it_is(tmp_path: Path, there: bool) -> None:
    site = tmp_path / "usr/local/lib/python3.11/site-packages"
    recorded(site, "pydeck", "pydeck.py", "../../../share/jupyter/nbextensions/pydeck/index.js")
    if there:
        recorded(site, "jupyter_core", "jupyter_core/paths.py")
    left_out = trim_packages.trim(tmp_path, "app")
    assert (tmp_path / "usr/local/share/jupyter").exists() == there
    assert left_out == ([] if there else [("jupyter", "extensions of JupyterLab, which is not installed", 10)])
