"""Choose among the outputs of an ONNX file for tables, and join several of them to one output of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estiba.core.errors import BadProject
from estiba.core.suggest import did_you_mean
from estiba.model.onnx_import.inspect_graph import NUMBERS, WHOLE, element_type

JOINED = "estiba_joined"
"""The output that holds the columns of several outputs, one after the other."""


def joined(proto: Any, chosen: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
    """The graph with one output of numbers, and by name in an answer the outputs that it is joined from.

    The names are empty where the graph needs no change: with one output of numbers, or with a label besides.

    Args:
        chosen: by name in an answer, the outputs to answer with; all by default.

    Raises:
        BadProject: the graph has no such output, or it is not one of numbers.
    """
    numeric = [value.name for value in proto.graph.output if element_type(value) in NUMBERS]
    others = [value for value in proto.graph.output if value.name not in numeric]
    labels = [value.name for value in others if element_type(value) in (*WHOLE, "string")]
    for source in chosen.values():
        if source not in numeric:
            raise BadProject(
                f"outputs.tensors: the ONNX file has no output of numbers {source!r}{did_you_mean(source, numeric)}",
                hint=f"It has: {', '.join(numeric) or 'none'}.",
            )
    names = dict(chosen) or ({name: name for name in numeric} if len(numeric) > 1 and not others else {})
    if not names:
        return proto, {}
    if len(names) == 1:
        return _with_outputs(proto, [*names.values(), *labels]), {}
    return _concatenated(proto, list(names.values())), names


def _with_outputs(proto: Any, names: list[str]) -> Any:
    import onnx

    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    kept = [value for value in proto.graph.output if value.name in names]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    return graph


def _concatenated(proto: Any, names: list[str]) -> Any:
    import onnx

    double = onnx.TensorProto.DOUBLE
    graph = _with_outputs(proto, [])
    for i, name in enumerate(names):
        graph.graph.node.append(onnx.helper.make_node("Cast", [name], [f"{JOINED}_{i}_double"], to=double))
        graph.graph.node.append(onnx.helper.make_node("Flatten", [f"{JOINED}_{i}_double"], [f"{JOINED}_{i}"], axis=1))
    parts = [f"{JOINED}_{i}" for i in range(len(names))]
    graph.graph.node.append(onnx.helper.make_node("Concat", parts, [JOINED], axis=1))
    graph.graph.output.append(onnx.helper.make_tensor_value_info(JOINED, double, [None, None]))
    return graph
