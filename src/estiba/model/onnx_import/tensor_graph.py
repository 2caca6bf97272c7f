"""Inputs and outputs of an ONNX file as tensors, and the meaning of their first axis, found by running the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadProject, EstibaError
from estiba.core.suggest import did_you_mean
from estiba.model.engines.onnx import session
from estiba.model.schema.signature import Field, Head
from estiba.model.schema.tensor_types import Axis, BatchAxis, ElementType, Shape, TensorOutput

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

_ELEMENTS: dict[str, ElementType] = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "int64": "int64",
    "int32": "int32",
    "int16": "int16",
    "int8": "int8",
    "uint64": "uint64",
    "uint32": "uint32",
    "uint16": "uint16",
    "uint8": "uint8",
    "bool": "bool",
    "string": "string",
}
"""By ONNX Runtime's name of an element type, NumPy's."""


@dataclass(frozen=True)
class Port:
    """An input or output of a graph with its whole shape; `dtype` is empty where it is no tensor that can be served."""

    name: str
    dtype: ElementType | None
    type: str
    shape: Shape


class Graph:
    """An ONNX file that can be run on whole inputs."""

    def __init__(self, model: bytes) -> None:
        self._session = session(model)
        self.inputs = [_port(value) for value in self._session.get_inputs()]
        self.outputs = [_port(value) for value in self._session.get_outputs()]
        for port in self.inputs:
            if port.dtype is None:
                raise EstibaError(
                    f"The ONNX input {port.name!r} is {port.type}.",
                    hint="Models of tensors take numbers, booleans and strings: export the model with such inputs.",
                )

    def run(self, names: Sequence[str], feeds: Feeds) -> list[Array]:
        """Answers of the file itself; raises BadProject where it refuses the inputs."""
        try:
            return [np.asarray(found) for found in self._session.run(list(names), dict(feeds))]
        except Exception as error:  # ONNX Runtime raises C++ types that share no root
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
            raise BadProject(
                f"The ONNX file fails on the sample ({shapes}): {error}",
                hint="Pass arrays that the model takes, with values and lengths of free axes as in use.",
            ) from None

    def chosen(self, names: Mapping[str, str]) -> dict[str, Port]:
        """The outputs to answer with: by the name that a caller sees; by default all that are tensors.

        Raises:
            BadProject: a name is not an output, or not a tensor.
        """
        known = {port.name: port for port in self.outputs}
        if not names:
            return {port.name: port for port in self.outputs if port.dtype is not None}
        for source in names.values():
            if source not in known:
                meant = did_you_mean(source, known)
                raise BadProject(
                    f"outputs.tensors: the ONNX file has no output {source!r}{meant}",
                    hint=f"It has: {', '.join(known)}.",
                )
            if known[source].dtype is None:
                raise BadProject(f"outputs.tensors: the output {source!r} is {known[source].type}, and no tensor.")
        return {name: known[source] for name, source in names.items()}


def _port(value: Any) -> Port:
    kind = str(value.type)
    element = kind.removeprefix("tensor(").removesuffix(")") if kind.startswith("tensor(") else ""
    return Port(value.name, _ELEMENTS.get(element), kind, tuple(_axis(size) for size in value.shape or ()))


def _axis(size: Any) -> Axis:
    if isinstance(size, str):
        return "" if size == "?" else size
    return size if isinstance(size, int) and size > 0 else ""


def batch_axis(graph: Graph, outputs: Sequence[str], feeds: Feeds, tolerance: float) -> tuple[BatchAxis, str]:
    """The meaning of the first axis of all inputs and outputs, and a sentence where it is not as the file suggests.

    It counts records where the file leaves it free, and answers two records together as it does one by one.
    """
    if any(not port.shape for port in graph.inputs) or len({len(array) for array in feeds.values()}) > 1:
        return "none", ""
    first = {name: array[:1] for name, array in feeds.items()}
    if all(port.shape[0] == 1 for port in graph.inputs):
        alone = graph.run(outputs, first)
        return ("one", "") if all(answer.ndim and len(answer) == 1 for answer in alone) else ("none", "")
    if not all(isinstance(port.shape[0], str) for port in graph.inputs):
        return "none", ""
    try:
        same = _answers_alike(graph, outputs, feeds, tolerance)
    except BadProject:
        same = False
    if same:
        return "free", ""
    return "none", (
        "The file leaves the first axis of its inputs free, but answers two records together otherwise than one by "
        "one; so each record is one run of the model."
    )


def _answers_alike(graph: Graph, outputs: Sequence[str], feeds: Feeds, tolerance: float) -> bool:
    two = {name: array[:2] if len(array) > 1 else np.concatenate([array, array]) for name, array in feeds.items()}
    together = graph.run(outputs, two)
    for i in range(2):
        alone = graph.run(outputs, {name: array[i : i + 1] for name, array in two.items()})
        for a, b in zip(together, alone, strict=True):
            if a.ndim == 0 or len(a) != 2 or a.shape[1:] != b.shape[1:] or len(b) != 1:
                return False
            if not _close(a[i], b[0], tolerance):
                return False
    return True


def _close(a: Array, b: Array, tolerance: float) -> bool:
    if a.dtype.kind in "fiu":
        return bool(
            np.allclose(a.astype(np.float64), b.astype(np.float64), rtol=tolerance, atol=tolerance, equal_nan=True)
        )
    return bool(np.array_equal(a, b))


def fields_of(graph: Graph, batch: BatchAxis) -> tuple[Field, ...]:
    """One field per input, with the shape of one record."""
    return tuple(
        Field(
            name=port.name,
            kind="tensor",
            dtype=port.dtype or "",
            shape=port.shape if batch == "none" else port.shape[1:],
        )
        for port in graph.inputs
    )


def head_of(chosen: Mapping[str, Port], batch: BatchAxis, answers: Sequence[Array]) -> Head:
    """The meaning of the answers, whose shapes tell the number of axes where the file does not."""
    outputs = []
    for (name, port), answer in zip(chosen.items(), answers, strict=True):
        shape: Shape = port.shape if len(port.shape) == answer.ndim else ("",) * answer.ndim
        whole = tuple(
            "" if isinstance(axis, int) and axis != size else axis
            for axis, size in zip(shape, answer.shape, strict=True)
        )
        outputs.append(
            TensorOutput(
                name=name,
                dtype=port.dtype or "float32",
                shape=whole if batch == "none" else whole[1:],
                source="" if port.name == name else port.name,
            )
        )
    return Head(kind="tensors", tensors=tuple(outputs), batch=batch)
