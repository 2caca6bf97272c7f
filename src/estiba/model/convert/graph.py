"""Write ONNX graphs with numbered names, shared constants and no metadata, so that one model gives one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.model.coding.terms import METADATA_KEY, Terms, encode
from estiba.model.convert.wire import model_content, node_parts

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]

OPSET, ML_OPSET, IR_VERSION = 21, 5, 10
"""ONNX Runtime 1.20 reads all three; TreeEnsemble, which computes in double, came with ai.onnx.ml 5."""

ML, MICROSOFT = "ai.onnx.ml", "com.microsoft"
FLOAT, DOUBLE, INT64, BOOL = 1, 11, 7, 9


class Graph:
    """Nodes and constants in the order in which they were asked for; tensors are known by name.

    The input is `x`, float64 of shape (n, width). Asking for the same node or constant twice gives the same tensor, so
    that the members of an ensemble share their preparation.

    Args:
        width: number of fields.
        exact_first: compute the first class of two to the last bit as well, for forests, which otherwise give it what
            the second leaves. A threshold on the first class needs it.
    """

    def __init__(self, width: int, *, exact_first: bool = False) -> None:
        self.width = width
        self.exact_first = exact_first
        self.nodes: list[onnx.NodeProto] = []
        self._lists: dict[str, dict[str, Array]] = {}  # by name of the node, attributes that are long
        self.initializers: list[onnx.TensorProto] = []
        self._known: dict[Any, str] = {}
        self._count = 0
        self.terms: list[Terms] = []
        self._term_columns = 0
        self.domains: set[str] = set()

    def name(self) -> str:
        """A fresh tensor name."""
        self._count += 1
        return f"t{self._count}"

    def const(self, value: Any, dtype: npt.DTypeLike = np.float64) -> str:
        """A constant tensor; equal constants are stored once."""
        from onnx import numpy_helper

        array = np.ascontiguousarray(np.asarray(value, dtype)).reshape(np.shape(value))
        key = ("const", array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = name = f"c{len(self.initializers)}"
            self.initializers.append(numpy_helper.from_array(array, name))
        return self._known[key]

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        key = (kind, inputs, domain, repr(sorted(attributes.items()))) if kind != "TreeEnsemble" else None
        if key is not None and key in self._known:
            return self._known[key]
        output = self.name()
        lists = {name: value for name, value in attributes.items() if isinstance(value, np.ndarray)}
        short = {name: value for name, value in attributes.items() if name not in lists}
        self.nodes.append(made_node(kind, list(inputs), [output], domain, short))
        self.nodes[-1].name = output
        if lists:
            self._lists[output] = lists
        self.domains.add(domain)
        if key is not None:
            self._known[key] = output
        return output

    def add(self, node: onnx.NodeProto) -> None:
        """Add a finished node, for those with several outputs or a body of their own."""
        self.nodes.append(node)
        self.domains.add(node.domain)

    def cast(self, tensor: str, to: int) -> str:
        return self.op("Cast", tensor, to=to)

    def as_float32(self, tensor: str) -> str:
        """Round to float32 and widen back, as libraries do that store their input in float32."""
        return self.cast(self.cast(tensor, FLOAT), DOUBLE)

    def columns(self, tensor: str, indices: list[int], width: int) -> str:
        """Select some columns of a tensor of that width, in that order."""
        return (
            tensor
            if indices == list(range(width))
            else self.op("Gather", tensor, self.const(indices, np.int64), axis=1)
        )

    def concat(self, tensors: list[str]) -> str:
        """Tensors side by side."""
        return tensors[0] if len(tensors) == 1 else self.op("Concat", *tensors, axis=1)

    def total(self, tensor: str) -> str:
        """Row sums, shape (n, 1)."""
        return self.op("ReduceSum", tensor, self.const([1], np.int64))

    def fill(self, row: npt.ArrayLike) -> str:
        """The same row of constants for each row of the input, shape (n, len(row))."""
        zeros = self.op(
            "Mul",
            self.op("Cast", self.op("IsNaN", self.columns("x", [0], self.width)), to=DOUBLE),
            self.const(0.0),
        )
        return self.op("Add", zeros, self.const(np.asarray(row, np.float64).reshape(1, -1)))

    def expit(self, tensor: str) -> str:
        """The logistic function. ONNX Runtime's own Sigmoid is only good to 1e-10."""
        return self.op("Div", self.const(1.0), self.op("Add", self.const(1.0), self.op("Exp", self.op("Neg", tensor))))

    def softmax(self, tensor: str) -> str:
        """Softmax of each row: exp(x - max) / sum, the order in which scikit-learn computes it."""
        shifted = self.op("Sub", tensor, self.op("ReduceMax", tensor, self.const([1], np.int64)))
        powers = self.op("Exp", shifted)
        return self.op("Div", powers, self.total(powers))

    def pair(self, positive: str) -> str:
        """Probabilities of two classes from the second's."""
        return self.concat([self.op("Sub", self.const(1.0), positive), positive])

    def one_hot(self, index: str, count: int) -> str:
        """1.0 in the column that the (n, 1) int64 tensor names."""
        return self.cast(self.op("Equal", index, self.const(np.arange(count)[None, :], np.int64)), DOUBLE)

    def argmax(self, tensor: str) -> str:
        """Position of the first largest value of each row, shape (n, 1), int64."""
        return self.op("ArgMax", tensor, axis=1)

    def term_columns(self, terms: Terms, weights: Any) -> str:
        """Weighted sums of a text's terms, shape (n, width): columns of the second input `t`.

        Args:
            terms: without weights.
            weights: an array of shape (terms, width), or scipy's csr.
        """
        sparse = hasattr(weights, "tocsr")
        parts = [weights.indptr, weights.indices, weights.data] if sparse else [np.ascontiguousarray(weights)]
        key = ("terms", terms, *(part.tobytes() for part in parts))
        if key not in self._known:
            columns = tuple(range(self._term_columns, self._term_columns + weights.shape[1]))
            self._term_columns += len(columns)
            kinds = {"starts": np.int32, "targets": np.int32} if sparse else {}
            content = {
                name: part.astype(kinds.get(name, np.float64)).tobytes()
                for name, part in zip(("starts", "targets", "weights") if sparse else ("weights",), parts, strict=True)
            }
            self.terms.append(msgspec.structs.replace(terms, columns=columns, **content))
            self._known[key] = self.op("Gather", "t", self.const(columns, np.int64), axis=1)
        return self._known[key]

    def model(self, output: str, width: int) -> bytes:
        """The finished file, with the tensor `output` renamed to `y`."""
        from onnx import helper

        self.add(helper.make_node("Identity", [output], ["y"]))
        inputs = [helper.make_tensor_value_info("x", DOUBLE, [None, self.width])]
        if self.terms:
            inputs.append(helper.make_tensor_value_info("t", DOUBLE, [None, self._term_columns]))
        outputs = [helper.make_tensor_value_info("y", DOUBLE, [None, width])]
        nodes = _needed(self.nodes)
        used = {name for node in nodes for name in _inputs(node)}
        constants = [t for t in self.initializers if t.name in used]
        graph = helper.make_graph([], "estiba", inputs, outputs, constants)
        versions = {"": OPSET, ML: ML_OPSET, MICROSOFT: 1}
        opsets = [helper.make_opsetid(d, versions[d]) for d in sorted({"", ML} | (self.domains & set(versions)))]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="estiba")
        if self.terms:
            helper.set_model_props(model, {METADATA_KEY: encode(_together(self.terms))})
        return model_content(model, (node_parts(node, self._lists.pop(node.name, {})) for node in nodes))


def _together(terms: Sequence[Terms]) -> list[Terms]:
    """Terms that are counted alike are counted once, where their weights are dense."""
    merged: dict[Any, list[Terms]] = {}
    for part in terms:
        bare = msgspec.structs.replace(part, weights=b"", starts=b"", targets=b"", columns=())
        merged.setdefault((bare, part.columns if part.starts else ()), []).append(part)
    return [group[0] if len(group) == 1 else _joined(group) for group in merged.values()]


def _joined(group: Sequence[Terms]) -> Terms:
    weights = [np.frombuffer(part.weights, np.float64).reshape(-1, len(part.columns)) for part in group]
    columns = tuple(column for part in group for column in part.columns)
    return msgspec.structs.replace(group[0], weights=np.hstack(weights).tobytes(), columns=columns)


def made_node(
    kind: str, inputs: list[str], outputs: list[str], domain: str, attributes: Mapping[str, Any]
) -> onnx.NodeProto:
    """A node. Attributes that are arrays are long lists of integers, which ONNX's own helper would check one by one."""
    from onnx import AttributeProto, helper

    short = {name: value for name, value in attributes.items() if not isinstance(value, np.ndarray)}
    operator = helper.make_node(kind, inputs, outputs, domain=domain, **short)
    for name in attributes.keys() - short.keys():
        operator.attribute.append(AttributeProto(name=name, type=AttributeProto.INTS))
        operator.attribute[-1].ints.extend(memoryview(attributes[name].astype(np.int64)))
    operator.attribute.sort(key=lambda attribute: attribute.name)
    return operator


def _inputs(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node reads, by its own inputs and by the bodies of an If."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names |= _inputs(inner)
    return names


def _needed(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes that lead to `y`."""
    wanted, kept = {"y"}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= _inputs(node)
            kept.append(node)
    return kept[::-1]
