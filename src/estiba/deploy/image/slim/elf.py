"""ELF: what a program or shared library needs of others, read from its dynamic section (System V ABI, 64-bit only).

Nothing but the standard library is imported here: the file is also copied into the build stage of images.
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
    """What the loader reads of a file.

    Args:
        needed: names of the libraries that it needs.
        soname: its own name, empty for a program.
        search: folders in which its libraries are looked for first; `$ORIGIN` is its own.
        interpreter: the loader's path; empty for a library.
        end: bytes from the beginning that are ever mapped; what lies behind is for debuggers and linkers.
    """

    needed: tuple[str, ...]
    soname: str
    search: tuple[str, ...]
    interpreter: str
    end: int


def read(path: Path) -> Elf | None:
    """What a file needs; None where it is no 64-bit little-endian ELF file, or a damaged one."""
    with path.open("rb") as handle:
        if handle.read(len(_MAGIC)) != _MAGIC:
            return None
    return parse(path.read_bytes())


def parse(content: bytes) -> Elf | None:
    """As `read`, of what a file holds."""
    if not content.startswith(_MAGIC):
        return None
    try:
        return _parse(content)
    except (struct.error, IndexError, ValueError, OverflowError):
        return None


def shorten(path: Path) -> int:
    """Cuts off what no loader maps: symbols for linkers and debuggers. Returns how many bytes that were.

    The section headers, which would point behind the end, are taken out of the header too. Nothing moves, so it is
    safe where `strip` is not: on libraries that a tool such as patchelf has rearranged.
    """
    found = read(path)
    if found is None or found.end < 64:
        return 0
    size = path.stat().st_size
    if size - found.end < 4096:
        return 0
    with path.open("r+b") as handle:
        header = bytearray(handle.read(64))
        header[_SECTIONS] = bytes(8)
        header[_SECTION_COUNTS] = bytes(4)
        handle.seek(0)
        handle.write(header)
        handle.truncate(found.end)
    return size - found.end


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
    """Kind, place in the file, address and size in the file, of each program header."""
    start, size, count = struct.unpack_from("<Q14xHH", data, 32)
    for n in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, start + n * size)
        yield kind, offset, address, length


def _dynamic(data: bytes, offset: int, size: int) -> Iterator[tuple[int, int]]:
    for place in range(offset, offset + size, 16):
        tag, value = struct.unpack_from("<QQ", data, place)
        if tag == 0:
            return
        yield tag, value


def _offset(loads: list[tuple[int, int, int, int]], address: int) -> int:
    """The place in the file of what is mapped at an address."""
    for _, offset, start, size in loads:
        if start <= address < start + size:
            return address - start + offset
    raise ValueError(f"nothing is mapped at {address:#x}")


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()
