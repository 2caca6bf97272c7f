"""Run the first steps of a pipeline in Python, and the last ones as the ONNX graph that they were converted to."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from estiba.model.coding.handover import Handover
from estiba.model.engines.exact import open_exact
from estiba.model.engines.onnx import runner
from estiba.model.engines.onnx_reader import NotRecognised
from estiba.model.estimators.estimator_facts import rows_for

if TYPE_CHECKING:
    import pandas as pd

    from estiba.model.artifact.artifact import Artifact
    from estiba.model.artifact.tail import Tail
    from estiba.model.coding.coder import Coded, Matrix
    from estiba.model.schema.signature import Head


class SplitPipeline:
    """Answers rows with transformers and with a function for the coded rows that the last of them hands over."""

    def __init__(self, steps: Sequence[Any], tail: Tail, predict: Callable[[Coded], Matrix]) -> None:
        self._steps = list(steps)
        self._handover = Handover(tail.fields, tail.infinite, f"The step {tail.python_steps[-1]!r}")
        self._predict = predict

    def answer(self, frame: pd.DataFrame, head: Head) -> Matrix:
        """Raw answers to the rows of a DataFrame, as `estimators.outputs.answer` gives them."""
        rows = rows_for(self._steps[0], frame)
        for step in self._steps:
            rows = step.transform(rows)
        return self._predict(self._handover.code(rows, len(frame)))


def open_tail(artifact: Artifact, threads: int = 1) -> tuple[str, Callable[[Coded], Matrix]]:
    """The converted steps of an artifact: a name for what executes them, and the function."""
    tail = artifact.manifest.tail
    assert tail
    file = artifact.file(tail.file)
    if os.environ.get("ESTIBA_KERNEL", "") != "off":
        try:
            engine = open_exact(file, tail.fields, artifact.manifest.signature.head.width, threads)
        except NotRecognised:
            pass
        else:
            return engine.runtime, engine.predict
    return "ONNX Runtime", runner(file.read_bytes(), threads)
