"""The converted form of a model: its ONNX graph, or steps in Python with the graph of the steps behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from estiba.model.artifact.golden_rows import Predict
from estiba.model.artifact.tail import Tail
from estiba.model.coding.coder import Coded


@dataclass(frozen=True)
class Converted:
    """A model that was converted, as a whole or from one of its steps on.

    Args:
        onnx: the graph. predict: coded rows of the model to raw answers.
        steps: fitted transformers before the graph, which run in Python. tail: the description of the split.
        reason: why those steps run in Python. handed: what they make of the sample, coded.
    """

    onnx: bytes
    predict: Predict
    steps: tuple[Any, ...] = ()
    tail: Tail | None = None
    reason: str = ""
    handed: Coded | None = None
