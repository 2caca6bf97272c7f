"""Check the words of the code: what docstrings begin with, names of locals, units of constants.

python scripts/words.py           # list what is not in the allow list, and entries that are no longer needed
python scripts/words.py --write   # write tests/words_allowed.txt again; a change may only remove lines from it
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = ROOT / "tests" / "words_allowed.txt"
FOLDERS = ("src", "tests", "scripts", "bench", "examples")
"""Docstrings are checked in all of them, names and constants in what users run: the first, and the tools."""

CLAUSES = {"what", "who", "whoever", "whether", "nobody", "somebody", "where", "how", "why"}
VAGUE_NAMES = {"found", "made", "said", "words", "place", "one", "told"}
LONG_FUNCTION_LINES = 10
NOUN_AND_COLON = re.compile(r"(?:[\w'-]+ ){0,3}[\w'-]+: ")
NOUN_PHRASES = {"A", "An", "The", "True", "False"}
"""First words of docstrings that D401 refuses, although "True if ..." and "The path of ..." say what is returned."""

UNITS = re.compile(
    r"(?:^|_)(SECONDS|MS|US|NS|MINUTES|HOURS|DAYS|BYTES|KB|MB|GB|KIB|MIB|GIB|BITS|CHARS|LINES|ROWS|RECORDS|COLUMNS|ITEMS"
    r"|ENTRIES|TIMES|LOOKS|BATCHES|DIGITS)$"
)
WAITS = {"sleep", "wait", "wait_for", "join", "call_later", "settimeout", "timeout", "alarm", "setitimer"}
CLOCKS = {"monotonic", "perf_counter", "time"}
READS = {"read", "recv", "readexactly", "recv_into", "truncate"}
DURATION_NAME = re.compile(r"(TIMEOUT|DELAY|INTERVAL|GRACE|PERIOD|PATIENCE|PAUSE|SILENCE)")


class Problem(NamedTuple):
    path: str
    line: int
    key: str
    """Path, the name of what is meant, and the rule: no line number, so that edits elsewhere change nothing."""

    message: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="write the allow list again")
    problems = list(check_tree())
    if parser.parse_args().write:
        ALLOWED.write_text("".join(f"{key}\n" for key in sorted({problem.key for problem in problems})))
        return 0
    new, unneeded = compare(problems, allowed())
    for problem in new:
        print(f"{problem.path}:{problem.line}: {problem.message}")
    for key in unneeded:
        print(f"no longer needed in {ALLOWED.relative_to(ROOT)}: {key}")
    return 1 if new or unneeded else 0


def allowed() -> set[str]:
    return set(ALLOWED.read_text().splitlines())


def compare(problems: list[Problem], allowed: set[str]) -> tuple[list[Problem], list[str]]:
    """Problems that are not allowed, and allowed keys that have no problem any more."""
    new = [problem for problem in problems if problem.key not in allowed]
    return new, sorted(allowed - {problem.key for problem in problems})


def check_tree() -> Iterator[Problem]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(part.startswith(".") for part in path.relative_to(ROOT).parts):
                yield from check(path.relative_to(ROOT).as_posix(), path.read_text(), folder)
    yield from moods()


def check(path: str, source: str, folder: str = "src") -> Iterator[Problem]:
    """Problems of one file. `folder` is the top folder that it is in."""
    tree = ast.parse(source)
    for name, node, docstring in docstrings(tree):
        yield from check_docstring(path, name, node, docstring)
    if folder == "tests":
        return
    for name, function in functions(tree):
        for variable, line in sorted(vague_names(function).items()):
            message = f"{name}: `{variable}` does not say what it is; use the word of the subject"
            yield Problem(path, line, f"{path}:{name} {variable}", message)
    for constant, line, kind in constants(tree):
        if not UNITS.search(constant):
            message = f"{constant} is a {kind}: end its name in its unit, such as _SECONDS or _BYTES"
            yield Problem(path, line, f"{path}:{constant} unit", message)


def check_docstring(path: str, name: str, node: ast.AST, docstring: str) -> Iterator[Problem]:
    first = re.match(r"\W*(\w+)", docstring)
    line = getattr(node, "lineno", 1)
    if first and first[1].lower() in CLAUSES:
        message = f"{name or 'module'}: begin the docstring with a verb or a noun, not with “{first[1]}”"
        yield Problem(path, line, f"{path}:{name} clause", message)
    if isinstance(node, ast.Module) and NOUN_AND_COLON.match(docstring):
        message = "say in a sentence what the module does, instead of “Noun: …”"
        yield Problem(path, line, f"{path}: noun-and-colon", message)


def moods() -> Iterator[Problem]:
    """Docstrings of functions in src that begin with a verb in another mood than the imperative, by ruff's D401.

    D401 also refuses a noun phrase with an article ("The path of ..."), which is welcome here. That is why D401 is
    used here and not among ruff's rules in pyproject.toml.
    """
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "D401",
        "--output-format",
        "json",
        "src",
    ]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    sources: dict[str, list[str]] = {}
    for item in json.loads(answer.stdout):
        path = Path(item["filename"]).relative_to(ROOT).as_posix()
        row = item["location"]["row"]
        lines = sources.setdefault(path, (ROOT / path).read_text().splitlines())
        text = lines[row - 1].strip().strip('"')
        if text.split()[0] not in NOUN_PHRASES:
            name = function_at(path, row)
            yield Problem(path, row, f"{path}:{name} mood", f"{name}: use the imperative: {text}")


def function_at(path: str, row: int) -> str:
    """The qualified name of the innermost function around a line."""
    around = [
        (function.lineno, name)
        for name, function in functions(ast.parse((ROOT / path).read_text()))
        if function.lineno <= row <= (function.end_lineno or row)
    ]
    return max(around)[1] if around else ""


def docstrings(tree: ast.Module) -> Iterator[tuple[str, ast.AST, str]]:
    """(qualified name, node, text) of the docstrings of a module, its classes, functions and assigned names."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST, str]]:
        body = getattr(node, "body", [])
        if not isinstance(body, list):
            return
        if body and (text := text_of(body[0])) and isinstance(node, Documented):
            yield prefix, node, text
        for before, statement in pairwise(body):
            if isinstance(before, ast.Assign | ast.AnnAssign) and (text := text_of(statement)):
                target = before.targets[0] if isinstance(before, ast.Assign) else before.target
                yield f"{prefix}.{ast.unparse(target)}".lstrip("."), statement, text
        for child in body:
            if isinstance(child, Documented):
                yield from walk(child, f"{prefix}.{child.name}".lstrip("."))

    yield from walk(tree, "")


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Function = ast.FunctionDef | ast.AsyncFunctionDef


def text_of(statement: ast.stmt) -> str:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    for node in ast.iter_child_nodes(tree):
        name = f"{prefix}.{node.name}".lstrip(".") if isinstance(node, Function | ast.ClassDef) else prefix
        if isinstance(node, Function):
            yield name, node
        yield from functions(node, name)


def vague_names(function: Function) -> dict[str, int]:
    """Vague names that a long function gives to its parameters and variables, with a line of each."""
    if (function.end_lineno or 0) - function.lineno < LONG_FUNCTION_LINES:
        return {}
    names: dict[str, int] = {}
    waiting: list[ast.AST] = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function):
            continue
        name = node.arg if isinstance(node, ast.arg) else node.id if isinstance(node, ast.Name) else ""
        stored = isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        if stored and name in VAGUE_NAMES:
            names[name] = node.lineno  # type: ignore[attr-defined]
        waiting.extend(ast.iter_child_nodes(node))
    return names


def constants(tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    """Constants of a module that are durations or sizes, as far as their name, value and use tell."""
    durations, sizes = used_as(tree)
    for node in ast.walk(tree):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if not (isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name) and value is not None):
            continue
        if not re.fullmatch(r"_?[A-Z][A-Z0-9_]*", target.id) or not is_number(value):
            continue
        if target.id in durations or DURATION_NAME.search(target.id):
            yield target.id, node.lineno, "duration"
        elif target.id in sizes or re.search(r"1024|2 ?\*\* ?[1-4]0|<< ?[1-4]0", ast.unparse(value)):
            yield target.id, node.lineno, "size"


def is_number(value: ast.expr) -> bool:
    if isinstance(value, ast.BinOp):
        return is_number(value.left) and is_number(value.right)
    return isinstance(value, ast.Constant) and type(value.value) in (int, float)


def used_as(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Names that a module uses as a duration (slept, waited for, added to a clock) and as a size (read, received)."""
    durations: set[str] = set()
    sizes: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = called_name(node)
            names = {argument.id for argument in node.args if isinstance(argument, ast.Name)}
            (durations if called in WAITS else sizes if called in READS else set()).update(names)
            durations.update(
                k.value.id for k in node.keywords if k.arg and "timeout" in k.arg and isinstance(k.value, ast.Name)
            )
        elif isinstance(node, ast.BinOp) and isinstance(node.right, ast.Name) and called_name(node.left) in CLOCKS:
            durations.add(node.right.id)
    return durations, sizes


def called_name(node: ast.expr) -> str:
    function = node.func if isinstance(node, ast.Call) else None
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


if __name__ == "__main__":
    sys.exit(main())
