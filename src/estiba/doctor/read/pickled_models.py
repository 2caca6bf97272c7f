"""Find the library versions that wrote a pickled model, by searching its bytes. Nothing is unpickled."""

from __future__ import annotations

import bz2
import lzma
import mmap
import pickletools
import re
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (".joblib", ".pkl", ".pickle", ".sav", ".model")
MAX_UNPACKED_BYTES = 1 << 28
"""The part of a compressed pickle that is searched."""

_KEY = b"_sklearn_version"
_MODULE = re.compile(rb"(?:\x8c.|\nc|[^\w.]c)(sklearn|xgboost|lightgbm|catboost|numpy\._core)(?=[.\n\x94])", re.S)
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "UNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING", "STRING")


class Pickled(NamedTuple):
    """The scikit-learn version that wrote a pickle (empty if none), and the packages that reading it needs."""

    sklearn: str
    packages: frozenset[str]


def look(path: Path) -> Pickled | None:
    """Search a pickle, plain or compressed by joblib; None if the file is not one, or cannot be read.

    Nothing in it runs: its bytes are searched, and pickletools decodes a few operations behind a match.
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
    """Return the first MAX_UNPACKED_BYTES of a compressed pickle."""
    if head.startswith(b"\x1f\x8b"):
        return _stream(path, zlib.decompressobj(wbits=31))
    if head[:1] == b"\x78":
        return _stream(path, zlib.decompressobj())
    if head.startswith(b"BZh"):
        with bz2.open(path) as unpacked:
            return unpacked.read(MAX_UNPACKED_BYTES)
    if head.startswith((b"\xfd7zXZ", b"\x5d\x00\x00")):
        with lzma.open(path) as unpacked:
            return unpacked.read(MAX_UNPACKED_BYTES)
    return b""


def _stream(path: Path, unpacker: zlib._Decompress) -> bytes:
    """Decompress until the end, the limit, or a damaged byte, and return what came before it."""
    parts, length = [], 0
    with path.open("rb") as handle, suppress(zlib.error):
        while length < MAX_UNPACKED_BYTES and (packed := handle.read(1 << 20)):
            while packed and length < MAX_UNPACKED_BYTES:
                parts.append(unpacker.decompress(packed, 1 << 24))
                length += len(parts[-1])
                packed = unpacker.unconsumed_tail
    return b"".join(parts)


def _search(content: bytes | mmap.mmap) -> Pickled:
    packages = frozenset(match[1].decode() for match in _MODULE.finditer(content))
    start = content.find(_KEY)
    version = _text(content[start + len(_KEY) : start + len(_KEY) + 80]) if start >= 0 else ""
    return Pickled(version if re.fullmatch(r"\d+\.\d+[\w.+-]*", version) else "", packages)


def _text(operations: bytes) -> str:
    """Return the first text that a few operations of a pickle push."""
    with suppress(ValueError, IndexError, UnicodeDecodeError):  # the end is cut off, and the first is all that counts
        for operation, argument, _ in pickletools.genops(operations.lstrip(b"\n")):
            if operation.name in _TEXTS and isinstance(argument, str):
                return argument
    return ""
