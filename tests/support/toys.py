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
from estiba.model.schema.signature_checks import validated

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
        """Bytes of memory that the server's worker holds."""
        (worker,) = children(self.process.pid)
        pages = int(Path(f"/proc/{worker}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(15)


def children(pid: int) -> list[int]:
    """Child processes of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


BROKEN_ROW, SLOW_ROW, LOST_ROW = -99.0, -98.0, -97.0
"""Values of `price` at which its graph fails, takes about half a second, and answers the row with NaN."""


def _graph(signature: Signature, *, unstable: bool) -> bytes:
    """A model that adds up its input, missing values as 0. A `unstable` one has the rows above."""
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
    elif unstable:
        constants |= _MOODS
        nodes += _unstable_nodes()
    else:
        nodes.append(helper.make_node("Identity", ["p"], ["y"]))
    used = {name for node in nodes for name in node.input} | {"trips", "square", "true"}
    initial = [numpy_helper.from_array(v, n) for n, v in constants.items() if n in used]
    x = helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, width])
    y = helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None, signature.head.width])
    graph = helper.make_graph(nodes, "toy", [x], [y], initializer=initial)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


_MOODS: dict[str, Any] = {
    "broken": np.array(BROKEN_ROW),
    "slow": np.array(SLOW_ROW),
    "lost": np.array(LOST_ROW),
    "nan": np.array(np.nan),
    "far": np.array(1000, np.int64),
    "only": np.zeros(1),
    "trips": np.array(60, np.int64),
    "true": np.array(True),
    "square": np.full((400, 400), 0.5),
}


def _unstable_nodes() -> list[Any]:
    """Nodes from `x` and `p` to `y`. ONNX Runtime names the node that failed in its error."""
    from onnx import helper

    nodes = []
    for mood in ("broken", "slow"):
        nodes += [
            helper.make_node("Equal", ["x", mood], [f"is_{mood}"]),
            helper.make_node("Cast", [f"is_{mood}"], [f"n_{mood}"], to=7),
            helper.make_node("ReduceMax", [f"n_{mood}"], [f"any_{mood}"], keepdims=0),
        ]
    return [
        *nodes,
        helper.make_node("Mul", ["any_broken", "far"], ["index"]),
        helper.make_node("Gather", ["only", "index"], ["nothing"], name="secret-of-the-house"),
        helper.make_node("Cast", ["any_slow"], ["wait"], to=9),
        helper.make_node("If", ["wait"], ["waited"], then_branch=_work(), else_branch=_rest()),
        helper.make_node("Add", ["p", "nothing"], ["p1"]),
        helper.make_node("Add", ["p1", "waited"], ["p2"]),
        helper.make_node("Equal", ["x", "lost"], ["is_lost"]),
        helper.make_node("Where", ["is_lost", "nan", "p2"], ["y"]),
    ]


def _work() -> Any:
    """Multiplies matrices for about half a second; its result is 0."""
    from onnx import TensorProto, helper

    value, kind = helper.make_tensor_value_info, TensorProto.DOUBLE
    step = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["last", "square"], ["product"]),
            helper.make_node("Min", ["product", "square"], ["next"]),
        ],
        "step",
        [value("turn", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("last", kind, [400, 400])],
        [value("go_on", TensorProto.BOOL, []), value("next", kind, [400, 400])],
    )
    nodes = [
        helper.make_node("Loop", ["trips", "true", "square"], ["done"], body=step),
        helper.make_node("ReduceMax", ["done"], ["most"], keepdims=0),
        helper.make_node("Sub", ["most", "most"], ["worked"]),
    ]
    return helper.make_graph(nodes, "work", [], [value("worked", kind, [])])


def _rest() -> Any:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("rested", TensorProto.DOUBLE, [])
    return helper.make_graph([helper.make_node("Identity", ["zero"], ["rested"])], "rest", [], [value])


def toy(name: str, signature: Signature, row: dict[str, Any], folder: Path, *, unstable: bool = False) -> Artifact:
    """A sound artifact without training: `name` with its golden rows."""
    from estiba.model.engines.onnx import session

    coder = Coder(validated(signature))
    coded, graph = coder.check([row, row]), _graph(signature, unstable=unstable)
    answers = session(graph).run(["y"], {"x": coded.matrix})[0]
    manifest = Manifest(
        name=name, engine="onnx", model_file="model.onnx", format="onnx", framework="by hand", signature=signature
    )
    files = {"model.onnx": graph, "golden.json": golden_rows.seal(coder, coded, answers), "card.md": b"# Toy\n"}
    return write(folder, manifest, files)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Wait until `condition` is true; False if it is not in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()
