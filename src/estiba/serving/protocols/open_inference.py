"""The Open Inference Protocol V2 over HTTP, with the binary data extension and the content types of MLServer.

Every field of the signature is one input of shape [rows] or [rows, 1]; every part of a prediction is one output. A
model of numbers alone also takes them all as one tensor of shape [rows, fields].

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md; triton-inference-server/server,
docs/protocol/extension_binary_data.md and extension_model_repository.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from estiba.core.errors import BadRequest
from estiba.core.suggest import MAX_SHOWN_CHARACTERS
from estiba.model.coding.coder import Coded
from estiba.model.coding.predictions import Read, readers
from estiba.model.inference.load import Model
from estiba.model.schema.rows import Prediction
from estiba.model.schema.signature import Field
from estiba.serving.batcher import Batcher
from estiba.serving.exchange import Answer, Exchange
from estiba.serving.http.request import Request
from estiba.serving.protocols import tensors
from estiba.serving.protocols.body_parsing import (
    check_count,
    check_names,
    check_query,
    check_values,
    code_records,
    parse_json,
    position,
    sentence,
)
from estiba.serving.protocols.endpoint import JSON, EncodedResponse, Endpoint, Failure, Shared
from estiba.serving.protocols.tensors import Tensor, Values

EXTENSIONS = ("binary_tensor_data", "model_repository")

CONTENT_TYPES = ("np", "pd", "str", "base64", "datetime")
"""Content types of MLServer's codecs for requests and inputs. Only base64 changes how data are decoded."""

LENGTH_HEADER = b"inference-header-content-length"
MAX_WARNINGS = 10

MAX_RECORD_ROWS = 16
"""Up to this many rows are coded faster as records than as columns."""


class Output(NamedTuple):
    """An output, and how its value is read from a prediction."""

    tensor: Tensor
    read: Read


class Options(NamedTuple):
    """Answer options of a request: the id to echo, and the outputs to send, each in binary or not."""

    id: str
    outputs: Sequence[tuple[Output, bool]]


class OpenInferenceEndpoint(Endpoint):
    """`POST /v2/models/{model}[/versions/{version}]/infer`."""

    protocol = "v2"
    accept_query = b"application/json, application/octet-stream"
    invalid = 400

    def __init__(self, batcher: Batcher, shared: Shared) -> None:
        super().__init__(batcher, shared)
        signature = self.model.signature
        read = readers(signature)
        outputs = (Output(tensor, read[tensor.name]) for tensor in tensors.output_tensors(signature))
        self._outputs = {output.tensor.name: output for output in outputs}
        self._plain = tuple((output, False) for output in self._outputs.values())
        self._is_numeric = all(_is_numeric(field) for field in signature.fields)

    def decode(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method != b"POST":
            check_query(request, "Use POST or QUERY to infer.")
        header, rest = split_body(request)
        check_values(header, len(self.model.coder.fields))
        self.check_keys(header, -1)
        content = parse_json(header)
        if not isinstance(content, dict) or not isinstance(content.get("inputs"), list) or not content["inputs"]:
            raise BadRequest('Expected an object with "inputs", an array of one tensor or more.')
        exchange.answer_options = self._options(content, exchange)
        inputs = _Inputs(rest, content_type(content, ""))
        given = [inputs.read(each) for each in content["inputs"]]
        if inputs.at != len(rest):
            raise BadRequest(f"{len(rest) - inputs.at} bytes of binary data belong to no input.")
        exchange.coded = self._gather(given)

    def _gather(self, given: Sequence[_Input]) -> Coded:
        count = given[0].shape[0]
        if count < 1:
            raise BadRequest(f"Input {given[0].name!r} has no rows.")
        for each in given:
            if each.shape[0] != count:
                raise BadRequest(f"Input {each.name!r} has {each.shape[0]} rows, and {given[0].name!r} has {count}.")
        columns = self._tensor(given[0]) if self._is_tensor(given) else self._columns(given)
        coder = self.model.coder
        return code_records(coder, _rows(columns)) if count <= MAX_RECORD_ROWS else coder.check_columns(columns, count)

    def _is_tensor(self, given: Sequence[_Input]) -> bool:
        """Return True for one tensor, of any name, that holds all fields."""
        first, names = given[0], self.model.signature.names
        wide = len(first.shape) == 2 and first.shape[1] == len(names)
        return len(given) == 1 and wide and not (len(names) == 1 and first.name in names)

    def _tensor(self, given: _Input) -> dict[str, Values]:
        fields = self.model.signature.fields
        if not self._is_numeric or given.datatype == "BYTES":
            names = ", ".join(field.name for field in fields if not _is_numeric(field)) or "every field"
            raise BadRequest(f"A single input for all fields must be numeric. Send separate inputs for {names}.")
        width = len(fields)
        columns = (_strided(given.values, i, width) for i in range(width))
        return {field.name: _whole(field, values) for field, values in zip(fields, columns, strict=True)}

    def _columns(self, given: Sequence[_Input]) -> dict[str, Values]:
        check_names(self.model.coder, (each.name for each in given))
        for each in given:
            if len(each.shape) == 2 and each.shape[1] != 1:
                shape = list(each.shape)
                raise BadRequest(f"Input {each.name!r} is one field, of shape [rows] or [rows, 1], not {shape}.")
        return {each.name: each.values for each in given}

    def _options(self, content: Mapping[str, Any], exchange: Exchange) -> Options:
        request_id = content.get("id")
        if request_id is None:  # MLServer's types write what is not given as null
            request_id = exchange.id
        if not isinstance(request_id, str) or len(request_id) > MAX_SHOWN_CHARACTERS:
            raise BadRequest(f"The id must be a string of at most {MAX_SHOWN_CHARACTERS} characters.")
        binary = parameters(content).get("binary_data_output") is True
        wanted = content.get("outputs")
        if not wanted:
            every = tuple((output, True) for output in self._outputs.values()) if binary else self._plain
            return Options(request_id, every)
        if not isinstance(wanted, list):
            raise BadRequest('"outputs" must be an array.')
        if len(wanted) > len(self._outputs):
            raise BadRequest(f'"outputs" names more than the {len(self._outputs)} outputs that the model has.')
        outputs = [self._wanted(each, binary) for each in wanted]
        if len({output.tensor.name for output, _ in outputs}) < len(outputs):
            raise BadRequest('"outputs" names an output twice.')
        return Options(request_id, outputs)

    def _wanted(self, output: Any, binary: bool) -> tuple[Output, bool]:
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str) or name not in self._outputs:
            raise BadRequest(f"The model has no output {name!r}; it has: {', '.join(self._outputs)}.")
        settings = parameters(output)
        if "classification" in settings:
            raise BadRequest("The classification extension is not supported; the label is an output of its own.")
        if "shared_memory_region" in settings:
            raise BadRequest(f"Output {name!r}: shared memory is not supported; outputs are in the body of the answer.")
        own = settings.get("binary_data")
        return self._outputs[name], (binary if own is None else own) is True

    def encode(self, exchange: Exchange, answer: Answer) -> EncodedResponse:
        predictions, warnings = answer.predictions, answer.warnings
        options: Options = exchange.answer_options
        blocks: list[bytes] = []
        body: dict[str, Any] = {
            "model_name": self.model.name,
            "model_version": self.model.version,
            "id": options.id,
            "outputs": [_output(output, predictions, blocks if binary else None) for output, binary in options.outputs],
        }
        if warnings:
            parts = [f"{w.code}: {position(w.row, w.field)}" for w in warnings[:MAX_WARNINGS]]
            body["parameters"] = {"warnings": "; ".join(parts)}
        header = msgspec.json.encode(body)
        if not blocks:
            return (JSON, header)
        lines = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n" % len(header)
        return (lines, b"".join((header, *blocks)))

    def problem(self, exchange: Exchange, failure: Failure) -> EncodedResponse:
        return (JSON, error(sentence(failure.errors) or failure.detail))


class _Input(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Values


class _Inputs:
    """Reads inputs in order; the data of binary ones are in `block`, in the same order."""

    def __init__(self, block: memoryview, content_type: str) -> None:
        self._block = block
        self._content_type = content_type
        self.at = 0

    def read(self, given: Any) -> _Input:
        name = given.get("name") if isinstance(given, dict) else None
        if not isinstance(name, str):
            raise BadRequest("Every input needs a name.")
        datatype, shape = given.get("datatype"), given.get("shape")
        if datatype not in tensors.DATATYPES:
            raise BadRequest(f"Input {name!r} has no known datatype. Known: {', '.join(tensors.DATATYPES)}.")
        if not isinstance(shape, list) or not 1 <= len(shape) <= 2 or not all(is_size(size) for size in shape):
            raise BadRequest(f"Input {name!r} needs a shape: [rows], [rows, 1] or [rows, fields].")
        check_count(shape[0])
        kind = content_type(given, name) or self._content_type
        size = parameters(given).get("binary_data_size")
        if size is None:
            values = tensors.from_json(tensors.flatten(given.get("data"), shape, name), datatype, name)
        else:
            values = tensors.from_binary(self._take(given, name), datatype, math.prod(shape), name)
        if kind == "base64" and datatype == "BYTES":
            values = tensors.from_base64(values, name)
        return _Input(name, datatype, tuple(shape), values)

    def _take(self, given: Mapping[str, Any], name: str) -> memoryview:
        taken = binary_block(self._block, self.at, given, name)
        self.at += len(taken)
        return taken


def binary_block(block: memoryview, at: int, given: Mapping[str, Any], name: str) -> memoryview:
    """The binary data of an input, from position `at` of a request's.

    Raises:
        BadRequest: there are fewer bytes than `binary_data_size`, or the input has data in JSON too.
    """
    size: Any = parameters(given).get("binary_data_size")
    if not is_size(size) or at + size > len(block):
        raise BadRequest(f"The binary data of input {name!r} is incomplete.")
    if given.get("data") is not None:
        raise BadRequest(f"Input {name!r} has both data and binary_data_size; send one of them.")
    return block[at : at + size]


def split_body(request: Request) -> tuple[bytes | bytearray, memoryview]:
    """The JSON of a request, and the binary data behind it."""
    value = request.header(LENGTH_HEADER)
    if not value:
        return request.body, memoryview(b"")
    length = int(value) if value.isdigit() and len(value) < 20 else -1
    if not 0 < length <= len(request.body):
        raise BadRequest("Inference-Header-Content-Length must be the length of the JSON at the beginning of the body.")
    body = memoryview(request.body)
    return bytes(body[:length]), body[length:]


def parameters(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `parameters` of a request, an input or an output; empty where there are none."""
    found = given.get("parameters") or {}
    if not isinstance(found, dict):
        raise BadRequest('"parameters" must be an object.')
    return found


def content_type(given: Mapping[str, Any], name: str) -> str:
    """MLServer's content type of a request or an input, empty for none; raises BadRequest for an unknown one."""
    found = parameters(given).get("content_type") or ""
    if found and found not in CONTENT_TYPES:
        where = f"input {name!r}" if name else "the request"
        raise BadRequest(
            f"The content type {found!r} of {where} is not supported. Supported: {', '.join(CONTENT_TYPES)}."
        )
    return str(found)


def is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**40


def _is_numeric(field: Field) -> bool:
    levels = field.kind == "category" and not any(isinstance(level, str) for level in field.levels)
    return levels or field.kind in ("number", "integer", "boolean")


def _rows(columns: Mapping[str, Values]) -> list[dict[str, Any]]:
    plain = [values.tolist() if isinstance(values, np.ndarray) else values for values in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*plain, strict=True)]


def _strided(values: Values, start: int, step: int) -> Values:
    return values[start::step]


def _whole(field: Field, values: Values) -> Values:
    """Turn numbers of a boolean field into booleans."""
    if field.kind != "boolean" or (isinstance(values, np.ndarray) and values.dtype.kind == "b"):
        return values
    booleans = {0: False, 1: True}
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    return [None if v is None or v != v else booleans.get(v, v) for v in plain]


def _output(output: Output, predictions: Sequence[Prediction], blocks: list[bytes] | None) -> dict[str, Any]:
    """One output of an answer; binary data are appended to `blocks`."""
    tensor = output.tensor
    data = list(map(output.read, predictions))
    if len(tensor.shape) == 2:
        data = [value for each in data for value in each.values()]
    elif tensor.datatype == "BYTES":
        data = [None if value is None else str(value) for value in data]
    shown: dict[str, Any] = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": (len(predictions), *tensor.shape[1:]),
        "parameters": {"content_type": "str" if tensor.datatype == "BYTES" else "np"},
    }
    block = None if blocks is None else tensors.to_binary(data, tensor.datatype)
    if blocks is None or block is None:
        shown["data"] = data
    else:
        shown["parameters"]["binary_data_size"] = len(block)
        blocks.append(block)
    return shown


def error(message: str) -> bytes:
    """The body of every error of this protocol."""
    return msgspec.json.encode({"error": message})


def server_metadata(version: str) -> dict[str, Any]:
    """`GET /v2`."""
    return {"name": "estiba", "version": version, "extensions": EXTENSIONS}


def model_metadata(model: Model) -> dict[str, Any]:
    """`GET /v2/models/{model}`: inputs by field, outputs by part of a prediction, and what the columns mean."""
    signature = model.signature
    properties: dict[str, Any] = {"digest": f"sha256:{model.digest}"}
    if signature.head.classes:
        properties["classes"] = [str(label) for label in signature.head.classes]
    if signature.is_tensors:
        properties["batch"] = signature.head.batch
    if signature.head.heads:
        heads = {head.name: [str(label) for label in head.classes] for head in signature.head.heads}
        properties["classes"] = {name: classes for name, classes in heads.items() if classes}
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": f"estiba_{model.manifest.engine}",
        "inputs": [_shown(tensor) for tensor in (*tensors.input_tensors(signature), *tensors.kept_tensors(signature))],
        "outputs": [_shown(tensor) for tensor in tensors.output_tensors(signature)],
        "properties": properties,
    }


def repository_index(models: Sequence[Model], *, ready: bool, only_ready: bool) -> list[dict[str, str]]:
    """`POST /v2/repository/index`."""
    if only_ready and not ready:
        return []
    state = "READY" if ready else "UNAVAILABLE"
    return [{"name": m.name, "version": m.version, "state": state, "reason": ""} for m in models]


def _shown(tensor: Tensor) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
    return {**shown, "parameters": tensor.parameters} if tensor.parameters else shown
