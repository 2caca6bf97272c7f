"""Open the engine of an artifact, which computes answers; the library behind it is imported only then."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Protocol, cast

from estiba.core.errors import BadArtifact

if TYPE_CHECKING:
    from estiba.model.artifact.artifact import Artifact
    from estiba.model.coding.coder import Coded, Matrix

ENGINES = {
    "onnx": "estiba.model.engines.onnx:OnnxEngine",
    "python": "estiba.model.engines.python:PythonEngine",
}

ISOLATED = {"python": "estiba.model.engines.isolated:IsolatedEngine"}
"""Engines that run in a process of their own, so that other models do not wait for the interpreter lock."""


class Engine(Protocol):
    """Computes answers. Safe to call from several threads.

    `runtime` names what executes it here, as the engine of an artifact may be executed in several ways.
    """

    @property
    def runtime(self) -> str: ...

    def predict(self, coded: Coded) -> Matrix:
        """Coded rows to the float64 matrix of shape (rows, width) that the signature's head describes."""

    def close(self) -> None:
        """Release resources other than memory."""


def open_engine(
    artifact: Artifact, *, threads: int = 1, trust: bool = False, isolated: bool = False, kernel: bool = True
) -> Engine:
    """The engine of a verified artifact, ready to answer.

    Args:
        threads: how many threads native libraries may use for one call.
        trust: whether loading may run code from the artifact (pickles, types unknown to skops).
        isolated: give slow engines a process of their own; those with code of the packer's own have one anyway.
        kernel: execute a graph with the kernel where that knows all of it; ESTIBA_KERNEL=off says no as well.
    """
    name = artifact.manifest.engine
    if name not in ENGINES:
        raise BadArtifact(
            f"The artifact {artifact.digest[:12]} needs the engine {name!r}, which this Estiba does not have.",
            hint=f"It has: {', '.join(ENGINES)}.",
        )
    if artifact.manifest.signature.is_tensors:
        return cast(Engine, _of_tensors(artifact, threads))
    if name == "onnx" and kernel and os.environ.get("ESTIBA_KERNEL", "") != "off":
        opened = _kernel(artifact, threads)
        if opened is not None:
            return opened
    if name == "python":
        from estiba.model.engines.own_code import check_trust

        check_trust(artifact, trust=trust)
        # Modules of two models may have the same names, and those of a model need an import path of their own.
        isolated = isolated or bool(artifact.manifest.code_files)
    module, _, attribute = (ISOLATED if isolated and name in ISOLATED else ENGINES)[name].partition(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)(artifact, threads=threads, trust=trust)
    return engine


def _of_tensors(artifact: Artifact, threads: int) -> object:
    """An engine that runs tensors; it has `run` in place of `predict`."""
    from estiba.model.engines.tensor_engine import TensorEngine

    content = artifact.file(artifact.manifest.model_file).read_bytes()
    return TensorEngine(content, artifact.manifest.signature.head, threads)


def _kernel(artifact: Artifact, threads: int) -> Engine | None:
    """The kernel on this artifact's graph, or None where that is for ONNX Runtime."""
    from estiba.model.engines.exact import open_exact
    from estiba.model.engines.onnx_reader import NotRecognised

    manifest = artifact.manifest
    try:
        return open_exact(
            artifact.file(manifest.model_file), manifest.signature.fields, manifest.signature.head.width, threads
        )
    except NotRecognised:
        return None
