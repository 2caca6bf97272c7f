"""Engines: what computes an answer. An artifact names its engine; the library behind it is imported only then."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol

from estiba.core.errors import BadArtifact

if TYPE_CHECKING:
    from estiba.model.artifact import Artifact
    from estiba.model.coding import Coded, Matrix

ENGINES = {
    "onnx": "estiba.model.engines.onnx:OnnxEngine",
    "python": "estiba.model.engines.python:PythonEngine",
}

ISOLATED = {"python": "estiba.model.engines.isolated:IsolatedEngine"}
"""What serves instead where other models must not wait for an engine that holds the interpreter lock."""


class Engine(Protocol):
    """Computes answers. Safe to call from several threads."""

    def predict(self, coded: Coded) -> Matrix:
        """Coded rows to the float64 matrix of shape (rows, width) that the signature's head describes."""

    def close(self) -> None:
        """Lets go of what it holds beyond memory."""


def open_engine(artifact: Artifact, *, threads: int = 1, trust: bool = False, isolated: bool = False) -> Engine:
    """The engine of a verified artifact, ready to answer.

    Args:
        threads: how many threads native libraries may use for one call.
        trust: whether loading may run code from the artifact (pickles, types unknown to skops).
        isolated: give slow engines a process of their own.
    """
    name = artifact.manifest.engine
    if name not in ENGINES:
        raise BadArtifact(
            f"The artifact {artifact.digest[:12]} needs the engine {name!r}, which this Estiba does not have.",
            hint=f"It has: {', '.join(ENGINES)}.",
        )
    module, _, attribute = (ISOLATED if isolated and name in ISOLATED else ENGINES)[name].partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)(artifact, threads=threads, trust=trust)
    return engine
