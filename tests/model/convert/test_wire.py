"""Large graphs are written as the onnx library writes them, to the byte."""

from __future__ import annotations

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import AttributeProto
from sklearn.ensemble import RandomForestClassifier

from estiba.model.convert import convert
from estiba.model.convert.wire import fields, tagged_integers
from estiba.model.schema.signature import Field


@pytest.mark.parametrize(
    "numbers",
    [[], [0], [1, 127, 128, 300, 2**14, 2**21, 2**35, 2**62, 0, 5], list(range(0, 600_000, 7)) * 7],
    ids=["none", "zero", "every length", "many"],
)
def test_integers_are_written_as_protobuf_does(numbers: list[int]) -> None:
    attribute = AttributeProto()
    attribute.ints.extend(numbers)
    assert tagged_integers(np.asarray(numbers, np.int64)) == attribute.SerializeToString()


@pytest.mark.parametrize("leaves", [1, 5], ids=["whole votes", "shares, counted again near a tie"])
def test_a_forest_is_written_as_onnx_does(leaves: int) -> None:
    rng = np.random.default_rng(0)
    sample = pd.DataFrame(rng.normal(size=(400, 3)), columns=["a", "b", "c"])
    forest = RandomForestClassifier(5, min_samples_leaf=leaves, random_state=0).fit(sample, sample.a > sample.b)
    content = convert(forest, [Field(name=name, kind="number") for name in sample], sample).onnx
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model)
    assert model.SerializeToString(deterministic=True) == content
    (graph,) = (part for number, part in fields(memoryview(content)) if number == 7)
    assert bytes(graph) == model.graph.SerializeToString(deterministic=True)
