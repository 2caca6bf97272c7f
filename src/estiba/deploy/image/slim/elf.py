"""Read the dynamic section of programs and shared libraries (ELF of the System V ABI, 64-bit only).

Only the standard library is imported here: the file is also copied into the build stage of images.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LOAD, _DYNAMIC, _INTERP = 1, 2, 3
_NEEDED, _STRTAB, _SONAME, _RPATH, _RUNPATH = 1, 5, 14, 15, 29

_MAGIC = b"\x7fELF\x02\x01"
_SECTIONS = slice(40, 48)
_SECTION_COUNTS = slice(60, 64)


class Elf(NamedTuple):
    """The fields of a file that the loader reads.

    Args:
        needed: names of the libraries that it needs.
        soname: the name of the library; empty for a program.
        search: folders that are searched first for its libraries; `$ORIGIN` is the folder of the file.
        interpreter: the path of the loader; empty for a library.
        end: the offset behind the last mapped byte; data after it is for debuggers and linkers.
    """

    needed: tuple[str, ...]
    soname: str
    search: tuple[str, ...]
    interpreter: str
    end: int


def read(path: Path) -> Elf | None:
    """Read a file; return None if it is damaged, or not a 64-bit little-endian ELF file."""
    with path.open("rb") as handle:
        if handle.read(len(_MAGIC)) != _MAGIC:
            return None
    return parse(path.read_bytes())


def parse(content: bytes) -> Elf | None:
    """Parse the contents of a file, as `read` does."""
    if not content.startswith(_MAGIC):
        return None
    try:
        return _parse(content)
    except (struct.error, IndexError, ValueError, OverflowError):
        return None


def shorten(path: Path) -> int:
    """Cut off data that is never mapped, symbols for linkers and debuggers, and return the number of bytes.

    The header loses its reference to the section headers, which are cut off. No byte moves, so that it is safe for
    libraries that a tool such as patchelf has rearranged; `strip` is not.
    """
    header_fields = read(path)
    if header_fields is None or header_fields.end < 64:
        return 0
    size = path.stat().st_size
    if size - header_fields.end < 4096:
        return 0
    with path.open("r+b") as handle:
        header = bytearray(handle.read(64))
        header[_SECTIONS] = bytes(8)
        header[_SECTION_COUNTS] = bytes(4)
        handle.seek(0)
        handle.write(header)
        handle.truncate(header_fields.end)
    return size - header_fields.end


def _parse(data: bytes) -> Elf:
    segments = list(_segments(data))
    loads = [s for s in segments if s[0] == _LOAD]
    end = max((offset + size for _, offset, _, size in segments), default=0)
    interpreter = next((_text(data, offset) for kind, offset, _, _ in segments if kind == _INTERP), "")
    entries = [entry for s in segments if s[0] == _DYNAMIC for entry in _dynamic(data, s[1], s[3])]
    strings = next((_offset(loads, value) for tag, value in entries if tag == _STRTAB), 0)

    def texts(*tags: int) -> tuple[str, ...]:
        return tuple(_text(data, strings + value) for tag, value in entries if tag in tags)

    search = tuple(folder for text in texts(_RUNPATH, _RPATH) for folder in text.split(":") if folder)
    return Elf(texts(_NEEDED), next(iter(texts(_SONAME)), ""), search, interpreter, end)


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Kind, offset in the file, address and size in the file, of each program header."""
    start, size, count = struct.unpack_from("<Q14xHH", data, 32)
    for n in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, start + n * size)
        yield kind, offset, address, length


def _dynamic(data: bytes, offset: int, size: int) -> Iterator[tuple[int, int]]:
    for position in range(offset, offset + size, 16):
        tag, value = struct.unpack_from("<QQ", data, position)
        if tag == 0:
            return
        yield tag, value


def _offset(loads: list[tuple[int, int, int, int]], address: int) -> int:
    """The offset in the file of a mapped address."""
    for _, offset, start, size in loads:
        if start <= address < start + size:
            return address - start + offset
    raise ValueError(f"nothing is mapped at {address:#x}")


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()
