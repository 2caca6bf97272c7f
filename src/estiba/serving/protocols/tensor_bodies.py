"""Bodies of requests for models of tensors, the same for all protocols: limits, choice of outputs, arrays in JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadRequest
from estiba.core.suggest import did_you_mean
from estiba.model.coding.coder import Warned
from estiba.model.schema.rows import NOT_FINITE, Prediction
from estiba.model.schema.signature import Head
from estiba.model.schema.tensor_types import shape_text
from estiba.serving.protocols.body_parsing import TooManyRows as TooMany
from estiba.serving.protocols.body_parsing import has_more

MAX_JSON_ELEMENTS = 2**22
"""Numbers in a body of JSON; each costs up to 40 bytes of memory, so more are sent as .npy or binary."""

MAX_JSON_ARRAYS = 2**19
"""Arrays in a body of JSON, the innermost included."""


def check_json(body: bytes | bytearray) -> None:
    """Raise an error of status 413 for JSON of more values or arrays than MAX_JSON_ELEMENTS and MAX_JSON_ARRAYS.

    They are counted before anything is made of them.
    """
    for signs, most, what in ((b",{", MAX_JSON_ELEMENTS, "values"), (b"[", MAX_JSON_ARRAYS, "arrays")):
        if has_more(body, signs, most):
            raise TooMany(f"The body has more than {most:,} {what}; send that much as .npy or as binary tensors.")


def chosen_outputs(head: Head, wanted: Any) -> tuple[str, ...]:
    """The outputs to answer with, all by default.

    Raises:
        BadRequest: the model has no such output, or one is named twice.
    """
    names = [output.name for output in head.tensors]
    if wanted is None:
        return tuple(names)
    given = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(given, list) or not given or not all(isinstance(name, str) for name in given):
        raise BadRequest("The outputs to answer with are an array of names, or one name.")
    for name in given:
        if name not in names:
            raise BadRequest(f"The model has no output {name!r}{did_you_mean(name, names)}")
    if len(set(given)) < len(given):
        raise BadRequest("An output is named twice.")
    return tuple(given)


def plain(predictions: Sequence[Prediction], names: Iterable[str]) -> list[dict[str, Any]]:
    """Predictions with nested lists in place of arrays."""
    wanted = tuple(names)
    return [{name: row[name].tolist() for name in wanted} for row in predictions]


def not_finite(predictions: Sequence[Prediction], names: Iterable[str]) -> list[Warned]:
    """A warning about each output with NaN or infinity, which JSON shows as null."""
    wanted = tuple(names)
    return [
        Warned(NOT_FINITE, number, name)
        for number, row in enumerate(predictions)
        for name in wanted
        if row[name].dtype.kind == "f" and not np.isfinite(row[name]).all()
    ]


def together(predictions: Sequence[Prediction], name: str, batch: str) -> npt.NDArray[Any]:
    """One output of all records as one array, whose first axis counts them unless a record is a whole run.

    Raises:
        BadRequest: the records were answered with arrays of different shapes, or there are several whole runs.
    """
    arrays = [row[name] for row in predictions]
    if batch == "none":
        if len(arrays) > 1:
            raise BadRequest("One array can hold the answer to one record of this model, not to several.")
        only: npt.NDArray[Any] = arrays[0]
        return only
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        listed = ", ".join(sorted(map(shape_text, shapes)))
        raise BadRequest(
            f"The output {name!r} has arrays of different shapes for these records: {listed}.",
            hint="Send records of one shape together, or ask for JSON.",
        )
    return np.stack(arrays)
