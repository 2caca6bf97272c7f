"""Golden records of a model of tensors: a few records and the answers that the model file gave, sealed in the artifact.

A tensor may be large, so few records are kept, and of a large answer evenly spread elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadArtifact, ParityError
from estiba.core.suggest import shortened
from estiba.model.artifact.artifact import Parity
from estiba.model.coding.tensor_coder import CodedTensors, TensorCoder
from estiba.model.schema.rows import Prediction
from estiba.model.schema.tensor_types import ElementType

TOLERANCE = 1e-4
"""Least tolerance of tensors: sums in float32 differ that much between processors."""

MAX_RECORDS = 16

MAX_SEALED_ELEMENTS = 2**18
"""Elements of all golden records together; one record is kept whatever its size."""

MAX_ANSWER_ELEMENTS = 4096
"""Elements that are kept of one output of one record."""

Array = npt.NDArray[Any]
Run = Callable[[CodedTensors], Sequence[Prediction]]


class Sealed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tensor: its elements in C order, little endian, or its texts. Of a large answer only `kept(size)` of them."""

    dtype: ElementType
    shape: tuple[int, ...]
    data: bytes = b""
    texts: tuple[str, ...] = ()


class GoldenTensors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Records by field name, and what the model file answered by output name."""

    records: list[dict[str, Sealed]]
    answers: list[dict[str, Sealed]]

    def arrays(self) -> list[dict[str, Array]]:
        """The records as arrays."""
        return [{name: _open(sealed).reshape(sealed.shape) for name, sealed in row.items()} for row in self.records]


def seal(records: Sequence[Mapping[str, Array]], answers: Sequence[Mapping[str, Array]]) -> bytes:
    """The records that are kept of these, and their answers, as the bytes of `golden.json`."""
    left, count = MAX_SEALED_ELEMENTS, 0
    for record in records[:MAX_RECORDS]:
        left -= sum(array.size for array in record.values())
        if left < 0 and count:
            break
        count += 1
    golden = GoldenTensors(
        [{name: _seal(array) for name, array in record.items()} for record in records[:count]],
        [{name: _seal(array, MAX_ANSWER_ELEMENTS) for name, array in answer.items()} for answer in answers[:count]],
    )
    return msgspec.json.encode(golden)


def unseal(content: bytes) -> GoldenTensors:
    """Read golden records of tensors; raises BadArtifact where the content is something else."""
    try:
        golden = msgspec.json.decode(content, type=GoldenTensors)
        golden.arrays()
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise BadArtifact(f"The golden rows cannot be read: {shortened(str(error))}") from error
    if len(golden.records) != len(golden.answers) or not golden.records:
        raise BadArtifact(f"There are {len(golden.records)} golden rows but {len(golden.answers)} answers.")
    return golden


def prove(coder: TensorCoder, golden: GoldenTensors, run: Run, tolerance: float) -> Parity:
    """Ask the golden records again.

    Raises:
        ParityError: an answer differs; names the record and the output.
    """
    answers = run(coder.check(golden.arrays()))
    expected = [{name: (sealed.shape, _open(sealed)) for name, sealed in row.items()} for row in golden.answers]
    got = [{name: (array.shape, _some(array)) for name, array in row.items()} for row in answers]
    return compare(expected, got, tolerance)


Sampled = tuple[tuple[int, ...], Array]
"""The shape of an answer, and those of its elements that are compared."""


def compare(
    expected: Sequence[Mapping[str, Sampled]], got: Sequence[Mapping[str, Sampled]], tolerance: float, note: str = ""
) -> Parity:
    """The proof; raises ParityError for the first answer that differs."""
    worst: dict[str, float] = dict.fromkeys(expected[0], 0.0)
    for number, (before, now) in enumerate(zip(expected, got, strict=True)):
        for name, (shape, values) in before.items():
            shape_now, values_now = now[name]
            difference = _difference(values, values_now) if shape == shape_now else math.inf
            if not difference <= tolerance:
                difference_text = f"off by {difference:.3g}" if shape == shape_now else f"of shape {list(shape_now)}"
                raise ParityError(
                    f"The output {name!r} of golden record {number} is {difference_text}; it was recorded with shape "
                    f"{list(shape)} (tolerance {tolerance:g})."
                )
            worst[name] = max(worst[name], difference)
    return Parity(
        rows=len(expected), max_abs_error=worst, labels_equal=0, labels_total=0, tolerance=tolerance, note=note
    )


def sampled(answers: Sequence[Mapping[str, Array]]) -> list[dict[str, Sampled]]:
    """Answers whole, as `compare` takes them."""
    return [{name: (array.shape, array.ravel()) for name, array in row.items()} for row in answers]


def _difference(expected: Array, got: Array) -> float:
    """The largest difference, absolute below 1 and relative above; infinite where anything but numbers differs."""
    if expected.dtype.kind not in "fiu":
        return 0.0 if np.array_equal(expected, got) else math.inf
    a, b = expected.astype(np.float64), got.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        scaled = np.where(same, 0.0, np.abs(a - b) / np.maximum(1.0, np.abs(a)))
    return float(np.max(np.nan_to_num(scaled, nan=math.inf), initial=0.0))


def _kept(size: int, limit: int) -> npt.NDArray[np.int_]:
    return np.unique(np.linspace(0, max(size - 1, 0), min(size, limit)).astype(int))


def _some(array: Array) -> Array:
    flat = array.ravel()
    return flat[_kept(flat.size, MAX_ANSWER_ELEMENTS)]


def _seal(array: Array, limit: int = 0) -> Sealed:
    flat = array.ravel()
    if limit:
        flat = flat[_kept(flat.size, limit)]
    if array.dtype.kind in "OU":
        return Sealed(dtype="string", shape=array.shape, texts=tuple(map(str, flat.tolist())))
    little = flat.astype(flat.dtype.newbyteorder("<"))
    return Sealed(dtype=cast(ElementType, array.dtype.name), shape=array.shape, data=little.tobytes())


def _open(sealed: Sealed) -> Array:
    if sealed.dtype == "string":
        return np.array(sealed.texts, dtype=object)
    return np.frombuffer(sealed.data, np.dtype(sealed.dtype).newbyteorder("<")).astype(sealed.dtype)
