"""Zip files of others, of which no entry is decompressed beyond the size that the directory states."""

from __future__ import annotations

import zipfile

_END_MARK = b"PK\x05\x06"
_ENTRY_MARK = b"PK\x01\x02"
_ZIP64_MARK = b"PK\x06\x07"
"""First bytes of a zip's end, of each entry of its directory, and of where its end in ZIP64 is (APPNOTE 4.3)."""

_END_BYTES = 22
_ZIP64_BYTES = 20
_MAX_COMMENT_BYTES = 2**16


class BoundedZip(zipfile.ZipFile):
    """A ZipFile whose `read` stops at the stated size: the library's own inflates up to 1 GiB before it cuts.

    An entry that is longer than stated fails the check of its CRC.
    """

    def read(self, name: str | zipfile.ZipInfo, pwd: bytes | None = None) -> bytes:
        entry = name if isinstance(name, zipfile.ZipInfo) else self.getinfo(name)
        with self.open(entry, "r", pwd) as file:
            return file.read(entry.file_size)


def count_entries(content: bytes) -> int:
    """The number of entries that zipfile would make of a zip's directory, or more; 0 where it has none."""
    size = len(content)
    end = size - _END_BYTES
    if end < 0 or not content.startswith(_END_MARK, end) or not content.endswith(b"\0\0"):
        end = content.rfind(_END_MARK, max(0, end - _MAX_COMMENT_BYTES))
    if end < 0:
        return 0
    if content.startswith(_ZIP64_MARK, max(0, end - _ZIP64_BYTES)):  # with other places, which no small file needs
        return content.count(_ENTRY_MARK)
    start = end - int.from_bytes(content[end + 12 : end + 16], "little")
    return content.count(_ENTRY_MARK, max(0, start), end)
