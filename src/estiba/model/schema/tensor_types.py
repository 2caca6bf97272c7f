"""Define tensors in a signature: element types, shapes with free axes, images that become tensors, and size limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from estiba.core.errors import BadProject

ElementType = Literal[
    "float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
    "bool", "string",
]  # fmt: skip

Axis = int | str
"""The length of an axis, or the name of a free one; an empty name where it has none."""

Shape = tuple[Axis, ...]

BatchAxis = Literal["free", "one", "none"]

MAX_ELEMENTS = 2**24
"""Elements of one tensor, unless its field says less."""

MAX_REQUEST_ELEMENTS = 2**25
"""Elements of all tensors of one request together, where memory allows."""

MAX_RANK = 8
"""Axes of a tensor."""


class Image(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The way from the pixels of an image to a tensor: `(pixel * scale - mean) / std`, in float32, for each channel.

    The shape of the field says where the channels are: `[3, "height", "width"]` or `["height", "width", 3]`.

    Args:
        mode: the channels: `rgb`, `bgr` (as OpenCV reads a file) or `gray`.
        scale: factor of each pixel, which is 0 to 255; 0.00392156862745098 is one 255th.
        mean, std: one number for each channel, or one for all.
        resize: stretch an image to the height and width of the field, bilinear; otherwise another size is refused.
    """

    mode: Literal["rgb", "bgr", "gray"] = "rgb"
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: bool = False

    @property
    def channels(self) -> int:
        return 1 if self.mode == "gray" else 3

    def channel_axis(self, shape: Shape) -> int:
        """The position of the channels in a shape: 0, 2, or -1 for gray without an axis of its own.

        Raises:
            BadProject: no image of this mode has that shape.
        """
        if len(shape) == 2 and self.channels == 1:
            return -1
        if len(shape) == 3:
            for axis in (0, 2):
                if shape[axis] == self.channels:
                    return axis
        raise BadProject(
            f"An image in {self.mode} does not fit into a tensor of shape {shape_text(shape)}.",
            hint=f"It needs an axis of {self.channels} for the channels, first or last, beside height and width.",
        )

    def size(self, shape: Shape) -> tuple[Axis, Axis]:
        """Height and width in a shape."""
        axis = self.channel_axis(shape)
        height, width = shape if axis == -1 else (shape[1], shape[2]) if axis == 0 else (shape[0], shape[1])
        return height, width


class TensorOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One output of a model of tensors.

    Args:
        name: as callers see it.
        dtype: the type of its elements.
        shape: of the answer to one record.
        source: its name in the model file, where that is another one.
    """

    name: str
    dtype: ElementType
    shape: Shape = ()
    source: str = ""

    @property
    def origin(self) -> str:
        """Its name in the model file."""
        return self.source or self.name


def shape_text(shape: Sequence[Axis]) -> str:
    """A shape as people read it: `[3, height, ?]`."""
    return f"[{', '.join(str(axis) or '?' for axis in shape)}]"


def is_free(axis: Axis) -> bool:
    return isinstance(axis, str)


def fits(shape: Sequence[Axis], given: Sequence[int]) -> bool:
    """Tell whether a tensor of the shape `given` has the shape of a field. No axis may be empty."""
    return len(shape) == len(given) and all(
        size > 0 and (is_free(axis) or axis == size) for axis, size in zip(shape, given, strict=True)
    )


def elements(shape: Sequence[Axis]) -> int:
    """The number of elements with every free axis at 1."""
    return math.prod(1 if isinstance(axis, str) else axis for axis in shape)


_JSON_TYPES = {"f": "number", "i": "integer", "u": "integer", "b": "boolean", "s": "string"}


def json_schema_of(dtype: str, shape: Sequence[Axis], *, null: bool = False, image: bool = False) -> dict[str, Any]:
    """JSON Schema of a tensor as nested arrays.

    Args:
        null: a number may be null, as one that is not finite is in an answer.
        image: or as a string, which is an image in base64.
    """
    kind: Any = _JSON_TYPES[dtype[0]]
    schema: dict[str, Any] = {"type": [kind, "null"] if null and dtype[0] == "f" else kind}
    for axis in reversed(shape):
        sizes = {"minItems": 1} if isinstance(axis, str) else {"minItems": axis, "maxItems": axis}
        schema = {"type": "array", "items": schema, **({} if null and isinstance(axis, str) else sizes)}
    return {"anyOf": [schema, _PICTURE]} if image else schema


_PICTURE = {"type": "string", "contentEncoding": "base64", "description": "A JPEG or PNG."}


def check_tensor(name: str, dtype: str, shape: Shape, image: Image | None, max_elements: int) -> None:
    """Raise BadProject for a field that contradicts itself, or is beyond the limits."""
    limit = max_elements or MAX_ELEMENTS
    if len(shape) > MAX_RANK or not 0 < limit <= MAX_ELEMENTS or elements(shape) > limit:
        raise BadProject(
            f"The field {name!r} has shape {shape_text(shape)} and at most {limit:,} elements.",
            hint=f"A tensor has at most {MAX_RANK} axes and {MAX_ELEMENTS:,} elements; max_elements may say fewer.",
        )
    if image is not None:
        _check_image(name, dtype, shape, image)


def _check_image(name: str, dtype: str, shape: Shape, image: Image) -> None:
    image.channel_axis(shape)
    scaled = image.scale != 1 or image.mean or image.std
    if dtype not in ("float32", "float64", "float16", "uint8") or (dtype == "uint8" and scaled):
        raise BadProject(
            f"The field {name!r} is {dtype}: an image becomes a tensor of floats, or of uint8 without scale, mean and "
            "std."
        )
    for key, numbers in (("mean", image.mean), ("std", image.std)):
        if len(numbers) not in (0, 1, image.channels):
            raise BadProject(f"image.{key} of {name!r} has {len(numbers)} numbers for {image.channels} channels.")
    if 0 in image.std:
        raise BadProject(f"image.std of {name!r} is 0.")
    if image.resize and any(isinstance(axis, str) for axis in image.size(shape)):
        raise BadProject(
            f"The field {name!r} of shape {shape_text(shape)} leaves height or width free.",
            hint="image.resize needs both: set the field's shape.",
        )
