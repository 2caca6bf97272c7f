"""Describe the converted steps of a pipeline whose first steps run in Python."""

from __future__ import annotations

import msgspec

from estiba.model.schema.signature import Field


class Tail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The last steps of a pipeline, converted to ONNX, behind the first ones, which the python engine runs.

    Args:
        python_steps: names of the steps that run in Python; the model file holds them as a list.
        converted_steps: names of the others.
        fields: the columns that the last step in Python hands over, of those that the converted steps read.
        infinite: names of fields that may be infinite, as the original takes that.
        file: path of the ONNX file inside the artifact; its input is the coded matrix of `fields`.
    """

    python_steps: tuple[str, ...]
    converted_steps: tuple[str, ...]
    fields: tuple[Field, ...]
    infinite: tuple[str, ...] = ()
    file: str = "tail.onnx"
