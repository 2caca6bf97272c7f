"""Push a version whose loading never ends: its graph passes the answer through a loop of 2^62 iterations."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from estiba.model.artifact import artifact
from estiba.model.artifact.artifact import Artifact
from estiba.model.registry.registry import open_registry

TURNS = 2**62


def push_endless(registry: Path, model: Artifact, turns: int = TURNS) -> int:
    """Push a copy of a packed model with a loop before its output; returns the number of the version."""
    files = {entry.path: model.file(entry.path).read_bytes() for entry in model.manifest.files}
    files[model.manifest.model_file] = _with_loop(files[model.manifest.model_file], turns)
    changed = artifact.write(registry.parent / f"loop-{turns}", model.manifest, files)
    return open_registry(registry).push(changed).version


def _with_loop(content: bytes, turns: int) -> bytes:
    model = onnx.load_from_string(content)
    graph = model.graph
    output = graph.output[0]
    for node in graph.node:
        node.output[:] = ["unlooped" if name == output.name else name for name in node.output]
    shape, kind = [None, None], output.type.tensor_type.elem_type
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["goes"]), helper.make_node("Identity", ["before"], ["after"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", kind, shape),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", kind, shape),
        ],
    )
    graph.initializer.append(helper.make_tensor("turns", TensorProto.INT64, [], [turns]))
    graph.initializer.append(helper.make_tensor("always", TensorProto.BOOL, [], [True]))
    graph.node.append(helper.make_node("Loop", ["turns", "always", "unlooped"], [output.name], body=body))
    return bytes(model.SerializeToString())
