"""Explain why a pickle cannot be read: another scikit-learn saved it, or it names code of a notebook."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from estiba.core.errors import BadArtifact

_VERSION = re.compile(rb"_sklearn_version[\x00-\xff]{1,12}?(\d+\.\d+(?:\.\d+)?(?:\.?(?:dev|rc|post)\d+)?)")
"""The version of scikit-learn, as each of its estimators writes it into a pickle."""

_UNPACK: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", gzip.decompress),
    (b"\x78", zlib.decompress),
    (b"BZh", bz2.decompress),
    (b"\xfd7zXZ\x00", lzma.decompress),
    (b"\x5d\x00\x00", lzma.decompress),
)
"""First bytes of the compressions that joblib uses."""

_OF_MAIN = re.compile(r"Can't get attribute '([^']+)' on <module '(?:[\w.]+\.)?__main__'")


def unreadable_pickle(path: Path, error: Exception) -> BadArtifact | None:
    """The error for a pickle that cannot be read; None where nothing is known but the library's own."""
    if named := _OF_MAIN.search(f"{error}"):
        return BadArtifact(
            f"{path} needs {named[1]!r}, which was defined in a notebook or a script (__main__): a pickle names such "
            "code, and does not hold it.",
            hint="Pack the model where it was trained, with estiba.pack(model, ...), which takes the code along; or "
            "move the code into a module that can be imported, and train and save again.",
        )
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith(("sklearn", "_")):
        return None  # another library is not there; scikit-learn's compiled modules pickle as `_loss`
    saved = sklearn_version(path)
    try:
        installed = version("scikit-learn")
    except PackageNotFoundError:
        return None
    if saved in ("", installed):
        return None
    return BadArtifact(
        f"{path} was saved with scikit-learn {saved}, and scikit-learn {installed}, which is installed, cannot read "
        f"it: {type(error).__name__}: {error}",
        hint=f"Pack it with scikit-learn=={saved} installed, or train and save the model again with {installed}.",
    )


def sklearn_version(path: Path) -> str:
    """The version of scikit-learn that saved a pickle; empty where it does not say."""
    try:
        content = path.read_bytes()
        unpack = next((unpack for head, unpack in _UNPACK if content.startswith(head)), bytes)
        found = _VERSION.search(unpack(content))
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        return ""
    return found[1].decode() if found else ""
