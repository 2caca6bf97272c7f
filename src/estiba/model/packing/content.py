"""The model file of an artifact, with the code that it needs and how both are described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from estiba.core.errors import ParityError
from estiba.model.artifact.artifact import CODE
from estiba.model.packing.converted import Converted


@dataclass(frozen=True)
class Content:
    """The parts of an artifact that hold the model itself.

    Args:
        model: the bytes of the model file.
        described: members of the manifest about it.
        files: source files of the user's own, and the graph of converted steps, by path inside the artifact.
    """

    model: bytes
    described: dict[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def code_files(self) -> tuple[str, ...]:
        """Paths of the source files of the user's own."""
        return tuple(path for path in self.files if path.startswith(f"{CODE}/"))


def converted_parts(model: object, form: Converted) -> Content:
    """The content of an artifact whose model was converted, as a whole or from a step on.

    Raises:
        EstibaError: the steps that run in Python cannot be saved.
    """
    from estiba.model.estimators.saved_files import framework

    if form.tail is not None:
        held = python_parts(list(form.steps), form.reason)
        described = {**held.described, "framework": framework(model), "tail": form.tail}
        return Content(held.model, described, {**held.files, form.tail.file: form.onnx})
    libraries = {name: version(name) for name in ("numpy", "onnxruntime")}
    described = {"engine": "onnx", "format": "onnx", "model_file": "model.onnx", "libraries": libraries}
    return Content(form.onnx, {**described, "framework": framework(model)})


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
