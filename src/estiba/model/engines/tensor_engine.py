"""Run an ONNX file on tensors, as its author left it, with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from estiba.core.errors import BadInput, ParityError, Problem
from estiba.model.engines.onnx import session

if TYPE_CHECKING:
    from estiba.model.coding.tensor_coder import CodedTensors, Part
    from estiba.model.schema.rows import Prediction
    from estiba.model.schema.signature import Head

_MAX_REASON_CHARACTERS = 400


class TensorEngine:
    """The graph of an ONNX file, asked for the outputs of a head of tensors. Safe to call from several threads."""

    runtime = "ONNX Runtime"

    def __init__(self, model: bytes, head: Head, threads: int = 1) -> None:
        self._session = session(model, threads)
        self._head = head
        self._outputs = [output.origin for output in head.tensors]
        self._names = [output.name for output in head.tensors]

    def run(self, coded: CodedTensors) -> list[Prediction]:
        """One prediction per record: by output name, an array of the shape that the head says.

        Raises:
            BadInput: the graph refuses the values or the shapes that free axes have; the model itself has proven itself
                on its golden rows.
        """
        predictions: list[Prediction] = []
        for part, count in zip(coded.parts, coded.counts, strict=True):
            try:
                for feeds, rows in _runs(part, count, self._head.batch):
                    arrays = [np.asarray(array) for array in self._session.run(self._outputs, feeds)]
                    predictions += self._split(arrays, rows)
            except ParityError:
                raise
            except Exception as error:  # ONNX Runtime raises C++ types that share no root
                raise BadInput([Problem(f"#/records/{len(predictions)}", _reason(error))]) from error
        return predictions

    def _split(self, arrays: list[Any], rows: int) -> list[Prediction]:
        if self._head.batch == "none":
            return [dict(zip(self._names, arrays, strict=True))]
        for name, array in zip(self._names, arrays, strict=True):
            if array.ndim == 0 or len(array) != rows:
                raise ParityError(f"The output {name!r} has shape {list(array.shape)} for {rows} records.")
        return [{name: array[i] for name, array in zip(self._names, arrays, strict=True)} for i in range(rows)]

    def close(self) -> None:
        """Do nothing: it holds only memory."""


def _runs(part: Part, count: int, batch: str) -> Iterator[tuple[Part, int]]:
    """The inputs of each run of the graph, and the number of records that it answers."""
    if batch == "one":
        yield from (({name: array[i : i + 1] for name, array in part.items()}, 1) for i in range(count))
    else:
        yield part, count


def _reason(error: Exception) -> str:
    text = " ".join(f"{error}".replace("[ONNXRuntimeError] : ", "").split())
    shown = text if len(text) <= _MAX_REASON_CHARACTERS else text[: _MAX_REASON_CHARACTERS - 3] + "..."
    return f"the model does not take this: {shown}"
