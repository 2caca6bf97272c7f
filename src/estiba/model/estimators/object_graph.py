"""Walk the objects of a fitted model, and list the libraries that their classes and functions come from."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_NUMERIC = frozenset({"joblib", "numpy", "pandas", "scikit-learn", "scipy"})
"""Numeric libraries that the others compute with: answers change with them, so their versions are recorded too."""

_FRAMEWORKS = {
    "catboost": "CatBoost",
    "lightgbm": "LightGBM",
    "xgboost": "XGBoost",
    "xgboost-cpu": "XGBoost",
}


def reachable(model: object) -> Iterator[Any]:
    """Every object in a fitted model once: itself, its attributes, and what containers in them hold."""
    seen: dict[int, object] = {}  # holds the objects, so that no id is given twice
    waiting: list[Any] = [model]
    while waiting:
        item = waiting.pop()
        if item is None or isinstance(item, (str, bytes, int, float)) or id(item) in seen:
            continue
        seen[id(item)] = item
        yield item
        waiting.extend(reversed(list(_inside(item))))


def _inside(item: Any) -> Iterator[Any]:
    if isinstance(item, Mapping):
        yield from item.keys()
        yield from item.values()
    elif isinstance(item, (list, tuple, set, frozenset)):
        yield from item
    elif isinstance(item, functools.partial):
        yield from (item.func, item.args, item.keywords)
    elif isinstance(item, types.MethodType):
        yield from (item.__self__, item.__func__)
    elif hasattr(item, "dtype") and hasattr(item, "flat"):
        yield from item.flat if item.dtype == object else ()
    elif not isinstance(item, (type, types.FunctionType, types.ModuleType)):
        yield from getattr(item, "__dict__", {}).values()


def packages() -> Mapping[str, Sequence[str]]:
    """The installed distributions by the top-level names that they bring; read again where something was installed."""
    folders = [folder for folder in map(Path, sys.path) if folder.is_dir()]
    return _packages(tuple((folder, folder.stat().st_mtime_ns) for folder in folders))


@functools.lru_cache(1)
def _packages(changed: tuple[tuple[Path, int], ...]) -> Mapping[str, Sequence[str]]:
    return importlib.metadata.packages_distributions()


def libraries(model: object, format: str = "", imported: Iterable[str] = ()) -> dict[str, str]:
    """The exact version, by distribution name, of every library that the python engine needs to run `model`.

    Args:
        format: how the model is saved (`estiba.model.artifact.artifact.Format`); what reads that format is added.
        imported: distributions that code of the user's own imports.
    """
    installed = packages()
    names = {"numpy", "pandas"}  # the engine itself builds a DataFrame
    names |= {format} & {"joblib", "skops"}
    names |= set(imported)
    for top in _tops(model):
        names |= set(sorted(installed.get(top, ()))[:1])
    for name in sorted(names):
        names |= set(_requirements(name)) & _NUMERIC
    return {name: importlib.metadata.version(name) for name in sorted(names)}


def framework(model: object) -> str:
    """Name the library that trained the model, with its version ("scikit-learn 1.9.1"), by the last step of a Pipeline.

    Args:
        model: a fitted estimator, or the bytes of an ONNX file, which are named after the program that wrote them.
    """
    if isinstance(model, bytes):
        return _producer(model)
    top = module_of(type(last_step(model))).partition(".")[0]
    names = sorted(packages().get(top, ()))
    if not names:
        return "code of your own" if top not in sys.stdlib_module_names else "Python"
    return f"{_FRAMEWORKS.get(names[0], names[0])} {importlib.metadata.version(names[0])}"


def _producer(model: bytes) -> str:
    import onnx

    proto = onnx.load_model_from_string(model)
    producer = f"{proto.producer_name} {proto.producer_version}".strip()
    return f"ONNX from {producer}" if producer else "ONNX"


def last_step(model: Any) -> Any:
    """The last step of a Pipeline, also inside a search over parameters; else the model itself."""
    for name in ("best_estimator_", "steps"):
        inner = getattr(model, name, None)
        if inner is not None:
            return last_step(inner[-1][1] if name == "steps" else inner)
    return model


def _tops(model: object) -> set[str]:
    return {name.partition(".")[0] for name in modules(model)}


def modules(model: object) -> set[str]:
    """The modules of every class, base class and function in a model."""
    definitions = {_definition(item) for item in reachable(model)}
    return {module_of(part) for definition in definitions for part in _bases(definition)}


def _bases(definition: Any) -> Sequence[Any]:
    """A class with its base classes: XGBoost's classifiers need scikit-learn, which XGBoost does not require."""
    return definition.__mro__ if isinstance(definition, type) else (definition,)


def _definition(item: Any) -> Any:
    """The class or function that must be found again for an object to be read."""
    named = isinstance(item, (type, types.FunctionType, types.BuiltinFunctionType)) or type(item).__name__ == "ufunc"
    return item if named or isinstance(item, types.ModuleType) else type(item)


def module_of(definition: Any) -> str:
    """The module that a class or function can be imported from."""
    name = getattr(definition, "__module__", None)
    if isinstance(definition, types.ModuleType):
        return definition.__name__
    if name is not None and name in sys.modules:
        return str(name)
    # Extension modules may forget their package (`_loss` for `sklearn._loss._loss`), and ufuncs name none.
    return next(_holders(definition, name), name or "builtins")


def _holders(definition: Any, name: str | None) -> Iterator[str]:
    for module, loaded in sorted(sys.modules.items()):
        if name is None or module.endswith(f".{name}"):
            held = vars(loaded).get(definition.__name__) if isinstance(loaded, types.ModuleType) else None
            if held is definition:
                yield module


def _requirements(distribution: str) -> Sequence[str]:
    lines = importlib.metadata.requires(distribution) or []
    names = [re.match(r"[\w.-]+", line) for line in lines if "extra ==" not in line]
    return [name[0].lower() for name in names if name]
