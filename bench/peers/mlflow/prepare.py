"""Saves the ONNX file as an MLflow model with a signature of named tensors.

MLflow hands the columns of a DataFrame over as arrays of rank 1, which this graph (rank 2, as skl2onnx makes it)
refuses; its tensor input, {"inputs": {name: rows}}, fits.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import mlflow.onnx
import numpy as np
import onnx
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec


def main(target: Path) -> None:
    model = onnx.load(os.environ["MODEL_ONNX"])
    texts = {i.name for i in model.graph.input if i.type.tensor_type.elem_type == onnx.TensorProto.STRING}
    kinds = {i.name: np.dtype("str" if i.name in texts else "float32") for i in model.graph.input}
    tensors = [TensorSpec(kind, (-1, 1), name) for name, kind in kinds.items()]
    shutil.rmtree(target, ignore_errors=True)
    options = {"intra_op_num_threads": 1}
    signature = ModelSignature(inputs=Schema(tensors))
    mlflow.onnx.save_model(model, str(target), signature=signature, onnx_session_options=options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
