"""Run model.onnx with ONNX Runtime, as an engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from estiba.core.errors import BadArtifact
from estiba.model.coding.terms import METADATA_KEY, TermColumns, decode

if TYPE_CHECKING:
    from estiba.model.artifact.artifact import Artifact
    from estiba.model.coding.coder import Coded, Matrix


_ROUNDING_OPTIMIZER = "MatMulScaleFusion"
"""It moves a factor into a matrix product of float64 as an attribute, which is float32: answers are off by 1e-9."""


class OnnxEngine:
    """Runs a graph with an input `x`, float64 (rows, fields), perhaps `t` with numbers of texts, and one output `y`."""

    runtime = "ONNX Runtime"

    def __init__(self, artifact: Artifact, *, threads: int = 1, trust: bool = False) -> None:
        self.predict = runner(artifact.file(artifact.manifest.model_file).read_bytes(), threads)

    def close(self) -> None:
        """Do nothing: it holds only memory."""


def runner(model: bytes, threads: int = 1) -> Callable[[Coded], Matrix]:
    """A function that answers coded rows with a graph of one input `x`, and `t` where it reads texts."""
    running = session(model, threads)
    content = running.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if content is None:
        return lambda coded: running.run(["y"], {"x": coded.matrix})[0]
    terms = TermColumns(decode(content))

    def predict(coded: Coded) -> Matrix:
        numbers = np.empty((len(coded.matrix), terms.width))
        terms.fill(coded.texts, numbers)
        answer: Matrix = running.run(["y"], {"x": coded.matrix, "t": numbers})[0]
        return answer

    return predict


def session(model: bytes, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU; raises BadArtifact for a graph that it cannot run."""
    # The Linux wheel carries a telemetry client that writes to the home directory unless told not to, before import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; a line of its own would break a log of JSON lines
    # Threads that spin between calls would burn the processor that the HTTP layer needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A graph may name files that hold its weights. An artifact has none, and no other file may be read.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=[_ROUNDING_OPTIMIZER]
        )
    except Exception as error:  # ONNX Runtime raises its own C++ types, all of which mean the same here
        raise BadArtifact(f"ONNX Runtime {onnxruntime.__version__} cannot run this graph: {error}") from error
