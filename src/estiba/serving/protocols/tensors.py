"""Tensors of the Open Inference Protocol: their datatypes, and values to and from JSON and the binary extension."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadRequest
from estiba.model.schema.signature import MAX_INTEGER, Field, Label, Scalar, Signature
from estiba.model.schema.tensor_types import Shape

DTYPES: dict[str, npt.DTypeLike] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
"""All datatypes except BYTES, whose elements are strings."""

DATATYPES = (*DTYPES, "BYTES")

DATATYPE_OF = {**{np.dtype(dtype).name: name for name, dtype in DTYPES.items()}, "string": "BYTES"}
"""The datatype by NumPy's name of an element type."""

MAX_LIST_VALUES = 16
"""Up to this many values are faster as a list than as an array."""

Values = npt.NDArray[Any] | list[Any]
"""A tensor's elements, row by row."""

_JSON_TYPES: dict[str, set[type]] = {
    datatype: {NoneType, *({str} if datatype == "BYTES" else {bool} if datatype == "BOOL" else {int})}
    | ({float} if datatype.startswith("FP") else set())
    for datatype in DATATYPES
}


class Tensor(NamedTuple):
    """An input or output in the model's metadata; -1 is any number of rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, str] | None = None


def input_tensor(field: Field, batch: str = "free") -> Tensor:
    """One input per field, one value per row; of a field of tensors, one tensor per row unless `batch` is none."""
    if field.kind == "tensor":
        parameters = {"content_type": "image"} if field.image is not None else None
        return Tensor(field.name, DATATYPE_OF[field.dtype], _whole(field.shape, batch), parameters)
    datatypes = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}
    if field.kind == "category":
        return Tensor(field.name, datatype_of(field.levels), (-1,))
    kind = "datetime" if field.kind == "timestamp" else "str"
    datatype = datatypes.get(field.kind, "BYTES")
    return Tensor(field.name, datatype, (-1,), {"content_type": kind} if datatype == "BYTES" else None)


def input_tensors(signature: Signature) -> list[Tensor]:
    """The inputs of a model, one per field."""
    return [input_tensor(field, signature.head.batch) for field in signature.fields]


def output_tensors(signature: Signature) -> list[Tensor]:
    """One output per part of a prediction, named as there. Probabilities are one column per class.

    Parts of one of several outputs are called `OUTPUT.PART`.
    """
    outputs = [tensor for output in signature.each for tensor in _output_tensors(output.flat)]
    return [*outputs, *kept_tensors(signature)]


def _output_tensors(signature: Signature) -> list[Tensor]:
    """Tensors of a single output."""
    head, outputs = signature.head, signature.outputs
    if signature.is_tensors:
        return [Tensor(each.name, DATATYPE_OF[each.dtype], _whole(each.shape, head.batch)) for each in head.tensors]
    count = len(head.classes)
    tensors: list[Tensor] = []
    if head.kind == "values":
        tensors.append(Tensor(outputs.value, "FP64", (-1,)))
    elif signature.label_name:
        tensors.append(Tensor(signature.label_name, datatype_of(head.classes), (-1,)))
    if head.kind == "probabilities":
        if outputs.probability:
            tensors.append(Tensor(outputs.probability, "FP64", (-1,)))
        if outputs.probabilities:
            tensors.append(Tensor(outputs.probabilities, "FP64", (-1, count)))
    elif head.kind in ("scores", "outlier") and outputs.score:
        tensors.append(Tensor(outputs.score, "FP64", (-1,) if head.columns == 1 else (-1, count)))
    return [*tensors, *(Tensor(name, "BYTES", (-1,)) for name in outputs.bands)]


def kept_tensors(signature: Signature) -> list[Tensor]:
    """The values that are handed through, each an input and an output, as text."""
    return [Tensor(name, "BYTES", (-1,), {"content_type": "str"}) for name in signature.keep]


def _whole(shape: Shape, batch: str) -> tuple[int, ...]:
    """The shape of a tensor in the metadata, with -1 for free axes, and for the one that counts records."""
    sizes = tuple(-1 if isinstance(axis, str) else axis for axis in shape)
    return sizes if batch == "none" else (-1, *sizes)


def datatype_of(values: Sequence[Label | Scalar]) -> str:
    """The datatype that can hold all of these values."""
    types = {type(value) for value in values}
    if types <= {int, float} and types:
        return "FP64" if float in types else "INT64"
    return "BOOL" if types == {bool} else "BYTES"


def flatten(data: Any, shape: Sequence[int], name: str) -> list[Any]:
    """Flatten the `data` of a tensor, flat or nested; raises BadRequest where it does not match the shape."""
    if not isinstance(data, list):
        raise BadRequest(f"The data of input {name!r} is not an array.")
    flat = _flat(data, shape, name) if any(isinstance(part, list) for part in data) else data
    if len(flat) != math.prod(shape):
        raise BadRequest(f"Input {name!r} has shape {list(shape)}, {math.prod(shape)} values, but {len(flat)} of data.")
    return flat


def _flat(data: Any, shape: Sequence[int], name: str) -> list[Any]:
    if not shape:
        return [data]
    if not isinstance(data, list) or len(data) != shape[0]:
        raise BadRequest(f"The nested data of input {name!r} does not match its shape.")
    return [value for part in data for value in _flat(part, shape[1:], name)]


def from_json(flat: list[Any], datatype: str, name: str) -> Values:
    """Convert elements from JSON. A null stays None; the signature decides whether it may be missing.

    Raises:
        BadRequest: an element is not of the datatype, or does not fit into it.
    """
    allowed = _JSON_TYPES[datatype]
    if not {type(value) for value in flat} <= allowed:
        position = next(i for i, value in enumerate(flat) if type(value) not in allowed)
        raise BadRequest(f"Element {position} of input {name!r} is not of datatype {datatype}.")
    missing = None in flat
    # BOOL and FP64 need no rounding and no check of their range.
    is_plain = datatype in ("BOOL", "FP64") and (missing or len(flat) <= MAX_LIST_VALUES)
    if datatype == "BYTES" or is_plain:
        return flat
    dtype = np.dtype(DTYPES[datatype])
    values: npt.NDArray[Any]
    try:
        with np.errstate(over="ignore"):
            values = np.array([0 if value is None else value for value in flat] if missing else flat, dtype)
    except OverflowError:
        raise BadRequest(f"Input {name!r} has a value that does not fit into {datatype}.") from None
    if missing:
        return [None if given is None else value for given, value in zip(flat, values.tolist(), strict=True)]
    return _exact(values)


def from_binary(block: bytes | memoryview, datatype: str, count: int, name: str) -> Values:
    """Convert elements from the binary extension: little endian; each string after its length in 4 bytes.

    Raises:
        BadRequest: the block holds another number of elements, or text that is not UTF-8.
    """
    if datatype == "BYTES":
        return _strings(bytes(block), count, name)
    return _exact(array_from_binary(block, datatype, count, name))


def array_from_binary(block: bytes | memoryview, datatype: str, count: int, name: str) -> npt.NDArray[Any]:
    """Convert elements other than strings from the binary extension; raises BadRequest for another number of them."""
    dtype = np.dtype(DTYPES[datatype]).newbyteorder("<")
    if len(block) != count * dtype.itemsize:
        needed = count * dtype.itemsize
        raise BadRequest(f"Input {name!r} needs {needed} bytes for {count} values of {datatype}, not {len(block)}.")
    if datatype == "BOOL":
        truth: npt.NDArray[Any] = np.frombuffer(block, np.uint8) != 0
        return truth
    return np.frombuffer(block, dtype)


def _exact(values: npt.NDArray[Any]) -> Values:
    """Keep integers that float64 cannot hold, so that the signature refuses them instead of rounding."""
    large = values.dtype.kind in "iu" and values.dtype.itemsize == 8 and len(values)
    if large and (int(values.max()) > MAX_INTEGER or int(values.min()) < -MAX_INTEGER):
        return list(values.tolist())
    return values


def _strings(block: bytes, count: int, name: str) -> list[Any]:
    try:
        return [each.decode() for each in byte_strings(block, count, name)]
    except UnicodeDecodeError:
        raise BadRequest(f"Input {name!r} is not a block of strings in UTF-8.") from None


def byte_strings(block: bytes, count: int, name: str) -> list[bytes]:
    """The elements of datatype BYTES, each after its length; raises BadRequest where there are fewer or more."""
    strings: list[bytes] = []
    at = 0
    try:
        while at < len(block) and len(strings) < count:
            (size,) = struct.unpack_from("<I", block, at)
            at += 4
            if at + size > len(block):
                raise BadRequest(f"Input {name!r} ends in the middle of a string.")
            strings.append(block[at : at + size])
            at += size
    except struct.error:
        raise BadRequest(f"Input {name!r} is not a block of strings.") from None
    if len(strings) != count or at != len(block):
        raise BadRequest(f"Input {name!r} does not hold {count} strings, as its shape requires.")
    return strings


def from_base64(values: Values, name: str) -> list[str | None]:
    """Decode strings of base64 to text."""
    try:
        return [None if v is None else base64.b64decode(v, validate=True).decode() for v in values]
    except (binascii.Error, UnicodeDecodeError, TypeError, ValueError):
        raise BadRequest(f"Input {name!r} is not base64 of text in UTF-8.") from None


def to_binary(values: Sequence[Any], datatype: str) -> bytes | None:
    """Encode flat values for the binary extension; None where it cannot represent a missing value among them."""
    if datatype == "BYTES":
        if None in values:
            return None
        encoded = [str(value).encode() for value in values]
        return b"".join(struct.pack("<I", len(part)) + part for part in encoded)
    if None in values and not datatype.startswith("FP"):
        return None
    array: npt.NDArray[Any] = np.array(values, np.dtype(DTYPES[datatype]).newbyteorder("<"))
    return array.tobytes()
