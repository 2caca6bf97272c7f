"""ONNX Runtime reads no file that the graph of a stranger names."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from estiba.core.errors import BadArtifact
from estiba.model.engines.onnx import session


def test_weights_in_a_file_of_the_working_directory_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_bytes(b"TOKEN=abcdef")
    monkeypatch.chdir(tmp_path)
    weights = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[12], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": ".env", "length": "12"}.items():
        weights.external_data.add(key=key, value=value)
    node = helper.make_node("Gather", ["w", "x"], ["y"], axis=0)
    shapes = [helper.make_tensor_value_info(*each, ["n"]) for each in (("x", TensorProto.INT64), ("y", 2))]
    made = helper.make_model(
        helper.make_graph([node], "g", shapes[:1], shapes[1:], [weights]), opset_imports=[helper.make_opsetid("", 17)]
    )
    made.ir_version = 8
    with pytest.raises(BadArtifact, match="External data"):
        session(made.SerializeToString())
