"""Toy models made by hand, without training, and a server of them in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from estiba.model.artifact import golden_rows
from estiba.model.artifact.artifact import Artifact, Manifest, write
from estiba.model.coding.coder import Coder
from estiba.model.schema.signature import Field, Head, Signature

SUPPORT = Path(__file__).parent

CHURN = Signature(
    fields=(
        Field(name="age", kind="integer", minimum=18, maximum=100, example=41),
        Field(name="balance", kind="number", example=10.5),
        Field(name="country", kind="category", levels=("ES", "FR", "DE"), example="ES"),
        Field(name="channel", kind="category", levels=("web", "shop"), unseen="other", example="web"),
        Field(name="a/b~c d", kind="number", nullable=True),
        Field(name="active", kind="boolean", example=True),
    ),
    head=Head(kind="probabilities", classes=("stays", "leaves")),
)
CHURN_ROW = {"age": 41, "balance": 10.5, "country": "ES", "channel": "web", "a/b~c d": None, "active": True}
PRICE = Signature(fields=(Field(name="x", kind="number", example=1.0),), head=Head(kind="values", names=("price",)))


class Live:
    """A server in a process of its own: `registry` of its models, `log` of its standard error."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout: float = 10.0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def resident(self) -> int:
        """Bytes of memory that the server holds."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(15)


def _graph(signature: Signature) -> bytes:
    """A model that adds up its input, missing values as 0."""
    from onnx import TensorProto, helper, numpy_helper

    width, two = len(signature.fields), signature.head.width == 2
    constants = {
        "zero": np.array(0.0),
        "ones": np.full((width, 1), 0.01),
        "one": np.array(1.0),
    }
    nodes = [
        helper.make_node("IsNaN", ["x"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "x"], ["clean"]),
        helper.make_node("MatMul", ["clean", "ones"], ["sum"]),
        helper.make_node("Sigmoid" if two else "Identity", ["sum"], ["p"]),
    ]
    if two:
        nodes += [helper.make_node("Sub", ["one", "p"], ["q"]), helper.make_node("Concat", ["q", "p"], ["y"], axis=1)]
    else:
        nodes.append(helper.make_node("Identity", ["p"], ["y"]))
    used = {name for node in nodes for name in node.input}
    initial = [numpy_helper.from_array(v, n) for n, v in constants.items() if n in used]
    x = helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, width])
    y = helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None, signature.head.width])
    graph = helper.make_graph(nodes, "toy", [x], [y], initializer=initial)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def toy(name: str, signature: Signature, row: dict[str, Any], folder: Path) -> Artifact:
    """A sound artifact without training: `name` with its golden rows."""
    from estiba.model.engines.onnx import session

    coder = Coder(signature.validate())
    coded, graph = coder.check([row, row]), _graph(signature)
    answers = session(graph).run(["y"], {"x": coded.matrix})[0]
    manifest = Manifest(
        name=name, engine="onnx", model_file="model.onnx", format="onnx", framework="by hand", signature=signature
    )
    files = {"model.onnx": graph, "golden.json": golden_rows.seal(coder, coded, answers), "card.md": b"# Toy\n"}
    return write(folder, manifest, files)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether `condition` came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()
