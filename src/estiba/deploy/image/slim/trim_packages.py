"""Remove from installed packages what an image never uses, and report what was removed.

`python -m estiba.deploy.image.slim.trim_packages FOLDER LEVEL` runs in the build stage of an image, which has only the
standard library and the files of this package; the builder that needs no Docker runs the same.
"""

from __future__ import annotations

import compileall
import csv
import json
import os
import py_compile
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from estiba.deploy.image.slim import elf

REPORT = "usr/local/share/estiba/left-out"
"""The folder of the image with a list of left out files for each build step."""

OWNERS = "usr/local/share/estiba/owners"
"""The folder of the image with lists of the package that owns each entry of site-packages."""

PREFIX = "/usr/local"
"""The folder of an image that Python is installed in."""


class LeftOut(NamedTuple):
    """The total size of the files of one package that were left out for one reason."""

    package: str
    reason: str
    bytes: int


_COMPILING = "only for compiling against it"
_TYPING = "only for type checkers"
_TESTS = "tests of the package itself"
_UNUSED = "no import of the server reaches it"

_PACKAGES = (
    ("*.h", _COMPILING),
    ("*.hpp", _COMPILING),
    ("*.pxd", _COMPILING),
    ("*.pyx", _COMPILING),
    ("*.pxi", _COMPILING),
    ("*.a", _COMPILING),
    ("*.c", _COMPILING),
    ("*.cpp", _COMPILING),
    ("*.pyi", _TYPING),
    ("*/py.typed", _TYPING),
    ("*.dist-info/RECORD", "it would name files that are left out"),
    ("*.dist-info/INSTALLER", "only records which installer ran"),
    ("*.dist-info/REQUESTED", "only records which installer ran"),
    ("numpy/tests/*", _TESTS),
    ("numpy/*/tests/*", _TESTS),
    ("numpy/_core/_*_tests.*.so", _TESTS),
    ("pandas/tests/*", _TESTS),
    ("scipy/*/tests/*", _TESTS),
    ("sklearn/tests/*", _TESTS),
    ("sklearn/*/tests/*", _TESTS),
    ("pyarrow/tests/*", _TESTS),
    ("xgboost/testing/*", _TESTS),
    ("onnxruntime/transformers/*", "rewrites models before they are served"),
    ("onnxruntime/quantization/*", "rewrites models before they are served"),
    ("onnxruntime/tools/*", "rewrites models before they are served"),
    ("onnxruntime/datasets/*", "examples"),
    ("onnxruntime/backend/*", "for the test suite of ONNX"),
    ("onnxruntime/capi/libonnxruntime.so*", "the same again for programs in C; Python has its own copy"),
)
"""Left out of any image that serves models: pattern below site-packages, reason. The first match counts."""

_BUCKETS = (
    *((f"botocore/data/{name}", "") for name in ("s3/*", "sts/*", "sso/*", "sso-oidc/*", "signin/*")),
    *((f"botocore/data/{name}*", "") for name in ("endpoints.json", "partitions.json", "_retry.json", "sdk-default-")),
    ("botocore/data/*", "services of Amazon that no registry uses"),
)
"""Left out of an image that uses object storage. The first match counts; an empty reason keeps the file."""

_ONNX_ONLY = (
    ("numpy/f2py/*", _COMPILING),
    ("numpy/distutils/*", _COMPILING),
    ("numpy/random/*", _UNUSED),
    ("numpy/fft/*", _UNUSED),
    ("numpy/polynomial/*", _UNUSED),
    ("numpy/testing/*", _UNUSED),
    ("numpy/ctypeslib/*", _UNUSED),
    ("numpy/doc/*", _UNUSED),
    ("numpy/_pyinstaller/*", _UNUSED),
    ("numpy/core/*", "names of NumPy 1"),
    ("numpy/_core/_simd.*.so", _TESTS),
    ("numpy/_core/lib/*", _COMPILING),
)
"""Left out of an image whose models all run without their training library."""

_SERVER = (
    ("estiba/deploy/*", "makes images and manifests"),
    ("estiba/doctor/*", "examines projects for known faults"),
    ("estiba/model/convert/*", "converts models when they are packed"),
    ("estiba/locale/*", "messages of the terminal in other languages"),
    ("estiba/templates/*", "projects that `estiba init` creates"),
    ("*.pyi", _TYPING),
    ("*.dist-info/RECORD", "it would name files that are left out"),
)
"""Left out of Estiba itself in an image that serves."""

_ANY = tuple(rule for rule in _PACKAGES if rule[1] == _TESTS)
"""Left out of any image: tests of packages."""

_APP = (
    *_ANY,
    *(rule for rule in _PACKAGES if rule[1] == _COMPILING),
    ("*.js.map", "only for debugging in a browser"),
    ("*.css.map", "only for debugging in a browser"),
)
"""Left out of an application, whose packages may read any other of their files, such as *.pyi."""

LEVELS = {
    "compiler": _ANY,
    "app": _APP,
    "server": _SERVER,
    "models": _BUCKETS + _PACKAGES,
    **dict.fromkeys(("onnx", "sqlite", "postgres"), _PACKAGES + _ONNX_ONLY),
    "registry": _BUCKETS + _PACKAGES + _ONNX_ONLY,
}
"""By level, the files that are left out.

`server` is Estiba itself, `registry` is `onnx` with object storage, `compiler` is an application with a compiler.
`sqlite` and `postgres` are `onnx` with a state store.
"""


def reason(path: str, level: str) -> str:
    """The reason to leave a file out; empty if it is kept.

    Args:
        path: below site-packages, with forward slashes. level: a key of LEVELS.
    """
    return next((why for pattern, why in LEVELS[level] if fnmatch(path, pattern)), "")


def trim(root: Path, level: str) -> list[LeftOut]:
    """Remove the files below `root` that a level leaves out, and cut unmapped data off shared libraries.

    Args:
        root: contains usr/local/lib/pythonX.Y/site-packages.
    """
    sizes: dict[tuple[str, str], int] = defaultdict(int)
    for site in sorted(root.glob("usr/local/lib/python3*/site-packages")):
        _write_owners(root, site)
        for path in _files(site):
            inside = path.relative_to(site).as_posix()
            package = inside.partition("/")[0].partition("-")[0]
            if why := reason(inside, level):
                sizes[package, why] += path.stat().st_size
                path.unlink()
            elif level != "compiler" and _may_shorten(path) and (cut := elf.shorten(path)):
                sizes[package, "symbols for debuggers and linkers"] += cut
        _sweep(site)
        if cut := _without_jupyter(root, site):
            sizes["jupyter", "extensions of JupyterLab, which is not installed"] += cut
    if level not in ("app", "compiler") and (root / "usr/local/bin").is_dir():
        for path in _files(root / "usr/local/bin"):
            if path.name != "estiba":
                sizes[path.name, "a command that no container calls"] += path.stat().st_size
                path.unlink()
    return [LeftOut(package, why, size) for (package, why), size in sorted(sizes.items())]


def compile_all(folder: Path, where: str) -> None:
    """Write bytecode that is not checked against its source at run time: a read-only image cannot update it.

    Args:
        where: the path of `folder` in the image, for tracebacks.
    """
    compileall.compile_dir(
        folder,
        quiet=2,
        force=True,
        stripdir=str(folder),
        prependdir=where,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        workers=1,
    )


def settle(root: Path) -> None:
    """Give every file the time of SOURCE_DATE_EPOCH, and let every user read it."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or 0)
    for path in [*sorted(root.rglob("*"), reverse=True), root]:
        if not path.is_symlink():
            mode = path.stat().st_mode & 0o7777
            path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def write_report(root: Path, step: str, left_out: list[LeftOut]) -> None:
    """Write the list of left out files into the image, for `estiba build --explain`."""
    target = root / REPORT / f"{step}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(sorted(left_out)))


def _without_jupyter(root: Path, site: Path) -> int:
    """Remove extensions of JupyterLab if it is not installed, and return their bytes."""
    folder = root / "usr/local/share/jupyter"
    if not folder.is_dir() or any(site.glob("jupyter_core*")):
        return 0
    size = sum(path.stat().st_size for path in _files(folder))
    shutil.rmtree(folder)
    return size


def _write_owners(root: Path, site: Path) -> None:
    """Write the owner of each file and folder into the image, because some images leave RECORD out.

    A namespace, a folder of several packages, has no owner; its entries have.
    """
    packages: dict[str, set[str]] = defaultdict(set)
    for name, package in _recorded(site):
        for prefix in _prefixes(name):
            packages[prefix].add(package)
    owners = {}
    for name, package in _recorded(site):
        if name.startswith("../"):  # folders there are shared
            owners[os.path.normpath(f"{site.relative_to(root).as_posix()}/{name}")] = package
        elif alone := next((prefix for prefix in _prefixes(name) if packages[prefix] == {package}), ""):
            owners[alone] = package
    target = root / OWNERS / f"{min(owners.values(), default='none')}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(owners, sort_keys=True))


def _recorded(site: Path) -> Iterator[tuple[str, str]]:
    """Each path in the RECORD of a package, and the package."""
    for record in sorted(site.glob("*.dist-info/RECORD")):
        for row in csv.reader(record.read_text().splitlines()):
            if row:
                yield row[0], record.parent.name.partition("-")[0]


def _prefixes(name: str) -> Iterator[str]:
    """A path and its parent folders, the outermost first."""
    parts = name.split("/")
    return ("/".join(parts[: end + 1]) for end in range(len(parts)))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _may_shorten(path: Path) -> bool:
    """Exclude libraries in *.libs: auditwheel has rearranged them, and they are small or without symbols."""
    return ".so" in path.suffixes and not path.parent.name.endswith(".libs")


def _sweep(folder: Path) -> None:
    """Remove empty folders and cached bytecode."""
    for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        if path.name == "__pycache__":
            shutil.rmtree(path)
        elif not any(path.iterdir()):
            path.rmdir()


def main() -> None:
    folder, level, step = sys.argv[1:4]
    root = Path(folder)
    write_report(root, step, trim(root, level))
    for library in sorted(root.glob("usr/local/lib/python3*")):
        compile_all(library, f"{PREFIX}/lib/{library.name}")
    settle(root)


if __name__ == "__main__":
    main()
