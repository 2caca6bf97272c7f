"""Find the Python files of a program, the files that they load and write, and the ports that they listen on.

They are parsed only; nothing is run. Values that the syntax tree does not tell are left out.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from posixpath import dirname
from typing import NamedTuple

from estiba.doctor.read.build_context import BuildContext
from estiba.doctor.read.dockerfile_stages import resolve_path

MODEL_FILE = re.compile(
    r"\.(?:joblib|pkl|pickle|onnx|skops|ubj|cbm|h5|keras|pt|pth|safetensors|bst|lgb|tflite|sav|model)$", re.I
)
"""The suffixes of model files."""

MAX_MODULES = 200
_LOADERS = ("load", "load_model", "InferenceSession", "open", "read_bytes", "open_file", "read_pickle", "load_file")
_WRITERS = (
    "write_text",
    "write_bytes",
    "to_csv",
    "to_parquet",
    "to_json",
    "to_pickle",
    "save_model",
    "savefig",
    "mkdir",
)
_HANDLERS = ("FileHandler", "RotatingFileHandler", "TimedRotatingFileHandler", "makedirs")


class FileUse(NamedTuple):
    """A path in the container that a line of code uses. `sure` is False if the code checks first."""

    path: str
    file: str
    line: int
    sure: bool


class ListenCall(NamedTuple):
    kind: str
    host: str
    port: int
    debugs: bool
    file: str
    line: int


@dataclass(frozen=True)
class CodeEnvironment:
    """The working folder and environment of the code, and the paths of its own files in the container."""

    folder: str
    environment: Mapping[str, str]
    places: Mapping[str, str]


@dataclass(frozen=True)
class Module:
    """A parsed Python file of the build context."""

    path: str
    tree: ast.Module

    @cached_property
    def names(self) -> dict[str, ast.expr]:
        """The values of the module's names that are assigned once."""
        values: dict[str, ast.expr | None] = {}
        for node in ast.walk(self.tree):
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            for target in targets:
                if isinstance(target, ast.Name) and isinstance(node, (ast.Assign, ast.AnnAssign)):
                    values[target.id] = None if target.id in values else node.value
        return {name: value for name, value in values.items() if value is not None}

    @cached_property
    def guarded(self) -> set[int]:
        """The ids of nodes that run under a condition, or whose failure is caught."""
        inside: set[int] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.If, ast.IfExp, ast.Try)) and not _is_main(node):
                inside.update(id(inner) for inner in ast.walk(node))
        return inside

    def calls(self) -> Iterator[tuple[ast.Call, str]]:
        """Yield every call with the last part of its name."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield node, called(node)


def called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_main(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def module(context: BuildContext, path: str) -> Module | None:
    """Parse a file of the build context; None if it cannot be read or parsed."""
    text = context.text(path)
    if text is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Module(path, ast.parse(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def program_modules(context: BuildContext, target: str, folder: str = "") -> list[Module]:
    """Return the modules of a program: the first one, and those of the build context that are imported from it.

    Args:
        target: `app.main:app`, `app/main.py` or `main`.
        folder: the folder of the build context that its imports start from.
    """
    first = _file(context, target, folder)
    if first is None:
        return []
    modules: dict[str, Module] = {}
    waiting = [first]
    while waiting and len(modules) < MAX_MODULES:
        path = waiting.pop()
        parsed = None if path in modules else module(context, path)
        if parsed is None:
            continue
        modules[path] = parsed
        try:
            waiting += [file for name in _imports(parsed) if (file := _import(context, name, folder, path))]
        except RecursionError:
            continue
    return list(modules.values())


def _file(context: BuildContext, target: str, folder: str) -> str | None:
    """Return the file of the build context for the target of a server."""
    named = target.partition(":")[0]
    if named.endswith(".py"):
        ways = [named.removeprefix("./")]
    else:
        bare = named.replace(".", "/")
        ways = [f"{bare}.py", f"{bare}/__init__.py", f"{bare}/__main__.py"]
    prefix = f"{folder}/" if folder else ""
    return next((f"{prefix}{way}" for way in ways if f"{prefix}{way}" in context.entries), None)


def _import(context: BuildContext, name: str, folder: str, importer: str) -> str | None:
    beside = dirname(importer)
    return _file(context, name, folder) or (_file(context, name, beside) if beside != folder else None)


def _imports(read: Module) -> Iterator[str]:
    package = read.path.split("/")[:-1]
    for node in ast.walk(read.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                [*package[: len(package) - node.level + 1], *([node.module] if node.module else [])]
                if node.level
                else []
            )
            start = ".".join(base) if node.level else str(node.module)
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names)


def loaded_files(read: Module, setting: CodeEnvironment) -> Iterator[FileUse]:
    """Yield the model files that a module loads."""
    for call, name in read.calls():
        if name not in _LOADERS or (name == "open" and _mode(call)[:1] in ("w", "a", "x")):
            continue
        value = call.args[0] if call.args else None
        if name == "read_bytes" or (name == "open" and isinstance(call.func, ast.Attribute)):
            value = call.func.value if isinstance(call.func, ast.Attribute) else None
        path = _path(value, read, setting)
        if path and MODEL_FILE.search(path):
            yield FileUse(path, read.path, call.lineno, id(call) not in read.guarded)


def written_files(read: Module, setting: CodeEnvironment) -> Iterator[FileUse]:
    """Yield the files and folders that a module writes or creates."""
    for call, name in read.calls():
        value: ast.expr | None = None
        if name == "open" and _mode(call)[:1] in ("w", "a", "x"):
            attribute = isinstance(call.func, ast.Attribute) and not _is_module(call.func.value)
            value = (
                call.func.value if attribute and isinstance(call.func, ast.Attribute) else next(iter(call.args), None)
            )
        elif name in _HANDLERS or name.startswith("to_") or name in ("savefig", "save_model"):
            value = next(iter(call.args), None) if name in (*_HANDLERS, *_WRITERS) else None
        elif name == "dump" and len(call.args) > 1:
            value = call.args[1]
        elif name in _WRITERS and isinstance(call.func, ast.Attribute):
            value = call.func.value
        path = _path(value, read, setting)
        if path:
            yield FileUse(path, read.path, call.lineno, id(call) not in read.guarded)


def listen_calls(read: Module, setting: CodeEnvironment) -> Iterator[ListenCall]:
    """Yield the calls with which a module listens itself: `app.run(...)` of Flask, or `uvicorn.run(...)`."""
    flask = any(name.partition(".")[0] == "flask" for name in _imports(read))
    for call, name in read.calls():
        if name != "run" or not isinstance(call.func, ast.Attribute):
            continue
        owner = ast.unparse(call.func.value)
        if owner == "uvicorn" or (flask and owner in ("app", "application", "server")):
            kind = "uvicorn" if owner == "uvicorn" else "flask"
            arguments = {keyword.arg: _value(keyword.value, read, setting) for keyword in call.keywords}
            host = arguments.get("host", "127.0.0.1")
            port = arguments.get("port", 8000 if kind == "uvicorn" else 5000)
            number = int(port) if isinstance(port, (int, str)) and str(port).isdigit() and len(str(port)) < 7 else 0
            known = isinstance(host, str) and not any(keyword.arg is None for keyword in call.keywords)
            debugs = kind == "flask" and arguments.get("debug") is True
            yield ListenCall(kind, str(host) if known else "", number if known else 0, debugs, read.path, call.lineno)


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("os", "io", "gzip", "bz2", "lzma", "codecs")


def _mode(call: ast.Call) -> str:
    path = isinstance(call.func, ast.Attribute) and not _is_module(call.func.value)
    given = call.args[0:1] if path else call.args[1:2]
    given = given or [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    constant = given[0] if given else None
    return constant.value if isinstance(constant, ast.Constant) and isinstance(constant.value, str) else "r"


def _path(node: ast.expr | None, read: Module, setting: CodeEnvironment) -> str:
    """Return an absolute path in the container; empty if the code does not tell."""
    if isinstance(node, ast.Call) and called(node) == "open":
        node = next(iter(node.args), None)
    value = _value(node, read, setting) if node is not None else None
    if not isinstance(value, str) or not value or "://" in value or "\0" in value:
        return ""
    return resolve_path(setting.folder, value)


def _value(node: ast.expr | None, read: Module, setting: CodeEnvironment, depth: int = 0) -> object:
    """Evaluate an expression of paths, numbers and the environment; None for any other."""
    if node is None or depth > 20:
        return None

    def inner(other: ast.expr) -> object:
        return _value(other, read, setting, depth + 1)

    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        if node.id == "__file__":
            return setting.places.get(read.path)
        return inner(read.names[node.id]) if node.id in read.names else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Div, ast.Add)):
        return _added(inner(node.left), inner(node.right), isinstance(node.op, ast.Div))
    if isinstance(node, ast.JoinedStr):
        parts = [inner(part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values]
        return None if any(part is None for part in parts) else "".join(map(str, parts))
    if isinstance(node, ast.Attribute) and node.attr == "parent":
        return _parent(inner(node.value))
    if isinstance(node, ast.Subscript):
        return _subscript(node, inner(node.slice), setting, inner)
    return _call(node, setting, inner) if isinstance(node, ast.Call) else None


def _added(left: object, right: object, slash: bool) -> object:
    if not isinstance(left, str) or not isinstance(right, str):
        return None
    return (right if right.startswith("/") else f"{left.rstrip('/') or '/'}/{right}") if slash else left + right


def _parent(value: object) -> object:
    return dirname(value) or "." if isinstance(value, str) else None


def _subscript(node: ast.Subscript, key: object, setting: CodeEnvironment, inner: object) -> object:
    assert callable(inner)
    if ast.unparse(node.value) == "os.environ":
        return setting.environment.get(str(key))
    if (
        isinstance(node.value, ast.Attribute)
        and node.value.attr == "parents"
        and isinstance(key, int)
        and 0 <= key < 20
    ):
        value = inner(node.value.value)
        for _ in range(key + 1):
            value = _parent(value)
        return value
    return None


def _call(node: ast.Call, setting: CodeEnvironment, inner: object) -> object:
    assert callable(inner)
    name, whole = called(node), ast.unparse(node.func)
    given = [inner(argument) for argument in node.args]
    if whole in ("os.getenv", "os.environ.get", "getenv", "environ.get") and given:
        return setting.environment.get(str(given[0]), given[1] if len(given) > 1 else None)
    if name in ("resolve", "absolute", "as_posix") and isinstance(node.func, ast.Attribute):
        return inner(node.func.value)
    if name in ("str", "int", "Path", "PurePath", "abspath", "realpath", "fspath") and len(given) == 1:
        return given[0]
    if name in ("join", "Path", "joinpath") and given and whole != "str.join":
        start = [inner(node.func.value)] if name == "joinpath" and isinstance(node.func, ast.Attribute) else []
        if name == "join" and not whole.endswith("path.join"):
            return None
        joined_path: object = (start + given)[0]
        for part in (start + given)[1:]:
            joined_path = _added(joined_path, part, True)
        return joined_path
    return _parent(given[0]) if name == "dirname" and given else None
