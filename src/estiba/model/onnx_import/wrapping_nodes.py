"""Our input and output around a user's ONNX graph: from the coded matrix to what it takes, from its answer to ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from estiba.model.onnx_import.inspect_graph import Input, Output, bare
from estiba.model.schema.signature import Field, Head
from estiba.model.schema.values import UNSEEN_TEXT

MISSING_TEXT = ""
"""The text that stands for a missing one in a graph that takes strings."""

_PREFIX = "m_"


def build(proto: Any, inputs: Sequence[Input], output: Output, end: tuple[Head, tuple[Field, ...], int]) -> bytes:
    """The bare graph with its names prefixed, our input before it and our output behind it."""
    import onnx

    head, fields, width = end
    inner = onnx.compose.add_prefix(bare(proto, output), _PREFIX)
    versions = {e.domain: e.version for e in inner.opset_import}
    graph = _Graph(versions["ai.onnx.ml"])
    position = 0
    for part in inputs:
        graph.feed(part, fields[position : position + part.width], position, len(fields))
        position += part.width
    before = graph.nodes
    graph.nodes = []
    graph.finish(_PREFIX + output.scores, head, width)
    nodes = [*before, *inner.graph.node, *graph.nodes]
    double = onnx.TensorProto.DOUBLE
    constants = [t for t in inner.graph.initializer]
    wrapped = onnx.helper.make_graph(
        nodes,
        "estiba",
        [onnx.helper.make_tensor_value_info("x", double, [None, len(fields)])],
        [onnx.helper.make_tensor_value_info("y", double, [None, head.width])],
        [*constants, *graph.constants],
    )
    wrapped.sparse_initializer.extend(inner.graph.sparse_initializer)
    model = onnx.helper.make_model(
        wrapped, producer_name="estiba", opset_imports=inner.opset_import, functions=inner.functions
    )
    model.ir_version = inner.ir_version
    return bytes(model.SerializeToString(deterministic=True))


class _Graph:
    """Nodes and constants around the user's graph, named in the order in which they are added."""

    def __init__(self, ml_version: int) -> None:
        self.ml_version = ml_version
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        import onnx

        output = output or f"n{len(self.nodes) + len(self.constants)}"
        domain = "ai.onnx.ml" if op == "LabelEncoder" else ""
        self.nodes.append(onnx.helper.make_node(op, list(inputs), [output], domain=domain, **attributes))
        return output

    def constant(self, values: Any) -> str:
        import onnx

        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def feed(self, part: Input, fields: Sequence[Field], start: int, total: int) -> None:
        """Columns `start` on of x, as the input that the user's graph takes."""
        target = _PREFIX + part.name
        positions = list(range(start, start + part.width))
        if part.type == "string":
            columns = [self._strings(field, i) for field, i in zip(fields, positions, strict=True)]
            tensor = self.add("Concat", columns, axis=1) if len(columns) > 1 else columns[0]
        else:
            tensor = "x" if part.width == total else self.add("Gather", ["x", self.constant(positions)], axis=1)
            tensor = self.add("Cast", [tensor], to=_element(part.type))
        if part.flat:
            self.add("Reshape", [tensor, self.constant([-1])], target)
        else:
            self.add("Identity", [tensor], target)

    def _strings(self, field: Field, position: int) -> str:
        """Codes to levels; the position behind the last one stands for a missing value, any other for an unseen one."""
        column = self.add("Gather", ["x", self.constant([position])], axis=1)
        missing = self.constant(np.float64(len(field.levels)))
        codes = self.add("Where", [self.add("IsNaN", [column]), missing, column])
        codes = self.add("Cast", [codes], to=_element("int64"))
        texts = [*(str(level) for level in field.levels), MISSING_TEXT]
        if self.ml_version < 2:
            return self.add("LabelEncoder", [codes], classes_strings=texts, default_string=UNSEEN_TEXT)
        keys = list(range(len(texts)))
        return self.add("LabelEncoder", [codes], keys_int64s=keys, values_strings=texts, default_string=UNSEEN_TEXT)

    def _clipped(self, table: str) -> str:
        """The numbers from 0 to 1, and NaN as it is; ONNX Runtime has no Clip of doubles before opset 12."""
        zero, one = self.constant(np.float64(0)), self.constant(np.float64(1))
        table = self.add("Where", [self.add("Less", [table, zero], "negative"), zero, table], "not_negative")
        return self.add("Where", [self.add("Greater", [table, one], "above_one"), one, table], "clipped")

    def finish(self, scores: str, head: Head, width: int) -> None:
        """From the graph's own numbers, `width` columns, to y: `_answer` in the graph."""
        doubles = self.add("Cast", [scores], "raw_double", to=_element("double"))
        table = self.add("Reshape", [doubles, self.constant([-1, width])], "raw")
        if head.kind == "probabilities":
            table = self._clipped(table)
        if head.kind == "scores" and head.width == 1 and width == 2:
            second = self.add("Gather", [table, self.constant([1])], "second", axis=1)
            first = self.add("Gather", [table, self.constant([0])], "first", axis=1)
            apart = self.add("Sub", [second, first], "apart")
            self.add("Div", [apart, self.constant(np.float64(2))], "y")
        elif head.width == 2 and width == 1:
            other = self.add("Sub", [self.constant(np.float64(1)), table], "other")
            self.add("Concat", [other, table], "y", axis=1)
        else:
            self.add("Identity", [table], "y")


def _element(type_name: str) -> int:
    import onnx

    return int(getattr(onnx.TensorProto, type_name.upper()))
