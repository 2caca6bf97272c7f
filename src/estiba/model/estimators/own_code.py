"""Pack code of the user's own with a model: modules as source files, what no module holds by value.

What was defined in a script or notebook, inside a function or as a lambda has no name to import it by, and goes into
the pickle itself.
"""

from __future__ import annotations

import io
import types
from collections.abc import Mapping
from dataclasses import dataclass

from estiba.core.errors import EstibaError, MissingExtra
from estiba.model.estimators import own_modules
from estiba.model.estimators.object_graph import modules, reachable


@dataclass(frozen=True)
class OwnCode:
    """A pickled model with the code of the user's own.

    Args:
        content: the pickle.
        files: source files by path below the folder that they are imported from.
        by_value: what the pickle itself holds, such as "function clip of __main__".
        libraries: the distributions that all of this imports.
    """

    content: bytes
    files: Mapping[str, bytes]
    by_value: tuple[str, ...]
    libraries: frozenset[str]


def has_own_code(model: object) -> bool:
    """Tell whether a class or function in a model is of the user's own, or has no name to import it by."""
    return bool(own_names(model)) or any(
        "<" in item.__qualname__ for item in reachable(model) if isinstance(item, (types.FunctionType, type))
    )


def own_names(model: object) -> tuple[str, ...]:
    """The modules of the user's own in a model, sorted; `__main__` is a script or notebook."""
    return tuple(sorted(name for name in modules(model) if own_modules.is_own(name)))


def dump(model: object) -> OwnCode:
    """Pickle a model and gather the code of the user's own that it needs; the same bytes in any process.

    Raises:
        EstibaError: it cannot be pickled, or its code cannot be gathered. MissingExtra: cloudpickle is not installed.
    """
    try:
        from estiba.model.estimators.by_value import RecordingPickler
    except ImportError:
        raise MissingExtra("cloudpickle", "train") from None
    buffer = io.BytesIO()
    pickler = RecordingPickler(buffer)
    try:
        pickler.dump(model)
    except Exception as error:  # pickling fails in as many ways as there are classes
        raise EstibaError(
            f"The model cannot be saved: {type(error).__name__}: {error}",
            hint="It holds something that belongs to this process, such as an open file, a lock or a connection.",
        ) from error
    content, gathered = buffer.getvalue(), own_modules.gather(pickler.modules)
    tops = gathered.libraries | ({"cloudpickle"} if b"cloudpickle" in content else set())
    libraries = frozenset(own_modules.distributions(tops))
    return OwnCode(content, gathered.files, tuple(sorted(pickler.by_value)), libraries)
