"""The model file of an artifact, with the code that it needs and how both are described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from estiba.core.errors import ParityError
from estiba.model.artifact.artifact import CODE


@dataclass(frozen=True)
class Content:
    """The parts of an artifact that hold the model itself.

    Args:
        model: the bytes of the model file.
        described: members of the manifest about it.
        code: source files of the user's own by path inside the artifact.
    """

    model: bytes
    described: dict[str, Any]
    code: Mapping[str, bytes] = field(default_factory=dict)


def onnx_parts(model: object, onnx: bytes) -> Content:
    """The content of an artifact whose model was converted."""
    from estiba.model.estimators.saved_files import framework

    libraries = {name: version(name) for name in ("numpy", "onnxruntime")}
    described = {"engine": "onnx", "format": "onnx", "model_file": "model.onnx", "libraries": libraries}
    return Content(onnx, {**described, "framework": framework(model)})


def python_parts(model: object, reason: str) -> Content:
    """The content of an artifact that the python engine runs.

    Raises:
        ParityError: `model` is an ONNX file. EstibaError: it cannot be saved.
    """
    from estiba.model.estimators import own_code
    from estiba.model.estimators.saved_files import dumps, framework, libraries, without_timestamps

    if isinstance(model, bytes):
        raise ParityError(f"The graph around the ONNX file does not answer as the file does. {reason}")
    described: dict[str, Any] = {"engine": "python", "framework": framework(model)}
    if own_code.has_own_code(model):
        own = own_code.dump(without_timestamps(model, lambda part: own_code.dump(part).content))
        described |= {"format": "joblib", "model_file": "model.pkl", "by_value": own.by_value}
        described["libraries"] = libraries(model, "joblib", own.libraries)
        return Content(own.content, described, {f"{CODE}/{path}": own.files[path] for path in sorted(own.files)})
    kind, file, content = dumps(model)
    return Content(content, {**described, "format": kind, "model_file": file, "libraries": libraries(model, kind)})
