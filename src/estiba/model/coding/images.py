"""Decode JPEG and PNG to tensors, with limits that are checked before any pixel is made."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.core.errors import EstibaError, MissingExtra
from estiba.model.schema.signature import Field
from estiba.model.schema.tensor_types import MAX_ELEMENTS, Image, Shape, shape_text

MAX_PIXELS = 2**24
"""Pixels of one image."""

MAX_REQUEST_PIXELS = 2**26
"""Pixels of all images of one request together: a file of a few kilobytes may hold as many as one image may have."""

MEDIA_TYPES = (b"image/jpeg", b"image/png")

Array = npt.NDArray[Any]


class PixelBudget:
    """The pixels that the images of one request may still have."""

    def __init__(self) -> None:
        self._left = MAX_REQUEST_PIXELS

    def take(self, pixels: int) -> None:
        """Count an image; raises TooManyElements where the images are too large together."""
        self._left -= pixels
        if self._left < 0:
            raise TooManyElements(f"The images of one request may have {MAX_REQUEST_PIXELS:,} pixels together.")


class TooManyElements(EstibaError):
    """The tensors or images of one request are too large together."""

    status = 413
    exit_code = 2


class NotAnImage(ValueError):
    """The bytes are no image that can be read, or not one of the size that the field takes; says why."""


def decode(content: bytes, field: Field, budget: PixelBudget | None = None) -> Array:
    """The tensor of one record from the bytes of a JPEG or PNG; `field` is one that takes images.

    The orientation that a camera noted in the file is not applied, as most training code does not either.

    Args:
        budget: of the request that the image belongs to.

    Raises:
        NotAnImage: why it cannot be read. TooManyElements: the request has too many pixels.
        MissingExtra: Pillow is not installed.
    """
    image, shape, dtype = field.image, field.shape, field.dtype
    assert image is not None
    pixels = _pixels(content, image, shape, field.max_elements or MAX_ELEMENTS, budget or PixelBudget())
    if image.mode == "bgr":
        pixels = pixels[..., ::-1]
    values: Array = pixels
    if dtype != "uint8":
        values = values.astype(np.float32)
        if image.scale != 1:
            values = values * np.float32(image.scale)
        if image.mean:
            values = values - np.asarray(image.mean, np.float32)
        if image.std:
            values = values / np.asarray(image.std, np.float32)
    axis = image.channel_axis(shape)
    if axis == 0:
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values.reshape(values.shape[:2]) if axis == -1 else values, dtype)


def _pixels(content: bytes, image: Image, shape: Shape, limit: int, budget: PixelBudget) -> npt.NDArray[np.uint8]:
    """The pixels, uint8 of shape (height, width, channels)."""
    try:
        from PIL import Image as pillow
    except ImportError:
        raise MissingExtra("Pillow", "image") from None
    try:
        with pillow.open(io.BytesIO(content), formats=("JPEG", "PNG")) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise NotAnImage(f"an image of {width} x {height} has more than {MAX_PIXELS:,} pixels")
            wanted = image.size(shape)
            _check_size(image, shape, (height, width))
            if not image.resize and height * width * image.channels > limit:
                raise NotAnImage(f"an image of {width} x {height} in {image.mode} has more than {limit:,} elements")
            budget.take(width * height)
            read = opened.convert("L" if image.mode == "gray" else "RGB")
    except (NotAnImage, TooManyElements):
        raise
    except pillow.DecompressionBombError as error:
        raise NotAnImage(f"this image is too large: {error}") from None
    except Exception as error:  # Pillow's plugins raise errors of many kinds for damaged files
        reason = f"{error}".partition("<")[0].strip()
        raise NotAnImage(f"expected a JPEG or PNG, and these bytes are not one ({reason})") from None
    if image.resize and wanted != (height, width):
        read = read.resize((int(wanted[1]), int(wanted[0])), pillow.Resampling.BILINEAR)
    return np.asarray(read).reshape(read.height, read.width, image.channels)


def _check_size(image: Image, shape: Shape, given: tuple[int, int]) -> None:
    wanted = image.size(shape)
    same = all(isinstance(axis, str) or axis == size for axis, size in zip(wanted, given, strict=True))
    if not image.resize and not same:
        raise NotAnImage(
            f"expected an image of height and width {shape_text(wanted)}, got {shape_text(given)}; "
            "the field does not resize"
        )
