"""Find the modules of the user's own that code imports, and gather their source files."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePosixPath

from estiba.core.errors import EstibaError
from estiba.model.estimators.object_graph import packages

MAX_FILES = 500
MAX_BYTES = 5_000_000
"""The limit on all source files of one model together."""

_LIBRARIES = frozenset({"site-packages", "dist-packages"})
_HINT = "Move what the model needs at prediction time to a module of its own, or install that code as a package."


@dataclass
class Gathered:
    """Source files by path below the folder that modules are imported from, and what else they import.

    Args:
        libraries: top-level names of modules of installed distributions.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    libraries: set[str] = field(default_factory=set)


def is_own(module: str) -> bool:
    """Tell if a module is of the user's own: a source file outside of the standard library and of site-packages.

    `__main__`, a script or a notebook, is one too. A project that is installed in editable mode counts as the user's
    own, as no server could install it.
    """
    if module == "__main__":
        return True
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("builtins", "estiba"):
        return False
    spec = _find(module)
    return spec is not None and any(not _installed(path) for path in _locations(spec))


def gather(modules: Iterable[str]) -> Gathered:
    """Gather the source files of these modules, of their packages, and of what those import of the user's own.

    Raises:
        EstibaError: a module is compiled or has no file, or there are too many files or bytes.
    """
    gathered = Gathered()
    seen: set[str] = set()
    waiting = sorted(set(modules))
    while waiting:
        module = waiting.pop()
        if module in seen or module == "__main__":
            continue
        seen.add(module)
        if not is_own(module):
            gathered.libraries |= _library(module)
            continue
        parent = module.rpartition(".")[0]
        waiting += [parent] if parent else []
        spec = _find(module)
        if spec is not None and spec.origin is not None:
            content = _source(module, spec)
            _add(gathered, module, spec, content)
            waiting += _imports(module, spec, content)
    return gathered


def distributions(tops: Iterable[str]) -> set[str]:
    """The installed distributions that bring top-level modules."""
    installed = packages()
    return {sorted(installed[top])[0] for top in tops if top in installed}


def _library(module: str) -> set[str]:
    top = module.partition(".")[0]
    return set() if top in sys.stdlib_module_names or top in ("builtins", "estiba") else {top}


def _find(module: str) -> ModuleSpec | None:
    """The spec of a module, without importing it or its packages; None where there is none."""
    loaded = getattr(sys.modules.get(module), "__spec__", None)
    if loaded is not None:
        return loaded  # type: ignore[no-any-return]
    parent = module.rpartition(".")[0]
    folders: list[str] | None = None
    if parent:
        above = _find(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        folders = list(above.submodule_search_locations)
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find(module, folders) if find is not None else None
        if spec is not None:
            return spec
    return None


def _locations(spec: ModuleSpec) -> list[str]:
    """The file of a module, or the folders of a package without one."""
    if spec.origin in ("built-in", "frozen"):
        return []
    return [spec.origin] if spec.origin is not None else list(spec.submodule_search_locations or ())


@cache
def _standard() -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


def _installed(location: str) -> bool:
    path = Path(location)
    return bool(_LIBRARIES & set(path.parts)) or any(path.is_relative_to(folder) for folder in _standard())


def _source(module: str, spec: ModuleSpec) -> bytes:
    path = Path(spec.origin or "")
    if path.suffix != ".py":
        raise EstibaError(
            f"The model uses {module}, which is compiled ({path}), and only source files can be packed with it.",
            hint="Install that code as a package, whose version is then recorded.",
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise EstibaError(f"The model uses {module}, whose file {path} cannot be read: {error.strerror}.") from None


def _add(gathered: Gathered, module: str, spec: ModuleSpec, content: bytes) -> None:
    package = spec.submodule_search_locations is not None
    path = PurePosixPath(*module.split("."), "__init__") if package else PurePosixPath(*module.split("."))
    gathered.files[f"{path}.py"] = content
    total = sum(map(len, gathered.files.values()))
    if len(gathered.files) > MAX_FILES or total > MAX_BYTES:
        largest = max(gathered.files, key=lambda name: len(gathered.files[name]))
        raise EstibaError(
            f"The model's own code is more than {MAX_FILES} files or {MAX_BYTES / 1e6:g} MB; the largest file is "
            f"{largest} with {len(gathered.files[largest]):,} bytes.",
            hint=_HINT,
        )


def _imports(module: str, spec: ModuleSpec, content: bytes) -> Iterator[str]:
    """The modules that a source file imports, also inside functions."""
    package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        raise EstibaError(f"The model uses {module}, whose file {spec.origin} is no Python: {error}.") from None
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            yield from imported_from(node.module or "", node.level, package, [alias.name for alias in node.names])


def imported_from(module: str, level: int, package: str, names: Iterable[str]) -> Iterator[str]:
    """The modules of `from module import names`, whose relative level counts from `package`."""
    if level:
        parts = package.split(".")
        above = parts[: len(parts) - level + 1]
        module = ".".join([*above, module]) if module else ".".join(above)
    if module:
        yield module
        for name in names:
            if name != "*" and is_own(module) and _find(f"{module}.{name}") is not None:
                yield f"{module}.{name}"


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every node of a module, without what only type checkers read or only a script runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _never_runs(child.test):
            for other in child.orelse:
                yield other
                yield from _statements(other)
        else:
            yield child
            yield from _statements(child)


def _never_runs(test: ast.expr) -> bool:
    text = ast.unparse(test)
    return text in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")


def listed(files: Mapping[str, object] | Iterable[str], count: int = 5) -> str:
    """File names for a message: the first few, and how many more there are."""
    names = sorted(files)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
