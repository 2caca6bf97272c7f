"""Run the original estimator as an engine, for models that have no exact ONNX form."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from estiba.model.coding.coder import Coder
from estiba.model.engines.tail import SplitPipeline, open_tail
from estiba.model.estimators import own_answers
from estiba.model.estimators.object_graph import reachable
from estiba.model.estimators.outputs import answer
from estiba.model.estimators.saved_files import open_file

if TYPE_CHECKING:
    import pandas as pd

    from estiba.model.artifact.artifact import Artifact, Manifest
    from estiba.model.coding.coder import Coded, Matrix
    from estiba.model.schema.signature import Head


class PythonEngine:
    """Ask the estimator itself, with at most `threads` native threads for one call.

    Of a pipeline whose last steps were converted it runs the first ones, and the kernel or ONNX Runtime the others.

    With `one_thread`, all calls are made by the thread that makes this object.

    Raises:
        NotTrusted: loading the estimator could run code of the artifact, and `trust` is False.
        BadArtifact, MissingExtra: it cannot be read, or a library is missing.
    """

    def __init__(self, artifact: Artifact, *, threads: int = 1, trust: bool = False, one_thread: bool = False) -> None:
        manifest = artifact.manifest
        self._model = open_file(artifact.file(manifest.model_file), manifest.format, trust=trust).model
        self._coder = Coder(manifest.signature)
        self.runtime = "Python"
        self._ask: Callable[[pd.DataFrame, Head], Matrix]
        self._threads = threads
        for item in reachable(self._model):
            _limit(item, threads)
        if manifest.tail:
            name, predict = open_tail(artifact, threads)
            self.runtime = f"Python + {name}"
            self._ask = SplitPipeline(self._model, manifest.tail, predict).answer
        else:
            asked = own_answers.answer if own_answers.is_own(self._model) else answer
            self._ask = functools.partial(asked, self._model)
        self._pools = _pools()
        if one_thread and self._pools is not None:
            self._pools.limit(limits=threads)
            self._pools = None

    def predict(self, coded: Coded) -> Matrix:
        frame = self._coder.frame(coded)
        with self._limited():
            return self._ask(frame, self._coder.signature.head)

    def close(self) -> None:
        """Do nothing: it holds only memory."""

    def _limited(self) -> AbstractContextManager[Any]:
        # On every call, because OpenMP keeps its limit by calling thread.
        limited: AbstractContextManager[Any] = self._pools.limit(limits=self._threads) if self._pools else nullcontext()
        return limited


def _pools() -> Any:
    """The thread pools of BLAS and OpenMP in this process; None without threadpoolctl. A limit costs about 15 µs."""
    try:
        return importlib.import_module("threadpoolctl").ThreadpoolController()
    except ImportError:
        return None


def _limit(item: Any, threads: int) -> None:
    """Limit one object of a model to `threads` native threads, and to one thread of Python's."""
    library = type(item).__module__.partition(".")[0]
    if library == "xgboost" and type(item).__name__ == "Booster":
        item.set_param({"nthread": threads})
    elif library == "catboost":
        for name in ("predict", "predict_proba"):
            if hasattr(item, name):  # it takes the number of threads with each call and nowhere else
                setattr(item, name, functools.partial(getattr(item, name), thread_count=threads))
    elif "n_jobs" in getattr(item, "__dict__", {}):
        item.n_jobs = threads if library in ("xgboost", "lightgbm") else 1


def skew(manifest: Manifest) -> list[str]:
    """Differences between the library versions here and at packing: "scikit-learn 1.8.0 packed, 1.9.1 installed"."""
    found = [(name, packed, _installed(name)) for name, packed in manifest.libraries.items()]
    if manifest.python.split(".")[:2] != platform.python_version().split(".")[:2] and manifest.python:
        found.append(("Python", manifest.python, platform.python_version()))
    return [f"{name} {packed} packed, {here or 'none'} installed" for name, packed, here in found if here != packed]


def _installed(name: str) -> str:
    """The installed version of a distribution, or of its variant for processors alone; empty where there is none."""
    twin = name.removesuffix("-cpu") if name.endswith("-cpu") else f"{name}-cpu"
    for candidate in (name, twin):
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""
