"""Find the compiled part of Estiba, from native/. All that it does works without it as well, only slower."""

from __future__ import annotations

import importlib
from typing import Any


def compiled() -> Any | None:
    """The module `_kernel`, or None where the package was built without a C compiler."""
    try:
        return importlib.import_module("estiba.model._kernel")
    except ImportError:
        return None
