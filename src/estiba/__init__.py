"""Estiba takes a trained model to production: it packs, serves and deploys the model.

    import estiba

    packed = estiba.pack(model, X_train, name="churn")       # after model.fit
    estiba.load("churn").predict([{"age": 41}])              # in a script
    estiba.Client("http://localhost:8000").predict([{"age": 41}], model="churn")

Names are imported when they are first used, so that `import estiba` is fast.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing takes time, in which Ctrl-C would print a traceback

__version__ = "0.1.0"

__all__ = [
    "Client",
    "EstibaError",
    "Explainer",
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
    from estiba.model.explanation.explain import Explainer
    from estiba.model.inference.load import Model, load
    from estiba.model.packing.pack import Packed, pack
    from estiba.model.packing.training_result import Source, Trained
    from estiba.model.schema.infer import FieldOptions
    from estiba.model.schema.signature import Outputs

_MODULES = {
    "Client": "estiba.client",
    "EstibaError": "estiba.core.errors",
    "Explainer": "estiba.model.explanation.explain",
    "FieldOptions": "estiba.model.schema.infer",
    "Model": "estiba.model.inference.load",
    "Outputs": "estiba.model.schema.signature",
    "Packed": "estiba.model.packing.pack",
    "Source": "estiba.model.packing.training_result",
    "Trained": "estiba.model.packing.training_result",
    "load": "estiba.model.inference.load",
    "pack": "estiba.model.packing.pack",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'estiba' has no attribute {name!r}")
