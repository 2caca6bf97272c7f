"""Convert estimators without a rule here: skl2onnx converts that one estimator, and its nodes join the graph."""

from __future__ import annotations

import warnings
from typing import Any

from estiba.model.convert.columns import Columns, NotConvertible
from estiba.model.convert.context import Context, Want, unsupported
from estiba.model.convert.graph import DOUBLE


def convert_foreign(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """Probabilities or values of one scikit-learn estimator, in double.

    Raises:
        NotConvertible: skl2onnx knows no such estimator, fails, or falls back to float32.
    """
    if want == "decision":
        raise unsupported(model, "has scores for which there is no rule")
    graph = _convert(model, len(columns), want)
    output = graph.output[-1 if want == "proba" else 0]
    if output.type.tensor_type.elem_type != DOUBLE or any(_single(n) for n in graph.node):
        raise unsupported(model, "is computed in float32 by ONNX operators")
    return _embed(c, graph, output.name, c.matrix(columns))


def _convert(model: Any, width: int, want: Want) -> Any:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType

    options = {id(model): {"zipmap": False}} if want == "proba" else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = to_onnx(
                model,
                initial_types=[("x", DoubleTensorType([None, width]))],
                options=options,
                target_opset={"": 18, "ai.onnx.ml": 3},
            )
    except Exception as error:
        # skl2onnx raises whatever its converters run into; each of them means the same here.
        raise unsupported(model, "has no rule of Estiba's, and skl2onnx has none in float64") from error
    return converted.graph


def _single(node: Any) -> bool:
    """Operators of ai.onnx.ml that answer in float32 whatever they are given."""
    return node.domain == "ai.onnx.ml" and node.op_type not in ("ArrayFeatureExtractor", "LabelEncoder")


def _embed(c: Context, graph: Any, output: str, x: str) -> str:
    from onnx import NodeProto, TensorProto

    g = c.graph
    names = {graph.input[0].name: x, "": ""}
    for tensor in graph.initializer:
        copy = TensorProto()
        copy.CopyFrom(tensor)
        copy.name = names[tensor.name] = g.name()
        g.initializers.append(copy)
    for node in graph.node:
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise NotConvertible("A part of the model needs a loop in ONNX, which is slower than the original")
        copied = NodeProto()
        copied.CopyFrom(node)
        copied.ClearField("name")
        copied.input[:] = [names[n] for n in node.input]
        names.update({n: g.name() for n in node.output if n})
        copied.output[:] = [names[n] for n in node.output]
        g.add(copied)
    return names[output]
