"""Make a root file system: Python, the used part of its library, and the needed shared libraries; no shell.

`python -m estiba.deploy.image.slim.rootfs TARGET LEVEL SYSTEM FOLDER...` (or `bytecode TARGET LEVEL SYSTEM`) runs in
the build stage of an image, which has only the standard library and the files of this package; the builder without
Docker runs the same. SYSTEM is the root that Python is copied from: / or the folder of an unpacked base image.
"""

from __future__ import annotations

import os
import py_compile
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from estiba.deploy.image.slim import elf, trim_packages
from estiba.deploy.image.slim.trim_packages import LeftOut

_DEVELOPING = "for developing programs, not for running them"
_SCREEN = "draws windows, or reads a terminal"
_UNUSED = "no import of the server reaches it"
_CODECS = "text in encodings that no request uses"

_ANY = (
    ("test/*", "tests of Python itself"),
    ("*/test/*", "tests of Python itself"),
    ("*/tests/*", "tests of Python itself"),
    ("idlelib/*", _DEVELOPING),
    ("lib2to3/*", _DEVELOPING),
    ("ensurepip/*", _DEVELOPING),
    ("pydoc_data/*", _DEVELOPING),
    ("config-*", _DEVELOPING),
    ("tkinter/*", _SCREEN),
    ("turtledemo/*", _SCREEN),
    ("turtle.py", _SCREEN),
    ("lib-dynload/_tkinter*", _SCREEN),
    ("lib-dynload/_test*", "tests of Python itself"),
    ("lib-dynload/_xxtest*", "tests of Python itself"),
    ("lib-dynload/xx*", "tests of Python itself"),
)
"""Files of Python's library that every image leaves out: pattern, reason."""

_MODULES = (
    "aifc",
    "cgi",
    "cgitb",
    "chunk",
    "imaplib",
    "mailbox",
    "mailcap",
    "nntplib",
    "poplib",
    "smtplib",
    "ftplib",
    "telnetlib",
    "sunau",
    "wave",
    "uu",
    "xdrlib",
    "zipapp",
    "antigravity",
    "tabnanny",
    "trace",
    "tracemalloc",
    "sndhdr",
    "imghdr",
    "pipes",
    "crypt",
    "optparse",
)
_ENCODINGS = (
    "big5",
    "euc",
    "gb",
    "hp_",
    "hz",
    "johab",
    "koi",
    "kz",
    "ptcp",
    "shift",
    "tis",
    "palmos",
)

_SERVING = (
    ("distutils/*", _DEVELOPING),
    ("venv/*", _DEVELOPING),
    ("unittest/*", _DEVELOPING),
    ("pydoc.py", _DEVELOPING),
    ("doctest.py", _DEVELOPING),
    ("pdb.py", _DEVELOPING),
    ("bdb.py", _DEVELOPING),
    ("cProfile.py", _DEVELOPING),
    ("pstats.py", _DEVELOPING),
    ("pickletools.py", _DEVELOPING),
    ("sqlite3/*", _UNUSED),
    ("dbm/*", _UNUSED),
    ("xml/*", _UNUSED),
    ("xmlrpc/*", _UNUSED),
    ("wsgiref/*", _UNUSED),
    ("multiprocessing/*", _UNUSED),
    ("zoneinfo/*", _UNUSED),
    ("curses/*", _SCREEN),
    *((f"{name}.py", _UNUSED) for name in _MODULES),
    ("lib-dynload/_sqlite3*", _UNUSED),
    ("lib-dynload/_dbm*", _UNUSED),
    ("lib-dynload/_gdbm*", _UNUSED),
    ("lib-dynload/_multiprocessing*", _UNUSED),
    ("lib-dynload/_elementtree*", _UNUSED),
    ("lib-dynload/pyexpat*", _UNUSED),
    ("lib-dynload/_zoneinfo*", _UNUSED),
    ("lib-dynload/audioop*", _UNUSED),
    ("lib-dynload/ossaudiodev*", _UNUSED),
    ("lib-dynload/nis*", _UNUSED),
    ("lib-dynload/_crypt*", _UNUSED),
    ("lib-dynload/_lsprof*", _DEVELOPING),
    ("lib-dynload/_curses*", _SCREEN),
    ("lib-dynload/readline*", _SCREEN),
    ("lib-dynload/_codecs_*", _CODECS),
    ("encodings/cp[13-9]*", _CODECS),
    ("encodings/cp2*", _CODECS),
    ("encodings/mac_*", _CODECS),
    ("encodings/iso8859_[02-9]*", _CODECS),
    ("encodings/iso8859_1[0-9]*", _CODECS),
    ("encodings/iso2022*", _CODECS),
    *((f"encodings/{stem}*", _CODECS) for stem in _ENCODINGS),
)
"""Further files that an image leaves out if it serves models without their training library."""

_STORES = {"sqlite": ("sqlite3/*", "lib-dynload/_sqlite3*"), "postgres": ("zoneinfo/*", "lib-dynload/_zoneinfo*")}
"""By level of a state store, the patterns of `_SERVING` that it needs all the same."""

_LEVELS = {
    **dict.fromkeys(("app", "compiler", "models", "registry"), _ANY),
    "onnx": _ANY + _SERVING,
    **{level: _ANY + tuple(rule for rule in _SERVING if rule[0] not in kept) for level, kept in _STORES.items()},
}

_NAME_SERVICE = ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")
"""Libraries that the C library loads by name when it looks up a host."""

_USERS = "root:x:0:0::/:/nologin\nnonroot:x:10001:10001::/tmp:/nologin\n"
_GROUPS = "root:x:0:\nnonroot:x:10001:\n"


class System(NamedTuple):
    """The file system that Python and shared libraries are copied from.

    Args:
        root: of the file system. library: the folder of Python's standard library. program: the interpreter.
        prefix: the folder that Python is installed in.
    """

    root: Path
    library: Path
    program: Path
    prefix: Path


def this_system() -> System:
    """The running Python and its file system."""
    return System(Path("/"), Path(os.__file__).parent, Path(os.path.realpath(sys.executable)), Path(sys.base_prefix))


def system_below(root: Path) -> System:
    """The Python of an unpacked base image; the running one, which compiles its library, must have its version."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefix = root / "usr/local"
    return System(root, prefix / "lib" / version, prefix / "bin" / version, prefix)


def make(target: Path, level: str, system: System, others: Sequence[Path] = ()) -> list[LeftOut]:
    """Fill `target` with everything that Python needs to run.

    Args:
        level: a key of `trim_packages.LEVELS`. others: folders of further layers, whose needed libraries are added.

    Returns:
        The files of Python's standard library that were left out.
    """
    left_out = _copy_python(target, level, system)
    libraries = _copy_libraries(target, system, others)
    _links(target)
    etc = target / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text(_USERS)
    (etc / "group").write_text(_GROUPS)
    (etc / "nsswitch.conf").write_text("hosts: files dns\n")
    uses_tls = level in ("app", "compiler", "registry")
    for name in ("os-release", *(("ssl/certs/ca-certificates.crt",) if uses_tls else ())):
        source = system.root / "etc" / name
        if source.exists():
            (etc / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, etc / name)
    _copy_package_records(target, system, libraries)
    (target / "tmp").mkdir(exist_ok=True)
    (target / "tmp").chmod(0o1777)
    return left_out


def reason(path: str, level: str) -> str:
    """The reason to leave a file of Python's library out; empty if it is kept. `path` is below lib/pythonX.Y."""
    return next((why for pattern, why in _LEVELS[level] if fnmatch(path, pattern)), "")


def _copy_python(target: Path, level: str, system: System) -> list[LeftOut]:
    version, source = system.library.name, system.library
    library = target / "usr/local/lib" / version
    left_out: dict[str, int] = defaultdict(int)
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source).as_posix()
        if inside.startswith("site-packages") or "__pycache__" in path.parts or not path.is_file():
            continue
        if why := reason(inside, level):
            left_out[why] += path.stat().st_size
            continue
        (library / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, library / inside)
        if ".so" in path.suffixes:
            left_out["symbols for debuggers and linkers"] += elf.shorten(library / inside)
    binaries = target / "usr/local/bin"
    binaries.mkdir(parents=True, exist_ok=True)
    shutil.copy(system.program, binaries / version)
    elf.shorten(binaries / version)
    for name in ("python3", "python"):
        (binaries / name).symlink_to(version)
    return [LeftOut("Python", why, size) for why, size in sorted(left_out.items()) if size]


def _copy_libraries(target: Path, system: System, others: Sequence[Path]) -> list[Path]:
    """Copy the shared libraries that are needed and not there yet; return their paths on the system."""
    brought = [path for root in (target, *others) for path in root.rglob("*") if _is_library(path)]
    needed = _needed([*brought, target / "usr/local/bin/python3"], {path.name for path in brought}, system)
    c_library = next((path for path in needed if path.name.startswith("libc.so")), Path("/usr/lib/libc.so"))
    for path in needed:
        folder = path.parent if path.name.startswith("ld-") else c_library.parent
        _copy_library(path, target, f"/{folder.relative_to(system.root)}")
    return needed


def _needed(files: Sequence[Path], have: set[str], system: System) -> list[Path]:
    """Libraries of a system that files need, directly or through other libraries."""
    folders = list(_folders(system))
    needed = [path for name in _NAME_SERVICE if (path := _find(name, folders))]
    seen = have | {path.name for path in needed}
    pending = [*files, *needed]
    while pending:
        about = elf.read(pending.pop())
        if about is None:
            continue
        for name in (*about.needed, about.interpreter):
            # Programs name the loader by its path; a library that names it finds it already there.
            path = system.root / name[1:] if name.startswith("/") else _find(name, folders)
            if not name or name in seen or name.startswith("ld-") or path is None:
                continue
            seen.add(name)
            needed.append(path)
            pending.append(path)
    return needed


def _copy_library(path: Path, target: Path, folder: str) -> None:
    """Copy a library into a folder that the loader searches without the cache of ldconfig."""
    if not folder.startswith("/usr"):
        folder = f"/usr{folder}"
    copy = target / folder.lstrip("/") / path.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    if not copy.exists():
        shutil.copyfile(os.path.realpath(path), copy)
        copy.chmod(0o755)
        elf.shorten(copy)


def _links(target: Path) -> None:
    """Link /lib and /lib64 to /usr, as on every system with a merged /usr."""
    for name in ("lib", "lib64"):
        if (target / "usr" / name).is_dir() and not (target / name).exists():
            (target / name).symlink_to(f"usr/{name}")


def _is_library(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and ".so" in path.suffixes


def _folders(system: System) -> Iterator[Path]:
    """The folders that the loader of a system searches, in order."""
    yield system.prefix / "lib"
    for path in sorted((system.root / "etc/ld.so.conf.d").glob("*.conf")):
        for line in path.read_text().splitlines():
            if line.startswith("/"):
                yield system.root / line.strip()[1:]
    for name in ("lib64", "usr/lib64", "lib", "usr/lib"):
        yield system.root / name


def _find(name: str, folders: Iterable[Path]) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).exists()), None)


def _copy_package_records(target: Path, system: System, libraries: Iterable[Path]) -> None:
    """Copy Debian's records of the packages of copied files to the folder that scanners read in images without dpkg."""
    info, status = system.root / "var/lib/dpkg/info", system.root / "var/lib/dpkg/status"
    if not info.is_dir() or not status.is_file():
        return
    files = {Path(os.path.realpath(path)) for path in libraries} | set(libraries)
    names = {f"/{path.relative_to(system.root)}" for path in files if path.is_relative_to(system.root)}
    names |= {name.removeprefix("/usr") for name in names}
    owners = set()
    for listing in sorted(info.glob("*.list")):
        if names.intersection(listing.read_text(errors="replace").splitlines()):
            owners.add(listing.stem.partition(":")[0])
    records = target / "var/lib/dpkg/status.d"
    records.mkdir(parents=True, exist_ok=True)
    for record in status.read_text(errors="replace").split("\n\n"):
        named = re.match(r"Package: (\S+)", record)
        if named and named[1] in owners:
            (records / named[1]).write_text(record.strip() + "\n")


def bytecode(target: Path, level: str, system: System) -> None:
    """Compile Python's standard library into `target`, without its sources, which the base image has."""
    source = system.library
    for path in sorted(source.rglob("*.py")):
        inside = path.relative_to(source)
        if inside.parts[0] == "site-packages" or reason(inside.as_posix(), level):
            continue
        folder = target / "usr/local/lib" / source.name / inside.parent / "__pycache__"
        folder.mkdir(parents=True, exist_ok=True)
        py_compile.compile(
            str(path),
            cfile=str(folder / f"{path.stem}.{sys.implementation.cache_tag}.pyc"),
            dfile=f"{trim_packages.PREFIX}/lib/{source.name}/{inside.as_posix()}",
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            quiet=2,
        )


def main() -> None:
    only_bytecode = sys.argv[1] == "bytecode"
    folder, level, root, *others = sys.argv[1 + only_bytecode :]
    target = Path(folder)
    system = this_system() if root == "/" else system_below(Path(root))
    if only_bytecode:
        bytecode(target, level, system)
    else:
        left_out = make(target, level, system, [Path(other) for other in others])
        trim_packages.write_report(target, "python", left_out)
        for library in sorted(target.glob("usr/local/lib/python3*")):
            trim_packages.compile_all(library, f"{trim_packages.PREFIX}/lib/{library.name}")
    trim_packages.settle(target)
    if not only_bytecode:
        (target / "tmp").chmod(0o1777)


if __name__ == "__main__":
    main()
