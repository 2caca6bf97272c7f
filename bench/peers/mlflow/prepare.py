"""Saves the ONNX file as an MLflow model with a signature."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import mlflow.onnx
import onnx
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema


def main(target: Path) -> None:
    model = onnx.load(os.environ["MODEL_ONNX"])
    texts = {i.name for i in model.graph.input if i.type.tensor_type.elem_type == onnx.TensorProto.STRING}
    columns = [ColSpec(DataType.string if i.name in texts else DataType.float, i.name) for i in model.graph.input]
    shutil.rmtree(target, ignore_errors=True)
    options = {"intra_op_num_threads": 1}
    signature = ModelSignature(inputs=Schema(columns))
    mlflow.onnx.save_model(model, str(target), signature=signature, onnx_session_options=options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
