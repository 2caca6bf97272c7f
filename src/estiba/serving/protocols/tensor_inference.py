"""The Open Inference Protocol V2 for models of tensors, in JSON and with the binary data extension.

Every field is one input, every output one output. The first axis of each counts records; a model whose file has no such
axis takes one record, with the shapes of the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadInput, BadRequest
from estiba.core.suggest import did_you_mean
from estiba.model.coding.coder import Coded
from estiba.model.coding.images import PixelBudget, TooManyElements
from estiba.model.inference.load import TensorModel
from estiba.model.schema.signature import Field
from estiba.model.schema.tensor_types import MAX_RANK, shape_text
from estiba.serving.batcher import Batcher
from estiba.serving.exchange import Answer, Exchange
from estiba.serving.protocols import tensors
from estiba.serving.protocols.body_parsing import check_count, check_query, parse_json, position
from estiba.serving.protocols.endpoint import JSON, EncodedResponse, Shared
from estiba.serving.protocols.open_inference import (
    MAX_WARNINGS,
    OpenInferenceEndpoint,
    Options,
    binary_block,
    is_size,
    parameters,
    split_body,
)
from estiba.serving.protocols.tensor_bodies import check_json, not_finite, together
from estiba.serving.protocols.tensors import Tensor

Array = npt.NDArray[Any]


class TensorInferenceEndpoint(OpenInferenceEndpoint):
    """`POST /v2/models/{model}[/versions/{version}]/infer` of a model of tensors."""

    def __init__(self, batcher: Batcher, shared: Shared) -> None:
        super().__init__(batcher, shared)
        self._tensors = cast(TensorModel, self.model).tensors
        self._batch = self.model.signature.head.batch

    def decode(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method != b"POST":
            check_query(request, "Use POST or QUERY to infer.")
        header, block = split_body(request)
        check_json(header)
        self.check_keys(header, -1)
        content = parse_json(header)
        if not isinstance(content, dict) or not isinstance(content.get("inputs"), list) or not content["inputs"]:
            raise BadRequest('Expected an object with "inputs", an array of one tensor or more.')
        exchange.answer_options = self._options(content, exchange)
        exchange.coded = self._inputs(content["inputs"], block)

    def _inputs(self, inputs: Sequence[Any], block: memoryview) -> Coded:
        arrays: dict[str, Any] = {}
        at = 0
        for given in inputs:
            name = given.get("name") if isinstance(given, dict) else None
            if not isinstance(name, str):
                raise BadRequest("Every input needs a name.")
            self._check_name(name, arrays)
            size = parameters(given).get("binary_data_size")
            part = None if size is None else binary_block(block, at, given, name)
            at += 0 if part is None else len(part)
            arrays[name] = self._array(self.model.signature.field(name), given, part)
        if at != len(block):
            raise BadRequest(f"{len(block) - at} bytes of binary data belong to no input.")
        try:
            return self._tensors.check_stacked(arrays)
        except BadInput as error:
            listed = "; ".join(f"{p.pointer.rpartition('/')[2]}: {p.detail}" for p in error.problems[:5])
            raise BadRequest(listed) from None

    def _check_name(self, name: str, before: Mapping[str, Any]) -> None:
        if name in before:
            raise BadRequest(f"Input {name!r} appears twice.")
        names = self.model.signature.names
        if name not in names:
            raise BadRequest(f"The model has no input {name!r}{did_you_mean(name, names)}")

    def _array(self, field: Field, given: Mapping[str, Any], block: memoryview | None) -> Array:
        """The elements of one input, of the shape that it has."""
        name, datatype, shape = field.name, str(given.get("datatype")), given.get("shape")
        if not isinstance(shape, list) or not all(map(is_size, shape)) or len(shape) > MAX_RANK + 1:
            raise BadRequest(f"Input {name!r} needs a shape, an array of lengths.")
        expected = tensors.input_tensor(field, self._batch)
        image = field.image is not None and datatype == "BYTES"
        if datatype != expected.datatype and not image:
            raise BadRequest(
                f"Input {name!r}: expected {expected.datatype} of shape {shape_text(expected.shape)}, "
                f"got {datatype} of shape {shape_text(shape)}."
            )
        if 0 in shape:
            raise BadRequest(f"Input {name!r} has shape {shape_text(shape)}, which holds no element.")
        count = math.prod(shape)
        if count > self._tensors.max_elements:
            raise BadRequest(f"Input {name!r} has more than {self._tensors.max_elements:,} elements.")
        if image:
            return self._images(field, given, block, shape)
        values = self._values(given, datatype, block, name, shape)
        return values.reshape(shape)

    def _values(
        self, given: Mapping[str, Any], datatype: str, block: memoryview | None, name: str, shape: list[int]
    ) -> Array:
        if block is not None:
            if datatype != "BYTES":
                return tensors.array_from_binary(block, datatype, math.prod(shape), name)
            return np.array(tensors.from_binary(block, datatype, math.prod(shape), name), dtype=object)
        flat = tensors.flatten(given.get("data"), shape, name)
        if None in flat:
            raise BadRequest(f"Input {name!r} has null at element {flat.index(None)}; a tensor has no missing values.")
        values = tensors.from_json(flat, datatype, name)
        try:
            array = np.asarray(values, dtype=tensors.DTYPES.get(datatype, object))
        except OverflowError:
            raise BadRequest(f"Input {name!r} has a value that does not fit into {datatype}.") from None
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BadRequest(f"Input {name!r} has a value that does not fit into {datatype}.")
        return array

    def _images(self, field: Field, given: Mapping[str, Any], block: memoryview | None, shape: list[int]) -> Array:
        """Images, one per record: as bytes in binary data, in base64 in JSON."""
        count = shape[0] if shape else 1
        check_count(count)
        wanted = "[records]" if self._tensors.stacks else "[1]"
        if math.prod(shape) != count or not (self._tensors.stacks or count == 1):
            raise BadRequest(f"Input {field.name!r}: images are of shape {wanted}, got {shape_text(shape)}.")
        contents: Sequence[Any] = tensors.flatten(given.get("data"), shape, field.name) if block is None else ()
        if block is not None:
            contents = tensors.byte_strings(bytes(block), count, field.name)
        decoded: list[Array] = []
        left, budget = self._tensors.max_elements, PixelBudget()
        for number, content in enumerate(contents):
            try:
                decoded.append(self._tensors.tensor(field, content, budget))
            except ValueError as error:
                raise BadRequest(f"{field.name} in row {number}: {error}") from None
            left -= decoded[-1].size
            if left < 0:
                raise TooManyElements(
                    f"The images of {field.name!r} have more than {self._tensors.max_elements:,} elements."
                )
        shapes = {array.shape for array in decoded}
        if len(shapes) > 1:
            raise BadRequest(f"Input {field.name!r}: images of different sizes cannot be one tensor; send them apart.")
        return np.stack(decoded) if self._tensors.stacks else decoded[0]

    def encode(self, exchange: Exchange, answer: Answer) -> EncodedResponse:
        options: Options = exchange.answer_options
        blocks: list[bytes] = []
        outputs = []
        for (tensor, _), binary in options.outputs:
            array = together(answer.predictions, tensor.name, self._batch)
            outputs.append(_output(tensor, array, blocks if binary else None))
        body: dict[str, Any] = {
            "model_name": self.model.name,
            "model_version": self.model.version,
            "id": options.id,
            "outputs": outputs,
        }
        odd = not_finite(answer.predictions, [output.tensor.name for output, binary in options.outputs if not binary])
        if odd:
            listed = "; ".join(f"{w.code}: {position(w.row, w.field)}" for w in odd[:MAX_WARNINGS])
            body["parameters"] = {"warnings": listed}
        header = msgspec.json.encode(body)
        if not blocks:
            return (JSON, header)
        lines = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n" % len(header)
        return (lines, b"".join((header, *blocks)))


def _output(tensor: Tensor, array: Array, blocks: list[bytes] | None) -> dict[str, Any]:
    """One output of an answer; binary data are appended to `blocks`."""
    shown: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": array.shape}
    if blocks is None:
        shown["data"] = array.ravel().tolist()
        return shown
    if tensor.datatype == "BYTES":
        block = tensors.to_binary(array.ravel().tolist(), "BYTES") or b""
    else:
        block = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    shown["parameters"] = {"binary_data_size": len(block)}
    blocks.append(block)
    return shown
