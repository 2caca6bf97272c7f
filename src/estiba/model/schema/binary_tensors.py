"""Arrays in a request of the Open Inference Protocol with binary data, and in its answer. NumPy comes with the arrays.

Source: triton-inference-server/server, docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from estiba.core.errors import BadInput, EstibaError, Problem

LENGTH_HEADER = "Inference-Header-Content-Length"

_DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}


def request(inputs: Sequence[Mapping[str, Any]], arrays: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The JSON of a request and the binary data behind it.

    Args:
        inputs: as the model's metadata list them.
        arrays: by name; one without the axis that counts records is one record.

    Raises:
        BadInput: an array cannot be of the type that the model takes without changing its values.
    """
    blocks: list[bytes] = []
    listed = []
    known = {each["name"]: each for each in inputs}
    for name, given in arrays.items():
        wanted = known.get(name)
        array = given if wanted is None else _typed(name, given, wanted["datatype"])
        if wanted is not None and array.ndim == len(wanted["shape"]) - 1:
            array = array[None]
        blocks.append(_block(array))
        datatype = wanted["datatype"] if wanted is not None else _datatype(array)
        size = {"binary_data_size": len(blocks[-1])}
        listed.append({"name": name, "datatype": datatype, "shape": array.shape, "parameters": size})
    return msgspec.json.encode({"inputs": listed, "parameters": {"binary_data_output": True}}), b"".join(blocks)


def _datatype(array: Any) -> str:
    """The datatype of an array for an input that the model does not have, which the server names."""
    return next((name for name, dtype in _DTYPES.items() if dtype == array.dtype.name), "BYTES")


def _typed(name: str, array: Any, datatype: str) -> Any:
    if datatype == "BYTES" or array.dtype.name == _DTYPES[datatype]:
        return array
    wrong = BadInput([Problem(f"#/{name}", f"expected {_DTYPES[datatype]}, got {array.dtype.name}")])
    if array.dtype.kind not in "fiu" or datatype == "BOOL":
        raise wrong
    typed = array.astype(_DTYPES[datatype])
    rounded = typed.dtype.kind == "f" and array.dtype.kind == "f"
    if not (rounded or (typed == array).all()):
        raise wrong
    return typed


def _block(array: Any) -> bytes:
    if array.dtype.kind in "OUS":
        texts = (each if isinstance(each, bytes) else str(each).encode() for each in array.ravel().tolist())
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    content: bytes = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return content


def outputs(body: bytes, length: str | None) -> dict[str, Any]:
    """The arrays of an answer by output name."""
    import numpy as np

    end = len(body) if length is None else int(length)
    arrays: dict[str, Any] = {}
    at = end
    for output in msgspec.json.decode(body[:end])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if output["datatype"] == "BYTES":
            values: Any = output["data"] if size is None else _texts(body[at : at + size])
            array = np.array(values, dtype=object)
        elif size is None:
            array = np.array(output["data"], _DTYPES[output["datatype"]])
        else:
            dtype = np.dtype(_DTYPES[output["datatype"]])
            array = np.frombuffer(body, dtype.newbyteorder("<"), size // dtype.itemsize, at).astype(dtype)
        at += size or 0
        arrays[output["name"]] = array.reshape(output["shape"])
    if at != len(body):
        raise EstibaError("The server's answer has binary data that belong to no output.")
    return arrays


def _texts(block: bytes) -> list[str]:
    texts: list[str] = []
    at = 0
    while at < len(block):
        (size,) = struct.unpack_from("<I", block, at)
        texts.append(block[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return texts
