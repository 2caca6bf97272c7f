"""Run the kernel as an engine: it executes model.onnx where it recognises the whole graph."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from estiba.model.coding.kernel import compiled
from estiba.model.coding.terms import METADATA_KEY, TermColumns
from estiba.model.engines.columns import Columns, Numbers
from estiba.model.engines.lower_onnx import lower
from estiba.model.engines.onnx_reader import Graph, NotRecognised, read_model
from estiba.model.engines.program import assemble

if TYPE_CHECKING:
    from estiba.model.coding.coder import Coded, Matrix
    from estiba.model.schema.signature import Field

MIN_THREAD_ROWS = 2048
"""Rows below which a further thread costs more than it saves."""


class ExactEngine:
    """Runs a graph as `OnnxEngine` does: the same operations on each number in the same order.

    Args:
        model: the file's content, or its path: then the content of a large one is not held while it is laid out.
        fields: of its input `x`.
        width: of its output `y`.

    Raises:
        NotRecognised: there is no kernel here, or it has no form for some part of the graph.
    """

    runtime = "estiba kernel"

    def __init__(self, model: bytes | Path, fields: Sequence[Field], width: int, threads: int = 1) -> None:
        kernel = compiled()
        if kernel is None:
            raise NotRecognised("Estiba was installed without a C compiler, and so without its kernel")
        graph = read_model(model if isinstance(model, bytes) else model.read_bytes(), kernel.scan)
        text_columns = self._read_terms(graph, len(fields))
        columns = Columns([*domains(fields), *[None] * text_columns])
        outputs = lower(graph, columns, width, text_columns)
        del graph  # a large one is laid out in less memory without it
        self._kernel = kernel.Kernel(assemble(columns, outputs, kernel.OPERATIONS))
        self._width = width
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "kernel") if threads > 1 else None

    def _read_terms(self, graph: Graph, fields: int) -> int:
        """The number of columns that are computed from texts."""
        return 0

    def predict(self, coded: Coded) -> Matrix:
        """As Engine says; raises ValueError for a code that no category has."""
        return self._run(np.ascontiguousarray(coded.matrix, np.float64))

    def _run(self, x: Matrix) -> Matrix:
        y = np.empty((len(x), self._width))
        if self._pool is None or len(x) < 2 * MIN_THREAD_ROWS:
            self._kernel.run(x, y)
            return y
        parts = min(self._threads, len(x) // MIN_THREAD_ROWS)
        cuts = np.linspace(0, len(x), parts + 1).astype(int).tolist()
        slices = [slice(a, b) for a, b in pairwise(cuts)]
        list(self._pool.map(lambda part: self._kernel.run(x[part], y[part]), slices))
        return y

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)


class ExactTextEngine(ExactEngine):
    """The same for a graph that reads texts; their numbers stand behind those of the fields."""

    def _read_terms(self, graph: Graph, fields: int) -> int:
        self._terms = TermColumns(graph.terms, first_column=fields)
        return self._terms.width

    def predict(self, coded: Coded) -> Matrix:
        rows, fields = coded.matrix.shape
        x = np.empty((rows, fields + self._terms.width))
        x[:, :fields] = coded.matrix
        self._terms.fill(coded.texts, x)
        return self._run(x)


def open_exact(model: bytes | Path, fields: Sequence[Field], width: int, threads: int = 1) -> ExactEngine:
    """The kernel on a graph, which may read texts; arguments and errors as of ExactEngine."""
    kind = ExactTextEngine if _reads_texts(model) else ExactEngine
    return kind(model, fields, width, threads)


def _reads_texts(model: bytes | Path) -> bool:
    return METADATA_KEY.encode() in (model if isinstance(model, bytes) else model.read_bytes())


def domains(fields: Sequence[Field]) -> list[Numbers | None]:
    """By field, the codes that it can have; None for numbers."""
    return [_domain(field) for field in fields]


def _domain(field: Field) -> Numbers | None:
    """The codes that a field can have, preceded by -1, and followed by NaN where it may be missing."""
    count = len(field.levels) if field.kind == "category" else 2 if field.kind == "boolean" else 0
    if not count:
        return None
    return np.asarray([-1.0, *range(count), *([np.nan] if field.nullable else [])])
