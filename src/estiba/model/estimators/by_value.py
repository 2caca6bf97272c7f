"""Pickle an object with cloudpickle, and record what that names and what it holds by value."""

from __future__ import annotations

import dis
import io
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle
import numpy as np

from estiba.model.estimators import skops
from estiba.model.estimators.object_graph import module_of
from estiba.model.estimators.own_modules import imported_from

PROTOCOL = 5

_FILE_NAME = "<own code>"
"""Stands in tracebacks for the file of code by value, whose path is of the machine that packed it."""


class RecordingPickler(cloudpickle.Pickler):  # type: ignore[misc, unused-ignore]
    """A pickler whose bytes are the same in every process.

    Attributes:
        modules: names of modules that the pickle, or code in it, imports.
        by_value: functions and classes that the pickle itself holds, such as "function clip of __main__".
    """

    def __init__(self, buffer: io.BytesIO) -> None:
        super().__init__(buffer, protocol=PROTOCOL)
        self.modules: set[str] = set()
        self.by_value: set[str] = set()

    def reducer_override(self, item: Any) -> Any:
        """As cloudpickle's own, with a record of what is found."""
        if isinstance(item, np.ndarray) and item.dtype.names:
            return skops.unpadded(item).__reduce_ex__(PROTOCOL)
        if isinstance(item, types.CodeType):
            self.modules.update(_imports(item))
            return self.dispatch_table[types.CodeType](item.replace(co_filename=_FILE_NAME))
        if isinstance(item, types.ModuleType):
            self.modules.add(item.__name__)
        reduced = super().reducer_override(item)
        if not isinstance(item, (type, types.FunctionType, types.BuiltinFunctionType)):
            return reduced
        if reduced is NotImplemented:
            self.modules.add(module_of(item))
            return reduced
        return self._held(item, reduced)

    def _held(self, item: Any, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
        """The reduction of what is held by value, without a path of this machine or an id of this process."""
        if isinstance(item, types.FunctionType):
            reduced[1][1].pop("__file__", None)
        elif len(reduced) == 6:  # a class: cloudpickle would find it again by an id
            reduced = (reduced[0], (*reduced[1][:-2], None, reduced[1][-1]), *reduced[2:])
        else:
            return reduced  # a type of the interpreter
        name = item.__qualname__
        if "." not in name or "<" in name:  # else it is a method of a class that is named itself
            kind = "class" if isinstance(item, type) else "function"
            self.by_value.add(f"{kind} {name} of {item.__module__}")
        return reduced


def _imports(code: types.CodeType) -> Iterator[str]:
    """Modules that a function imports when it runs; nested functions are code objects of their own."""
    loaded: list[Any] = []
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            level, names = loaded
            if not level:
                yield from imported_from(step.argval, 0, "", names or ())
        if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            loaded = [*loaded[-1:], step.argval]
