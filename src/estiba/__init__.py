"""Estiba takes a trained model to production: packed with proof, served fast, shipped small.

    import estiba

    packed = estiba.pack(model, X_train, name="churn")       # after model.fit
    estiba.load("churn").predict([{"age": 41}])              # in one's own script
    estiba.Client("http://localhost:8000").predict([{"age": 41}], model="churn")

Names are imported when they are first used, so that `import estiba` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # checkers know the name; until typing were imported, Ctrl-C would end in a trace

__version__ = "0.1.0"

__all__ = [
    "Client",
    "EstibaError",
    "FieldOptions",
    "Model",
    "Outputs",
    "Packed",
    "Source",
    "Trained",
    "__version__",
    "load",
    "pack",
]

if TYPE_CHECKING:
    from typing import Any

    from estiba.client import Client
    from estiba.core.errors import EstibaError
    from estiba.model.infer import FieldOptions
    from estiba.model.load import Model, load
    from estiba.model.pack import Packed, pack
    from estiba.model.signature import Outputs
    from estiba.model.trained import Source, Trained

_PLACES = {
    "Client": "estiba.client",
    "EstibaError": "estiba.core.errors",
    "FieldOptions": "estiba.model.infer",
    "Model": "estiba.model.load",
    "Outputs": "estiba.model.signature",
    "Packed": "estiba.model.pack",
    "Source": "estiba.model.trained",
    "Trained": "estiba.model.trained",
    "load": "estiba.model.load",
    "pack": "estiba.model.pack",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'estiba' has no attribute {name!r}")
