"""Write a vulnerability database for Trivy with the entries of a test, in bbolt's format: pages of sorted pairs."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PAGE = 4096
_LEAF, _META, _FREE = 0x02, 0x04, 0x10
_MAGIC, _VERSION = 0xED0CDAED, 2

Bucket = Mapping[str, Any]
"""Names of entries; an entry is bytes or a bucket."""


def write(cache: Path, python: Mapping[str, tuple[str, str]], debian: Mapping[str, tuple[str, str]]) -> None:
    """A database with a vulnerability for each package.

    Args:
        cache: Trivy's folder, TRIVY_CACHE_DIR. python, debian: by package (of Debian 12: by source) a weakness and the
            first version without it.
    """
    pip = "pip::GitHub Security Advisory Pip"
    entries: Bucket = {
        pip: {
            name: {weak: _json({"VulnerableVersions": [f"<{fixed}"], "PatchedVersions": [fixed]})}
            for name, (weak, fixed) in python.items()
        },
        "debian 12": {name: {weak: _json({"FixedVersion": fixed})} for name, (weak, fixed) in debian.items()},
        "data-source": {
            pip: _json({"ID": "ghsa", "Name": "a test", "URL": "https://example.org"}),
            "debian 12": _json({"ID": "debian", "Name": "a test", "URL": "https://example.org"}),
        },
        "vulnerability": {
            weak: _json({"Title": "made up for a test", "Severity": "HIGH"})
            for weak, _ in (*python.values(), *debian.values())
        },
    }
    (cache / "db").mkdir(parents=True)
    (cache / "db" / "trivy.db").write_bytes(_bolt(entries))
    times = {name: "2099-01-01T00:00:00Z" for name in ("NextUpdate", "UpdatedAt", "DownloadedAt")}
    (cache / "db" / "metadata.json").write_bytes(_json({"Version": 2} | times))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _bolt(entries: Bucket) -> bytes:
    """The whole file: two copies of the meta page, a list of free pages that is empty, a page for each bucket."""
    pages: list[bytes] = [b"", b"", _page(2, _FREE, 0, b"")]
    root = _bucket(pages, entries)
    for n in (0, 1):
        body = struct.pack("<4I5Q", _MAGIC, _VERSION, _PAGE, 0, root, 0, 2, len(pages), n)
        pages[n] = _page(n, _META, 0, body + struct.pack("<Q", _fnv(body)))
    return b"".join(pages)


def _bucket(pages: list[bytes], entries: Bucket) -> int:
    """Adds a bucket, those inside it first, and returns the number of its page."""
    pairs = []
    for name, value in sorted(entries.items()):
        inner = not isinstance(value, bytes)
        pairs.append((int(inner), name.encode(), struct.pack("<2Q", _bucket(pages, value), 0) if inner else value))
    table, data = b"", b""
    for n, (kind, key, value) in enumerate(pairs):
        place = 16 * (len(pairs) - n) + len(data)  # from this entry of the table
        table += struct.pack("<4I", kind, place, len(key), len(value))
        data += key + value
    pages.append(_page(len(pages), _LEAF, len(pairs), table + data))
    return len(pages) - 1


def _page(number: int, kind: int, count: int, body: bytes) -> bytes:
    page = struct.pack("<QHHI", number, kind, count, 0) + body
    assert len(page) <= _PAGE
    return page.ljust(_PAGE, b"\0")


def _fnv(data: bytes) -> int:
    """FNV-1a with 64 bits."""
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return found
