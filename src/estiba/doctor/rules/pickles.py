"""Pickled models: which versions of libraries wrote them, read from their bytes and never by unpickling."""

from __future__ import annotations

import bz2
import lzma
import mmap
import pickletools
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from estiba.doctor.catalogue import Finding, finding, words
from estiba.doctor.read.build_context import BuildContext
from estiba.doctor.rules.requirements import Requirement, Requirements

SUFFIXES = (".joblib", ".pkl", ".pickle", ".sav", ".model")
MOST = 1 << 28
"""Bytes of an unpacked pickle that are looked at."""

_KEY = b"_sklearn_version"
_MODULE = re.compile(rb"(?:\x8c.|\nc|[^\w.]c)(sklearn|xgboost|lightgbm|catboost|numpy\._core)(?=[.\n\x94])", re.S)
_DISTRIBUTION = {"sklearn": "scikit-learn"}
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "UNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING", "STRING")

_CARRIERS = words(
    """
    mlflow imbalanced-learn category-encoders pycaret skops shap autogluon flaml tpot eli5 yellowbrick
    feature-engine librosa sentence-transformers skl2onnx estiba lightgbm scikit-learn-intelex scikeras sktime
    tsfresh evidently h2o
    """
)
"""Distributions that bring scikit-learn or boosters along."""


class Pickled(NamedTuple):
    """What a pickle says of its makers: scikit-learn's version (empty if none), and the packages it needs."""

    sklearn: str
    packages: frozenset[str]


def look(path: Path) -> Pickled | None:
    """What is in a pickle, plain or as joblib compresses it; None where it is none, or cannot be read.

    Nothing in it is run: its bytes are searched, and pickletools reads the few operations after what was found.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(16)
            if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
                with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    return _search(content)
            unpacked = _unpacked(path, head)
            return _search(unpacked) if unpacked[:1] == b"\x80" else None
    except (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError):
        return None


def _unpacked(path: Path, head: bytes) -> bytes:
    """The beginning of a compressed pickle, up to MOST bytes."""
    if head.startswith(b"\x1f\x8b"):
        return _stream(path, zlib.decompressobj(wbits=31))
    if head[:1] == b"\x78":
        return _stream(path, zlib.decompressobj())
    if head.startswith(b"BZh"):
        with bz2.open(path) as unpacked:
            return unpacked.read(MOST)
    if head.startswith((b"\xfd7zXZ", b"\x5d\x00\x00")):
        with lzma.open(path) as unpacked:
            return unpacked.read(MOST)
    return b""


def _stream(path: Path, unpacker: zlib._Decompress) -> bytes:
    """Unpacks until the end, the limit, or a damaged place; what came before it counts."""
    parts, length = [], 0
    with path.open("rb") as handle, suppress(zlib.error):
        while length < MOST and (packed := handle.read(1 << 20)):
            while packed and length < MOST:
                parts.append(unpacker.decompress(packed, 1 << 24))
                length += len(parts[-1])
                packed = unpacker.unconsumed_tail
    return b"".join(parts)


def _search(content: bytes | mmap.mmap) -> Pickled:
    packages = frozenset(found[1].decode() for found in _MODULE.finditer(content))
    place = content.find(_KEY)
    version = _text(content[place + len(_KEY) : place + len(_KEY) + 80]) if place >= 0 else ""
    return Pickled(version if re.fullmatch(r"\d+\.\d+[\w.+-]*", version) else "", packages)


def _text(operations: bytes) -> str:
    """The first text that a few operations of a pickle push."""
    with suppress(ValueError, IndexError, UnicodeDecodeError):  # the end is cut off, and the first is all that counts
        for operation, argument, _ in pickletools.genops(operations.lstrip(b"\n")):
            if operation.name in _TEXTS and isinstance(argument, str):
                return argument
    return ""


def check(context: BuildContext, paths: list[str], requirements: list[Requirements]) -> Iterator[Finding]:
    """Models that the installed libraries did not write.

    Args:
        paths: the model files that count.
        requirements: what is installed beside them.
    """
    for path in paths:
        pickled = look(context.folder / path) if path.endswith(SUFFIXES) else None
        if pickled is None:
            continue
        shown = context.at(path).file
        for found in requirements:
            yield from _versions(shown, pickled, found)
            yield from _absent(shown, pickled, found)


def _versions(shown: str, pickled: Pickled, found: Requirements) -> Iterator[Finding]:
    pin = found.version_of("scikit-learn")
    if pickled.sklearn and pin is not None and minor(pin.version) != minor(pickled.sklearn):
        message = f"`{shown}` was pickled by scikit-learn {pickled.sklearn}, and {pin.version} is installed to read it."
        fix = f"Install scikit-learn=={pickled.sklearn}, or train the model again with {pin.version}."
        yield finding("pickle-version", pin.at, message, fix)
    elif pickled.sklearn and pin is None:
        yield from _ranges(shown, pickled.sklearn, found)
    numpy = found.version_of("numpy")
    if "numpy._core" in pickled.packages and numpy is not None and numpy.version.startswith(("1.", "0.")):
        message = f"`{shown}` was pickled with NumPy 2 or newer, which NumPy {numpy.version} cannot read."
        yield finding("pickle-version", numpy.at, message, "Install numpy 2, or train the model again.")


def _ranges(shown: str, version: str, found: Requirements) -> Iterator[Finding]:
    """A range of versions that the one which wrote the pickle is not in."""
    line = next((line for line in found.lines if line.name == "scikit-learn"), None)
    if line is not None and _outside(version, line):
        message = f"`{shown}` was pickled by scikit-learn {version}, which `scikit-learn{line.rest}` does not allow."
        yield finding("pickle-version", line.at, message, f"Install scikit-learn=={version}, or train the model again.")


def _outside(version: str, line: Requirement) -> bool:
    for sign, bound in re.findall(r"(>=|<=|<|>|~=)\s*(\d+(?:\.\d+)*)", line.rest):
        ours, theirs = numbers(version), numbers(bound)
        below = ours[: len(theirs)] < theirs
        above = ours[: len(theirs)] > theirs
        alike = ours[: len(theirs) - 1] == theirs[:-1]  # ~=1.2.3 allows what begins with 1.2
        refused = {">=": below, ">": below, "<=": above, "<": not below, "~=": below or not alike}
        if refused[sign]:
            return True
    return False


def _absent(shown: str, pickled: Pickled, found: Requirements) -> Iterator[Finding]:
    """Packages that the pickle needs and nothing installs."""
    unclear = any(re.match(r"-e|--editable|-r|--requirement", option) for option in found.options)
    if unclear or not found.lines or found.names & _CARRIERS:
        return
    for package in sorted(pickled.packages - {"numpy._core"}):
        name = _DISTRIBUTION.get(package, package)
        if not any(other == name or other.startswith(f"{name}-") for other in found.names):
            version = f"=={pickled.sklearn}" if package == "sklearn" and pickled.sklearn else ""
            message = f"`{shown}` cannot be read without {name}, which probably is not installed."
            yield finding("module-missing", found.lines[0].at, message, f"Add {name}{version} to {found.file}.")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:4])


def minor(version: str) -> tuple[int, ...]:
    """The first two numbers: pickles of scikit-learn are good within them."""
    return numbers(version)[:2]
